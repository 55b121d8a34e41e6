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

/* Adds the residual of pixel i. */
static inline __m256 add_residual(const struct hwgq_affine_job *job, __m256 y, size_t i, int lane, __mmask8 mask) {
  const __m256 r = _mm256_maskz_loadu_ps(mask, job->residual + i * job->residual_step + lane);
  const __m512d scaled = _mm512_mul_pd(_mm512_set1_pd(job->scale), _mm512_cvtps_pd(y));
  return _mm512_cvtpd_ps(_mm512_add_pd(scaled, _mm512_mul_pd(_mm512_set1_pd(job->residual_scale), _mm512_cvtps_pd(r))));
}

static inline __mmask8 lane_mask(const struct hwgq_affine_job *job, int lane) {
  return job->lanes - lane >= 8 ? 0xff : (__mmask8)((1u << (job->lanes - lane)) - 1);
}

void hwgq_affine_i32_avx512(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  const int32_t *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 8) {
      const __mmask8 mask = lane_mask(job, lane);
      const __m512d x = _mm512_cvtepi32_pd(_mm256_maskz_loadu_epi32(mask, accumulators + lane));
      __m256 y = affine(job, x, lane);
      if (job->residual) y = add_residual(job, y, i, lane, mask);
      _mm256_mask_storeu_ps(output + lane, mask, y);
    }
  }
}

void hwgq_affine_f32_avx512(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy;
  const float *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 8) {
      const __mmask8 mask = lane_mask(job, lane);
      const __m512d x = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(mask, accumulators + lane));
      __m256 y = affine(job, x, lane);
      if (job->residual) y = add_residual(job, y, i, lane, mask);
      _mm256_mask_storeu_ps(output + lane, mask, y);
    }
  }
}
#endif
