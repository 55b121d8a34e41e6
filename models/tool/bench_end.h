/* `hwgq bench --end-to-end`: images per second from the bytes of image files to scores, without HTTP: what the daemon could
 * reach at best on as many cores. */
#ifndef BENCH_END_H
#define BENCH_END_H

#include "engine/hwgq.h"
#include "models/classify/text.h"

struct bench_end_options {
  const char *what, *model, *cpu; /* what: the model's name in the report; model: its file */
  char **images;                  /* files; none: a JPEG of 32x32 pixels that is made up */
  int image_count;
  int workers;
  double seconds; /* of all rounds together */
  bool json;
};

enum { BENCH_MAX_WORKERS = 1024 };

/* Measures, and writes the report. */
enum hwgq_status bench_end_to_end(const struct bench_end_options *options, struct text *out, struct hwgq_error *error);

#endif
