/* Weights from the caffemodel into the layers of a network whose shapes are known. */
#include <math.h>
#include <stdlib.h>

#include "engine/parameters.h"
#include "models/import/caffe.h"

enum { BATCH_NORM_BLOBS = 3, MAX_BLOBS = 3, MAX_NOTES = 20 };

struct loader {
  struct caffe_import *import;
  struct hwgq_network *network;
  const char *name; /* Caffe's, which the file uses */
  struct hwgq_layer *layer;
  struct caffe_blob blobs[MAX_BLOBS];
  int blob_count;
};

static int expected_blobs(const struct hwgq_layer *layer) {
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
  case HWGQ_SCALE:
    return layer->has_bias ? 2 : 1;
  case HWGQ_BATCH_NORM:
    return BATCH_NORM_BLOBS;
  default:
    return 0;
  }
}

/* `dims` without its leading ones against what the file has. */
static enum hwgq_status check_dims(const struct loader *loader, int index, const int64_t *dims, int count) {
  while (count > 0 && dims[0] == 1) dims++, count--;
  const struct caffe_blob *blob = &loader->blobs[index];
  bool same = blob->dim_count == count;
  for (int i = 0; same && i < count; i++) same = blob->dims[i] == dims[i];
  if (same) return HWGQ_OK;
  long long wanted = 1;
  for (int i = 0; i < count; i++) wanted *= dims[i];
  return hwgq_fail(loader->import->error, HWGQ_ERROR_INVALID,
                   "layer '%s': blob %d has %llu values in the caffemodel, but the prototxt's sizes give %lld, or their shapes "
                   "differ; are the two files of the same network?",
                   loader->name, index, (unsigned long long)blob->count, wanted);
}

static enum hwgq_status check_shapes(const struct loader *loader) {
  const struct hwgq_layer *layer = loader->layer;
  struct hwgq_shape in = hwgq_network_input_shape(loader->network, layer, 0);
  int64_t weights[4] = {layer->out_channels, 0, layer->kernel_height, layer->kernel_width};
  int64_t channels = layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR ? layer->out_channels : in.channels, one = 1;
  enum hwgq_status status;
  if (layer->op == HWGQ_CONV2D) {
    weights[1] = in.channels / layer->groups;
    status = check_dims(loader, 0, weights, 4);
  } else if (layer->op == HWGQ_LINEAR) {
    weights[1] = (int64_t)hwgq_layer_fan_in(loader->network, layer);
    status = check_dims(loader, 0, weights, 2);
  } else {
    status = check_dims(loader, 0, &channels, 1);
  }
  if (!status && loader->blob_count > 1) status = check_dims(loader, 1, &channels, 1);
  if (!status && loader->blob_count > 2) status = check_dims(loader, 2, &one, 1);
  return status;
}

/* Finds the layer's blobs. A layer without weights has none. */
static enum hwgq_status open_blobs(struct loader *loader) {
  struct caffe_import *import = loader->import;
  const char *name = loader->name;
  loader->blob_count = expected_blobs(loader->layer);
  if (loader->blob_count == 0) return HWGQ_OK;
  struct caffemodel_layer *found = caffemodel_find(&import->model, name);
  if (!found)
    return hwgq_fail(
        import->error, HWGQ_ERROR_INVALID,
        "layer '%s' needs weights, but the caffemodel has no weights for a layer of that name; weights are matched "
        "by name: are the two files of the same network?",
        name);
  found->used = true;
  if (found->blob_count != loader->blob_count)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "layer '%s' has %d blobs in the caffemodel, but the prototxt asks for %d (is bias_term right?)", name,
                     found->blob_count, loader->blob_count);
  enum hwgq_status status = HWGQ_OK;
  for (int i = 0; !status && i < loader->blob_count; i++)
    status = caffemodel_blob(found, i, name, &loader->blobs[i], import->error);
  return status ? status : check_shapes(loader);
}

/* malloc'ed. */
static enum hwgq_status read_blob(const struct loader *loader, int index, float **values) {
  const struct caffe_blob *blob = &loader->blobs[index];
  float *read = malloc((size_t)blob->count * sizeof *read);
  if (!read) return hwgq_fail(loader->import->error, HWGQ_ERROR_MEMORY, "layer '%s': out of memory", loader->name);
  enum hwgq_status status = caffemodel_read(blob, loader->name, read, loader->import->error);
  if (status)
    free(read);
  else
    *values = read;
  return status;
}

/* One |w| per output channel: a layer that was binarized when the file was written. With a single weight per channel that
 * would say nothing. */
static bool is_binarized(const float *weights, int channels, int64_t taps, bool *all_one) {
  *all_one = true;
  if (taps < 2) return false;
  for (int c = 0; c < channels; c++) {
    const float *row = weights + c * taps;
    for (int64_t i = 1; i < taps; i++)
      if (fabsf(row[i]) != fabsf(row[0])) return false;
    if (fabsf(row[0]) != 1) *all_one = false;
  }
  return true;
}

/* First pass over a layer: everything is checked, nothing allocated that stays. */
static enum hwgq_status check_layer(struct loader *loader) {
  enum hwgq_status status = open_blobs(loader);
  struct hwgq_layer *layer = loader->layer;
  if (status || (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) || layer->binary) return status;
  float *weights = NULL;
  status = read_blob(loader, 0, &weights);
  if (status) return status;
  bool all_one = false;
  layer->binary = is_binarized(weights, layer->out_channels, (int64_t)hwgq_layer_fan_in(loader->network, layer), &all_one);
  layer->has_alpha = layer->binary && !all_one;
  free(weights);
  if (layer->binary)
    caffe_note(loader->import, "layer '%s' has a single |w| per output channel: imported as a binary layer", loader->name);
  return HWGQ_OK;
}

/* alpha is summed in double: the authors' program sums in float32 in an order that its BLAS chooses. */
static void fill_binary(const struct loader *loader, const float *weights) {
  const struct hwgq_layer *layer = loader->layer;
  int64_t taps = (int64_t)hwgq_layer_fan_in(loader->network, layer), row_bytes = (taps + 7) / 8;
  for (int c = 0; c < layer->out_channels; c++) {
    const float *row = weights + c * taps;
    uint8_t *bits = layer->weight_bits + c * row_bytes;
    double sum = 0;
    for (int64_t i = 0; i < taps; i++) {
      sum += fabs((double)row[i]);
      if (row[i] >= 0) bits[i / 8] |= (uint8_t)(1u << i % 8);
    }
    if (layer->has_alpha) layer->alpha[c] = (float)(sum / (double)taps);
  }
}

static enum hwgq_status fill_batch_norm(const struct loader *loader) {
  struct hwgq_layer *layer = loader->layer;
  struct hwgq_error *error = loader->import->error;
  float factor;
  enum hwgq_status status = caffemodel_read(&loader->blobs[2], loader->name, &factor, error);
  if (!status) status = caffemodel_read(&loader->blobs[0], loader->name, layer->mean, error);
  if (!status) status = caffemodel_read(&loader->blobs[1], loader->name, layer->variance, error);
  if (status) return status;
  for (int c = 0; c < layer->output.channels; c++) {
    /* A factor of 0 is an untrained layer: Caffe then takes both as 0. */
    double mean = factor == 0 ? 0 : layer->mean[c] / (double)factor;
    double variance = factor == 0 ? 0 : layer->variance[c] / (double)factor;
    if (!(fabs(mean) < 1e30) || !(variance >= 0 && variance < 1e30))
      return hwgq_fail(
          error, HWGQ_ERROR_INVALID,
          "layer '%s': channel %d has mean %g and variance %g after division by the scale factor %g; a variance is "
          "not negative, and both are finite: the caffemodel is damaged",
          loader->name, c, mean, variance, (double)factor);
    layer->mean[c] = (float)mean;
    layer->variance[c] = (float)variance;
  }
  return HWGQ_OK;
}

/* Second pass: shapes are known to fit. */
static enum hwgq_status fill_layer(struct loader *loader) {
  enum hwgq_status status = open_blobs(loader);
  struct hwgq_layer *layer = loader->layer;
  struct hwgq_error *error = loader->import->error;
  if (status || loader->blob_count == 0) return status;
  if (layer->op == HWGQ_BATCH_NORM) return fill_batch_norm(loader);
  bool scale = layer->op == HWGQ_SCALE;
  if (layer->binary) {
    float *weights = NULL;
    status = read_blob(loader, 0, &weights);
    if (status) return status;
    fill_binary(loader, weights);
    free(weights);
  } else {
    status = caffemodel_read(&loader->blobs[0], loader->name, scale ? layer->gamma : layer->weight, error);
  }
  if (!status && layer->has_bias)
    status = caffemodel_read(&loader->blobs[1], loader->name, scale ? layer->beta : layer->bias, error);
  return status;
}

static enum hwgq_status each_layer(struct loader *loader, enum hwgq_status (*visit)(struct loader *)) {
  const struct caffe_graph *graph = &loader->import->graph;
  enum hwgq_status status = HWGQ_OK;
  for (int i = 0; !status && i < graph->layer_count; i++) {
    if (!graph->layers[i].needed) continue;
    loader->name = graph->layers[i].name;
    loader->layer = &loader->network->layers[graph->layers[i].index];
    status = visit(loader);
  }
  return status;
}

/* Names the first few layers whose weights nobody took, and counts the others. */
static void note_unused(const struct caffe_import *import) {
  int unused = 0;
  for (int i = 0; i < import->model.count; i++) {
    const struct caffemodel_layer *layer = &import->model.layers[i];
    if (layer->used || ++unused > MAX_NOTES) continue;
    char name[64];
    int length = 0;
    for (; length < (int)sizeof name - 1 && (size_t)length < layer->name_length; length++)
      name[length] = layer->name[length] >= 0x20 && layer->name[length] < 0x7f ? (char)layer->name[length] : '?';
    name[length] = '\0';
    caffe_note(import, "the caffemodel's layer '%s' is not in the network: its weights are left out", name);
  }
  if (unused > MAX_NOTES) caffe_note(import, "and %d more layers of the caffemodel that are left out", unused - MAX_NOTES);
}

enum hwgq_status caffe_weights_load(struct caffe_import *import, struct hwgq_network *network) {
  struct loader loader = {.import = import, .network = network};
  enum hwgq_status status = each_layer(&loader, check_layer);
  if (!status) status = hwgq_network_infer(network, import->error); /* binary flags may have changed */
  if (!status) status = hwgq_network_allocate_parameters(network, import->error);
  if (!status) status = each_layer(&loader, fill_layer);
  if (!status) note_unused(import);
  return status;
}
