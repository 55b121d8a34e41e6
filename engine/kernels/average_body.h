/* Body of hwgq_average_*: included by one file per instruction set, which defines AVERAGE_NAME. Loops over channels have a
 * constant length and vectorize. */
#include "engine/kernels/kernels.h"

static inline __attribute__((always_inline)) void average_strip(const struct hwgq_average_job *job, size_t first,
                                                                const size_t count) {
  double sums[32] = {0};
  for (int y = 0; y < job->rows; y++) {
    const float *from = job->input + (size_t)y * job->row_step + first;
    for (int x = 0; x < job->columns; x++, from += job->column_step) {
      for (size_t c = 0; c < count; c++) sums[c] += (double)from[c];
    }
  }
  for (size_t c = 0; c < count; c++) job->output[first + c] = (float)(sums[c] / job->divisor);
}

void AVERAGE_NAME(const struct hwgq_average_job *job) {
  size_t first = 0;
  for (; first + 32 <= job->channels; first += 32) average_strip(job, first, 32);
  for (; first + 8 <= job->channels; first += 8) average_strip(job, first, 8);
  for (; first < job->channels; first++) average_strip(job, first, 1);
}
