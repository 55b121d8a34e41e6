/* Binary convolution, AND + VPOPCNTD, 16 out channels per register.
 *
 * A tile is T output pixels x V registers of out channels x P planes of accumulators, all in registers; one weight word serves
 * T * P products, one activation word (broadcast from memory) serves V. T is chosen so that accumulators, weights and a
 * temporary fit the 32 registers. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/conv_tile.h"

/* gcc 12's partial redundancy elimination splits the accumulators' live ranges and spills them: 290 instead of 330
 * multiply-accumulates per cycle on Zen 5. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre")
#endif

enum { MAX_TILE = 6 };

#define INLINE static inline __attribute__((always_inline))

/* T, V and P are constants in every call: the loops over them unroll and acc lives in registers. */
INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T, const int V, const int P) {
  __m512i acc[MAX_TILE][2][HWGQ_MAX_PLANES];
  const uint32_t *input[MAX_TILE];
  for (int t = 0; t < T; t++) {
    input[t] = tile->input[t];
    for (int v = 0; v < V; v++) {
      for (int p = 0; p < P; p++) acc[t][v][p] = _mm512_setzero_si512();
    }
  }
  const size_t step = (size_t)job->plane_step;
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint32_t *weights =
          (const uint32_t *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const uint32_t *const end = weights + (size_t)job->length * 16 * (size_t)V;
      size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (; weights != end; weights += 16 * V, at += step) {
        __m512i w[2];
        for (int v = 0; v < V; v++) w[v] = _mm512_loadu_si512(weights + 16 * v);
        for (int t = 0; t < T; t++) {
          for (int p = 0; p < P; p++) {
            const __m512i a = _mm512_set1_epi32((int)input[t][at + (size_t)p]);
            for (int v = 0; v < V; v++) {
              acc[t][v][p] = _mm512_add_epi32(acc[t][v][p], _mm512_popcnt_epi32(_mm512_and_si512(w[v], a)));
            }
          }
        }
      }
    }
  }
  for (int v = 0; v < V; v++) {
    const __m512i base = _mm512_loadu_si512(job->base + 16 * v);
    for (int t = 0; t < T; t++) {
      __m512i sum = acc[t][v][P - 1];
      for (int p = P - 2; p >= 0; p--) sum = _mm512_add_epi32(_mm512_slli_epi32(sum, 1), acc[t][v][p]);
      sum = _mm512_sll_epi32(sum, _mm_cvtsi32_si128(job->shift));
      sum = _mm512_add_epi32(sum, _mm512_add_epi32(base, _mm512_set1_epi32(tile->correction[t])));
      _mm512_storeu_si512(tile->accumulators[t] + 16 * v, sum);
    }
  }
}

/* Pixels of the rectangle in row order, T at a time, the rest in one smaller tile. */
INLINE void rectangle(const struct hwgq_conv_job *job, const int T, const int V, const int P) {
  struct conv_walk walk = conv_walk_of(job);
  struct conv_tile tile;
  for (size_t count; (count = conv_next_tile(job, &walk, (size_t)T, true, &tile)) > 0;) {
    switch (count) {
    case 1:
      accumulate(job, &tile, 1, V, P);
      break;
    case 2:
      accumulate(job, &tile, 2, V, P);
      break;
    case 3:
      accumulate(job, &tile, 3, V, P);
      break;
    case 4:
      if (T >= 4) accumulate(job, &tile, 4, V, P);
      break;
    case 5:
      if (T >= 5) accumulate(job, &tile, 5, V, P);
      break;
    default:
      if (T >= 6) accumulate(job, &tile, 6, V, P);
      break;
    }
  }
}

/* 16 lanes leave twice the registers for pixels, but six pixels are enough to hide the weight loads. */
void hwgq_bconv_popcount_avx512(const struct hwgq_conv_job *job) {
  switch (job->planes * 2 + (job->lanes == 16 ? 0 : 1)) {
  case 2:
    rectangle(job, 6, 1, 1);
    break;
  case 3:
    rectangle(job, 6, 2, 1);
    break;
  case 4:
    rectangle(job, 6, 1, 2);
    break;
  case 5:
    rectangle(job, 6, 2, 2);
    break;
  case 6:
    rectangle(job, 6, 1, 3);
    break;
  case 7:
    rectangle(job, 4, 2, 3);
    break;
  case 8:
    rectangle(job, 6, 1, 4);
    break;
  default:
    rectangle(job, 3, 2, 4);
    break;
  }
}
#endif
