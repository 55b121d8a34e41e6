/* Binary convolution for NEON: AND, then CNT, which counts the bits of bytes.
 *
 * A tile is T pixels by 16 lanes, four registers of weights. Each plane has its own byte counters, all in registers: 31 words
 * fit a byte (31 * 8 <= 255), then they are added, shifted by their plane, into 32-bit sums. A dot product with ones (UDOT) in
 * the place of the byte addition would save only that, about 1 % of the instructions, so ARMv8.0 loses nothing here. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/conv_tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TILE = 4, REGISTERS = 4, MAX_WORDS = 31, MAX_COUNTERS = 16 };

INLINE void flush(uint8x16_t *bytes, uint32x4_t *sums, const int T, const int P) {
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < REGISTERS; v++) {
      for (int p = 0; p < P; p++) {
        uint8x16_t *b = &bytes[(t * REGISTERS + v) * P + p];
        uint32x4_t *sum = &sums[t * REGISTERS + v];
        *sum = vaddq_u32(*sum, vshlq_u32(vpaddlq_u16(vpaddlq_u8(*b)), vdupq_n_s32(p)));
        *b = vdupq_n_u8(0);
      }
    }
  }
}

/* Adds one word. */
INLINE void count(uint8x16_t *bytes, const uint32_t *weights, const uint32_t *const *input, size_t at, const int T,
                  const int P) {
  uint8x16_t w[REGISTERS];
  for (int v = 0; v < REGISTERS; v++) w[v] = vreinterpretq_u8_u32(vld1q_u32(weights + 4 * v));
  for (int t = 0; t < T; t++) {
    for (int p = 0; p < P; p++) {
      const uint8x16_t a = vreinterpretq_u8_u32(vld1q_dup_u32(input[t] + at + p));
      for (int v = 0; v < REGISTERS; v++) {
        uint8x16_t *b = &bytes[(t * REGISTERS + v) * P + p];
        *b = vaddq_u8(*b, vcntq_u8(vandq_u8(w[v], a)));
      }
    }
  }
}

/* 16 lanes, of which the first is `lane`. T * P <= 4, constants in every call. */
INLINE void lanes16(const struct hwgq_conv_job *job, const struct conv_tile *tile, int lane, const int T, const int P) {
  uint8x16_t bytes[MAX_COUNTERS];
  uint32x4_t sums[MAX_TILE * REGISTERS];
  for (int i = 0; i < T * REGISTERS * P; i++) bytes[i] = vdupq_n_u8(0);
  for (int i = 0; i < T * REGISTERS; i++) sums[i] = vdupq_n_u32(0);
  int room = MAX_WORDS;
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint32_t *weights =
          (const uint32_t *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step + lane;
      size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (int left = job->length; left > 0;) {
        const int words = left < room ? left : room;
        for (int i = 0; i < words; i++, weights += job->lanes, at += (size_t)job->plane_step) {
          count(bytes, weights, tile->input, at, T, P);
        }
        left -= words;
        room -= words;
        if (room) continue;
        flush(bytes, sums, T, P);
        room = MAX_WORDS;
      }
    }
  }
  flush(bytes, sums, T, P);
  for (int v = 0; v < REGISTERS; v++) {
    const int32x4_t base = vld1q_s32(job->base + lane + 4 * v);
    for (int t = 0; t < T; t++) {
      const int32x4_t sum = vreinterpretq_s32_u32(vshlq_u32(sums[t * REGISTERS + v], vdupq_n_s32(job->shift)));
      vst1q_s32(tile->accumulators[t] + lane + 4 * v, vaddq_s32(sum, vaddq_s32(base, vdupq_n_s32(tile->correction[t]))));
    }
  }
}

#define TILE_FUNCTION(T, P)                                                                                                    \
  static void tile_##T##_##P(const struct hwgq_conv_job *job, const struct conv_tile *tile) {                                  \
    for (int lane = 0; lane < job->lanes; lane += 4 * REGISTERS) lanes16(job, tile, lane, T, P);                               \
  }
TILE_FUNCTION(1, 1)
TILE_FUNCTION(2, 1)
TILE_FUNCTION(3, 1)
TILE_FUNCTION(4, 1)
TILE_FUNCTION(1, 2)
TILE_FUNCTION(2, 2)
TILE_FUNCTION(1, 3)
TILE_FUNCTION(1, 4)

void hwgq_bconv_popcount_neon(const struct hwgq_conv_job *job) {
  static conv_tile_function *const functions[HWGQ_MAX_PLANES][MAX_TILE] = {
      {tile_1_1, tile_2_1, tile_3_1, tile_4_1}, {tile_1_2, tile_2_2}, {tile_1_3}, {tile_1_4}};
  static const size_t tiles[HWGQ_MAX_PLANES] = {4, 2, 1, 1};
  conv_rectangle(job, tiles[job->planes - 1], functions[job->planes - 1]);
}
#endif
