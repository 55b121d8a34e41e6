#include "models/train/dot.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

/* Sixteen accumulators hide the latency of the products (two a cycle on Zen 5), and a row's four bytes are loaded once for
 * both halves of the panel. */
enum { HALF = 16, VECTOR_BYTES = 64 };

static __m512i four_bytes(const void *p) {
  int32_t value;
  memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}

static __mmask16 first_lanes(int count) {
  return count >= HALF ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}

static void windows_u8(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  __m512i sum[DOT_ROWS][2];
  const uint8_t *b = w->panel, *a[DOT_ROWS];
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    a[m] = row[m];
    sum[m][0] = _mm512_loadu_si512(w->start);
    sum[m][1] = _mm512_loadu_si512(w->start + HALF);
  }
  for (int t = 0; t < w->taps; t++) {
    ptrdiff_t at = w->tap_offsets[t];
    for (int s = 0; s < w->steps; s++, at += DOT_STEP_BYTES, b += 2 * VECTOR_BYTES) {
      __m512i b0 = _mm512_loadu_si512(b), b1 = _mm512_loadu_si512(b + VECTOR_BYTES);
#pragma GCC unroll 8
      for (int m = 0; m < DOT_ROWS; m++) {
        __m512i value = four_bytes(a[m] + at);
        sum[m][0] = _mm512_dpbusd_epi32(sum[m][0], value, b0);
        sum[m][1] = _mm512_dpbusd_epi32(sum[m][1], value, b1);
      }
    }
  }
  __mmask16 mask0 = first_lanes(w->columns), mask1 = first_lanes(w->columns - HALF);
  __m512 scale0 = _mm512_maskz_loadu_ps(mask0, w->scale), scale1 = _mm512_maskz_loadu_ps(mask1, w->scale + HALF);
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    if (m >= w->rows) break;
    float *out = w->out + m * w->stride;
    _mm512_mask_storeu_ps(out, mask0, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[m][0]), scale0));
    _mm512_mask_storeu_ps(out + HALF, mask1, _mm512_mul_ps(_mm512_cvtepi32_ps(sum[m][1]), scale1));
  }
}

static void windows_bf16(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  __m512 sum[DOT_ROWS][2];
  const uint8_t *b = w->panel, *a[DOT_ROWS];
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    a[m] = row[m];
    sum[m][0] = sum[m][1] = _mm512_setzero_ps();
  }
  for (int t = 0; t < w->taps; t++) {
    ptrdiff_t at = w->tap_offsets[t];
    for (int s = 0; s < w->steps; s++, at += DOT_STEP_BYTES, b += 2 * VECTOR_BYTES) {
      __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + VECTOR_BYTES);
#pragma GCC unroll 8
      for (int m = 0; m < DOT_ROWS; m++) {
        __m512bh value = (__m512bh)four_bytes(a[m] + at);
        sum[m][0] = _mm512_dpbf16_ps(sum[m][0], value, b0);
        sum[m][1] = _mm512_dpbf16_ps(sum[m][1], value, b1);
      }
    }
  }
  __mmask16 mask0 = first_lanes(w->columns), mask1 = first_lanes(w->columns - HALF);
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    if (m >= w->rows) break;
    float *out = w->out + m * w->stride;
    _mm512_mask_storeu_ps(out, mask0, sum[m][0]);
    _mm512_mask_storeu_ps(out + HALF, mask1, sum[m][1]);
  }
}

static void gradient(const uint16_t *a, const int32_t *offsets, int pairs, const uint16_t *b, int rows, int columns, float *out,
                     ptrdiff_t stride) {
  __m512 sum[DOT_ROWS][2];
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    sum[m][0] = sum[m][1] = _mm512_setzero_ps();
    if (m < rows) { /* out comes from far away, and is needed at the end */
      _mm_prefetch((const char *)(out + m * stride), _MM_HINT_T0);
      _mm_prefetch((const char *)(out + m * stride + columns - 1), _MM_HINT_T0);
    }
  }
  for (int k = 0; k < pairs; k++, b += 2 * DOT_COLUMNS) {
    const uint8_t *x = (const uint8_t *)a + offsets[k];
    __m512bh b0 = (__m512bh)_mm512_loadu_si512(b), b1 = (__m512bh)_mm512_loadu_si512(b + DOT_COLUMNS);
#pragma GCC unroll 8
    for (int m = 0; m < DOT_ROWS; m++) {
      __m512bh value = (__m512bh)four_bytes(x + DOT_STEP_BYTES * m);
      sum[m][0] = _mm512_dpbf16_ps(sum[m][0], value, b0);
      sum[m][1] = _mm512_dpbf16_ps(sum[m][1], value, b1);
    }
  }
  __mmask16 mask0 = first_lanes(columns), mask1 = first_lanes(columns - HALF);
#pragma GCC unroll 8
  for (int m = 0; m < DOT_ROWS; m++) {
    if (m >= rows) break;
    float *c = out + m * stride;
    _mm512_mask_storeu_ps(c, mask0, _mm512_add_ps(_mm512_maskz_loadu_ps(mask0, c), sum[m][0]));
    _mm512_mask_storeu_ps(c + HALF, mask1, _mm512_add_ps(_mm512_maskz_loadu_ps(mask1, c + HALF), sum[m][1]));
  }
}

static void levels(const float *x, size_t count, float inverse_step, int zero, uint8_t *y) {
  __m512 factor = _mm512_set1_ps(inverse_step);
  __m512i offset = _mm512_set1_epi32(zero);
  for (size_t i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i < HALF ? (int)(count - i) : HALF);
    __m512i level = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor)), offset);
    _mm_mask_storeu_epi8(y + i, mask, _mm512_cvtepi32_epi8(level));
  }
}

static void round_scaled(const float *x, const float *scale, int count, uint16_t *y) {
  for (int i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), _mm512_maskz_loadu_ps(mask, scale + i));
    _mm256_mask_storeu_epi16(y + i, mask, (__m256i)_mm512_cvtneps_pbh(value));
  }
}

static void pair(const float *first, const float *second, int count, float scale, uint16_t *y) {
  __m512 factor = _mm512_set1_ps(scale);
  for (int i = 0; i < DOT_COLUMNS; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, first + i), factor);
    __m512i both = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value));
    if (second != NULL) {
      value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, second + i), factor);
      both = _mm512_or_si512(both, _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value)), 16));
    }
    _mm512_storeu_si512(y + 2 * i, both);
  }
}

/* Integers below 256 in size are exact in bfloat16: the upper half of their float32. */
static __m512i widen(const uint8_t *x, __mmask16 mask, __m512i zero) {
  __m512i value = _mm512_sub_epi32(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, x)), zero);
  return _mm512_castps_si512(_mm512_cvtepi32_ps(value));
}

static void spread(const struct dot_spread *s, const uint8_t *pixels, uint16_t *y) {
  __m512i zero = _mm512_set1_epi32(s->zero);
  __mmask16 mask = s->blocks > 1 ? 0xffff : 0xff;
  for (int p = 0; p < s->pixels; p++, pixels += s->pixel_bytes, y += 2 * DOT_BLOCK) {
    __m512i both = _mm512_srli_epi32(widen(pixels, mask, zero), 16);
    if (p < s->partners) both = _mm512_or_si512(both, widen(pixels + s->partner_bytes, mask, zero));
    _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(both));
    if (s->blocks > 1) _mm256_storeu_si256((__m256i *)(void *)(y + s->block_stride), _mm512_extracti64x4_epi64(both, 1));
  }
}

/* For every lane in `there`, `yes` where `mask` is set and `no` elsewhere. */
static __m512i choose(__mmask16 there, __mmask16 mask, uint32_t yes, uint32_t no) {
  return _mm512_mask_mov_epi32(_mm512_maskz_set1_epi32(there, (int)no), there & mask, _mm512_set1_epi32((int)yes));
}

static void signs(const float *weights, ptrdiff_t stride, int channels, int columns, int8_t *forward, uint16_t *backward) {
  __mmask16 there[2] = {first_lanes(columns), first_lanes(columns - HALF)};
  uint32_t positive[DOT_SIGN_CHANNELS] = {0}; /* bit o: column o */
  for (int c = 0; c < channels; c++, weights += stride) {
    for (int h = 0; h < 2; h++) {
      __m512 w = _mm512_maskz_loadu_ps(there[h], weights + h * HALF);
      positive[c] |= (uint32_t)_mm512_cmp_ps_mask(w, _mm512_setzero_ps(), _CMP_GE_OQ) << h * HALF;
    }
  }
  for (int c = 0; c < DOT_SIGN_CHANNELS; c += 4) {
    for (int h = 0; h < 2; h++) {
      __m512i bytes = _mm512_setzero_si512();
      for (int i = 0; i < 4 && c + i < channels; i++)
        bytes =
            _mm512_or_si512(bytes, choose(there[h], (__mmask16)(positive[c + i] >> h * HALF), 0x01u << 8 * i, 0xffu << 8 * i));
      _mm512_storeu_si512(forward + (c / 4 * DOT_COLUMNS + h * HALF) * 4, bytes);
    }
  }
  if (backward == NULL) return;
  __m512i bits = _mm512_loadu_si512(positive);
  __mmask16 lanes = first_lanes(channels);
  for (int o = 0; o < DOT_COLUMNS; o += 2) {
    __mmask16 low = _mm512_test_epi32_mask(bits, _mm512_set1_epi32((int)(1u << o)));
    __mmask16 high = _mm512_test_epi32_mask(bits, _mm512_set1_epi32((int)(2u << o)));
    __m512i numbers = choose(o < columns ? lanes : 0, low, 0x3f80, 0xbf80); /* 1 and -1 */
    numbers = _mm512_or_si512(numbers, choose(o + 1 < columns ? lanes : 0, high, 0x3f800000, 0xbf800000));
    _mm512_storeu_si512(backward + o / 2 * DOT_COLUMNS * 2, numbers);
  }
}

const struct dot_kernels dot_kernels_avx512bf16 = {
    .name = "avx512bf16",
    .windows_u8 = windows_u8,
    .windows_bf16 = windows_bf16,
    .gradient = gradient,
    .levels = levels,
    .round = round_scaled,
    .pair = pair,
    .spread = spread,
    .signs = signs,
};

#endif
