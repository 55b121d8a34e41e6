/* Shape inference and every check of a network description. Output sizes follow Caffe, whose networks these are: convolutions
 * round down, pooling rounds up. */
#include "engine/hwgq.h"
#include "engine/parameters.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define MAX_WEIGHTS (1ull << 31)     /* weights of a whole network */
#define MAX_ACTIVATIONS (1ull << 28) /* elements of all layers' outputs together */

#define INVALID(layer, ...) fail_layer(error, HWGQ_ERROR_INVALID, layer, __VA_ARGS__)

/* "layer 'conv1' (conv2d): ..." */
__attribute__((format(printf, 4, 5))) static enum hwgq_status
fail_layer(struct hwgq_error *error, enum hwgq_status status, const struct hwgq_layer *layer, const char *format, ...) {
  char text[384];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return hwgq_fail(error, status, "layer '%s' (%s): %s", layer->name, hwgq_op_name(layer->op), text);
}

/* ---- windows ------------------------------------------------------------------------------------------------------------ */

static int convolution_size(int in, int kernel, int stride, int pad) {
  return (in + 2 * pad - kernel) / stride + 1;
}

/* Rounded up; a last window that would start at or beyond in + pad (counted from the padded edge) sees nothing and is
 * dropped. */
static int pooling_size(int in, int kernel, int stride, int pad) {
  int out = (in + 2 * pad - kernel + stride - 1) / stride + 1;
  if ((out - 1) * stride >= in + pad) out--;
  return out;
}

static enum hwgq_status check_window(const struct hwgq_layer *layer, struct hwgq_shape in, bool pooling,
                                     struct hwgq_error *error) {
  const struct {
    const char *axis;
    int in, kernel, stride, pad;
  } axes[2] = {{"height", in.height, layer->kernel_height, layer->stride_height, layer->pad_height},
               {"width", in.width, layer->kernel_width, layer->stride_width, layer->pad_width}};
  for (int i = 0; i < 2; i++) {
    const char *axis = axes[i].axis;
    int kernel = axes[i].kernel, stride = axes[i].stride, pad = axes[i].pad;
    if (kernel < 1 || (kernel > HWGQ_MAX_KERNEL && !layer->global_pool))
      return INVALID(layer, "kernel %s is %d, must be 1 to %d", axis, kernel, HWGQ_MAX_KERNEL);
    if (stride < 1 || stride > HWGQ_MAX_KERNEL)
      return INVALID(layer, "stride along the %s is %d, must be 1 to %d", axis, stride, HWGQ_MAX_KERNEL);
    if (pad < 0 || pad > HWGQ_MAX_KERNEL)
      return INVALID(layer, "pad along the %s is %d, must be 0 to %d", axis, pad, HWGQ_MAX_KERNEL);
    if (pooling && pad >= kernel)
      return INVALID(layer, "pad %d along the %s must be smaller than the kernel, %d: else a window sees only padding", pad,
                     axis, kernel);
    if (kernel > axes[i].in + 2 * pad)
      return INVALID(layer, "kernel %s %d is larger than the padded input, %d + 2 * %d", axis, kernel, axes[i].in, pad);
  }
  return HWGQ_OK;
}

/* ---- one function per operation: checks its fields, sets layer->output -------------------------------------------------- */

static enum hwgq_status check_weights(const struct hwgq_network *network, const struct hwgq_layer *layer,
                                      struct hwgq_error *error) {
  if (layer->has_alpha && !layer->binary)
    return INVALID(layer, "has alpha but is not binary: fold alpha into the weights, or make the layer binary");
  uint64_t fan_in = hwgq_layer_fan_in(network, layer);
  if (fan_in > HWGQ_MAX_FAN_IN)
    return fail_layer(error, HWGQ_ERROR_LIMIT, layer, "%llu inputs per output, at most %d are allowed",
                      (unsigned long long)fan_in, HWGQ_MAX_FAN_IN);
  return HWGQ_OK;
}

static enum hwgq_status check_out_channels(const struct hwgq_layer *layer, struct hwgq_error *error) {
  if (layer->out_channels < 1 || layer->out_channels > HWGQ_MAX_DIMENSION)
    return INVALID(layer, "out_channels is %d, must be 1 to %d", layer->out_channels, HWGQ_MAX_DIMENSION);
  return HWGQ_OK;
}

static enum hwgq_status infer_conv2d(const struct hwgq_network *network, struct hwgq_layer *layer, struct hwgq_shape in,
                                     struct hwgq_error *error) {
  enum hwgq_status status = check_out_channels(layer, error);
  if (!status) status = check_window(layer, in, false, error);
  if (status) return status;
  if (layer->groups < 1) return INVALID(layer, "groups is %d, must be at least 1", layer->groups);
  if (layer->float_pixels && layer->inputs[0] != HWGQ_NETWORK_INPUT)
    return INVALID(layer, "float_pixels is for a convolution on the network's input");
  if (in.channels % layer->groups || layer->out_channels % layer->groups)
    return INVALID(layer, "groups %d must divide both the %d input and the %d output channels", layer->groups, in.channels,
                   layer->out_channels);
  layer->output = (struct hwgq_shape){
      layer->out_channels, convolution_size(in.height, layer->kernel_height, layer->stride_height, layer->pad_height),
      convolution_size(in.width, layer->kernel_width, layer->stride_width, layer->pad_width)};
  return check_weights(network, layer, error);
}

static enum hwgq_status infer_linear(const struct hwgq_network *network, struct hwgq_layer *layer, struct hwgq_error *error) {
  enum hwgq_status status = check_out_channels(layer, error);
  if (status) return status;
  if (layer->kernel_height != 1 || layer->kernel_width != 1 || layer->stride_height != 1 || layer->stride_width != 1 ||
      layer->pad_height || layer->pad_width || layer->groups != 1)
    return INVALID(layer, "kernel, stride, pad and groups must keep their defaults: a linear layer takes its whole input");
  layer->output = (struct hwgq_shape){layer->out_channels, 1, 1};
  return check_weights(network, layer, error);
}

static enum hwgq_status check_increasing(const struct hwgq_layer *layer, const char *what, const float *values,
                                         struct hwgq_error *error) {
  for (int i = 0; i < layer->level_count; i++) {
    if (!isfinite(values[i])) return INVALID(layer, "%s %d is not finite", what, i);
    if (i > 0 && !(values[i] > values[i - 1]))
      return INVALID(layer, "%ss must increase: %s %d is %.9g, after %.9g", what, what, i, (double)values[i],
                     (double)values[i - 1]);
  }
  return HWGQ_OK;
}

static enum hwgq_status infer_quantize(struct hwgq_layer *layer, struct hwgq_shape in, struct hwgq_error *error) {
  layer->output = in;
  if (layer->sign) return HWGQ_OK;
  if (layer->level_count < 1 || layer->level_count > HWGQ_MAX_LEVELS)
    return INVALID(layer, "%d levels, must be 1 to %d (or sign)", layer->level_count, HWGQ_MAX_LEVELS);
  enum hwgq_status status = check_increasing(layer, "center", layer->centers, error);
  if (!status) status = check_increasing(layer, "threshold", layer->thresholds, error);
  if (status) return status;
  if (!(layer->centers[0] > 0))
    return INVALID(layer, "center 0 is %.9g, must be positive: level 0 stands for 0", (double)layer->centers[0]);
  if (!(layer->thresholds[0] >= 0))
    return INVALID(layer, "threshold 0 is %.9g, must not be negative", (double)layer->thresholds[0]);
  return HWGQ_OK;
}

static enum hwgq_status infer_pool(struct hwgq_layer *layer, struct hwgq_shape in, struct hwgq_error *error) {
  if (layer->global_pool) {
    if (layer->stride_height != 1 || layer->stride_width != 1 || layer->pad_height || layer->pad_width)
      return INVALID(layer, "a global pooling takes the whole input: leave stride 1 and pad 0");
    layer->kernel_height = in.height;
    layer->kernel_width = in.width;
  }
  enum hwgq_status status = check_window(layer, in, true, error);
  if (status) return status;
  layer->output =
      (struct hwgq_shape){in.channels, pooling_size(in.height, layer->kernel_height, layer->stride_height, layer->pad_height),
                          pooling_size(in.width, layer->kernel_width, layer->stride_width, layer->pad_width)};
  return HWGQ_OK;
}

static enum hwgq_status infer_add(const struct hwgq_network *network, struct hwgq_layer *layer, struct hwgq_shape in,
                                  struct hwgq_error *error) {
  for (int i = 0; i < layer->input_count; i++) {
    struct hwgq_shape other = hwgq_network_input_shape(network, layer, i);
    if (other.channels != in.channels || other.height != in.height || other.width != in.width)
      return INVALID(layer, "input %d is %dx%dx%d, but input 0 is %dx%dx%d: all must be equal", i, other.channels, other.height,
                     other.width, in.channels, in.height, in.width);
    if (!isfinite(layer->coefficients[i])) return INVALID(layer, "coefficient %d is not finite", i);
  }
  layer->output = in;
  return HWGQ_OK;
}

static enum hwgq_status infer_concat(const struct hwgq_network *network, struct hwgq_layer *layer, struct hwgq_shape in,
                                     struct hwgq_error *error) {
  int channels = 0; /* at most 16 * 2^16 */
  for (int i = 0; i < layer->input_count; i++) {
    struct hwgq_shape other = hwgq_network_input_shape(network, layer, i);
    if (other.height != in.height || other.width != in.width)
      return INVALID(layer, "input %d is %dx%d, but input 0 is %dx%d: heights and widths must be equal", i, other.height,
                     other.width, in.height, in.width);
    channels += other.channels;
  }
  layer->output = (struct hwgq_shape){channels, in.height, in.width};
  return HWGQ_OK;
}

static enum hwgq_status infer_flatten(struct hwgq_layer *layer, struct hwgq_shape in, struct hwgq_error *error) {
  uint64_t elements = hwgq_shape_elements(in);
  if (elements > HWGQ_MAX_DIMENSION)
    return fail_layer(error, HWGQ_ERROR_LIMIT, layer, "%llu channels, at most %d are allowed: linear layers need no flatten",
                      (unsigned long long)elements, HWGQ_MAX_DIMENSION);
  layer->output = (struct hwgq_shape){(int)elements, 1, 1};
  return HWGQ_OK;
}

static enum hwgq_status infer_softmax(struct hwgq_layer *layer, struct hwgq_shape in, struct hwgq_error *error) {
  if (in.height != 1 || in.width != 1)
    return INVALID(layer, "its input is %dx%dx%d, must be Cx1x1: put a linear layer, a global pooling or a flatten before it",
                   in.channels, in.height, in.width);
  layer->output = in;
  return HWGQ_OK;
}

static enum hwgq_status infer_op(const struct hwgq_network *network, struct hwgq_layer *layer, struct hwgq_error *error) {
  struct hwgq_shape in = hwgq_network_input_shape(network, layer, 0);
  switch (layer->op) {
  case HWGQ_CONV2D:
    return infer_conv2d(network, layer, in, error);
  case HWGQ_LINEAR:
    return infer_linear(network, layer, error);
  case HWGQ_QUANTIZE:
    return infer_quantize(layer, in, error);
  case HWGQ_BATCH_NORM:
    if (!(isfinite(layer->eps) && layer->eps > 0))
      return INVALID(layer, "eps is %.9g, must be positive and finite", (double)layer->eps);
    layer->output = in;
    return HWGQ_OK;
  case HWGQ_SCALE:
  case HWGQ_RELU:
    layer->output = in;
    return HWGQ_OK;
  case HWGQ_MAX_POOL:
  case HWGQ_AVG_POOL:
    return infer_pool(layer, in, error);
  case HWGQ_ADD:
    return infer_add(network, layer, in, error);
  case HWGQ_CONCAT:
    return infer_concat(network, layer, in, error);
  case HWGQ_FLATTEN:
    return infer_flatten(layer, in, error);
  case HWGQ_SOFTMAX:
    return infer_softmax(layer, in, error);
  case HWGQ_OP_COUNT:
    break;
  }
  return INVALID(layer, "operation %d does not exist", (int)layer->op);
}

/* ---- the whole network -------------------------------------------------------------------------------------------------- */

static enum hwgq_status check_inputs(const struct hwgq_network *network, int index, bool *used, struct hwgq_error *error) {
  const struct hwgq_layer *layer = &network->layers[index];
  int least = layer->op == HWGQ_ADD ? 2 : 1;
  int most = layer->op == HWGQ_ADD || layer->op == HWGQ_CONCAT ? HWGQ_MAX_INPUTS : 1;
  if (layer->input_count < least || layer->input_count > most)
    return INVALID(layer, "%d inputs, must be %d%s", layer->input_count, least, most > 1 ? " to 16" : "");
  for (int i = 0; i < layer->input_count; i++) {
    int source = layer->inputs[i];
    if (source != HWGQ_NETWORK_INPUT && (source < 0 || source >= index))
      return INVALID(layer, "input %d is layer %d, must be an earlier layer", i, source);
    if (source != HWGQ_NETWORK_INPUT) used[source] = true;
  }
  return HWGQ_OK;
}

/* The sizes of this layer's output, and what it adds to the sums that a network is allowed. */
static enum hwgq_status check_sizes(const struct hwgq_network *network, const struct hwgq_layer *layer, uint64_t *activations,
                                    uint64_t *weights, struct hwgq_error *error) {
  struct hwgq_shape out = layer->output;
  if (out.channels > HWGQ_MAX_DIMENSION || out.height > HWGQ_MAX_DIMENSION || out.width > HWGQ_MAX_DIMENSION)
    return fail_layer(error, HWGQ_ERROR_LIMIT, layer, "its output is %dx%dx%d, at most %d are allowed", out.channels,
                      out.height, out.width, HWGQ_MAX_DIMENSION);
  *activations += hwgq_shape_elements(out);
  if (*activations > MAX_ACTIVATIONS)
    return fail_layer(error, HWGQ_ERROR_LIMIT, layer, "with its output of %dx%dx%d the network has more than %llu activations",
                      out.channels, out.height, out.width, MAX_ACTIVATIONS);
  if (layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR)
    *weights += (uint64_t)layer->out_channels * hwgq_layer_fan_in(network, layer);
  if (*weights > MAX_WEIGHTS)
    return fail_layer(error, HWGQ_ERROR_LIMIT, layer, "with it the network has more than %llu weights", MAX_WEIGHTS);
  return HWGQ_OK;
}

static enum hwgq_status check_network_input(const struct hwgq_network *network, struct hwgq_error *error) {
  struct hwgq_shape in = network->input;
  if (in.channels < 1 || in.height < 1 || in.width < 1 || in.channels > HWGQ_MAX_DIMENSION || in.height > HWGQ_MAX_DIMENSION ||
      in.width > HWGQ_MAX_DIMENSION)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "network '%s': its input is %dx%dx%d, each must be 1 to %d", network->name,
                     in.channels, in.height, in.width, HWGQ_MAX_DIMENSION);
  if (hwgq_shape_elements(in) > MAX_ACTIVATIONS)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "network '%s': its input of %dx%dx%d is larger than %llu elements", network->name,
                     in.channels, in.height, in.width, MAX_ACTIVATIONS);
  if (network->layer_count < 1)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "network '%s' has no layers: add at least one", network->name);
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_infer(struct hwgq_network *network, struct hwgq_error *error) {
  bool used[HWGQ_MAX_LAYERS] = {false};
  uint64_t activations = 0, weights = 0;
  enum hwgq_status status = check_network_input(network, error);
  if (status) return status;
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    status = check_inputs(network, i, used, error);
    if (!status) status = infer_op(network, layer, error);
    if (!status) status = check_sizes(network, layer, &activations, &weights, error);
    if (status) return status;
  }
  for (int i = 0; i < network->layer_count - 1; i++)
    if (!used[i])
      return INVALID(&network->layers[i], "nothing uses its output and it is not the last layer: remove it or use it");
  return HWGQ_OK;
}
