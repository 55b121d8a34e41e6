/* Float matrix times vector: the 16 partial sums of a row are one register. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_ROWS = 8 };

static float tree(__m512 sixteen) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps(sixteen, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE void rows(const struct hwgq_linear_job *job, size_t first, const int R) {
  const float *weights = job->weights + first * job->weight_step;
  const size_t whole = job->inputs / 16 * 16;
  __m512 sums[MAX_ROWS];
  for (int r = 0; r < R; r++) sums[r] = _mm512_setzero_ps();
  for (size_t i = 0; i < job->inputs; i += 16) {
    const __mmask16 mask = i < whole ? 0xffff : (__mmask16)((1u << (job->inputs - whole)) - 1);
    const __m512 a = _mm512_maskz_loadu_ps(mask, job->input + i);
    for (int r = 0; r < R; r++) {
      sums[r] = _mm512_fmadd_ps(_mm512_loadu_ps(weights + (size_t)r * job->weight_step + i), a, sums[r]);
    }
  }
  for (int r = 0; r < R; r++) job->output[first + (size_t)r] = tree(sums[r]);
}

void hwgq_linear_avx512(const struct hwgq_linear_job *job) {
  size_t o = 0;
  for (; o + MAX_ROWS <= job->outputs; o += MAX_ROWS) rows(job, o, MAX_ROWS);
  for (; o < job->outputs; o++) rows(job, o, 1);
}
#endif
