/* Products of narrow numbers for the trainer: 8-bit levels by signs, and bfloat16 (the upper half of a float32) by bfloat16
 * with sums in float32. One table per instruction set; the plain one runs everywhere and says what is right.
 *
 * Everything comes in tiles of DOT_ROWS rows by DOT_COLUMNS columns, and along the sum in steps of four bytes: four 8-bit
 * numbers or two bfloat16. Sums of 8-bit numbers are exact. Sums in float32 may be rounded in another order by each table. */
#ifndef TRAIN_DOT_H
#define TRAIN_DOT_H

#include <stddef.h>
#include <stdint.h>

enum { DOT_ROWS = 8, DOT_COLUMNS = 32, DOT_BLOCK = 8, DOT_STEP_BYTES = 4, DOT_SIGN_CHANNELS = 16 };

/* The windows of a convolution by one panel of weights: sum over taps t and steps s of row[m][tap_offsets[t] + 4 s ...] by
 * panel[t][s][column][...]. */
struct dot_windows {
  int taps, steps;            /* steps: per tap */
  const int32_t *tap_offsets; /* bytes */
  const void *panel;          /* [taps][steps][DOT_COLUMNS][4 bytes] */
  const int32_t *start;       /* 8 bits: [DOT_COLUMNS], added to the sums, which scale then multiplies */
  const float *scale;
  int rows, columns; /* of the tile, that are stored */
  float *out;        /* [rows][stride] */
  ptrdiff_t stride;
};

/* Rows of pixels of 8-bit levels become [channel block][pixel][DOT_BLOCK][2]: a pixel's level and its partner's. */
struct dot_spread {
  ptrdiff_t pixel_bytes, partner_bytes; /* to the next pixel; to the partner */
  int pixels, partners;                 /* pixels from `partners` on have none: 0 */
  int blocks;                           /* 1 or 2 blocks of DOT_BLOCK channels */
  ptrdiff_t block_stride;               /* numbers */
  int zero;
};

struct dot_kernels {
  const char *name;
  /* row[0 to DOT_ROWS - 1] may all be read, also those past `rows`. Unsigned 8-bit numbers by signed ones. */
  void (*windows_u8)(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]);
  void (*windows_bf16)(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]);
  /* out[m][n] += sum over pairs k of a[offsets[k] bytes][m][2] * b[k][n][2], bfloat16; the tile as above. */
  void (*gradient)(const uint16_t *a, const int32_t *offsets, int pairs, const uint16_t *b, int rows, int columns, float *out,
                   ptrdiff_t stride);
  /* The level of each x, a multiple of 1 / inverse_step: round(x * inverse_step) + zero. */
  void (*levels)(const float *x, size_t count, float inverse_step, int zero, uint8_t *y);
  /* y = x * scale, rounded to bfloat16. */
  void (*round)(const float *x, const float *scale, int count, uint16_t *y);
  /* y[column][2] = (first, second) * scale, rounded to bfloat16; columns `count` to DOT_COLUMNS - 1 are 0. second may be NULL:
   * zeros. */
  void (*pair)(const float *first, const float *second, int count, float scale, uint16_t *y);
  /* Levels of the pixels of a row and of their partners to the right, less zero, as bfloat16. */
  void (*spread)(const struct dot_spread *s, const uint8_t *pixels, uint16_t *y);
  /* The signs (w >= 0: 1, else -1) of weights [channels][stride], up to DOT_SIGN_CHANNELS channels and DOT_COLUMNS columns:
   * forward[channel / 4][column][4] in 8 bits, and unless it is NULL backward[column / 2][DOT_COLUMNS channels][2] in bfloat16.
   * Whole tiles of 16 x 32 are written, with 0 for what there is not. */
  void (*signs)(const float *weights, ptrdiff_t stride, int channels, int columns, int8_t *forward, uint16_t *backward);
};

extern const struct dot_kernels dot_kernels_plain, dot_kernels_avx512bf16;

/* What this CPU has in vector units; NULL: nothing that would be faster than float32. */
const struct dot_kernels *dot_kernels_fast(void);

/* To the nearest, ties to even; subnormal numbers become 0, as AVX512-BF16 has it. */
uint16_t dot_round(float x);
float dot_widen(uint16_t x);

#endif
