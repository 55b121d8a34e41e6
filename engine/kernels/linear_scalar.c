/* Float matrix times vector in portable C: the order that the vector kernels follow. */
#include <math.h>

#include "engine/kernels/kernels.h"

static float row_sum(const float *weights, const float *input, size_t inputs) {
  float sums[16] = {0};
  for (size_t i = 0; i < inputs; i += 16) {
    for (size_t k = 0; k < 16; k++) sums[k] = fmaf(weights[i + k], i + k < inputs ? input[i + k] : 0.0f, sums[k]);
  }
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t k = 0; k < half; k++) sums[k] += sums[k + half];
  }
  return sums[0];
}

void hwgq_linear_scalar(const struct hwgq_linear_job *job) {
  for (size_t o = 0; o < job->outputs; o++)
    job->output[o] = row_sum(job->weights + o * job->weight_step, job->input, job->inputs);
}
