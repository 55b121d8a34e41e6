/* bench_load MODEL...: milliseconds of processor time from a .hwgq file to a plan that can run (read, check, fold, pack); the
 * median of several loads, one line a model. The file is in the page cache by then. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/hwgq.h"

enum { LOADS = 9 };

static double cpu_milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    double times[LOADS];
    for (int j = 0; j < LOADS; j++) {
      struct hwgq_model *model = NULL;
      struct hwgq_plan *plan = NULL;
      struct hwgq_error error;
      const double start = cpu_milliseconds();
      if (hwgq_model_read(argv[i], &model, &error) ||
          hwgq_plan_create(model->network, &model->preprocess, &(struct hwgq_plan_options){0}, &plan, &error)) {
        fprintf(stderr, "bench_load: %s\n", error.message);
        hwgq_model_destroy(model);
        return 1;
      }
      times[j] = cpu_milliseconds() - start;
      hwgq_plan_destroy(plan);
      hwgq_model_destroy(model);
    }
    qsort(times, LOADS, sizeof *times, ascending);
    printf("%.1f\n", times[LOADS / 2]);
  }
  return 0;
}
