/* A caffemodel by itself: are its weights binarized? Training keeps real-valued weights and takes their signs in every forward
 * pass, so a saved network has floats in its binary layers. Only "bw" files store +-alpha: one |w| per output channel. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/storage.h"
#include "models/import/caffe.h"
#include "models/tool/inspect.h"

static const char explanation[] =
    "\nWeights that do not look binarized: training keeps real weights and takes their signs whenever the network runs, so\n"
    "binary layers are saved as floats ('latent'). Which layers are binary is said by the prototxt, not by this file:\n"
    "'hwgq import caffe' reads both and stores signs. 'one |w| per channel' are layers saved as +-alpha. The first\n"
    "convolution and the last fully connected layer are float by design.\n";

struct blob_facts {
  uint64_t values, plus; /* plus: w >= 0, which is +1 */
  int channels, single;  /* channels whose every weight has the same |w| */
};

static struct blob_facts look_at(const struct caffe_blob *blob, const float *values) {
  struct blob_facts facts = {.values = blob->count, .channels = (int)blob->dims[0]};
  const uint64_t fan_in = blob->count / (uint64_t)blob->dims[0];
  for (int c = 0; c < facts.channels; c++) {
    const float *row = values + (uint64_t)c * fan_in;
    bool single = true;
    for (uint64_t i = 0; i < fan_in; i++) {
      facts.plus += row[i] >= 0;
      single &= fabsf(row[i]) == fabsf(row[0]);
    }
    facts.single += single;
  }
  return facts;
}

static void print_layer(const char *name, const struct caffe_blob *blob, const struct blob_facts *facts) {
  char shape[96] = "";
  for (int d = 0, used = 0; d < blob->dim_count; d++)
    used += snprintf(shape + used, sizeof shape - (size_t)used, "%s%" PRId64, d ? "x" : "", blob->dims[d]);
  printf("%-24s %20s %12" PRIu64 " %6.2f %%  %s\n", name, shape, facts->values,
         100.0 * (double)facts->plus / (double)facts->values,
         facts->single == facts->channels ? "one |w| per channel" : "floats: a float layer, or latent");
}

static json_t *layer_json(const char *name, const struct blob_facts *facts) {
  return json_pack("{s:s,s:I,s:f,s:b}", "name", name, "weights", (json_int_t)facts->values, "plus_share",
                   (double)facts->plus / (double)facts->values, "one_magnitude_per_channel",
                   (int)(facts->single == facts->channels));
}

/* Layers with a first blob of several dimensions: convolutions and inner products. */
static enum hwgq_status inspect_weights(const struct caffemodel_layer *layer, bool as_json, json_t *layers,
                                        struct hwgq_error *error) {
  char name[128];
  struct caffe_blob blob;
  snprintf(name, sizeof name, "%.*s", (int)(layer->name_length < 127 ? layer->name_length : 127), (const char *)layer->name);
  for (char *c = name; *c; c++)
    if (*c < ' ' || *c > '~') *c = '?';
  if (layer->blob_count < 1) return HWGQ_OK;
  enum hwgq_status status = caffemodel_blob(layer, 0, name, &blob, error);
  if (status || blob.dim_count < 2 || blob.count == 0 || blob.dims[0] < 1 || blob.dims[0] > HWGQ_MAX_DIMENSION) return status;
  float *values = malloc((size_t)blob.count * sizeof *values);
  if (!values) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory for layer '%s'", name);
  status = caffemodel_read(&blob, name, values, error);
  if (!status) {
    const struct blob_facts facts = look_at(&blob, values);
    if (as_json) {
      json_array_append_new(layers, layer_json(name, &facts));
    } else {
      print_layer(name, &blob, &facts);
    }
  }
  free(values);
  return status;
}

static enum hwgq_status inspect_bytes(const char *path, const uint8_t *bytes, size_t length, bool as_json,
                                      struct hwgq_error *error) {
  struct caffemodel model = {0};
  enum hwgq_status status = caffemodel_parse(bytes, length, &model, error);
  if (status) return status;
  json_t *layers = json_array();
  if (!as_json) {
    printf("file         %s, %zu bytes\n\n", path, length);
    printf("%-24s %20s %12s %8s  %s\n", "layer", "weights", "count", ">= 0", "what they are");
  }
  for (int i = 0; i < model.count && !status; i++) status = inspect_weights(&model.layers[i], as_json, layers, error);
  if (!status && as_json) {
    json_t *object = json_pack("{s:s,s:I,s:O}", "file", path, "bytes", (json_int_t)length, "layers", layers);
    json_dumpf(object, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    printf("\n");
    json_decref(object);
  }
  if (!status && !as_json) fputs(explanation, stdout);
  json_decref(layers);
  caffemodel_release(&model);
  return status;
}

enum hwgq_status inspect_caffemodel(const char *path, bool as_json, struct hwgq_error *error) {
  struct hwgq_error inner = {{0}};
  uint8_t *bytes = NULL;
  size_t length = 0;
  enum hwgq_status status = hwgq_storage_read(path, IMPORT_MAX_CAFFEMODEL, &bytes, &length, error);
  if (status) return status;
  status = inspect_bytes(path, bytes, length, as_json, &inner);
  free(bytes);
  return status ? hwgq_fail(error, status, "%s: %s", hwgq_storage_label(path), inner.message) : HWGQ_OK;
}
