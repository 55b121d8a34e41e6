#include "models/train/distribution.h"

#include <math.h>
#include <stdlib.h>

static bool is_activation(const struct net_layer *l) {
  return l->op == HWGQ_QUANTIZE || l->op == HWGQ_RELU;
}

struct distribution *distribution_create(const struct net *net, int *count) {
  *count = 0;
  for (int i = 0; i < net->layer_count; i++) *count += is_activation(&net->layers[i]);
  struct distribution *list = calloc((size_t)*count + 1, sizeof *list);
  int next = 0;
  for (int i = 0; list != NULL && i < net->layer_count; i++)
    if (is_activation(&net->layers[i])) list[next++].layer = net->layers[i].layer;
  return list;
}

int distribution_levels(const struct distribution *d) {
  return d->layer->op == HWGQ_RELU || d->layer->sign ? 1 : d->layer->level_count;
}

/* The least input of level k >= 1; ties belong to the level below, but for signs. */
static double threshold(const struct distribution *d, int k) {
  return d->layer->op == HWGQ_RELU || d->layer->sign ? 0 : (double)d->layer->thresholds[k - 1];
}

static void add_layer(const struct net_layer *l, int images, struct distribution *d) {
  size_t values = (size_t)images * l->in_size;
  int levels = distribution_levels(d);
  double scale = DISTRIBUTION_BINS / (DISTRIBUTION_HIGH - DISTRIBUTION_LOW);
  d->count += values;
  for (size_t i = 0; i < values; i++) {
    double x = (double)l->in_value[i];
    d->sum += x;
    d->square += x * x;
    if (x < DISTRIBUTION_LOW)
      d->below++;
    else if (x >= DISTRIBUTION_HIGH)
      d->above++;
    else if (x == x)
      d->bins[(int)((x - DISTRIBUTION_LOW) * scale)]++;
    int level = 0;
    while (level < levels && (x > threshold(d, level + 1) || (d->layer->sign && x >= 0))) level++;
    d->levels[level]++;
  }
}

void distribution_add(const struct net *net, int images, struct distribution *list) {
  for (int i = 0; i < net->layer_count; i++)
    if (is_activation(&net->layers[i])) add_layer(&net->layers[i], images, list++);
}

static double below(double x) {
  return erfc(-x / sqrt(2)) / 2;
}

double distribution_expected(const struct distribution *d, int level) {
  int levels = distribution_levels(d);
  double low = level > 0 ? below(threshold(d, level)) : 0, high = level < levels ? below(threshold(d, level + 1)) : 1;
  return high - low;
}
