#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/conv_narrow.h"
#include "models/train/net.h"
#include "models/train/rng.h"

static enum hwgq_status check_layer(const struct hwgq_network *network, int i, struct hwgq_error *error) {
  const struct hwgq_layer *layer = &network->layers[i];
  bool pool = layer->op == HWGQ_MAX_POOL, last = i + 1 == network->layer_count;
  if (layer->op == HWGQ_FLATTEN)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s: the trainer has no %s layers", layer->name,
                     hwgq_op_name(layer->op));
  if (pool && layer->kernel_height * layer->kernel_width > 255)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s pools %d x %d values: the trainer takes up to 255", layer->name,
                     layer->kernel_height, layer->kernel_width);
  if (layer->op == HWGQ_SOFTMAX && !last)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s is a softmax before the end: the trainer takes it last only",
                     layer->name);
  if (last && layer->op != HWGQ_SOFTMAX)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "the last layer, %s, is not a softmax: the trainer needs one", layer->name);
  return HWGQ_OK;
}

static bool element_wise(enum hwgq_op op) {
  return op == HWGQ_BATCH_NORM || op == HWGQ_SCALE || op == HWGQ_QUANTIZE || op == HWGQ_RELU || op == HWGQ_SOFTMAX;
}

/* Nothing reads the output of these once the one layer that takes it has normalized it. */
static bool may_be_overwritten(const struct net_layer *l) {
  return l->consumers == 1 && (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR || l->op == HWGQ_MAX_POOL);
}

static size_t shape_size(struct hwgq_shape shape) {
  return (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
}

/* How often each layer's output is taken, and by which layer last. */
static void count_consumers(struct net *net) {
  for (int i = net->network->layer_count - 1; i >= 0; i--) {
    const struct hwgq_layer *layer = &net->network->layers[i];
    struct net_layer *l = &net->layers[i];
    l->source_count = layer->input_count;
    for (int k = 0; k < layer->input_count; k++)
      if (layer->inputs[k] >= 0) l->sources[k].overwrites = net->layers[layer->inputs[k]].consumers++ == 0;
  }
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

static void connect(struct net *net, int i) {
  struct net_layer *l = &net->layers[i];
  for (int k = 0; k < l->source_count; k++) {
    int from = l->layer->inputs[k];
    struct net_source *source = &l->sources[k];
    source->shape = from >= 0 ? net->layers[from].out : net->network->input;
    source->size = shape_size(source->shape);
    source->value = from >= 0 ? net->layers[from].value : net->input;
    source->gradient = from >= 0 ? net->layers[from].gradient : NULL;
  }
  l->in = l->sources[0].shape;
  l->in_size = l->sources[0].size;
  l->in_value = l->sources[0].value;
}

/* Buffers of a layer, its own or those of the layer before it where both can work in one. */
static bool allocate_values(struct net *net, struct net_layer *l) {
  int from = l->layer->inputs[0];
  struct net_layer *before = from >= 0 ? &net->layers[from] : NULL;
  size_t batch = (size_t)net->batch;
  bool one = l->op == HWGQ_ADD || l->op == HWGQ_CONCAT ? false : before != NULL && before->consumers == 1;
  l->owns_value = !(l->op == HWGQ_BATCH_NORM && before != NULL && may_be_overwritten(before));
  l->owns_gradient = !(element_wise(l->op) && one);
  l->value = l->owns_value ? conv_allocate(l->out_size * batch) : before->value;
  l->gradient = l->owns_gradient ? conv_allocate(l->out_size * batch) : before->gradient;
  if (l->op == HWGQ_ADD || l->op == HWGQ_CONCAT || before == NULL) {
    l->in_gradient = NULL;
  } else if (element_wise(l->op)) {
    l->in_gradient = l->gradient;
  } else if (l->sources[0].overwrites) {
    l->in_gradient = before->gradient;
  } else {
    l->owns_in_gradient = true;
    l->in_gradient = conv_allocate(l->in_size * batch);
    if (l->in_gradient == NULL) return false;
  }
  if (l->op == HWGQ_MAX_POOL) {
    l->which = calloc(l->out_size * batch, 1);
    if (l->which == NULL) return false;
  }
  return l->value != NULL && l->gradient != NULL;
}

/* The levels that layer i takes: of a quantizer before it, or before max pooling before it. */
static struct conv_levels input_levels(const struct hwgq_network *network, int i) {
  do {
    i = network->layers[i].inputs[0];
  } while (i >= 0 && network->layers[i].op == HWGQ_MAX_POOL);
  return i >= 0 && network->layers[i].op == HWGQ_QUANTIZE ? conv_levels_of(&network->layers[i]) : (struct conv_levels){0};
}

/* What goes to the loss as it is, where rounding would do most harm: never in bfloat16. */
static bool makes_scores(const struct hwgq_network *network, int i) {
  const struct hwgq_layer *next = i + 1 < network->layer_count ? &network->layers[i + 1] : NULL;
  return next != NULL && next->op == HWGQ_SOFTMAX && next->inputs[0] == i;
}

static enum hwgq_status create_layer(struct net *net, int i, struct hwgq_error *error) {
  struct net_layer *l = &net->layers[i];
  l->layer = &net->network->layers[i];
  l->op = l->layer->op;
  l->out = l->layer->output;
  l->out_size = shape_size(l->out);
  connect(net, i);
  if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) {
    const struct dot_kernels *fast = net->blas->dot, exact = {.int8 = fast != NULL ? fast->int8 : NULL};
    enum hwgq_status status = conv_create(l->layer, l->in, l->sources[0].gradient != NULL, &l->conv, error);
    if (status == HWGQ_OK)
      status = conv_narrow_create(&l->conv, makes_scores(net->network, i) ? &exact : fast, input_levels(net->network, i),
                                  net->batch, error);
    if (status != HWGQ_OK) return status;
  }
  bool enough = allocate_values(net, l);
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
  enum hwgq_status status = HWGQ_OK;
  count_consumers(net);
  for (int i = 0; status == HWGQ_OK && i < net->network->layer_count; i++) {
    status = check_layer(net->network, i, error);
    net->layer_count = i + 1;
    if (status == HWGQ_OK) status = create_layer(net, i, error);
  }
  if (status != HWGQ_OK) return status;
  status = list_parameters(net, error);
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
    if (l->owns_in_gradient) free(l->in_gradient);
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

void net_initialize(struct net *net, enum net_initializer kind, uint64_t seed) {
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    struct rng rng = rng_make(seed, UINT64_MAX, (uint64_t)i);
    if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) {
      float bound = kind == NET_MSRA ? sqrtf(2.0f / (float)l->conv.taps) : 1.0f / sqrtf((float)l->conv.taps);
      for (size_t w = 0; w < l->conv.weight_count; w++)
        l->conv.weight[w] = bound * (kind == NET_MSRA ? rng_normal(&rng) : 2.0f * rng_uniform(&rng) - 1.0f);
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
