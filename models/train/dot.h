/* Products of narrow numbers for the trainer: 8-bit levels by signs, and bfloat16 (the upper half of a float32) by bfloat16
 * with sums in float32. One table per instruction set; the plain one runs everywhere and says what is right.
 *
 * Everything comes in tiles of DOT_ROWS rows by DOT_COLUMNS columns, and along the sum in steps of four bytes: four 8-bit
 * numbers or two bfloat16. Sums of 8-bit numbers are exact. Sums in float32 may be rounded in another order by each table. */
#ifndef TRAIN_DOT_H
#define TRAIN_DOT_H

#include <stddef.h>
#include <stdint.h>

enum { DOT_ROWS = 8, DOT_COLUMNS = 32, DOT_BLOCK = 8, DOT_STEP_BYTES = 4 };

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
  /* Levels of two pixels, less zero, as bfloat16: block b of DOT_BLOCK channels goes to y + b * block_stride (in numbers) as
   * [channel][2]. second may be NULL: zeros. */
  void (*spread)(const uint8_t *first, const uint8_t *second, int blocks, int zero, uint16_t *y, ptrdiff_t block_stride);
};

extern const struct dot_kernels dot_kernels_plain, dot_kernels_avx512bf16;

/* What this CPU has in vector units; NULL: nothing that would be faster than float32. */
const struct dot_kernels *dot_kernels_fast(void);

/* To the nearest, ties to even; subnormal numbers become 0, as AVX512-BF16 has it. */
uint16_t dot_round(float x);
float dot_widen(uint16_t x);

#endif
