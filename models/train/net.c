#include "models/train/net_layers.h"

#include <math.h>
#include <string.h>

/* ---- one layer on a chunk of images, forward ---------------------------------------------------------------------------- */

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
  size_t values = (size_t)count * l->out_size, places = (size_t)count * net_pixels(l->out);
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
    net_max_pool(net, l, first, count);
    break;
  case HWGQ_AVG_POOL:
    net_average_pool(l, first, count);
    break;
  case HWGQ_ADD:
    net_add(l, first, count);
    break;
  case HWGQ_CONCAT:
    net_concat(l, first, count);
    break;
  default: /* softmax: net_create lets nothing else in */
    for (int i = 0; i < count; i++)
      softmax_forward(in + (size_t)i * l->in_size, l->out.channels, out + (size_t)i * l->out_size);
    break;
  }
}

/* ---- phases ------------------------------------------------------------------------------------------------------------- */

/* Images per chunk: enough rows for an efficient product, few enough to stay in the cache. */
int net_chunk_images(const struct net *net, int from, int to, int count) {
  enum { ROWS = 640 };
  size_t most = 1;
  for (int i = from; i < to; i++) {
    const struct net_layer *l = &net->layers[i];
    if (l->op == HWGQ_CONV2D && net_pixels(l->out) > most) most = net_pixels(l->out);
  }
  size_t images = (ROWS + most - 1) / most;
  /* Linear layers alone: a few large products. */
  return images > (size_t)(count + 3) / 4 ? (count + 3) / 4 : (int)images;
}

double *net_chunk_sums(const struct net_layer *l, int chunk) {
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
  double *sums = net_chunk_sums(l, index);
  net->kernels->sum_squares(l->in_value + (size_t)first * l->in_size, (size_t)count * net_pixels(l->in), l->in.channels, sums,
                            sums + l->in.channels);
}

/* Batch statistics to the affine form and into the running ones (variance unbiased, as is usual). */
static void finish_statistics(const struct net *net, struct net_layer *l, int chunks, int count) {
  double n = (double)count * (double)net_pixels(l->in);
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
      net->kernels->sum_squares(l->in_value, (size_t)count * net_pixels(l->in), l->in.channels, net_chunk_sums(l, 0),
                                l->partial + l->in.channels);
      finish_statistics(net, &net->layers[0], 1, count);
      for (to = 1; to < net->layer_count && net->layers[to].op != HWGQ_BATCH_NORM;) to++;
    }
    struct phase phase = {.net = net,
                          .from = from,
                          .to = to,
                          .statistics = to < net->layer_count ? to : -1,
                          .count = count,
                          .chunk = net_chunk_images(net, from, to, count)};
    int chunks = (count + phase.chunk - 1) / phase.chunk;
    pool_run(net->pool, chunks, forward_task, &phase);
    if (phase.statistics >= 0) finish_statistics(net, &net->layers[to], chunks, count);
    from = to;
  }
}

const float *net_output(const struct net *net) {
  return net->layers[net->layer_count - 1].value;
}

const float *net_class_scores(const struct net *net) {
  return net->layers[net->layer_count - 1].in_value;
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

/* ---- parameters --------------------------------------------------------------------------------------------------------- */

enum { PREPARE_CHANNELS = DOT_COLUMNS }; /* whole panels, as conv_prepare wants them */

static void prepare_task(void *context, int index, int worker) {
  (void)worker;
  struct net *net = context;
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    if (!net_has_weights(l)) continue;
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
    if (net_has_weights(&net->layers[i])) tasks += (net->layers[i].out.channels + PREPARE_CHANNELS - 1) / PREPARE_CHANNELS;
  pool_run(net->pool, tasks, prepare_task, net);
}
