/* Float matrix times vector: the 16 partial sums of a row are four registers. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_ROWS = 4 };

static float tree(const float32x4_t sums[4]) {
  const float32x4_t four = vaddq_f32(vaddq_f32(sums[0], sums[2]), vaddq_f32(sums[1], sums[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

INLINE void rows(const struct hwgq_linear_job *job, size_t first, const int R) {
  const float *weights = job->weights + first * job->weight_step;
  const size_t whole = job->inputs / 16 * 16;
  float tail[16] = {0};
  for (size_t i = whole; i < job->inputs; i++) tail[i - whole] = job->input[i];
  float32x4_t sums[MAX_ROWS][4];
  for (int r = 0; r < R; r++) {
    for (int q = 0; q < 4; q++) sums[r][q] = vdupq_n_f32(0);
  }
  for (size_t i = 0; i < job->inputs; i += 16) {
    const float *input = i < whole ? job->input + i : tail;
    for (int q = 0; q < 4; q++) {
      const float32x4_t a = vld1q_f32(input + 4 * q);
      for (int r = 0; r < R; r++) {
        const float *w = weights + (size_t)r * job->weight_step + i + 4 * (size_t)q;
        sums[r][q] = vfmaq_f32(sums[r][q], vld1q_f32(w), a);
      }
    }
  }
  for (int r = 0; r < R; r++) job->output[first + (size_t)r] = tree(sums[r]);
}

void hwgq_linear_neon(const struct hwgq_linear_job *job) {
  size_t o = 0;
  for (; o + MAX_ROWS <= job->outputs; o += MAX_ROWS) rows(job, o, MAX_ROWS);
  for (; o < job->outputs; o++) rows(job, o, 1);
}
#endif
