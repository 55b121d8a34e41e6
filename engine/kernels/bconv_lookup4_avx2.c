/* Binary convolution by table look-up, AVX2: VPSHUFB finds the sums of four activations for 32 out channels at once (codes.c).
 *
 * A tile is T pixels by 32 lanes, counted in bytes for two words (at most 16 * 12), then widened: `all` adds pairs of bytes as
 * 16-bit numbers, `odd` their upper bytes, so that even lanes are all - (odd << 8). 16 bits hold 65535 / 96 words; longer sums
 * move to 32 bits on the way. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/conv_tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 6, WORDS = 2, WORD_SUM = 32 * 3 };

struct sums {
  __m256i all[TILE], odd[TILE];
  __m256i wide[TILE][4]; /* 32 bits: lanes 8i .. 8i + 7 */
};

INLINE void widen(struct sums *s, const __m256i *bytes, const int T) {
  for (int t = 0; t < T; t++) {
    s->all[t] = _mm256_add_epi16(s->all[t], bytes[t]);
    s->odd[t] = _mm256_add_epi16(s->odd[t], _mm256_srli_epi16(bytes[t], 8));
  }
}

INLINE void lanes_of(const struct sums *s, int t, __m256i out[4]) {
  const __m256i even = _mm256_sub_epi16(s->all[t], _mm256_slli_epi16(s->odd[t], 8));
  const __m256i low = _mm256_unpacklo_epi16(even, s->odd[t]), high = _mm256_unpackhi_epi16(even, s->odd[t]);
  out[0] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(low));
  out[1] = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(high));
  out[2] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(low, 1));
  out[3] = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(high, 1));
}

static void spill(struct sums *s, int T) {
  for (int t = 0; t < T; t++) {
    __m256i lanes[4];
    lanes_of(s, t, lanes);
    for (int i = 0; i < 4; i++) s->wide[t][i] = _mm256_add_epi32(s->wide[t][i], lanes[i]);
    s->all[t] = s->odd[t] = _mm256_setzero_si256();
  }
}

/* Adds one word: four bytes of weights per lane, eight codes per pixel. */
INLINE void look_up(__m256i *bytes, const uint8_t *weights, const uint16_t *const *codes, size_t at, const uint8_t *tables,
                    const int T) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int b = 0; b < 4; b++) {
    const __m256i w = _mm256_loadu_si256((const __m256i *)(weights + 32 * b));
    const __m256i low = _mm256_and_si256(w, nibble), high = _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble);
    for (int t = 0; t < T; t++) {
      const __m128i *table = (const __m128i *)(tables + codes[t][at + 2 * (size_t)b]);
      bytes[t] = _mm256_add_epi8(bytes[t], _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(table)), low));
    }
    for (int t = 0; t < T; t++) {
      const __m128i *table = (const __m128i *)(tables + codes[t][at + 2 * (size_t)b + 1]);
      bytes[t] = _mm256_add_epi8(bytes[t], _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128(table)), high));
    }
  }
}

INLINE void store(const struct hwgq_conv_job *job, const struct conv_tile *tile, const struct sums *s, bool wide, const int T) {
  const __m128i shift = _mm_cvtsi32_si128(job->shift);
  for (int t = 0; t < T; t++) {
    __m256i lanes[4];
    lanes_of(s, t, lanes);
    for (int i = 0; i < 4; i++) {
      if (wide) lanes[i] = _mm256_add_epi32(lanes[i], s->wide[t][i]);
      const __m256i base = _mm256_loadu_si256((const __m256i *)(job->base + 8 * i));
      const __m256i sum =
          _mm256_add_epi32(_mm256_sll_epi32(lanes[i], shift), _mm256_add_epi32(base, _mm256_set1_epi32(tile->correction[t])));
      _mm256_storeu_si256((__m256i *)(tile->accumulators[t] + 8 * i), sum);
    }
  }
}

INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T) {
  struct sums s;
  const uint8_t *const tables = job->tables;
  const bool wide = (int64_t)job->rows * job->runs * job->length * WORD_SUM > 65535;
  int room = 65535 / WORD_SUM;
  for (int t = 0; t < T; t++) s.all[t] = s.odd[t] = _mm256_setzero_si256();
  if (wide) memset(s.wide, 0, sizeof s.wide);
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint8_t *weights = (const uint8_t *)((const uint32_t *)job->weights + (size_t)row * job->weight_row_step +
                                                 (size_t)run * job->weight_run_step);
      const uint16_t *codes[TILE];
      for (int t = 0; t < T; t++) {
        codes[t] = (const uint16_t *)(const void *)(tile->input[t] + (size_t)row * job->row_step + (size_t)run * job->run_step);
      }
      const size_t length = (size_t)job->length;
      for (size_t word = 0; word < length; word += WORDS, weights += 128 * WORDS) {
        __m256i bytes[TILE];
        for (int t = 0; t < T; t++) bytes[t] = _mm256_setzero_si256();
        look_up(bytes, weights, codes, word * 8, tables, T);
        if (word + 1 < length) look_up(bytes, weights + 128, codes, word * 8 + 8, tables, T);
        if (wide && (room -= WORDS) < 0) {
          spill(&s, T);
          room = 65535 / WORD_SUM - WORDS;
        }
        widen(&s, bytes, T);
      }
    }
  }
  store(job, tile, &s, wide, T);
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

void hwgq_bconv_lookup4_avx2(const struct hwgq_conv_job *job) {
  static conv_tile_function *const functions[TILE] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};
  conv_rectangle(job, TILE, functions);
}
#endif
