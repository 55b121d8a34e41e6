/* Packed levels to codes of six activations (codes.c). */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

/* Five codes of a word, as offsets of tables of 64 bytes. */
static inline __m256i codes_of(uint32_t low, uint32_t high) {
  const __m256i shifts = _mm256_setr_epi32(0, 6, 12, 18, 24, 30, 30, 30), six = _mm256_set1_epi32(63);
  const __m256i a = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)low), shifts), six);
  const __m256i b = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)high), shifts), six);
  return _mm256_or_si256(_mm256_slli_epi32(a, 6), _mm256_slli_epi32(b, 12));
}

void hwgq_encode6_avx512(const struct hwgq_encode_job *job) {
  const struct hwgq_encode_job j = *job;
  const uint32_t *input = j.input;
  uint32_t *output = j.codes;
  for (size_t i = 0; i < j.pixels; i++) {
    uint32_t *rest = output + 5 * (size_t)j.words, code = 0;
    int shift = 0;
    for (int word = 0; word < j.words; word++, input += j.planes, output += 5) {
      const uint32_t high = j.planes == 2 ? input[1] : 0;
      _mm256_mask_storeu_epi32(output, 0x1f, codes_of(input[0], high));
      code |= (input[0] >> 30 << 6 | high >> 30 << 12) << shift;
      shift += 2;
      if (shift == 6) {
        *rest++ = code;
        code = 0;
        shift = 0;
      }
    }
    if (shift) *rest++ = code;
    output = rest;
  }
}
#endif
