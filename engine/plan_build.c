/* From layers to stages.
 *
 * A stage takes as much as can be computed before anything is written to memory: a convolution or linear layer, then a max
 * pooling (convolutions only), then batch_norm, scale and relu layers, then a quantizer; or such a chain by itself on a float
 * tensor. A layer is folded into a stage only when its input has no other use. Everything else is one stage per layer, on
 * floats or, where it exists, on packed levels. */
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan_pixels.h"

enum { MAX_POOL_PIXELS = 4096 }; /* 512 KB of accumulators */

/* ---- small steps -------------------------------------------------------------------------------------------------------- */

static struct plan_tensor *tensor_at(const struct plan_builder *builder, int tensor) {
  return &builder->plan->tensors[tensor];
}

static int tensor_of(const struct plan_builder *builder, int layer) {
  return layer == HWGQ_NETWORK_INPUT ? builder->plan->input_tensor : builder->plan->layer_tensors[layer];
}

/* The only user of a layer's output, -1 when there are several or none. */
static int only_consumer(const struct plan_builder *builder, int layer) {
  return builder->consumer_count[layer] == 1 ? builder->consumer[layer] : -1;
}

static enum hwgq_status add_layer_stage(struct plan_builder *builder, int layer, const char *kernel,
                                        struct plan_stage **stage) {
  enum hwgq_status status = plan_add_stage(builder, stage);
  if (status) return status;
  (*stage)->name = builder->plan->layer_names[layer];
  (*stage)->kernel = kernel;
  (*stage)->last_layer = layer;
  (*stage)->macs = hwgq_layer_macs(builder->network, &builder->network->layers[layer]);
  return HWGQ_OK;
}

/* The float version of a tensor: itself, or the output of an unpack stage that is made once. */
static enum hwgq_status as_float(struct plan_builder *builder, int layer, int tensor, int *result) {
  if (tensor_at(builder, tensor)->format == PLAN_FLOAT) {
    *result = tensor;
    return HWGQ_OK;
  }
  if (builder->float_version[tensor]) {
    *result = builder->float_version[tensor];
    return HWGQ_OK;
  }
  int unpacked;
  enum hwgq_status status = plan_add_tensor(builder, PLAN_FLOAT, tensor_at(builder, tensor)->shape, NULL, 0, &unpacked);
  if (status) return status;
  struct plan_stage *stage;
  status = add_layer_stage(builder, layer, "unpack", &stage);
  if (status) return status;
  stage->macs = 0;
  stage->run = run_unpack;
  stage->input_count = 1;
  stage->inputs[0] = tensor;
  stage->output = unpacked;
  builder->float_version[tensor] = unpacked;
  *result = unpacked;
  return HWGQ_OK;
}

static bool same_shape(struct hwgq_shape a, struct hwgq_shape b) {
  return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

/* ---- chains ------------------------------------------------------------------------------------------------------------- */

static bool joins_chain(enum hwgq_op op) {
  return op == HWGQ_BATCH_NORM || op == HWGQ_SCALE || op == HWGQ_RELU;
}

/* Appends the layers after *last that only it feeds; *last moves along. *quantize: the quantizer that ends the chain or NULL.
 */
static void extend_chain(struct plan_builder *builder, struct hwgq_chain *chain, int *last,
                         const struct hwgq_layer **quantize) {
  *quantize = NULL;
  for (;;) {
    const int next = only_consumer(builder, *last);
    if (next < 0) return;
    const struct hwgq_layer *layer = &builder->network->layers[next];
    if (layer->op == HWGQ_QUANTIZE) {
      *quantize = layer;
    } else if (joins_chain(layer->op) && chain->count < HWGQ_MAX_CHAIN) {
      chain->layers[chain->count++] = layer;
    } else {
      return;
    }
    builder->folded[next] = true;
    *last = next;
    if (*quantize) return;
  }
}

/* The output tensor of a stage that ends with a chain, registered as the output of layer `last`. */
static enum hwgq_status add_chain_output(struct plan_builder *builder, const struct hwgq_layer *quantize, int last,
                                         int *tensor) {
  struct plan_coding coding;
  if (quantize) plan_coding_of(quantize, &coding);
  const struct hwgq_shape shape = builder->network->layers[last].output;
  enum hwgq_status status =
      plan_add_tensor(builder, quantize ? PLAN_PACKED : PLAN_FLOAT, shape, quantize ? &coding : NULL, 0, tensor);
  if (!status) builder->plan->layer_tensors[last] = *tensor;
  return status;
}

/* A batch_norm, scale, relu or quantize layer that no stage before it could take. */
static enum hwgq_status build_chain(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index], *quantize = NULL;
  struct hwgq_chain chain = {.unit = 1};
  int last = index, input, output;
  enum hwgq_status status = as_float(builder, index, tensor_of(builder, layer->inputs[0]), &input);
  if (status) return status;
  if (layer->op == HWGQ_QUANTIZE) {
    quantize = layer;
  } else {
    chain.layers[chain.count++] = layer;
    extend_chain(builder, &chain, &last, &quantize);
  }
  status = add_chain_output(builder, quantize, last, &output);
  if (status) return status;
  struct plan_stage *stage;
  status = add_layer_stage(builder, index, quantize ? "quantize" : "affine", &stage);
  if (status) return status;
  stage->last_layer = last;
  stage->run = run_chain;
  stage->input_count = 1;
  stage->inputs[0] = input;
  stage->output = output;
  struct plan_block *blocks;
  int count;
  status = plan_make_blocks(builder, tensor_at(builder, input)->shape.channels, 1, 0, &blocks, &count);
  if (status) return status;
  stage->epilogue.type = PLAN_F32;
  stage->epilogue.blocks = blocks;
  stage->epilogue.block_count = count;
  return plan_fold(builder, &stage->epilogue, &chain, quantize, NULL, 0);
}

/* ---- convolutions and linear layers ------------------------------------------------------------------------------------- */

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

static enum hwgq_status add_temporary(struct plan_builder *builder, int stage, int which, uint64_t bytes) {
  int tensor;
  if (bytes > SIZE_MAX / 2) return plan_out_of_memory(builder);
  enum hwgq_status status =
      plan_add_tensor(builder, PLAN_TEMPORARY, (struct hwgq_shape){0, 0, 0}, NULL, (size_t)bytes, &tensor);
  if (!status) builder->plan->stages[stage].temporaries[which] = tensor;
  return status;
}

static enum hwgq_status add_conv_temporaries(struct plan_builder *builder, int index) {
  const struct plan_stage *stage = &builder->plan->stages[index];
  const struct plan_conv *conv = &stage->conv;
  /* Copies: adding a temporary may move the tensors. */
  const struct plan_tensor input = *tensor_at(builder, stage->inputs[0]), output = *tensor_at(builder, stage->output);
  const bool real = stage->epilogue.type == PLAN_F64;
  const uint64_t element = real ? sizeof(double) : sizeof(float), lanes = HWGQ_LANES;
  const uint64_t pixels = (uint64_t)conv->band_lines * (uint64_t)conv->out.width;
  const uint64_t final_pixels = (uint64_t)conv->band * (uint64_t)conv->final.width;
  const uint64_t passes = real ? (uint64_t)input.coding.planes : 1;
  const uint64_t in_pixels = plan_pixels(input.shape), out_pixels = plan_pixels(conv->out);
  const uint64_t planes = (uint64_t)output.coding.planes;
  const bool unaligned = stage->epilogue.unaligned, binary = conv->binary, pooled = conv->pooled;
  const uint64_t groups = (uint64_t)conv->group_count;
  const uint64_t span = binary ? (uint64_t)conv->form->span : 1;
  const uint64_t first = stage->pixels ? stage->pixels->bytes : 0;
  enum hwgq_status status = add_temporary(builder, index, TEMP_ACCUMULATORS, span * pixels * lanes * element);
  if (!status && first) status = add_temporary(builder, index, TEMP_PIXELS, first);
  if (!status && pooled) status = add_temporary(builder, index, TEMP_POOLED, final_pixels * lanes * element);
  if (!status && binary && conv->form->code) {
    const uint64_t elements = in_pixels * hwgq_code_elements(conv->form, plan_words(&input));
    status = add_temporary(builder, index, TEMP_CODES, elements * sizeof(uint32_t));
  }
  if (!status && binary)
    status = add_temporary(builder, index, TEMP_SUMS, (in_pixels + (uint64_t)input.shape.width) * sizeof(int32_t));
  if (!status && binary) {
    status = add_temporary(builder, index, TEMP_CORRECTIONS, passes * groups * out_pixels * sizeof(int32_t));
  }
  if (!status && real) status = add_temporary(builder, index, TEMP_PLANE, pixels * lanes * sizeof(int32_t));
  if (!status && unaligned) status = add_temporary(builder, index, TEMP_BITS, final_pixels * planes * sizeof(uint32_t));
  return status;
}

/* Largest |accumulator| of a binary layer. */
static int32_t accumulator_bound(const struct plan_builder *builder, const struct hwgq_layer *layer,
                                 const struct plan_coding *coding) {
  const int64_t level = coding->sign ? 1 : coding->levels;
  return (int32_t)((int64_t)hwgq_layer_fan_in(builder->network, layer) * level); /* at most 15 * 2^24 */
}

/* Channels whose weights are negated, so that a pooling's maximum of accumulators is the maximum of alpha * accumulator. */
static enum hwgq_status find_flips(struct plan_builder *builder, const struct hwgq_layer *layer, const bool **flip) {
  *flip = NULL;
  if (!layer->has_alpha) return HWGQ_OK;
  bool *flips = hwgq_arena_allocate(&builder->plan->arena, (size_t)layer->out_channels, sizeof *flips);
  if (!flips) return plan_out_of_memory(builder);
  for (int c = 0; c < layer->out_channels; c++) flips[c] = layer->alpha[c] < 0;
  *flip = flips;
  return HWGQ_OK;
}

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
static enum hwgq_status fill_weighted(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                      struct hwgq_chain *chain, const struct hwgq_layer *pool,
                                      const struct hwgq_layer *quantize) {
  const struct plan_tensor *input = tensor_at(builder, stage->inputs[0]);
  const bool packed = input->format == PLAN_PACKED, linear = layer->op == HWGQ_LINEAR;
  const bool *flip = NULL;
  enum hwgq_status status = pool ? find_flips(builder, layer, &flip) : HWGQ_OK;
  if (status) return status;
  stage->epilogue.type = !packed ? PLAN_F32 : input->coding.thermometer ? PLAN_F64 : PLAN_I32;
  chain->unit = packed && !input->coding.thermometer ? input->coding.unit : 1;
  if (linear && !packed) {
    stage->run = run_linear;
    status = plan_pack_linear(builder, stage, layer, input);
  } else {
    status = plan_shape_conv(builder, stage, layer, input, pool);
  }
  if (status) return status;
  status = plan_fold(builder, &stage->epilogue, chain, quantize, flip,
                     packed ? accumulator_bound(builder, layer, &input->coding) : 0);
  if (status) return status;
  const char *form = NULL;
  if (!stage->run) status = fill_conv(builder, stage, layer, input, flip, &form);
  if (status) return status;
  stage->kernel = kernel_name(builder, linear, form, &input->coding);
  if (!stage->kernel) return plan_out_of_memory(builder);
  if (takes_pixels(builder, stage, layer)) status = plan_add_pixels(builder, stage, layer, chain, quantize, flip);
  if (stage->pixels) stage->run = run_first_conv;
  return status;
}

/* A convolution computes all rows of a pooling window before it pools: large windows would need much memory for that. */
static bool can_pool(const struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  const int next = only_consumer(builder, index);
  if (layer->op != HWGQ_CONV2D || next < 0 || builder->network->layers[next].op != HWGQ_MAX_POOL) return false;
  return (int64_t)builder->network->layers[next].kernel_height * layer->output.width <= MAX_POOL_PIXELS;
}

/* A convolution that ends in floats can add what its only user, an add layer, adds to it, when that exists already. Returns the
 * add layer or -1; *other: the input of the add layer that is not the convolution. */
static int find_residual(const struct plan_builder *builder, const struct hwgq_layer *layer, int last, int *other) {
  const int next = only_consumer(builder, last);
  if (layer->op != HWGQ_CONV2D || next < 0) return -1;
  const struct hwgq_layer *add = &builder->network->layers[next];
  if (add->op != HWGQ_ADD || add->input_count != 2) return -1;
  *other = add->inputs[0] == last ? 1 : 0;
  const int tensor = tensor_of(builder, add->inputs[*other]);
  return tensor >= 0 && tensor_at(builder, tensor)->format == PLAN_FLOAT ? next : -1;
}

static void set_residual(const struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *add,
                         int other) {
  stage->inputs[stage->input_count++] = tensor_of(builder, add->inputs[other]);
  stage->epilogue.residual = true;
  stage->epilogue.scale = (double)add->coefficients[1 - other];
  stage->epilogue.residual_scale = (double)add->coefficients[other];
}

static enum hwgq_status build_weighted(struct plan_builder *builder, int index) {
  const struct hwgq_network *network = builder->network;
  const struct hwgq_layer *layer = &network->layers[index], *pool = NULL, *quantize;
  int input = tensor_of(builder, layer->inputs[0]), output, last = index;
  enum hwgq_status status = HWGQ_OK;
  if (!layer->binary || tensor_at(builder, input)->format == PLAN_FLOAT) status = as_float(builder, index, input, &input);
  if (status) return status;
  struct hwgq_chain chain = {.unit = 1, .count = 1, .layers = {layer}};
  if (can_pool(builder, index)) {
    last = only_consumer(builder, index);
    pool = &network->layers[last];
    builder->folded[last] = true;
  }
  extend_chain(builder, &chain, &last, &quantize);
  int other = 0;
  const int add = quantize ? -1 : find_residual(builder, layer, last, &other);
  if (add >= 0) {
    builder->folded[add] = true;
    last = add;
  }
  status = add_chain_output(builder, quantize, last, &output);
  if (status) return status;
  struct plan_stage *stage;
  status = add_layer_stage(builder, index, "", &stage);
  if (status) return status;
  stage->last_layer = last;
  stage->input_count = 1;
  stage->inputs[0] = input;
  stage->output = output;
  if (add >= 0) set_residual(builder, stage, &network->layers[add], other);
  status = fill_weighted(builder, stage, layer, &chain, pool, quantize);
  if (status) return status;
  const int stage_index = builder->plan->stage_count - 1;
  if (stage->run == run_conv || stage->run == run_first_conv) return add_conv_temporaries(builder, stage_index);
  if (stage->run == run_sliced) return add_temporary(builder, stage_index, TEMP_SLICED, stage->conv.sliced->bytes);
  return add_temporary(builder, stage_index, TEMP_ACCUMULATORS, ((uint64_t)layer->out_channels + HWGQ_LANES) * sizeof(float));
}

/* ---- everything else ---------------------------------------------------------------------------------------------------- */

/* One stage for one layer. Inputs become floats unless `packed` (then the output has the first input's coding). */
static enum hwgq_status build_simple(struct plan_builder *builder, int index, const char *kernel, bool packed, plan_run *run) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  int inputs[HWGQ_MAX_INPUTS], output;
  for (int i = 0; i < layer->input_count; i++) {
    inputs[i] = tensor_of(builder, layer->inputs[i]);
    enum hwgq_status status = packed ? HWGQ_OK : as_float(builder, index, inputs[i], &inputs[i]);
    if (status) return status;
  }
  const struct plan_coding coding = tensor_at(builder, inputs[0])->coding;
  enum hwgq_status status =
      plan_add_tensor(builder, packed ? PLAN_PACKED : PLAN_FLOAT, layer->output, packed ? &coding : NULL, 0, &output);
  if (status) return status;
  struct plan_stage *stage;
  status = add_layer_stage(builder, index, kernel, &stage);
  if (status) return status;
  stage->run = run;
  stage->input_count = layer->input_count;
  memcpy(stage->inputs, inputs, sizeof stage->inputs);
  stage->output = output;
  stage->window = (struct plan_window){layer->kernel_height, layer->kernel_width, layer->stride_height,
                                       layer->stride_width,  layer->pad_height,   layer->pad_width};
  memcpy(stage->coefficients, layer->coefficients, sizeof stage->coefficients);
  builder->plan->layer_tensors[index] = output;
  return HWGQ_OK;
}

static bool is_packed(const struct plan_builder *builder, const struct hwgq_layer *layer, int i) {
  return tensor_at(builder, tensor_of(builder, layer->inputs[i]))->format == PLAN_PACKED;
}

static bool same_coding(const struct plan_coding *a, const struct plan_coding *b) {
  return a->sign == b->sign && a->levels == b->levels && a->thermometer == b->thermometer &&
         memcmp(a->values, b->values, sizeof a->values) == 0;
}

static bool all_packed_alike(const struct plan_builder *builder, const struct hwgq_layer *layer) {
  const struct plan_tensor *first = tensor_at(builder, tensor_of(builder, layer->inputs[0]));
  for (int i = 0; i < layer->input_count; i++) {
    const struct plan_tensor *other = tensor_at(builder, tensor_of(builder, layer->inputs[i]));
    if (other->format != PLAN_PACKED || !same_coding(&first->coding, &other->coding)) return false;
  }
  return true;
}

/* A flatten is no work when every user takes CHW anyway (linear layers, other flattens, the network's output) or when there is
 * nothing to reorder; then its tensor is its input's. */
static enum hwgq_status build_flatten(struct plan_builder *builder, int index) {
  const struct hwgq_network *network = builder->network;
  const struct hwgq_layer *layer = &network->layers[index];
  const int input = tensor_of(builder, layer->inputs[0]);
  bool alias = true;
  for (int i = index + 1; i < network->layer_count; i++) {
    const struct hwgq_layer *user = &network->layers[i];
    for (int k = 0; k < user->input_count; k++) {
      if (user->inputs[k] == index && user->op != HWGQ_LINEAR && user->op != HWGQ_FLATTEN) alias = false;
    }
  }
  if (alias || same_shape(tensor_at(builder, input)->shape, layer->output)) {
    builder->plan->layer_tensors[index] = input;
    return HWGQ_OK;
  }
  const bool packed = is_packed(builder, layer, 0);
  return build_simple(builder, index, packed ? "flatten_packed" : "flatten", packed, packed ? run_packed_flatten : run_flatten);
}

static enum hwgq_status build_layer(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  bool packed;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return build_weighted(builder, index);
  case HWGQ_QUANTIZE:
  case HWGQ_BATCH_NORM:
  case HWGQ_SCALE:
  case HWGQ_RELU:
    return build_chain(builder, index);
  case HWGQ_MAX_POOL:
    packed = is_packed(builder, layer, 0);
    return build_simple(builder, index, packed ? "max_pool_packed" : "max_pool", packed,
                        packed ? run_packed_max_pool : run_max_pool);
  case HWGQ_AVG_POOL:
    return build_simple(builder, index, "avg_pool", false, run_avg_pool);
  case HWGQ_ADD:
    return build_simple(builder, index, "add", false, run_add);
  case HWGQ_CONCAT:
    packed = all_packed_alike(builder, layer);
    return build_simple(builder, index, packed ? "concat_packed" : "concat", packed, packed ? run_packed_concat : run_concat);
  case HWGQ_FLATTEN:
    return build_flatten(builder, index);
  case HWGQ_SOFTMAX:
    return build_simple(builder, index, "softmax", false, run_softmax);
  case HWGQ_OP_COUNT:
    break;
  }
  return hwgq_fail(builder->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s': operation %d is not known to the planner", layer->name,
                   (int)layer->op);
}

static enum hwgq_status build_input(struct plan_builder *builder) {
  struct hwgq_plan *plan = builder->plan;
  enum hwgq_status status = plan_add_tensor(builder, PLAN_FLOAT, builder->network->input, NULL, 0, &plan->input_tensor);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_stage(builder, &stage);
  if (status) return status;
  stage->name = "input";
  stage->kernel = "preprocess";
  stage->last_layer = HWGQ_NETWORK_INPUT;
  stage->run = run_input;
  stage->output = plan->input_tensor;
  return HWGQ_OK;
}

/* When every stage that reads the input takes pixels, a run on pixels leaves the input tensor out. */
static void skip_input(struct hwgq_plan *plan) {
  plan->only_pixels = !plan->keep_all_layers && plan->output_tensor != plan->input_tensor;
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    for (int i = 0; i < stage->input_count; i++) {
      const bool first = i == 0 && stage->pixels;
      if (stage->inputs[i] == plan->input_tensor && !first) plan->only_pixels = false;
    }
  }
  if (plan->only_pixels) plan->stages[0].kernel = "pixels";
}

enum hwgq_status plan_build(struct plan_builder *builder) {
  const struct hwgq_network *network = builder->network;
  struct hwgq_plan *plan = builder->plan;
  for (int i = 0; i < network->layer_count; i++) {
    for (int k = 0; k < network->layers[i].input_count; k++) {
      const int source = network->layers[i].inputs[k];
      if (source == HWGQ_NETWORK_INPUT) continue;
      builder->consumer_count[source]++;
      builder->consumer[source] = i;
    }
  }
  enum hwgq_status status = build_input(builder);
  for (int i = 0; i < network->layer_count && !status; i++) {
    if (!builder->folded[i]) status = build_layer(builder, i);
  }
  if (status) return status;
  plan->output_tensor = plan->layer_tensors[network->layer_count - 1];
  plan->output_count = (int)hwgq_shape_elements(network->layers[network->layer_count - 1].output);
  skip_input(plan);
  return HWGQ_OK;
}
