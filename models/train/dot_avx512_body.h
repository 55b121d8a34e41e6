/* Products of tiles in AVX-512, of whichever numbers the including file has. It defines, after <immintrin.h>:
 *   sum_t                     a vector of HALF sums; nothing(): zeros
 *   product(sum, a, b)        sum + a * b, of the 64 bytes a and b
 *   with_start(sum, start)    the sums plus the integers at `start`, as floats
 * Sixteen accumulators hide the latency of the products (two a cycle on Zen 5), and a row's four bytes are loaded once for both
 * halves of the panel. */
#ifndef TRAIN_DOT_AVX512_BODY_H
#define TRAIN_DOT_AVX512_BODY_H

#include <string.h>

#include "models/train/dot.h"

enum { HALF = DOT_COLUMNS / 2, VECTOR_BYTES = 64 };

_Static_assert((int)HALF == DOT_TILE_CHANNELS && DOT_TILE_CHANNELS == 2 * DOT_BLOCK,
               "a vector is half a panel, and a tile's pixel");
_Static_assert((int)VECTOR_BYTES == (int)HALF * DOT_STEP_BYTES, "a vector has a step of half a panel");

static __m512i four_bytes(const void *p) {
  int32_t value;
  memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}

static __mmask16 first_lanes(int count) {
  return count >= HALF ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

static void windows(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  sum_t sum[DOT_ROWS][2];
  const uint8_t *b = w->panel, *a[DOT_ROWS];
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    a[m] = row[m];
    sum[m][0] = sum[m][1] = nothing();
  }
  for (int t = 0; t < w->taps; t++) {
    ptrdiff_t at = w->tap_offsets[t];
    for (int s = 0; s < w->steps; s++, at += DOT_STEP_BYTES, b += 2 * VECTOR_BYTES) {
      __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + VECTOR_BYTES);
#pragma GCC unroll 8
      for (int m = 0; m < DOT_ROWS; m++) {
        __m512i value = four_bytes(a[m] + at);
        sum[m][0] = product(sum[m][0], value, b0);
        sum[m][1] = product(sum[m][1], value, b1);
      }
    }
  }
  __mmask16 mask0 = first_lanes(w->columns), mask1 = first_lanes(w->columns - HALF);
  __m512 scale0 = _mm512_maskz_loadu_ps(mask0, w->scale), scale1 = _mm512_maskz_loadu_ps(mask1, w->scale + HALF);
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    if (m >= w->rows) break;
    float *out = w->out + m * w->stride;
    _mm512_mask_storeu_ps(out, mask0, _mm512_mul_ps(with_start(sum[m][0], w->start), scale0));
    _mm512_mask_storeu_ps(out + HALF, mask1, _mm512_mul_ps(with_start(sum[m][1], w->start + HALF), scale1));
  }
}

static void gradient(const struct dot_gradient *g, const uint8_t *a) {
  sum_t sum[DOT_ROWS][2];
  const uint8_t *b = g->b;
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    sum[m][0] = sum[m][1] = nothing();
    if (m < g->rows) { /* out comes from far away, and is needed at the end */
      _mm_prefetch((const char *)(g->out + m * g->stride), _MM_HINT_T0);
      _mm_prefetch((const char *)(g->out + m * g->stride + g->columns - 1), _MM_HINT_T0);
    }
  }
  for (int s = 0; s < g->steps; s++, b += 2 * VECTOR_BYTES) {
    const uint8_t *x = a + g->offsets[s];
    __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + VECTOR_BYTES);
#pragma GCC unroll 8
    for (int m = 0; m < DOT_ROWS; m++) {
      __m512i value = four_bytes(x + DOT_STEP_BYTES * m);
      sum[m][0] = product(sum[m][0], value, b0);
      sum[m][1] = product(sum[m][1], value, b1);
    }
  }
  __mmask16 mask[2] = {first_lanes(g->columns), first_lanes(g->columns - HALF)};
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    if (m >= g->rows) break;
    for (int h = 0; h < 2; h++) {
      float *out = g->out + m * g->stride + h * HALF;
      __m512 value =
          _mm512_mul_ps(with_start(sum[m][h], g->start + h * HALF), _mm512_maskz_loadu_ps(mask[h], g->scale + h * HALF));
      _mm512_mask_storeu_ps(out, mask[h], _mm512_add_ps(_mm512_maskz_loadu_ps(mask[h], out), value));
    }
  }
}

#endif
