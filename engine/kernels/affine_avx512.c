/* Affine steps and rounding to float32, eight doubles at a time. The multiplication and the addition round separately, as in
 * portable C. A plain sum of two floats is added in float32: rounding a sum in double once more gives the same. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum type { I32, F32, F64 };
enum residual { NONE, PLAIN, SCALED };

/* One step that only multiplies and adds, the common case, has its factors in registers. */
struct factors {
  __m512d a[4], b[4]; /* of eight lanes each */
};

INLINE __m256 round_steps(const struct hwgq_affine_job *job, __m512d x, int lane) {
  const double *factors = job->factors + lane;
  for (int s = 0; s < job->steps; s++, factors += 2 * HWGQ_LANES) {
    x = _mm512_add_pd(_mm512_mul_pd(_mm512_loadu_pd(factors), x), _mm512_loadu_pd(factors + HWGQ_LANES));
    if (job->relu >> s & 1) x = _mm512_max_pd(x, _mm512_setzero_pd());
    if (job->round >> s & 1) x = _mm512_cvtps_pd(_mm512_cvtpd_ps(x));
  }
  return _mm512_cvtpd_ps(x);
}

INLINE __m512 halves(__m256 low, __m256 high) {
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

INLINE __m256 half_of(__m512 x, const int half) {
  return half ? _mm512_extractf32x8_ps(x, 1) : _mm512_castps512_ps256(x);
}

INLINE __m512d scaled_sum(const struct hwgq_affine_job *job, __m256 y, __m256 r) {
  return _mm512_add_pd(_mm512_mul_pd(_mm512_set1_pd(job->scale), _mm512_cvtps_pd(y)),
                       _mm512_mul_pd(_mm512_set1_pd(job->residual_scale), _mm512_cvtps_pd(r)));
}

INLINE __m512 add_residual(const struct hwgq_affine_job *job, __m512 y, __m512 r, const enum residual residual) {
  if (residual == PLAIN) return _mm512_add_ps(y, r);
  return halves(_mm512_cvtpd_ps(scaled_sum(job, half_of(y, 0), half_of(r, 0))),
                _mm512_cvtpd_ps(scaled_sum(job, half_of(y, 1), half_of(r, 1))));
}

/* Sixteen lanes of one pixel, from `lane` on. */
INLINE __m512 sixteen(const struct hwgq_affine_job *job, const void *accumulators, __mmask16 mask, int lane,
                      const struct factors *f, const enum type type, const bool single) {
  __m256 y[2];
  for (int half = 0; half < 2; half++) {
    __m512d x;
    if (type == F64) {
      x = _mm512_maskz_loadu_pd((__mmask8)(mask >> 8 * half), (const double *)accumulators + lane + 8 * half);
    } else if (type == I32) {
      const __m512i all = _mm512_maskz_loadu_epi32(mask, (const int32_t *)accumulators + lane);
      x = _mm512_cvtepi32_pd(half ? _mm512_extracti32x8_epi32(all, 1) : _mm512_castsi512_si256(all));
    } else {
      x = _mm512_cvtps_pd(half_of(_mm512_maskz_loadu_ps(mask, (const float *)accumulators + lane), half));
    }
    const int eight = lane / 8 + half;
    y[half] = single ? _mm512_cvtpd_ps(_mm512_add_pd(_mm512_mul_pd(f->a[eight], x), f->b[eight]))
                     : round_steps(job, x, lane + 8 * half);
  }
  return halves(y[0], y[1]);
}

INLINE void affine(const struct hwgq_affine_job *given, const enum type type, const bool single, const enum residual residual) {
  const struct hwgq_affine_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  const uint32_t valid = job->lanes == 32 ? UINT32_MAX : (1u << job->lanes) - 1;
  const size_t element = type == F64 ? sizeof(double) : sizeof(float);
  const char *accumulators = job->accumulators;
  struct factors f;
  for (int i = 0; single && i < 4; i++) {
    f.a[i] = _mm512_loadu_pd(job->factors + 8 * i);
    f.b[i] = _mm512_loadu_pd(job->factors + HWGQ_LANES + 8 * i);
  }
  float *output = job->output;
  const float *other = job->residual;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step * element) {
    for (int lane = 0; lane < HWGQ_LANES; lane += 16) {
      const __mmask16 mask = (__mmask16)(valid >> lane);
      if (!mask) break;
      __m512 y = sixteen(job, accumulators, mask, lane, &f, type, single);
      if (residual != NONE) {
        y = add_residual(job, y, _mm512_maskz_loadu_ps(mask, other + lane), residual);
        if (job->residual_relu) y = _mm512_max_ps(y, _mm512_setzero_ps());
      }
      _mm512_mask_storeu_ps(output + lane, mask, y);
    }
    output += job->output_step;
    if (residual != NONE) other += job->residual_step;
  }
}

INLINE void choose(const struct hwgq_affine_job *job, const enum type type) {
  const bool single = job->steps == 1 && !((job->relu | job->round) & 1);
  if (!job->residual) {
    if (single) {
      affine(job, type, true, NONE);
    } else {
      affine(job, type, false, NONE);
    }
  } else if (single && job->scale == 1 && job->residual_scale == 1) {
    affine(job, type, true, PLAIN);
  } else {
    affine(job, type, false, SCALED);
  }
}

void hwgq_affine_i32_avx512(const struct hwgq_affine_job *job) {
  choose(job, I32);
}

void hwgq_affine_f32_avx512(const struct hwgq_affine_job *job) {
  choose(job, F32);
}

void hwgq_affine_f64_avx512(const struct hwgq_affine_job *job) {
  choose(job, F64);
}
#endif
