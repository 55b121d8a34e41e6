#include "models/tool/bench_sets.h"

#include <stdlib.h>

#include "models/tool/bench_report.h"

static const char *const names[] = {"scalar", "avx2", "avx512", "neon"};
enum { SETS = sizeof names / sizeof *names };

struct set {
  struct hwgq_plan *plan;
  void *scratch;
  float *scores;
  double *times; /* [runs], microseconds */
  struct bench_spread spread;
};

struct sets {
  struct set set[SETS];
  int count;
  double hertz;
  uint64_t macs;
  struct bench_noise noise;
};

static enum hwgq_status prepare(const struct bench_sets_options *options, struct sets *sets, struct hwgq_error *error) {
  for (int i = 0; i < SETS; i++) {
    if (!hwgq_cpu_supports(names[i])) continue;
    struct set *set = &sets->set[sets->count++];
    const struct hwgq_plan_options plan = {.cpu = names[i], .form = options->form};
    enum hwgq_status status = hwgq_plan_create(options->network, options->preprocess, &plan, &set->plan, error);
    if (status) return status;
    set->scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(set->plan));
    set->scores = malloc((size_t)hwgq_plan_output_count(set->plan) * sizeof *set->scores);
    set->times = malloc((size_t)options->runs * sizeof *set->times);
    if (!set->scratch || !set->scores || !set->times) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  }
  return HWGQ_OK;
}

/* Each turn starts with another set. Two runs of a set follow each other and the second counts: it finds its own weights in the
 * caches, as when the set runs alone. */
static void time_sets(const struct bench_sets_options *options, struct sets *sets) {
  enum { WARM_UP = 3 };
  const double before = bench_core_clock();
  const double begin = bench_seconds(), cpu_begin = bench_cpu_seconds();
  for (int run = -WARM_UP; run < options->runs; run++) {
    for (int i = 0; i < sets->count; i++) {
      struct set *set = &sets->set[(run + WARM_UP + i) % sets->count];
      hwgq_run(set->plan, set->scratch, options->pixels, set->scores);
      const double start = bench_seconds();
      hwgq_run(set->plan, set->scratch, options->pixels, set->scores);
      if (run >= 0) set->times[run] = (bench_seconds() - start) * 1e6;
    }
  }
  sets->noise.core_share = (bench_cpu_seconds() - cpu_begin) / (bench_seconds() - begin);
  const double after = bench_core_clock(), least = before < after ? before : after;
  sets->hertz = before > after ? before : after;
  if (least > 0) sets->noise.clock_change = sets->hertz / least - 1;
  for (int i = 0; i < sets->count; i++) {
    struct set *set = &sets->set[i];
    set->spread = bench_spread_of(set->times, options->runs);
    const double ratio = set->spread.median / set->spread.least;
    if (ratio > sets->noise.median_over_least) sets->noise.median_over_least = ratio;
  }
}

static double per_cycle(const struct sets *sets, const struct set *set) {
  return sets->hertz > 0 ? (double)sets->macs / (set->spread.median * 1e-6 * sets->hertz) : 0;
}

static void write_text(struct text *out, const struct bench_sets_options *options, const struct sets *sets) {
  char cpu[128];
  bench_cpu_model(cpu);
  text_printf(out, "%s\n%s, ", options->what, cpu);
  if (sets->hertz > 0) text_printf(out, "%.2f GHz measured, ", sets->hertz / 1e9);
  text_printf(out, "one thread, one image at a time, %d runs that take turns, %llu MACs\n\n", options->runs,
              (unsigned long long)sets->macs);
  text_printf(out, "%-12s %10s %10s %10s %11s\n", "kernel set", "us median", "min", "max", "MACs/cycle");
  for (int i = sets->count - 1; i >= 0; i--) {
    const struct set *set = &sets->set[i];
    text_printf(out, "%-12s %10.1f %10.1f %10.1f", hwgq_plan_cpu(set->plan), set->spread.median, set->spread.least,
                set->spread.most);
    if (sets->hertz > 0) text_printf(out, " %11.1f", per_cycle(sets, set));
    text_puts(out, "\n");
  }
  bench_write_warning(out, &sets->noise);
}

static void write_json(struct text *out, const struct bench_sets_options *options, const struct sets *sets) {
  char cpu[128];
  bench_cpu_model(cpu);
  text_puts(out, "{\"network\":");
  text_json_string(out, options->what);
  text_puts(out, ",\"cpu\":");
  text_json_string(out, cpu);
  text_printf(out, ",\"clock_ghz\":%.3f,\"threads\":1,\"batch\":1,\"runs\":%d,\"macs\":%llu,", sets->hertz / 1e9, options->runs,
              (unsigned long long)sets->macs);
  bench_json_noise(out, &sets->noise);
  text_puts(out, ",\"sets\":[");
  for (int i = 0; i < sets->count; i++) {
    const struct set *set = &sets->set[i];
    text_printf(out, "%s{\"kernels\":\"%s\",\"us\":", i ? "," : "", hwgq_plan_cpu(set->plan));
    bench_json_spread(out, &set->spread);
    text_printf(out, ",\"macs_per_cycle\":%.2f}", per_cycle(sets, set));
  }
  text_puts(out, "]}\n");
}

enum hwgq_status bench_sets(const struct bench_sets_options *options, struct text *out, struct hwgq_error *error) {
  struct sets sets = {.count = 0};
  enum hwgq_status status = prepare(options, &sets, error);
  for (int i = 0; i < options->network->layer_count; i++) {
    sets.macs += hwgq_layer_macs(options->network, &options->network->layers[i]);
  }
  if (!status) {
    time_sets(options, &sets);
    if (options->json) {
      write_json(out, options, &sets);
    } else {
      write_text(out, options, &sets);
    }
  }
  for (int i = 0; i < sets.count; i++) {
    free(sets.set[i].times);
    free(sets.set[i].scores);
    free(sets.set[i].scratch);
    hwgq_plan_destroy(sets.set[i].plan);
  }
  return status;
}
