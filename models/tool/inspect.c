/* hwgq inspect: what is in a model file. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/tool/inspect.h"
#include "models/tool/tool.h"

static const struct command_usage usage = {
    .name = "inspect",
    .operands = "MODEL",
    .summary =
        "Prints what a .hwgq file holds: input, preprocessing, classes, layers with their shapes and sizes, provenance;\n"
        "and what the engine makes of it: stages, kernels, memory, thresholds.",
    .notes =
        "Layers: output (channels x height x width), bits of a weight or of an activation, parameters, bytes in the file,\n"
        "multiply-accumulates per image, share of binary weights that are +1.\n"
        "Stages: a layer with what was folded into it. Batch norm, scale, alpha and quantizer become thresholds on the\n"
        "accumulator, one per level and channel; reversed channels reach a level below theirs (a negative scale); constant\n"
        "channels give one level whatever the accumulator is. Thresholds of constant channels are not in the summary.\n"
        "\n"
        "'hwgq inspect WEIGHTS.caffemodel' answers whether the weights of a Caffe network are binarized.",
    .min_operands = 1,
    .max_operands = 1,
};

static const char *const order_names[] = {"RGB", "BGR", "gray"};

struct inspect_account inspect_layer(const struct hwgq_network *network, const struct hwgq_layer *layer) {
  struct inspect_account a = {.macs = hwgq_layer_macs(network, layer)};
  struct hwgq_layer copy = *layer; /* the list gives places to write to */
  struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
  const int count = hwgq_layer_parameters(network, &copy, parameters);
  for (int p = 0; p < count; p++) {
    if (parameters[p].bits) {
      a.bit_bytes += parameters[p].count;
    } else {
      a.float_bytes += hwgq_parameter_bytes(&parameters[p]);
      a.parameters += parameters[p].count;
    }
  }
  if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) return a;
  a.weights = (uint64_t)layer->out_channels * hwgq_layer_fan_in(network, layer);
  if (!layer->binary) return a;
  a.binary = a.weights;
  a.parameters += a.binary;
  for (uint64_t i = 0; i < a.bit_bytes; i++) a.plus += (uint64_t)__builtin_popcount(layer->weight_bits[i]); /* unused: 0 */
  return a;
}

struct inspect_account inspect_network(const struct hwgq_network *network) {
  struct inspect_account sum = {0};
  for (int i = 0; i < network->layer_count; i++) {
    const struct inspect_account layer = inspect_layer(network, &network->layers[i]);
    sum.parameters += layer.parameters;
    sum.macs += layer.macs;
    sum.bit_bytes += layer.bit_bytes;
    sum.float_bytes += layer.float_bytes;
    sum.weights += layer.weights;
    sum.binary += layer.binary;
    sum.plus += layer.plus;
  }
  return sum;
}

/* Bits of a layer's weights, or of the activations that a quantizer makes; empty for others. */
static const char *bits_of(const struct hwgq_layer *layer, char text[16]) {
  int bits = 0;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return layer->binary ? "1" : "32";
  case HWGQ_QUANTIZE:
    if (layer->sign) return "sign";
    while ((1 << bits) <= layer->level_count) bits++;
    snprintf(text, 16, "%d", bits);
    return text;
  default:
    return "";
  }
}

static void print_number(uint64_t number, int width) {
  if (number) {
    printf(" %*" PRIu64, width, number);
  } else {
    printf(" %*s", width, "");
  }
}

static void print_plus(const struct inspect_account *a) {
  if (a->binary) printf(" %6.2f %%", 100.0 * (double)a->plus / (double)a->binary);
  printf("\n");
}

static void print_layers(const struct hwgq_network *network) {
  const struct inspect_account sum = inspect_network(network);
  printf("\n%-20s %-10s %14s %5s %12s %12s %14s %8s\n", "layer", "kind", "output", "bits", "parameters", "bytes", "macs", "+1");
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    const struct inspect_account a = inspect_layer(network, layer);
    char shape[48], bits[16];
    snprintf(shape, sizeof shape, "%dx%dx%d", layer->output.channels, layer->output.height, layer->output.width);
    printf("%-20s %-10s %14s %5s", layer->name, hwgq_op_name(layer->op), shape, bits_of(layer, bits));
    print_number(a.parameters, 12);
    print_number(a.bit_bytes + a.float_bytes, 12);
    print_number(a.macs, 14);
    print_plus(&a);
  }
  printf("%-20s %-10s %14s %5s %12" PRIu64 " %12" PRIu64 " %14" PRIu64, "total", "", "", "", sum.parameters,
         sum.bit_bytes + sum.float_bytes, sum.macs);
  print_plus(&sum);
}

static double percent(uint64_t part, uint64_t whole) {
  return whole ? 100.0 * (double)part / (double)whole : 0;
}

/* Where the bytes go, and which weights are binary. The header is what the tensors are not. */
static void print_bytes(const struct hwgq_model *model) {
  const struct hwgq_network *network = model->network;
  const struct inspect_account sum = inspect_network(network);
  const uint64_t header = model->file_bytes - sum.bit_bytes - sum.float_bytes;
  printf("\nbytes        weight bits %" PRIu64 " (%.1f %%), floats %" PRIu64 " (%.1f %%), header %" PRIu64 " (%.1f %%)\n",
         sum.bit_bytes, percent(sum.bit_bytes, model->file_bytes), sum.float_bytes, percent(sum.float_bytes, model->file_bytes),
         header, percent(header, model->file_bytes));
  printf("weights      %" PRIu64 ", %.2f %% of them binary: stored as signs, 1 bit each\n", sum.weights,
         percent(sum.binary, sum.weights));
  for (int i = 0, weighted = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) continue;
    weighted++;
    if (layer->binary) continue;
    bool last = true;
    for (int j = i + 1; j < network->layer_count; j++)
      last &= network->layers[j].op != HWGQ_CONV2D && network->layers[j].op != HWGQ_LINEAR;
    printf("             '%s' is float%s\n", layer->name,
           weighted == 1 || last ? ": by design, as the first and the last weighted layer of these networks are" : "");
  }
}

static void print_preprocess(const struct hwgq_preprocess *p, int channels) {
  printf("preprocess   %s", order_names[p->order]);
  if (p->resize) {
    printf(", shorter side to %d, center crop", p->resize);
  } else {
    printf(", resized to cover the input, center crop");
  }
  if (p->invert) printf(", inverted");
  printf("\n             mean");
  for (int c = 0; c < channels && c < 3; c++) printf(" %.9g", (double)p->mean[c]);
  printf(", scale");
  for (int c = 0; c < channels && c < 3; c++) printf(" %.9g", (double)p->scale[c]);
  printf("\n");
}

/* All of them up to 20, else the first and the last few. */
static void print_labels(const struct hwgq_model *model) {
  int count = model->class_count, shown = count <= 20 ? count : 8;
  printf("classes      %d:", count);
  for (int c = 0; c < shown; c++) printf("%s %s", c ? "," : "", model->labels[c]);
  if (shown < count) printf(", ... %s", model->labels[count - 1]);
  printf("\n");
}

static void print_provenance(const char *provenance) {
  json_t *object = json_loads(provenance, 0, NULL);
  const char *key;
  json_t *value;
  printf("\nprovenance%s\n", json_object_size(object) ? "" : ": unknown");
  json_object_foreach(object, key, value) {
    char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("  %-16s %s\n", key, json_is_string(value) ? json_string_value(value) : text ? text : "");
    free(text);
  }
  json_decref(object);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */

static json_t *shape_json(struct hwgq_shape shape) {
  return json_pack("[i,i,i]", shape.channels, shape.height, shape.width);
}

static json_t *layers_json(const struct hwgq_network *network) {
  json_t *layers = json_array();
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    const struct inspect_account a = inspect_layer(network, layer);
    char bits[16];
    json_t *json = json_pack("{s:s,s:s,s:o,s:s,s:I,s:I,s:I}", "name", layer->name, "kind", hwgq_op_name(layer->op), "output",
                             shape_json(layer->output), "bits", bits_of(layer, bits), "parameters", (json_int_t)a.parameters,
                             "bytes", (json_int_t)(a.bit_bytes + a.float_bytes), "macs", (json_int_t)a.macs);
    if (a.weights) json_object_set_new(json, "binary", json_boolean(layer->binary));
    if (a.binary) json_object_set_new(json, "plus_share", json_real((double)a.plus / (double)a.binary));
    json_array_append_new(layers, json);
  }
  return layers;
}

static json_t *preprocess_json(const struct hwgq_preprocess *p, int channels) {
  json_t *mean = json_array(), *scale = json_array();
  for (int c = 0; c < channels && c < 3; c++) {
    json_array_append_new(mean, json_real((double)p->mean[c]));
    json_array_append_new(scale, json_real((double)p->scale[c]));
  }
  return json_pack("{s:s,s:i,s:b,s:o,s:o}", "order", order_names[p->order], "resize", p->resize, "invert", (int)p->invert,
                   "mean", mean, "scale", scale);
}

static enum hwgq_status print_json(const char *path, const struct hwgq_model *model, const struct hwgq_plan *plan,
                                   struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  const struct inspect_account sum = inspect_network(network);
  const uint64_t tensors = sum.bit_bytes + sum.float_bytes;
  json_t *plan_json, *labels = json_array(), *provenance = json_loads(model->provenance ? model->provenance : "{}", 0, NULL);
  enum hwgq_status status = inspect_plan_json(plan, &plan_json, error);
  for (int c = 0; c < model->class_count; c++) json_array_append_new(labels, json_string(model->labels[c]));
  if (status) {
    json_decref(labels);
    json_decref(provenance);
    return status;
  }
  json_t *object =
      json_pack("{s:s,s:s,s:s,s:o,s:o,s:o,s:{s:I,s:I,s:I,s:I},s:{s:I,s:I,s:I,s:I,s:I},s:o,s:o,s:o*}", "network", network->name,
                "file", path, "digest", model->digest, "input", shape_json(network->input), "preprocess",
                preprocess_json(&model->preprocess, network->input.channels), "labels", labels, "bytes", "file",
                (json_int_t)model->file_bytes, "weight_bits", (json_int_t)sum.bit_bytes, "floats", (json_int_t)sum.float_bytes,
                "header", (json_int_t)(model->file_bytes - tensors), "totals", "parameters", (json_int_t)sum.parameters,
                "weights", (json_int_t)sum.weights, "binary", (json_int_t)sum.binary, "plus", (json_int_t)sum.plus, "macs",
                (json_int_t)sum.macs, "layers", layers_json(network), "plan", plan_json, "provenance", provenance);
  if (!object) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
  printf("\n");
  json_decref(object);
  return HWGQ_OK;
}

/* ---- the command --------------------------------------------------------------------------------------------------------- */

static enum hwgq_status print_text(const char *path, const struct hwgq_model *model, const struct hwgq_plan *plan,
                                   struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  printf("network      %s\n", network->name);
  printf("file         %s, %" PRIu64 " bytes\n", path, model->file_bytes);
  printf("digest       %s\n", model->digest);
  printf("input        %dx%dx%d (channels x height x width)\n", network->input.channels, network->input.height,
         network->input.width);
  print_preprocess(&model->preprocess, network->input.channels);
  print_labels(model);
  print_layers(network);
  print_bytes(model);
  enum hwgq_status status = inspect_print_plan(plan, error);
  if (!status) print_provenance(model->provenance ? model->provenance : "{}");
  return status;
}

static bool is_caffemodel(const char *path) {
  static const char ending[] = ".caffemodel";
  const size_t length = strlen(path);
  return length >= sizeof ending && strcmp(path + length - strlen(ending), ending) == 0;
}

int command_inspect(int argc, char **argv) {
  struct hwgq_plan_options plan_options = {0};
  bool json = false;
  const struct option_spec options[] = {
      {"cpu", OPTION_TEXT, &plan_options.cpu, "NAME", "kernel set of the plan (default: the best that runs here)", 0, 0},
      {"json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0},
      {0},
  };
  struct hwgq_model *model = NULL;
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error;
  int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  if (is_caffemodel(argv[0])) return inspect_caffemodel(argv[0], json, &error) ? tool_failed(&usage, &error) : EXIT_OK;
  enum hwgq_status status = hwgq_model_read(argv[0], &model, &error);
  if (!status) status = hwgq_plan_create(model->network, &model->preprocess, &plan_options, &plan, &error);
  if (!status) status = json ? print_json(argv[0], model, plan, &error) : print_text(argv[0], model, plan, &error);
  hwgq_plan_destroy(plan);
  hwgq_model_destroy(model);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
