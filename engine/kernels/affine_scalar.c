/* Affine steps and rounding to float32 in portable C. */
#include "engine/kernels/kernels.h"

static float affine(const struct hwgq_affine_job *job, double x, size_t lane) {
  for (int s = 0; s < job->steps; s++) {
    const double *factors = job->factors + (size_t)s * 2 * HWGQ_LANES;
    x = factors[lane] * x + factors[HWGQ_LANES + lane];
    if (job->relu >> s & 1) x = x > 0 ? x : 0;
  }
  return (float)x;
}

void hwgq_affine_i32_scalar(const struct hwgq_affine_job *job) {
  const int32_t *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) output[lane] = affine(job, (double)accumulators[lane], lane);
  }
}

void hwgq_affine_f32_scalar(const struct hwgq_affine_job *job) {
  const float *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) output[lane] = affine(job, (double)accumulators[lane], lane);
  }
}
