/* Binary convolution by table look-up, AVX-512 with VBMI: VPERMB finds the sums of six activations for 64 out channels at once
 * (codes.c). Bytes count 14 codes (at most 14 * 18), then they are widened. */
#if defined(__x86_64__)
#include <string.h>

#include "engine/kernels/lookup_zmm.h"

/* See bconv_popcount_avx512.c. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre")
#endif

enum { TILE = 8, CHUNK = 14, CODE_SUM = 6 * 3 };

INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T, const bool wide) {
  struct lookup_sums s;
  struct lookup_wide sums;
  const uint8_t *const tables = job->tables;
  const size_t length = (size_t)job->length;
  int room = 65535 / CODE_SUM;
  for (int t = 0; t < T; t++) s.all[t] = s.odd[t] = _mm512_setzero_si512();
  if (wide) memset(&sums, 0, sizeof sums);
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint8_t *weights = (const uint8_t *)((const uint32_t *)job->weights + (size_t)row * job->weight_row_step +
                                                 (size_t)run * job->weight_run_step);
      const size_t begin = (size_t)row * job->row_step + (size_t)run * job->run_step, end = begin + length;
      for (size_t at = begin; at < end;) {
        const size_t stop = end - at < CHUNK ? end : at + CHUNK;
        __m512i bytes[TILE];
        for (int t = 0; t < T; t++) bytes[t] = _mm512_setzero_si512();
        for (; at < stop; at++, weights += 64) {
          const __m512i w = _mm512_loadu_si512(weights);
          for (int t = 0; t < T; t++) {
            bytes[t] = _mm512_add_epi8(bytes[t], _mm512_permutexvar_epi8(w, _mm512_load_si512(tables + tile->input[t][at])));
          }
        }
        if (wide && (room -= CHUNK) < 0) {
          lookup_spill(&sums, &s, T);
          room = 65535 / CODE_SUM - CHUNK;
        }
        lookup_widen(&s, bytes, T);
      }
    }
  }
  lookup_store(job, tile, &s, wide ? &sums : NULL, T);
}

#define TILE_FUNCTION(T)                                                                                                       \
  static void tile_##T(const struct hwgq_conv_job *job, const struct conv_tile *tile) {                                        \
    if ((int64_t)job->rows * job->runs * job->length * CODE_SUM > 65535) {                                                     \
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

void hwgq_bconv_lookup6_avx512vbmi(const struct hwgq_conv_job *job) {
  static conv_tile_function *const functions[TILE] = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6, tile_7, tile_8};
  conv_rectangle(job, TILE, functions);
}
#endif
