/* 64 lanes of byte sums in 16 and 32 bits, for the AVX-512 look-up kernels.
 *
 * `all` adds pairs of bytes as 16-bit numbers, `odd` their upper bytes, so that even lanes are all - (odd << 8). Before 16 bits
 * overflow, sums move to 32 bits. */
#ifndef HWGQ_LOOKUP_ZMM_H
#define HWGQ_LOOKUP_ZMM_H

#include <immintrin.h>

#include "engine/kernels/conv_tile.h"

#define INLINE static inline __attribute__((always_inline))

struct lookup_sums {
  __m512i all[CONV_MAX_TILE], odd[CONV_MAX_TILE];
};

struct lookup_wide {
  __m512i lanes[CONV_MAX_TILE][4]; /* lanes 16i .. 16i + 15 */
};

INLINE void lookup_widen(struct lookup_sums *s, const __m512i *bytes, const int T) {
  for (int t = 0; t < T; t++) {
    s->all[t] = _mm512_add_epi16(s->all[t], bytes[t]);
    s->odd[t] = _mm512_add_epi16(s->odd[t], _mm512_srli_epi16(bytes[t], 8));
  }
}

/* 0, 32, 1, 33, ...: even and odd lanes one after the other; `first` 0 or 16. */
INLINE __m512i lookup_interleave(int first) {
  const __m512i low = _mm512_set1_epi32(32 << 16);
  const __m512i step = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i index = _mm512_add_epi32(step, _mm512_set1_epi32(first));
  return _mm512_add_epi32(low, _mm512_or_si512(index, _mm512_slli_epi32(index, 16)));
}

INLINE void lookup_lanes(__m512i all, __m512i odd, __m512i out[4]) {
  const __m512i even = _mm512_sub_epi16(all, _mm512_slli_epi16(odd, 8));
  const __m512i low = _mm512_permutex2var_epi16(even, lookup_interleave(0), odd);
  const __m512i high = _mm512_permutex2var_epi16(even, lookup_interleave(16), odd);
  out[0] = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(low));
  out[1] = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(low, 1));
  out[2] = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(high));
  out[3] = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1));
}

INLINE void lookup_spill(struct lookup_wide *wide, struct lookup_sums *s, const int T) {
  for (int t = 0; t < T; t++) {
    __m512i lanes[4];
    lookup_lanes(s->all[t], s->odd[t], lanes);
    for (int i = 0; i < 4; i++) wide->lanes[t][i] = _mm512_add_epi32(wide->lanes[t][i], lanes[i]);
    s->all[t] = s->odd[t] = _mm512_setzero_si512();
  }
}

/* wide: NULL when nothing was spilled. */
INLINE void lookup_store(const struct hwgq_conv_job *job, const struct conv_tile *tile, const struct lookup_sums *s,
                         const struct lookup_wide *wide, const int T) {
  const __m128i shift = _mm_cvtsi32_si128(job->shift);
  const int registers = job->lanes / 16;
  for (int t = 0; t < T; t++) {
    __m512i lanes[4];
    lookup_lanes(s->all[t], s->odd[t], lanes);
    const __m512i correction = _mm512_set1_epi32(tile->correction[t]);
    for (int i = 0; i < 4 && i < registers; i++) {
      if (wide) lanes[i] = _mm512_add_epi32(lanes[i], wide->lanes[t][i]);
      const __m512i base = _mm512_add_epi32(_mm512_loadu_si512(job->base + 16 * i), correction);
      int32_t *to = tile->accumulators[t] + (i < 2 ? 0 : job->accumulator_block_step) + 16 * (i % 2);
      _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_sll_epi32(lanes[i], shift), base));
    }
  }
}

#endif
