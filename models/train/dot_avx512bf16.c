#include "models/train/dot.h"

#if defined(__x86_64__)

#include <immintrin.h>

typedef __m512 sum_t;

static sum_t nothing(void) {
  return _mm512_setzero_ps();
}

static sum_t product(sum_t sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

static __m512 with_start(sum_t sum, const int32_t *start) {
  (void)start;
  return sum;
}

#include "models/train/dot_avx512_body.h"

static __m256i rounded(__m512 x) {
  return (__m256i)_mm512_cvtneps_pbh(x);
}

static void keep(const float *x, size_t count, float inverse_step, int zero, void *y) {
  (void)inverse_step;
  (void)zero;
  for (size_t i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i < HALF ? (int)(count - i) : HALF);
    _mm256_mask_storeu_epi16((uint16_t *)y + i, mask, rounded(_mm512_maskz_loadu_ps(mask, x + i)));
  }
}

static void spread(const struct dot_spread *s, const uint8_t *pixels, uint8_t *y) {
  for (int p = 0; p < s->pixels; p++, pixels += s->pixel_bytes, y += DOT_BLOCK * DOT_STEP_BYTES) {
    __m512i both = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)pixels));
    if (p + s->stride < s->pixels) {
      __m256i partner = _mm256_loadu_si256((const __m256i *)(const void *)(pixels + s->stride * s->pixel_bytes));
      both = _mm512_or_si512(both, _mm512_slli_epi32(_mm512_cvtepu16_epi32(partner), 16));
    }
    _mm256_storeu_si256((__m256i *)(void *)y, _mm512_castsi512_si256(both));
    _mm256_storeu_si256((__m256i *)(void *)(y + s->block_bytes), _mm512_extracti64x4_epi64(both, 1));
  }
}

static void pad(const float *x, const float *alpha, int count, float factor, uint32_t noise, void *y) {
  (void)noise;
  __m512 factors = _mm512_set1_ps(factor);
  for (int i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, alpha + i), factors);
    _mm256_mask_storeu_epi16((uint16_t *)y + i, mask, rounded(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale)));
  }
}

static void group(const float *x, ptrdiff_t stride, int pixels, int count, const float *factor, uint32_t noise, void *y) {
  (void)factor;
  (void)noise;
  for (int i = 0; i < DOT_COLUMNS; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512i both = _mm512_cvtepu16_epi32(rounded(_mm512_maskz_loadu_ps(mask, x + i)));
    if (pixels > 1) {
      __m512i partner = _mm512_cvtepu16_epi32(rounded(_mm512_maskz_loadu_ps(mask, x + stride + i)));
      both = _mm512_or_si512(both, _mm512_slli_epi32(partner, 16));
    }
    _mm512_storeu_si512((uint16_t *)y + 2 * i, both);
  }
}

static __m512i weights_of(const float *w, __mmask16 mask, bool signs) {
  __m512 value = _mm512_maskz_loadu_ps(mask, w);
  if (signs) {
    __mmask16 positive = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_GE_OQ);
    value = _mm512_maskz_mov_ps(mask, _mm512_mask_blend_ps(positive, _mm512_set1_ps(-1), _mm512_set1_ps(1)));
  }
  return _mm512_cvtepu16_epi32(rounded(value));
}

static void weights(const float *weights, ptrdiff_t stride, int channels, int columns, bool signs, void *forward,
                    void *backward, int32_t *sums) {
  uint16_t numbers[DOT_TILE_CHANNELS][DOT_COLUMNS];
  (void)sums;
  for (int c = 0; c < DOT_TILE_CHANNELS; c += 2) {
    for (int h = 0; h < 2; h++) {
      __mmask16 there = first_lanes(columns - h * HALF);
      __m512i first = weights_of(weights + c * stride + h * HALF, c < channels ? there : 0, signs);
      __m512i second = weights_of(weights + (c + 1) * stride + h * HALF, c + 1 < channels ? there : 0, signs);
      _mm512_storeu_si512((uint16_t *)forward + (c / 2 * DOT_COLUMNS + h * HALF) * 2,
                          _mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
      _mm256_storeu_si256((__m256i *)(void *)&numbers[c][h * HALF], _mm512_cvtepi32_epi16(first));
      _mm256_storeu_si256((__m256i *)(void *)&numbers[c + 1][h * HALF], _mm512_cvtepi32_epi16(second));
    }
  }
  if (backward == NULL) return;
  /* Two columns at a time, of all channels: pairs of neighbors in `numbers`. */
  __m512i rows = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
  for (int o = 0; o < DOT_COLUMNS; o += 2)
    _mm512_storeu_si512((uint16_t *)backward + o * DOT_COLUMNS, _mm512_i32gather_epi32(rows, &numbers[0][o], 4));
}

const struct dot_format dot_bf16_avx512bf16 = {.name = "bf16 avx512bf16",
                                               .bytes = 2,
                                               .fill = 0,
                                               .windows = windows,
                                               .gradient = gradient,
                                               .keep = keep,
                                               .spread = spread,
                                               .pad = pad,
                                               .group = group,
                                               .weights = weights};

#endif
