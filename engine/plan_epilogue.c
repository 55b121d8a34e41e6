/* Thresholds and affine steps of a stage, in the layout that the kernels read. */
#include <float.h>
#include <math.h>

#include "engine/plan.h"

void plan_coding_of(const struct hwgq_layer *quantize, struct plan_coding *coding) {
  *coding = (struct plan_coding){.sign = quantize->sign, .levels = hwgq_quantize_levels(quantize), .unit = 1};
  if (quantize->sign) {
    coding->planes = 1;
    coding->values[0] = -1;
    coding->values[1] = 1;
    return;
  }
  for (int k = 0; k < coding->levels; k++) {
    coding->values[k + 1] = quantize->centers[k];
    coding->steps[k] = (double)quantize->centers[k] - (k > 0 ? (double)quantize->centers[k - 1] : 0);
  }
  coding->thermometer = !hwgq_quantize_uniform(quantize);
  if (coding->thermometer) {
    coding->planes = coding->levels;
    return;
  }
  coding->unit = (double)quantize->centers[0];
  while (coding->levels >> coding->planes) coding->planes++;
}

static size_t type_bytes(enum plan_type type) {
  return type == PLAN_F64 ? sizeof(double) : sizeof(float);
}

struct folding {
  enum plan_type type; /* of the thresholds */
  const struct hwgq_chain *chain;
  const struct hwgq_layer *quantize;
  const bool *flip;
  double bound;
};

/* Thresholds of one channel, `at` elements into the thresholds. Returns whether they are negated. */
static bool fold_channel(const struct folding *folding, int channel, void *thresholds, size_t at) {
  const bool flip = folding->flip && folding->flip[channel];
  bool negate;
  switch (folding->type) {
  case PLAN_I32:
    hwgq_fold_i32(folding->chain, channel, flip, folding->quantize, (int32_t)folding->bound, (int32_t *)thresholds + at,
                  HWGQ_LANES, &negate);
    break;
  case PLAN_F32:
    hwgq_fold_f32(folding->chain, channel, flip, folding->quantize, (float *)thresholds + at, HWGQ_LANES, &negate);
    break;
  default:
    hwgq_fold_f64(folding->chain, channel, flip, folding->quantize, folding->bound, (double *)thresholds + at, HWGQ_LANES,
                  &negate);
    break;
  }
  return negate;
}

static enum hwgq_status fold_pack(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct folding *folding) {
  struct hwgq_arena *arena = &builder->plan->arena;
  const size_t blocks = (size_t)epilogue->block_count;
  epilogue->level_count = hwgq_quantize_levels(folding->quantize);
  epilogue->threshold_type = folding->type;
  const size_t block_elements = (size_t)epilogue->level_count * HWGQ_LANES;
  void *thresholds = hwgq_arena_allocate(arena, blocks * block_elements, type_bytes(folding->type));
  uint32_t *negate = hwgq_arena_allocate(arena, blocks, sizeof *negate);
  if (!thresholds || !negate) return plan_out_of_memory(builder);
  for (size_t b = 0; b < blocks; b++) {
    const struct plan_block *block = &epilogue->blocks[b];
    if ((epilogue->channel + block->channel) % 32) epilogue->unaligned = true;
    for (int lane = 0; lane < block->count; lane++) {
      const bool reversed = fold_channel(folding, block->channel + lane, thresholds, b * block_elements + (size_t)lane);
      negate[b] |= (uint32_t)reversed << lane;
    }
  }
  epilogue->thresholds = thresholds;
  epilogue->negate = negate;
  epilogue->bound = folding->type == PLAN_F32 ? (double)FLT_MAX : folding->bound;
  return HWGQ_OK;
}

enum hwgq_status plan_fold_floats(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const bool *flip) {
  epilogue->steps = hwgq_fold_affine(chain, 0, false, NULL, NULL, 0, &epilogue->relu, &epilogue->round);
  const size_t block_elements = (size_t)epilogue->steps * 2 * HWGQ_LANES;
  double *factors = hwgq_arena_allocate(&builder->plan->arena, (size_t)epilogue->block_count * block_elements, sizeof *factors);
  if (!factors) return plan_out_of_memory(builder);
  for (int b = 0; b < epilogue->block_count; b++) {
    const struct plan_block *block = &epilogue->blocks[b];
    for (int lane = 0; lane < block->count; lane++) {
      const int channel = block->channel + lane;
      double *a = factors + (size_t)b * block_elements + (size_t)lane;
      hwgq_fold_affine(chain, channel, flip && flip[channel], a, a + HWGQ_LANES, (size_t)2 * HWGQ_LANES, &epilogue->relu,
                       &epilogue->round);
    }
  }
  epilogue->factors = factors;
  return HWGQ_OK;
}

enum hwgq_status plan_fold_levels(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const struct hwgq_layer *quantize, const bool *flip, double bound) {
  const struct folding folding = {epilogue->steps ? PLAN_F32 : epilogue->type, chain, quantize, flip, bound};
  return fold_pack(builder, epilogue, &folding);
}
