/* hwgq round: a model whose first convolution is computed in integers from 8-bit pixels, or, on request, never. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/tool/tool.h"

static const struct command_usage usage = {
    .name = "round",
    .operands = "MODEL --output OUT.hwgq",
    .summary = "Rounds the weights of a model's first convolution so that it runs in integers, several times faster.",
    .notes =
        "Weights become whole numbers times a unit per output channel: with 16 bits they move by at most 1/32768 of the\n"
        "channel's largest, with 8 bits by 1/254, for a convolution that is faster still on CPUs with VNNI.\n"
        "Trained models are rounded to 16 bits when they are written; imported ones are left as they are. A weight that moves\n"
        "can move a value over a quantizer's threshold, and then predictions that were close: hwgq eval counts what changes, "
        "and\n"
        "the accuracy that the model claimed is no longer in the file, unless no weight moved.\n"
        "\n"
        "--float leaves the weights alone and has the model say that its first convolution is always computed in float32.",
    .min_operands = 1,
    .max_operands = 1,
};

/* The layers concerned; 0 when the input goes elsewhere. */
static int set_float(struct hwgq_network *network, bool value) {
  int count = 0;
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_CONV2D || layer->inputs[0] != HWGQ_NETWORK_INPUT) continue;
    layer->float_pixels = value;
    count++;
  }
  return count;
}

/* Copies the weights that may be rounded (NULL: does not) and returns how many there are. */
static size_t copy_weights(const struct hwgq_network *network, float *copy) {
  size_t count = 0;
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_CONV2D || layer->inputs[0] != HWGQ_NETWORK_INPUT || !layer->weight) continue;
    size_t window = (size_t)layer->kernel_height * (size_t)layer->kernel_width;
    size_t own = (size_t)layer->out_channels * (size_t)(network->input.channels / layer->groups) * window;
    if (copy) memcpy(copy + count, layer->weight, own * sizeof *copy);
    count += own;
  }
  return count;
}

static enum hwgq_status round_weights(struct hwgq_model *model, int bits, bool *moved, struct hwgq_error *error) {
  size_t count = copy_weights(model->network, NULL);
  float *weights = malloc((count + 1) * 2 * sizeof *weights);
  if (!weights) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the weights as they were");
  copy_weights(model->network, weights);
  enum hwgq_status status = hwgq_network_round_pixels(model->network, &model->preprocess, bits, error);
  copy_weights(model->network, weights + count);
  *moved = memcmp(weights, weights + count, count * sizeof *weights) != 0;
  free(weights);
  return status;
}

/* The accuracy that a model claims was measured with other weights. An imported one claims that of its training. */
static enum hwgq_status forget_accuracy(struct hwgq_model *model, struct hwgq_error *error) {
  json_t *provenance = model->provenance ? json_loads(model->provenance, 0, NULL) : NULL;
  bool own = json_object_del(provenance, "test_accuracy") == 0; /* false: no object, or it claims none */
  bool trained = json_object_del(json_object_get(provenance, "training"), "test_accuracy") == 0;
  if (!own && !trained) {
    json_decref(provenance);
    return HWGQ_OK;
  }
  char *text = json_dumps(provenance, JSON_COMPACT);
  json_decref(provenance);
  if (!text) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the model's provenance");
  free(model->provenance);
  model->provenance = text;
  return HWGQ_OK;
}

static enum hwgq_status round_model(struct hwgq_model *model, const char *path, bool keep_float, int bits,
                                    struct hwgq_error *error) {
  if (set_float(model->network, keep_float) == 0) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "'%s' has no convolution on its input: there is nothing to round", path);
  }
  if (keep_float) return HWGQ_OK;
  bool moved = false;
  enum hwgq_status status = round_weights(model, bits, &moved, error);
  return status || !moved ? status : forget_accuracy(model, error);
}

int command_round(int argc, char **argv) {
  const char *output = NULL;
  bool keep_float = false;
  int bits = 16;
  const struct option_spec options[] = {
      {"output", OPTION_TEXT, &output, "FILE", "the model to write (also -o)", 0, 0},
      {"bits", OPTION_INT, &bits, "N", "of a whole number, 8 or 16 (default 16)", 8, 16},
      {"float", OPTION_FLAG, &keep_float, NULL, "do not round: ask for float32", 0, 0},
      {0},
  };
  const int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  if (!output) return tool_usage(&usage, "--output is missing");
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  enum hwgq_status status = hwgq_model_read(argv[0], &model, &error);
  if (!status) status = round_model(model, argv[0], keep_float, bits, &error);
  if (!status) status = hwgq_model_write(model, output, &error);
  if (!status)
    printf("%s: %s, %llu bytes, %s\n", output, model->network->name, (unsigned long long)model->file_bytes, model->digest);
  hwgq_model_destroy(model);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
