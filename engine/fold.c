#include "engine/fold.h"

#include <float.h>
#include <math.h>
#include <string.h>

static double deviation(const struct hwgq_layer *layer, int channel) {
  return sqrt((double)layer->variance[channel] + (double)layer->eps);
}

static double evaluate_layer(const struct hwgq_layer *layer, int channel, double x) {
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return (layer->has_alpha ? (double)layer->alpha[channel] : 1) * x + (layer->has_bias ? (double)layer->bias[channel] : 0);
  case HWGQ_BATCH_NORM:
    return (x - (double)layer->mean[channel]) / deviation(layer, channel);
  case HWGQ_SCALE:
    return (double)layer->gamma[channel] * x + (layer->has_bias ? (double)layer->beta[channel] : 0);
  case HWGQ_RELU:
    return x > 0 ? x : 0;
  default:
    return x;
  }
}

static double unit_of(const struct hwgq_chain *chain, int channel) {
  return chain->units ? chain->units[channel] : chain->unit;
}

static double offset_of(const struct hwgq_chain *chain, int channel) {
  return chain->offsets ? chain->offsets[channel] : 0;
}

/* To a finite float32, so that what follows stays monotone. */
static double rounded(double x) {
  if (x > (double)FLT_MAX) return (double)FLT_MAX;
  if (x < -(double)FLT_MAX) return -(double)FLT_MAX;
  return (double)(float)x;
}

double hwgq_chain_evaluate(const struct hwgq_chain *chain, int channel, bool flip, double accumulator) {
  double x = unit_of(chain, channel) * (flip ? -accumulator : accumulator) + offset_of(chain, channel);
  for (int i = 0; i < chain->count; i++) {
    if (chain->rounded >> i & 1) x = rounded(x);
    x = evaluate_layer(chain->layers[i], channel + chain->first[i], x);
  }
  return chain->rounded >> chain->count & 1 ? rounded(x) : x;
}

bool hwgq_chain_falls(const struct hwgq_chain *chain, int channel) {
  return hwgq_chain_evaluate(chain, channel, false, (double)FLT_MAX) <
         hwgq_chain_evaluate(chain, channel, false, -(double)FLT_MAX);
}

int hwgq_quantize_levels(const struct hwgq_layer *quantize) {
  return quantize->sign ? 1 : quantize->level_count;
}

bool hwgq_quantize_uniform(const struct hwgq_layer *quantize) {
  for (int k = 1; k < quantize->level_count; k++) {
    if (quantize->centers[k] != (float)((k + 1) * (double)quantize->centers[0])) return false;
  }
  return true;
}

static bool above(const struct hwgq_layer *quantize, int level, double value) {
  return quantize->sign ? value >= 0 : value > (double)quantize->thresholds[level];
}

int hwgq_quantize_level(const struct hwgq_layer *quantize, double value) {
  int level = 0;
  while (level < hwgq_quantize_levels(quantize) && above(quantize, level, value)) level++;
  return level;
}

/* ---- bisection -------------------------------------------------------------------------------------------------------------
 * All accumulator types are searched as 64-bit integers: floats and doubles are mapped to integers of the same order. */

static int64_t order_f64(double x) {
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits < 0 ? INT64_MIN - bits : bits;
}

static double value_f64(int64_t order) {
  const int64_t bits = order < 0 ? INT64_MIN - order : order;
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static int64_t order_f32(float x) {
  int32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits < 0 ? (int64_t)INT32_MIN - bits : bits;
}

static float value_f32(int64_t order) {
  const int32_t bits = (int32_t)(order < 0 ? INT32_MIN - order : order);
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static double value_i32(int64_t order) {
  return (double)order;
}

static double value_f32_as_double(int64_t order) {
  return (double)value_f32(order);
}

struct search {
  const struct hwgq_chain *chain;
  const struct hwgq_layer *quantize;
  int channel;
  bool flip;
  double (*value)(int64_t order);
  int64_t low, high; /* the accumulator's range, both ends included */
};

static bool reaches(const struct search *search, int level, int64_t order) {
  const double accumulator = search->value(order);
  return above(search->quantize, level, hwgq_chain_evaluate(search->chain, search->channel, search->flip, accumulator));
}

/* Falling chains have reversed thresholds. */
static bool falls(const struct search *search) {
  return hwgq_chain_evaluate(search->chain, search->channel, search->flip, search->value(search->high)) <
         hwgq_chain_evaluate(search->chain, search->channel, search->flip, search->value(search->low));
}

/* The least order in [low, high + 1] from which on "level is reached" differs from `negate`'s value below it: high + 1 when it
 * never does. */
static int64_t bisect(const struct search *search, int level, bool negate) {
  if (reaches(search, level, search->high) == negate) return search->high + 1;
  int64_t first = search->low, last = search->high; /* reaches(last) != negate */
  while (first < last) {
    const int64_t middle = first + (int64_t)(((uint64_t)last - (uint64_t)first) / 2);
    if (reaches(search, level, middle) != negate) {
      last = middle;
    } else {
      first = middle + 1;
    }
  }
  return last;
}

void hwgq_fold_i32(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, int32_t bound,
                   int32_t *thresholds, size_t step, bool *negate) {
  const struct search search = {chain, quantize, channel, flip, value_i32, -(int64_t)bound, bound};
  *negate = falls(&search);
  for (int j = 0; j < hwgq_quantize_levels(quantize); j++) {
    thresholds[(size_t)j * step] = (int32_t)bisect(&search, j, *negate); /* bound + 1 fits: bound < 2^31 - 1 */
  }
}

void hwgq_fold_f32(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, float *thresholds,
                   size_t step, bool *negate) {
  const struct search search = {chain, quantize, channel, flip, value_f32_as_double, order_f32(-FLT_MAX), order_f32(FLT_MAX)};
  *negate = falls(&search);
  for (int j = 0; j < hwgq_quantize_levels(quantize); j++) {
    thresholds[(size_t)j * step] = value_f32(bisect(&search, j, *negate)); /* above FLT_MAX comes infinity */
  }
}

void hwgq_fold_f64(const struct hwgq_chain *chain, int channel, bool flip, const struct hwgq_layer *quantize, double bound,
                   double *thresholds, size_t step, bool *negate) {
  const struct search search = {chain, quantize, channel, flip, value_f64, order_f64(-bound), order_f64(bound)};
  *negate = falls(&search);
  for (int j = 0; j < hwgq_quantize_levels(quantize); j++) {
    const int64_t order = bisect(&search, j, *negate);
    thresholds[(size_t)j * step] = order > search.high ? (double)INFINITY : value_f64(order);
  }
}

/* ---- affine ----------------------------------------------------------------------------------------------------------------
 */

static double slope(const struct hwgq_layer *layer, int channel) {
  if (layer->op == HWGQ_SCALE) return (double)layer->gamma[channel];
  return layer->has_alpha ? (double)layer->alpha[channel] : 1;
}

static void store(double *a, double *b, size_t index, double factor, double offset) {
  if (!a) return;
  a[index] = factor;
  b[index] = offset;
}

int hwgq_fold_affine(const struct hwgq_chain *chain, int channel, bool flip, double *a, double *b, size_t step, uint32_t *relu,
                     uint32_t *round) {
  double factor = flip ? -unit_of(chain, channel) : unit_of(chain, channel);
  double offset = offset_of(chain, channel);
  int steps = 0;
  bool pending = true; /* the step being composed is needed */
  *relu = *round = 0;
  for (int i = 0; i < chain->count; i++) {
    const struct hwgq_layer *layer = chain->layers[i];
    const int c = channel + chain->first[i];
    if (chain->rounded >> i & 1) {
      if (pending) store(a, b, (size_t)steps++ * step, factor, offset);
      *round |= 1u << (steps - 1);
      factor = 1;
      offset = 0;
    }
    switch (layer->op) {
    case HWGQ_BATCH_NORM:
      factor /= deviation(layer, c);
      offset = (offset - (double)layer->mean[c]) / deviation(layer, c);
      break;
    case HWGQ_RELU:
      store(a, b, (size_t)steps * step, factor, offset);
      *relu |= 1u << steps++;
      factor = 1;
      offset = 0;
      break;
    default: /* conv2d, linear, scale */
      offset = evaluate_layer(layer, c, offset);
      factor *= slope(layer, c);
      break;
    }
    pending = layer->op != HWGQ_RELU;
  }
  if (!pending) return steps;
  store(a, b, (size_t)steps * step, factor, offset);
  return steps + 1;
}
