/* Float convolution in portable C; fmaf rounds once, as the vector kernels do. */
#include <math.h>

#include "engine/kernels/kernels.h"

static void pixel(const struct hwgq_conv_job *job, const float *input, float *accumulators) {
  float sums[HWGQ_LANES] = {0};
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const float *weights =
          (const float *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const float *a = input + (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (int i = 0; i < job->length; i++, weights += job->lanes) {
        for (int lane = 0; lane < job->lanes; lane++) sums[lane] = fmaf(weights[lane], a[i], sums[lane]);
      }
    }
  }
  for (int lane = 0; lane < job->lanes; lane++) accumulators[lane] = sums[lane];
}

void hwgq_fconv_direct_scalar(const struct hwgq_conv_job *job) {
  for (int line = 0; line < job->lines; line++) {
    const float *input = (const float *)job->input + (size_t)line * job->line_step;
    float *accumulators = (float *)job->accumulators + (size_t)line * job->accumulator_line_step;
    for (int x = 0; x < job->columns; x++) {
      pixel(job, input + (size_t)x * job->column_step, accumulators + (size_t)x * HWGQ_LANES);
    }
  }
}
