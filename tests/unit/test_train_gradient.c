/* The gradient of every layer of the trainer, against central differences of a double-precision forward pass that is written
 * here a second time. Where the trainer's derivative is a stated one instead of the true one, this forward pass is linearized
 * with the stated derivative around the point in question:
 *
 *   quantize    q(x0) + s (x - x0); with m the largest center, s is 1 for 0 < x0 <= m and beyond m 0 (clipped), 1 (vanilla) or
 *               1 / (x0 - m + 1) (log-tailed)
 *   sign        the same with s = 1 for |x0| <= 1, else 0
 *   max pool    takes the cell that was the largest at x0 (the first of equals)
 *   relu        passes x where x0 > 0, else 0
 *   weights     alpha(w0) sign(w0) + (w - w0)  (binary layers)
 *
 * Longer than most files: the second forward pass and the networks that it is compared on belong together. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/net.h"
#include "models/train/rng.h"
#include "tests/support/support.h"

enum { BATCH = 5, MAX_LAYERS = 32, MAX_CHECKED = 100, CLASSES = 4 };

static struct hwgq_error error;
static struct blas blas;

/* ---- the second forward pass -------------------------------------------------------------------------------------------- */

struct model {
  const struct net *net;
  int labels[BATCH];
  const float *teacher;           /* [BATCH][CLASSES], NULL without */
  double *values[MAX_LAYERS + 1]; /* [0]: the input; [i + 1]: output of layer i; [image][row][column][channel] */
  double *base[MAX_LAYERS + 1];   /* the same at the point around which things are linearized */
  float *base_weight[MAX_LAYERS];
  bool linearized;
};

static size_t size_of(struct hwgq_shape shape) {
  return (size_t)(shape.channels * shape.height * shape.width);
}

static double weight_at(const struct model *m, int i, size_t index, int channel) {
  const struct conv *conv = &m->net->layers[i].conv;
  double w = (double)conv->weight[index];
  if (!conv->binary) return w;
  double base = (double)(m->linearized ? m->base_weight[i][index] : conv->weight[index]);
  return (base >= 0 ? 1 : -1) * (double)conv->alpha[channel] + (w - base);
}

static void forward_conv(const struct model *m, int i, const double *in, double *out) {
  const struct net_layer *l = &m->net->layers[i];
  const struct conv *c = &l->conv;
  int channels = c->in.channels;
  for (int n = 0; n < BATCH; n++) {
    for (int p = 0; p < c->out.height * c->out.width; p++) {
      for (int o = 0; o < c->out.channels; o++, out++) {
        double sum = c->has_bias ? (double)c->bias[o] : 0;
        for (int k = 0; k < c->taps; k++) {
          int y = p / c->out.width * c->stride_height - c->pad_height + k / channels / c->kernel_width;
          int x = p % c->out.width * c->stride_width - c->pad_width + k / channels % c->kernel_width;
          if (y < 0 || x < 0 || y >= c->in.height || x >= c->in.width) continue;
          sum += in[((n * c->in.height + y) * c->in.width + x) * channels + k % channels] *
                 weight_at(m, i, (size_t)(k * c->out.channels + o), o);
        }
        *out = sum;
      }
    }
  }
}

static void forward_norm(const struct net_layer *l, const double *in, double *out) {
  int channels = l->in.channels, pixels = BATCH * l->in.height * l->in.width;
  for (int c = 0; c < channels; c++) {
    double mean = 0, variance = 0;
    for (int p = 0; p < pixels; p++) mean += in[p * channels + c] / pixels;
    for (int p = 0; p < pixels; p++) variance += pow(in[p * channels + c] - mean, 2) / pixels;
    for (int p = 0; p < pixels; p++)
      out[p * channels + c] = (in[p * channels + c] - mean) / sqrt(variance + (double)l->layer->eps);
  }
}

static double quantized(const struct hwgq_layer *layer, double x) {
  if (layer->sign) return x >= 0 ? 1 : -1;
  double value = 0;
  for (int j = 0; j < layer->level_count; j++)
    if (x > (double)layer->thresholds[j]) value = (double)layer->centers[j];
  return value;
}

static double slope_of(const struct net *net, const struct hwgq_layer *layer, double x) {
  if (layer->sign) return fabs(x) <= 1;
  double most = (double)layer->centers[layer->level_count - 1];
  if (x <= 0) return 0;
  if (x <= most || net->backward == NET_VANILLA) return 1;
  return net->backward == NET_LOG_TAILED ? 1 / (x - most + 1) : 0;
}

static const double *input_of(const struct model *m, int i, int k) {
  return m->values[m->net->network->layers[i].inputs[k] + 1];
}

static void forward_average(const struct net_layer *l, const double *in, double *out) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  for (int n = 0; n < BATCH; n++) {
    for (int o = 0; o < l->out.height * l->out.width; o++) {
      for (int c = 0; c < channels; c++, out++) {
        double sum = 0;
        int cells = 0;
        for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
          int y = o / l->out.width * p->stride_height - p->pad_height + k / p->kernel_width;
          int x = o % l->out.width * p->stride_width - p->pad_width + k % p->kernel_width;
          cells += y < l->in.height + p->pad_height && x < l->in.width + p->pad_width;
          if (y < 0 || x < 0 || y >= l->in.height || x >= l->in.width) continue;
          sum += in[((n * l->in.height + y) * l->in.width + x) * channels + c];
        }
        *out = sum / cells;
      }
    }
  }
}

/* Add and concat. */
static void forward_join(const struct model *m, int i, double *out) {
  const struct net_layer *l = &m->net->layers[i];
  const struct hwgq_layer *layer = l->layer;
  size_t places = (size_t)(BATCH * l->out.height * l->out.width), channels = (size_t)l->out.channels;
  for (size_t p = 0; p < places; p++) {
    size_t c = 0;
    for (int k = 0; k < layer->input_count; k++) {
      size_t part = (size_t)hwgq_network_input_shape(m->net->network, layer, k).channels;
      const double *in = input_of(m, i, k) + p * part;
      for (size_t j = 0; j < part; j++) {
        double *to = out + p * channels + (layer->op == HWGQ_ADD ? j : c + j);
        *to = layer->op == HWGQ_CONCAT ? in[j] : (k == 0 ? 0 : *to) + (double)layer->coefficients[k] * in[j];
      }
      c += part;
    }
  }
}

static void forward_pool(const struct net_layer *l, const double *in, const double *base, double *out) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  for (int n = 0; n < BATCH; n++) {
    for (int o = 0; o < l->out.height * l->out.width; o++) {
      for (int c = 0; c < channels; c++, out++) {
        int best = -1;
        for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
          int y = o / l->out.width * p->stride_height - p->pad_height + k / p->kernel_width;
          int x = o % l->out.width * p->stride_width - p->pad_width + k % p->kernel_width;
          int index = ((n * l->in.height + y) * l->in.width + x) * channels + c;
          if (y < 0 || x < 0 || y >= l->in.height || x >= l->in.width) continue;
          if (best < 0 || base[index] > base[best]) best = index;
        }
        *out = in[best];
      }
    }
  }
}

static void forward_layer(struct model *m, int i) {
  const struct net_layer *l = &m->net->layers[i];
  const double *in = input_of(m, i, 0), *base = m->linearized ? m->base[l->layer->inputs[0] + 1] : in;
  double *out = m->values[i + 1];
  size_t count = BATCH * l->out_size;
  int channels = l->out.channels;
  if (l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR) forward_conv(m, i, in, out);
  if (l->op == HWGQ_BATCH_NORM) forward_norm(l, in, out);
  if (l->op == HWGQ_MAX_POOL) forward_pool(l, in, base, out);
  if (l->op == HWGQ_AVG_POOL) forward_average(l, in, out);
  if (l->op == HWGQ_ADD || l->op == HWGQ_CONCAT) forward_join(m, i, out);
  for (size_t k = 0; k < count; k++) {
    int c = (int)(k % (size_t)channels);
    if (l->op == HWGQ_SCALE) out[k] = (double)l->gamma[c] * in[k] + (double)l->beta[c];
    if (l->op == HWGQ_RELU) out[k] = base[k] > 0 ? in[k] : 0;
    if (l->op == HWGQ_QUANTIZE) out[k] = quantized(l->layer, base[k]) + slope_of(m->net, l->layer, base[k]) * (in[k] - base[k]);
    if (l->op == HWGQ_SOFTMAX) out[k] = exp(in[k]);
  }
  for (size_t n = 0; l->op == HWGQ_SOFTMAX && n < BATCH; n++) {
    double sum = 0;
    for (int c = 0; c < channels; c++) sum += out[n * (size_t)channels + (size_t)c];
    for (int c = 0; c < channels; c++) out[n * (size_t)channels + (size_t)c] /= sum;
  }
}

static double cross_entropy(struct model *m) {
  for (int i = 0; i < m->net->layer_count; i++) forward_layer(m, i);
  double loss = 0;
  int classes = net_class_count(m->net);
  for (int n = 0; n < BATCH; n++) loss -= log(m->values[m->net->layer_count][n * classes + m->labels[n]]) / BATCH;
  return loss;
}

static void tempered(double temperature, const double *scores, double *p) {
  double sum = 0;
  for (int c = 0; c < CLASSES; c++) sum += p[c] = exp(scores[c] / temperature);
  for (int c = 0; c < CLASSES; c++) p[c] /= sum;
}

/* What is trained for, as net.h says it. */
static double forward(struct model *m) {
  const struct net_objective *o = &m->net->objective;
  double loss = cross_entropy(m), hard = loss, soft = 0, kl = 0;
  if (o->smoothing <= 0 && m->teacher == NULL) return loss;
  int last = m->net->layer_count;
  const double *scores = input_of(m, last - 1, 0), *probabilities = m->values[last];
  for (int n = 0; n < BATCH; n++) {
    double p[CLASSES], t[CLASSES], wanted[CLASSES];
    for (int c = 0; c < CLASSES; c++) soft -= log(probabilities[n * CLASSES + c]) / CLASSES / BATCH;
    if (m->teacher == NULL) continue;
    for (int c = 0; c < CLASSES; c++) wanted[c] = (double)m->teacher[n * CLASSES + c];
    tempered(o->temperature, scores + n * CLASSES, p);
    tempered(o->temperature, wanted, t);
    for (int c = 0; c < CLASSES; c++) kl += t[c] * log(t[c] / p[c]) / BATCH;
  }
  loss = (1 - o->smoothing) * hard + o->smoothing * soft;
  return (1 - o->distillation) * loss + o->distillation * o->temperature * o->temperature * kl;
}

/* ---- the comparison ----------------------------------------------------------------------------------------------------- */

static void open_model(struct model *m, const struct net *net) {
  *m = (struct model){.net = net};
  for (int i = 0; i <= net->layer_count; i++) {
    size_t count = BATCH * (i == 0 ? size_of(net->network->input) : net->layers[i - 1].out_size);
    m->values[i] = calloc(count, sizeof(double));
    m->base[i] = calloc(count, sizeof(double));
    ck_assert_ptr_nonnull(m->values[i]);
    ck_assert_ptr_nonnull(m->base[i]);
    for (size_t k = 0; i == 0 && k < count; k++) m->values[0][k] = m->base[0][k] = (double)net->input[k];
  }
  for (int n = 0; n < BATCH; n++) m->labels[n] = n % net_class_count(net);
}

/* What is computed now becomes the point around which forward() is linear. */
static void linearize(struct model *m) {
  forward(m);
  for (int i = 0; i < m->net->layer_count; i++) {
    const struct net_layer *l = &m->net->layers[i];
    memcpy(m->base[i + 1], m->values[i + 1], BATCH * l->out_size * sizeof(double));
    if (l->conv.weight == NULL) continue;
    m->base_weight[i] = malloc(l->conv.weight_count * sizeof(float));
    ck_assert_ptr_nonnull(m->base_weight[i]);
    memcpy(m->base_weight[i], l->conv.weight, l->conv.weight_count * sizeof(float));
  }
  m->linearized = true;
}

static void close_model(struct model *m) {
  for (int i = 0; i <= m->net->layer_count; i++) {
    free(m->values[i]);
    free(m->base[i]);
    if (i < m->net->layer_count) free(m->base_weight[i]);
  }
}

/* Sums the groups of a weight's gradient, as the optimizer does. */
static void reduce(struct net *net) {
  for (int i = 0; i < net->layer_count; i++)
    if (net->layers[i].conv.weight != NULL)
      conv_reduce(&net->layers[i].conv, net->kernels, 0, net->layers[i].conv.weight_count);
}

/* At most about MAX_CHECKED values of a parameter, spread over it. */
static void check_parameter(struct model *m, const struct net_parameter *p) {
  size_t stride = p->count / MAX_CHECKED + 1;
  double scale = 0;
  for (size_t i = 0; i < p->count; i++) scale = fmax(scale, fabs((double)p->gradient[i]));
  ck_assert_msg(scale > 1e-6, "%s: no gradient arrives", p->name);
  for (size_t i = 0; i < p->count; i += stride) {
    float at = p->value[i], step = 1e-3f;
    p->value[i] = at + step;
    double above = forward(m), high = (double)p->value[i];
    p->value[i] = at - step;
    double below = forward(m), low = (double)p->value[i];
    p->value[i] = at;
    double expected = (above - below) / (high - low);
    ck_assert_msg(fabs(expected - (double)p->gradient[i]) < 2e-4 * scale + 2e-3 * fabs(expected),
                  "%s[%zu]: %g, differences say %g", p->name, i, (double)p->gradient[i], expected);
  }
}

static void randomize(struct net *net, uint64_t seed) {
  net_initialize(net, NET_UNIFORM, seed);
  struct rng rng = rng_make(seed, 77, 0);
  for (size_t i = 0; i < BATCH * size_of(net->network->input); i++) net->input[i] = 3 * rng_uniform(&rng) - 1.5f;
  for (int p = 0; p < net->parameter_count; p++) {
    if (net->parameters[p].decayed) continue;
    for (size_t i = 0; i < net->parameters[p].count; i++) net->parameters[p].value[i] += rng_uniform(&rng) - 0.3f;
  }
  net_prepare(net);
}

/* How a network is trained, beside the usual. */
struct way {
  enum net_backward backward;
  struct net_objective objective;
  const float *teacher;
};

static void check_network_with(struct hwgq_network *network, int threads, const struct way *way) {
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_le(network->layer_count, MAX_LAYERS);
  struct pool *pool = NULL;
  struct net *net = NULL;
  ck_assert_int_eq(pool_create(threads, &pool, &error), HWGQ_OK);
  enum hwgq_status status = net_create(network, BATCH, pool, &blas, &net, &error);
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
  net->backward = way->backward;
  net->objective = way->objective;
  randomize(net, 5);
  struct model model;
  open_model(&model, net);
  model.teacher = way->teacher;
  linearize(&model);
  net_forward(net, BATCH, true);
  for (size_t i = 0; i < BATCH * (size_t)net_class_count(net); i++)
    ck_assert_double_eq_tol(model.values[net->layer_count][i], (double)net_output(net)[i], 1e-5);
  double loss;
  int right;
  net_score(net, model.labels, BATCH, &loss, &right);
  ck_assert_double_eq_tol(loss / BATCH, cross_entropy(&model), 1e-5);
  net_backward(net, model.labels, way->teacher, BATCH, 1);
  reduce(net);
  for (int i = 0; i < net->parameter_count; i++) check_parameter(&model, &net->parameters[i]);
  close_model(&model);
  net_destroy(net);
  pool_destroy(pool);
  hwgq_network_destroy(network);
}

static void check_network(struct hwgq_network *network, int threads) {
  check_network_with(network, threads, &(struct way){0});
}

/* ---- networks ----------------------------------------------------------------------------------------------------------- */

static struct hwgq_network *start(int channels, int height, int width) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){channels, height, width}, &network, &error), HWGQ_OK);
  return network;
}

static struct hwgq_layer *append(struct hwgq_network *network, const char *name, enum hwgq_op op) {
  return support_add(network, name, op, network->layer_count > 0 ? network->layers[network->layer_count - 1].name : "input");
}

static struct hwgq_layer *append_conv(struct hwgq_network *network, const char *name, int channels, int kernel, int stride,
                                      int pad) {
  struct hwgq_layer *layer = append(network, name, HWGQ_CONV2D);
  layer->out_channels = channels;
  layer->kernel_height = layer->kernel_width = kernel;
  layer->stride_height = layer->stride_width = stride;
  layer->pad_height = layer->pad_width = pad;
  return layer;
}

static void append_levels(struct hwgq_network *network, const char *name, int level_count) {
  struct hwgq_layer *layer = append(network, name, HWGQ_QUANTIZE);
  layer->level_count = level_count;
  for (int i = 0; i < level_count; i++) {
    layer->centers[i] = 0.5f * (float)(i + 1);
    layer->thresholds[i] = i == 0 ? 0 : 0.5f * (float)i + 0.25f;
  }
}

static void finish(struct hwgq_network *network) {
  struct hwgq_layer *layer = append(network, "fc", HWGQ_LINEAR);
  layer->out_channels = CLASSES;
  layer->has_bias = true;
  append(network, "prob", HWGQ_SOFTMAX);
}

START_TEST(test_linear) {
  struct hwgq_network *network = start(3, 4, 5);
  append(network, "fc1", HWGQ_LINEAR)->out_channels = 7;
  finish(network);
  check_network(network, 1);
}
END_TEST

START_TEST(test_conv) {
  struct hwgq_network *network = start(3, 6, 5);
  append_conv(network, "conv1", 5, 3, 1, 1)->has_bias = true;
  append_conv(network, "conv2", 6, 3, 2, 1);
  struct hwgq_layer *odd = append_conv(network, "conv3", 3, 3, 1, 0);
  odd->kernel_width = 2;
  odd->pad_height = 2;
  odd->stride_width = 3;
  append_conv(network, "conv4", 17, 1, 1, 0);
  finish(network);
  check_network(network, 2);
}
END_TEST

START_TEST(test_batch_norm) {
  struct hwgq_network *network = start(2, 5, 5);
  append(network, "bn0", HWGQ_BATCH_NORM); /* normalizes the input itself */
  append_conv(network, "conv1", 18, 3, 1, 1);
  append(network, "bn1", HWGQ_BATCH_NORM)->eps = 0.01f;
  append_conv(network, "conv2", 5, 3, 1, 0);
  append(network, "bn2", HWGQ_BATCH_NORM);
  append(network, "scale2", HWGQ_SCALE)->has_bias = true;
  append_conv(network, "conv3", 4, 3, 1, 1);
  append(network, "scale3", HWGQ_SCALE);
  finish(network);
  check_network(network, 3);
}
END_TEST

START_TEST(test_relu_and_pool) {
  struct hwgq_network *network = start(3, 7, 7);
  append_conv(network, "conv1", 6, 3, 1, 1);
  append(network, "relu1", HWGQ_RELU);
  append(network, "bn1", HWGQ_BATCH_NORM);
  struct hwgq_layer *pool = append(network, "pool1", HWGQ_MAX_POOL); /* overlapping, and its last window hangs over */
  pool->kernel_height = pool->kernel_width = 3;
  pool->stride_height = pool->stride_width = 2;
  pool->pad_height = pool->pad_width = 1;
  append_conv(network, "conv2", 5, 3, 1, 1);
  append(network, "bn2", HWGQ_BATCH_NORM);
  finish(network);
  check_network(network, 2);
}
END_TEST

static struct hwgq_network *quantized_network(int level_count, bool alpha) {
  struct hwgq_network *network = start(3, 8, 8);
  append_conv(network, "conv1", 6, 3, 1, 1);
  struct hwgq_layer *pool = append(network, "pool1", HWGQ_MAX_POOL);
  pool->kernel_height = pool->kernel_width = pool->stride_height = pool->stride_width = 2;
  append(network, "bn1", HWGQ_BATCH_NORM);
  append_levels(network, "quant1", level_count);
  struct hwgq_layer *conv = append_conv(network, "conv2", 5, 3, 1, 1);
  conv->binary = true;
  conv->has_alpha = alpha;
  append(network, "bn2", HWGQ_BATCH_NORM);
  append_levels(network, "quant2", level_count);
  struct hwgq_layer *linear = append(network, "fc0", HWGQ_LINEAR);
  linear->out_channels = 8;
  linear->binary = linear->has_alpha = linear->has_bias = true;
  finish(network);
  return network;
}

static void check_quantized(int level_count, bool alpha) {
  check_network(quantized_network(level_count, alpha), 2);
}

START_TEST(test_quantize) {
  static const int level_counts[] = {1, 3, 7, 15};
  check_quantized(level_counts[_i], true);
}
END_TEST

START_TEST(test_binary_without_alpha) {
  check_quantized(3, false);
}
END_TEST

START_TEST(test_backward) {
  static const enum net_backward ways[] = {NET_CLIPPED, NET_VANILLA, NET_LOG_TAILED};
  check_network_with(quantized_network(2, true), 2, &(struct way){.backward = ways[_i]});
}
END_TEST

START_TEST(test_label_smoothing) {
  check_network_with(quantized_network(3, true), 2, &(struct way){.objective = {.smoothing = 0.2}});
}
END_TEST

START_TEST(test_distillation) {
  float teacher[BATCH * CLASSES];
  struct rng rng = rng_make(1, 2, 3);
  for (int i = 0; i < BATCH * CLASSES; i++) teacher[i] = 8 * rng_uniform(&rng) - 4;
  const struct net_objective objectives[] = {{.distillation = 1, .temperature = 1},
                                             {.distillation = 0.7, .temperature = 3, .smoothing = 0.1}};
  check_network_with(quantized_network(3, true), 2, &(struct way){.objective = objectives[_i], .teacher = teacher});
}
END_TEST

static void append_join(struct hwgq_network *network, const char *name, enum hwgq_op op, int count, const char *const *inputs,
                        const float *coefficients) {
  struct hwgq_layer *layer = NULL;
  ck_assert_int_eq(hwgq_network_add(network, name, op, count, inputs, &layer, &error), HWGQ_OK);
  for (int i = 0; coefficients != NULL && i < count; i++) layer->coefficients[i] = coefficients[i];
}

static void conv_from(struct hwgq_network *network, const char *name, const char *input, int channels, int kernel) {
  struct hwgq_layer *layer = support_add(network, name, HWGQ_CONV2D, input);
  layer->out_channels = channels;
  layer->kernel_height = layer->kernel_width = kernel;
  layer->pad_height = layer->pad_width = kernel / 2;
}

START_TEST(test_average_pool) {
  struct hwgq_network *network = start(3, 7, 6);
  append_conv(network, "conv1", 6, 3, 1, 1);
  append(network, "bn1", HWGQ_BATCH_NORM);
  struct hwgq_layer *pool = append(network, "pool1", HWGQ_AVG_POOL); /* overlapping, padded, and its last window hangs over */
  pool->kernel_height = pool->kernel_width = 3;
  pool->stride_height = pool->stride_width = 2;
  pool->pad_height = pool->pad_width = 1;
  append_conv(network, "conv2", 18, 3, 1, 1);
  append(network, "relu2", HWGQ_RELU);
  append(network, "pool2", HWGQ_AVG_POOL)->global_pool = true;
  finish(network);
  check_network(network, 2);
}
END_TEST

/* Two blocks as in a ResNet: a stream that several layers take, a projection, sums with coefficients. */
START_TEST(test_residual) {
  struct hwgq_network *network = start(3, 8, 8);
  append_conv(network, "conv1", 6, 3, 1, 1);
  append(network, "bn1", HWGQ_BATCH_NORM);
  append_levels(network, "quant1", 3);
  struct hwgq_layer *conv = append_conv(network, "conv2", 6, 3, 1, 1);
  conv->binary = conv->has_alpha = true;
  append(network, "bn2", HWGQ_BATCH_NORM);
  append(network, "scale2", HWGQ_SCALE); /* bn3 would take an offset away again */
  append_join(network, "sum1", HWGQ_ADD, 2, (const char *const[]){"bn1", "scale2"}, (const float[]){0.5f, -2.0f});
  append(network, "bn3", HWGQ_BATCH_NORM);
  append_levels(network, "quant3", 3);
  conv = append_conv(network, "project", 5, 1, 2, 0);
  conv->binary = conv->has_alpha = true;
  append(network, "project_bn", HWGQ_BATCH_NORM);
  conv = support_add(network, "conv4", HWGQ_CONV2D, "quant3");
  conv->out_channels = 5;
  conv->kernel_height = conv->kernel_width = 3;
  conv->stride_height = conv->stride_width = 2;
  conv->pad_height = conv->pad_width = 1;
  append(network, "bn4", HWGQ_BATCH_NORM);
  append(network, "scale4", HWGQ_SCALE)->has_bias = true;
  append_join(network, "sum2", HWGQ_ADD, 3, (const char *const[]){"project_bn", "scale4", "project_bn"}, NULL);
  append(network, "relu5", HWGQ_RELU);
  finish(network);
  check_network(network, 2);
}
END_TEST

/* As in a GoogLeNet: one quantizer for three branches; a pool and a relu on what another layer takes too. */
START_TEST(test_concat) {
  struct hwgq_network *network = start(2, 6, 6);
  append_conv(network, "conv1", 5, 3, 1, 1);
  append(network, "bn1", HWGQ_BATCH_NORM);
  append_levels(network, "quant1", 3);
  append_conv(network, "one", 3, 1, 1, 0);
  conv_from(network, "three", "quant1", 4, 3);
  conv_from(network, "five", "quant1", 2, 5);
  append_join(network, "joined", HWGQ_CONCAT, 4, (const char *const[]){"one", "three", "five", "three"}, NULL);
  struct hwgq_layer *pool = append(network, "pool", HWGQ_MAX_POOL);
  pool->kernel_height = pool->kernel_width = 3;
  pool->pad_height = pool->pad_width = 1;
  support_add(network, "relu", HWGQ_RELU, "joined");
  pool = support_add(network, "mean", HWGQ_AVG_POOL, "joined");
  pool->kernel_height = pool->kernel_width = 3;
  pool->pad_height = pool->pad_width = 1;
  append_join(network, "sum", HWGQ_ADD, 3, (const char *const[]){"pool", "relu", "mean"}, NULL);
  append(network, "bn2", HWGQ_BATCH_NORM);
  finish(network);
  check_network(network, 3);
}
END_TEST

START_TEST(test_sign) {
  struct hwgq_network *network = start(2, 6, 6);
  append_conv(network, "conv1", 6, 3, 1, 1)->binary = true; /* binary on real values, as LeNet's first */
  append(network, "bn1", HWGQ_BATCH_NORM);
  append(network, "sign1", HWGQ_QUANTIZE)->sign = true;
  append_conv(network, "conv2", 5, 3, 1, 1)->binary = true;
  append(network, "bn2", HWGQ_BATCH_NORM);
  append(network, "sign2", HWGQ_QUANTIZE)->sign = true;
  finish(network);
  check_network(network, 2);
}
END_TEST

int main(void) {
  enum hwgq_status status = blas_load(NULL, &blas, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  Suite *suite = suite_create("train_gradient");
  TCase *tests = tcase_create("gradients");
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, test_linear);
  tcase_add_test(tests, test_conv);
  tcase_add_test(tests, test_batch_norm);
  tcase_add_test(tests, test_relu_and_pool);
  tcase_add_loop_test(tests, test_quantize, 0, 4);
  tcase_add_test(tests, test_binary_without_alpha);
  tcase_add_test(tests, test_sign);
  tcase_add_loop_test(tests, test_backward, 0, 3);
  tcase_add_test(tests, test_label_smoothing);
  tcase_add_loop_test(tests, test_distillation, 0, 2);
  tcase_add_test(tests, test_average_pool);
  tcase_add_test(tests, test_residual);
  tcase_add_test(tests, test_concat);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
