/* `hwgq bench`: how long each stage of a network takes, on one core or on several. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "models/classify/text.h"
#include "models/tool/bench_threads.h"
#include "models/tool/network_choice.h"

enum { CALIBRATION_IMAGES = 2 };

struct options {
  const char *model, *cpu, *form;
  struct network_choice choice; /* instead of a model */
  int runs, threads, workers;
  bool json;
};

/* ---- measuring
 * --------------------------------------------------------------------------------------------------------------- */

/* Core clock in Hz by dependent 64-bit multiplications, three cycles each on every x86-64 of the last decade; the fastest of
 * several tries, as a pause can only make one slower. 0 on other architectures, where the latency differs. */
#if defined(__x86_64__)
static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static double core_clock(void) {
  enum { COUNT = 300000, TRIES = 8 };
  double best = 0;
  for (int t = 0; t < TRIES; t++) {
    uint64_t x = 3;
    const double start = seconds();
    for (int i = 0; i < COUNT; i++) {
      x *= 0x9e3779b97f4a7c15u;
      __asm__ volatile("" : "+r"(x)); /* the loop must run as written */
    }
    const double hertz = 3.0 * COUNT / (seconds() - start);
    if (hertz > best) best = hertz;
  }
  return best;
}
#else
static double core_clock(void) {
  return 0;
}
#endif

static void cpu_model(char name[128]) {
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

struct spread {
  double median, least, most; /* microseconds */
};

static int ascending(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static struct spread spread_of(uint64_t *nanoseconds, int count) {
  qsort(nanoseconds, (size_t)count, sizeof *nanoseconds, ascending);
  return (struct spread){(double)nanoseconds[count / 2] / 1e3, (double)nanoseconds[0] / 1e3,
                         (double)nanoseconds[count - 1] / 1e3};
}

struct measurement {
  char cpu[128];
  double hertz;
  int stages, runs;
  struct spread *stage; /* [stages], then the total, then the total of one thread when there are several */
  int threads, workers;
  double per_second[2]; /* images by one worker, and by all; medians of rounds that take turns */
};

/* Stage times of one run to times[stage * runs + run], and their sum behind them. */
static void record(const uint64_t *one, size_t stages, size_t runs, size_t run, uint64_t *times) {
  uint64_t total = 0;
  for (size_t s = 0; s < stages; s++) {
    times[s * runs + run] = one[s];
    total += one[s];
  }
  times[stages * runs + run] = total;
}

/* One timed run after another; every stage's times, and their sum, become spreads. With a team, runs of one thread take turns
 * with the team's. */
static bool measure(const struct hwgq_plan *plan, struct hwgq_shape shape, int runs, struct hwgq_team *team,
                    struct measurement *m) {
  const size_t stages = (size_t)hwgq_plan_stage_count(plan), columns = stages + 2, rows = (size_t)runs;
  uint64_t *times = calloc(columns * rows, sizeof *times), *one = calloc(stages, sizeof *one);
  void *scratch = aligned_alloc(64, hwgq_plan_team_scratch_bytes(plan, m->threads - 1));
  float *scores = calloc((size_t)hwgq_plan_output_count(plan), sizeof *scores);
  uint8_t *pixels = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width);
  m->stage = calloc(columns, sizeof *m->stage);
  m->stages = (int)stages;
  m->runs = runs;
  const bool ready = times && one && scratch && scores && pixels && m->stage;
  if (ready) {
    networks_image(shape, 1, CALIBRATION_IMAGES, pixels);
    const int warm_up = runs / 10 + 3;
    m->hertz = core_clock();
    for (int run = -warm_up; run < runs; run++) {
      hwgq_run_profiled(plan, scratch, pixels, scores, one);
      if (run >= 0) record(one, stages, rows, (size_t)run, times);
      if (!team) continue;
      if (run >= 0) times[(stages + 1) * rows + (size_t)run] = times[stages * rows + (size_t)run];
      hwgq_run_team(plan, scratch, pixels, scores, team, one);
      if (run >= 0) record(one, stages, rows, (size_t)run, times);
    }
    m->hertz = fmax(m->hertz, core_clock());
    for (size_t s = 0; s < columns; s++) m->stage[s] = spread_of(times + s * rows, runs);
  }
  free(pixels);
  free(scores);
  free(scratch);
  free(one);
  free(times);
  return ready;
}

static int descending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return x > y ? -1 : x < y;
}

static enum hwgq_status measure_workers(const struct hwgq_plan *plan, struct hwgq_shape shape, int runs, struct measurement *m,
                                        struct hwgq_error *error) {
  enum { ROUNDS = 9 };
  double rates[2][ROUNDS];
  uint8_t *pixels = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width);
  if (!pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  networks_image(shape, 1, CALIBRATION_IMAGES, pixels);
  enum hwgq_status status = HWGQ_OK;
  for (int round = 0; round < 2 * ROUNDS && !status; round++) {
    status = bench_throughput(plan, pixels, round % 2 ? m->workers : 1, runs, &rates[round % 2][round / 2], error);
  }
  for (int i = 0; i < 2 && !status; i++) {
    qsort(rates[i], ROUNDS, sizeof rates[i][0], descending);
    m->per_second[i] = rates[i][ROUNDS / 2];
  }
  free(pixels);
  return status;
}

static double macs_per_cycle(const struct measurement *m, uint64_t macs, const struct spread *spread) {
  return m->hertz > 0 && spread->median > 0 ? (double)macs / (spread->median * 1e-6 * m->hertz) : 0;
}

/* ---- printing
 * ---------------------------------------------------------------------------------------------------------------- */

static uint64_t total_macs(const struct hwgq_plan *plan) {
  uint64_t macs = 0;
  for (int s = 0; s < hwgq_plan_stage_count(plan); s++) macs += hwgq_plan_stage(plan, s).macs;
  return macs;
}

static bool is_noisy(const struct spread *total) {
  return total->median > 1.1 * total->least;
}

static void table_row(struct text *out, const char *name, const char *kernel, uint64_t macs, const struct spread *spread,
                      double rate) {
  text_printf(out, "%-20.20s %-28.28s %12llu %10.1f %10.1f %10.1f", name, kernel, (unsigned long long)macs, spread->median,
              spread->least, spread->most);
  if (rate > 0) text_printf(out, " %10.1f", rate);
  text_puts(out, "\n");
}

static void write_table(struct text *out, const char *what, const struct hwgq_plan *plan, const struct measurement *m) {
  const struct spread *total = &m->stage[m->stages];
  char clock[32] = "clock not measured";
  if (m->hertz > 0) snprintf(clock, sizeof clock, "%.2f GHz measured", m->hertz / 1e9);
  text_printf(out, "%s\n%s, %s, kernel set %s, %d thread%s, one image at a time, %d runs\n\n", what, m->cpu, clock,
              hwgq_plan_cpu(plan), m->threads, m->threads > 1 ? "s" : "", m->runs);
  text_printf(out, "%-20s %-28s %12s %10s %10s %10s %10s\n", "stage", "kernel", "MACs", "us median", "min", "max",
              "MACs/cycle");
  for (int s = 0; s < m->stages; s++) {
    const struct hwgq_stage_info info = hwgq_plan_stage(plan, s);
    table_row(out, info.name, info.kernel, info.macs, &m->stage[s], macs_per_cycle(m, info.macs, &m->stage[s]));
  }
  table_row(out, "total", "", total_macs(plan), total, macs_per_cycle(m, total_macs(plan), total));
  text_printf(out, "\nplan (weights, thresholds) %.0f kB, scratch memory of a run %.0f kB\n",
              (double)hwgq_plan_bytes(plan) / 1e3, (double)hwgq_plan_scratch_bytes(plan) / 1e3);
  if (m->threads > 1) {
    const struct spread *one = &m->stage[m->stages + 1];
    text_printf(out, "one thread, runs taking turns: median %.1f, min %.1f us; %d threads take %.3f and %.3f of that\n",
                one->median, one->least, m->threads, total->median / one->median, total->least / one->least);
  }
  if (m->workers) {
    text_printf(out, "images per second: one worker %.1f, %d workers %.1f, %.3f times as many\n", m->per_second[0], m->workers,
                m->per_second[1], m->per_second[1] / m->per_second[0]);
  }
  if (is_noisy(total)) {
    text_printf(out, "warning: the median run took %.0f %% longer than the fastest; something else uses this machine\n",
                100 * (total->median / total->least - 1));
  }
}

static void json_spread(struct text *out, uint64_t macs, const struct measurement *m, const struct spread *spread) {
  text_printf(out, "\"macs\":%llu,\"us\":{\"median\":%.3f,\"min\":%.3f,\"max\":%.3f},\"macs_per_cycle\":%.2f",
              (unsigned long long)macs, spread->median, spread->least, spread->most, macs_per_cycle(m, macs, spread));
}

static void write_json(struct text *out, const char *what, const struct hwgq_plan *plan, const struct measurement *m) {
  const struct spread *total = &m->stage[m->stages];
  text_puts(out, "{\"network\":");
  text_json_string(out, what);
  text_puts(out, ",\"cpu\":");
  text_json_string(out, m->cpu);
  text_printf(out, ",\"clock_ghz\":%.3f,\"kernels\":\"%s\",\"threads\":%d,\"batch\":1,\"runs\":%d,\"noisy\":%s,\"stages\":[",
              m->hertz / 1e9, hwgq_plan_cpu(plan), m->threads, m->runs, is_noisy(total) ? "true" : "false");
  for (int s = 0; s < m->stages; s++) {
    const struct hwgq_stage_info info = hwgq_plan_stage(plan, s);
    text_puts(out, s ? ",{\"name\":" : "{\"name\":");
    text_json_string(out, info.name);
    text_puts(out, ",\"kernel\":");
    text_json_string(out, info.kernel);
    text_puts(out, ",");
    json_spread(out, info.macs, m, &m->stage[s]);
    text_printf(out, ",\"weight_bytes\":%zu,\"input_bytes\":%zu,\"output_bytes\":%zu}", info.weight_bytes, info.input_bytes,
                info.output_bytes);
  }
  text_puts(out, "],\"total\":{");
  json_spread(out, total_macs(plan), m, total);
  text_puts(out, "}");
  if (m->threads > 1) {
    text_puts(out, ",\"one_thread\":{");
    json_spread(out, total_macs(plan), m, &m->stage[m->stages + 1]);
    text_puts(out, "}");
  }
  if (m->workers) {
    text_printf(out, ",\"workers\":%d,\"images_per_second\":{\"one_worker\":%.2f,\"workers\":%.2f}", m->workers,
                m->per_second[0], m->per_second[1]);
  }
  text_printf(out, ",\"plan_bytes\":%zu,\"scratch_bytes\":%zu}\n", hwgq_plan_bytes(plan), hwgq_plan_scratch_bytes(plan));
}

/* ---- the command
 * -------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status bench(const struct options *options, const char *what, const struct hwgq_network *network,
                              const struct hwgq_preprocess *preprocess, struct hwgq_error *error) {
  struct hwgq_plan *plan;
  struct bench_helpers *helpers = NULL;
  struct measurement m = {.threads = options->threads, .workers = options->workers};
  struct text out = {NULL, 0, 0, false};
  enum hwgq_status status = hwgq_plan_create(
      network, preprocess, &(struct hwgq_plan_options){.cpu = options->cpu, .form = options->form}, &plan, error);
  if (status) return status;
  cpu_model(m.cpu);
  if (m.workers) status = measure_workers(plan, network->input, options->runs / 2 + 1, &m, error);
  if (!status && m.threads > 1) status = bench_helpers_start(m.threads - 1, &helpers, error);
  if (status) {
    hwgq_plan_destroy(plan);
    return status;
  }
  if (measure(plan, network->input, options->runs, helpers ? bench_helpers_team(helpers) : NULL, &m)) {
    if (options->json) {
      write_json(&out, what, plan, &m);
    } else {
      write_table(&out, what, plan, &m);
    }
  } else {
    out.failed = true;
  }
  if (out.failed) {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory; try fewer runs than %d", options->runs);
  } else {
    fputs(out.data, stdout);
  }
  text_release(&out);
  free(m.stage);
  bench_helpers_stop(helpers);
  hwgq_plan_destroy(plan);
  return status;
}

/* A model file, or a network of random weights. */
static enum hwgq_status bench_options(const struct options *options, struct hwgq_error *error) {
  enum hwgq_status status;
  if (options->model) {
    struct hwgq_model *model = NULL;
    status = hwgq_model_read(options->model, &model, error);
    if (!status) status = bench(options, options->model, model->network, &model->preprocess, error);
    hwgq_model_destroy(model);
    return status;
  }
  struct hwgq_network *network = NULL;
  const struct networks_entry *entry = NULL;
  char what[96];
  snprintf(what, sizeof what, "%.40s, width %g, random weights", options->choice.name,
           options->choice.width > 0 ? options->choice.width : 1.0);
  status = network_choice_build(&options->choice, &network, &entry, error);
  if (!status) status = networks_randomize(network, &entry->preprocess, 1, CALIBRATION_IMAGES, error);
  if (!status) status = bench(options, what, network, &entry->preprocess, error);
  hwgq_network_destroy(network);
  return status;
}

int command_bench(int argc, char **argv) {
  struct options options = {.runs = 200, .threads = 1};
  struct hwgq_error error;
  const struct option_spec specs[] = {
      {"network", OPTION_TEXT, &options.choice.name, "NAME", "with random weights, instead of a file: see hwgq describe", 0, 0},
      {"cpu", OPTION_TEXT, &options.cpu, "NAME", "kernel set: scalar, avx2, avx512, neon (default: HWGQ_CPU, else the best)", 0,
       0},
      {"form", OPTION_TEXT, &options.form, "NAME",
       "binary convolutions: sliced, lookup6, lookup4, popcount (default: the fastest)", 0, 0},
      {"runs", OPTION_INT, &options.runs, "N", "timed runs (default 200)", 1, 1000000},
      {"threads", OPTION_INT, &options.threads, "N", "threads that share each image (default 1)", 1, BENCH_MAX_THREADS},
      {"workers", OPTION_INT, &options.workers, "N", "also images per second of N threads that run images of their own", 1,
       BENCH_MAX_THREADS},
      {"json", OPTION_FLAG, &options.json, NULL, "print JSON", 0, 0},
      NETWORK_CHOICE_OPTIONS(&options.choice),
      {0},
  };
  const struct command_usage usage = {
      .name = "bench",
      .operands = "MODEL | --network NAME",
      .summary = "Times every stage of a network, one image at a time, on one core or several.",
      .notes =
          "Multiply-accumulates (MACs) count padded taps, as usual, also where they are skipped. Rates are per core cycle.",
      .max_operands = 1};
  const int code = options_parse(&usage, specs, &argc, argv);
  if (code >= 0) return code;
  if (argc > 0) options.model = argv[0];
  if ((options.model != NULL) == (options.choice.name != NULL)) {
    return tool_usage(&usage, "name one model file, or a network with --network");
  }
  return bench_options(&options, &error) ? tool_failed(&usage, &error) : EXIT_OK;
}
