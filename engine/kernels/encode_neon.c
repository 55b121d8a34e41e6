/* Packed levels to codes of four activations (codes.c). */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/kernels.h"

/* Four words at a time. Nibble j of both planes becomes code j: plane 0's in bits 4 to 7 and plane 1's in bits 8 to 11, which
 * is the table's offset, 16 bytes times the code. A byte of a word holds the nibbles of an even code, below, and of an odd one.
 */
static inline void four_words(uint8x16_t low, uint8x16_t high, uint16_t *codes) {
  const uint8x16_t even_low = vshlq_n_u8(low, 4), odd_low = vandq_u8(low, vdupq_n_u8(0xf0));
  const uint8x16_t even_high = vandq_u8(high, vdupq_n_u8(15)), odd_high = vshrq_n_u8(high, 4);
  const uint16x8_t even = vreinterpretq_u16_u8(vzip1q_u8(even_low, even_high));
  const uint16x8_t odd = vreinterpretq_u16_u8(vzip1q_u8(odd_low, odd_high));
  const uint16x8_t even_above = vreinterpretq_u16_u8(vzip2q_u8(even_low, even_high));
  const uint16x8_t odd_above = vreinterpretq_u16_u8(vzip2q_u8(odd_low, odd_high));
  vst1q_u16(codes, vzip1q_u16(even, odd));
  vst1q_u16(codes + 8, vzip2q_u16(even, odd));
  vst1q_u16(codes + 16, vzip1q_u16(even_above, odd_above));
  vst1q_u16(codes + 24, vzip2q_u16(even_above, odd_above));
}

static inline void one_word(uint32_t low, uint32_t high, uint16_t *codes) {
  for (unsigned j = 0; j < 8; j++) codes[j] = (uint16_t)((low >> 4 * j & 15) << 4 | (high >> 4 * j & 15) << 8);
}

void hwgq_encode4_neon(const struct hwgq_encode_job *job) {
  const size_t words = job->pixels * (size_t)job->words;
  const uint32_t *input = job->input;
  uint16_t *codes = (uint16_t *)(void *)job->codes;
  size_t i = 0;
  if (job->planes == 2) {
    for (; i + 4 <= words; i += 4) {
      const uint32x4x2_t planes = vld2q_u32(input + 2 * i);
      four_words(vreinterpretq_u8_u32(planes.val[0]), vreinterpretq_u8_u32(planes.val[1]), codes + 8 * i);
    }
    for (; i < words; i++) one_word(input[2 * i], input[2 * i + 1], codes + 8 * i);
    return;
  }
  for (; i + 4 <= words; i += 4) four_words(vreinterpretq_u8_u32(vld1q_u32(input + i)), vdupq_n_u8(0), codes + 8 * i);
  for (; i < words; i++) one_word(input[i], 0, codes + 8 * i);
}
#endif
