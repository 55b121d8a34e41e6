/* Float convolution: out channels in lanes, one broadcast input value per pixel and tap. A tile of T pixels by V registers
 * stays in registers; every accumulator sees the taps in the same order as in the scalar kernel. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TILE = 4, MAX_REGISTERS = HWGQ_LANES / 4 };

struct tile {
  const float *input[MAX_TILE];
  float *accumulators[MAX_TILE];
};

INLINE void accumulate(const struct hwgq_conv_job *job, const struct tile *tile, const int T, const int V) {
  float32x4_t acc[MAX_TILE][MAX_REGISTERS];
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < V; v++) acc[t][v] = vdupq_n_f32(0);
  }
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const float *weights =
          (const float *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const float *const end = weights + (size_t)job->length * 4 * (size_t)V;
      size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (; weights != end; weights += 4 * V, at++) {
        float32x4_t a[MAX_TILE];
        for (int t = 0; t < T; t++) a[t] = vld1q_dup_f32(tile->input[t] + at);
        for (int v = 0; v < V; v++) {
          const float32x4_t w = vld1q_f32(weights + 4 * v);
          for (int t = 0; t < T; t++) acc[t][v] = vfmaq_f32(acc[t][v], w, a[t]);
        }
      }
    }
  }
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < V; v++) vst1q_f32(tile->accumulators[t] + 4 * v, acc[t][v]);
  }
}

/* Pixels of the rectangle in row order, T at a time, the rest one by one. */
INLINE void rectangle(const struct hwgq_conv_job *job, const int T, const int V) {
  const size_t pixels = (size_t)job->lines * (size_t)job->columns;
  const float *input_line = job->input;
  float *accumulator_line = job->accumulators;
  size_t x = 0;
  struct tile tile;
  for (size_t done = 0; done < pixels;) {
    const size_t count = pixels - done < (size_t)T ? 1 : (size_t)T;
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
    if (count == 1) {
      accumulate(job, &tile, 1, V);
    } else {
      accumulate(job, &tile, T, V);
    }
  }
}

/* Sixteen accumulators either way, as many as the FMA's latency needs, and room for weights. */
void hwgq_fconv_direct_neon(const struct hwgq_conv_job *job) {
  if (job->lanes == HWGQ_LANES) {
    rectangle(job, 2, MAX_REGISTERS);
  } else {
    rectangle(job, MAX_TILE, MAX_REGISTERS / 2);
  }
}
#endif
