/* Population counts of packed pixels: VPOPCNTD on sixteen words of bits, where pixels lie one behind the other and have one or
 * two planes. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#define SUMS_NAME sum_one_by_one
#define POPCOUNT(x) __builtin_popcount(x)
static void SUMS_NAME(const struct hwgq_sums_job *job);
#include "engine/kernels/sums_body.h"

/* Weighted counts of sixteen words; `shift`: by the plane of each. */
static inline __m512i count(const uint32_t *words, __mmask16 mask, __m512i shift) {
  return _mm512_sllv_epi32(_mm512_popcnt_epi32(_mm512_maskz_loadu_epi32(mask, words)), shift);
}

/* Pixels of `size` words, 16 or more. */
static void sum_long(const struct hwgq_sums_job *job, size_t size, __m512i shift) {
  const uint32_t *pixel = job->input;
  for (size_t i = 0; i < job->pixels; i++, pixel += size) {
    __m512i sum = _mm512_setzero_si512();
    size_t at = 0;
    for (; at + 16 <= size; at += 16) sum = _mm512_add_epi32(sum, count(pixel + at, 0xffff, shift));
    if (at < size) sum = _mm512_add_epi32(sum, count(pixel + at, (__mmask16)((1u << (size - at)) - 1), shift));
    job->sums[i] = _mm512_reduce_add_epi32(sum);
  }
}

/* Pixels of 1, 2, 4 or 8 words: several per register. */
static void sum_short(const struct hwgq_sums_job *job, unsigned size, __m512i shift) {
  static const uint16_t firsts[9] = {0, 0xffff, 0x5555, 0, 0x1111, 0, 0, 0, 0x0101}; /* words that start a pixel */
  const size_t at_once = 16 / size;
  const uint32_t *words = job->input;
  for (size_t i = 0; i < job->pixels; i += at_once, words += 16) {
    const size_t left = job->pixels - i, n = left < at_once ? left : at_once;
    __m512i sum = count(words, n == at_once ? 0xffff : (__mmask16)((1u << (n * size)) - 1), shift);
    if (size > 1) sum = _mm512_add_epi32(sum, _mm512_srli_epi64(sum, 32));
    if (size > 2) sum = _mm512_add_epi32(sum, _mm512_bsrli_epi128(sum, 8));
    if (size > 4) sum = _mm512_add_epi32(sum, _mm512_shuffle_i32x4(sum, sum, 0xb1));
    sum = _mm512_maskz_compress_epi32(firsts[size], sum);
    _mm512_mask_storeu_epi32(job->sums + i, (__mmask16)((1u << n) - 1), sum);
  }
}

void hwgq_sums_avx512(const struct hwgq_sums_job *job) {
  const size_t size = (size_t)job->words * (size_t)job->planes;
  if (job->masks || job->planes > 2 || job->plane_step != job->planes || job->pixel_step != size) {
    sum_one_by_one(job);
    return;
  }
  const __m512i shift = job->planes == 1 ? _mm512_setzero_si512() : _mm512_set1_epi64((int64_t)1 << 32);
  if (size >= 16) {
    sum_long(job, size, shift);
  } else if ((size & (size - 1)) == 0) {
    sum_short(job, (unsigned)size, shift);
  } else {
    sum_one_by_one(job);
  }
}
#endif
