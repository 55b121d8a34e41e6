/* Thresholds and packing for AVX2: sign bits of comparisons are the masks. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/planes.h"

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

void hwgq_pack_i32_avx2(const struct hwgq_pack_job *job) {
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
#endif
