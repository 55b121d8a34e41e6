/* Bit-sliced convolution, 256 lanes: a full adder is five logical operations. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define V __m256i
#define LANES 256
#define NAME(x) x##_avx2

INLINE V load(const void *p) {
  return _mm256_load_si256(p);
}
INLINE void store(void *p, V v) {
  _mm256_store_si256(p, v);
}
INLINE V zero(void) {
  return _mm256_setzero_si256();
}
INLINE V xor3(V a, V b, V c) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}
INLINE V complement(V x) {
  return _mm256_xor_si256(x, _mm256_set1_epi32(-1));
}

/* c where a and b differ, else b: has its first operation in common with the sum. */
INLINE V majority(V a, V b, V c) {
  const V differ = _mm256_xor_si256(a, b);
  return _mm256_xor_si256(_mm256_and_si256(differ, _mm256_xor_si256(b, c)), b);
}

INLINE V borrow_of(V n, V t, V b) {
  return majority(complement(n), t, b);
}

INLINE V bit_of(const uint32_t *words, int i) {
  const V v = _mm256_sll_epi32(_mm256_loadu_si256((const V *)words), _mm_cvtsi32_si128(31 - i));
  return _mm256_srai_epi32(v, 31);
}

INLINE void copy_offsets(uint16_t *to, const uint16_t *from, uint16_t add) {
  const V adds = _mm256_set1_epi16((short)add);
  _mm256_storeu_si256((V *)to, _mm256_add_epi16(_mm256_loadu_si256((const V *)from), adds));
  _mm256_storeu_si256((V *)(to + 16), _mm256_add_epi16(_mm256_loadu_si256((const V *)(from + 16)), adds));
}

/* Offsets of the set bits of every four bits, a byte each: bit numbers * LANES / 64. */
static const uint32_t nibble_offsets[16] = {0,  0x00,   0x04,   0x0400,   0x08,   0x0800,   0x0804,   0x080400,
                                            12, 0x0c00, 0x0c04, 0x0c0400, 0x0c08, 0x0c0800, 0x0c0804, 0x0c080400};

INLINE void append(uint16_t *to, uint32_t bits, uint16_t first) {
  for (int i = 0; i < 8; i++, bits >>= 4, first = (uint16_t)(first + 16)) {
    const __m128i offsets = _mm_cvtepu8_epi16(_mm_cvtsi32_si128((int)nibble_offsets[bits & 15]));
    _mm_storel_epi64((__m128i *)to, _mm_add_epi16(offsets, _mm_set1_epi16((short)first)));
    to += __builtin_popcount(bits & 15);
  }
}

INLINE void unpack(const uint8_t *sums, int planes, uint32_t start, int32_t *to) {
  const V bits = _mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1), add = _mm256_set1_epi32((int)start);
  V sum[4] = {zero(), zero(), zero(), zero()};
  for (int i = planes - 1; i >= 0; i--) {
    uint32_t mask;
    memcpy(&mask, sums + i * (LANES / 8), sizeof mask);
    for (int k = 0; k < 4; k++) { /* eight lanes: 2 * sum + bit */
      const V set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)(mask >> 8 * k & 255)), bits), bits);
      sum[k] = _mm256_sub_epi32(_mm256_add_epi32(sum[k], sum[k]), set);
    }
  }
  for (int k = 0; k < 4; k++) {
    _mm256_storeu_si256((V *)(to + 8 * k), _mm256_add_epi32(_mm256_add_epi32(sum[k], sum[k]), add));
  }
}

#include "engine/kernels/sliced_body.h"
#endif
