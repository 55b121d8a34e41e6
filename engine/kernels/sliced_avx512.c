/* Bit-sliced convolution, 512 lanes: a full adder is two VPTERNLOG. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define V __m512i
#define LANES 512
#define NAME(x) x##_avx512

INLINE V load(const void *p) {
  return _mm512_load_si512(p);
}
INLINE void store(void *p, V v) {
  _mm512_store_si512(p, v);
}
INLINE V zero(void) {
  return _mm512_setzero_si512();
}
INLINE V xor3(V a, V b, V c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}
INLINE V majority(V a, V b, V c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0xe8);
}
INLINE V borrow_of(V n, V t, V b) {
  return _mm512_ternarylogic_epi64(n, t, b, 0x8e);
}
INLINE V complement(V x) {
  return _mm512_ternarylogic_epi64(x, x, x, 0x0f);
}

INLINE V bit_of(const uint32_t *words, int i) {
  const V v = _mm512_sll_epi32(_mm512_loadu_si512(words), _mm_cvtsi32_si128(31 - i));
  return _mm512_srai_epi32(v, 31);
}

INLINE void copy_offsets(uint16_t *to, const uint16_t *from, uint16_t add) {
  _mm512_storeu_si512(to, _mm512_add_epi16(_mm512_loadu_si512(from), _mm512_set1_epi16((short)add)));
}

INLINE void append(uint16_t *to, uint32_t bits, uint16_t first) {
  const V steps = _mm512_set_epi16(248, 240, 232, 224, 216, 208, 200, 192, 184, 176, 168, 160, 152, 144, 136, 128, 120, 112,
                                   104, 96, 88, 80, 72, 64, 56, 48, 40, 32, 24, 16, 8, 0);
  const V offsets = _mm512_add_epi16(steps, _mm512_set1_epi16((short)first));
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi16(bits, offsets));
}

/* Planes first to end - 1 (at most 16) as 16-bit numbers. */
INLINE V gather_planes(const uint8_t *sums, int first, int end) {
  V numbers = zero(), bit = _mm512_set1_epi16(1);
  for (int i = first; i < end; i++, bit = _mm512_add_epi16(bit, bit)) {
    uint32_t mask;
    memcpy(&mask, sums + i * (LANES / 8), sizeof mask);
    numbers = _mm512_mask_add_epi16(numbers, mask, numbers, bit);
  }
  return numbers;
}

INLINE void unpack(const uint8_t *sums, int planes, uint32_t start, int32_t *to) {
  const V low = gather_planes(sums, 0, planes < 16 ? planes : 16), add = _mm512_set1_epi32((int)start);
  V a = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(low)), b = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(low, 1));
  if (planes > 16) {
    const V high = gather_planes(sums, 16, planes);
    a = _mm512_or_si512(a, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high)), 16));
    b = _mm512_or_si512(b, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1)), 16));
  }
  _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_add_epi32(a, a), add));
  _mm512_storeu_si512(to + 16, _mm512_add_epi32(_mm512_add_epi32(b, b), add));
}

#include "engine/kernels/sliced_body.h"
#endif
