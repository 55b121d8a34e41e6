/* How stages end: chains of batch norm, scale and relu layers, residual additions and quantizers; and chains that no stage
 * could take, which are stages of their own. */
#include "engine/plan.h"

bool plan_joins_chain(enum hwgq_op op) {
  return op == HWGQ_BATCH_NORM || op == HWGQ_SCALE || op == HWGQ_RELU;
}

void plan_extend(struct plan_builder *builder, struct plan_ending *ending) {
  struct hwgq_chain *chain = &ending->chain;
  while (!ending->quantize) {
    const int next = plan_only_consumer(builder, ending->last);
    if (next < 0) return;
    const struct hwgq_layer *layer = &builder->network->layers[next];
    if (layer->op == HWGQ_QUANTIZE) {
      ending->quantize = layer;
    } else if (plan_joins_chain(layer->op) && chain->count < HWGQ_MAX_CHAIN) {
      chain->layers[chain->count++] = layer;
    } else {
      return;
    }
    builder->folded[next] = true;
    ending->last = next;
  }
}

/* ---- floats: sums, and levels of them ------------------------------------------------------------------------------------ */

/* Whether stages that are still to come write parts of a tensor. */
static bool is_incomplete(const struct plan_builder *builder, int tensor) {
  for (int i = 0; i < builder->network->layer_count; i++) {
    if (builder->parts[i] == tensor && builder->missing_parts[i] > 0) return true;
  }
  return false;
}

/* Residuals are read 32 channels at a time from a multiple of 32 on. */
static bool blocks_are_aligned(const struct hwgq_chain *chain) {
  const struct hwgq_layer *layer = chain->count ? chain->layers[0] : NULL;
  return !layer || layer->op != HWGQ_CONV2D || layer->groups == 1 || layer->out_channels / layer->groups % HWGQ_LANES == 0;
}

/* The floats can be added to what their only user, an add layer, adds to them, when that has been computed by then. */
static void find_residual(struct plan_builder *builder, struct plan_ending *ending) {
  const int next = plan_only_consumer(builder, ending->last);
  if (next < 0 || !blocks_are_aligned(&ending->chain)) return;
  const struct hwgq_layer *add = &builder->network->layers[next];
  if (add->op != HWGQ_ADD || add->input_count != 2) return;
  const int other = add->inputs[0] == ending->last ? 1 : 0;
  const int tensor = plan_tensor_of(builder, add->inputs[other]);
  if (tensor < 0 || plan_tensor_at(builder, tensor)->format != PLAN_FLOAT || is_incomplete(builder, tensor)) return;
  ending->add = next;
  ending->other = other;
  ending->last = next;
  builder->folded[next] = true;
  const int after = plan_only_consumer(builder, next);
  if (after < 0 || builder->network->layers[after].op != HWGQ_RELU) return;
  ending->relu = true;
  ending->last = after;
  builder->folded[after] = true;
}

/* Whether `layer` begins a chain that ends in a quantizer; the chain. */
static bool leads_to_levels(const struct plan_builder *builder, int layer, struct plan_ending *ending) {
  struct hwgq_chain chain = {.unit = 1};
  for (; layer >= 0; layer = plan_only_consumer(builder, layer)) {
    const struct hwgq_layer *l = &builder->network->layers[layer];
    if (l->op == HWGQ_QUANTIZE) {
      ending->second = chain;
      ending->quantize2 = l;
      ending->last2 = layer;
      return true;
    }
    if (!plan_joins_chain(l->op) || chain.count == HWGQ_MAX_CHAIN) return false;
    chain.layers[chain.count++] = l;
  }
  return false;
}

void plan_extend_floats(struct plan_builder *builder, struct plan_ending *ending) {
  const struct hwgq_network *network = builder->network;
  find_residual(builder, ending);
  for (int i = ending->last + 1; i < network->layer_count; i++) {
    if (network->layers[i].inputs[0] != ending->last || network->layers[i].input_count != 1) continue;
    if (!leads_to_levels(builder, i, ending)) continue;
    for (int layer = i; layer != ending->last2; layer = plan_only_consumer(builder, layer)) builder->folded[layer] = true;
    builder->folded[ending->last2] = true;
    return;
  }
}

/* ---- outputs ------------------------------------------------------------------------------------------------------------- */

/* Whether every user of a float tensor takes blocks of channels, one after the other, as stages with blocks produce them. */
static bool can_be_blocked(const struct plan_builder *builder, const struct plan_ending *ending) {
  const struct hwgq_network *network = builder->network;
  if (network->layers[ending->last].output.channels % HWGQ_LANES != 0) return false;
  for (int i = ending->last + 1; i < network->layer_count; i++) {
    const enum hwgq_op op = network->layers[i].op;
    if (plan_joins_chain(op) || op == HWGQ_QUANTIZE || op == HWGQ_ADD || op == HWGQ_AVG_POOL) continue;
    for (int k = 0; k < network->layers[i].input_count; k++) {
      if (network->layers[i].inputs[k] == ending->last) return false;
    }
  }
  return true;
}

static enum hwgq_status add_levels(struct plan_builder *builder, const struct hwgq_layer *quantize, int layer, int *tensor) {
  struct plan_coding coding;
  plan_coding_of(quantize, &coding);
  enum hwgq_status status = plan_add_tensor(builder, PLAN_PACKED, builder->network->layers[layer].output, &coding, 0, tensor);
  if (!status) builder->plan->layer_tensors[layer] = *tensor;
  return status;
}

static enum hwgq_status add_floats(struct plan_builder *builder, const struct plan_ending *ending, bool aligned,
                                   struct plan_epilogue *epilogue) {
  const int uses = builder->consumer_count[ending->last];
  /* Nobody else reads them, unless they are to be seen. */
  if (ending->quantize2 && uses == 1 && !builder->plan->keep_all_layers) return HWGQ_OK;
  enum hwgq_status status =
      plan_add_tensor(builder, PLAN_FLOAT, builder->network->layers[ending->last].output, NULL, 0, &epilogue->floats);
  if (status) return status;
  builder->plan->layer_tensors[ending->last] = epilogue->floats;
  plan_tensor_at(builder, epilogue->floats)->blocked = aligned && can_be_blocked(builder, ending);
  return HWGQ_OK;
}

enum hwgq_status plan_add_outputs(struct plan_builder *builder, const struct plan_ending *ending, bool aligned,
                                  struct plan_epilogue *epilogue) {
  enum hwgq_status status;
  if (ending->concat >= 0) {
    epilogue->channel = ending->channel;
    return plan_add_part(builder, ending, ending->quantize ? &epilogue->levels : &epilogue->floats);
  }
  if (ending->quantize) return add_levels(builder, ending->quantize, ending->last, &epilogue->levels);
  status = add_floats(builder, ending, aligned, epilogue);
  if (status || !ending->quantize2) return status;
  return add_levels(builder, ending->quantize2, ending->last2, &epilogue->levels);
}

static void set_residual(const struct plan_builder *builder, struct plan_stage *stage, const struct plan_ending *ending) {
  const struct hwgq_layer *add = &builder->network->layers[ending->add];
  const int residual = plan_tensor_of(builder, add->inputs[ending->other]);
  stage->epilogue.residual = residual;
  stage->epilogue.residual_relu = ending->relu;
  stage->epilogue.scale = (double)add->coefficients[1 - ending->other];
  stage->epilogue.residual_scale = (double)add->coefficients[ending->other];
  if (stage->epilogue.floats >= 0 && residual != stage->inputs[0]) {
    plan_tensor_at(builder, stage->epilogue.floats)->in_place = residual;
  }
  stage->inputs[stage->input_count++] = residual;
}

enum hwgq_status plan_fold_ending(struct plan_builder *builder, struct plan_stage *stage, const struct plan_ending *ending,
                                  const bool *flip, double bound) {
  struct plan_epilogue *epilogue = &stage->epilogue;
  stage->output = epilogue->floats >= 0 ? epilogue->floats : epilogue->levels;
  stage->second_output = epilogue->floats >= 0 ? epilogue->levels : -1;
  stage->last_layer = ending->quantize2 && epilogue->floats < 0 ? ending->last2 : ending->last;
  if (ending->quantize) return plan_fold_levels(builder, epilogue, &ending->chain, ending->quantize, flip, bound);
  enum hwgq_status status = plan_fold_floats(builder, epilogue, &ending->chain, flip);
  if (status) return status;
  if (ending->add >= 0) set_residual(builder, stage, ending);
  if (!ending->quantize2) return HWGQ_OK;
  return plan_fold_levels(builder, epilogue, &ending->second, ending->quantize2, NULL, 0);
}

/* ---- stages of their own ------------------------------------------------------------------------------------------------- */

enum hwgq_status plan_build_chain(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  struct plan_ending ending = {.chain = {.unit = 1}, .last = index, .concat = -1, .add = -1};
  struct plan_epilogue outputs = {.floats = -1, .levels = -1, .residual = -1, .type = PLAN_F32};
  struct plan_block *blocks;
  int input;
  enum hwgq_status status = plan_as_float(builder, index, plan_tensor_of(builder, layer->inputs[0]), &input);
  if (status) return status;
  if (layer->op == HWGQ_QUANTIZE) {
    ending.quantize = layer;
  } else {
    ending.chain.layers[ending.chain.count++] = layer;
    plan_extend(builder, &ending);
  }
  if (!ending.quantize) plan_extend_floats(builder, &ending);
  status = plan_add_outputs(builder, &ending, true, &outputs);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_layer_stage(builder, index, ending.quantize || ending.quantize2 ? "quantize" : "affine", &stage);
  if (status) return status;
  stage->run = run_chain;
  stage->input_count = 1;
  stage->inputs[0] = input;
  stage->epilogue = outputs;
  status =
      plan_make_blocks(builder, plan_tensor_at(builder, input)->shape.channels, 1, 0, &blocks, &stage->epilogue.block_count);
  if (status) return status;
  stage->epilogue.blocks = blocks;
  return plan_fold_ending(builder, stage, &ending, NULL, 0);
}
