/* Affine steps and rounding to float32, eight doubles at a time. The multiplication and the addition round separately, as in
 * portable C. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

static inline __m256 affine(const struct hwgq_affine_job *job, __m512d x, int lane) {
  const double *factors = job->factors + lane;
  for (int s = 0; s < job->steps; s++, factors += 2 * HWGQ_LANES) {
    x = _mm512_add_pd(_mm512_mul_pd(_mm512_loadu_pd(factors), x), _mm512_loadu_pd(factors + HWGQ_LANES));
    if (job->relu >> s & 1) x = _mm512_max_pd(x, _mm512_setzero_pd());
  }
  return _mm512_cvtpd_ps(x);
}

static inline __mmask8 lane_mask(const struct hwgq_affine_job *job, int lane) {
  return job->lanes - lane >= 8 ? 0xff : (__mmask8)((1u << (job->lanes - lane)) - 1);
}

void hwgq_affine_i32_avx512(const struct hwgq_affine_job *job) {
  const int32_t *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 8) {
      const __mmask8 mask = lane_mask(job, lane);
      const __m512d x = _mm512_cvtepi32_pd(_mm256_maskz_loadu_epi32(mask, accumulators + lane));
      _mm256_mask_storeu_ps(output + lane, mask, affine(job, x, lane));
    }
  }
}

void hwgq_affine_f32_avx512(const struct hwgq_affine_job *job) {
  const float *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 8) {
      const __mmask8 mask = lane_mask(job, lane);
      const __m512d x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, accumulators + lane));
      _mm256_mask_storeu_ps(output + lane, mask, affine(job, x, lane));
    }
  }
}
#endif
