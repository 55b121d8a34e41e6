/* Body of hwgq_exp_*: included by one file per instruction set, which defines EXP_NAME. The operations of hwgq_exp (math.c) for
 * differences that are not above 0, without branches, so that the loop vectorizes. */
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/math.h"

static inline double power_of_two(int exponent) {
  const uint64_t bits = (uint64_t)(int64_t)(exponent + 1023) << 52;
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* 0 for what e^x is not computed of: below HWGQ_EXP_LEAST, or not a number. In integers, which compilers mask without a
 * branch: magnitudes of doubles are ordered as their bits are. */
static inline double in_range(double x) {
  const double least = HWGQ_EXP_LEAST;
  uint64_t bits, limit;
  memcpy(&bits, &x, sizeof bits);
  memcpy(&limit, &least, sizeof limit);
  const uint64_t magnitude = UINT64_MAX >> 1;
  bits &= 0 - (uint64_t)((bits & magnitude) <= (limit & magnitude));
  memcpy(&x, &bits, sizeof x);
  return x;
}

void EXP_NAME(const float *input, size_t count, float highest, double *output) {
  static const double factors[] = HWGQ_EXP_FACTORS;
  _Static_assert(sizeof factors / sizeof *factors == 12, "terms of the series below");
  for (size_t i = 0; i < count; i++) {
    const double x = in_range((double)input[i] - (double)highest);
    const int k = (int)(x * HWGQ_EXP_LOG2_E - 0.5);
    const double high = x - k * HWGQ_EXP_LN2_UPPER, low = k * HWGQ_EXP_LN2_LOWER, r = high - low;
    const double p8 = ((factors[11] * r + factors[10]) * r + factors[9]) * r + factors[8];
    const double p4 = (((p8 * r + factors[7]) * r + factors[6]) * r + factors[5]) * r + factors[4];
    const double p = (((p4 * r + factors[3]) * r + factors[2]) * r + factors[1]) * r + factors[0];
    const double correction = (high - r) - low;
    const double value = 1 + (r + (r * r * p + correction));
    const int half = k / 2;
    output[i] = value * power_of_two(half) * power_of_two(k - half);
  }
  for (size_t i = 0; i < count; i++) {
    const double given = (double)input[i] - (double)highest;
    if (!(given >= HWGQ_EXP_LEAST)) output[i] = given < 0 ? 0 : given; /* what is not a number stays so */
  }
}
