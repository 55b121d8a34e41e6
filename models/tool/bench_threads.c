#include "models/tool/bench_threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "models/tool/bench_measure.h"

/* ---- helpers ------------------------------------------------------------------------------------------------------------- */

struct bench_helpers {
  struct hwgq_team *team;
  atomic_bool stop;
  int count;
  pthread_t threads[HWGQ_MAX_HELPERS];
};

static void *help(void *argument) {
  struct bench_helpers *helpers = argument;
  while (!atomic_load(&helpers->stop)) {
    if (!hwgq_team_help(helpers->team, NULL, NULL)) sched_yield();
  }
  return NULL;
}

enum hwgq_status bench_helpers_start(int count, struct bench_helpers **helpers, struct hwgq_error *error) {
  struct bench_helpers *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: no memory for threads");
  enum hwgq_status status = hwgq_team_create(count, NULL, NULL, &made->team, error);
  while (!status && made->count < count) {
    if (pthread_create(&made->threads[made->count], NULL, help, made)) {
      status = hwgq_fail(error, HWGQ_ERROR_IO, "bench: cannot start %d threads: use fewer", count);
    } else {
      made->count++;
    }
  }
  if (status) {
    bench_helpers_stop(made);
    return status;
  }
  *helpers = made;
  return HWGQ_OK;
}

struct hwgq_team *bench_helpers_team(const struct bench_helpers *helpers) {
  return helpers->team;
}

void bench_helpers_stop(struct bench_helpers *helpers) {
  if (!helpers) return;
  atomic_store(&helpers->stop, true);
  for (int i = 0; i < helpers->count; i++) pthread_join(helpers->threads[i], NULL);
  hwgq_team_destroy(helpers->team);
  free(helpers);
}

/* ---- runs side by side --------------------------------------------------------------------------------------------------- */

enum signal { WAIT, GO, CANCEL };
enum { WARM_UP = 4 }; /* runs that bring weights and scratch memory to the core */

struct runner {
  const struct hwgq_plan *plan;
  const uint8_t *pixels;
  const atomic_int *start; /* enum signal */
  atomic_int *warm;        /* how many wait for it */
  int runs;
  void *scratch;
  float *scores;
  pthread_t thread;
};

static void run(struct runner *runner, int runs) {
  for (int i = 0; i < runs; i++) hwgq_run(runner->plan, runner->scratch, runner->pixels, runner->scores);
}

static void *run_when_told(void *argument) {
  struct runner *runner = argument;
  run(runner, WARM_UP);
  atomic_fetch_add(runner->warm, 1);
  while (atomic_load(runner->start) == WAIT) sched_yield();
  if (atomic_load(runner->start) == GO) run(runner, runner->runs);
  return NULL;
}

static void release(struct runner *runners, int count) {
  for (int i = 0; i < count; i++) {
    free(runners[i].scratch);
    free(runners[i].scores);
  }
  free(runners);
}

enum hwgq_status bench_throughput(const struct hwgq_plan *plan, const uint8_t *pixels, int workers, int runs,
                                  double *per_second, struct hwgq_error *error) {
  struct runner *runners = calloc((size_t)workers, sizeof *runners);
  atomic_int start = WAIT, warm = 0;
  if (!runners) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: no memory for %d runs at once", workers);
  bool ready = true;
  for (int i = 0; i < workers; i++) {
    runners[i] = (struct runner){.plan = plan,
                                 .pixels = pixels,
                                 .start = &start,
                                 .warm = &warm,
                                 .runs = runs,
                                 .scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan)),
                                 .scores = malloc((size_t)hwgq_plan_output_count(plan) * sizeof(float))};
    ready &= runners[i].scratch && runners[i].scores;
  }
  int started = 1; /* this thread is the first of them */
  while (ready && started < workers) {
    ready = pthread_create(&runners[started].thread, NULL, run_when_told, &runners[started]) == 0;
    started += ready;
  }
  if (ready) run(&runners[0], WARM_UP);
  while (atomic_load(&warm) < started - 1) sched_yield();
  const double begin = bench_seconds();
  atomic_store(&start, ready ? GO : CANCEL);
  if (ready) run(&runners[0], runs);
  for (int i = 1; i < started; i++) pthread_join(runners[i].thread, NULL);
  *per_second = (double)workers * runs / (bench_seconds() - begin);
  release(runners, workers);
  return ready ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: no memory or threads for %d runs at once", workers);
}
