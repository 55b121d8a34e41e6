/* Body of hwgq_add_* and hwgq_accumulate_*: included by one file per instruction set, which defines ADD_NAME and
 * ACCUMULATE_NAME. Loops over a strip have a constant length and vectorize. */
#include "engine/kernels/kernels.h"

enum { STRIP = 64 };

static inline void add_strip(const struct hwgq_add_job *job, size_t first, size_t count) {
  double sums[STRIP] = {0};
  for (int k = 0; k < job->input_count; k++) {
    const float *input = job->inputs[k] + first;
    const double coefficient = (double)job->coefficients[k];
    for (size_t i = 0; i < count; i++) sums[i] += coefficient * (double)input[i];
  }
  float *output = job->output + first;
  for (size_t i = 0; i < count; i++) output[i] = (float)sums[i];
}

void ADD_NAME(const struct hwgq_add_job *job) {
  size_t first = 0;
  for (; first + STRIP <= job->count; first += STRIP) add_strip(job, first, STRIP);
  if (first < job->count) add_strip(job, first, job->count - first);
}

void ACCUMULATE_NAME(const struct hwgq_accumulate_job *job) {
  const double factor = job->factor;
  const int32_t *from = job->accumulators;
  double *to = job->sums;
  if (job->first) {
    for (size_t i = 0; i < job->count; i++) to[i] = 0 + factor * from[i];
  } else {
    for (size_t i = 0; i < job->count; i++) to[i] += factor * from[i];
  }
}
