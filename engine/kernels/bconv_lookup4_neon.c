/* Binary convolution by table look-up, NEON: TBL finds the sums of four activations for 16 out channels at once (codes.c).
 *
 * A tile is T pixels by 32 lanes, two registers of byte counters per pixel; with T = 8 gcc 12 spills some. A look-up and an
 * addition serve 16 x 4 multiply-accumulates. AND, CNT and an addition serve 16 x 8 of one plane: two planes would take 1.5
 * times as many instructions as this, one plane 0.75 times as many, so popcount keeps one plane. Two words fit a byte (at most
 * 16 * 12); then bytes are added into 16-bit sums, which hold 65535 / 96 words; longer sums move to 32 bits on the way. The
 * wider sums live in memory: loads and stores have their own pipes. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "engine/kernels/conv_tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 6, WORDS = 2, WORD_SUM = 32 * 3, WORD_BYTES = 4 * HWGQ_LANES };

struct sums {
  uint16x8_t narrow[TILE][4]; /* lanes 8i .. 8i + 7 */
  uint32x4_t wide[TILE][8];   /* lanes 4i .. 4i + 3 */
};

INLINE void widen(struct sums *s, uint8x16_t bytes[TILE][2], const int T) {
  for (int t = 0; t < T; t++) {
    for (int half = 0; half < 2; half++) {
      s->narrow[t][2 * half] = vaddw_u8(s->narrow[t][2 * half], vget_low_u8(bytes[t][half]));
      s->narrow[t][2 * half + 1] = vaddw_high_u8(s->narrow[t][2 * half + 1], bytes[t][half]);
    }
  }
}

static void spill(struct sums *s, int T) {
  for (int t = 0; t < T; t++) {
    for (int i = 0; i < 4; i++) {
      s->wide[t][2 * i] = vaddw_u16(s->wide[t][2 * i], vget_low_u16(s->narrow[t][i]));
      s->wide[t][2 * i + 1] = vaddw_high_u16(s->wide[t][2 * i + 1], s->narrow[t][i]);
      s->narrow[t][i] = vdupq_n_u16(0);
    }
  }
}

/* Adds one word: four bytes of weights per lane, eight codes per pixel. */
INLINE void look_up(uint8x16_t bytes[TILE][2], const uint8_t *weights, const uint16_t *const *codes, size_t at,
                    const uint8_t *tables, const int T) {
  for (size_t b = 0; b < 4; b++) {
    const uint8x16_t w[2] = {vld1q_u8(weights + HWGQ_LANES * b), vld1q_u8(weights + HWGQ_LANES * b + 16)};
    for (size_t nibble = 0; nibble < 2; nibble++) {
      uint8x16_t index[2];
      for (int i = 0; i < 2; i++) index[i] = nibble ? vshrq_n_u8(w[i], 4) : vandq_u8(w[i], vdupq_n_u8(15));
      for (int t = 0; t < T; t++) {
        const uint8x16_t table = vld1q_u8(tables + codes[t][at + 2 * b + nibble]);
        for (int i = 0; i < 2; i++) bytes[t][i] = vaddq_u8(bytes[t][i], vqtbl1q_u8(table, index[i]));
      }
    }
  }
}

INLINE void store(const struct hwgq_conv_job *job, const struct conv_tile *tile, struct sums *s, const int T) {
  const int32x4_t shift = vdupq_n_s32(job->shift);
  spill(s, T);
  for (int t = 0; t < T; t++) {
    const int32x4_t correction = vdupq_n_s32(tile->correction[t]);
    for (int i = 0; i < 8; i++) {
      const int32x4_t sum = vreinterpretq_s32_u32(vshlq_u32(s->wide[t][i], shift));
      vst1q_s32(tile->accumulators[t] + 4 * i, vaddq_s32(sum, vaddq_s32(vld1q_s32(job->base + 4 * i), correction)));
    }
  }
}

INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T) {
  struct sums s;
  const uint8_t *const tables = job->tables;
  const size_t length = (size_t)job->length;
  int room = 65535 / WORD_SUM;
  memset(s.narrow, 0, (size_t)T * sizeof s.narrow[0]);
  memset(s.wide, 0, (size_t)T * sizeof s.wide[0]);
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint8_t *weights = (const uint8_t *)((const uint32_t *)job->weights + (size_t)row * job->weight_row_step +
                                                 (size_t)run * job->weight_run_step);
      const uint16_t *codes[TILE];
      for (int t = 0; t < T; t++) {
        codes[t] = (const uint16_t *)(const void *)(tile->input[t] + (size_t)row * job->row_step + (size_t)run * job->run_step);
      }
      for (size_t word = 0; word < length; word += WORDS, weights += WORD_BYTES * WORDS) {
        uint8x16_t bytes[TILE][2];
        for (int t = 0; t < T; t++) bytes[t][0] = bytes[t][1] = vdupq_n_u8(0);
        look_up(bytes, weights, codes, word * 8, tables, T);
        if (word + 1 < length) look_up(bytes, weights + WORD_BYTES, codes, word * 8 + 8, tables, T);
        if ((room -= WORDS) < 0) {
          spill(&s, T);
          room = 65535 / WORD_SUM - WORDS;
        }
        widen(&s, bytes, T);
      }
    }
  }
  store(job, tile, &s, T);
}

#define TILE_FUNCTION(T)                                                                                                       \
  static void tile_##T(const struct hwgq_conv_job *job, const struct conv_tile *tile) {                                        \
    accumulate(job, tile, T);                                                                                                  \
  }
TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)

void hwgq_bconv_lookup4_neon(const struct hwgq_conv_job *job) {
  static conv_tile_function *const functions[TILE] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  conv_rectangle(job, TILE, functions);
}
#endif
