/* `hwgq bench`: how long each stage of a network takes, on one core or on several, and how many images per second there are
 * from image bytes to scores.
 *
 * bench_measure.c  times runs, and says whether they can be trusted
 * bench_layers.c   what a stage computes and touches
 * bench_bound.c    how fast it could be at best
 * bench_report.c   prints
 * bench_sets.c     --sets
 * bench_end.c      --end-to-end
 * bench_threads.c  helpers and workers */
#include <stdio.h>
#include <stdlib.h>

#include "engine/cores.h"
#include "models/tool/bench_end.h"
#include "models/tool/bench_report.h"
#include "models/tool/bench_sets.h"
#include "models/tool/bench_threads.h"
#include "models/tool/network_choice.h"

enum { CALIBRATION_IMAGES = 2 };

struct options {
  const char *model;
  char **images;
  int image_count;
  struct hwgq_plan_options plan;
  struct network_choice choice; /* instead of a model */
  int runs, threads, workers;   /* workers 0: not measured */
  double seconds;
  bool json, end_to_end, sets;
};

static enum hwgq_status measure(const struct options *options, const struct hwgq_plan *plan, const uint8_t *pixels,
                                struct bench_measurement *m, struct hwgq_error *error) {
  struct bench_helpers *helpers = NULL;
  enum hwgq_status status = HWGQ_OK;
  bench_cpu_model(m->cpu);
  if (m->workers) status = bench_measure_workers(plan, pixels, options->runs / 2 + 1, m, error);
  if (!status && m->threads > 1) status = bench_helpers_start(m->threads - 1, &helpers, error);
  if (!status) {
    status = bench_measure(plan, pixels, options->runs, helpers ? bench_helpers_team(helpers) : NULL, m, error);
  }
  bench_helpers_stop(helpers);
  return status;
}

/* Stage by stage. */
static enum hwgq_status bench_stages(const struct options *options, const char *what, const struct hwgq_network *network,
                                     const struct hwgq_preprocess *preprocess, const uint8_t *pixels, struct text *out,
                                     struct hwgq_error *error) {
  struct hwgq_plan *plan;
  struct bench_layer *layers = NULL;
  struct bench_measurement m = {.threads = options->threads, .workers = options->workers};
  enum hwgq_status status = hwgq_plan_create(network, preprocess, &options->plan, &plan, error);
  if (status) return status;
  status = bench_layers_create(network, preprocess, &options->plan, plan, pixels, &layers, error);
  if (!status) status = measure(options, plan, pixels, &m, error);
  if (!status) {
    if (options->json) {
      bench_write_json(out, what, plan, layers, &m);
    } else {
      bench_write_table(out, what, plan, layers, &m);
    }
  }
  free(m.stage);
  free(layers);
  hwgq_plan_destroy(plan);
  return status;
}

static enum hwgq_status bench(const struct options *options, const char *what, const struct hwgq_network *network,
                              const struct hwgq_preprocess *preprocess, struct text *out, struct hwgq_error *error) {
  const struct hwgq_shape shape = network->input;
  uint8_t *pixels = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width);
  if (!pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  networks_image(shape, 1, CALIBRATION_IMAGES, pixels);
  const struct bench_sets_options sets = {what, network, preprocess, options->plan.form, pixels, options->runs, options->json};
  const enum hwgq_status status =
      options->sets ? bench_sets(&sets, out, error) : bench_stages(options, what, network, preprocess, pixels, out, error);
  free(pixels);
  return status;
}

static enum hwgq_status bench_model(const struct options *options, struct text *out, struct hwgq_error *error) {
  if (options->end_to_end) {
    const struct bench_end_options end = {.what = options->model,
                                          .model = options->model,
                                          .cpu = options->plan.cpu,
                                          .images = options->images,
                                          .image_count = options->image_count,
                                          .workers =
                                              options->workers ? options->workers : hwgq_cores_available(BENCH_MAX_WORKERS),
                                          .seconds = options->seconds,
                                          .json = options->json};
    return bench_end_to_end(&end, out, error);
  }
  struct hwgq_model *model = NULL;
  enum hwgq_status status = hwgq_model_read(options->model, &model, error);
  if (!status) status = bench(options, options->model, model->network, &model->preprocess, out, error);
  hwgq_model_destroy(model);
  return status;
}

static enum hwgq_status bench_random(const struct options *options, struct text *out, struct hwgq_error *error) {
  struct hwgq_network *network = NULL;
  const struct networks_entry *entry = NULL;
  char what[96];
  snprintf(what, sizeof what, "%.40s, width %g, random weights", options->choice.name,
           options->choice.width > 0 ? options->choice.width : 1.0);
  enum hwgq_status status = network_choice_build(&options->choice, &network, &entry, error);
  if (!status) status = networks_randomize(network, &entry->preprocess, 1, CALIBRATION_IMAGES, error);
  if (!status) status = bench(options, what, network, &entry->preprocess, out, error);
  hwgq_network_destroy(network);
  return status;
}

static const struct command_usage usage = {
    .name = "bench",
    .operands = "MODEL | --network NAME | --end-to-end MODEL [IMAGE...]",
    .summary = "Times every stage of a network, one image at a time, on one core or several.",
    .notes =
        "\nMultiply-accumulates (MACs) count padded taps, as usual, also where they are skipped. Rates are per core cycle.\n"
        "'ports' is the share of what the core's execution ports allow a kernel's inner loop, by the MACs that are executed;\n"
        "the model of it stands in models/tool/bench_bound.h.\n"
        "A measurement is called noisy when the median run took over 10 % longer than the fastest, when the core clock\n"
        "before and after differs by over 5 %, or when the program had its cores for under 95 % of the time.",
    .max_operands = 100000};

/* -1: they fit together. */
static int check(const struct options *options) {
  if ((options->model != NULL) == (options->choice.name != NULL)) {
    return tool_usage(&usage, "name one model file, or a network with --network");
  }
  if (options->end_to_end && !options->model) {
    return tool_usage(&usage, "--end-to-end takes a model file: 'hwgq new' makes one with random weights");
  }
  if (options->end_to_end && (options->sets || options->threads > 1 || options->plan.form)) {
    return tool_usage(&usage, "--end-to-end goes without --sets, --threads and --form");
  }
  if (options->image_count && !options->end_to_end) return tool_usage(&usage, "images go with --end-to-end");
  if (options->sets && (options->plan.cpu || options->threads > 1 || options->workers)) {
    return tool_usage(&usage, "--sets goes without --cpu, --threads and --workers");
  }
  return -1;
}

int command_bench(int argc, char **argv) {
  struct options options = {.runs = 200, .threads = 1, .seconds = 5};
  struct hwgq_error error;
  const struct option_spec specs[] = {
      {"network", OPTION_TEXT, &options.choice.name, "NAME", "with random weights, instead of a file: see hwgq describe", 0, 0},
      {"cpu", OPTION_TEXT, &options.plan.cpu, "NAME",
       "kernel set: scalar, avx2, avx512, neon (default: HWGQ_CPU, else the best)", 0, 0},
      {"form", OPTION_TEXT, &options.plan.form, "NAME",
       "binary convolutions: sliced, lookup6, lookup4, popcount (default: the fastest)", 0, 0},
      {"runs", OPTION_INT, &options.runs, "N", "timed runs (default 200)", 1, 1000000},
      {"threads", OPTION_INT, &options.threads, "N", "threads that share each image (default 1)", 1, BENCH_MAX_THREADS},
      {"workers", OPTION_INT, &options.workers, "N",
       "also images per second of N threads that run images of their own (--end-to-end: default one per core)", 1,
       BENCH_MAX_WORKERS},
      {"sets", OPTION_FLAG, &options.sets, NULL, "the whole network on every kernel set of this CPU, taking turns", 0, 0},
      {"end-to-end", OPTION_FLAG, &options.end_to_end, NULL,
       "images per second from image bytes to scores: the files named, or a JPEG of 32x32 pixels", 0, 0},
      {"seconds", OPTION_NUMBER, &options.seconds, "S", "of --end-to-end (default 5)", 0.01, 100000},
      {"json", OPTION_FLAG, &options.json, NULL, "print JSON", 0, 0},
      NETWORK_CHOICE_OPTIONS(&options.choice),
      {0},
  };
  int code = options_parse(&usage, specs, &argc, argv);
  if (code >= 0) return code;
  if (argc > 0) options.model = argv[0];
  options.images = argv + 1;
  options.image_count = argc > 1 ? argc - 1 : 0;
  code = check(&options);
  if (code >= 0) return code;
  struct text out = {NULL, 0, 0, false};
  enum hwgq_status status = options.model ? bench_model(&options, &out, &error) : bench_random(&options, &out, &error);
  if (!status && out.failed) status = hwgq_fail(&error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  if (!status) fputs(out.data, stdout);
  text_release(&out);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
