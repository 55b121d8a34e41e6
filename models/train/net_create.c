#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/conv_narrow.h"
#include "models/train/net.h"
#include "models/train/rng.h"

static enum hwgq_status check_layer(const struct hwgq_network *network, int i, struct hwgq_error *error) {
  const struct hwgq_layer *layer = &network->layers[i];
  if (layer->input_count != 1 || layer->inputs[0] != (i == 0 ? HWGQ_NETWORK_INPUT : i - 1))
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "layer %s does not take just the layer before it: the trainer takes networks without branches",
                     layer->name);
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
  case HWGQ_BATCH_NORM:
  case HWGQ_SCALE:
  case HWGQ_QUANTIZE:
  case HWGQ_RELU:
    break;
  case HWGQ_MAX_POOL:
    if (layer->kernel_height * layer->kernel_width > 255)
      return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s pools %d x %d values: the trainer takes up to 255", layer->name,
                       layer->kernel_height, layer->kernel_width);
    break;
  case HWGQ_SOFTMAX:
    if (i + 1 != network->layer_count)
      return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s is a softmax before the end: the trainer takes it last only",
                       layer->name);
    break;
  default:
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s: the trainer has no %s layers", layer->name,
                     hwgq_op_name(layer->op));
  }
  if (i + 1 == network->layer_count && layer->op != HWGQ_SOFTMAX)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "the last layer, %s, is not a softmax: the trainer needs one", layer->name);
  return HWGQ_OK;
}

static bool element_wise(enum hwgq_op op) {
  return op == HWGQ_BATCH_NORM || op == HWGQ_SCALE || op == HWGQ_QUANTIZE || op == HWGQ_RELU || op == HWGQ_SOFTMAX;
}

/* Nothing reads the output of these after batch normalization took its input from it. */
static bool may_be_overwritten(enum hwgq_op op) {
  return op == HWGQ_CONV2D || op == HWGQ_LINEAR || op == HWGQ_MAX_POOL;
}

static size_t shape_size(struct hwgq_shape shape) {
  return (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
}

static bool allocate_channels(struct net_layer *l, int batch) {
  size_t channels = (size_t)l->out.channels;
  float **arrays[] = {&l->mean,  &l->variance, &l->gamma,   &l->beta,    &l->gamma_gradient, &l->beta_gradient,
                      &l->slope, &l->offset,   &l->back[0], &l->back[1], &l->back[2]};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
    *arrays[i] = conv_allocate(channels);
    if (*arrays[i] == NULL) return false;
  }
  l->partial = calloc((size_t)batch * 2 * channels, sizeof *l->partial);
  return l->partial != NULL;
}

/* The levels that layer i takes: of a quantizer before it, or before max pooling before it. */
static struct conv_levels input_levels(const struct hwgq_network *network, int i) {
  do {
    i = network->layers[i].inputs[0];
  } while (i >= 0 && network->layers[i].op == HWGQ_MAX_POOL);
  return i >= 0 && network->layers[i].op == HWGQ_QUANTIZE ? conv_levels_of(&network->layers[i]) : (struct conv_levels){0};
}

static enum hwgq_status create_layer(struct net *net, int i, struct hwgq_error *error) {
  struct net_layer *l = &net->layers[i], *before = i > 0 ? l - 1 : NULL;
  l->layer = &net->network->layers[i];
  l->op = l->layer->op;
  l->in = before != NULL ? before->out : net->network->input;
  l->out = l->layer->output;
  l->in_size = shape_size(l->in);
  l->out_size = shape_size(l->out);
  l->in_value = before != NULL ? before->value : net->input;
  l->in_gradient = before != NULL ? before->gradient : NULL;
  if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) {
    enum hwgq_status status = conv_create(l->layer, l->in, before != NULL, &l->conv, error);
    if (status == HWGQ_OK)
      status = conv_narrow_create(&l->conv, net->blas->dot, input_levels(net->network, i), net->batch, error);
    if (status != HWGQ_OK) return status;
  }
  l->owns_value = !(l->op == HWGQ_BATCH_NORM && before != NULL && may_be_overwritten(before->op));
  l->owns_gradient = before == NULL || !element_wise(l->op);
  l->value = l->owns_value ? conv_allocate(l->out_size * (size_t)net->batch) : before->value;
  l->gradient = l->owns_gradient ? conv_allocate(l->out_size * (size_t)net->batch) : before->gradient;
  bool enough = l->value != NULL && l->gradient != NULL;
  if (l->op == HWGQ_MAX_POOL) {
    l->which = calloc(l->out_size * (size_t)net->batch, 1);
    enough = enough && l->which != NULL;
  }
  if (l->op == HWGQ_BATCH_NORM || l->op == HWGQ_SCALE) enough = enough && allocate_channels(l, net->batch);
  if (!enough)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the values of layer %s: make the batch smaller than %d",
                     l->layer->name, net->batch);
  return HWGQ_OK;
}

static void add_parameter(struct net *net, struct net_layer *l, const char *what, float *value, float *gradient, size_t count) {
  struct net_parameter *parameter = &net->parameters[net->parameter_count++];
  *parameter = (struct net_parameter){.value = value, .gradient = gradient, .count = count, .layer = l};
  snprintf(parameter->name, sizeof parameter->name, "%s.%s", l->layer->name, what);
}

static enum hwgq_status list_parameters(struct net *net, struct hwgq_error *error) {
  net->parameters = calloc((size_t)net->layer_count * 2, sizeof *net->parameters);
  if (net->parameters == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the list of parameters");
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) {
      add_parameter(net, l, "weight", l->conv.weight, l->conv.gradient, l->conv.weight_count);
      net->parameters[net->parameter_count - 1].latent = l->conv.binary;
      net->parameters[net->parameter_count - 1].decayed = true;
      if (l->conv.has_bias) add_parameter(net, l, "bias", l->conv.bias, l->conv.bias_gradient, (size_t)l->out.channels);
    }
    if (l->op == HWGQ_SCALE) {
      add_parameter(net, l, "gamma", l->gamma, l->gamma_gradient, (size_t)l->out.channels);
      if (l->layer->has_bias) add_parameter(net, l, "beta", l->beta, l->beta_gradient, (size_t)l->out.channels);
    }
  }
  return HWGQ_OK;
}

static enum hwgq_status create_workspaces(struct net *net, struct hwgq_error *error) {
  size_t most = 0;
  for (int i = 0; i < net->layer_count; i++) {
    if (net->layers[i].op != HWGQ_CONV2D && net->layers[i].op != HWGQ_LINEAR) continue;
    size_t needed = conv_workspace(&net->layers[i].conv);
    if (needed > most) most = needed;
  }
  net->workspaces = calloc((size_t)pool_threads(net->pool), sizeof *net->workspaces);
  for (int i = 0; net->workspaces != NULL && i < pool_threads(net->pool); i++) {
    net->workspaces[i] = conv_allocate(most);
    if (net->workspaces[i] == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the workspace of a thread");
  }
  return net->workspaces != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for workspaces");
}

static enum hwgq_status fill(struct net *net, struct hwgq_error *error) {
  net->input = conv_allocate(shape_size(net->network->input) * (size_t)net->batch);
  net->layers = calloc((size_t)net->network->layer_count, sizeof *net->layers);
  if (net->input == NULL || net->layers == NULL)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a batch of %d images", net->batch);
  for (int i = 0; i < net->network->layer_count; i++) {
    enum hwgq_status status = check_layer(net->network, i, error);
    net->layer_count = i + 1;
    if (status == HWGQ_OK) status = create_layer(net, i, error);
    if (status != HWGQ_OK) return status;
  }
  enum hwgq_status status = list_parameters(net, error);
  return status == HWGQ_OK ? create_workspaces(net, error) : status;
}

enum hwgq_status net_create(const struct hwgq_network *network, int batch, struct pool *pool, const struct blas *blas,
                            struct net **result, struct hwgq_error *error) {
  if (network->layer_count < 1) return hwgq_fail(error, HWGQ_ERROR_INVALID, "network %s has no layers", network->name);
  if (batch < 1 || batch > 1 << 16)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "a batch of %d images: give 1 to %d", batch, 1 << 16);
  struct net *net = calloc(1, sizeof *net);
  if (net == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for network %s", network->name);
  *net = (struct net){
      .pool = pool, .blas = blas, .kernels = train_kernels(), .network = network, .batch = batch, .statistics_momentum = 0.1f};
  enum hwgq_status status = fill(net, error);
  if (status != HWGQ_OK) {
    net_destroy(net);
    return status;
  }
  *result = net;
  return HWGQ_OK;
}

void net_destroy(struct net *net) {
  if (net == NULL) return;
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    if (l->owns_value) free(l->value);
    if (l->owns_gradient) free(l->gradient);
    conv_destroy(&l->conv);
    float *arrays[] = {l->mean,  l->variance, l->gamma,   l->beta,    l->gamma_gradient, l->beta_gradient,
                       l->slope, l->offset,   l->back[0], l->back[1], l->back[2]};
    for (size_t a = 0; a < sizeof arrays / sizeof arrays[0]; a++) free(arrays[a]);
    free(l->partial);
    free(l->which);
  }
  for (int i = 0; net->workspaces != NULL && i < pool_threads(net->pool); i++) free(net->workspaces[i]);
  free(net->workspaces);
  free(net->layers);
  free(net->parameters);
  free(net->input);
  free(net);
}

void net_initialize(struct net *net, uint64_t seed) {
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    struct rng rng = rng_make(seed, UINT64_MAX, (uint64_t)i);
    if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) {
      float bound = 1.0f / sqrtf((float)l->conv.taps);
      for (size_t w = 0; w < l->conv.weight_count; w++) l->conv.weight[w] = (2.0f * rng_uniform(&rng) - 1.0f) * bound;
      if (l->conv.has_bias) memset(l->conv.bias, 0, sizeof(float) * (size_t)l->out.channels);
    }
    if (l->op == HWGQ_BATCH_NORM || l->op == HWGQ_SCALE) {
      for (int c = 0; c < l->out.channels; c++) {
        l->mean[c] = l->beta[c] = 0.0f;
        l->variance[c] = l->gamma[c] = 1.0f;
      }
    }
  }
  net_prepare(net);
}

static void export_weights(const struct net_layer *l, struct hwgq_layer *layer) {
  const struct conv *conv = &l->conv;
  int positions = conv->kernel_height * conv->kernel_width;
  size_t row_bytes = ((size_t)conv->taps + 7) / 8;
  if (conv->binary) memset(layer->weight_bits, 0, row_bytes * (size_t)l->out.channels);
  for (int o = 0; o < l->out.channels; o++) {
    for (int c = 0; c < l->in.channels; c++) {
      for (int p = 0; p < positions; p++) {
        float w = conv->weight[((size_t)p * (size_t)l->in.channels + (size_t)c) * (size_t)l->out.channels + (size_t)o];
        size_t tap = (size_t)c * (size_t)positions + (size_t)p;
        if (!conv->binary)
          layer->weight[(size_t)o * (size_t)conv->taps + tap] = w;
        else if (w >= 0.0f)
          layer->weight_bits[(size_t)o * row_bytes + tap / 8] |= (uint8_t)(1u << tap % 8);
      }
    }
    if (layer->has_alpha) layer->alpha[o] = conv->alpha[o];
    if (layer->has_bias) layer->bias[o] = conv->bias[o];
  }
}

void net_export(const struct net *net, struct hwgq_network *network) {
  for (int i = 0; i < net->layer_count; i++) {
    const struct net_layer *l = &net->layers[i];
    struct hwgq_layer *layer = &network->layers[i];
    size_t bytes = sizeof(float) * (size_t)l->out.channels;
    if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) export_weights(l, layer);
    if (l->op == HWGQ_BATCH_NORM) {
      memcpy(layer->mean, l->mean, bytes);
      memcpy(layer->variance, l->variance, bytes);
    }
    if (l->op == HWGQ_SCALE) {
      memcpy(layer->gamma, l->gamma, bytes);
      if (layer->has_bias) memcpy(layer->beta, l->beta, bytes);
    }
  }
}
