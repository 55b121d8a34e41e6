/* Float convolution: out channels in lanes, one broadcast input value per pixel and tap. A tile of T pixels by V registers
 * stays in registers; every accumulator sees the taps in the same order as in the scalar kernel. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre") /* see bconv_popcount_avx512.c */
#endif

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TILE = 6, MAX_REGISTERS = 2, WIDTH = 16 };

struct tile {
  const float *input[MAX_TILE];
  float *accumulators[MAX_TILE];
};

INLINE void accumulate(const struct hwgq_conv_job *job, const struct tile *tile, const int T, const int V) {
  __m512 acc[MAX_TILE][MAX_REGISTERS];
  const float *input[MAX_TILE];
  for (int t = 0; t < T; t++) {
    input[t] = tile->input[t];
    for (int v = 0; v < V; v++) acc[t][v] = _mm512_setzero_ps();
  }
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const float *weights =
          (const float *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const float *const end = weights + (size_t)job->length * WIDTH * (size_t)V;
      size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (; weights != end; weights += WIDTH * V, at++) {
        __m512 w[MAX_REGISTERS];
        for (int v = 0; v < V; v++) w[v] = _mm512_loadu_ps(weights + WIDTH * v);
        for (int t = 0; t < T; t++) {
          const __m512 a = _mm512_set1_ps(input[t][at]);
          for (int v = 0; v < V; v++) acc[t][v] = _mm512_fmadd_ps(w[v], a, acc[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < V; v++) _mm512_storeu_ps(tile->accumulators[t] + WIDTH * v, acc[t][v]);
  }
}

INLINE void rectangle(const struct hwgq_conv_job *job, const int V) {
  const size_t pixels = (size_t)job->lines * (size_t)job->columns;
  const float *input_line = job->input;
  float *accumulator_line = job->accumulators;
  size_t x = 0;
  struct tile tile;
  for (size_t done = 0; done < pixels;) {
    const size_t count = pixels - done < MAX_TILE ? pixels - done : MAX_TILE;
    for (size_t t = 0; t < count; t++) {
      tile.input[t] = input_line + x * job->column_step;
      tile.accumulators[t] = accumulator_line + x * HWGQ_LANES;
      if (++x == (size_t)job->columns) {
        x = 0;
        input_line += job->line_step;
        accumulator_line += job->accumulator_line_step;
      }
    }
    done += count;
    switch (count) {
    case 1:
      accumulate(job, &tile, 1, V);
      break;
    case 2:
      accumulate(job, &tile, 2, V);
      break;
    case 3:
      accumulate(job, &tile, 3, V);
      break;
    case 4:
      accumulate(job, &tile, 4, V);
      break;
    case 5:
      accumulate(job, &tile, 5, V);
      break;
    default:
      accumulate(job, &tile, MAX_TILE, V);
      break;
    }
  }
}

void hwgq_fconv_direct_avx512(const struct hwgq_conv_job *job) {
  if (job->lanes == HWGQ_LANES) {
    rectangle(job, MAX_REGISTERS);
  } else {
    rectangle(job, MAX_REGISTERS / 2);
  }
}
#endif
