/* Thresholds and packing for AVX-512: comparisons give masks. Levels of three and four full bits are searched by halves.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/planes.h"

#define INLINE static inline __attribute__((always_inline))

static inline uint32_t join(__mmask16 low, __mmask16 high) {
  return (uint32_t)low | (uint32_t)high << 16;
}

static inline uint32_t reached_i32(__m512i low, __m512i high, const int32_t *thresholds) {
  return join(_mm512_cmpge_epi32_mask(low, _mm512_loadu_si512(thresholds)),
              _mm512_cmpge_epi32_mask(high, _mm512_loadu_si512(thresholds + 16)));
}

static inline uint32_t reached_f32(__m512 low, __m512 high, const float *thresholds) {
  return join(_mm512_cmp_ps_mask(low, _mm512_loadu_ps(thresholds), _CMP_GE_OQ),
              _mm512_cmp_ps_mask(high, _mm512_loadu_ps(thresholds + 16), _CMP_GE_OQ));
}

/* Digits of levels 0 to 3. Three masks are negated or none, so their exclusive or is, and so is the second. */
static inline void write_u2(const struct hwgq_pack_job *job, uint32_t one, uint32_t two, uint32_t three, uint32_t *output) {
  output[0] = (one ^ two ^ three ^ job->negate) & job->valid;
  output[1] = (two ^ job->negate) & job->valid;
}

static void pack_u2_i32(const struct hwgq_pack_job *job) {
  const struct hwgq_pack_job j = *job; /* stores to the output cannot change it */
  const int32_t *accumulators = j.accumulators, *thresholds = j.thresholds;
  const __mmask16 valid_low = (__mmask16)j.valid, valid_high = (__mmask16)(j.valid >> 16);
  uint32_t *output = j.output;
  for (size_t i = 0; i < j.pixels; i++, accumulators += j.accumulator_step, output += j.output_step) {
    const __m512i low = _mm512_maskz_loadu_epi32(valid_low, accumulators);
    const __m512i high = _mm512_maskz_loadu_epi32(valid_high, accumulators + 16);
    write_u2(&j, reached_i32(low, high, thresholds), reached_i32(low, high, thresholds + HWGQ_LANES),
             reached_i32(low, high, thresholds + 2 * HWGQ_LANES), output);
  }
}

static void pack_u2_f32(const struct hwgq_pack_job *job) {
  const struct hwgq_pack_job j = *job;
  const float *accumulators = j.accumulators, *thresholds = j.thresholds;
  const __mmask16 valid_low = (__mmask16)j.valid, valid_high = (__mmask16)(j.valid >> 16);
  uint32_t *output = j.output;
  for (size_t i = 0; i < j.pixels; i++, accumulators += j.accumulator_step, output += j.output_step) {
    const __m512 low = _mm512_maskz_loadu_ps(valid_low, accumulators);
    const __m512 high = _mm512_maskz_loadu_ps(valid_high, accumulators + 16);
    write_u2(&j, reached_f32(low, high, thresholds), reached_f32(low, high, thresholds + HWGQ_LANES),
             reached_f32(low, high, thresholds + 2 * HWGQ_LANES), output);
  }
}

/* Digits of sixteen lanes whose levels go up to 2^planes - 1, from the highest down: a digit tells in which half of the
 * thresholds the level lies. Half 0 or 1 of a pixel. */
INLINE void find_digits(const struct hwgq_pack_job *job, __m512i x, const int half, const bool integers, const int planes,
                        uint32_t *digits) {
  const int32_t *thresholds = (const int32_t *)job->thresholds + 16 * half;
  const __mmask16 negate = (__mmask16)(job->negate >> 16 * half), valid = (__mmask16)(job->valid >> 16 * half);
  __m512i left[HWGQ_PACK_MAX_LEVELS];
  for (int i = 0; i < (1 << planes) - 1; i++) left[i] = _mm512_loadu_si512(thresholds + i * HWGQ_LANES);
  for (int p = planes - 1; p >= 0; p--) {
    const int middle = (1 << p) - 1;
    const __mmask16 above = integers
                                ? _mm512_cmpge_epi32_mask(x, left[middle])
                                : _mm512_cmp_ps_mask(_mm512_castsi512_ps(x), _mm512_castsi512_ps(left[middle]), _CMP_GE_OQ);
    const __mmask16 reached = above ^ negate;
    for (int i = 0; i < middle; i++) left[i] = _mm512_mask_mov_epi32(left[i], reached, left[middle + 1 + i]);
    digits[p] |= (uint32_t)(reached & valid) << 16 * half;
  }
}

INLINE void pack_digits(const struct hwgq_pack_job *given, const bool integers, const int planes) {
  const struct hwgq_pack_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  const int32_t *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t digits[HWGQ_MAX_PLANES] = {0};
    find_digits(job, _mm512_maskz_loadu_epi32((__mmask16)job->valid, accumulators), 0, integers, planes, digits);
    find_digits(job, _mm512_maskz_loadu_epi32((__mmask16)(job->valid >> 16), accumulators + 16), 1, integers, planes, digits);
    for (int p = 0; p < planes; p++) output[p] = digits[p];
  }
}

/* Levels of all values that their digits have. Returns whether it was one of them. */
INLINE bool pack_full(const struct hwgq_pack_job *job, const bool integers) {
  if (job->thermometer) return false;
  switch (job->levels) {
  case 3: /* three comparisons are faster than two and a choice */
    if (integers) {
      pack_u2_i32(job);
    } else {
      pack_u2_f32(job);
    }
    return true;
  case 7:
    pack_digits(job, integers, 3);
    return true;
  case 15:
    pack_digits(job, integers, 4);
    return true;
  default:
    return false;
  }
}

INLINE uint32_t reach(const struct hwgq_pack_job *job, __m512i low, __m512i high, int level, const bool integers) {
  const int32_t *thresholds = (const int32_t *)job->thresholds + level * HWGQ_LANES;
  return integers ? reached_i32(low, high, thresholds)
                  : reached_f32(_mm512_castsi512_ps(low), _mm512_castsi512_ps(high), (const float *)thresholds);
}

/* Any levels. Planes of a thermometer are the masks themselves. */
INLINE void pack_any(const struct hwgq_pack_job *job, const bool integers) {
  const __mmask16 valid_low = (__mmask16)job->valid, valid_high = (__mmask16)(job->valid >> 16);
  const uint32_t negate = job->negate, valid = job->valid;
  const size_t step = job->accumulator_step, output_step = job->output_step, pixels = job->pixels;
  const int levels = job->levels;
  const bool direct = job->thermometer || levels == 1;
  const int32_t *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < pixels; i++, accumulators += step, output += output_step) {
    const __m512i low = _mm512_maskz_loadu_epi32(valid_low, accumulators);
    const __m512i high = _mm512_maskz_loadu_epi32(valid_high, accumulators + 16);
    uint32_t masks[HWGQ_PACK_MAX_LEVELS], *to = direct ? output : masks;
    for (int j = 0; j < levels; j++) to[j] = (reach(job, low, high, j, integers) ^ negate) & valid;
    if (!direct) hwgq_write_planes(job, masks, output);
  }
}

void hwgq_pack_i32_avx512(const struct hwgq_pack_job *job) {
  if (!pack_full(job, true)) pack_any(job, true);
}

void hwgq_pack_f32_avx512(const struct hwgq_pack_job *job) {
  if (!pack_full(job, false)) pack_any(job, false);
}

void hwgq_pack_f64_avx512(const struct hwgq_pack_job *job) {
  const uint32_t negate = job->negate, valid = job->valid;
  const int levels = job->levels;
  const bool direct = job->thermometer || levels == 1;
  const double *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS], *to = direct ? output : masks;
    __m512d x[4];
    for (int v = 0; v < 4; v++) x[v] = _mm512_maskz_loadu_pd((__mmask8)(valid >> 8 * v), accumulators + 8 * v);
    for (int j = 0; j < levels; j++) {
      const double *thresholds = (const double *)job->thresholds + j * HWGQ_LANES;
      uint32_t reached = 0;
      for (int v = 0; v < 4; v++) {
        reached |= (uint32_t)_mm512_cmp_pd_mask(x[v], _mm512_loadu_pd(thresholds + 8 * v), _CMP_GE_OQ) << 8 * v;
      }
      to[j] = (reached ^ negate) & valid;
    }
    if (!direct) hwgq_write_planes(job, masks, output);
  }
}
#endif
