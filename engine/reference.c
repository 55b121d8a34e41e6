/* The reference executor: what the engine's fast paths are measured against. Every layer is computed by itself, in double
 * precision, from the parameters as they were trained; nothing is folded, packed or reordered. It is written to be compared
 * with the definitions in hwgq.h line by line.
 *
 * Tensors are CHW. Sums run in a fixed order (input channel, kernel row, kernel column), so a run gives the same bits
 * everywhere. */
#include "engine/hwgq.h"
#include "engine/math.h"
#include "engine/parameters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct hwgq_reference {
  const struct hwgq_network *network; /* borrowed */
  double *input;
  double **outputs; /* [layer_count] */
};

/* The operands of one layer. */
struct step {
  const struct hwgq_layer *layer;
  struct hwgq_shape in, out;             /* of the first input, and of the output */
  const double *x;                       /* the first input */
  const double *inputs[HWGQ_MAX_INPUTS]; /* all inputs */
  const struct hwgq_network *network;
  double *y;
};

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* Weight `index` of output channel `o`: +1 or -1 in a binary layer. */
static double weight(const struct hwgq_layer *layer, size_t fan_in, size_t o, size_t index) {
  if (!layer->binary) return (double)layer->weight[o * fan_in + index];
  const uint8_t *row = layer->weight_bits + o * ((fan_in + 7) / 8);
  return (row[index / 8] >> (index % 8)) & 1 ? 1 : -1;
}

static void apply_alpha_and_bias(const struct step *s) {
  size_t plane = (size_t)s->out.height * (size_t)s->out.width;
  for (int o = 0; o < s->out.channels; o++) {
    double alpha = s->layer->has_alpha ? (double)s->layer->alpha[o] : 1;
    double bias = s->layer->has_bias ? (double)s->layer->bias[o] : 0;
    double *y = s->y + (size_t)o * plane;
    for (size_t i = 0; i < plane; i++) y[i] = alpha * y[i] + bias;
  }
}

/* Output positions whose input position out * stride - pad + tap lies within 0 .. in - 1. The others see padding, which is 0
 * and adds nothing. */
static void valid_range(int in, int out, int stride, int pad, int tap, int *begin, int *end) {
  int first = pad - tap, last = in - 1 + pad - tap;
  *begin = first > 0 ? (first + stride - 1) / stride : 0;
  *end = last < 0 ? 0 : last / stride + 1;
  if (*end > out) *end = out;
}

/* Adds weight * input to one output channel, for one tap (input channel, kernel row and column). */
static void add_tap(const struct step *s, const double *x, double w, int tap_y, int tap_x, double *y) {
  const struct hwgq_layer *layer = s->layer;
  int y_begin, y_end, x_begin, x_end, stride = layer->stride_width, offset = tap_x - layer->pad_width;
  valid_range(s->in.height, s->out.height, layer->stride_height, layer->pad_height, tap_y, &y_begin, &y_end);
  valid_range(s->in.width, s->out.width, stride, layer->pad_width, tap_x, &x_begin, &x_end);
  for (int row = y_begin; row < y_end; row++) {
    const double *from = x + (size_t)(row * layer->stride_height - layer->pad_height + tap_y) * (size_t)s->in.width;
    double *to = y + (size_t)row * (size_t)s->out.width;
    for (int column = x_begin; column < x_end; column++) to[column] += w * from[column * stride + offset];
  }
}

static void run_conv2d(const struct step *s) {
  const struct hwgq_layer *layer = s->layer;
  int in_channels = s->in.channels / layer->groups, out_channels = s->out.channels / layer->groups;
  size_t in_plane = (size_t)s->in.height * (size_t)s->in.width, out_plane = (size_t)s->out.height * (size_t)s->out.width;
  size_t fan_in = (size_t)hwgq_layer_fan_in(s->network, layer);
  for (int o = 0; o < s->out.channels; o++) {
    double *y = s->y + (size_t)o * out_plane;
    const double *x = s->x + (size_t)(o / out_channels) * (size_t)in_channels * in_plane;
    size_t index = 0;
    for (size_t i = 0; i < out_plane; i++) y[i] = 0;
    for (int c = 0; c < in_channels; c++)
      for (int tap_y = 0; tap_y < layer->kernel_height; tap_y++)
        for (int tap_x = 0; tap_x < layer->kernel_width; tap_x++)
          add_tap(s, x + (size_t)c * in_plane, weight(layer, fan_in, (size_t)o, index++), tap_y, tap_x, y);
  }
  apply_alpha_and_bias(s);
}

static void run_linear(const struct step *s) {
  size_t fan_in = (size_t)hwgq_shape_elements(s->in);
  for (int o = 0; o < s->out.channels; o++) {
    double sum = 0;
    for (size_t i = 0; i < fan_in; i++) sum += weight(s->layer, fan_in, (size_t)o, i) * s->x[i];
    s->y[o] = sum;
  }
  apply_alpha_and_bias(s);
}

/* ---- elementwise -------------------------------------------------------------------------------------------------------- */

/* What the levels stand for, from 0 on. */
static void level_values(const struct hwgq_layer *layer, double values[HWGQ_MAX_LEVELS + 1]) {
  const double step = (double)layer->centers[0];
  bool multiples = true;
  for (int k = 1; k < layer->level_count; k++) multiples = multiples && layer->centers[k] == (float)((k + 1) * step);
  values[0] = 0;
  for (int k = 0; k < layer->level_count; k++) values[k + 1] = multiples ? (k + 1) * step : (double)layer->centers[k];
}

static double quantize(const struct hwgq_layer *layer, const double *values, double x) {
  if (layer->sign) return x >= 0 ? 1 : -1;
  int level = 0;
  while (level < layer->level_count && x > (double)layer->thresholds[level]) level++;
  return values[level];
}

static void run_quantize(const struct step *s) {
  size_t count = (size_t)hwgq_shape_elements(s->out);
  double values[HWGQ_MAX_LEVELS + 1];
  level_values(s->layer, values);
  for (size_t i = 0; i < count; i++) s->y[i] = quantize(s->layer, values, s->x[i]);
}

static void run_batch_norm(const struct step *s) {
  size_t plane = (size_t)s->out.height * (size_t)s->out.width;
  for (int c = 0; c < s->out.channels; c++) {
    double mean = (double)s->layer->mean[c];
    double deviation = sqrt((double)s->layer->variance[c] + (double)s->layer->eps);
    for (size_t i = (size_t)c * plane; i < ((size_t)c + 1) * plane; i++) s->y[i] = (s->x[i] - mean) / deviation;
  }
}

static void run_scale(const struct step *s) {
  size_t plane = (size_t)s->out.height * (size_t)s->out.width;
  for (int c = 0; c < s->out.channels; c++) {
    double gamma = (double)s->layer->gamma[c], beta = s->layer->has_bias ? (double)s->layer->beta[c] : 0;
    for (size_t i = (size_t)c * plane; i < ((size_t)c + 1) * plane; i++) s->y[i] = gamma * s->x[i] + beta;
  }
}

static void run_relu(const struct step *s) {
  size_t count = (size_t)hwgq_shape_elements(s->out);
  for (size_t i = 0; i < count; i++) s->y[i] = s->x[i] > 0 ? s->x[i] : 0;
}

static void run_copy(const struct step *s) {
  size_t count = (size_t)hwgq_shape_elements(s->out);
  for (size_t i = 0; i < count; i++) s->y[i] = s->x[i];
}

/* ---- pooling ------------------------------------------------------------------------------------------------------------ */

/* A window along one axis: the cells begin .. end - 1 of the input, and how many cells the average divides by. */
struct window {
  int begin, end, divisor;
};

static struct window window(int position, int in, int kernel, int stride, int pad) {
  int begin = position * stride - pad, end = begin + kernel;
  if (end > in + pad) end = in + pad;
  struct window w = {begin < 0 ? 0 : begin, end > in ? in : end, end - begin};
  return w;
}

static double pool(const struct hwgq_layer *layer, const double *x, int width, struct window rows, struct window columns) {
  double sum = 0, highest = -(double)INFINITY;
  for (int row = rows.begin; row < rows.end; row++)
    for (int column = columns.begin; column < columns.end; column++) {
      double value = x[(ptrdiff_t)row * width + column];
      sum += value;
      if (value > highest) highest = value;
    }
  return layer->op == HWGQ_MAX_POOL ? highest : sum / ((double)rows.divisor * columns.divisor);
}

static void run_pool(const struct step *s) {
  const struct hwgq_layer *layer = s->layer;
  double *y = s->y;
  for (int c = 0; c < s->in.channels; c++) {
    const double *x = s->x + (size_t)c * (size_t)s->in.height * (size_t)s->in.width;
    for (int row = 0; row < s->out.height; row++)
      for (int column = 0; column < s->out.width; column++)
        *y++ = pool(layer, x, s->in.width,
                    window(row, s->in.height, layer->kernel_height, layer->stride_height, layer->pad_height),
                    window(column, s->in.width, layer->kernel_width, layer->stride_width, layer->pad_width));
  }
}

/* ---- several inputs, and the end ---------------------------------------------------------------------------------------- */

static void run_add(const struct step *s) {
  size_t count = (size_t)hwgq_shape_elements(s->out);
  for (size_t i = 0; i < count; i++) {
    double sum = 0;
    for (int j = 0; j < s->layer->input_count; j++) sum += (double)s->layer->coefficients[j] * s->inputs[j][i];
    s->y[i] = sum;
  }
}

static void run_concat(const struct step *s) {
  double *y = s->y;
  for (int j = 0; j < s->layer->input_count; j++) {
    size_t count = (size_t)hwgq_shape_elements(hwgq_network_input_shape(s->network, s->layer, j));
    for (size_t i = 0; i < count; i++) *y++ = s->inputs[j][i];
  }
}

static void run_softmax(const struct step *s) {
  double highest = s->x[0], sum = 0;
  for (int c = 1; c < s->out.channels; c++)
    if (s->x[c] > highest) highest = s->x[c];
  for (int c = 0; c < s->out.channels; c++) {
    s->y[c] = hwgq_exp(s->x[c] - highest);
    sum += s->y[c];
  }
  for (int c = 0; c < s->out.channels; c++) s->y[c] /= sum;
}

static void run_layer(const struct step *s) {
  switch (s->layer->op) {
  case HWGQ_CONV2D:
    run_conv2d(s);
    break;
  case HWGQ_LINEAR:
    run_linear(s);
    break;
  case HWGQ_QUANTIZE:
    run_quantize(s);
    break;
  case HWGQ_BATCH_NORM:
    run_batch_norm(s);
    break;
  case HWGQ_SCALE:
    run_scale(s);
    break;
  case HWGQ_RELU:
    run_relu(s);
    break;
  case HWGQ_MAX_POOL:
  case HWGQ_AVG_POOL:
    run_pool(s);
    break;
  case HWGQ_ADD:
    run_add(s);
    break;
  case HWGQ_CONCAT:
    run_concat(s);
    break;
  case HWGQ_FLATTEN:
    run_copy(s);
    break;
  case HWGQ_SOFTMAX:
    run_softmax(s);
    break;
  case HWGQ_OP_COUNT:
    break;
  }
}

/* ---- the executor ------------------------------------------------------------------------------------------------------- */

void hwgq_reference_destroy(struct hwgq_reference *reference) {
  if (!reference) return;
  for (int i = 0; reference->outputs && i < reference->network->layer_count; i++) free(reference->outputs[i]);
  free(reference->outputs);
  free(reference->input);
  free(reference);
}

static bool allocate(struct hwgq_reference *reference) {
  const struct hwgq_network *network = reference->network;
  reference->input = calloc((size_t)hwgq_shape_elements(network->input), sizeof(double));
  reference->outputs = calloc((size_t)network->layer_count, sizeof reference->outputs[0]);
  if (!reference->input || !reference->outputs) return false;
  for (int i = 0; i < network->layer_count; i++) {
    reference->outputs[i] = calloc((size_t)hwgq_shape_elements(network->layers[i].output), sizeof(double));
    if (!reference->outputs[i]) return false;
  }
  return true;
}

enum hwgq_status hwgq_reference_create(const struct hwgq_network *network, struct hwgq_reference **reference,
                                       struct hwgq_error *error) {
  enum hwgq_status status = hwgq_network_check_parameters(network, error);
  if (status) return status;
  struct hwgq_reference *created = calloc(1, sizeof *created);
  if (created) created->network = network;
  if (!created || !allocate(created)) {
    hwgq_reference_destroy(created);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': out of memory for the reference executor", network->name);
  }
  *reference = created;
  return HWGQ_OK;
}

enum hwgq_status hwgq_reference_begin(struct hwgq_reference *reference, const float *input, struct hwgq_error *error) {
  const struct hwgq_network *network = reference->network;
  size_t count = (size_t)hwgq_shape_elements(network->input);
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(input[i]))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "network '%s': input value %zu is not finite", network->name, i);
    reference->input[i] = (double)input[i];
  }
  return HWGQ_OK;
}

void hwgq_reference_step(struct hwgq_reference *reference, int index) {
  const struct hwgq_network *network = reference->network;
  const struct hwgq_layer *layer = &network->layers[index];
  struct step step = {.layer = layer, .out = layer->output, .network = network, .y = reference->outputs[index]};
  for (int j = 0; j < layer->input_count; j++)
    step.inputs[j] = layer->inputs[j] == HWGQ_NETWORK_INPUT ? reference->input : reference->outputs[layer->inputs[j]];
  step.in = hwgq_network_input_shape(network, layer, 0);
  step.x = step.inputs[0];
  run_layer(&step);
}

enum hwgq_status hwgq_reference_run(struct hwgq_reference *reference, const float *input, struct hwgq_error *error) {
  enum hwgq_status status = hwgq_reference_begin(reference, input, error);
  for (int i = 0; i < reference->network->layer_count && !status; i++) hwgq_reference_step(reference, i);
  return status;
}

void hwgq_reference_replace(struct hwgq_reference *reference, int layer, const double *values) {
  size_t count = (size_t)hwgq_shape_elements(reference->network->layers[layer].output);
  memcpy(reference->outputs[layer], values, count * sizeof *values);
}

const double *hwgq_reference_output(const struct hwgq_reference *reference, int layer) {
  return reference->outputs[layer];
}

void hwgq_preprocess_to_float(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, const uint8_t *pixels,
                              float *input) {
  size_t plane = (size_t)shape.height * (size_t)shape.width;
  for (int c = 0; c < shape.channels; c++)
    for (size_t i = 0; i < plane; i++) {
      int pixel = pixels[i * (size_t)shape.channels + (size_t)c];
      if (preprocess->invert) pixel = 255 - pixel;
      input[(size_t)c * plane + i] = ((float)pixel - preprocess->mean[c]) * preprocess->scale[c];
    }
}
