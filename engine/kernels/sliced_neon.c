/* Bit-sliced convolution, 128 lanes: a full adder is three logical operations, the carry being a bitwise selection (BSL). */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define V uint32x4_t
#define LANES 128
#define NAME(x) x##_neon

INLINE V load(const void *p) {
  return vld1q_u32(p);
}
INLINE void store(void *p, V v) {
  vst1q_u32(p, v);
}
INLINE V zero(void) {
  return vdupq_n_u32(0);
}
INLINE V xor3(V a, V b, V c) {
  return veorq_u32(veorq_u32(a, b), c);
}
INLINE V complement(V x) {
  return vmvnq_u32(x);
}

/* c where a and b differ, else b: has its first operation in common with the sum. */
INLINE V majority(V a, V b, V c) {
  return vbslq_u32(veorq_u32(a, b), c, b);
}

INLINE V borrow_of(V n, V t, V b) {
  return majority(complement(n), t, b);
}

INLINE V bit_of(const uint32_t *words, int i) {
  return vtstq_u32(vld1q_u32(words), vdupq_n_u32(1u << i));
}

INLINE void copy_offsets(uint16_t *to, const uint16_t *from, uint16_t add) {
  for (int j = 0; j < 32; j += 8) vst1q_u16(to + j, vaddq_u16(vld1q_u16(from + j), vdupq_n_u16(add)));
}

/* Offsets of the set bits of every four bits, a byte each: bit numbers * LANES / 64; and how many there are. */
static const uint32_t nibble_offsets[16] = {0, 0x00,   0x02,   0x0200,   0x04,   0x0400,   0x0402,   0x040200,
                                            6, 0x0600, 0x0602, 0x060200, 0x0604, 0x060400, 0x060402, 0x06040200};
static const uint8_t nibble_counts[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};

INLINE void append(uint16_t *to, uint32_t bits, uint16_t first) {
  for (int i = 0; i < 8; i++, bits >>= 4, first = (uint16_t)(first + 4 * LANES / 64)) {
    const uint16x8_t offsets = vmovl_u8(vcreate_u8(nibble_offsets[bits & 15]));
    vst1_u16(to, vadd_u16(vget_low_u16(offsets), vdup_n_u16(first)));
    to += nibble_counts[bits & 15];
  }
}

INLINE void unpack(const uint8_t *sums, int planes, uint32_t start, int32_t *to) {
  static const uint32_t four_bits[4] = {1, 2, 4, 8};
  const V bits = vld1q_u32(four_bits), add = vdupq_n_u32(start);
  V sum[8];
  for (int k = 0; k < 8; k++) sum[k] = zero();
  for (int i = planes - 1; i >= 0; i--) {
    uint32_t mask;
    memcpy(&mask, sums + i * (LANES / 8), sizeof mask);
    for (int k = 0; k < 8; k++) { /* four lanes: 2 * sum + bit */
      sum[k] = vsubq_u32(vaddq_u32(sum[k], sum[k]), vtstq_u32(vdupq_n_u32(mask >> 4 * k), bits));
    }
  }
  for (int k = 0; k < 8; k++) vst1q_s32(to + 4 * k, vreinterpretq_s32_u32(vaddq_u32(vaddq_u32(sum[k], sum[k]), add)));
}

#include "engine/kernels/sliced_body.h"
#endif
