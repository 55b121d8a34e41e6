/* What `hwgq bench` prints. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "models/classify/text.h"
#include "models/tool/bench_layers.h"
#include "models/tool/bench_measure.h"

/* `layers`: of the plan, with the total behind. */
void bench_write_table(struct text *out, const char *what, const struct hwgq_plan *plan, const struct bench_layer *layers,
                       const struct bench_measurement *m);
void bench_write_json(struct text *out, const char *what, const struct hwgq_plan *plan, const struct bench_layer *layers,
                      const struct bench_measurement *m);

/* "warning: ..." and a line end when the machine was too noisy. */
void bench_write_warning(struct text *out, const struct bench_noise *noise);
/* "noisy":false,"noise":{...} */
void bench_json_noise(struct text *out, const struct bench_noise *noise);
/* {"median":1,"min":1,"max":1} */
void bench_json_spread(struct text *out, const struct bench_spread *spread);

#endif
