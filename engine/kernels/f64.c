/* Accumulators in double, for inputs whose levels are not multiples of one step: thresholds, affine steps, pooling. Rare, so
 * portable C serves every kernel set; the interfaces are those of the other accumulator types. */
#include "engine/kernels/planes.h"

void hwgq_pack_f64(const struct hwgq_pack_job *job) {
  const double *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS] = {0};
    for (int j = 0; j < job->levels; j++) {
      const double *thresholds = (const double *)job->thresholds + (size_t)j * HWGQ_LANES;
      for (uint32_t lane = 0; lane < HWGQ_LANES; lane++) {
        if (job->valid >> lane & 1) masks[j] |= (uint32_t)(accumulators[lane] >= thresholds[lane]) << lane;
      }
      masks[j] = (masks[j] ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}

void hwgq_affine_f64(const struct hwgq_affine_job *job) {
  const double *accumulators = job->accumulators;
  float *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    for (size_t lane = 0; lane < (size_t)job->lanes; lane++) {
      double x = accumulators[lane];
      for (int s = 0; s < job->steps; s++) {
        const double *factors = job->factors + (size_t)s * 2 * HWGQ_LANES;
        x = factors[lane] * x + factors[HWGQ_LANES + lane];
        if (job->relu >> s & 1) x = x > 0 ? x : 0;
        if (job->round >> s & 1) x = (double)(float)x;
      }
      float y = (float)x;
      const float *residual = job->residual ? job->residual + i * job->residual_step : NULL;
      if (residual) y = (float)(job->scale * (double)y + job->residual_scale * (double)residual[lane]);
      if (residual && job->residual_relu) y = y > 0 ? y : 0;
      output[lane] = y;
    }
  }
}

#define POOL_NAME hwgq_pool_f64
#define POOL_TYPE double
#include "engine/kernels/pool_body.h"
