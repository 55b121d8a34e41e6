/* Binary convolution by table look-up, AVX-512: VPSHUFB finds the sums of four activations for 64 out channels at once
 * (codes.c). The tables stay in the first-level cache. Bytes count two words (at most 16 * 12), then they are widened. */
#if defined(__x86_64__)
#include <string.h>

#include "engine/kernels/lookup_zmm.h"

/* See bconv_popcount_avx512.c. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre")
#endif

enum { TILE = 8, WORDS = 2, WORD_SUM = 32 * 3 };

INLINE __m512i table_at(const uint8_t *tables, uint16_t code) {
  return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(tables + code)));
}

/* Adds one word: four bytes of weights per lane, eight codes per pixel. */
INLINE void look_up(__m512i *bytes, const uint8_t *weights, const uint16_t *const *codes, size_t at, const uint8_t *tables,
                    const int T) {
  const __m512i nibble = _mm512_set1_epi8(15);
  for (size_t b = 0; b < 4; b++) {
    const __m512i w = _mm512_loadu_si512(weights + 64 * b);
    const __m512i low = _mm512_and_si512(w, nibble), high = _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble);
    for (int t = 0; t < T; t++) {
      bytes[t] = _mm512_add_epi8(bytes[t], _mm512_shuffle_epi8(table_at(tables, codes[t][at + 2 * b]), low));
    }
    for (int t = 0; t < T; t++) {
      bytes[t] = _mm512_add_epi8(bytes[t], _mm512_shuffle_epi8(table_at(tables, codes[t][at + 2 * b + 1]), high));
    }
  }
}

INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T, const bool wide) {
  struct lookup_sums s;
  struct lookup_wide sums;
  const uint8_t *const tables = job->tables;
  const size_t length = (size_t)job->length;
  int room = 65535 / WORD_SUM;
  for (int t = 0; t < T; t++) s.all[t] = s.odd[t] = _mm512_setzero_si512();
  if (wide) memset(&sums, 0, sizeof sums);
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint8_t *weights = (const uint8_t *)((const uint32_t *)job->weights + (size_t)row * job->weight_row_step +
                                                 (size_t)run * job->weight_run_step);
      const uint16_t *codes[TILE];
      for (int t = 0; t < T; t++) {
        codes[t] = (const uint16_t *)(const void *)(tile->input[t] + (size_t)row * job->row_step + (size_t)run * job->run_step);
      }
      for (size_t word = 0; word < length; word += WORDS, weights += 256 * WORDS) {
        __m512i bytes[TILE];
        for (int t = 0; t < T; t++) bytes[t] = _mm512_setzero_si512();
        look_up(bytes, weights, codes, word * 8, tables, T);
        if (word + 1 < length) look_up(bytes, weights + 256, codes, word * 8 + 8, tables, T);
        if (wide && (room -= WORDS) < 0) {
          lookup_spill(&sums, &s, T);
          room = 65535 / WORD_SUM - WORDS;
        }
        lookup_widen(&s, bytes, T);
      }
    }
  }
  lookup_store(job, tile, &s, wide ? &sums : NULL, T);
}

#define TILE_FUNCTION(T)                                                                                                       \
  static void tile_##T(const struct hwgq_conv_job *job, const struct conv_tile *tile) {                                        \
    if ((int64_t)job->rows * job->runs * job->length * WORD_SUM > 65535) {                                                     \
      accumulate(job, tile, T, true);                                                                                          \
    } else {                                                                                                                   \
      accumulate(job, tile, T, false);                                                                                         \
    }                                                                                                                          \
  }
TILE_FUNCTION(1)
TILE_FUNCTION(2)
TILE_FUNCTION(3)
TILE_FUNCTION(4)
TILE_FUNCTION(5)
TILE_FUNCTION(6)
TILE_FUNCTION(7)
TILE_FUNCTION(8)

void hwgq_bconv_lookup4_avx512(const struct hwgq_conv_job *job) {
  static conv_tile_function *const functions[TILE] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8};
  conv_rectangle(job, TILE, functions);
}
#endif
