/* Random networks and models. */
#include "tests/support/support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(enum hwgq_status status, const struct hwgq_error *error) {
  if (status == HWGQ_OK) return;
  fprintf(stderr, "test support: %s\n", error->message);
  abort();
}

struct hwgq_layer *support_add(struct hwgq_network *network, const char *name, enum hwgq_op op, const char *input) {
  struct hwgq_layer *layer = NULL;
  struct hwgq_error error;
  must(hwgq_network_add(network, name, op, 1, &input, &layer, &error), &error);
  return layer;
}

/* ---- a network, block by block ------------------------------------------------------------------------------------------ */

/* Where the builder stands. `last` names the newest layer; its values are levels of a quantizer or anything. */
struct builder {
  struct hwgq_network *network;
  struct support_random *random;
  char last[64];
  bool quantized;
  int counter;
};

static struct hwgq_shape shape_of(const struct builder *b, const char *name) {
  int index = hwgq_network_find(b->network, name);
  return index == HWGQ_NETWORK_INPUT ? b->network->input : b->network->layers[index].output;
}

/* Names its layer by operation and number, so that messages of a failing test can be read. */
static struct hwgq_layer *append(struct builder *b, enum hwgq_op op) {
  char name[64];
  snprintf(name, sizeof name, "%s%d", hwgq_op_name(op), b->counter++);
  struct hwgq_layer *layer = support_add(b->network, name, op, b->last);
  strcpy(b->last, name);
  return layer;
}

/* After the newest layer's fields are set: its output shape is needed for the next choice. */
static void settle(struct builder *b) {
  struct hwgq_error error;
  enum hwgq_status status = hwgq_network_infer(b->network, &error);
  /* While a block with branches is being built, a branch is not used yet. */
  if (status && !strstr(error.message, "nothing uses")) must(status, &error);
}

static void add_quantizer(struct builder *b) {
  static const int levels[] = {1, 2, 3, 3, 3, 7, 15};
  struct hwgq_layer *layer = append(b, HWGQ_QUANTIZE);
  struct hwgq_error error;
  layer->sign = support_random_chance(b->random, 0.2);
  if (!layer->sign) {
    struct hwgq_quantizer quantizer;
    bool uniform = support_random_chance(b->random, 0.7), half = support_random_chance(b->random, 0.3);
    must(hwgq_quantizer_design(levels[support_random_int(b->random, 0, 6)], uniform, half, &quantizer, &error), &error);
    layer->level_count = quantizer.level_count;
    memcpy(layer->centers, quantizer.centers, sizeof layer->centers);
    memcpy(layer->thresholds, quantizer.thresholds, sizeof layer->thresholds);
  }
  settle(b);
  b->quantized = true;
}

static int odd_channel_count(struct builder *b) {
  static const int counts[] = {1, 3, 8, 12, 20, 31, 48, 64, 66, 80};
  return counts[support_random_int(b->random, 0, 9)];
}

static void choose_window(struct builder *b, int size, bool pooling, int *kernel, int *stride, int *pad) {
  *kernel = support_random_int(b->random, 1, size < 5 ? size : 5);
  *stride = support_random_int(b->random, 1, 2);
  *pad = support_random_int(b->random, 0, pooling ? *kernel / 2 : *kernel - 1);
}

/* out_channels 0: any. same_size: stride 1, odd kernel, half pad. */
static void add_convolution(struct builder *b, int out_channels, bool same_size) {
  struct hwgq_shape in = shape_of(b, b->last);
  struct hwgq_layer *layer = append(b, HWGQ_CONV2D);
  layer->binary = b->quantized || support_random_chance(b->random, 0.2);
  layer->has_alpha = layer->binary && support_random_chance(b->random, 0.7);
  layer->has_bias = support_random_chance(b->random, 0.4);
  layer->out_channels = out_channels ? out_channels : odd_channel_count(b);
  if (support_random_chance(b->random, 0.25) && in.channels % 2 == 0 && layer->out_channels % 2 == 0) layer->groups = 2;
  if (same_size) {
    int half = support_random_int(b->random, 0, in.height >= 3 && in.width >= 3 ? 1 : 0);
    layer->kernel_height = layer->kernel_width = 2 * half + 1;
    layer->pad_height = layer->pad_width = half;
  } else {
    choose_window(b, in.height, false, &layer->kernel_height, &layer->stride_height, &layer->pad_height);
    choose_window(b, in.width, false, &layer->kernel_width, &layer->stride_width, &layer->pad_width);
  }
  settle(b);
  b->quantized = false;
}

static void add_pooling(struct builder *b, enum hwgq_op op) {
  struct hwgq_shape in = shape_of(b, b->last);
  struct hwgq_layer *layer = append(b, op);
  layer->global_pool = op == HWGQ_AVG_POOL && support_random_chance(b->random, 0.2);
  if (!layer->global_pool) {
    choose_window(b, in.height, true, &layer->kernel_height, &layer->stride_height, &layer->pad_height);
    choose_window(b, in.width, true, &layer->kernel_width, &layer->stride_width, &layer->pad_width);
  }
  settle(b);
  b->quantized = b->quantized && op == HWGQ_MAX_POOL;
}

static void add_simple(struct builder *b, enum hwgq_op op) {
  struct hwgq_layer *layer = append(b, op);
  layer->has_bias = op == HWGQ_SCALE && support_random_chance(b->random, 0.7);
  if (op == HWGQ_BATCH_NORM && support_random_chance(b->random, 0.3)) layer->eps = 1e-3f;
  settle(b);
  b->quantized = false;
}

static void add_normalization(struct builder *b) {
  add_simple(b, HWGQ_BATCH_NORM);
  if (support_random_chance(b->random, 0.5)) add_simple(b, HWGQ_SCALE);
}

/* conv -> (max pool) -> batch norm -> quantize */
static void add_plain_block(struct builder *b) {
  add_convolution(b, 0, false);
  if (support_random_chance(b->random, 0.2)) add_simple(b, HWGQ_RELU);
  if (support_random_chance(b->random, 0.4)) add_pooling(b, HWGQ_MAX_POOL);
  add_normalization(b);
  if (support_random_chance(b->random, 0.2)) add_pooling(b, HWGQ_AVG_POOL);
  add_quantizer(b);
  if (support_random_chance(b->random, 0.15)) add_pooling(b, HWGQ_MAX_POOL);
}

static void add_join(struct builder *b, enum hwgq_op op, int count, char names[][64]) {
  const char *inputs[4];
  char name[64];
  struct hwgq_layer *layer = NULL;
  struct hwgq_error error;
  for (int i = 0; i < count; i++) inputs[i] = names[i];
  snprintf(name, sizeof name, "%s%d", hwgq_op_name(op), b->counter++);
  must(hwgq_network_add(b->network, name, op, count, inputs, &layer, &error), &error);
  if (op == HWGQ_ADD && support_random_chance(b->random, 0.4)) layer->coefficients[1] = -0.5f;
  strcpy(b->last, name);
  b->quantized = false;
  settle(b);
}

/* batch norm -> quantize -> conv -> batch norm, added to the block's input; then normalized and quantized again */
static void add_residual_block(struct builder *b) {
  char ends[2][64];
  strcpy(ends[0], b->last);
  int channels = shape_of(b, b->last).channels;
  add_normalization(b);
  add_quantizer(b);
  add_convolution(b, channels, true);
  if (support_random_chance(b->random, 0.5)) add_normalization(b);
  strcpy(ends[1], b->last);
  add_join(b, HWGQ_ADD, 2, ends);
  add_normalization(b);
  add_quantizer(b);
}

/* One quantizer feeds several convolutions whose outputs are concatenated */
static void add_inception_block(struct builder *b) {
  char start[64], ends[4][64];
  int count = support_random_int(b->random, 2, 4);
  bool quantized = b->quantized;
  strcpy(start, b->last);
  for (int i = 0; i < count; i++) {
    strcpy(b->last, start);
    b->quantized = quantized;
    add_convolution(b, 0, true);
    strcpy(ends[i], b->last);
  }
  add_join(b, HWGQ_CONCAT, count, ends);
  add_normalization(b);
  add_quantizer(b);
}

static void add_classifier(struct builder *b) {
  for (int hidden = support_random_int(b->random, 0, 1); hidden >= 0; hidden--) {
    if (hidden == 0 && support_random_chance(b->random, 0.2)) {
      append(b, HWGQ_FLATTEN);
      settle(b);
    }
    struct hwgq_layer *layer = append(b, HWGQ_LINEAR);
    layer->out_channels = hidden ? odd_channel_count(b) : support_random_int(b->random, 2, 20);
    layer->binary = hidden || support_random_chance(b->random, 0.3);
    layer->has_alpha = layer->binary && support_random_chance(b->random, 0.7);
    layer->has_bias = support_random_chance(b->random, 0.7);
    settle(b);
    b->quantized = false;
    if (!hidden) break;
    add_normalization(b);
    add_quantizer(b);
  }
  append(b, HWGQ_SOFTMAX);
  settle(b);
}

struct hwgq_network *support_random_network(struct support_random *random) {
  static const int channels[] = {1, 3, 3, 3};
  struct builder b = {.random = random, .last = "input"};
  struct hwgq_error error;
  struct hwgq_shape input = {channels[support_random_int(random, 0, 3)], support_random_int(random, 3, 14),
                             support_random_int(random, 3, 14)};
  must(hwgq_network_create("random", input, &b.network, &error), &error);
  add_plain_block(&b);
  for (int blocks = support_random_int(random, 0, 3); blocks > 0; blocks--) {
    int kind = support_random_int(random, 0, 3);
    if (kind == 0)
      add_residual_block(&b);
    else if (kind == 1)
      add_inception_block(&b);
    else
      add_plain_block(&b);
  }
  add_classifier(&b);
  must(hwgq_network_infer(b.network, &error), &error);
  support_fill_parameters(b.network, random);
  support_calibrate(b.network, random);
  return b.network;
}

/* ---- parameters --------------------------------------------------------------------------------------------------------- */

static void fill_weights(const struct hwgq_network *network, struct hwgq_layer *layer, struct support_random *random) {
  struct hwgq_shape in = hwgq_network_input_shape(network, layer, 0);
  size_t fan_in = layer->op == HWGQ_LINEAR
                      ? (size_t)in.channels * (size_t)in.height * (size_t)in.width
                      : (size_t)(in.channels / layer->groups) * (size_t)layer->kernel_height * (size_t)layer->kernel_width;
  size_t row = (fan_in + 7) / 8;
  for (int o = 0; o < layer->out_channels; o++) {
    for (size_t i = 0; i < fan_in && !layer->binary; i++)
      layer->weight[(size_t)o * fan_in + i] = (float)(support_random_normal(random) * sqrt(2.0 / (double)fan_in));
    for (size_t i = 0; i < fan_in && layer->binary; i++)
      if (support_random_next(random) & 1) layer->weight_bits[(size_t)o * row + i / 8] |= (uint8_t)(1u << (i % 8));
    if (layer->has_alpha) layer->alpha[o] = (float)((0.2 + support_random_uniform(random)) / sqrt((double)fan_in));
    if (layer->has_bias) layer->bias[o] = (float)(0.3 * support_random_normal(random));
  }
}

void support_fill_parameters(struct hwgq_network *network, struct support_random *random) {
  struct hwgq_error error;
  must(hwgq_network_allocate_parameters(network, &error), &error);
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    if (layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR) fill_weights(network, layer, random);
    for (int c = 0; c < layer->output.channels; c++) {
      if (layer->op == HWGQ_BATCH_NORM) {
        layer->mean[c] = (float)support_random_normal(random);
        layer->variance[c] = (float)(0.1 + support_random_uniform(random));
      }
      if (layer->op == HWGQ_SCALE) {
        double gamma = 0.3 + support_random_uniform(random);
        if (support_random_chance(random, 0.15)) gamma = -gamma;
        if (support_random_chance(random, 0.02)) gamma = 0;
        layer->gamma[c] = (float)gamma;
        if (layer->has_bias) layer->beta[c] = (float)(0.3 * support_random_normal(random));
      }
    }
  }
}

/* From the values that the batch norm's input has now. The mean is moved by a random part of the deviation: in planes of a
 * few pixels a value often is the mean exactly, and whether it then is above a threshold of 0 depends on rounding alone. */
static void set_statistics(struct hwgq_layer *layer, const double *values, struct support_random *random) {
  size_t plane = (size_t)layer->output.height * (size_t)layer->output.width;
  for (int c = 0; c < layer->output.channels; c++) {
    const double *x = values + (size_t)c * plane;
    double sum = 0, squares = 0;
    for (size_t i = 0; i < plane; i++) sum += x[i];
    double mean = sum / (double)plane;
    for (size_t i = 0; i < plane; i++) squares += (x[i] - mean) * (x[i] - mean);
    double variance = squares / (double)plane;
    if (variance < 1e-6 * mean * mean + 1e-6) variance = 0.1 + mean * mean; /* one pixel, or all alike */
    layer->mean[c] = (float)(mean + 0.5 * sqrt(variance) * support_random_normal(random));
    layer->variance[c] = (float)variance;
  }
}

void support_calibrate(struct hwgq_network *network, struct support_random *random) {
  struct hwgq_reference *reference = NULL;
  struct hwgq_error error;
  float *input = support_random_input(network->input, random);
  must(hwgq_reference_create(network, &reference, &error), &error);
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_BATCH_NORM || layer->inputs[0] == HWGQ_NETWORK_INPUT) continue;
    must(hwgq_reference_run(reference, input, &error), &error);
    set_statistics(layer, hwgq_reference_output(reference, layer->inputs[0]), random);
  }
  hwgq_reference_destroy(reference);
  free(input);
}

float *support_random_input(struct hwgq_shape shape, struct support_random *random) {
  size_t count = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
  float *input = malloc(count * sizeof *input);
  if (!input) abort();
  for (size_t i = 0; i < count; i++) input[i] = (float)(support_random_int(random, 0, 255) - 120) * 0.015625f;
  return input;
}

struct hwgq_model *support_random_model(struct support_random *random) {
  struct hwgq_model *model = calloc(1, sizeof *model);
  if (!model) abort();
  model->network = support_random_network(random);
  model->preprocess.order = model->network->input.channels == 1  ? HWGQ_GRAY
                            : support_random_chance(random, 0.3) ? HWGQ_BGR
                                                                 : HWGQ_RGB;
  model->preprocess.resize = support_random_chance(random, 0.3) ? 40 : 0;
  model->preprocess.invert = support_random_chance(random, 0.2);
  for (int c = 0; c < model->network->input.channels; c++) {
    model->preprocess.mean[c] = (float)(100 + 40 * support_random_uniform(random));
    model->preprocess.scale[c] = 0.015625f;
  }
  model->class_count = model->network->layers[model->network->layer_count - 1].output.channels;
  model->labels = calloc((size_t)model->class_count, sizeof model->labels[0]);
  model->provenance = strdup("{\"trained_on\":\"nothing\",\"epochs\":0}");
  if (!model->labels || !model->provenance) abort();
  for (int i = 0; i < model->class_count; i++) {
    char label[32];
    snprintf(label, sizeof label, i == 1 ? "größe \"%d\"" : "class %d", i);
    model->labels[i] = strdup(label);
    if (!model->labels[i]) abort();
  }
  return model;
}
