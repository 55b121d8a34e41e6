#include <math.h>
#include <string.h>

#include "models/train/net_layers.h"
#include "models/train/rng.h"

/* The sum of exp((x - largest) / temperature). */
static double exponentials(const float *x, int count, double temperature, double *largest) {
  double sum = 0;
  *largest = (double)x[0];
  for (int c = 1; c < count; c++) *largest = (double)x[c] > *largest ? (double)x[c] : *largest;
  for (int c = 0; c < count; c++) sum += exp(((double)x[c] - *largest) / temperature);
  return sum;
}

/* Adds the teacher's part to the gradient of one image's loss, whose other part is weighted here. */
static void distill(const struct net_objective *o, const float *scores, const float *teacher, int classes, float *gradient) {
  double largest, teacher_largest, t = o->temperature;
  double sum = exponentials(scores, classes, t, &largest), teacher_sum = exponentials(teacher, classes, t, &teacher_largest);
  for (int c = 0; c < classes; c++) {
    double p = exp(((double)scores[c] - largest) / t) / sum;
    double wanted = exp(((double)teacher[c] - teacher_largest) / t) / teacher_sum;
    gradient[c] = (float)((1 - o->distillation) * (double)gradient[c] + o->distillation * t * (p - wanted));
  }
}

/* Softmax with the loss: the gradient of the batch's mean loss with respect to the softmax's input. */
static void loss_backward(const struct phase *phase, const struct net_layer *l, int first, int count) {
  const struct net_objective *o = &phase->net->objective;
  int classes = l->out.channels;
  float miss = (float)(o->smoothing / classes), hit = (float)(1 - o->smoothing) + miss;
  for (int i = first; i < first + count; i++) {
    size_t at = (size_t)i * l->out_size;
    const float *probability = l->value + at;
    float *gradient = l->gradient + at;
    for (int c = 0; c < classes; c++) gradient[c] = probability[c] - (c == phase->labels[i] ? hit : miss);
    if (phase->teacher != NULL) distill(o, l->in_value + at, phase->teacher + at, classes, gradient);
    for (int c = 0; c < classes; c++) gradient[c] /= (float)phase->count;
  }
}

static void quantize_backward(const struct net *net, const struct hwgq_layer *layer, float *gradient, const float *in,
                              size_t count) {
  const struct train_kernels *kernels = net->kernels;
  if (layer->sign)
    kernels->mask_hard_tanh(gradient, in, count);
  else if (net->backward == NET_LOG_TAILED)
    kernels->mask_log_tailed(gradient, in, count, layer->centers[layer->level_count - 1]);
  else
    kernels->mask_half_open(gradient, in, count, 0.0f,
                            net->backward == NET_VANILLA ? INFINITY : layer->centers[layer->level_count - 1]);
}

/* From the gradient of a layer's output to that of its input. */
static void layer_backward(const struct phase *phase, const struct net_layer *l, int first, int count, int chunk, int worker) {
  const struct net *net = phase->net;
  const struct train_kernels *kernels = net->kernels;
  const float *in = l->in_value + (size_t)first * l->in_size;
  float *gradient = l->gradient + (size_t)first * l->out_size;
  size_t values = (size_t)count * l->out_size, places = (size_t)count * net_pixels(l->out);
  bool wanted = l->in_gradient != NULL;
  switch (l->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    if (wanted)
      conv_backward_input(&l->conv, net->blas, gradient, first, count, l->in_gradient + (size_t)first * l->in_size,
                          net->workspaces[worker]);
    break;
  case HWGQ_BATCH_NORM:
    if (wanted)
      kernels->normalize_backward(gradient, l->value + (size_t)first * l->out_size, places, l->out.channels, l->back[0],
                                  l->back[1], l->back[2]);
    break;
  case HWGQ_SCALE: {
    double *sums = net_chunk_sums(l, chunk);
    kernels->sum_products(gradient, in, places, l->out.channels, sums, sums + l->out.channels);
    if (wanted) kernels->affine(gradient, places, l->out.channels, l->slope, l->back[2], gradient);
    break;
  }
  case HWGQ_QUANTIZE:
    quantize_backward(net, l->layer, gradient, in, values);
    break;
  case HWGQ_RELU:
    kernels->mask_half_open(gradient, in, values, 0.0f, INFINITY);
    break;
  case HWGQ_MAX_POOL:
    if (wanted) net_max_pool_backward(net, l, first, count);
    break;
  case HWGQ_AVG_POOL:
    if (wanted) net_average_pool_backward(l, first, count);
    break;
  case HWGQ_ADD:
    net_add_backward(l, first, count);
    return;
  case HWGQ_CONCAT:
    net_concat_backward(l, first, count);
    return;
  default:
    loss_backward(phase, l, first, count);
    break;
  }
  net_pass_on(l, first, count);
}

static void backward_task(void *context, int index, int worker) {
  const struct phase *phase = context;
  const struct net *net = phase->net;
  /* Weights first: their tasks are the long ones. */
  if (index < phase->weight_tasks) {
    int task = index;
    for (int i = phase->weight_to - 1; i >= phase->weight_from; i--) {
      const struct net_layer *l = &net->layers[i];
      if (!net_has_weights(l)) continue;
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
  double *sums = net_chunk_sums(l, chunk);
  net->kernels->sum_products(l->gradient + (size_t)first * l->out_size, l->value + (size_t)first * l->out_size,
                             (size_t)count * net_pixels(l->out), l->out.channels, sums, sums + l->out.channels);
}

static double partial_sum(const struct net_layer *l, int which, int chunks, int channel) {
  double sum = 0;
  for (int k = 0; k < chunks; k++)
    sum += l->partial[((size_t)k * 2 + (size_t)which) * (size_t)l->out.channels + (size_t)channel];
  return sum;
}

/* With y = (x - mean) / s of the batch: dx = (g - mean(g) - y mean(g y)) / s. */
static void finish_normalize(struct net_layer *l, int chunks, int count) {
  double n = (double)count * (double)net_pixels(l->out);
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
    if (net_has_weights(&net->layers[i])) phase->weight_tasks += net->layers[i].conv.groups * net->layers[i].conv.slices;
  int chunks = 0;
  if (phase->from < phase->to) {
    phase->chunk = net_chunk_images(net, phase->from, phase->to, phase->count);
    chunks = (phase->count + phase->chunk - 1) / phase->chunk;
  }
  pool_run(net->pool, phase->weight_tasks + chunks, backward_task, phase);
  for (int i = phase->from; i < phase->to; i++)
    if (net->layers[i].op == HWGQ_SCALE) finish_scale(&net->layers[i], chunks);
  if (phase->statistics >= 0) finish_normalize(&net->layers[phase->statistics], chunks, phase->count);
}

void net_backward(struct net *net, const int *labels, const float *teacher, int count, uint64_t seed) {
  for (int i = 0; i < net->layer_count; i++) {
    struct rng rng = rng_make(seed, UINT64_MAX - 1, (uint64_t)i);
    net->layers[i].conv.noise = (uint32_t)rng_next(&rng);
  }
  struct phase phase = {.net = net, .count = count, .labels = labels, .teacher = teacher, .to = net->layer_count};
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
