/* Deterministic elementary functions. */
#include "engine/math.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* 2^exponent for -1022 <= exponent <= 1023, from its bit pattern. */
static double power_of_two(int exponent) {
  uint64_t bits = (uint64_t)(exponent + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* x = k ln 2 + r with |r| <= ln 2 / 2, so e^x = 2^k e^r. ln 2 is split in two: the upper part has 32 significant bits, so
 * k * upper is exact and r = high - low keeps the digits that the subtraction would lose. e^r = 1 + r + r^2 p(r), p by the
 * Taylor series to r^13, whose rest is below 2^-57 for such r. */
double hwgq_exp(double x) {
  static const double log2_e = HWGQ_EXP_LOG2_E, ln2_upper = HWGQ_EXP_LN2_UPPER, ln2_lower = HWGQ_EXP_LN2_LOWER;
  static const double inverse_factorial[] = HWGQ_EXP_FACTORS;
  if (x != x) return x;
  if (x > 709.79) return (double)INFINITY;
  if (x < HWGQ_EXP_LEAST) return 0;
  int k = (int)(x * log2_e + (x < 0 ? -0.5 : 0.5));
  double high = x - k * ln2_upper, low = k * ln2_lower, r = high - low;
  double p = 0;
  for (int i = (int)(sizeof inverse_factorial / sizeof inverse_factorial[0]) - 1; i >= 0; i--) p = p * r + inverse_factorial[i];
  double correction = (high - r) - low; /* what rounding r lost */
  double value = 1 + (r + (r * r * p + correction));
  /* In two steps, because 2^k alone may not be a normal number. Only the last product can round. */
  int half = k / 2;
  return value * power_of_two(half) * power_of_two(k - half);
}
