/* hwgq round: a model whose first convolution is computed in integers from 8-bit pixels, or, on request, never. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

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
        "the accuracy that the model claimed is no longer in the file.\n"
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

/* The accuracy that a model claims was measured with other weights. */
static enum hwgq_status forget_accuracy(struct hwgq_model *model, struct hwgq_error *error) {
  json_t *provenance = model->provenance ? json_loads(model->provenance, 0, NULL) : NULL;
  if (json_object_del(provenance, "test_accuracy") != 0) { /* no object, or it claims none */
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
  enum hwgq_status status = hwgq_network_round_pixels(model->network, &model->preprocess, bits, error);
  return status ? status : forget_accuracy(model, error);
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
