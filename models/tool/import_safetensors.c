/* hwgq import safetensors: networks trained with PyTorch. */
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/storage.h"
#include "models/import/import.h"
#include "models/tool/import.h"
#include "models/tool/network_choice.h"

static const struct command_usage usage = {
    .name = "import safetensors",
    .operands = "STATE.safetensors --output OUT.hwgq",
    .summary = "Turns a PyTorch state_dict of one of the networks into a model.",
    .notes =
        "Files that models/train/torch writes describe their network and preprocessing themselves; for others --network and\n"
        "the options below it say what the tensors are of. models/train/torch/README.md lists the tensors' names.",
    .min_operands = 1,
    .max_operands = 1,
};

struct arguments {
  const char *output, *labels, *order, *mean, *scale;
  int resize;
  bool invert, quiet;
  struct network_choice choice;
  struct import_state_options options;
};

static int check_arguments(struct arguments *arguments) {
  struct import_state_options *options = &arguments->options;
  const struct network_choice *c = &arguments->choice;
  struct hwgq_preprocess *preprocess = &options->preprocess;
  if (!arguments->output) return tool_usage(&usage, "--output is missing");
  bool described = c->width > 0 || c->classes || c->input || c->bits || c->level_count || c->levels || c->zero || c->step > 0;
  if (!c->name && (described || c->sign))
    return tool_usage(&usage, "--width, --classes, --input and the options of the activations need --network");
  options->has_order = arguments->order != NULL;
  if (arguments->order) {
    int found = 0;
    while (found < HWGQ_CHANNEL_ORDERS && strcmp(arguments->order, hwgq_channel_order_names[found]) != 0) found++;
    if (found == HWGQ_CHANNEL_ORDERS) return tool_usage(&usage, "--order takes rgb, bgr or gray, not '%s'", arguments->order);
    preprocess->order = (enum hwgq_channel_order)found;
  }
  options->has_mean = arguments->mean != NULL;
  options->has_scale = arguments->scale != NULL;
  if (arguments->mean && !options_three_numbers(arguments->mean, preprocess->mean))
    return tool_usage(&usage, "--mean takes one number or three, as in 123.7,116.3,103.5, not '%s'", arguments->mean);
  if (arguments->scale && !options_three_numbers(arguments->scale, preprocess->scale))
    return tool_usage(&usage, "--scale takes one number or three, as in 1/64, not '%s'", arguments->scale);
  options->has_resize = arguments->resize >= 0;
  preprocess->resize = arguments->resize;
  options->has_invert = preprocess->invert = arguments->invert;
  return -1;
}

/* -1: understood. */
static int parse_arguments(int *argc, char **argv, struct arguments *arguments) {
  const struct option_spec specs[] = {
      {"output", OPTION_TEXT, &arguments->output, "FILE", "the model to write (also -o)", 0, 0},
      {"labels", OPTION_TEXT, &arguments->labels, "FILE", "class names, one a line (default: the file's, else as for caffe)", 0,
       0},
      {"order", OPTION_TEXT, &arguments->order, "NAME", "of the network's channels: rgb, bgr or gray (default: by the file)", 0,
       0},
      {"mean", OPTION_TEXT, &arguments->mean, "M[,M,M]", "subtracted from pixels, 0 to 255 (default: the file's)", 0, 0},
      {"scale", OPTION_TEXT, &arguments->scale, "S[,S,S]", "factor on pixel - mean (default: the file's)", 0, 0},
      {"resize", OPTION_INT, &arguments->resize, "N", "shorter side before the center crop; 0: the input size", 0,
       HWGQ_MODEL_MAX_RESIZE},
      {"invert", OPTION_FLAG, &arguments->invert, NULL, "255 - pixel first", 0, 0},
      {"quiet", OPTION_FLAG, &arguments->quiet, NULL, "print no notes", 0, 0},
      {"network", OPTION_TEXT, &arguments->choice.name, "NAME", "as `hwgq describe` lists them (default: the file's)", 0, 0},
      NETWORK_CHOICE_OPTIONS(&arguments->choice),
      {0},
  };
  int code = options_parse(&usage, specs, argc, argv);
  return code >= 0 ? code : check_arguments(arguments);
}

int import_command_safetensors(int argc, char **argv) {
  struct arguments arguments = {.resize = -1};
  int code = parse_arguments(&argc, argv, &arguments);
  if (code >= 0) return code;
  struct import_state_options *options = &arguments.options;
  struct hwgq_network *network = NULL;
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  uint8_t *bytes = NULL;
  size_t length = 0;
  char *labels = NULL;
  const char **names = NULL;
  if (!arguments.quiet) options->note = import_print_note;
  const char *const inputs[] = {argv[0], arguments.labels};
  enum hwgq_status status = import_check_output(arguments.output, inputs, 2, &error);
  if (!status) status = hwgq_storage_read(argv[0], IMPORT_MAX_STATE, &bytes, &length, &error);
  if (!status && arguments.labels)
    status = import_read_labels(arguments.labels, &labels, &names, &options->label_count, &error);
  options->labels = names;
  if (!status && arguments.choice.name) status = network_choice_build(&arguments.choice, &network, NULL, &error);
  options->network = network;
  if (!status) status = import_state(bytes, length, argv[0], options, &model, &error);
  if (!status) status = hwgq_model_write(model, arguments.output, &error);
  if (!status) import_print_summary(model, arguments.output);
  hwgq_model_destroy(model);
  hwgq_network_destroy(network);
  free(names);
  free(labels);
  free(bytes);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
