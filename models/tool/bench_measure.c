#include "models/tool/bench_measure.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "models/tool/bench_threads.h"

/* ---- the machine --------------------------------------------------------------------------------------------------------- */

double bench_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double bench_core_clock(void) {
  double best = 0;
#if defined(__x86_64__)
  enum { COUNT = 300000, TRIES = 8 };
  for (int t = 0; t < TRIES; t++) {
    uint64_t x = 3;
    const double start = bench_seconds();
    for (int i = 0; i < COUNT; i++) {
      x *= 0x9e3779b97f4a7c15u;
      __asm__ volatile("" : "+r"(x)); /* the loop must run as written */
    }
    best = fmax(best, 3.0 * COUNT / (bench_seconds() - start));
  }
#endif
  return best;
}

void bench_cpu_model(char name[128]) {
  snprintf(name, 128, "unknown CPU");
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return;
  char line[256];
  while (fgets(line, sizeof line, file)) {
    char *colon = strchr(line, ':');
    const bool part = strncmp(line, "CPU part", 8) == 0; /* all that ARM's have: a number that stands for the core */
    if ((strncmp(line, "model name", 10) != 0 && !part) || !colon) continue;
    line[strcspn(line, "\n")] = '\0';
    snprintf(name, 128, "%s%.100s", part ? "ARM CPU part " : "", colon + 1 + strspn(colon + 1, " "));
    break;
  }
  fclose(file);
}

double bench_cpu_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

struct bench_spread bench_spread_of(double *values, int count) {
  qsort(values, (size_t)count, sizeof *values, ascending);
  return (struct bench_spread){values[count / 2], values[0], values[count - 1]};
}

enum bench_noise_kind bench_noise_kind(const struct bench_noise *noise) {
  if (noise->median_over_least > 1.10) return BENCH_SLOW_RUNS;
  if (noise->clock_change > 0.05) return BENCH_CLOCK;
  return noise->core_share < 0.95 ? BENCH_CORE_TAKEN : BENCH_QUIET;
}

/* ---- runs ---------------------------------------------------------------------------------------------------------------- */

/* Memory of a measurement. */
struct recorder {
  size_t stages, runs;
  double *times; /* [columns][runs], microseconds; columns as in struct bench_measurement */
  uint64_t *one; /* [stages], nanoseconds of a run */
  void *scratch;
  float *scores;
};

/* Stage times of the last run to times[stage][run], their sum to times[column][run]. */
static void record(const struct recorder *r, size_t run, size_t column) {
  uint64_t total = 0;
  for (size_t s = 0; s < r->stages; s++) {
    r->times[s * r->runs + run] = (double)r->one[s] * 1e-3;
    total += r->one[s];
  }
  r->times[column * r->runs + run] = (double)total * 1e-3;
}

static void run_once(const struct recorder *r, const struct hwgq_plan *plan, const uint8_t *pixels, struct hwgq_team *team,
                     int run) {
  hwgq_run_profiled(plan, r->scratch, pixels, r->scores, r->one);
  if (run >= 0) record(r, (size_t)run, r->stages + (team != NULL));
  if (!team) return;
  hwgq_run_team(plan, r->scratch, pixels, r->scores, team, r->one);
  if (run >= 0) record(r, (size_t)run, r->stages);
}

static void time_runs(const struct recorder *r, const struct hwgq_plan *plan, const uint8_t *pixels, struct hwgq_team *team,
                      struct bench_measurement *m) {
  const int warm_up = m->runs / 10 + 3;
  for (int run = -warm_up; run < 0; run++) run_once(r, plan, pixels, team, run);
  const double before = bench_core_clock();
  const double start = bench_seconds(), cpu_start = bench_cpu_seconds();
  for (int run = 0; run < m->runs; run++) run_once(r, plan, pixels, team, run);
  m->noise.core_share = (bench_cpu_seconds() - cpu_start) / (bench_seconds() - start);
  const double after = bench_core_clock();
  m->hertz = fmax(before, after);
  if (m->hertz > 0) m->noise.clock_change = m->hertz / fmin(before, after) - 1;
  for (size_t s = 0; s < r->stages + 1 + (team != NULL); s++) {
    m->stage[s] = bench_spread_of(r->times + s * r->runs, m->runs);
  }
  m->noise.median_over_least = m->stage[r->stages].median / m->stage[r->stages].least;
}

enum hwgq_status bench_measure(const struct hwgq_plan *plan, const uint8_t *pixels, int runs, struct hwgq_team *team,
                               struct bench_measurement *m, struct hwgq_error *error) {
  const size_t stages = (size_t)hwgq_plan_stage_count(plan), columns = stages + 2;
  struct recorder r = {.stages = stages,
                       .runs = (size_t)runs,
                       .times = calloc(columns * (size_t)runs, sizeof *r.times),
                       .one = calloc(stages, sizeof *r.one),
                       .scratch = aligned_alloc(64, hwgq_plan_team_scratch_bytes(plan, m->threads - 1)),
                       .scores = calloc((size_t)hwgq_plan_output_count(plan), sizeof *r.scores)};
  m->stage = calloc(columns, sizeof *m->stage);
  m->stages = (int)stages;
  m->runs = runs;
  const bool ready = r.times && r.one && r.scratch && r.scores && m->stage;
  if (ready) time_runs(&r, plan, pixels, team, m);
  free(r.scores);
  free(r.scratch);
  free(r.one);
  free(r.times);
  if (ready) return HWGQ_OK;
  free(m->stage);
  m->stage = NULL;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory; try fewer runs than %d", runs);
}

/* ---- workers ------------------------------------------------------------------------------------------------------------- */

enum hwgq_status bench_measure_workers(const struct hwgq_plan *plan, const uint8_t *pixels, int runs,
                                       struct bench_measurement *m, struct hwgq_error *error) {
  enum { ROUNDS = 9 };
  double rates[2][ROUNDS];
  enum hwgq_status status = HWGQ_OK;
  for (int round = 0; round < 2 * ROUNDS && !status; round++) {
    status = bench_throughput(plan, pixels, round % 2 ? m->workers : 1, runs, &rates[round % 2][round / 2], error);
  }
  for (int i = 0; i < 2 && !status; i++) m->per_second[i] = bench_spread_of(rates[i], ROUNDS).median;
  return status;
}
