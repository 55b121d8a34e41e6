/* One layer of the prototxt as one layer of the network: which fields each type has and what they mean. */
#include <string.h>

#include "models/import/caffe.h"

struct conversion {
  struct caffe_import *import;
  struct prototxt *document;
  struct hwgq_error *error;
  const struct caffe_layer *source;
  struct hwgq_layer *layer;
};

static enum hwgq_status unsupported(const struct conversion *at, const char *what) {
  return hwgq_fail(at->error, HWGQ_ERROR_UNSUPPORTED, "prototxt line %d: layer '%.80s': %s",
                   prototxt_line(at->document, at->source->field), at->source->name, what);
}

/* The layer's parameter message `name`; PROTOTXT_NONE when absent, and every getter then gives its default. */
static enum hwgq_status parameters(const struct conversion *at, const char *name, int *message) {
  return prototxt_get_message(at->document, at->source->field, name, message, at->error);
}

/* A field that must have its usual value when it is there. */
static enum hwgq_status require_integer(const struct conversion *at, int message, const char *name, int usual,
                                        const char *why) {
  int value = usual;
  enum hwgq_status status = prototxt_get_integer(at->document, message, name, INT32_MIN, INT32_MAX, &value, at->error);
  if (status || value == usual) return status;
  return hwgq_fail(at->error, HWGQ_ERROR_UNSUPPORTED, "prototxt line %d: layer '%.80s': %s is %d; %s",
                   prototxt_line(at->document, at->source->field), at->source->name, name, value, why);
}

/* Only how Caffe trains or computes, not what. */
static void ignore_fillers(const struct conversion *at, int message) {
  static const char *const harmless[] = {"weight_filler", "bias_filler", "filler", "engine", "force_nd_im2col"};
  for (size_t i = 0; message != PROTOTXT_NONE && i < sizeof harmless / sizeof *harmless; i++)
    prototxt_ignore(at->document, message, harmless[i]);
}

/* One size for both directions (repeated: height, width), or NAME_h and NAME_w. */
static enum hwgq_status read_pair(const struct conversion *at, int message, const char *both, const char *name_h,
                                  const char *name_w, int minimum, int *height, int *width) {
  int values[2], count = 0;
  for (int field = prototxt_find(at->document, message, both); field != PROTOTXT_NONE;
       field = prototxt_find_next(at->document, field)) {
    int64_t value;
    enum hwgq_status status = prototxt_integer(at->document, field, minimum, HWGQ_MAX_KERNEL, &value, at->error);
    if (status) return status;
    if (count == 2) return unsupported(at, "a kernel, stride or pad has more than two dimensions; only images are supported");
    values[count++] = (int)value;
  }
  if (count) {
    *height = values[0];
    *width = values[count - 1];
  }
  int h = *height, w = *width;
  enum hwgq_status status = prototxt_get_integer(at->document, message, name_h, minimum, HWGQ_MAX_KERNEL, &h, at->error);
  if (!status) status = prototxt_get_integer(at->document, message, name_w, minimum, HWGQ_MAX_KERNEL, &w, at->error);
  if (!status && count && (h != *height || w != *width))
    return unsupported(at, "a size is given both as one number and by height and width; keep one");
  *height = h;
  *width = w;
  return status;
}

static enum hwgq_status window(const struct conversion *at, int message) {
  struct hwgq_layer *layer = at->layer;
  layer->kernel_height = layer->kernel_width = 0;
  enum hwgq_status status =
      read_pair(at, message, "kernel_size", "kernel_h", "kernel_w", 1, &layer->kernel_height, &layer->kernel_width);
  if (!status)
    status = read_pair(at, message, "stride", "stride_h", "stride_w", 1, &layer->stride_height, &layer->stride_width);
  if (!status) status = read_pair(at, message, "pad", "pad_h", "pad_w", 0, &layer->pad_height, &layer->pad_width);
  return status;
}

/* num_output and bias_term, which convolutions and inner products share, and binary_..._param of the binary kinds. */
static enum hwgq_status weighted(const struct conversion *at, int message, const char *binary_message) {
  struct hwgq_layer *layer = at->layer;
  layer->out_channels = 0;
  layer->has_bias = true;
  enum hwgq_status status =
      prototxt_get_integer(at->document, message, "num_output", 1, HWGQ_MAX_DIMENSION, &layer->out_channels, at->error);
  if (!status) status = prototxt_get_bool(at->document, message, "bias_term", &layer->has_bias, at->error);
  if (status) return status;
  if (layer->out_channels == 0) return unsupported(at, "num_output is missing");
  ignore_fillers(at, message);
  if (strncmp(at->source->type, "Binary", 6) != 0) {
    if (prototxt_ignore(at->document, at->source->field, binary_message))
      caffe_note(at->import, "layer '%s': %s has no effect in a layer of type %s", at->source->name, binary_message,
                 at->source->type);
    return HWGQ_OK;
  }
  int binary;
  bool alpha = false, binarize = true;
  status = parameters(at, binary_message, &binary);
  if (!status) status = prototxt_get_bool(at->document, binary, "use_alpha", &alpha, at->error);
  if (!status) status = prototxt_get_bool(at->document, binary, "use_binarization", &binarize, at->error);
  if (status) return status;
  if (alpha && !binarize) return unsupported(at, "use_alpha without use_binarization is not supported: delete use_alpha");
  layer->binary = binarize;
  layer->has_alpha = alpha;
  return HWGQ_OK;
}

static enum hwgq_status convolution(struct conversion *at) {
  int message;
  enum hwgq_status status = parameters(at, "convolution_param", &message);
  if (!status) status = weighted(at, message, "binary_convolution_param");
  if (!status) status = window(at, message);
  if (!status)
    status = prototxt_get_integer(at->document, message, "group", 1, HWGQ_MAX_DIMENSION, &at->layer->groups, at->error);
  if (!status) status = require_integer(at, message, "axis", 1, "only 1, the channels, is supported");
  if (status) return status;
  if (at->layer->kernel_height == 0 || at->layer->kernel_width == 0) return unsupported(at, "kernel_size is missing");
  for (int field = prototxt_find(at->document, message, "dilation"); field != PROTOTXT_NONE;
       field = prototxt_find_next(at->document, field)) {
    int64_t dilation;
    status = prototxt_integer(at->document, field, 1, HWGQ_MAX_KERNEL, &dilation, at->error);
    if (status) return status;
    if (dilation != 1) return unsupported(at, "dilation other than 1 is not supported");
  }
  return HWGQ_OK;
}

static enum hwgq_status inner_product(struct conversion *at) {
  int message;
  bool transpose = false;
  enum hwgq_status status = parameters(at, "inner_product_param", &message);
  if (!status) status = weighted(at, message, "binary_inner_product_param");
  if (!status) status = require_integer(at, message, "axis", 1, "only 1, the channels, is supported");
  if (!status) status = prototxt_get_bool(at->document, message, "transpose", &transpose, at->error);
  if (!status && transpose) return unsupported(at, "transpose is not supported: save the weights untransposed");
  return status;
}

static enum hwgq_status pooling(struct conversion *at) {
  int message;
  char method[PROTOTXT_STRING_SIZE] = "MAX", round[PROTOTXT_STRING_SIZE] = "CEIL";
  struct hwgq_layer *layer = at->layer;
  enum hwgq_status status = parameters(at, "pooling_param", &message);
  if (!status) status = prototxt_get_word(at->document, message, "pool", method, at->error);
  if (!status) status = prototxt_get_word(at->document, message, "round_mode", round, at->error);
  if (!status) status = prototxt_get_bool(at->document, message, "global_pooling", &layer->global_pool, at->error);
  if (!status) status = window(at, message);
  if (status) return status;
  ignore_fillers(at, message);
  if (!strcmp(method, "AVE") || !strcmp(method, "1"))
    layer->op = HWGQ_AVG_POOL;
  else if (strcmp(method, "MAX") && strcmp(method, "0"))
    return unsupported(at, "pool must be MAX or AVE");
  if (strcmp(round, "CEIL") && strcmp(round, "0"))
    return unsupported(at, "round_mode must be CEIL, as in the authors' program");
  bool sized = layer->kernel_height > 0 && layer->kernel_width > 0;
  if (layer->global_pool && (layer->kernel_height || layer->kernel_width))
    return unsupported(at, "global_pooling takes the whole input: delete the kernel size");
  if (layer->global_pool && (layer->pad_height || layer->pad_width || layer->stride_height != 1 || layer->stride_width != 1))
    return unsupported(at, "global_pooling has no padding and stride 1");
  if (!layer->global_pool && !sized) return unsupported(at, "kernel_size is missing");
  if (layer->global_pool) layer->kernel_height = layer->kernel_width = 1; /* shape inference fills them */
  return HWGQ_OK;
}

static enum hwgq_status batch_norm(struct conversion *at) {
  int message;
  bool global = true;
  enum hwgq_status status = parameters(at, "batch_norm_param", &message);
  if (!status) status = prototxt_get_float(at->document, message, "eps", &at->layer->eps, at->error);
  if (!status) status = prototxt_get_bool(at->document, message, "use_global_stats", &global, at->error);
  if (status) return status;
  if (message != PROTOTXT_NONE) prototxt_ignore(at->document, message, "moving_average_fraction");
  if (!global)
    caffe_note(at->import,
               "layer '%s' says use_global_stats: false, which is for training; the statistics in the caffemodel are used",
               at->source->name);
  return at->layer->eps > 0 ? HWGQ_OK : unsupported(at, "eps must be greater than 0");
}

static enum hwgq_status scale(struct conversion *at) {
  int message;
  at->layer->has_bias = false;
  enum hwgq_status status = parameters(at, "scale_param", &message);
  if (!status) status = prototxt_get_bool(at->document, message, "bias_term", &at->layer->has_bias, at->error);
  if (!status) status = require_integer(at, message, "axis", 1, "only 1, the channels, is supported");
  if (!status) status = require_integer(at, message, "num_axes", 1, "only 1, one factor per channel, is supported");
  ignore_fillers(at, message);
  return status;
}

static enum hwgq_status relu(struct conversion *at) {
  int message;
  float slope = 0;
  enum hwgq_status status = parameters(at, "relu_param", &message);
  if (!status) status = prototxt_get_float(at->document, message, "negative_slope", &slope, at->error);
  ignore_fillers(at, message);
  if (!status && slope != 0) return unsupported(at, "negative_slope other than 0 (leaky ReLU) is not supported");
  return status;
}

/* Centers are positive and ascend. Thresholds as the authors' program has them: 0, then midpoints in float32. */
static enum hwgq_status hwgq_levels(struct conversion *at, int message) {
  struct hwgq_layer *layer = at->layer;
  layer->level_count = 0;
  for (int field = prototxt_find(at->document, message, "centers"); field != PROTOTXT_NONE;
       field = prototxt_find_next(at->document, field)) {
    if (layer->level_count == HWGQ_MAX_LEVELS) return unsupported(at, "more than 15 centers (4 bits)");
    float *center = &layer->centers[layer->level_count];
    enum hwgq_status status = prototxt_float(at->document, field, center, at->error);
    if (status) return status;
    if (!(*center > (layer->level_count ? center[-1] : 0))) return unsupported(at, "centers must be positive and ascend");
    layer->level_count++;
  }
  if (layer->level_count == 0) return unsupported(at, "a hwgq quantizer needs centers");
  layer->thresholds[0] = 0;
  for (int k = 1; k < layer->level_count; k++) layer->thresholds[k] = (layer->centers[k - 1] + layer->centers[k]) / 2;
  return HWGQ_OK;
}

static enum hwgq_status quant(struct conversion *at) {
  int message;
  float slope = 0;
  char function[PROTOTXT_STRING_SIZE] = "";
  enum hwgq_status status = parameters(at, "quant_param", &message);
  if (!status) status = prototxt_get_string(at->document, message, "forward_func", function, at->error);
  if (!status) status = prototxt_get_float(at->document, message, "negative_slope", &slope, at->error);
  if (status) return status;
  if (slope != 0) return unsupported(at, "a quantizer with a negative_slope other than 0 is not supported");
  if (message != PROTOTXT_NONE) { /* only the gradient */
    prototxt_ignore(at->document, message, "backward_func");
    prototxt_ignore(at->document, message, "clip_thr");
  }
  if (!strcmp(function, "hwgq")) return hwgq_levels(at, message);
  if (strcmp(function, "sign")) return unsupported(at, "forward_func must be \"hwgq\" or \"sign\"");
  if (prototxt_find(at->document, message, "centers") != PROTOTXT_NONE)
    return unsupported(at, "a sign quantizer has no centers: delete them or use forward_func \"hwgq\"");
  at->layer->sign = true;
  return HWGQ_OK;
}

static enum hwgq_status eltwise(struct conversion *at) {
  int message, count = 0;
  char operation[PROTOTXT_STRING_SIZE] = "SUM";
  enum hwgq_status status = parameters(at, "eltwise_param", &message);
  if (!status) status = prototxt_get_word(at->document, message, "operation", operation, at->error);
  if (status) return status;
  if (message != PROTOTXT_NONE) prototxt_ignore(at->document, message, "stable_prod_grad");
  if (strcmp(operation, "SUM") && strcmp(operation, "1")) return unsupported(at, "only operation SUM is supported");
  for (int field = prototxt_find(at->document, message, "coeff"); field != PROTOTXT_NONE;
       field = prototxt_find_next(at->document, field)) {
    if (count == at->source->bottom_count) break;
    status = prototxt_float(at->document, field, &at->layer->coefficients[count++], at->error);
    if (status) return status;
  }
  if (count && (count != at->source->bottom_count || prototxt_unused(at->document, message) != PROTOTXT_NONE))
    return unsupported(at, "there must be one coeff for each bottom, or none");
  return HWGQ_OK;
}

static enum hwgq_status concat(struct conversion *at) {
  int message;
  enum hwgq_status status = parameters(at, "concat_param", &message);
  if (!status) status = require_integer(at, message, "axis", 1, "only 1, the channels, is supported");
  if (!status) status = require_integer(at, message, "concat_dim", 1, "only 1, the channels, is supported");
  return status;
}

static enum hwgq_status flatten(struct conversion *at) {
  int message;
  enum hwgq_status status = parameters(at, "flatten_param", &message);
  if (!status) status = require_integer(at, message, "axis", 1, "only 1 is supported");
  if (!status) status = require_integer(at, message, "end_axis", -1, "only -1, the last axis, is supported");
  return status;
}

static enum hwgq_status softmax(struct conversion *at) {
  int message;
  enum hwgq_status status = parameters(at, "softmax_param", &message);
  if (!status) status = require_integer(at, message, "axis", 1, "only 1, the channels, is supported");
  ignore_fillers(at, message);
  if (!status && !strcmp(at->source->type, "SoftmaxWithLoss")) {
    prototxt_ignore(at->document, at->source->field, "loss_param");
    caffe_note(at->import, "layer '%s' (SoftmaxWithLoss) is imported as the Softmax that is in it", at->source->name);
  }
  return status;
}

static const struct layer_type {
  const char *name;
  enum hwgq_op op;
  int minimum_inputs, maximum_inputs;
  enum hwgq_status (*convert)(struct conversion *at);
} layer_types[] = {
    {"Convolution", HWGQ_CONV2D, 1, 1, convolution},
    {"BinaryConvolution", HWGQ_CONV2D, 1, 1, convolution},
    {"InnerProduct", HWGQ_LINEAR, 1, 1, inner_product},
    {"BinaryInnerProduct", HWGQ_LINEAR, 1, 1, inner_product},
    {"Pooling", HWGQ_MAX_POOL, 1, 1, pooling},
    {"BatchNorm", HWGQ_BATCH_NORM, 1, 1, batch_norm},
    {"Scale", HWGQ_SCALE, 1, 1, scale},
    {"ReLU", HWGQ_RELU, 1, 1, relu},
    {"Quant", HWGQ_QUANTIZE, 1, 1, quant},
    {"Eltwise", HWGQ_ADD, 2, HWGQ_MAX_INPUTS, eltwise},
    {"Concat", HWGQ_CONCAT, 1, HWGQ_MAX_INPUTS, concat},
    {"Flatten", HWGQ_FLATTEN, 1, 1, flatten},
    {"Softmax", HWGQ_SOFTMAX, 1, 1, softmax},
    {"SoftmaxWithLoss", HWGQ_SOFTMAX, 1, 1, softmax},
};

static const struct layer_type *find_type(const char *name) {
  for (size_t i = 0; i < sizeof layer_types / sizeof *layer_types; i++)
    if (strcmp(layer_types[i].name, name) == 0) return &layer_types[i];
  return NULL;
}

/* Weights shared between layers would need one blob under two names. */
static enum hwgq_status check_shared_weights(const struct conversion *at) {
  for (int field = prototxt_find(at->document, at->source->field, "param"); field != PROTOTXT_NONE;
       field = prototxt_find_next(at->document, field)) {
    if (at->document->fields[field].kind == PROTOTXT_MESSAGE && prototxt_find(at->document, field, "name") != PROTOTXT_NONE)
      return unsupported(
          at, "param { name } shares weights between layers, which is not supported; if nothing is shared, delete it");
  }
  return HWGQ_OK;
}

/* Whatever is left in the layer's message must be known not to matter. */
static enum hwgq_status check_unused(const struct conversion *at) {
  static const char *const harmless[] = {"top", "param", "phase", "loss_weight", "blobs_lr", "weight_decay", "propagate_down"};
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) prototxt_ignore(at->document, at->source->field, harmless[i]);
  int unused = prototxt_unused(at->document, at->source->field);
  if (unused == PROTOTXT_NONE) return HWGQ_OK;
  char name[64];
  prototxt_name(at->document, unused, name, sizeof name);
  return hwgq_fail(
      at->error, HWGQ_ERROR_UNSUPPORTED,
      "prototxt line %d: layer '%.80s': field %s is not known for type %s; if it does not change results, delete it",
      prototxt_line(at->document, unused), at->source->name, name, at->source->type);
}

enum hwgq_status caffe_layer_add(struct caffe_import *import, struct hwgq_network *network, struct caffe_layer *source) {
  struct conversion at = {import, &import->document, import->error, source, NULL};
  const struct layer_type *type = find_type(source->type);
  if (!type)
    return hwgq_fail(
        import->error, HWGQ_ERROR_UNSUPPORTED,
        "prototxt line %d: layer '%.80s' has type '%.80s', which this engine does not have; it has the layers of the "
        "HWGQ networks: convolutions, inner products, pooling, batch norm, scale, ReLU, Quant, Eltwise SUM, Concat, "
        "Flatten and Softmax",
        prototxt_line(at.document, source->field), source->name, source->type);
  if (source->bottom_count < type->minimum_inputs || source->bottom_count > type->maximum_inputs)
    return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED,
                     "prototxt line %d: layer '%.80s': a %s layer with %d bottoms is not supported",
                     prototxt_line(at.document, source->field), source->name, source->type, source->bottom_count);
  if (source->top_count != 1 && strcmp(source->type, "SoftmaxWithLoss") != 0)
    return unsupported(&at, "it must have exactly one top");
  source->network_name = caffe_network_name(source->name);
  if (!source->network_name) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "layer '%.80s': out of memory", source->name);
  const char *inputs[HWGQ_MAX_INPUTS];
  for (int i = 0; i < source->bottom_count; i++)
    inputs[i] = source->bottoms[i] < 0 ? "input" : import->graph.layers[source->bottoms[i]].network_name;
  enum hwgq_status status =
      hwgq_network_add(network, source->network_name, type->op, source->bottom_count, inputs, &at.layer, import->error);
  source->index = network->layer_count - 1;
  if (!status) status = check_shared_weights(&at);
  if (!status) status = type->convert(&at);
  return status ? status : check_unused(&at);
}
