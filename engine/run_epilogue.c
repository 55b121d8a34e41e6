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
    plan->kernels->pack_f64(job);
    break;
  }
}

/* Bits of a block that starts inside a word, whose lower bits are there already: they are completed, and the next word is
 * begun when the block crosses into it. */
static void scatter(const struct plan_tensor *output, uint32_t *data, size_t pixels, unsigned shift, unsigned count,
                    const uint32_t *bits) {
  const size_t planes = (size_t)output->coding.planes, pixel_words = plan_pixel_words(output);
  const bool crosses = shift + count > 32;
  for (size_t i = 0; i < pixels; i++, data += pixel_words, bits += planes) {
    for (size_t p = 0; p < planes; p++) {
      data[p] |= bits[p] << shift;
      if (crosses) data[planes + p] = bits[p] >> (32 - shift);
    }
  }
}

/* Pixels of one block, and where they go. */
struct piece {
  const struct hwgq_plan *plan;
  const struct plan_frame *frame;
  const struct plan_epilogue *epilogue;
  int block;
  size_t first; /* pixel of the output */
  uint32_t *bits;
};

static void pack_block(const struct piece *piece, const void *accumulators, size_t accumulator_step, size_t pixels) {
  const struct plan_epilogue *epilogue = piece->epilogue;
  const struct plan_block *block = &epilogue->blocks[piece->block];
  const struct plan_tensor *output = &piece->plan->tensors[epilogue->levels];
  const size_t lanes = (size_t)piece->block * (size_t)epilogue->level_count * HWGQ_LANES;
  const size_t element = epilogue->threshold_type == PLAN_F64 ? sizeof(double) : sizeof(float);
  const size_t channel = (size_t)(epilogue->channel + block->channel), planes = (size_t)output->coding.planes;
  uint32_t *data = plan_data(piece->plan, piece->frame, epilogue->levels);
  data += piece->first * plan_pixel_words(output) + channel / 32 * planes;
  struct hwgq_pack_job job = {.accumulators = accumulators,
                              .accumulator_step = accumulator_step,
                              .pixels = pixels,
                              .thresholds = (const char *)epilogue->thresholds + lanes * element,
                              .levels = epilogue->level_count,
                              .planes = output->coding.planes,
                              .negate = epilogue->negate[piece->block],
                              .valid = block->count == 32 ? UINT32_MAX : (1u << block->count) - 1,
                              .thermometer = output->coding.thermometer,
                              .output = data,
                              .output_step = plan_pixel_words(output)};
  if (channel % 32 == 0) {
    pack(piece->plan, epilogue->threshold_type, &job);
    return;
  }
  job.output = piece->bits;
  job.output_step = planes;
  pack(piece->plan, epilogue->threshold_type, &job);
  scatter(output, data, pixels, channel % 32, (unsigned)block->count, piece->bits);
}

static void affine(const struct hwgq_plan *plan, enum plan_type type, const struct hwgq_affine_job *job) {
  switch (type) {
  case PLAN_I32:
    plan->kernels->affine_i32(job);
    break;
  case PLAN_F32:
    plan->kernels->affine_f32(job);
    break;
  case PLAN_F64:
    plan->kernels->affine_f64(job);
    break;
  }
}

/* The floats go to `buffer` when no tensor takes them. Returns where they are. */
static const float *affine_block(const struct piece *piece, const void *accumulators, size_t accumulator_step, size_t pixels,
                                 float *buffer, size_t *step) {
  const struct plan_epilogue *epilogue = piece->epilogue;
  const struct plan_block *block = &epilogue->blocks[piece->block];
  const size_t channel = (size_t)(epilogue->channel + block->channel);
  struct hwgq_affine_job job = {.accumulators = accumulators,
                                .accumulator_step = accumulator_step,
                                .pixels = pixels,
                                .factors = epilogue->factors + (size_t)piece->block * (size_t)epilogue->steps * 2 * HWGQ_LANES,
                                .steps = epilogue->steps,
                                .relu = epilogue->relu,
                                .round = epilogue->round,
                                .lanes = block->count,
                                .output = buffer,
                                .output_step = HWGQ_LANES,
                                .scale = epilogue->scale,
                                .residual_scale = epilogue->residual_scale,
                                .residual_relu = epilogue->residual_relu};
  if (epilogue->floats >= 0) {
    const struct plan_tensor *output = &piece->plan->tensors[epilogue->floats];
    job.output = plan_data(piece->plan, piece->frame, epilogue->floats);
    job.output += plan_float_index(output, piece->first, channel);
    job.output_step = plan_float_step(output);
  }
  if (epilogue->residual >= 0) {
    const struct plan_tensor *residual = &piece->plan->tensors[epilogue->residual];
    job.residual = plan_data(piece->plan, piece->frame, epilogue->residual);
    job.residual += plan_float_index(residual, piece->first, (size_t)block->channel);
    job.residual_step = plan_float_step(residual);
  }
  affine(piece->plan, epilogue->type, &job);
  *step = job.output_step;
  return job.output;
}

void run_epilogue(const struct hwgq_plan *plan, const struct plan_frame *frame, const struct plan_epilogue *epilogue, int block,
                  const void *accumulators, size_t accumulator_step, size_t pixels, size_t first, uint32_t *bits) {
  enum { AT_ONCE = 32 }; /* pixels whose floats stay in the first-level cache until they are levels */
  struct piece piece = {plan, frame, epilogue, block, first, bits};
  if (!epilogue->steps) {
    pack_block(&piece, accumulators, accumulator_step, pixels);
    return;
  }
  float buffer[AT_ONCE * HWGQ_LANES];
  const size_t element = epilogue->type == PLAN_F64 ? sizeof(double) : sizeof(float);
  for (size_t done = 0; done < pixels;) {
    const size_t left = pixels - done, count = epilogue->levels >= 0 && left > AT_ONCE ? AT_ONCE : left;
    size_t step;
    piece.first = first + done;
    const float *floats = affine_block(&piece, (const char *)accumulators + done * accumulator_step * element, accumulator_step,
                                       count, buffer, &step);
    if (epilogue->levels >= 0) pack_block(&piece, floats, step, count);
    done += count;
  }
}

void run_chain(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
               struct plan_units units) {
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  const struct plan_slice part = plan_slice(plan_pixels(input->shape), stage->run_units, units);
  const float *data = plan_data(plan, frame, stage->inputs[0]);
  for (int block = 0; block < stage->epilogue.block_count; block++) {
    const size_t channel = (size_t)stage->epilogue.blocks[block].channel;
    run_epilogue(plan, frame, &stage->epilogue, block, data + plan_float_index(input, part.begin, channel),
                 plan_float_step(input), part.end - part.begin, part.begin, NULL);
  }
}
