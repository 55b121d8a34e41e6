/* Packed levels to codes of four activations (codes.c). */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

/* Nibble j of both planes becomes code j: a table's offset, 16 bytes times the code. */
static inline __m128i codes_of(uint32_t low, uint32_t high) {
  const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28), nibble = _mm256_set1_epi32(15);
  const __m256i a = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)low), shifts), nibble);
  const __m256i b = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)high), shifts), nibble);
  const __m256i codes = _mm256_or_si256(_mm256_slli_epi32(a, 4), _mm256_slli_epi32(b, 8));
  return _mm_packus_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
}

void hwgq_encode4_avx2(const struct hwgq_encode_job *job) {
  const size_t words = job->pixels * (size_t)job->words;
  const uint32_t *input = job->input;
  __m128i *output = (__m128i *)(void *)job->codes;
  if (job->planes == 2) {
    for (size_t i = 0; i < words; i++) _mm_storeu_si128(output + i, codes_of(input[2 * i], input[2 * i + 1]));
    return;
  }
  for (size_t i = 0; i < words; i++) _mm_storeu_si128(output + i, codes_of(input[i], 0));
}
#endif
