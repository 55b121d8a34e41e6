/* hwgq new: a model of one of the paper's networks with random weights, to serve, time and test it without trained ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/networks/networks.h"
#include "models/tool/tool.h"

static const struct command_usage usage = {
    .name = "new",
    .operands = "NETWORK --output OUT.hwgq",
    .summary = "Makes a model with random weights, and batch-norm statistics of a few synthetic images.",
    .notes = "Its answers mean nothing, but it is as large and as fast as a trained one. The same options give the same file.\n"
             "NETWORK is lenet, vgg-small, vgg-small-relu, alexnet, vgg-variant, darknet-19, googlenet, resnet-18, resnet-34\n"
             "or resnet-50. The paper's variants: --bits 2 (the default), --sign, --level-count 2 --levels free.",
    .min_operands = 1,
    .max_operands = 1,
};

struct arguments {
  const char *network, *output, *levels;
  int seed, bits, level_count, classes, input, images;
  double width;
  bool sign;
};

/* -o is the short form of --output. */
static void expand_short_form(int argc, char **argv) {
  static char long_form[] = "--output";
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
    if (strcmp(argv[i], "-o") == 0) argv[i] = long_form;
  }
}

/* -1: go on. */
static int parse_arguments(int argc, char **argv, struct arguments *a) {
  *a = (struct arguments){.levels = "uniform", .seed = 1, .images = 8, .width = 1};
  const struct option_spec options[] = {
      {"output", OPTION_TEXT, &a->output, "FILE", "the model to write (also -o)", 0, 0},
      {"seed", OPTION_INT, &a->seed, "N", "of the random numbers (default 1)", 0, 0x7fffffff},
      {"bits", OPTION_INT, &a->bits, "N", "activations of 1 to 4 bits: 2^N - 1 levels and 0 (default 2)", 1, 4},
      {"level-count", OPTION_INT, &a->level_count, "N", "or the number of levels beside 0 itself, 1 to 15", 1, HWGQ_MAX_LEVELS},
      {"levels", OPTION_TEXT, &a->levels, "uniform|free", "multiples of one step (default), or each of its own", 0, 0},
      {"sign", OPTION_FLAG, &a->sign, NULL, "activations are +1 and -1 instead", 0, 0},
      {"width", OPTION_NUMBER, &a->width, "X", "factor on all channel counts (default 1)", 0.01, 16},
      {"classes", OPTION_INT, &a->classes, "N", "number of classes (default: the paper's)", 1, HWGQ_MAX_CLASSES},
      {"input", OPTION_INT, &a->input, "N", "input height and width (default: the paper's)", 1, 2048},
      {"images", OPTION_INT, &a->images, "N", "synthetic images to calibrate on (default 8)", 1, 64},
      {0},
  };
  expand_short_form(argc, argv);
  const int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  a->network = argv[0];
  if (!a->output) return tool_usage(&usage, "--output is missing");
  if (!networks_find(a->network)) return tool_usage(&usage, "there is no network '%s'", a->network);
  if (strcmp(a->levels, "uniform") != 0 && strcmp(a->levels, "free") != 0)
    return tool_usage(&usage, "--levels takes uniform or free, not '%s'", a->levels);
  if ((a->bits != 0) + (a->level_count != 0) + a->sign > 1)
    return tool_usage(&usage, "give one of --bits, --level-count and --sign");
  if (!a->level_count) a->level_count = (1 << (a->bits ? a->bits : 2)) - 1;
  return -1;
}

/* The paper's two quantizers as its program has them, rounded; Lloyd's optimum otherwise. */
static enum hwgq_status choose_quantizer(const struct arguments *a, struct hwgq_quantizer *q, struct hwgq_error *error) {
  const bool uniform = strcmp(a->levels, "uniform") == 0;
  const enum hwgq_status status = hwgq_quantizer_design(a->level_count, uniform, false, q, error);
  if (status) return status;
  const float paper[] = {0.538f, 1.076f, 1.614f}, paper_free[] = {0.453f, 1.51f};
  if (uniform && a->level_count == 3) memcpy(q->centers, paper, sizeof paper);
  if (!uniform && a->level_count == 2) memcpy(q->centers, paper_free, sizeof paper_free);
  for (int j = 1; j < q->level_count; j++) q->thresholds[j] = (q->centers[j - 1] + q->centers[j]) / 2;
  return HWGQ_OK;
}

static bool set_labels(struct hwgq_model *model) {
  const bool imagenet = model->class_count == NETWORKS_IMAGENET_CLASSES;
  model->labels = calloc((size_t)model->class_count, sizeof *model->labels);
  for (int i = 0; model->labels && i < model->class_count; i++) {
    char label[32];
    snprintf(label, sizeof label, "class %d", i);
    model->labels[i] = strdup(imagenet ? networks_imagenet_labels[i] : label);
    if (!model->labels[i]) return false;
  }
  return model->labels != NULL;
}

static enum hwgq_status make_model(const struct arguments *a, struct hwgq_model *model, struct hwgq_error *error) {
  const struct networks_entry *entry = networks_find(a->network);
  struct hwgq_shape input = entry->input;
  struct hwgq_quantizer quantizer;
  if (a->input) input.height = input.width = a->input;
  model->class_count = a->classes ? a->classes : entry->class_count;
  model->preprocess = entry->preprocess;
  if (a->input) model->preprocess.resize = 0;
  enum hwgq_status status = choose_quantizer(a, &quantizer, error);
  if (!status)
    status =
        networks_build(a->network, input, model->class_count, a->width, a->sign ? NULL : &quantizer, &model->network, error);
  if (!status) status = networks_randomize(model->network, &model->preprocess, (uint64_t)a->seed, a->images, error);
  if (status) return status;
  char provenance[256];
  snprintf(provenance, sizeof provenance,
           "{\"program\":\"hwgq " HWGQ_VERSION
           "\",\"weights\":\"random\",\"seed\":%d,\"width\":%.9g,\"calibration_images\":%d}",
           a->seed, a->width, a->images);
  model->provenance = strdup(provenance);
  if (!model->provenance || !set_labels(model)) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  return HWGQ_OK;
}

static void print_summary(const struct hwgq_model *model, const char *path) {
  const struct hwgq_network *network = model->network;
  uint64_t macs[2] = {0, 0};
  for (int i = 0; i < network->layer_count; i++) {
    macs[network->layers[i].binary] += hwgq_layer_macs(network, &network->layers[i]);
  }
  printf("%s: %s with random weights, input %d x %d x %d, %d classes, %.1f M float and %.1f M binary multiply-accumulates, "
         "%llu bytes\n",
         path, network->name, network->input.channels, network->input.height, network->input.width, model->class_count,
         (double)macs[0] / 1e6, (double)macs[1] / 1e6, (unsigned long long)model->file_bytes);
}

int command_new(int argc, char **argv) {
  struct arguments arguments;
  struct hwgq_error error = {{0}};
  const int code = parse_arguments(argc, argv, &arguments);
  if (code >= 0) return code;
  struct hwgq_model *model = calloc(1, sizeof *model);
  enum hwgq_status status =
      model ? make_model(&arguments, model, &error) : hwgq_fail(&error, HWGQ_ERROR_MEMORY, "out of memory");
  if (!status) status = hwgq_model_write(model, arguments.output, &error);
  if (!status) print_summary(model, arguments.output);
  hwgq_model_destroy(model);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
