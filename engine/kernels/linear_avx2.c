/* Float matrix times vector: the 16 partial sums of a row are two registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_ROWS = 4 };

static float tree(__m256 low, __m256 high) {
  const __m256 eight = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE void rows(const struct hwgq_linear_job *job, size_t first, const int R) {
  const float *weights = job->weights + first * job->weight_step;
  const size_t whole = job->inputs / 16 * 16;
  float tail[16] = {0};
  for (size_t i = whole; i < job->inputs; i++) tail[i - whole] = job->input[i];
  __m256 sums[MAX_ROWS][2];
  for (int r = 0; r < R; r++) sums[r][0] = sums[r][1] = _mm256_setzero_ps();
  for (size_t i = 0; i < job->inputs; i += 16) {
    const float *input = i < whole ? job->input + i : tail;
    for (int half = 0; half < 2; half++) {
      const __m256 a = _mm256_loadu_ps(input + 8 * half);
      for (int r = 0; r < R; r++) {
        const float *w = weights + (size_t)r * job->weight_step + i + 8 * (size_t)half;
        sums[r][half] = _mm256_fmadd_ps(_mm256_loadu_ps(w), a, sums[r][half]);
      }
    }
  }
  for (int r = 0; r < R; r++) job->output[first + (size_t)r] = tree(sums[r][0], sums[r][1]);
}

void hwgq_linear_avx2(const struct hwgq_linear_job *job) {
  size_t o = 0;
  for (; o + MAX_ROWS <= job->outputs; o += MAX_ROWS) rows(job, o, MAX_ROWS);
  for (; o < job->outputs; o++) rows(job, o, 1);
}
#endif
