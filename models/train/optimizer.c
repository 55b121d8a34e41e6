#include "models/train/optimizer.h"

#include <math.h>
#include <stdlib.h>

enum { PIECE = 1 << 14 }; /* values that one task updates */

static const double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;

enum hwgq_status optimizer_create(const struct optimizer_options *options, struct net *net, struct optimizer **result,
                                  struct hwgq_error *error) {
  if (!(options->rate >= 0) || !(options->classifier >= 0) || !(options->momentum >= 0 && options->momentum < 1) ||
      !(options->weight_decay >= 0) || !(options->warmup >= 0 && options->warmup <= 1) || !(options->power >= 0))
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "learning rates, weight decay and power must not be negative, momentum lies in [0, 1), warm-up in [0, 1]");
  size_t count = (size_t)net->parameter_count;
  struct optimizer *optimizer = calloc(1, sizeof *optimizer);
  if (optimizer == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the optimizer");
  *optimizer = (struct optimizer){.options = *options, .net = net};
  optimizer->first = calloc(count + 1, sizeof *optimizer->first);
  optimizer->second = calloc(count + 1, sizeof *optimizer->second);
  bool enough = optimizer->first != NULL && optimizer->second != NULL;
  for (size_t i = 0; enough && i < count; i++) {
    optimizer->first[i] = conv_allocate(net->parameters[i].count);
    enough = optimizer->first[i] != NULL;
    if (!enough || options->kind != OPTIMIZER_ADAM) continue;
    optimizer->second[i] = conv_allocate(net->parameters[i].count);
    enough = optimizer->second[i] != NULL;
  }
  if (!enough) {
    optimizer_destroy(optimizer);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the state of the optimizer");
  }
  *result = optimizer;
  return HWGQ_OK;
}

void optimizer_destroy(struct optimizer *optimizer) {
  if (optimizer == NULL) return;
  for (int i = 0; i < optimizer->net->parameter_count; i++) {
    if (optimizer->first != NULL) free(optimizer->first[i]);
    if (optimizer->second != NULL) free(optimizer->second[i]);
  }
  free(optimizer->first);
  free(optimizer->second);
  free(optimizer);
}

double optimizer_rate(const struct optimizer_options *options, int64_t step, int64_t steps) {
  double warm_steps = options->warmup * (double)steps;
  if ((double)step < warm_steps) return options->rate * ((double)step + 1) / (warm_steps + 1);
  if (options->schedule == SCHEDULE_CONSTANT) return options->rate;
  double left = ((double)steps - (double)step) / ((double)steps - warm_steps);
  left = left < 0 ? 0 : left > 1 ? 1 : left;
  if (options->schedule == SCHEDULE_COSINE) return options->rate * (1 - cos(3.141592653589793 * left)) / 2;
  return options->rate * pow(left, options->power);
}

struct update {
  struct optimizer *optimizer;
  float rate, epsilon; /* with Adam's bias corrections */
};

static void update_piece(const struct update *update, int parameter_index, size_t from, size_t to) {
  const struct optimizer *optimizer = update->optimizer;
  const struct net *net = optimizer->net;
  const struct train_kernels *kernels = net->kernels;
  const struct net_parameter *p = &net->parameters[parameter_index];
  size_t count = to - from;
  float *gradient = p->gradient + from, *value = p->value + from;
  bool classifier = p->layer->op == HWGQ_LINEAR && !p->layer->conv.binary;
  float rate = classifier ? update->rate * (float)optimizer->options.classifier : update->rate;
  if (p->gradient == p->layer->conv.gradient) conv_reduce(&p->layer->conv, kernels, from, to);
  if (p->decayed && optimizer->options.weight_decay > 0)
    kernels->add_scaled(gradient, value, count, (float)optimizer->options.weight_decay);
  if (optimizer->options.kind == OPTIMIZER_ADAM)
    kernels->adam(value, gradient, optimizer->first[parameter_index] + from, optimizer->second[parameter_index] + from, count,
                  rate, (float)adam_beta1, (float)adam_beta2, update->epsilon);
  else
    kernels->momentum(value, gradient, optimizer->first[parameter_index] + from, count, rate,
                      (float)optimizer->options.momentum);
  if (p->latent) kernels->clamp(value, count, -1.0f, 1.0f);
}

static void update_task(void *context, int index, int worker) {
  (void)worker;
  const struct update *update = context;
  const struct net *net = update->optimizer->net;
  for (int i = 0; i < net->parameter_count; i++) {
    size_t count = net->parameters[i].count, pieces = (count + PIECE - 1) / PIECE;
    if ((size_t)index < pieces) {
      size_t from = (size_t)index * PIECE;
      update_piece(update, i, from, from + PIECE < count ? from + PIECE : count);
      return;
    }
    index -= (int)pieces;
  }
}

void optimizer_step(struct optimizer *optimizer, double rate) {
  struct net *net = optimizer->net;
  struct update update = {.optimizer = optimizer, .rate = (float)rate};
  optimizer->step++;
  if (optimizer->options.kind == OPTIMIZER_ADAM) {
    /* rate * (m / c1) / (sqrt(v / c2) + e) = rate * sqrt(c2) / c1 * m / (sqrt(v) + e sqrt(c2)) */
    double c1 = 1 - pow(adam_beta1, (double)optimizer->step), c2 = 1 - pow(adam_beta2, (double)optimizer->step);
    update.rate = (float)(rate * sqrt(c2) / c1);
    update.epsilon = (float)(adam_epsilon * sqrt(c2));
  }
  size_t pieces = 0;
  for (int i = 0; i < net->parameter_count; i++) pieces += (net->parameters[i].count + PIECE - 1) / PIECE;
  pool_run(net->pool, (int)pieces, update_task, &update);
  net_prepare(net);
}
