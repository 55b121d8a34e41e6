#include "models/networks/builder.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *build_name(char name[BUILDER_NAME], const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, BUILDER_NAME, format, arguments);
  va_end(arguments);
  return name;
}

void build_from(struct builder *b, const char *name) {
  snprintf(b->last, sizeof b->last, "%s", name);
}

static struct hwgq_layer *add_layer(struct builder *b, const char *name, enum hwgq_op op, int count,
                                    const char *const *inputs) {
  struct hwgq_layer *layer = NULL;
  if (b->status == HWGQ_OK) b->status = hwgq_network_add(b->network, name, op, count, inputs, &layer, b->error);
  if (b->status != HWGQ_OK) return NULL;
  build_from(b, name);
  return layer;
}

struct hwgq_layer *build_layer(struct builder *b, const char *name, enum hwgq_op op) {
  const char *input = b->last;
  return add_layer(b, name, op, 1, &input);
}

static int scaled(const struct builder *b, int channels) {
  double result = floor(channels * b->width + 0.5);
  return result < 1 ? 1 : (int)result;
}

static struct hwgq_layer *build_conv(struct builder *b, const char *name, struct conv conv) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_CONV2D);
  if (layer == NULL) return NULL;
  layer->out_channels = scaled(b, conv.out_channels);
  layer->kernel_height = layer->kernel_width = conv.kernel;
  layer->stride_height = layer->stride_width = conv.stride;
  layer->pad_height = layer->pad_width = conv.pad;
  return layer;
}

void build_float_conv(struct builder *b, const char *name, struct conv conv, bool bias) {
  struct hwgq_layer *layer = build_conv(b, name, conv);
  if (layer != NULL) layer->has_bias = bias;
}

void build_binary_conv(struct builder *b, const char *name, struct conv conv) {
  struct hwgq_layer *layer = build_conv(b, name, conv);
  if (layer != NULL) layer->binary = layer->has_alpha = !b->variant->float_weights;
}

void build_binary_linear(struct builder *b, const char *name, int out_channels) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_LINEAR);
  if (layer == NULL) return;
  layer->out_channels = scaled(b, out_channels);
  layer->binary = layer->has_alpha = !b->variant->float_weights;
}

void build_classifier(struct builder *b, const char *name, int class_count, bool binary) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_LINEAR);
  if (layer != NULL) {
    layer->out_channels = class_count;
    layer->binary = layer->has_alpha = binary && !b->variant->float_weights;
    layer->has_bias = true;
  }
  build_layer(b, "prob", HWGQ_SOFTMAX);
}

void build_max_pool(struct builder *b, const char *name, int kernel, int stride) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_MAX_POOL);
  if (layer == NULL) return;
  layer->kernel_height = layer->kernel_width = kernel;
  layer->stride_height = layer->stride_width = stride;
}

void build_global_pool(struct builder *b, const char *name) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_AVG_POOL);
  if (layer != NULL) layer->global_pool = true;
}

void build_scale(struct builder *b, const char *name) {
  struct hwgq_layer *layer = build_layer(b, name, HWGQ_SCALE);
  if (layer != NULL) layer->has_bias = true;
}

void build_quantize(struct builder *b, const char *name) {
  const struct networks_variant *variant = b->variant;
  char scale[BUILDER_NAME];
  if (variant->affine) build_scale(b, build_name(scale, "%.50s_scale", name));
  struct hwgq_layer *layer = build_layer(b, name, variant->relu ? HWGQ_RELU : HWGQ_QUANTIZE);
  if (layer == NULL || variant->relu) return;
  layer->sign = variant->quantizer == NULL;
  if (layer->sign) return;
  layer->level_count = variant->quantizer->level_count;
  memcpy(layer->centers, variant->quantizer->centers, sizeof layer->centers);
  memcpy(layer->thresholds, variant->quantizer->thresholds, sizeof layer->thresholds);
}

void build_add(struct builder *b, const char *name, const char *one, const char *other) {
  add_layer(b, name, HWGQ_ADD, 2, (const char *const[]){one, other});
}

void build_concat(struct builder *b, const char *name, int count, const char *const *inputs) {
  add_layer(b, name, HWGQ_CONCAT, count, inputs);
}
