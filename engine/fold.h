/* Folding: what follows a convolution (alpha and bias, batch norm, scale, relu, quantizer) becomes one threshold per level and
 * channel, or one multiplication and addition.
 *
 * A chain is evaluated in double exactly as the reference executor does it, for a given accumulator. Every step is monotone, so
 * "level > j" changes at one accumulator value; that value is found by bisection over all values the accumulator can have.
 * Thresholds therefore give the reference's level for every accumulator, whatever rounding happens inside the chain. */
#ifndef HWGQ_FOLD_H
#define HWGQ_FOLD_H

#include "engine/hwgq.h"

enum { HWGQ_MAX_CHAIN = 16 };

/* Layers after an accumulator, in order: conv2d or linear (alpha and bias only), batch_norm, scale, relu. */
struct hwgq_chain {
  double unit; /* value of an accumulator of 1 */
  /* Where channels differ, [channel]: the value of an accumulator of 1, and of 0. Both or neither are NULL. */
  const double *units, *offsets;
  int count;
  const struct hwgq_layer *layers[HWGQ_MAX_CHAIN];
  int first[HWGQ_MAX_CHAIN]; /* channel of the layer that belongs to channel 0 of the chain */
  uint32_t rounded;          /* bit i: the value is rounded to float32 before layer i (count: at the end) */
};

/* The chain's value for an accumulator; `flip`: the accumulator has the opposite sign. */
double hwgq_chain_evaluate(const struct hwgq_chain *chain, int channel, bool flip, double accumulator);
/* Whether the chain's value falls where the accumulator rises. */
bool hwgq_chain_falls(const struct hwgq_chain *chain, int channel);
/* The level (0 to level_count; sign: 0 or 1) that a quantize layer gives a value. */
int hwgq_quantize_level(const struct hwgq_layer *quantize, double value);
/* Centers that are multiples of the first, each rounded to float32: they stand for the multiples. */
bool hwgq_quantize_uniform(const struct hwgq_layer *quantize);
/* Levels above 0 of a quantize layer: level_count, or 1 for sign. */
int hwgq_quantize_levels(const struct hwgq_layer *quantize);

/* For each j: level > j exactly when (accumulator >= thresholds[j * step]) != *negate. bound: largest |accumulator|; a
 * threshold that none reaches is above it. */
void hwgq_fold_i32(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, int32_t bound,
                   int32_t *thresholds, size_t step, bool *negate);
void hwgq_fold_f32(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, float *thresholds,
                   size_t step, bool *negate);
void hwgq_fold_f64(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, double bound,
                   double *thresholds, size_t step, bool *negate);

/* Steps y = a * x + b. After step s come, where its bits are set, a relu and then rounding to float32. At most HWGQ_MAX_CHAIN +
 * 1 steps; returns their number, which like relu and round depends on the chain's layers only. a and b may be NULL to count. */
int hwgq_fold_affine(const struct hwgq_chain *chain, int channel, bool flip, double *a, double *b, size_t step, uint32_t *relu,
                     uint32_t *round);

#endif
