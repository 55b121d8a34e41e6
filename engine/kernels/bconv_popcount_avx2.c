/* Binary convolution for AVX2: AND, then population counts of nibbles by table (VPSHUFB), in bytes.
 *
 * The table of plane p holds counts times 2^p, so the planes of a word add up in one byte counter. A word adds at most
 * 8 * (2^P - 1) to a byte; the counters are added into 32-bit sums before they can overflow. A tile is two pixels by 16 lanes.
 */
#if defined(__x86_64__)
#include <immintrin.h>

#include "engine/kernels/kernels.h"

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 2, REGISTERS = 2 };

struct sums {
  __m256i bytes[TILE][REGISTERS], words[TILE][REGISTERS];
};

INLINE void flush(struct sums *s, const int T) {
  const __m256i ones8 = _mm256_set1_epi8(1), ones16 = _mm256_set1_epi16(1);
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < REGISTERS; v++) {
      const __m256i pairs = _mm256_maddubs_epi16(s->bytes[t][v], ones8);
      s->words[t][v] = _mm256_add_epi32(s->words[t][v], _mm256_madd_epi16(pairs, ones16));
      s->bytes[t][v] = _mm256_setzero_si256();
    }
  }
}

INLINE void count(struct sums *s, const uint32_t *weights, const uint32_t *const input[TILE], const __m256i *table, const int T,
                  const int P) {
  const __m256i nibble = _mm256_set1_epi8(15);
  for (int v = 0; v < REGISTERS; v++) {
    const __m256i w = _mm256_loadu_si256((const __m256i *)(weights + 8 * v));
    for (int t = 0; t < T; t++) {
      for (int p = 0; p < P; p++) {
        const __m256i x = _mm256_and_si256(w, _mm256_set1_epi32((int)input[t][p]));
        const __m256i low = _mm256_shuffle_epi8(table[p], _mm256_and_si256(x, nibble));
        const __m256i high = _mm256_shuffle_epi8(table[p], _mm256_and_si256(_mm256_srli_epi16(x, 4), nibble));
        s->bytes[t][v] = _mm256_add_epi8(s->bytes[t][v], _mm256_add_epi8(low, high));
      }
    }
  }
}

/* 16 lanes, of which the first is `lane`, for T pixels. */
INLINE void tile(const struct hwgq_conv_job *job, const uint32_t *const pixels[TILE], int lane, __m256i out[TILE][REGISTERS],
                 const int T, const int P) {
  const int limit = 255 / (8 * ((1 << P) - 1));
  __m256i table[HWGQ_MAX_PLANES];
  table[0] = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  for (int p = 1; p < P; p++) table[p] = _mm256_add_epi8(table[p - 1], table[p - 1]);
  struct sums s;
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < REGISTERS; v++) s.bytes[t][v] = s.words[t][v] = _mm256_setzero_si256();
  }
  int pending = 0;
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint32_t *weights =
          (const uint32_t *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step + lane;
      const size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      const uint32_t *input[TILE];
      for (int t = 0; t < T; t++) input[t] = pixels[t] + at;
      for (int i = 0; i < job->length; i++, weights += job->lanes) {
        count(&s, weights, input, table, T, P);
        for (int t = 0; t < T; t++) input[t] += job->plane_step;
        if (++pending == limit) {
          flush(&s, T);
          pending = 0;
        }
      }
    }
  }
  flush(&s, T);
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < REGISTERS; v++) out[t][v] = s.words[t][v];
  }
}

INLINE void rectangle(const struct hwgq_conv_job *job, const int P) {
  for (int line = 0; line < job->lines; line++) {
    const uint32_t *input = (const uint32_t *)job->input + (size_t)line * job->line_step;
    const int32_t *correction = job->correction + (size_t)line * job->correction_line_step;
    int32_t *accumulators = (int32_t *)job->accumulators + (size_t)line * job->accumulator_line_step;
    for (int x = 0; x < job->columns; x += TILE) {
      const uint32_t *pixels[TILE] = {input + (size_t)x * job->column_step, input + (size_t)(x + 1) * job->column_step};
      const int count = job->columns - x < TILE ? job->columns - x : TILE;
      for (int lane = 0; lane < job->lanes; lane += 8 * REGISTERS) {
        __m256i out[TILE][REGISTERS];
        if (count == TILE) {
          tile(job, pixels, lane, out, TILE, P);
        } else {
          tile(job, pixels, lane, out, 1, P);
        }
        for (int t = 0; t < count; t++) {
          for (int v = 0; v < REGISTERS; v++) {
            const __m256i base = _mm256_loadu_si256((const __m256i *)(job->base + lane + 8 * v));
            const __m256i sum = _mm256_sll_epi32(out[t][v], _mm_cvtsi32_si128(job->shift));
            _mm256_storeu_si256((__m256i *)(accumulators + (size_t)(x + t) * HWGQ_LANES + lane + 8 * v),
                                _mm256_add_epi32(sum, _mm256_add_epi32(base, _mm256_set1_epi32(correction[x + t]))));
          }
        }
      }
    }
  }
}

void hwgq_bconv_popcount_avx2(const struct hwgq_conv_job *job) {
  switch (job->planes) {
  case 1:
    rectangle(job, 1);
    break;
  case 2:
    rectangle(job, 2);
    break;
  case 3:
    rectangle(job, 3);
    break;
  default:
    rectangle(job, 4);
    break;
  }
}
#endif
