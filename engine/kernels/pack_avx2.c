/* Thresholds and packing for AVX2: sign bits of comparisons are the masks. Levels of two, three and four full bits are searched
 * by halves. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/planes.h"

#define INLINE static inline __attribute__((always_inline))

/* The four registers of a pixel's lanes; lanes that are not valid may not be readable. */
static inline void load_lanes(const void *accumulators, uint32_t valid, __m256i lanes[4]) {
  uint32_t copy[HWGQ_LANES];
  if (valid != UINT32_MAX) {
    for (uint32_t i = 0; i < HWGQ_LANES; i++) {
      copy[i] = 0;
      if (valid >> i & 1) memcpy(&copy[i], (const char *)accumulators + 4 * i, sizeof copy[i]);
    }
    accumulators = copy;
  }
  for (int v = 0; v < 4; v++) lanes[v] = _mm256_loadu_si256((const __m256i *)accumulators + v);
}

/* Digits of eight lanes whose levels go up to 2^planes - 1, from the highest down: a digit tells in which half of the
 * thresholds the level lies. Eighth v of a pixel; negate: all ones where it is. */
INLINE void find_digits(const struct hwgq_pack_job *job, __m256i x, __m256i negate, const int v, const bool integers,
                        const int planes, uint32_t *digits) {
  const int32_t *thresholds = (const int32_t *)job->thresholds + 8 * v;
  __m256i left[HWGQ_PACK_MAX_LEVELS];
  for (int i = 0; i < (1 << planes) - 1; i++) {
    left[i] = _mm256_loadu_si256((const __m256i *)(thresholds + i * HWGQ_LANES));
  }
  for (int p = planes - 1; p >= 0; p--) {
    const int middle = (1 << p) - 1;
    const __m256i below =
        integers ? _mm256_cmpgt_epi32(left[middle], x)
                 : _mm256_castps_si256(_mm256_cmp_ps(_mm256_castsi256_ps(x), _mm256_castsi256_ps(left[middle]), _CMP_NGE_UQ));
    const __m256i missed = _mm256_xor_si256(below, negate);
    for (int i = 0; i < middle; i++) left[i] = _mm256_blendv_epi8(left[middle + 1 + i], left[i], missed);
    digits[p] |= (uint32_t)(_mm256_movemask_ps(_mm256_castsi256_ps(missed)) ^ 0xff) << (8 * v);
  }
}

INLINE void pack_digits(const struct hwgq_pack_job *given, const bool integers, const int planes) {
  const struct hwgq_pack_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  const int32_t *accumulators = job->accumulators;
  uint32_t *output = job->output;
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i negate[4];
  for (int v = 0; v < 4; v++) {
    negate[v] = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)(job->negate >> 8 * v)), bit), bit);
  }
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t digits[HWGQ_MAX_PLANES] = {0};
    __m256i lanes[4];
    load_lanes(accumulators, job->valid, lanes);
    for (int v = 0; v < 4; v++) find_digits(job, lanes[v], negate[v], v, integers, planes, digits);
    for (int p = 0; p < planes; p++) output[p] = digits[p] & job->valid;
  }
}

/* Levels of all values that their digits have. Returns whether it was one of them. */
INLINE bool pack_full(const struct hwgq_pack_job *job, const bool integers) {
  if (job->thermometer) return false;
  switch (job->levels) {
  case 3:
    pack_digits(job, integers, 2);
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

void hwgq_pack_i32_avx2(const struct hwgq_pack_job *job) {
  if (pack_full(job, true)) return;
  const int32_t *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS];
    __m256i lanes[4];
    load_lanes(accumulators, job->valid, lanes);
    for (int j = 0; j < job->levels; j++) {
      const int32_t *thresholds = (const int32_t *)job->thresholds + (size_t)j * HWGQ_LANES;
      uint32_t below = 0;
      for (int v = 0; v < 4; v++) {
        const __m256i compared = _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)thresholds + v), lanes[v]);
        below |= (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(compared)) << (8 * v);
      }
      masks[j] = (~below ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}

void hwgq_pack_f32_avx2(const struct hwgq_pack_job *job) {
  if (pack_full(job, false)) return;
  const float *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS];
    __m256i lanes[4];
    load_lanes(accumulators, job->valid, lanes);
    for (int j = 0; j < job->levels; j++) {
      const float *thresholds = (const float *)job->thresholds + (size_t)j * HWGQ_LANES;
      uint32_t reached = 0;
      for (int v = 0; v < 4; v++) {
        const __m256 compared = _mm256_cmp_ps(_mm256_castsi256_ps(lanes[v]), _mm256_loadu_ps(thresholds + 8 * v), _CMP_GE_OQ);
        reached |= (uint32_t)_mm256_movemask_ps(compared) << (8 * v);
      }
      masks[j] = (reached ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}

void hwgq_pack_f64_avx2(const struct hwgq_pack_job *given) {
  const struct hwgq_pack_job copy = *given, *job = &copy;
  const double *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS] = {0};
    double lanes[HWGQ_LANES] = {0};
    if (job->valid != UINT32_MAX) memcpy(lanes, accumulators, (size_t)__builtin_popcount(job->valid) * sizeof *lanes);
    for (int v = 0; v < 8; v++) {
      const __m256d x = _mm256_loadu_pd((job->valid == UINT32_MAX ? accumulators : lanes) + 4 * v);
      const double *thresholds = (const double *)job->thresholds + 4 * v;
      for (int j = 0; j < job->levels; j++) {
        const __m256d reached = _mm256_cmp_pd(x, _mm256_loadu_pd(thresholds + j * HWGQ_LANES), _CMP_GE_OQ);
        masks[j] |= (uint32_t)_mm256_movemask_pd(reached) << (4 * v);
      }
    }
    for (int j = 0; j < job->levels; j++) masks[j] = (masks[j] ^ job->negate) & job->valid;
    hwgq_write_planes(job, masks, output);
  }
}
#endif
