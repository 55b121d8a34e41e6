#include "tests/bench/peers/lower.h"

#include "engine/parameters.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The graph under construction. A layer is either a node of its own or was folded into the node of an earlier one. */
struct lowering {
  const struct hwgq_network *network;
  struct peer_graph *graph;
  int *node_of;   /* [layers] */
  int *consumers; /* [layers] */
  int *layer_of;  /* [nodes] the last layer folded into a node */
  struct hwgq_error *error;
};

static struct peer_node *node_at(const struct lowering *l, int node) {
  return &l->graph->nodes[node];
}

static int input_node(const struct lowering *l, const struct hwgq_layer *layer, int i) {
  return layer->inputs[i] == HWGQ_NETWORK_INPUT ? PEER_INPUT : l->node_of[layer->inputs[i]];
}

static bool has_affine(const struct peer_node *node) {
  return node->op == PEER_CONV || node->op == PEER_LINEAR || node->op == PEER_AFFINE;
}

static struct peer_node *new_node(struct lowering *l, enum peer_op op, int layer_index, struct hwgq_shape in) {
  const struct hwgq_layer *layer = &l->network->layers[layer_index];
  const int index = l->graph->count++;
  struct peer_node *node = node_at(l, index);
  *node = (struct peer_node){.op = op, .addend = PEER_INPUT, .in = in, .out = layer->output, .kernel_h = 1, .kernel_w = 1};
  node->stride_h = node->stride_w = node->groups = 1;
  l->node_of[layer_index] = index;
  l->layer_of[index] = layer_index;
  node->input_count = layer->input_count;
  for (int i = 0; i < layer->input_count; i++) node->inputs[i] = input_node(l, layer, i);
  if (!has_affine(node)) return node;
  const size_t channels = (size_t)node->out.channels;
  node->scale = malloc(channels * sizeof *node->scale);
  node->bias = calloc(channels, sizeof *node->bias);
  if (!node->scale || !node->bias) return NULL;
  for (size_t c = 0; c < channels; c++) node->scale[c] = 1;
  return node;
}

/* ---- folding: whether the channels of a node can still be changed, and changing them ---------------------------------------
 */

/* `rising`: the change keeps the order of values, so it may move in front of a max pool. */
static bool can_fold(const struct lowering *l, int index, bool rising) {
  if (index == PEER_INPUT) return false;
  const struct peer_node *node = node_at(l, index);
  if (node->activation != PEER_NONE || node->codes || l->consumers[l->layer_of[index]] != 1) return false;
  if (has_affine(node)) return node->addend == PEER_INPUT;
  if (node->op != PEER_CONCAT && !(node->op == PEER_MAX_POOL && rising)) return false;
  for (int i = 0; i < node->input_count; i++)
    if (!can_fold(l, node->inputs[i], rising)) return false;
  return true;
}

static void fold_affine(struct lowering *l, int index, const double *a, const double *b, double magnitude) {
  struct peer_node *node = node_at(l, index);
  node->magnitude = magnitude;
  if (!has_affine(node)) {
    for (int i = 0, first = 0; i < node->input_count; i++) {
      fold_affine(l, node->inputs[i], a + first, b + first, magnitude);
      first += node_at(l, node->inputs[i])->out.channels;
    }
    return;
  }
  for (int c = 0; c < node->out.channels; c++) {
    node->scale[c] *= a[c];
    node->bias[c] = node->bias[c] * a[c] + b[c];
  }
}

static void fold_activation(struct lowering *l, int index, const struct hwgq_layer *layer) {
  struct peer_node *node = node_at(l, index);
  const bool levels = layer->op == HWGQ_QUANTIZE;
  node->codes = levels;
  node->step = levels ? (double)layer->centers[0] : 0;
  if (!has_affine(node)) {
    for (int i = 0; i < node->input_count; i++) fold_activation(l, node->inputs[i], layer);
    return;
  }
  node->activation = levels ? PEER_LEVELS : PEER_RELU;
  node->levels = layer->level_count;
  for (int c = 0; levels && c < node->out.channels; c++) {
    node->scale[c] /= node->step;
    node->bias[c] /= node->step;
  }
}

/* ---- layers ----------------------------------------------------------------------------------------------------------------
 */

static enum hwgq_status out_of_memory(struct lowering *l) {
  return hwgq_fail(l->error, HWGQ_ERROR_MEMORY, "out of memory");
}

static enum hwgq_status add_weights(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  struct peer_node *node =
      new_node(l, layer->op == HWGQ_CONV2D ? PEER_CONV : PEER_LINEAR, index, hwgq_network_input_shape(l->network, layer, 0));
  if (!node) return out_of_memory(l);
  node->kernel_h = layer->kernel_height, node->kernel_w = layer->kernel_width;
  node->stride_h = layer->stride_height, node->stride_w = layer->stride_width;
  node->pad_h = layer->pad_height, node->pad_w = layer->pad_width;
  node->groups = layer->op == HWGQ_CONV2D ? layer->groups : 1;
  node->binary = layer->binary;
  node->fan_in = (size_t)hwgq_layer_fan_in(l->network, layer);
  const size_t row = (node->fan_in + 7) / 8, rows = (size_t)layer->out_channels;
  node->weight = malloc(rows * node->fan_in * sizeof *node->weight);
  if (!node->weight) return out_of_memory(l);
  for (size_t o = 0; o < rows; o++) {
    const uint8_t *bits = layer->binary ? layer->weight_bits + o * row : NULL;
    float *weight = node->weight + o * node->fan_in;
    for (size_t k = 0; k < node->fan_in; k++)
      weight[k] = bits ? (bits[k / 8] >> (k % 8) & 1 ? 1.0f : -1.0f) : layer->weight[o * node->fan_in + k];
    if (layer->has_alpha) node->scale[o] = (double)layer->alpha[o];
    if (layer->has_bias) node->bias[o] = (double)layer->bias[o];
  }
  if (node->inputs[0] != PEER_INPUT && node_at(l, node->inputs[0])->codes)
    for (size_t o = 0; o < rows; o++) node->scale[o] *= node_at(l, node->inputs[0])->step;
  return HWGQ_OK;
}

/* Batch norm or scale. The statistics of a batch norm say how large its input and output are: 4.5 deviations. */
static enum hwgq_status add_affine(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  const int input = input_node(l, layer, 0), channels = layer->output.channels;
  double *a = malloc((size_t)channels * sizeof *a), *b = malloc((size_t)channels * sizeof *b);
  if (!a || !b || input == PEER_INPUT) {
    free(a), free(b);
    return input == PEER_INPUT ? hwgq_fail(l->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s' takes pixels", layer->name)
                               : out_of_memory(l);
  }
  bool rising = true;
  double before = node_at(l, input)->magnitude, after = 0;
  for (int c = 0; c < channels; c++) {
    if (layer->op == HWGQ_BATCH_NORM) {
      const double deviation = sqrt((double)layer->variance[c] + (double)layer->eps);
      a[c] = 1 / deviation;
      b[c] = -(double)layer->mean[c] / deviation;
      before = fmax(c ? before : 0, fabs((double)layer->mean[c]) + 4.5 * deviation);
      after = 4.5;
    } else {
      a[c] = (double)layer->gamma[c];
      b[c] = layer->beta ? (double)layer->beta[c] : 0;
      after = fmax(after, fabs(a[c]) * before + fabs(b[c]));
    }
    rising = rising && a[c] > 0;
  }
  enum hwgq_status status = HWGQ_OK;
  if (can_fold(l, input, rising)) {
    fold_affine(l, input, a, b, after);
    l->node_of[index] = input;
    l->layer_of[input] = index;
  } else {
    node_at(l, input)->magnitude = before;
    struct peer_node *node = new_node(l, PEER_AFFINE, index, layer->output);
    if (node) fold_affine(l, l->node_of[index], a, b, after);
    if (!node) status = out_of_memory(l);
  }
  free(a), free(b);
  return status;
}

static enum hwgq_status add_activation(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  for (int j = 0; layer->op == HWGQ_QUANTIZE && j < layer->level_count; j++) {
    const double step = (double)layer->centers[0], off = (double)layer->thresholds[j] - (j + 0.5) * step;
    if (layer->sign || fabs(off) > 1e-5 * step || fabs((double)layer->centers[j] - (j + 1) * step) > 1e-5 * step)
      return hwgq_fail(l->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s': peers need thresholds at half steps", layer->name);
  }
  int input = input_node(l, layer, 0);
  const bool own = input != PEER_INPUT && layer->op == HWGQ_RELU && node_at(l, input)->activation == PEER_NONE &&
                   has_affine(node_at(l, input)) && l->consumers[l->layer_of[input]] == 1;
  if (!own && !can_fold(l, input, true)) {
    struct peer_node *node = new_node(l, PEER_AFFINE, index, layer->output);
    if (!node) return out_of_memory(l);
    node->magnitude = input == PEER_INPUT ? 0 : node_at(l, input)->magnitude;
    input = l->node_of[index];
  }
  fold_activation(l, input, layer);
  l->node_of[index] = input;
  l->layer_of[input] = index;
  return HWGQ_OK;
}

static enum hwgq_status add_pool(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  if (layer->op == HWGQ_AVG_POOL && !layer->global_pool)
    return hwgq_fail(l->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s': only global average pools", layer->name);
  struct peer_node *node = new_node(l, layer->op == HWGQ_AVG_POOL ? PEER_GLOBAL_AVERAGE : PEER_MAX_POOL, index,
                                    hwgq_network_input_shape(l->network, layer, 0));
  node->kernel_h = layer->kernel_height, node->kernel_w = layer->kernel_width;
  node->stride_h = layer->stride_height, node->stride_w = layer->stride_width;
  node->pad_h = layer->pad_height, node->pad_w = layer->pad_width;
  return HWGQ_OK;
}

/* The sum becomes the addend of its later input, which must be a convolution that nobody else reads. */
static enum hwgq_status add_sum(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  int one = input_node(l, layer, 0), other = layer->input_count == 2 ? input_node(l, layer, 1) : PEER_INPUT;
  if (one > other) {
    const int swap = one;
    one = other, other = swap;
  }
  if (layer->input_count != 2 || one == PEER_INPUT || layer->coefficients[0] != 1 || layer->coefficients[1] != 1 ||
      !can_fold(l, other, false) || node_at(l, other)->op != PEER_CONV)
    return hwgq_fail(l->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s': only a + convolution(b)", layer->name);
  struct peer_node *node = node_at(l, other);
  node->addend = one;
  node->branch_magnitude = node->magnitude;
  node->magnitude = fmax(node->magnitude, node_at(l, one)->magnitude);
  l->node_of[index] = other;
  l->layer_of[other] = index;
  return HWGQ_OK;
}

static enum hwgq_status add_layer(struct lowering *l, int index) {
  const struct hwgq_layer *layer = &l->network->layers[index];
  struct peer_node *node;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return add_weights(l, index);
  case HWGQ_BATCH_NORM:
  case HWGQ_SCALE:
    return add_affine(l, index);
  case HWGQ_QUANTIZE:
  case HWGQ_RELU:
    return add_activation(l, index);
  case HWGQ_MAX_POOL:
  case HWGQ_AVG_POOL:
    return add_pool(l, index);
  case HWGQ_ADD:
    return add_sum(l, index);
  case HWGQ_CONCAT:
    node = new_node(l, PEER_CONCAT, index, layer->output);
    return node ? HWGQ_OK : out_of_memory(l);
  case HWGQ_FLATTEN:
  case HWGQ_SOFTMAX:
  case HWGQ_OP_COUNT:
    break;
  }
  l->node_of[index] = input_node(l, layer, 0);
  return HWGQ_OK;
}

enum hwgq_status peer_lower(const struct hwgq_model *model, struct peer_graph *graph, struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  const size_t layers = (size_t)network->layer_count;
  struct lowering l = {.network = network, .graph = graph, .error = error};
  *graph = (struct peer_graph){.input = network->input, .preprocess = model->preprocess};
  graph->nodes = calloc(layers, sizeof *graph->nodes);
  l.node_of = calloc(layers, sizeof *l.node_of);
  l.layer_of = calloc(layers, sizeof *l.layer_of);
  l.consumers = calloc(layers, sizeof *l.consumers);
  enum hwgq_status status = HWGQ_OK;
  if (!graph->nodes || !l.node_of || !l.layer_of || !l.consumers) status = out_of_memory(&l);
  for (int i = 0; !status && i < network->layer_count; i++)
    for (int k = 0; k < network->layers[i].input_count; k++)
      if (network->layers[i].inputs[k] >= 0) l.consumers[network->layers[i].inputs[k]]++;
  for (int i = 0; !status && i < network->layer_count; i++) status = add_layer(&l, i);
  if (!status) graph->classes = graph->nodes[graph->count - 1].out.channels;
  free(l.node_of);
  free(l.layer_of);
  free(l.consumers);
  if (status) peer_graph_release(graph);
  return status;
}

int peer_quantize_first(const struct peer_graph *graph, const struct peer_node *node, double limit, float *weight,
                        double *scale, double *bias) {
  const float *mean = graph->preprocess.mean, *factor = graph->preprocess.scale;
  const int channels = node->in.channels;
  const size_t taps = (size_t)node->kernel_h * (size_t)node->kernel_w;
  double sum = 0;
  for (int c = 0; c < channels; c++) sum += (double)mean[c];
  const int zero_point = (int)lrint(sum / channels);
  for (size_t o = 0; o < (size_t)node->out.channels; o++) {
    const float *from = node->weight + o * node->fan_in;
    double largest = 1e-30, shift = 0;
    for (size_t k = 0; k < node->fan_in; k++) {
      const double w = (double)from[k] * (double)factor[k / taps];
      largest = fmax(largest, fabs(w));
      shift += w * (zero_point - (double)mean[k / taps]);
    }
    for (size_t k = 0; k < node->fan_in; k++)
      weight[o * node->fan_in + k] = (float)rint((double)from[k] * (double)factor[k / taps] * limit / largest);
    scale[o] = node->scale[o] * largest / limit;
    bias[o] = node->bias[o] + node->scale[o] * shift;
  }
  return zero_point;
}

void peer_graph_release(struct peer_graph *graph) {
  for (int i = 0; graph->nodes && i < graph->count; i++) {
    free(graph->nodes[i].weight);
    free(graph->nodes[i].scale);
    free(graph->nodes[i].bias);
  }
  free(graph->nodes);
  *graph = (struct peer_graph){0};
}
