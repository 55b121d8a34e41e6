/* Bit-sliced convolution in 64-bit words: the reference of the others. */
#include <string.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define V uint64_t
#define LANES 64
#define NAME(x) x##_scalar

INLINE V load(const void *p) {
  V v;
  memcpy(&v, p, sizeof v);
  return v;
}
INLINE void store(void *p, V v) {
  memcpy(p, &v, sizeof v);
}
INLINE V zero(void) {
  return 0;
}
INLINE V xor3(V a, V b, V c) {
  return a ^ b ^ c;
}
INLINE V majority(V a, V b, V c) {
  return ((a ^ b) & (b ^ c)) ^ b;
}
INLINE V borrow_of(V n, V t, V b) {
  return majority(~n, t, b);
}
INLINE V complement(V x) {
  return ~x;
}

INLINE V bit_of(const uint32_t *words, int i) {
  const V low = words[0] >> i & 1, high = words[1] >> i & 1;
  return low * UINT32_MAX | high * UINT32_MAX << 32;
}

INLINE void copy_offsets(uint16_t *to, const uint16_t *from, uint16_t add) {
  for (int j = 0; j < 32; j++) to[j] = (uint16_t)(from[j] + add);
}

INLINE void append(uint16_t *to, uint32_t bits, uint16_t first) {
  for (; bits; bits &= bits - 1) *to++ = (uint16_t)(first + (uint32_t)__builtin_ctz(bits) * (LANES / 64));
}

INLINE void unpack(const uint8_t *sums, int planes, uint32_t start, int32_t *to) {
  for (int lane = 0; lane < 32; lane++) {
    uint32_t sum = 0;
    for (int i = 0; i < planes; i++) sum |= (uint32_t)(sums[i * (LANES / 8) + lane / 8] >> lane % 8 & 1) << i;
    to[lane] = (int32_t)(2 * sum + start);
  }
}

#include "engine/kernels/sliced_body.h"
