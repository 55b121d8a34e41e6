/* Body of hwgq_max_*: included by one file per instruction set, which defines MAX_NAME. Loops over words have a constant length
 * and vectorize. */
#include <string.h>

#include "engine/kernels/kernels.h"

/* Words whose planes are compared by themselves: thermometers, signs, levels of one bit. */
static inline __attribute__((always_inline)) void or_words(const struct hwgq_max_job *job, size_t first, const size_t count) {
  uint32_t best[16] = {0}, reversed[16] = {0};
  if (job->reversed) memcpy(reversed, job->reversed + first, count * sizeof *reversed);
  for (int y = 0; y < job->rows; y++) {
    const uint32_t *from = job->input + (size_t)y * job->row_step + first;
    for (int x = 0; x < job->columns; x++, from += job->column_step) {
      for (size_t i = 0; i < count; i++) best[i] |= from[i] ^ reversed[i];
    }
  }
  for (size_t i = 0; i < count; i++) job->output[first + i] = best[i] ^ reversed[i];
}

/* The larger of two levels of two bits, for 32 channels: bits 0 to 31 are their low digits, 32 to 63 their high ones. A level's
 * bits count where its high digit is not the smaller one. b takes the result; a_high, b_high: high digits in both halves. */
#define MAX_PAIR(a, b, a_high, b_high) ((b) = ((a) & ((a_high) | ~(b_high))) | ((b) & ((b_high) | ~(a_high))))
#define HIGH(x) (((x) >> 32) | ((x) >> 32 << 32))

/* Four words at once, as the vectors that compilers have everywhere. */
typedef uint64_t four_pairs __attribute__((vector_size(32)));

static inline void max_four_pairs(const struct hwgq_max_job *job, size_t word) {
  four_pairs best = {0}, reversed = {0}, pixel;
  if (job->reversed) memcpy(&reversed, job->reversed + 2 * word, sizeof reversed);
  for (int y = 0; y < job->rows; y++) {
    const uint32_t *from = job->input + (size_t)y * job->row_step + 2 * word;
    for (int x = 0; x < job->columns; x++, from += job->column_step) {
      memcpy(&pixel, from, sizeof pixel);
      pixel ^= reversed;
      const four_pairs pixel_high = HIGH(pixel), best_high = HIGH(best);
      MAX_PAIR(pixel, best, pixel_high, best_high);
    }
  }
  best ^= reversed;
  memcpy(job->output + 2 * word, &best, sizeof best);
}

/* Any number of binary digits: compared from the highest down. */
static inline __attribute__((always_inline)) void max_digits(const struct hwgq_max_job *job, size_t word, const int planes) {
  uint32_t best[HWGQ_MAX_PLANES] = {0};
  const size_t at = word * (size_t)planes;
  const uint32_t *reversed = job->reversed ? job->reversed + at : NULL;
  for (int y = 0; y < job->rows; y++) {
    const uint32_t *from = job->input + (size_t)y * job->row_step + at;
    for (int x = 0; x < job->columns; x++, from += job->column_step) {
      uint32_t greater = 0, equal = UINT32_MAX;
      for (int p = planes - 1; p >= 0; p--) {
        const uint32_t a = from[p] ^ (reversed ? reversed[p] : 0);
        greater |= equal & a & ~best[p];
        equal &= ~(a ^ best[p]);
      }
      for (int p = 0; p < planes; p++) best[p] ^= (from[p] ^ (reversed ? reversed[p] : 0) ^ best[p]) & greater;
    }
  }
  for (int p = 0; p < planes; p++) job->output[at + (size_t)p] = best[p] ^ (reversed ? reversed[p] : 0);
}

void MAX_NAME(const struct hwgq_max_job *job) {
  size_t i = 0;
  if (job->planes == 1 || !job->digits) {
    const size_t count = job->words * (size_t)job->planes;
    for (; i + 16 <= count; i += 16) or_words(job, i, 16);
    for (; i < count; i++) or_words(job, i, 1);
  } else if (job->planes == 2) {
    for (; i + 4 <= job->words; i += 4) max_four_pairs(job, i);
    for (; i < job->words; i++) max_digits(job, i, 2);
  } else {
    for (; i < job->words; i++) max_digits(job, i, job->planes);
  }
}
