/* Affine steps and rounding to float32, four doubles at a time. The multiplication and the addition round separately, as in
 * portable C. A plain sum of two floats is added in float32: rounding a sum in double once more gives the same. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

static inline __m128 affine(const struct hwgq_affine_job *job, __m256d x, int lane) {
  const double *factors = job->factors + lane;
  for (int s = 0; s < job->steps; s++, factors += 2 * HWGQ_LANES) {
    x = _mm256_add_pd(_mm256_mul_pd(_mm256_loadu_pd(factors), x), _mm256_loadu_pd(factors + HWGQ_LANES));
    if (job->relu >> s & 1) x = _mm256_max_pd(x, _mm256_setzero_pd());
    if (job->round >> s & 1) x = _mm256_cvtps_pd(_mm256_cvtpd_ps(x));
  }
  return _mm256_cvtpd_ps(x);
}

/* Adds the residual of pixel i. */
static inline __m128 add_residual(const struct hwgq_affine_job *job, __m128 y, size_t i, int lane, __m128i mask) {
  const __m128 r = _mm_maskload_ps(job->residual + i * job->residual_step + lane, mask);
  if (job->scale == 1 && job->residual_scale == 1) {
    y = _mm_add_ps(y, r);
  } else {
    const __m256d scaled = _mm256_mul_pd(_mm256_set1_pd(job->scale), _mm256_cvtps_pd(y));
    y = _mm256_cvtpd_ps(_mm256_add_pd(scaled, _mm256_mul_pd(_mm256_set1_pd(job->residual_scale), _mm256_cvtps_pd(r))));
  }
  return job->residual_relu ? _mm_max_ps(y, _mm_setzero_ps()) : y;
}

/* All ones in lanes that are valid. */
static inline __m128i lane_mask(const struct hwgq_affine_job *job, int lane) {
  return _mm_cmpgt_epi32(_mm_set1_epi32(job->lanes - lane), _mm_setr_epi32(0, 1, 2, 3));
}

void hwgq_affine_i32_avx2(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  const int32_t *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 4) {
      const __m128i mask = lane_mask(job, lane);
      const __m256d x = _mm256_cvtepi32_pd(_mm_maskload_epi32(accumulators + lane, mask));
      __m128 y = affine(job, x, lane);
      if (job->residual) y = add_residual(job, y, i, lane, mask);
      _mm_maskstore_ps(output + lane, mask, y);
    }
  }
}

void hwgq_affine_f32_avx2(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy;
  const float *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 4) {
      const __m128i mask = lane_mask(job, lane);
      const __m256d x = _mm256_cvtps_pd(_mm_maskload_ps(accumulators + lane, mask));
      __m128 y = affine(job, x, lane);
      if (job->residual) y = add_residual(job, y, i, lane, mask);
      _mm_maskstore_ps(output + lane, mask, y);
    }
  }
}

void hwgq_affine_f64_avx2(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy;
  const double *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (int lane = 0; lane < job->lanes; lane += 4) {
      const __m128i mask = lane_mask(job, lane);
      const __m256d x = _mm256_maskload_pd(accumulators + lane, _mm256_cvtepi32_epi64(mask));
      __m128 y = affine(job, x, lane);
      if (job->residual) y = add_residual(job, y, i, lane, mask);
      _mm_maskstore_ps(output + lane, mask, y);
    }
  }
}
#endif
