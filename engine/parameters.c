/* The list of a layer's parameter arrays, and what goes over all arrays of a network. */
#include "engine/parameters.h"

#include <math.h>
#include <stdlib.h>

static struct hwgq_parameter per_channel(const char *name, int channels, float fill, float **data) {
  return (struct hwgq_parameter){
      .name = name, .rank = 1, .extents = {(uint64_t)channels}, .count = (uint64_t)channels, .fill = fill, .floats = data};
}

static struct hwgq_parameter weights(const struct hwgq_network *network, struct hwgq_layer *layer) {
  uint64_t out = (uint64_t)layer->out_channels, fan_in = hwgq_layer_fan_in(network, layer);
  if (layer->binary) {
    uint64_t row = (fan_in + 7) / 8;
    return (struct hwgq_parameter){
        .name = "weight_bits", .rank = 2, .extents = {out, row}, .count = out * row, .bits = &layer->weight_bits};
  }
  uint64_t kernel_height = (uint64_t)layer->kernel_height, kernel_width = (uint64_t)layer->kernel_width;
  return (struct hwgq_parameter){.name = "weight",
                                 .rank = 4,
                                 .extents = {out, fan_in / (kernel_height * kernel_width), kernel_height, kernel_width},
                                 .count = out * fan_in,
                                 .floats = &layer->weight};
}

int hwgq_layer_parameters(const struct hwgq_network *network, struct hwgq_layer *layer,
                          struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS]) {
  int count = 0, channels = layer->output.channels;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    parameters[count++] = weights(network, layer);
    if (layer->has_alpha) parameters[count++] = per_channel("alpha", channels, 1, &layer->alpha);
    if (layer->has_bias) parameters[count++] = per_channel("bias", channels, 0, &layer->bias);
    break;
  case HWGQ_BATCH_NORM:
    parameters[count++] = per_channel("mean", channels, 0, &layer->mean);
    parameters[count++] = per_channel("variance", channels, 1, &layer->variance);
    break;
  case HWGQ_SCALE:
    parameters[count++] = per_channel("gamma", channels, 1, &layer->gamma);
    if (layer->has_bias) parameters[count++] = per_channel("beta", channels, 0, &layer->beta);
    break;
  default:
    break;
  }
  return count;
}

static enum hwgq_status allocate(const struct hwgq_layer *layer, const struct hwgq_parameter *parameter,
                                 struct hwgq_error *error) {
  if (hwgq_parameter_data(parameter)) return HWGQ_OK;
  void *data = calloc(parameter->count, parameter->bits ? 1 : sizeof(float));
  if (!data)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "layer '%s': out of memory for %llu bytes of %s", layer->name,
                     (unsigned long long)hwgq_parameter_bytes(parameter), parameter->name);
  if (parameter->bits) {
    *parameter->bits = data;
    return HWGQ_OK;
  }
  *parameter->floats = data;
  if (parameter->fill != 0)
    for (uint64_t i = 0; i < parameter->count; i++) (*parameter->floats)[i] = parameter->fill;
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_allocate_parameters(struct hwgq_network *network, struct hwgq_error *error) {
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
    int count = hwgq_layer_parameters(network, &network->layers[i], parameters);
    for (int j = 0; j < count; j++) {
      enum hwgq_status status = allocate(&network->layers[i], &parameters[j], error);
      if (status) return status;
    }
  }
  return HWGQ_OK;
}

static enum hwgq_status check_floats(const struct hwgq_layer *layer, const struct hwgq_parameter *parameter,
                                     struct hwgq_error *error) {
  const float *values = *parameter->floats;
  bool variance = values == layer->variance;
  for (uint64_t i = 0; i < parameter->count; i++) {
    if (!isfinite(values[i]))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': %s element %llu is %s, must be finite", layer->name,
                       parameter->name, (unsigned long long)i, isnan(values[i]) ? "not a number" : "infinite");
    if (variance && values[i] < 0)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': variance of channel %llu is %g, must not be negative",
                       layer->name, (unsigned long long)i, (double)values[i]);
  }
  return HWGQ_OK;
}

static enum hwgq_status check_bits(const struct hwgq_network *network, const struct hwgq_layer *layer,
                                   struct hwgq_error *error) {
  uint64_t fan_in = hwgq_layer_fan_in(network, layer), row = (fan_in + 7) / 8;
  if (fan_in % 8 == 0) return HWGQ_OK;
  for (int o = 0; o < layer->out_channels; o++)
    if (layer->weight_bits[((uint64_t)o + 1) * row - 1] >> (fan_in % 8))
      return hwgq_fail(error, HWGQ_ERROR_INVALID,
                       "layer '%s': weight_bits of output channel %d has bits set beyond its %llu weights", layer->name, o,
                       (unsigned long long)fan_in);
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_check_parameters(const struct hwgq_network *network, struct hwgq_error *error) {
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
    int count = hwgq_layer_parameters(network, layer, parameters);
    for (int j = 0; j < count; j++) {
      if (!hwgq_parameter_data(&parameters[j]))
        return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s' has no %s: call hwgq_network_allocate_parameters first",
                         layer->name, parameters[j].name);
      enum hwgq_status status =
          parameters[j].bits ? check_bits(network, layer, error) : check_floats(layer, &parameters[j], error);
      if (status) return status;
    }
  }
  return HWGQ_OK;
}
