/* Epilogues: accumulators of a block become packed levels or floats of the output tensor. */
#include "engine/plan.h"

static void pack(const struct hwgq_plan *plan, enum plan_type type, const struct hwgq_pack_job *job) {
  switch (type) {
  case PLAN_I32:
    plan->kernels->pack_i32(job);
    break;
  case PLAN_F32:
    plan->kernels->pack_f32(job);
    break;
  case PLAN_F64:
    hwgq_pack_f64(job);
    break;
  }
}

/* Bits of a block that starts inside a word: or-ed into one or two words of an output that was cleared. */
static void scatter(const struct plan_tensor *output, uint32_t *data, size_t pixels, const struct plan_block *block,
                    const uint32_t *bits) {
  const size_t planes = (size_t)output->coding.planes, pixel_words = plan_pixel_words(output);
  const size_t word = (size_t)block->channel / 32;
  const unsigned shift = (unsigned)block->channel % 32;
  const bool crosses = shift + (unsigned)block->count > 32;
  for (size_t i = 0; i < pixels; i++) {
    uint32_t *pixel = data + i * pixel_words + word * planes;
    for (size_t p = 0; p < planes; p++) {
      pixel[p] |= bits[i * planes + p] << shift;
      if (crosses) pixel[planes + p] |= bits[i * planes + p] >> (32 - shift);
    }
  }
}

static void pack_block(const struct hwgq_plan *plan, const struct plan_epilogue *epilogue, int index, struct hwgq_pack_job *job,
                       const struct plan_tensor *output, uint32_t *data, uint32_t *bits) {
  const struct plan_block *block = &epilogue->blocks[index];
  const size_t lanes = (size_t)index * (size_t)epilogue->levels * HWGQ_LANES;
  job->thresholds = (const char *)epilogue->thresholds + lanes * (epilogue->type == PLAN_F64 ? sizeof(double) : sizeof(float));
  job->levels = epilogue->levels;
  job->planes = output->coding.planes;
  job->thermometer = output->coding.thermometer;
  job->negate = epilogue->negate[index];
  job->valid = block->count == 32 ? UINT32_MAX : (1u << block->count) - 1;
  if (epilogue->unaligned) {
    job->output = bits;
    job->output_step = (size_t)job->planes;
    pack(plan, epilogue->type, job);
    scatter(output, data, job->pixels, block, bits);
    return;
  }
  job->output = data + (size_t)block->channel / 32 * (size_t)job->planes;
  job->output_step = plan_pixel_words(output);
  pack(plan, epilogue->type, job);
}

static void affine_block(const struct hwgq_plan *plan, const struct plan_epilogue *epilogue, int index,
                         struct hwgq_affine_job *job) {
  job->factors = epilogue->factors + (size_t)index * (size_t)epilogue->steps * 2 * HWGQ_LANES;
  job->steps = epilogue->steps;
  job->relu = epilogue->relu;
  job->lanes = epilogue->blocks[index].count;
  switch (epilogue->type) {
  case PLAN_I32:
    plan->kernels->affine_i32(job);
    break;
  case PLAN_F32:
    plan->kernels->affine_f32(job);
    break;
  case PLAN_F64:
    hwgq_affine_f64(job);
    break;
  }
}

void run_epilogue(const struct hwgq_plan *plan, const struct plan_epilogue *epilogue, int block, const void *accumulators,
                  size_t accumulator_step, size_t pixels, const struct plan_tensor *output, void *data, size_t first,
                  uint32_t *bits, const float *residual) {
  if (epilogue->pack) {
    struct hwgq_pack_job job = {.accumulators = accumulators, .accumulator_step = accumulator_step, .pixels = pixels};
    pack_block(plan, epilogue, block, &job, output, (uint32_t *)data + first * plan_pixel_words(output), bits);
    return;
  }
  const size_t channels = (size_t)output->shape.channels;
  struct hwgq_affine_job job = {.accumulators = accumulators,
                                .accumulator_step = accumulator_step,
                                .pixels = pixels,
                                .output = (float *)data + first * channels + epilogue->blocks[block].channel,
                                .output_step = channels,
                                .residual = residual ? residual + first * channels + epilogue->blocks[block].channel : NULL,
                                .residual_step = channels,
                                .scale = epilogue->scale,
                                .residual_scale = epilogue->residual_scale};
  affine_block(plan, epilogue, block, &job);
}

void run_chain(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
               struct plan_units units) {
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  const size_t channels = (size_t)input->shape.channels;
  const struct plan_slice part = plan_slice(plan_pixels(input->shape), stage->run_units, units);
  const float *data = (const float *)plan_data(plan, frame, stage->inputs[0]) + part.begin * channels;
  for (int block = 0; block < stage->epilogue.block_count; block++) {
    run_epilogue(plan, &stage->epilogue, block, data + stage->epilogue.blocks[block].channel, channels, part.end - part.begin,
                 &plan->tensors[stage->output], plan_data(plan, frame, stage->output), part.begin, NULL, NULL);
  }
}
