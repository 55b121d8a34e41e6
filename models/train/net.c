#include "models/train/net.h"

#include <math.h>
#include <string.h>

/* ---- one layer on a chunk of images, forward ---------------------------------------------------------------------------- */

static size_t pixels(struct hwgq_shape shape) {
  return (size_t)shape.height * (size_t)shape.width;
}

static void pool_forward(const struct net *net, const struct net_layer *l, const float *in, float *out, uint8_t *which) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, out += channels, which += channels) {
      bool first = true;
      for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
        int y = oy * p->stride_height - p->pad_height + k / p->kernel_width;
        int x = ox * p->stride_width - p->pad_width + k % p->kernel_width;
        if (y < 0 || y >= l->in.height || x < 0 || x >= l->in.width) continue;
        const float *cell = in + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
        if (first)
          net->kernels->max_first(cell, channels, out, which, (uint8_t)k);
        else
          net->kernels->max_next(cell, channels, out, which, (uint8_t)k);
        first = false;
      }
    }
  }
}

static void softmax_forward(const float *in, int channels, float *out) {
  float largest = in[0];
  for (int c = 1; c < channels; c++) largest = in[c] > largest ? in[c] : largest;
  double sum = 0;
  for (int c = 0; c < channels; c++) {
    out[c] = expf(in[c] - largest);
    sum += (double)out[c];
  }
  for (int c = 0; c < channels; c++) out[c] = (float)((double)out[c] / sum);
}

static void layer_forward(const struct net *net, const struct net_layer *l, int first, int count, int worker) {
  const struct train_kernels *kernels = net->kernels;
  const float *in = l->in_value + (size_t)first * l->in_size;
  float *out = l->value + (size_t)first * l->out_size;
  size_t values = (size_t)count * l->out_size, places = (size_t)count * pixels(l->out);
  switch (l->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    conv_forward(&l->conv, net->blas, kernels, in, first, count, out, net->workspaces[worker]);
    break;
  case HWGQ_BATCH_NORM:
  case HWGQ_SCALE:
    kernels->affine(in, places, l->out.channels, l->slope, l->offset, out);
    break;
  case HWGQ_QUANTIZE:
    if (l->layer->sign)
      kernels->sign(in, values, out);
    else
      kernels->quantize(in, values, l->layer->level_count, l->layer->thresholds, l->layer->centers, out);
    break;
  case HWGQ_RELU:
    kernels->relu(in, values, out);
    break;
  case HWGQ_MAX_POOL:
    for (int i = 0; i < count; i++)
      pool_forward(net, l, in + (size_t)i * l->in_size, out + (size_t)i * l->out_size,
                   l->which + (size_t)(first + i) * l->out_size);
    break;
  default: /* softmax: net_create lets nothing else in */
    for (int i = 0; i < count; i++)
      softmax_forward(in + (size_t)i * l->in_size, l->out.channels, out + (size_t)i * l->out_size);
    break;
  }
}

/* ---- phases ------------------------------------------------------------------------------------------------------------- */

/* Layers between two points where the whole batch is needed, and its chunks of images. */
struct phase {
  struct net *net;
  int from, to;   /* layers from <= l < to; backward from to - 1 down to from */
  int statistics; /* the batch_norm whose sums this phase makes, -1 without */
  int count, chunk;
  const int *labels;
  int weight_from, weight_to, weight_tasks; /* layers whose weights' gradients are made beside it */
};

/* Images per chunk: enough rows for an efficient product, few enough to stay in the cache. */
static int chunk_images(const struct net *net, int from, int to, int count) {
  enum { ROWS = 640 };
  size_t most = 1;
  for (int i = from; i < to; i++) {
    const struct net_layer *l = &net->layers[i];
    if (l->op == HWGQ_CONV2D && pixels(l->out) > most) most = pixels(l->out);
  }
  size_t images = (ROWS + most - 1) / most;
  /* Linear layers alone: a few large products. */
  return images > (size_t)(count + 3) / 4 ? (count + 3) / 4 : (int)images;
}

static double *chunk_sums(const struct net_layer *l, int chunk) {
  double *sums = l->partial + (size_t)chunk * 2 * (size_t)l->out.channels;
  memset(sums, 0, 2 * sizeof *sums * (size_t)l->out.channels);
  return sums;
}

static void forward_task(void *context, int index, int worker) {
  const struct phase *phase = context;
  const struct net *net = phase->net;
  int first = index * phase->chunk;
  int count = phase->count - first < phase->chunk ? phase->count - first : phase->chunk;
  for (int i = phase->from; i < phase->to; i++) layer_forward(net, &net->layers[i], first, count, worker);
  if (phase->statistics < 0) return;
  const struct net_layer *l = &net->layers[phase->statistics];
  double *sums = chunk_sums(l, index);
  net->kernels->sum_squares(l->in_value + (size_t)first * l->in_size, (size_t)count * pixels(l->in), l->in.channels, sums,
                            sums + l->in.channels);
}

/* Batch statistics to the affine form and into the running ones (variance unbiased, as is usual). */
static void finish_statistics(const struct net *net, struct net_layer *l, int chunks, int count) {
  double n = (double)count * (double)pixels(l->in);
  float share = net->statistics_momentum;
  int channels = l->in.channels;
  for (int c = 0; c < channels; c++) {
    double sum = 0, square = 0;
    for (int k = 0; k < chunks; k++) {
      sum += l->partial[((size_t)k * 2) * (size_t)channels + (size_t)c];
      square += l->partial[((size_t)k * 2 + 1) * (size_t)channels + (size_t)c];
    }
    double mean = sum / n, variance = square / n - mean * mean;
    if (variance < 0) variance = 0;
    double inverse = 1 / sqrt(variance + (double)l->layer->eps);
    l->slope[c] = (float)inverse;
    l->offset[c] = (float)(-mean * inverse);
    l->mean[c] += share * ((float)mean - l->mean[c]);
    l->variance[c] += share * ((float)(n > 1 ? variance * n / (n - 1) : variance) - l->variance[c]);
  }
}

static void set_affine(struct net_layer *l, bool training) {
  for (int c = 0; c < l->out.channels; c++) {
    if (l->op == HWGQ_SCALE) {
      l->slope[c] = l->gamma[c];
      l->offset[c] = l->beta[c];
    } else if (!training) {
      double inverse = 1 / sqrt((double)l->variance[c] + (double)l->layer->eps);
      l->slope[c] = (float)inverse;
      l->offset[c] = (float)(-(double)l->mean[c] * inverse);
    }
  }
}

void net_forward(struct net *net, int count, bool training) {
  for (int i = 0; i < net->layer_count; i++)
    if (net->layers[i].op == HWGQ_BATCH_NORM || net->layers[i].op == HWGQ_SCALE) set_affine(&net->layers[i], training);
  for (int from = 0; from < net->layer_count;) {
    /* A phase that begins with a batch_norm whose statistics are known runs up to the next one's. */
    bool known = from > 0 && training && net->layers[from].op == HWGQ_BATCH_NORM;
    int to = known ? from + 1 : from;
    while (to < net->layer_count && !(training && net->layers[to].op == HWGQ_BATCH_NORM)) to++;
    if (from == 0 && to == 0) { /* the network begins with a batch_norm */
      const struct net_layer *l = &net->layers[0];
      net->kernels->sum_squares(l->in_value, (size_t)count * pixels(l->in), l->in.channels, chunk_sums(l, 0),
                                l->partial + l->in.channels);
      finish_statistics(net, &net->layers[0], 1, count);
      for (to = 1; to < net->layer_count && net->layers[to].op != HWGQ_BATCH_NORM;) to++;
    }
    struct phase phase = {.net = net,
                          .from = from,
                          .to = to,
                          .statistics = to < net->layer_count ? to : -1,
                          .count = count,
                          .chunk = chunk_images(net, from, to, count)};
    int chunks = (count + phase.chunk - 1) / phase.chunk;
    pool_run(net->pool, chunks, forward_task, &phase);
    if (phase.statistics >= 0) finish_statistics(net, &net->layers[to], chunks, count);
    from = to;
  }
}

const float *net_output(const struct net *net) {
  return net->layers[net->layer_count - 1].value;
}

int net_class_count(const struct net *net) {
  return net->layers[net->layer_count - 1].out.channels;
}

void net_score(const struct net *net, const int *labels, int count, double *loss, int *right) {
  int classes = net_class_count(net);
  const float *scores = net_output(net);
  *loss = 0;
  *right = 0;
  for (int i = 0; i < count; i++, scores += classes) {
    int best = 0;
    for (int c = 1; c < classes; c++)
      if (scores[c] > scores[best]) best = c;
    *right += best == labels[i];
    /* A probability that float rounds to 0 would give infinity: its smallest positive value instead. NaN stays NaN. */
    double probability = (double)scores[labels[i]];
    *loss -= log(probability < 0x1p-149 ? 0x1p-149 : probability);
  }
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

static void pool_backward(const struct net *net, const struct net_layer *l, const float *gradient, const uint8_t *which,
                          float *in_gradient) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  memset(in_gradient, 0, sizeof(float) * l->in_size);
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, gradient += channels, which += channels) {
      for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
        int y = oy * p->stride_height - p->pad_height + k / p->kernel_width;
        int x = ox * p->stride_width - p->pad_width + k % p->kernel_width;
        if (y < 0 || y >= l->in.height || x < 0 || x >= l->in.width) continue;
        float *cell = in_gradient + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
        net->kernels->max_backward(cell, channels, gradient, which, (uint8_t)k);
      }
    }
  }
}

/* Softmax with the loss: the gradient of the batch's mean loss with respect to the softmax's input. */
static void loss_backward(const struct net_layer *l, const int *labels, int first, int count, int batch) {
  for (int i = first; i < first + count; i++) {
    const float *score = l->value + (size_t)i * l->out_size;
    float *gradient = l->gradient + (size_t)i * l->out_size;
    for (int c = 0; c < l->out.channels; c++) gradient[c] = (score[c] - (c == labels[i] ? 1.0f : 0.0f)) / (float)batch;
  }
}

/* From the gradient of a layer's output to that of its input. */
static void layer_backward(const struct phase *phase, const struct net_layer *l, int first, int count, int chunk, int worker) {
  const struct net *net = phase->net;
  const struct train_kernels *kernels = net->kernels;
  const float *in = l->in_value + (size_t)first * l->in_size;
  float *gradient = l->gradient + (size_t)first * l->out_size;
  size_t values = (size_t)count * l->out_size, places = (size_t)count * pixels(l->out);
  bool wanted = l->in_gradient != NULL;
  switch (l->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    if (wanted)
      conv_backward_input(&l->conv, net->blas, gradient, count, l->in_gradient + (size_t)first * l->in_size,
                          net->workspaces[worker]);
    break;
  case HWGQ_BATCH_NORM:
    if (wanted)
      kernels->normalize_backward(gradient, l->value + (size_t)first * l->out_size, places, l->out.channels, l->back[0],
                                  l->back[1], l->back[2]);
    break;
  case HWGQ_SCALE: {
    double *sums = chunk_sums(l, chunk);
    kernels->sum_products(gradient, in, places, l->out.channels, sums, sums + l->out.channels);
    if (wanted) kernels->affine(gradient, places, l->out.channels, l->slope, l->back[2], gradient);
    break;
  }
  case HWGQ_QUANTIZE:
    if (l->layer->sign)
      kernels->mask_hard_tanh(gradient, in, values);
    else
      kernels->mask_half_open(gradient, in, values, 0.0f, l->layer->centers[l->layer->level_count - 1]);
    break;
  case HWGQ_RELU:
    kernels->mask_half_open(gradient, in, values, 0.0f, INFINITY);
    break;
  case HWGQ_MAX_POOL:
    for (int i = 0; wanted && i < count; i++)
      pool_backward(net, l, gradient + (size_t)i * l->out_size, l->which + (size_t)(first + i) * l->out_size,
                    l->in_gradient + (size_t)(first + i) * l->in_size);
    break;
  default:
    loss_backward(l, phase->labels, first, count, phase->count);
    break;
  }
}

static bool has_weights(const struct net_layer *l) {
  return l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR;
}

static void backward_task(void *context, int index, int worker) {
  const struct phase *phase = context;
  const struct net *net = phase->net;
  /* Weights first: their tasks are the long ones. */
  if (index < phase->weight_tasks) {
    int task = index;
    for (int i = phase->weight_to - 1; i >= phase->weight_from; i--) {
      const struct net_layer *l = &net->layers[i];
      if (!has_weights(l)) continue;
      int tasks = l->conv.groups * l->conv.slices;
      if (task < tasks) {
        conv_backward_weight(&l->conv, net->blas, l->in_value, l->gradient, phase->count, task, net->workspaces[worker]);
        if (task == 0 && l->conv.has_bias) conv_backward_bias(&l->conv, l->gradient, phase->count);
        return;
      }
      task -= tasks;
    }
    return;
  }
  int chunk = index - phase->weight_tasks, first = chunk * phase->chunk;
  int count = phase->count - first < phase->chunk ? phase->count - first : phase->chunk;
  for (int i = phase->to - 1; i >= phase->from; i--) layer_backward(phase, &net->layers[i], first, count, chunk, worker);
  if (phase->statistics < 0) return;
  const struct net_layer *l = &net->layers[phase->statistics];
  double *sums = chunk_sums(l, chunk);
  net->kernels->sum_products(l->gradient + (size_t)first * l->out_size, l->value + (size_t)first * l->out_size,
                             (size_t)count * pixels(l->out), l->out.channels, sums, sums + l->out.channels);
}

static double partial_sum(const struct net_layer *l, int which, int chunks, int channel) {
  double sum = 0;
  for (int k = 0; k < chunks; k++)
    sum += l->partial[((size_t)k * 2 + (size_t)which) * (size_t)l->out.channels + (size_t)channel];
  return sum;
}

/* With y = (x - mean) / s of the batch: dx = (g - mean(g) - y mean(g y)) / s. */
static void finish_normalize(struct net_layer *l, int chunks, int count) {
  double n = (double)count * (double)pixels(l->out);
  for (int c = 0; c < l->out.channels; c++) {
    l->back[0][c] = l->slope[c];
    l->back[1][c] = (float)(-(double)l->slope[c] * partial_sum(l, 1, chunks, c) / n);
    l->back[2][c] = (float)(-(double)l->slope[c] * partial_sum(l, 0, chunks, c) / n);
  }
}

static void finish_scale(struct net_layer *l, int chunks) {
  for (int c = 0; c < l->out.channels; c++) {
    l->gamma_gradient[c] = (float)partial_sum(l, 1, chunks, c);
    l->beta_gradient[c] = (float)partial_sum(l, 0, chunks, c);
  }
}

static void run_backward(struct phase *phase) {
  struct net *net = phase->net;
  phase->weight_tasks = 0;
  for (int i = phase->weight_from; i < phase->weight_to; i++)
    if (has_weights(&net->layers[i])) phase->weight_tasks += net->layers[i].conv.groups * net->layers[i].conv.slices;
  int chunks = 0;
  if (phase->from < phase->to) {
    phase->chunk = chunk_images(net, phase->from, phase->to, phase->count);
    chunks = (phase->count + phase->chunk - 1) / phase->chunk;
  }
  pool_run(net->pool, phase->weight_tasks + chunks, backward_task, phase);
  for (int i = phase->from; i < phase->to; i++)
    if (net->layers[i].op == HWGQ_SCALE) finish_scale(&net->layers[i], chunks);
  if (phase->statistics >= 0) finish_normalize(&net->layers[phase->statistics], chunks, phase->count);
}

void net_backward(struct net *net, const int *labels, int count) {
  struct phase phase = {.net = net, .count = count, .labels = labels, .to = net->layer_count};
  while (phase.to > 0) {
    /* The batch_norm at the top of a phase has its sums from the phase above it. */
    int from = phase.to - 1;
    while (from > 0 && net->layers[from - 1].op != HWGQ_BATCH_NORM) from--;
    phase.from = from;
    phase.statistics = from - 1;
    run_backward(&phase);
    phase.weight_from = phase.from;
    phase.weight_to = phase.to;
    phase.to = from;
  }
  phase.from = phase.to = 0;
  phase.statistics = -1;
  run_backward(&phase);
}

/* ---- parameters --------------------------------------------------------------------------------------------------------- */

enum { PREPARE_CHANNELS = 32 };

static void prepare_task(void *context, int index, int worker) {
  (void)worker;
  struct net *net = context;
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    if (!has_weights(l)) continue;
    int tasks = (l->out.channels + PREPARE_CHANNELS - 1) / PREPARE_CHANNELS;
    if (index < tasks) {
      int from = index * PREPARE_CHANNELS, to = from + PREPARE_CHANNELS;
      conv_prepare(&l->conv, from, to < l->out.channels ? to : l->out.channels);
      return;
    }
    index -= tasks;
  }
}

void net_prepare(struct net *net) {
  int tasks = 0;
  for (int i = 0; i < net->layer_count; i++)
    if (has_weights(&net->layers[i])) tasks += (net->layers[i].out.channels + PREPARE_CHANNELS - 1) / PREPARE_CHANNELS;
  pool_run(net->pool, tasks, prepare_task, net);
}
