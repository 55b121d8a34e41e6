/* hwgq new: a model of one of the paper's networks with random weights, to serve, time and test it without trained ones. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/tool/network_choice.h"

static const struct command_usage usage = {
    .name = "new",
    .operands = "NETWORK --output OUT.hwgq",
    .summary = "Makes a model with random weights, and batch-norm statistics of a few synthetic images.",
    .notes =
        "Its answers mean nothing, but it is as large and as fast as a trained one. The same options give the same file.\n"
        "NETWORK is lenet, vgg-small, vgg-small-relu, alexnet, vgg-variant, darknet-19, googlenet, resnet-18, resnet-34,\n"
        "resnet-50 or resnet-18-small. The paper's variants: --bits 2 (the default), --sign, --level-count 2 --levels free.",
    .min_operands = 1,
    .max_operands = 1,
};

struct arguments {
  struct network_choice choice;
  const char *output;
  int seed, images;
};

/* -1: go on. */
static int parse_arguments(int argc, char **argv, struct arguments *a) {
  *a = (struct arguments){.seed = 1, .images = 8};
  const struct option_spec options[] = {
      {"output", OPTION_TEXT, &a->output, "FILE", "the model to write (also -o)", 0, 0},
      {"seed", OPTION_INT, &a->seed, "N", "of the random numbers (default 1)", 0, 0x7fffffff},
      {"images", OPTION_INT, &a->images, "N", "synthetic images to calibrate on (default 8)", 1, 64},
      NETWORK_CHOICE_OPTIONS(&a->choice),
      {0},
  };
  const int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  a->choice.name = argv[0];
  if (!a->output) return tool_usage(&usage, "--output is missing");
  if (!networks_find(argv[0])) return tool_usage(&usage, "there is no network '%s'", argv[0]);
  return -1;
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

/* Of the network's usual images, or of others with as bright pixels: gray ones, or color ones where gray is usual. The mean is
 * a whole number then, as `hwgq train` measures it. */
static enum hwgq_status set_preprocess(struct hwgq_model *model, const struct networks_entry *entry, struct hwgq_error *error) {
  const struct hwgq_shape input = model->network->input;
  struct hwgq_preprocess *preprocess = &model->preprocess;
  *preprocess = entry->preprocess;
  if (input.height != entry->input.height || input.width != entry->input.width) preprocess->resize = 0;
  if (input.channels == entry->input.channels) return HWGQ_OK;
  if (input.channels != 1 && input.channels != 3)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--input: an image has 3 channels, or 1 when it is gray, not %d",
                     input.channels);
  preprocess->order = input.channels == 1 ? HWGQ_GRAY : HWGQ_RGB;
  const int usual = entry->input.channels;
  double mean = 0, scale = 0;
  for (int c = 0; c < usual; c++) {
    mean += (double)entry->preprocess.mean[c] / usual;
    scale += (double)entry->preprocess.scale[c] / usual;
  }
  for (int c = 0; c < input.channels; c++) {
    preprocess->mean[c] = (float)round(mean);
    preprocess->scale[c] = (float)scale;
  }
  return HWGQ_OK;
}

static enum hwgq_status make_model(const struct arguments *a, struct hwgq_model *model, struct hwgq_error *error) {
  const struct networks_entry *entry = NULL;
  enum hwgq_status status = network_choice_build(&a->choice, &model->network, &entry, error);
  if (status) return status;
  const struct hwgq_network *network = model->network;
  model->class_count = network->layers[network->layer_count - 1].output.channels;
  status = set_preprocess(model, entry, error);
  if (status) return status;
  status = networks_randomize(model->network, &model->preprocess, (uint64_t)a->seed, a->images, error);
  if (status) return status;
  char provenance[256];
  snprintf(provenance, sizeof provenance,
           "{\"program\":\"hwgq " HWGQ_VERSION
           "\",\"weights\":\"random\",\"seed\":%d,\"width\":%.9g,\"calibration_images\":%d}",
           a->seed, a->choice.width > 0 ? a->choice.width : 1.0, a->images);
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
