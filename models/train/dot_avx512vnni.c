#include "models/train/dot.h"

#if defined(__x86_64__)

#include <immintrin.h>

typedef __m512i sum_t;

static sum_t nothing(void) {
  return _mm512_setzero_si512();
}

static sum_t product(sum_t sum, __m512i a, __m512i b) {
  return _mm512_dpbusd_epi32(sum, a, b);
}

static __m512 with_start(sum_t sum, const int32_t *start) {
  return _mm512_cvtepi32_ps(_mm512_add_epi32(sum, _mm512_loadu_si512(start)));
}

#include "models/train/dot_avx512_body.h"

static void keep(const float *x, size_t count, float inverse_step, int zero, void *y) {
  __m512 factor = _mm512_set1_ps(inverse_step);
  __m512i offset = _mm512_set1_epi32(zero);
  for (size_t i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i < HALF ? (int)(count - i) : HALF);
    __m512i level = _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), factor)), offset);
    _mm_mask_storeu_epi8((uint8_t *)y + i, mask, _mm512_cvtepi32_epi8(level));
  }
}

/* Bytes 0, 1, 2, ... of four vectors become bytes 0 to 3, 4 to 7, 8 to 11, ... */
static void interleave(const __m128i row[4], __m256i out[2]) {
  __m128i low01 = _mm_unpacklo_epi8(row[0], row[1]), high01 = _mm_unpackhi_epi8(row[0], row[1]);
  __m128i low23 = _mm_unpacklo_epi8(row[2], row[3]), high23 = _mm_unpackhi_epi8(row[2], row[3]);
  out[0] = _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23));
  out[1] = _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23));
}

static void spread(const struct dot_spread *s, const uint8_t *pixels, uint8_t *y) {
  for (int p = 0; p < s->pixels; p++, pixels += s->pixel_bytes, y += DOT_BLOCK * DOT_STEP_BYTES) {
    __m128i row[4];
    __m256i out[2];
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++)
      row[k] = p + k * s->stride < s->pixels
                   ? _mm_loadu_si128((const __m128i *)(const void *)(pixels + k * s->stride * s->pixel_bytes))
                   : _mm_setzero_si128();
    interleave(row, out);
    _mm256_storeu_si256((__m256i *)(void *)y, out[0]);
    _mm256_storeu_si256((__m256i *)(void *)(y + s->block_bytes), out[1]);
  }
}

/* Numbers of DOT_NOISE_CHANNEL for 16 channels. */
static __m512i channel_noise(void) {
  __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_mullo_epi32(lanes, _mm512_set1_epi32((int)DOT_NOISE_CHANNEL));
}

static __m512i dithered(__m512 x, __m512i noise) {
  __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(noise), _mm512_set1_ps(0x1p-32f), x);
  return _mm512_maskz_cvtps_epi32(_mm512_cmp_ps_mask(value, value, _CMP_ORD_Q), value);
}

static void pad(const float *x, const float *alpha, int count, float factor, uint32_t noise, void *y) {
  __m512 factors = _mm512_set1_ps(factor);
  __m512i numbers = _mm512_add_epi32(channel_noise(), _mm512_set1_epi32((int)noise));
  for (int i = 0; i < count; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512 scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, alpha + i), factors);
    __m512i value = dithered(_mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), scale), numbers);
    __m128i bytes = _mm_xor_si128(_mm512_cvtepi32_epi8(value), _mm_set1_epi8((char)0x80));
    _mm_mask_storeu_epi8((uint8_t *)y + i, mask, bytes);
    numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32((int)(HALF * DOT_NOISE_CHANNEL)));
  }
}

static void group(const float *x, ptrdiff_t stride, int pixels, int count, const float *factor, uint32_t noise, void *y) {
  __m512i numbers = _mm512_add_epi32(channel_noise(), _mm512_set1_epi32((int)noise));
  for (int i = 0; i < DOT_COLUMNS; i += HALF) {
    __mmask16 mask = first_lanes(count - i);
    __m512 scale = _mm512_maskz_loadu_ps(mask, factor + i);
    __m128i row[4];
    __m256i out[2];
    __m512i number = numbers;
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
      row[p] = _mm_setzero_si128();
      if (p < pixels) {
        __m512 value = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + p * stride + i), scale);
        row[p] = _mm_maskz_mov_epi8(mask, _mm512_cvtepi32_epi8(dithered(value, number)));
      }
      number = _mm512_add_epi32(number, _mm512_set1_epi32((int)DOT_NOISE_PIXEL));
    }
    interleave(row, out);
    _mm256_storeu_si256((__m256i *)(void *)((uint8_t *)y + 4 * i), out[0]);
    _mm256_storeu_si256((__m256i *)(void *)((uint8_t *)y + 4 * i + 32), out[1]);
    numbers = _mm512_add_epi32(numbers, _mm512_set1_epi32((int)(HALF * DOT_NOISE_CHANNEL)));
  }
}

/* Without their signs, the bits of floats are ordered as unsigned integers, NaN above all. */
static void largest(const float *x, ptrdiff_t stride, int pixels, int count, float *largest) {
  __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()}, bits = _mm512_set1_epi32(0x7fffffff);
  __mmask16 mask[2] = {first_lanes(count), first_lanes(count - HALF)};
  for (int p = 0; p < pixels; p++, x += stride)
    for (int h = 0; h < 2; h++)
      most[h] = _mm512_max_epu32(most[h], _mm512_and_si512(bits, _mm512_maskz_loadu_epi32(mask[h], x + h * HALF)));
  for (int h = 0; h < 2; h++) _mm512_mask_storeu_epi32(largest + h * HALF, mask[h], most[h]);
}

/* For every lane in `there`, `yes` where `mask` is set and `no` elsewhere. */
static __m512i choose(__mmask16 there, __mmask16 mask, uint32_t yes, uint32_t no) {
  return _mm512_mask_mov_epi32(_mm512_maskz_set1_epi32(there, (int)no), there & mask, _mm512_set1_epi32((int)yes));
}

static void weights(const float *weights, ptrdiff_t stride, int channels, int columns, bool signs, void *forward,
                    void *backward, int32_t *sums) {
  __mmask16 there[2] = {first_lanes(columns), first_lanes(columns - HALF)};
  uint32_t positive[DOT_TILE_CHANNELS] = {0}; /* bit o: column o */
  (void)signs;
  for (int c = 0; c < channels; c++, weights += stride) {
    for (int h = 0; h < 2; h++) {
      __m512 w = _mm512_maskz_loadu_ps(there[h], weights + h * HALF);
      positive[c] |= (uint32_t)_mm512_mask_cmp_ps_mask(there[h], w, _mm512_setzero_ps(), _CMP_GE_OQ) << h * HALF;
    }
    if (sums != NULL) sums[c] += 2 * __builtin_popcount(positive[c]) - columns;
  }
  for (int c = 0; c < DOT_TILE_CHANNELS; c += 4) {
    for (int h = 0; h < 2; h++) {
      __m512i bytes = _mm512_setzero_si512();
      for (int i = 0; i < 4 && c + i < channels; i++)
        bytes =
            _mm512_or_si512(bytes, choose(there[h], (__mmask16)(positive[c + i] >> h * HALF), 0x01u << 8 * i, 0xffu << 8 * i));
      _mm512_storeu_si512((int8_t *)forward + (c / 4 * DOT_COLUMNS + h * HALF) * 4, bytes);
    }
  }
  if (backward == NULL) return;
  __m512i bits = _mm512_loadu_si512(positive);
  __mmask16 lanes = first_lanes(channels);
  for (int o = 0; o < DOT_COLUMNS; o += 4) {
    __m512i bytes = _mm512_setzero_si512();
    for (int i = 0; i < 4 && o + i < columns; i++)
      bytes = _mm512_or_si512(bytes, choose(lanes, _mm512_test_epi32_mask(bits, _mm512_set1_epi32((int)(1u << (o + i)))),
                                            0x01u << 8 * i, 0xffu << 8 * i));
    _mm512_storeu_si512((int8_t *)backward + o / 4 * DOT_COLUMNS * 4, bytes);
  }
}

const struct dot_format dot_int8_avx512vnni = {.name = "int8 avx512vnni",
                                               .bytes = 1,
                                               .fill = 0x80,
                                               .windows = windows,
                                               .gradient = gradient,
                                               .keep = keep,
                                               .spread = spread,
                                               .pad = pad,
                                               .group = group,
                                               .largest = largest,
                                               .weights = weights};

#endif
