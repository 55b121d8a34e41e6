#include "models/train/average.h"

#include <stdlib.h>

enum { PIECE = 1 << 16 }; /* values of one task */

static enum hwgq_status fill(struct average *average, struct hwgq_error *error) {
  const struct net *net = average->net;
  size_t layers = (size_t)net->layer_count + 1;
  average->values = calloc((size_t)net->parameter_count + 1, sizeof *average->values);
  average->mean = calloc(layers, sizeof *average->mean);
  average->variance = calloc(layers, sizeof *average->variance);
  bool enough = average->values != NULL && average->mean != NULL && average->variance != NULL;
  for (int i = 0; enough && i < net->parameter_count; i++) {
    average->values[i] = conv_allocate(net->parameters[i].count);
    enough = average->values[i] != NULL;
  }
  for (int i = 0; enough && i < net->layer_count; i++) {
    if (net->layers[i].op != HWGQ_BATCH_NORM) continue;
    average->mean[i] = conv_allocate((size_t)net->layers[i].out.channels);
    average->variance[i] = conv_allocate((size_t)net->layers[i].out.channels);
    enough = average->mean[i] != NULL && average->variance[i] != NULL;
  }
  return enough ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the average of the weights");
}

enum hwgq_status average_create(struct net *net, struct average **result, struct hwgq_error *error) {
  struct average *average = calloc(1, sizeof *average);
  if (average == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the average of the weights");
  average->net = net;
  enum hwgq_status status = fill(average, error);
  if (status != HWGQ_OK) {
    average_destroy(average);
    return status;
  }
  *result = average;
  return HWGQ_OK;
}

void average_destroy(struct average *average) {
  if (average == NULL) return;
  for (int i = 0; average->values != NULL && i < average->net->parameter_count; i++) free(average->values[i]);
  for (int i = 0; average->mean != NULL && i < average->net->layer_count; i++) free(average->mean[i]);
  for (int i = 0; average->variance != NULL && i < average->net->layer_count; i++) free(average->variance[i]);
  free(average->values);
  free(average->mean);
  free(average->variance);
  free(average);
}

struct work {
  struct average *average;
  float share; /* negative: exchange */
};

static void piece_task(void *context, int index, int worker) {
  (void)worker;
  const struct work *work = context;
  const struct net *net = work->average->net;
  for (int i = 0; i < net->parameter_count; i++) {
    size_t count = net->parameters[i].count, pieces = (count + PIECE - 1) / PIECE;
    if ((size_t)index >= pieces) {
      index -= (int)pieces;
      continue;
    }
    size_t from = (size_t)index * PIECE, to = from + PIECE < count ? from + PIECE : count;
    float *weight = net->parameters[i].value, *mean = work->average->values[i];
    for (size_t k = from; k < to; k++) {
      float w = weight[k], m = mean[k];
      if (work->share < 0) weight[k] = m;
      mean[k] = work->share < 0 || work->share >= 1 ? w : m + work->share * (w - m);
    }
    return;
  }
}

static void run(const struct work *work) {
  const struct net *net = work->average->net;
  size_t pieces = 0;
  for (int i = 0; i < net->parameter_count; i++) pieces += (net->parameters[i].count + PIECE - 1) / PIECE;
  struct work copy = *work;
  pool_run(net->pool, (int)pieces, piece_task, &copy);
}

void average_add(struct average *average, double share) {
  run(&(struct work){.average = average, .share = (float)share});
  average->count++;
}

void average_forget(struct average *average) {
  average->count = 0;
  average->measured = false;
}

static void exchange(float *a, float *b, int count) {
  for (int i = 0; i < count; i++) {
    float value = a[i];
    a[i] = b[i];
    b[i] = value;
  }
}

void average_swap(struct average *average) {
  struct net *net = average->net;
  run(&(struct work){.average = average, .share = -1});
  for (int i = 0; i < net->layer_count; i++) {
    struct net_layer *l = &net->layers[i];
    if (average->mean[i] == NULL) continue;
    exchange(l->mean, average->mean[i], l->out.channels);
    exchange(l->variance, average->variance[i], l->out.channels);
  }
  net_prepare(net);
}
