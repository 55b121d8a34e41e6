/* A second set of weights beside those in training: their running average over steps (Polyak averaging; over the last epochs:
 * Izmailov et al., arXiv 1803.05407). Averages of latent weights have other signs than any step had, so batch statistics are
 * measured anew for them. */
#ifndef TRAIN_AVERAGE_H
#define TRAIN_AVERAGE_H

#include "models/train/net.h"

struct average_options {
  double decay; /* exponential: each step keeps this share of the average; 0: off */
  int epochs;   /* equal weights for every step of the last epochs; 0: off. Not together with decay. */
  int batches;  /* from which batch statistics are measured. With neither decay nor epochs: for the weights as they are, and 0
                   for none of this. Else 0 stands for AVERAGE_BATCHES. */
};

enum { AVERAGE_BATCHES = 100 };

struct average {
  struct net *net;          /* borrowed */
  int64_t count;            /* steps in it */
  bool measured;            /* the statistics are there */
  float **values;           /* [parameter] */
  float **mean, **variance; /* [layer]; NULL but for batch_norm */
};

enum hwgq_status average_create(struct net *net, struct average **average, struct hwgq_error *error);
void average_destroy(struct average *average);
/* Moves the average by `share` of the way to the weights; 1 is exactly there. */
void average_add(struct average *average, double share);
/* As if nothing had been added: the next must be added with a share of 1. */
void average_forget(struct average *average);
/* Exchanges weights and statistics with the net's, and prepares the net. Twice: nothing has changed. */
void average_swap(struct average *average);

#endif
