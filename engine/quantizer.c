/* Lloyd's algorithm for the activation quantizer.
 *
 * Batch normalization makes a quantizer's inputs close to N(0,1), and everything below 0 becomes 0, so the quantizer is
 * designed for the half-normal distribution: density 2 phi(x) on x > 0, which integrates to 1. The squared error is the mean
 * over that distribution, i.e. over positive inputs only; it is also the error of the sign-symmetric quantizer over all of
 * N(0,1). One level at E[x] = sqrt(2/pi) = 0.7979 leaves 1 - 2/pi = 0.3634. (Over all of N(0,1) with negative inputs counted as
 * exactly represented, it would be half of that.)
 *
 * With the zero threshold at 0, level 0 gets no probability and n levels share the positive half: two levels, free, are 0.4528
 * and 1.5104 (the positive half of Max's 4-level quantizer), one to three bits uniform are steps 0.7979, 0.5388, 0.3217. With
 * the half-step zero threshold, 0 is one more level that takes every x up to half the first center. */
#include "engine/hwgq.h"

#include <math.h>

/* Integrals of the half-normal density over begin < x <= end. */
struct moments {
  double mass, first, second; /* of 1, x, x^2 */
};

static double density(double x) {
  return isinf(x) ? 0 : 0.79788456080286535588 * exp(-x * x / 2); /* sqrt(2/pi) */
}

static struct moments moments(double begin, double end) {
  double mass = erfc(begin * M_SQRT1_2) - erfc(end * M_SQRT1_2);
  double at_begin = density(begin), at_end = density(end);
  return (struct moments){
      .mass = mass, .first = at_begin - at_end, .second = mass + begin * at_begin - (isinf(end) ? 0 : end * at_end)};
}

/* Cell k (1 .. count) takes thresholds[k - 1] < x <= thresholds[k]; the last one is open. */
static struct moments cell(const double *thresholds, int count, int k) {
  return moments(thresholds[k - 1], k < count ? thresholds[k] : (double)INFINITY);
}

static void set_thresholds(const double *centers, int count, bool half_step_zero, double *thresholds) {
  thresholds[0] = half_step_zero ? centers[0] / 2 : 0;
  for (int j = 1; j < count; j++) thresholds[j] = (centers[j - 1] + centers[j]) / 2;
}

/* The best centers for given cells: each cell's mean; or, uniform, the step s that minimizes sum over k of E[(k s - x)^2 in
 * cell k]. */
static void set_centers(const double *thresholds, int count, bool uniform, double *centers) {
  double numerator = 0, denominator = 0;
  for (int k = 1; k <= count; k++) {
    struct moments m = cell(thresholds, count, k);
    numerator += k * m.first;
    denominator += (double)k * k * m.mass;
    centers[k - 1] = m.first / m.mass;
  }
  for (int k = 1; uniform && k <= count; k++) centers[k - 1] = k * (numerator / denominator);
}

static double squared_error(const struct hwgq_quantizer *quantizer) {
  double thresholds[HWGQ_MAX_LEVELS], error = 0;
  for (int k = 0; k < quantizer->level_count; k++) thresholds[k] = (double)quantizer->thresholds[k];
  for (int k = 1; k <= quantizer->level_count; k++) {
    struct moments m = cell(thresholds, quantizer->level_count, k);
    double center = (double)quantizer->centers[k - 1];
    error += m.second - 2 * center * m.first + center * center * m.mass;
  }
  return error + moments(0, thresholds[0]).second;
}

/* A uniform step of 20 significant bits: its multiples up to 15 are exact in float32, so levels are exact multiples of it. */
static float exact_step(double step) {
  int exponent;
  const double fraction = frexp(step, &exponent);
  return (float)ldexp(nearbyint(ldexp(fraction, 20)), exponent - 20);
}

enum hwgq_status hwgq_quantizer_design(int level_count, bool uniform, bool half_step_zero, struct hwgq_quantizer *quantizer,
                                       struct hwgq_error *error) {
  enum { MOST_ROUNDS = 100000 }; /* 15 free levels need the most: a few thousand */
  if (level_count < 1 || level_count > HWGQ_MAX_LEVELS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "quantizer: %d levels, must be 1 to %d (2^bits - 1)", level_count,
                     HWGQ_MAX_LEVELS);
  double centers[HWGQ_MAX_LEVELS], thresholds[HWGQ_MAX_LEVELS], change = 1;
  for (int k = 0; k < level_count; k++) centers[k] = 3.0 * (k + 1) / (level_count + 1);
  for (int round = 0; change > 1e-14 && round < MOST_ROUNDS; round++) {
    double before[HWGQ_MAX_LEVELS];
    for (int k = 0; k < level_count; k++) before[k] = centers[k];
    set_thresholds(centers, level_count, half_step_zero, thresholds);
    set_centers(thresholds, level_count, uniform, centers);
    change = 0;
    for (int k = 0; k < level_count; k++) change = fmax(change, fabs(centers[k] - before[k]));
  }

  /* Rounded first, thresholds from the rounded centers: the network holds exactly these. */
  struct hwgq_quantizer result = {.level_count = level_count};
  const float step = exact_step(centers[0]);
  for (int k = 0; k < level_count; k++) result.centers[k] = uniform ? (float)(k + 1) * step : (float)centers[k];
  result.thresholds[0] = half_step_zero ? result.centers[0] / 2 : 0;
  for (int k = 1; k < level_count; k++) result.thresholds[k] = (result.centers[k - 1] + result.centers[k]) / 2;
  result.mean_squared_error = squared_error(&result);
  *quantizer = result;
  return HWGQ_OK;
}
