/* `hwgq bench --sets`: a whole network on every kernel set that this CPU has. */
#ifndef BENCH_SETS_H
#define BENCH_SETS_H

#include "engine/hwgq.h"
#include "models/classify/text.h"

struct bench_sets_options {
  const char *what;
  const struct hwgq_network *network;
  const struct hwgq_preprocess *preprocess;
  const char *form; /* as in struct hwgq_plan_options */
  const uint8_t *pixels;
  int runs;
  bool json;
};

/* Runs of the sets take turns, so that a busy machine slows all alike; timed around hwgq_run. Writes the report. */
enum hwgq_status bench_sets(const struct bench_sets_options *options, struct text *out, struct hwgq_error *error);

#endif
