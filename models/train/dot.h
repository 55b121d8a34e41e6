/* Products of narrow numbers for the trainer, in one of two formats: 8-bit integers with exact sums (levels by signs, levels
 * and signs by gradients that are rounded at random), and bfloat16 (the upper half of a float32) with sums in float32. One
 * table per format and instruction set; the plain ones run everywhere and say what is right.
 *
 * Everything comes in tiles of DOT_ROWS rows by DOT_COLUMNS columns, and along the sum in steps of four bytes: four 8-bit
 * numbers or two bfloat16. Sums in float32 may be rounded in another order by each table; all else is the same in all. */
#ifndef TRAIN_DOT_H
#define TRAIN_DOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  DOT_ROWS = 8,
  DOT_COLUMNS = 32,
  DOT_BLOCK = 8, /* channels whose weights' gradients are made together */
  DOT_STEP_BYTES = 4,
  DOT_TILE_CHANNELS = 16,
  DOT_LARGEST = 126, /* in 8 bits; less than 127, so that no rounding leaves the range */
};

/* The windows of a convolution by one panel of weights: (sum over taps t and steps s of row[m][tap_offsets[t] + 4 s ...] by
 * panel[t][s][column][...], + start) * scale. */
struct dot_windows {
  int taps, steps;            /* steps: per tap */
  const int32_t *tap_offsets; /* bytes */
  const void *panel;          /* [taps][steps][DOT_COLUMNS][4 bytes] */
  const int32_t *start;       /* [DOT_COLUMNS]; bfloat16: not read */
  const float *scale;         /* [DOT_COLUMNS] */
  int rows, columns;          /* of the tile, that are stored */
  float *out;                 /* [rows][stride] */
  ptrdiff_t stride;
};

/* out[m][n] += (sum over steps s of a[offsets[s] bytes][m][...] * b[s][n][...] + start[n]) * scale[n] */
struct dot_gradient {
  int steps;
  const int32_t *offsets;
  const void *b;        /* [steps][DOT_COLUMNS][4 bytes] */
  const int32_t *start; /* [DOT_COLUMNS]; bfloat16: not read */
  const float *scale;   /* [DOT_COLUMNS] */
  int rows, columns;    /* of the tile */
  float *out;           /* [rows][stride] */
  ptrdiff_t stride;
};

/* Pixels of a row, DOT_TILE_CHANNELS channels each, become [channel block of DOT_BLOCK][pixel][channel][4 bytes]: a pixel's
 * number and those of the pixels `stride`, 2 stride, ... behind it, 0 where the row has none. */
struct dot_spread {
  ptrdiff_t pixel_bytes; /* to the next pixel */
  int pixels, stride;
  ptrdiff_t block_bytes; /* of one channel block of the result */
};

/* How numbers become 8-bit ones: x * factor + u, rounded to the nearest, where u lies in [-0.5, 0.5] and differs for every
 * number: 2^-32 * (noise + pixel * DOT_NOISE_PIXEL + channel * DOT_NOISE_CHANNEL) as a signed 32-bit integer (Roberts's
 * two-dimensional low-discrepancy sequence). With `noise` at random the mean is x * factor. bfloat16 takes no part in it. */
#define DOT_NOISE_PIXEL 0xc13fa9a9u
#define DOT_NOISE_CHANNEL 0x91e10da5u

struct dot_format {
  const char *name;
  int bytes;                                                                        /* of a number */
  uint8_t fill;                                                                     /* bytes of a zero in what `pad` makes */
  void (*windows)(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]); /* all rows may be read */
  void (*gradient)(const struct dot_gradient *g, const uint8_t *a);
  /* Inputs, which are finite: 8 bits: the level of each x, a multiple of 1 / inverse_step: round(x * inverse_step) + zero.
   * bfloat16: x. */
  void (*keep)(const float *x, size_t count, float inverse_step, int zero, void *y);
  void (*spread)(const struct dot_spread *s, const uint8_t *pixels, uint8_t *y);
  /* One pixel of a gradient: y = x * alpha * factor. 8 bits: rounded as above, plus 128. */
  void (*pad)(const float *x, const float *alpha, int count, float factor, uint32_t noise, void *y);
  /* Up to 4 / bytes pixels of a gradient, `stride` apart: y[column][pixel] = x * factor[column], 0 from `pixels` on and in
   * columns `count` to DOT_COLUMNS - 1. bfloat16: factors are 1 and not read. */
  void (*group)(const float *x, ptrdiff_t stride, int pixels, int count, const float *factor, uint32_t noise, void *y);
  /* 8 bits: largest[column] of pixels [pixels][stride], up to DOT_COLUMNS columns: the greatest |x|, NaN if there is one. */
  void (*largest)(const float *x, ptrdiff_t stride, int pixels, int count, float *largest);
  /* Weights [channels][stride], up to DOT_TILE_CHANNELS channels and DOT_COLUMNS columns, or their signs (w >= 0: 1, else -1;
   * 8 bits: always), as forward[channel step][column][4 bytes] and unless it is NULL backward[column step][DOT_COLUMNS
   * channels][4 bytes]. Whole tiles of 16 x 32 are written, with 0 for what there is not. 8 bits: sums[channel] grows by the
   * sum of its signs; may be NULL. */
  void (*weights)(const float *weights, ptrdiff_t stride, int channels, int columns, bool signs, void *forward, void *backward,
                  int32_t *sums);
};

/* NULL: not faster than float32. */
struct dot_kernels {
  const struct dot_format *int8, *bf16;
};

extern const struct dot_format dot_int8_plain, dot_bf16_plain, dot_int8_avx512vnni, dot_bf16_avx512bf16;
extern const struct dot_kernels dot_kernels_plain;

/* This CPU's; NULL: nothing that would be faster than float32. */
const struct dot_kernels *dot_kernels_fast(void);

/* To the nearest, ties to even; subnormal numbers become 0, as AVX512-BF16 has it. */
uint16_t dot_round(float x);
float dot_widen(uint16_t x);

#endif
