/* Threads for `hwgq bench`: helpers of one run, and runs side by side. */
#ifndef BENCH_THREADS_H
#define BENCH_THREADS_H

#include "engine/hwgq.h"

enum { BENCH_MAX_THREADS = HWGQ_MAX_HELPERS + 1 };

/* Threads that help with every run of a team until they are stopped. */
struct bench_helpers;
enum hwgq_status bench_helpers_start(int count, struct bench_helpers **helpers, struct hwgq_error *error);
struct hwgq_team *bench_helpers_team(const struct bench_helpers *helpers);
/* NULL is allowed. */
void bench_helpers_stop(struct bench_helpers *helpers);

/* `workers` threads that start together and run `runs` images each. *per_second: images of all of them per second. */
enum hwgq_status bench_throughput(const struct hwgq_plan *plan, const uint8_t *pixels, int workers, int runs,
                                  double *per_second, struct hwgq_error *error);

#endif
