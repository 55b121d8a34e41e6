/* Stages of convolutions and linear layers: the weights, a max pooling, and what ends the stage. */
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan_pixels.h"

enum { MAX_POOL_PIXELS = 4096 }; /* 512 KB of accumulators */

static const char *levels_word(const struct plan_coding *coding, char word[8]) {
  if (coding->sign) return "sign";
  word[0] = coding->thermometer ? 't' : 'u';
  word[1] = (char)('0' + (coding->thermometer ? coding->levels / 10 : coding->planes));
  word[2] = coding->thermometer ? (char)('0' + coding->levels % 10) : '\0';
  word[3] = '\0';
  return word;
}

static char *kernel_name(struct plan_builder *builder, bool linear, const char *form, const struct plan_coding *coding) {
  struct hwgq_plan *plan = builder->plan;
  char word[8];
  if (!form) return hwgq_arena_format(&plan->arena, "%s_%s", linear ? "linear_f32" : "fconv_direct", plan->kernels->name);
  return hwgq_arena_format(&plan->arena, "%s_%s_%s_%s", linear ? "blinear" : "bconv", levels_word(coding, word), form,
                           plan->kernels->name);
}

static enum hwgq_status add_conv_temporaries(struct plan_builder *builder, int index) {
  const struct plan_stage *stage = &builder->plan->stages[index];
  const struct plan_conv *conv = &stage->conv;
  /* A copy: adding a temporary may move the tensors. */
  const struct plan_tensor input = *plan_tensor_at(builder, stage->inputs[0]);
  const bool real = stage->epilogue.type == PLAN_F64;
  const uint64_t element = real ? sizeof(double) : sizeof(float), lanes = HWGQ_LANES;
  const uint64_t pixels = (uint64_t)conv->band_lines * (uint64_t)conv->out.width;
  const uint64_t final_pixels = (uint64_t)conv->band * (uint64_t)conv->final.width;
  const uint64_t passes = real ? (uint64_t)input.coding.planes : 1;
  const uint64_t in_pixels = plan_pixels(input.shape), out_pixels = plan_pixels(conv->out);
  const bool unaligned = stage->epilogue.unaligned, binary = conv->binary, pooled = conv->pooled;
  const uint64_t groups = (uint64_t)conv->group_count;
  const uint64_t planes = unaligned ? (uint64_t)plan_tensor_at(builder, stage->epilogue.levels)->coding.planes : 0;
  const uint64_t span = binary ? (uint64_t)conv->form->span : 1;
  const uint64_t first = stage->pixels ? stage->pixels->bytes : 0;
  enum hwgq_status status = plan_add_temporary(builder, index, TEMP_ACCUMULATORS, span * pixels * lanes * element);
  if (!status && first) status = plan_add_temporary(builder, index, TEMP_PIXELS, first);
  if (!status && pooled) status = plan_add_temporary(builder, index, TEMP_POOLED, final_pixels * lanes * element);
  if (!status && binary && conv->form->code) {
    const uint64_t elements = in_pixels * hwgq_code_elements(conv->form, plan_words(&input));
    status = plan_add_temporary(builder, index, TEMP_CODES, elements * sizeof(uint32_t));
  }
  if (!status && binary)
    status = plan_add_temporary(builder, index, TEMP_SUMS, (in_pixels + (uint64_t)input.shape.width) * sizeof(int32_t));
  if (!status && binary) {
    status = plan_add_temporary(builder, index, TEMP_CORRECTIONS, passes * groups * out_pixels * sizeof(int32_t));
  }
  if (!status && real) status = plan_add_temporary(builder, index, TEMP_PLANE, pixels * lanes * sizeof(int32_t));
  if (!status && unaligned) status = plan_add_temporary(builder, index, TEMP_BITS, final_pixels * planes * sizeof(uint32_t));
  return status;
}

/* Largest |accumulator| of a binary layer: as an integer at most 15 * 2^24, of a thermometer with something for roundings. */
static double accumulator_bound(const struct plan_builder *builder, const struct hwgq_layer *layer,
                                const struct plan_coding *coding) {
  const double fan_in = (double)hwgq_layer_fan_in(builder->network, layer);
  if (coding->thermometer) return fan_in * (double)coding->values[coding->levels] * (1 + 1e-6);
  return fan_in * (coding->sign ? 1 : coding->levels);
}

/* Channels whose weights are negated, so that a pooling's maximum of accumulators is the maximum of what the chain before the
 * pooling makes of them. */
static enum hwgq_status find_flips(struct plan_builder *builder, const struct hwgq_chain *chain, int channels,
                                   const bool **flip) {
  bool *flips = hwgq_arena_allocate(&builder->plan->arena, (size_t)channels, sizeof *flips);
  if (!flips) return plan_out_of_memory(builder);
  for (int c = 0; c < channels; c++) flips[c] = hwgq_chain_falls(chain, c);
  *flip = flips;
  return HWGQ_OK;
}

/* A convolution with what is folded into it. */
struct weighted {
  const struct hwgq_layer *layer, *pool;
  struct hwgq_chain before; /* the pooling */
  struct plan_ending ending;
};

/* Form and weights of a convolution whose geometry and epilogue are known. */
static enum hwgq_status fill_conv(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                  const struct plan_tensor *input, const bool *flip, const char **form) {
  struct plan_conv *conv = &stage->conv;
  const struct plan_packing packing = plan_packing_of(builder, stage, layer, flip);
  if (conv->binary && plan_choose_sliced(builder->plan, layer, input, conv, &stage->epilogue)) {
    *form = "sliced";
    stage->run = run_sliced;
    return plan_pack_sliced(builder, stage, &packing, input);
  }
  if (conv->binary) {
    conv->form = plan_choose_form(builder, layer, input);
    *form = conv->form->name;
  }
  stage->prepare = conv->binary ? run_conv_prepare : NULL;
  stage->run = run_conv;
  return plan_pack_conv(builder, stage, &packing, input);
}

/* A convolution of the network's input, in integers unless the caller or else the network wants floats. */
static bool takes_pixels(const struct plan_builder *builder, const struct plan_stage *stage, const struct hwgq_layer *layer) {
  if (stage->run != run_conv || layer->inputs[0] != HWGQ_NETWORK_INPUT) return false;
  return builder->first_conv ? strcmp(builder->first_conv, "integer") == 0 : !layer->float_pixels;
}

/* Weights, geometry and epilogue of a weighted stage whose tensors are known. */
static enum hwgq_status fill_weighted(struct plan_builder *builder, struct plan_stage *stage, struct weighted *w) {
  const struct plan_tensor *input = plan_tensor_at(builder, stage->inputs[0]);
  const struct hwgq_layer *layer = w->layer;
  const bool packed = input->format == PLAN_PACKED, linear = layer->op == HWGQ_LINEAR;
  const double bound = packed ? accumulator_bound(builder, layer, &input->coding) : 0;
  const bool *flip = NULL;
  enum hwgq_status status = w->pool ? find_flips(builder, &w->before, layer->out_channels, &flip) : HWGQ_OK;
  if (status) return status;
  stage->epilogue.type = !packed ? PLAN_F32 : input->coding.thermometer ? PLAN_F64 : PLAN_I32;
  w->ending.chain.unit = packed && !input->coding.thermometer ? input->coding.unit : 1;
  if (linear && !packed) {
    stage->run = run_linear;
    status = plan_pack_linear(builder, stage, layer, input);
  } else {
    status = plan_shape_conv(builder, stage, layer, input, w->pool);
  }
  if (!status) status = plan_fold_ending(builder, stage, &w->ending, flip, bound);
  if (status) return status;
  const char *form = NULL;
  if (!stage->run) status = fill_conv(builder, stage, layer, input, flip, &form);
  if (status) return status;
  stage->kernel = kernel_name(builder, linear, form, &input->coding);
  if (!stage->kernel) return plan_out_of_memory(builder);
  if (takes_pixels(builder, stage, layer)) status = plan_add_pixels(builder, stage, layer, &w->ending, flip);
  if (stage->pixels) stage->run = run_first_conv;
  return status;
}

/* A convolution computes all rows of a pooling window before it pools: large windows would need much memory for that. */
bool plan_can_pool(const struct plan_builder *builder, int conv, int pool) {
  const struct hwgq_layer *layers = builder->network->layers;
  return layers[conv].op == HWGQ_CONV2D && (int64_t)layers[pool].kernel_height * layers[conv].output.width <= MAX_POOL_PIXELS;
}

/* Everything that is folded into the stage, from its layer on. A pooling takes the maximum of accumulators, as whatever comes
 * before it rises or falls with them, also where it is rounded to float32. */
static void extend_weighted(struct plan_builder *builder, int index, struct weighted *w) {
  const struct hwgq_layer *layers = builder->network->layers;
  struct plan_ending *ending = &w->ending;
  *w = (struct weighted){
      .layer = &layers[index],
      .ending = {.chain = {.unit = 1, .count = 1, .layers = {&layers[index]}}, .last = index, .concat = -1, .add = -1}};
  plan_extend(builder, ending);
  const int next = ending->quantize ? -1 : plan_only_consumer(builder, ending->last);
  if (next >= 0 && layers[next].op == HWGQ_MAX_POOL && plan_can_pool(builder, index, next)) {
    if (ending->last != index) ending->chain.rounded |= 1u << ending->chain.count;
    w->before = ending->chain;
    w->pool = &layers[next];
    builder->folded[next] = true;
    ending->last = next;
    plan_extend(builder, ending);
  }
  plan_extend_concat(builder, ending);
  if (!ending->quantize && ending->concat < 0) plan_extend_floats(builder, ending);
}

enum hwgq_status plan_build_weighted(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  struct plan_epilogue outputs = {.floats = -1, .levels = -1, .residual = -1};
  struct weighted w;
  int input = plan_tensor_of(builder, layer->inputs[0]);
  enum hwgq_status status = HWGQ_OK;
  if (!layer->binary || plan_tensor_at(builder, input)->format == PLAN_FLOAT) {
    status = plan_as_float(builder, index, input, &input);
    if (status) return status;
  }
  extend_weighted(builder, index, &w);
  const int groups = layer->op == HWGQ_LINEAR ? 1 : layer->groups;
  const bool aligned = groups == 1 || layer->out_channels / groups % HWGQ_LANES == 0;
  status = plan_add_outputs(builder, &w.ending, aligned, &outputs);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_layer_stage(builder, index, "", &stage);
  if (status) return status;
  stage->input_count = 1;
  stage->inputs[0] = input;
  stage->epilogue = outputs;
  status = fill_weighted(builder, stage, &w);
  if (status) return status;
  const int stage_index = builder->plan->stage_count - 1;
  if (stage->run == run_conv || stage->run == run_first_conv) return add_conv_temporaries(builder, stage_index);
  if (stage->run == run_sliced) {
    return plan_add_temporary(builder, stage_index, TEMP_SLICED, stage->conv.sliced->bytes);
  }
  const struct plan_epilogue epilogue = stage->epilogue;
  status =
      plan_add_temporary(builder, stage_index, TEMP_ACCUMULATORS, ((uint64_t)layer->out_channels + HWGQ_LANES) * sizeof(float));
  if (status || !epilogue.unaligned) return status;
  const int planes = plan_tensor_at(builder, epilogue.levels)->coding.planes;
  return plan_add_temporary(builder, stage_index, TEMP_BITS, (uint64_t)planes * sizeof(uint32_t));
}
