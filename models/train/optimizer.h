/* From gradients to new weights. */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "models/train/net.h"

enum optimizer_kind { OPTIMIZER_ADAM, OPTIMIZER_SGD };
enum schedule_kind { SCHEDULE_POLY, SCHEDULE_CONSTANT, SCHEDULE_COSINE };

struct optimizer_options {
  enum optimizer_kind kind;
  double rate;         /* at its highest */
  double classifier;   /* factor on the rate in float linear layers: Adam moves every weight by about the rate, and thousands of
                          inputs add up to a jump of the class scores */
  double momentum;     /* SGD; Adam's first decay is 0.9 and its second 0.999 */
  double weight_decay; /* adds weight_decay * weight to the gradient of weights (not of biases, gamma, beta) */
  enum schedule_kind schedule;
  double power;  /* SCHEDULE_POLY: rate * (1 - progress)^power; cosine: rate * (1 + cos(pi progress)) / 2 */
  double warmup; /* share of all steps during which the rate rises linearly from 0 */
};

struct optimizer {
  struct optimizer_options options;
  struct net *net; /* borrowed */
  int64_t step;    /* steps made */
  float **first;   /* per parameter: Adam's first moment, SGD's velocity */
  float **second;  /* per parameter: Adam's second moment; NULL with SGD */
};

enum hwgq_status optimizer_create(const struct optimizer_options *options, struct net *net, struct optimizer **optimizer,
                                  struct hwgq_error *error);
void optimizer_destroy(struct optimizer *optimizer);

/* The learning rate of step `step` (from 0) of `steps`. */
double optimizer_rate(const struct optimizer_options *options, int64_t step, int64_t steps);
/* One step with this rate, from the gradients in the net; prepares the net for the next forward pass. */
void optimizer_step(struct optimizer *optimizer, double rate);

#endif
