/* Timing for `hwgq bench`. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include "engine/hwgq.h"

struct bench_spread {
  double median, least, most;
};

/* Whether a measurement can be trusted. The rule: it is noisy when
 *   the median run took over 10 % longer than the fastest one,
 *   or the core clock before and after differs by over 5 %,
 *   or the measuring threads had their cores for under 95 % of the time (their processor time over the time that passed). */
struct bench_noise {
  double median_over_least;
  double clock_change; /* larger over smaller clock, minus 1; 0 where the clock is not measured */
  double core_share;   /* 1: all of the time */
};
enum bench_noise_kind { BENCH_QUIET, BENCH_SLOW_RUNS, BENCH_CLOCK, BENCH_CORE_TAKEN };
/* The first part of the rule that is broken. */
enum bench_noise_kind bench_noise_kind(const struct bench_noise *noise);

struct bench_measurement {
  char cpu[128];
  double hertz; /* core clock; 0: not measured */
  struct bench_noise noise;
  int stages, runs;
  struct bench_spread *stage; /* microseconds: [stages], then the total, then the total of one thread when there are several */
  int threads, workers;
  double per_second[2]; /* images by one worker, and by all; medians of rounds that take turns */
};

/* CLOCK_MONOTONIC */
double bench_seconds(void);
/* Core clock in Hz by dependent 64-bit multiplications, three cycles each on every x86-64 of the last decade; the fastest of
 * several tries, as a pause can only make one slower. 0 on other architectures, where the latency differs. */
double bench_core_clock(void);
void bench_cpu_model(char name[128]);
/* Sorts `values`. */
struct bench_spread bench_spread_of(double *values, int count);
/* Processor time of the calling thread. */
double bench_cpu_seconds(void);

/* One timed run after another: every stage once per run, so that all stages see the same phases of the machine. With a team
 * (m->threads > 1), runs of one thread take turns with the team's. Fills all but cpu, threads, workers and per_second;
 * m->stage is malloc'ed. */
enum hwgq_status bench_measure(const struct hwgq_plan *plan, const uint8_t *pixels, int runs, struct hwgq_team *team,
                               struct bench_measurement *m, struct hwgq_error *error);
/* Fills per_second. */
enum hwgq_status bench_measure_workers(const struct hwgq_plan *plan, const uint8_t *pixels, int runs,
                                       struct bench_measurement *m, struct hwgq_error *error);

#endif
