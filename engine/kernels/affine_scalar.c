/* Affine steps and rounding to float32 in portable C. */
#include "engine/kernels/kernels.h"

static float affine(const struct hwgq_affine_job *job, double x, size_t lane) {
  for (int s = 0; s < job->steps; s++) {
    const double *factors = job->factors + (size_t)s * 2 * HWGQ_LANES;
    x = factors[lane] * x + factors[HWGQ_LANES + lane];
    if (job->relu >> s & 1) x = x > 0 ? x : 0;
    if (job->round >> s & 1) x = (double)(float)x;
  }
  return (float)x;
}

static void pixel(const struct hwgq_affine_job *job, size_t lane, double x, const float *residual, float *output) {
  float y = affine(job, x, lane);
  if (residual) y = (float)(job->scale * (double)y + job->residual_scale * (double)residual[lane]);
  if (residual && job->residual_relu) y = y > 0 ? y : 0;
  output[lane] = y;
}

void hwgq_affine_i32_scalar(const struct hwgq_affine_job *job) {
  const int32_t *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    const float *residual = job->residual ? job->residual + i * job->residual_step : NULL;
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) pixel(job, lane, (double)accumulators[lane], residual, output);
  }
}

void hwgq_affine_f32_scalar(const struct hwgq_affine_job *job) {
  const float *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    const float *residual = job->residual ? job->residual + i * job->residual_step : NULL;
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) pixel(job, lane, (double)accumulators[lane], residual, output);
  }
}

void hwgq_affine_f64_scalar(const struct hwgq_affine_job *job) {
  const double *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    const float *residual = job->residual ? job->residual + i * job->residual_step : NULL;
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) pixel(job, lane, accumulators[lane], residual, output);
  }
}
