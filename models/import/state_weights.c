/* The tensors of a state_dict into the layers of a network. */
#include "models/import/state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one layer wants of the file: tensors by key, with their shapes. */
struct want {
  const char *layer, *key;
  int rank;
  uint64_t extents[4];
  float *floats; /* where the values go, once allocated; NULL: the weights of a binary layer */
  bool not_negative;
};

enum { MAX_WANTS = 2 };

/* ---- numbers ------------------------------------------------------------------------------------------------------------- */

static double half_to_double(uint16_t half) {
  int exponent = half >> 10 & 31, fraction = half & 1023;
  double value = exponent == 31 ? (fraction ? (double)NAN : (double)INFINITY)
                 : exponent     ? ldexp(1024 + fraction, exponent - 25)
                                : ldexp(fraction, -24);
  return half >> 15 ? -value : value;
}

static double bfloat_to_double(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return (double)value;
}

enum dtype { F32, F64, F16, BF16, OTHER_DTYPE };

static enum dtype dtype_of(const struct hwgq_tensor *tensor) {
  static const char *const names[] = {[F32] = "F32", [F64] = "F64", [F16] = "F16", [BF16] = "BF16"};
  int found = 0;
  while (found < OTHER_DTYPE && strcmp(tensor->dtype, names[found]) != 0) found++;
  return (enum dtype)found;
}

/* `count` elements from number `first` on; a tensor's data need not be aligned. */
static void read_elements(const struct hwgq_tensor *tensor, uint64_t first, size_t count, double *values) {
  enum dtype dtype = dtype_of(tensor);
  size_t size = dtype == F32 ? 4 : dtype == F64 ? 8 : 2;
  const uint8_t *from = (const uint8_t *)tensor->data + first * size;
  for (size_t i = 0; i < count; i++, from += size) {
    float single;
    uint16_t bits;
    if (dtype == F64) {
      memcpy(&values[i], from, sizeof values[i]);
    } else if (dtype == F32) {
      memcpy(&single, from, sizeof single);
      values[i] = (double)single;
    } else {
      memcpy(&bits, from, sizeof bits);
      values[i] = dtype == F16 ? half_to_double(bits) : bfloat_to_double(bits);
    }
  }
}

/* ---- what a layer wants ----------------------------------------------------------------------------------------------------
 */

static int wants_of(const struct state_import *import, const struct hwgq_layer *layer, struct want wants[MAX_WANTS]) {
  struct hwgq_shape in = hwgq_network_input_shape(import->network, layer, 0);
  uint64_t channels = (uint64_t)layer->output.channels, fan_in = hwgq_layer_fan_in(import->network, layer);
  const char *name = layer->name;
  switch (layer->op) {
  case HWGQ_CONV2D:
    wants[0] = (struct want){.layer = name,
                             .key = "weight",
                             .rank = 4,
                             .extents = {channels, (uint64_t)(in.channels / layer->groups), (uint64_t)layer->kernel_height,
                                         (uint64_t)layer->kernel_width},
                             .floats = layer->weight};
    break;
  case HWGQ_LINEAR:
    wants[0] = (struct want){.layer = name, .key = "weight", .rank = 2, .extents = {channels, fan_in}, .floats = layer->weight};
    break;
  case HWGQ_BATCH_NORM:
    wants[0] = (struct want){.layer = name, .key = "running_mean", .rank = 1, .extents = {channels}, .floats = layer->mean};
    wants[1] = (struct want){
        .layer = name, .key = "running_var", .rank = 1, .extents = {channels}, .floats = layer->variance, .not_negative = true};
    return 2;
  case HWGQ_SCALE:
    name = state_affine_name(import, layer);
    wants[0] = (struct want){.layer = name, .key = "weight", .rank = 1, .extents = {channels}, .floats = layer->gamma};
    break;
  default:
    return 0;
  }
  if (!layer->has_bias) return 1;
  wants[1] = (struct want){.layer = name,
                           .key = "bias",
                           .rank = 1,
                           .extents = {channels},
                           .floats = layer->op == HWGQ_SCALE ? layer->beta : layer->bias};
  return 2;
}

static void shape_text(const uint64_t *extents, int rank, char *text, size_t size) {
  size_t length = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < rank && length < size; i++)
    length += (size_t)snprintf(text + length, size - length, "%s%llu", i ? ", " : "", (unsigned long long)extents[i]);
  if (length < size) snprintf(text + length, size - length, "]");
}

static enum hwgq_status check_tensor(const struct state_import *import, const struct want *want,
                                     const struct hwgq_tensor *tensor) {
  if (dtype_of(tensor) == OTHER_DTYPE)
    return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED,
                     "tensor '%s': dtype is %.16s; F32, F64, F16 and BF16 are read: save it as float", tensor->name,
                     tensor->dtype);
  bool same = tensor->rank == want->rank;
  for (int i = 0; same && i < want->rank; i++) same = tensor->extents[i] == want->extents[i];
  if (same) return HWGQ_OK;
  char has[HWGQ_TENSOR_MAX_RANK * 24], wanted[HWGQ_TENSOR_MAX_RANK * 24];
  shape_text(tensor->extents, tensor->rank, has, sizeof has);
  shape_text(want->extents, want->rank, wanted, sizeof wanted);
  return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                   "tensor '%s': its shape is %s, network '%s' needs %s: are --width, --classes and --input those it was "
                   "trained with?",
                   tensor->name, has, import->network->name, wanted);
}

enum hwgq_status state_weights_check(struct state_import *import) {
  for (int i = 0; i < import->network->layer_count; i++) {
    const struct hwgq_layer *layer = &import->network->layers[i];
    const struct hwgq_tensor *tensor = NULL;
    struct want wants[MAX_WANTS];
    int count = wants_of(import, layer, wants);
    for (int j = 0; j < count; j++) {
      enum hwgq_status status = state_take(import, wants[j].layer, wants[j].key, &tensor);
      if (!status) status = check_tensor(import, &wants[j], tensor);
      if (status) return status;
    }
    /* A count of training steps, of no use here. */
    if (layer->op == HWGQ_BATCH_NORM && state_has(import, layer->name, "num_batches_tracked")) {
      enum hwgq_status status = state_take(import, layer->name, "num_batches_tracked", &tensor);
      if (status) return status;
    }
  }
  return HWGQ_OK;
}

/* ---- filling ------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status check_value(const struct state_import *import, const struct want *want,
                                    const struct hwgq_tensor *tensor, uint64_t index, double value) {
  if (!isfinite((float)value))
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "tensor '%s': element %llu is %g, must be finite in float32: did the training diverge?", tensor->name,
                     (unsigned long long)index, value);
  if (want->not_negative && value < 0)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "tensor '%s': element %llu is %g, a variance is not negative",
                     tensor->name, (unsigned long long)index, value);
  return HWGQ_OK;
}

/* One output channel: signs, and alpha from the latent weights as they are in the file. */
static void binarize(struct hwgq_layer *layer, uint64_t channel, const double *row, size_t taps) {
  uint8_t *bits = layer->weight_bits + channel * ((taps + 7) / 8);
  double sum = 0;
  for (size_t i = 0; i < taps; i++) {
    sum += fabs(row[i]);
    if (row[i] >= 0) bits[i / 8] |= (uint8_t)(1u << i % 8);
  }
  if (layer->has_alpha) layer->alpha[channel] = (float)(sum / (double)taps);
}

/* Row by row: a row is what belongs to one output channel. */
static enum hwgq_status fill(struct state_import *import, struct hwgq_layer *layer, const struct want *want) {
  const struct hwgq_tensor *tensor = NULL;
  enum hwgq_status status = state_take(import, want->layer, want->key, &tensor);
  if (status) return status;
  uint64_t rows = want->extents[0];
  size_t taps = 1;
  for (int i = 1; i < want->rank; i++) taps *= (size_t)want->extents[i];
  double *row = malloc(taps * sizeof *row);
  if (!row) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "tensor '%s': out of memory", tensor->name);
  for (uint64_t r = 0; !status && r < rows; r++) {
    read_elements(tensor, r * taps, taps, row);
    for (size_t i = 0; !status && i < taps; i++) {
      status = check_value(import, want, tensor, r * taps + i, row[i]);
      if (want->floats) want->floats[r * taps + i] = (float)row[i];
    }
    if (!status && !want->floats) binarize(layer, r, row, taps);
  }
  free(row);
  return status;
}

enum hwgq_status state_weights_fill(struct state_import *import) {
  enum hwgq_status status = HWGQ_OK;
  for (int i = 0; !status && i < import->network->layer_count; i++) {
    struct want wants[MAX_WANTS];
    int count = wants_of(import, &import->network->layers[i], wants);
    for (int j = 0; !status && j < count; j++) status = fill(import, &import->network->layers[i], &wants[j]);
  }
  return status;
}
