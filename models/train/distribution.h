/* What arrives at the activations of a network: histograms of their inputs, and how often each level is taken. */
#ifndef TRAIN_DISTRIBUTION_H
#define TRAIN_DISTRIBUTION_H

#include "models/train/net.h"

enum { DISTRIBUTION_BINS = 80 };
#define DISTRIBUTION_LOW (-4.0)
#define DISTRIBUTION_HIGH 4.0

struct distribution {
  const struct hwgq_layer *layer; /* quantize or relu; borrowed from the network */
  uint64_t count;                 /* values */
  double sum, square;
  uint64_t bins[DISTRIBUTION_BINS]; /* equal parts of LOW to HIGH */
  uint64_t below, above;            /* that lie outside */
  /* How many values got each level: [0] for 0 (sign: -1), [k] for the k-th center (sign: [1] for +1; relu: [1] for all
   * above 0). */
  uint64_t levels[HWGQ_MAX_LEVELS + 1];
};

/* Room for every activation of a net, empty, in the order of the layers; free(). NULL: no memory. */
struct distribution *distribution_create(const struct net *net, int *count);
/* Adds what the last net_forward of `images` images gave. */
void distribution_add(const struct net *net, int images, struct distribution *list);
/* Levels beside 0, or 1 for sign and relu. */
int distribution_levels(const struct distribution *distribution);
/* The share of a level, as in `levels`, were the inputs distributed as N(0,1). */
double distribution_expected(const struct distribution *distribution, int level);

#endif
