/* Convolutions of pixels for NEON: SMLAL multiplies four int16 and adds into four 32-bit sums. The two products of a lane's
 * pair stay in sums of their own until the end, where ADDP joins them: two instructions for eight multiply-accumulates. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "engine/kernels/iconv.h"
#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 5, VECTORS = 2, STEP = 4 * VECTORS };

INLINE int16x8_t pair_at(const uint8_t *pixel) {
  int32_t pair;
  memcpy(&pair, pixel, sizeof pair);
  return vreinterpretq_s16_s32(vdupq_n_s32(pair));
}

INLINE void finish(const struct hwgq_iconv_job *job, size_t column, size_t lane, int32x4_t sum) {
  if (job->base) sum = vaddq_s32(sum, vld1q_s32(job->base + job->base_index[column] * job->base_step + lane));
  if (job->add) sum = vaddq_s32(sum, vld1q_s32(job->add + column * HWGQ_LANES + lane));
  vst1q_s32(job->accumulators + column * HWGQ_LANES + lane, sum);
}

/* Columns column .. column + T - 1, lanes lane .. lane + STEP - 1. */
INLINE void tile(const struct hwgq_iconv_job *job, size_t column, size_t lane, const int T) {
  const size_t step = job->column_step;
  const uint8_t *const input = job->input + column * step;
  const int16_t *weights = (const int16_t *)(const void *)job->weights + lane * 2;
  int32x4_t low[TILE][VECTORS], high[TILE][VECTORS];
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < VECTORS; v++) low[t][v] = high[t][v] = vdupq_n_s32(0);
  }
  for (int i = 0; i < job->words; i++, weights += (size_t)job->lanes * 2) {
    const uint8_t *pixel = input + job->offsets[i];
    int16x8_t w[VECTORS];
    for (int v = 0; v < VECTORS; v++) w[v] = vld1q_s16(weights + 8 * v);
    for (int t = 0; t < T; t++, pixel += step) {
      const int16x8_t pair = pair_at(pixel);
      for (int v = 0; v < VECTORS; v++) {
        low[t][v] = vmlal_s16(low[t][v], vget_low_s16(w[v]), vget_low_s16(pair));
        high[t][v] = vmlal_high_s16(high[t][v], w[v], pair);
      }
    }
  }
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < VECTORS; v++) {
      finish(job, column + (size_t)t, lane + 4 * (size_t)v, vpaddq_s32(low[t][v], high[t][v]));
    }
  }
}

void hwgq_iconv_mlal_neon(const struct hwgq_iconv_job *given) {
  const struct hwgq_iconv_job copy = *given, *job = &copy; /* stores to the accumulators cannot change it */
  const size_t columns = (size_t)job->columns;
  for (size_t lane = 0; lane < (size_t)job->lanes; lane += STEP) {
    size_t column = 0;
    for (; column + TILE <= columns; column += TILE) tile(job, column, lane, TILE);
    for (; column < columns; column++) tile(job, column, lane, 1);
  }
}

void hwgq_iconv_widen_mlal_neon(const uint8_t *pixels, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = pixels[i];
}

void hwgq_iconv_subtract_mlal_neon(const int16_t *a, const int16_t *b, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = (int16_t)(a[i] - b[i]);
}
#endif
