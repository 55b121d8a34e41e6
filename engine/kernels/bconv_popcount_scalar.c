/* Binary convolution in portable C. Byte-wise population counts of 31 words fit a byte, so the counting ends (sum of a word's
 * four bytes) once per 31 words. The loops over lanes vectorize with whatever the baseline has. */
#include <string.h>

#include "engine/kernels/kernels.h"

enum { MAX_WORDS = 31 }; /* 31 * 8 <= 255 */

struct counts {
  uint32_t bytes[HWGQ_MAX_PLANES][HWGQ_LANES]; /* four byte counters per lane */
  int32_t sums[HWGQ_LANES];
};

static void count_word(struct counts *counts, const uint32_t *weights, const uint32_t *input, int lanes, int planes) {
  for (int p = 0; p < planes; p++) {
    const uint32_t a = input[p];
    uint32_t *bytes = counts->bytes[p];
    for (int i = 0; i < lanes; i++) {
      uint32_t x = weights[i] & a;
      x -= (x >> 1) & 0x55555555u;
      x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
      bytes[i] += (x + (x >> 4)) & 0x0f0f0f0fu;
    }
  }
}

static void flush(struct counts *counts, int planes) {
  for (int p = 0; p < planes; p++) {
    for (int i = 0; i < HWGQ_LANES; i++) {
      const uint32_t x = counts->bytes[p][i];
      const uint32_t halves = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
      counts->sums[i] += (int32_t)(((halves & 0xffffu) + (halves >> 16)) << p);
    }
  }
  memset(counts->bytes, 0, sizeof counts->bytes);
}

static void pixel(const struct hwgq_conv_job *job, const uint32_t *input, int32_t correction, int32_t *accumulators) {
  struct counts counts;
  memset(&counts, 0, sizeof counts);
  int pending = 0;
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const uint32_t *weights =
          (const uint32_t *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const uint32_t *words = input + (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (int i = 0; i < job->length; i++) {
        count_word(&counts, weights, words, job->lanes, job->planes);
        weights += job->lanes;
        words += job->plane_step;
        if (++pending == MAX_WORDS) {
          flush(&counts, job->planes);
          pending = 0;
        }
      }
    }
  }
  flush(&counts, job->planes);
  for (int i = 0; i < job->lanes; i++) {
    accumulators[i] = (int32_t)((uint32_t)counts.sums[i] << job->shift) + job->base[i] + correction;
  }
}

void hwgq_bconv_popcount_scalar(const struct hwgq_conv_job *job) {
  for (int line = 0; line < job->lines; line++) {
    const uint32_t *input = (const uint32_t *)job->input + (size_t)line * job->line_step;
    const int32_t *correction = job->correction + (size_t)line * job->correction_line_step;
    int32_t *accumulators = (int32_t *)job->accumulators + (size_t)line * job->accumulator_line_step;
    for (int x = 0; x < job->columns; x++) {
      pixel(job, input + (size_t)x * job->column_step, correction[x], accumulators + (size_t)x * HWGQ_LANES);
    }
  }
}
