/* Thresholds and packing in portable C. */
#include "engine/kernels/planes.h"

void hwgq_pack_i32_scalar(const struct hwgq_pack_job *job) {
  const int32_t *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS] = {0};
    for (int j = 0; j < job->levels; j++) {
      const int32_t *thresholds = (const int32_t *)job->thresholds + (size_t)j * HWGQ_LANES;
      for (uint32_t lane = 0; lane < HWGQ_LANES; lane++) {
        if (job->valid >> lane & 1) masks[j] |= (uint32_t)(accumulators[lane] >= thresholds[lane]) << lane;
      }
      masks[j] = (masks[j] ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}

void hwgq_pack_f32_scalar(const struct hwgq_pack_job *job) {
  const float *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS] = {0};
    for (int j = 0; j < job->levels; j++) {
      const float *thresholds = (const float *)job->thresholds + (size_t)j * HWGQ_LANES;
      for (uint32_t lane = 0; lane < HWGQ_LANES; lane++) {
        if (job->valid >> lane & 1) masks[j] |= (uint32_t)(accumulators[lane] >= thresholds[lane]) << lane;
      }
      masks[j] = (masks[j] ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}

void hwgq_pack_f64_scalar(const struct hwgq_pack_job *job) {
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
