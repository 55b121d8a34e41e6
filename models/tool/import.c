/* hwgq import: networks of other programs as .hwgq files. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/storage.h"
#include "models/import/import.h"
#include "models/tool/import.h"

enum { MAX_LABELS_BYTES = 16 << 20 };

static const struct command_usage usage = {
    .name = "import",
    .operands = "caffe NET.prototxt WEIGHTS.caffemodel --output OUT.hwgq",
    .summary = "Turns a network of the HWGQ authors' Caffe program into a model.",
    .notes = "What was assumed, changed or left out is printed to standard error.\n"
             "Networks of PyTorch: hwgq import safetensors --help.",
    .min_operands = 3,
    .max_operands = 3,
};

struct arguments {
  const char *prototxt, *caffemodel, *output, *labels, *mean;
  double scale;
  bool quiet;
  struct import_options options;
};

/* -1: understood. */
static int parse_arguments(int argc, char **argv, struct arguments *arguments) {
  struct import_options *options = &arguments->options;
  const struct option_spec specs[] = {
      {"output", OPTION_TEXT, &arguments->output, "FILE", "the model to write (also -o)", 0, 0},
      {"labels", OPTION_TEXT, &arguments->labels, "FILE",
       "class names, one a line (default: ImageNet's for 1000 classes, else 0, 1, ...)", 0, 0},
      {"mean", OPTION_TEXT, &arguments->mean, "B,G,R", "subtracted from pixels (default: the prototxt's, else 104,117,123)", 0,
       0},
      {"scale", OPTION_NUMBER, &arguments->scale, "S", "factor on pixel - mean (default: the prototxt's, else 1)", 1e-6, 1e6},
      {"resize", OPTION_INT, &options->resize, "N", "shorter side before the center crop; 0: the input size", 0,
       HWGQ_MAX_DIMENSION},
      {"crop", OPTION_INT, &options->crop, "N", "input size, where a data layer does not say it", 1, HWGQ_MAX_DIMENSION},
      {"quiet", OPTION_FLAG, &arguments->quiet, NULL, "print no notes", 0, 0},
      {0},
  };
  int code = options_parse(&usage, specs, &argc, argv);
  if (code >= 0) return code;
  if (strcmp(argv[0], "caffe") != 0)
    return tool_usage(&usage, "cannot import from '%s'; it knows: caffe, safetensors", argv[0]);
  if (!arguments->output) return tool_usage(&usage, "--output is missing");
  if (arguments->mean && !options_three_numbers(arguments->mean, options->mean))
    return tool_usage(&usage, "--mean takes three numbers, B,G,R, or one, not '%s'", arguments->mean);
  options->has_mean = arguments->mean != NULL;
  options->has_scale = arguments->scale != 0;
  options->scale = (float)arguments->scale;
  arguments->prototxt = argv[1];
  arguments->caffemodel = argv[2];
  return -1;
}

/* One label a line, in place; the array points into `text`. Blank lines at the end are not labels. */
static enum hwgq_status split_labels(const char *path, char *text, size_t length, const char ***labels, int *count,
                                     struct hwgq_error *error) {
  if (memchr(text, '\0', length)) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: is not a text: it has NUL bytes", path);
  while (length && strchr("\r\n \t", text[length - 1])) text[--length] = '\0';
  int lines = 1;
  for (size_t i = 0; i < length; i++) lines += text[i] == '\n';
  if (length == 0 || lines > HWGQ_MAX_CLASSES)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: must have 1 to %d lines, one label each", path, HWGQ_MAX_CLASSES);
  const char **split = malloc((size_t)lines * sizeof *split);
  if (!split) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", path);
  char *at = text;
  for (int i = 0; i < lines; i++) {
    char *end = strchr(at, '\n');
    split[i] = at;
    if (end) *end = '\0';
    size_t used = strlen(at);
    if (used && at[used - 1] == '\r') at[used - 1] = '\0';
    json_t *checked = json_string(at); /* NULL: not UTF-8 */
    if (!checked) {
      free(split);
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: line %d is not UTF-8", path, i + 1);
    }
    json_decref(checked);
    at = end ? end + 1 : at + used;
  }
  *labels = split;
  *count = lines;
  return HWGQ_OK;
}

enum hwgq_status import_check_output(const char *output, const char *const *inputs, int count, struct hwgq_error *error) {
  struct stat written, read;
  if (stat(output, &written)) return HWGQ_OK;
  for (int i = 0; i < count; i++) {
    if (!inputs[i] || stat(inputs[i], &read) || read.st_dev != written.st_dev || read.st_ino != written.st_ino) continue;
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "--output: '%s' is the file '%s' that is read: the model would overwrite it; choose "
                     "another name",
                     output, inputs[i]);
  }
  return HWGQ_OK;
}

enum hwgq_status import_read_labels(const char *path, char **text, const char ***labels, int *count, struct hwgq_error *error) {
  size_t length = 0;
  uint8_t *bytes = NULL;
  enum hwgq_status status = hwgq_storage_read(path, MAX_LABELS_BYTES, &bytes, &length, error);
  *text = (char *)bytes;
  return status ? status : split_labels(hwgq_storage_label(path), *text, length, labels, count, error);
}

void import_print_note(void *context, const char *text) {
  (void)context;
  fprintf(stderr, "note: %s\n", text);
}

void import_print_summary(const struct hwgq_model *model, const char *path) {
  const struct hwgq_network *network = model->network;
  int binary = 0, weighted = 0;
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) continue;
    weighted++;
    binary += layer->binary;
  }
  printf("%s: %s, input %d x %d x %d, %d classes, %d layers, %d of %d weight layers binary, %llu bytes\n", path, network->name,
         network->input.channels, network->input.height, network->input.width, model->class_count, network->layer_count, binary,
         weighted, (unsigned long long)model->file_bytes);
}

int command_import(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "safetensors") == 0) return import_command_safetensors(argc - 1, argv + 1);
  struct arguments arguments = {.options = IMPORT_OPTIONS_DEFAULT};
  int result = parse_arguments(argc, argv, &arguments);
  if (result >= 0) return result;
  uint8_t *prototxt = NULL, *caffemodel = NULL;
  char *labels = NULL;
  size_t prototxt_length = 0, caffemodel_length = 0;
  const char **names = NULL;
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  if (!arguments.quiet) arguments.options.note = import_print_note;
  const char *const inputs[] = {arguments.prototxt, arguments.caffemodel, arguments.labels};
  enum hwgq_status status = import_check_output(arguments.output, inputs, 3, &error);
  if (!status) status = hwgq_storage_read(arguments.prototxt, IMPORT_MAX_PROTOTXT, &prototxt, &prototxt_length, &error);
  if (!status) status = hwgq_storage_read(arguments.caffemodel, IMPORT_MAX_CAFFEMODEL, &caffemodel, &caffemodel_length, &error);
  if (!status && arguments.labels)
    status = import_read_labels(arguments.labels, &labels, &names, &arguments.options.label_count, &error);
  arguments.options.labels = names;
  arguments.options.prototxt_name = arguments.prototxt;
  arguments.options.caffemodel_name = arguments.caffemodel;
  if (!status)
    status = import_caffe((const char *)prototxt, prototxt_length, caffemodel, caffemodel_length, &arguments.options, &model,
                          &error);
  if (!status) status = hwgq_model_write(model, arguments.output, &error);
  if (!status) import_print_summary(model, arguments.output);
  hwgq_model_destroy(model);
  free(names);
  free(labels);
  free(caffemodel);
  free(prototxt);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
