/* Concatenations that cost nothing: every input is the end of a convolution's or linear layer's stage, which writes its
 * channels where the joined tensor has them. What follows the concat layer, up to a quantizer, works channel by channel and is
 * folded into those stages too; a max pooling in between is done on levels, as a level only rises (or only falls) with the
 * value. */
#include <string.h>

#include "engine/plan.h"

/* The layer with weights whose stage ends in layer `last`, which has one user; -1 when there is none. count: layers of its
 * chain. */
static int find_root(const struct plan_builder *builder, int last, int *count) {
  const struct hwgq_layer *layers = builder->network->layers;
  int layer = last, pool = -1;
  *count = 1;
  if (layers[layer].op == HWGQ_QUANTIZE) layer = layers[layer].inputs[0];
  for (; layer >= 0 && plan_only_consumer(builder, layer) >= 0; layer = layers[layer].inputs[0]) {
    const enum hwgq_op op = layers[layer].op;
    if (op == HWGQ_CONV2D || op == HWGQ_LINEAR) return pool < 0 || plan_can_pool(builder, layer, pool) ? layer : -1;
    if (op == HWGQ_MAX_POOL && pool < 0) {
      pool = layer;
    } else if (plan_joins_chain(op)) {
      ++*count;
    } else {
      return -1;
    }
  }
  return -1;
}

static bool same_quantizer(const struct hwgq_layer *a, const struct hwgq_layer *b) {
  return a->sign == b->sign && a->level_count == b->level_count && memcmp(a->centers, b->centers, sizeof a->centers) == 0;
}

/* Every input is a part with a root, all are floats or all are levels of one kind. longest: chain of a part. */
static bool have_parts(const struct plan_builder *builder, const struct hwgq_layer *concat, int *longest) {
  const struct hwgq_layer *layers = builder->network->layers;
  int previous = -1, count, channel = 0;
  bool in_order = true, aligned = true;
  *longest = 0;
  for (int k = 0; k < concat->input_count; k++) {
    const int input = concat->inputs[k];
    if (input < 0 || plan_only_consumer(builder, input) < 0) return false;
    const int root = find_root(builder, input, &count);
    const bool levels = layers[input].op == HWGQ_QUANTIZE, first_levels = layers[concat->inputs[0]].op == HWGQ_QUANTIZE;
    if (root < 0 || levels != first_levels) return false;
    if (levels && !same_quantizer(&layers[input], &layers[concat->inputs[0]])) return false;
    if (count > *longest) *longest = count;
    if (root < previous) in_order = false;
    if (channel % 32 != 0) aligned = false;
    previous = root;
    channel += layers[input].output.channels;
  }
  return *longest <= HWGQ_MAX_CHAIN && (in_order || aligned); /* parts that share a word are written in order */
}

void plan_find_join(const struct plan_builder *builder, int concat, struct plan_join *join) {
  const struct hwgq_layer *layers = builder->network->layers, *layer = &layers[concat];
  int longest;
  *join = (struct plan_join){.possible = have_parts(builder, layer, &longest), .last = concat, .pool = -1};
  if (!join->possible) return;
  join->own_quantizers = layers[layer->inputs[0]].op == HWGQ_QUANTIZE;
  if (join->own_quantizers) return;
  struct plan_join longer = *join;
  int next = plan_only_consumer(builder, concat);
  if (next >= 0 && layers[next].op == HWGQ_MAX_POOL) {
    longer.pool = next;
    next = plan_only_consumer(builder, next);
  }
  for (; next >= 0; next = plan_only_consumer(builder, next)) {
    const bool chain = plan_joins_chain(layers[next].op);
    if (!chain && layers[next].op != HWGQ_QUANTIZE) break;
    if (chain && longest + longer.chain_count == HWGQ_MAX_CHAIN) break;
    longer.last = next;
    if (chain) longer.chain[longer.chain_count++] = next;
    if (!chain) longer.quantize = &layers[next];
    if (!chain) break;
  }
  if (longer.quantize || longer.pool < 0) *join = longer; /* floats are pooled as they are */
}

void plan_extend_concat(struct plan_builder *builder, struct plan_ending *ending) {
  const struct hwgq_layer *layers = builder->network->layers;
  const int concat = plan_only_consumer(builder, ending->last);
  struct plan_join join;
  if (concat < 0 || layers[concat].op != HWGQ_CONCAT) return;
  plan_find_join(builder, concat, &join);
  if (!join.possible) return;
  ending->concat = concat;
  ending->channel = 0;
  for (int k = 0; layers[concat].inputs[k] != ending->last; k++) {
    ending->channel += layers[layers[concat].inputs[k]].output.channels;
  }
  builder->folded[concat] = true;
  if (join.own_quantizers) return;
  struct hwgq_chain *chain = &ending->chain;
  if (join.chain_count || join.quantize) chain->rounded |= 1u << chain->count; /* as the layer's own output would be */
  for (int i = 0; i < join.chain_count; i++) {
    builder->folded[join.chain[i]] = true;
    chain->first[chain->count] = ending->channel;
    chain->layers[chain->count++] = &layers[join.chain[i]];
  }
  ending->quantize = join.quantize;
  if (join.quantize) builder->folded[join.last] = true;
}

enum hwgq_status plan_add_part(struct plan_builder *builder, const struct plan_ending *ending, int *tensor) {
  struct hwgq_plan *plan = builder->plan;
  int *parts = &builder->parts[ending->concat];
  struct plan_join join;
  plan_find_join(builder, ending->concat, &join);
  if (!*parts) {
    struct plan_coding coding;
    if (ending->quantize) plan_coding_of(ending->quantize, &coding);
    enum hwgq_status status =
        plan_add_tensor(builder, ending->quantize ? PLAN_PACKED : PLAN_FLOAT, builder->network->layers[ending->concat].output,
                        ending->quantize ? &coding : NULL, 0, parts);
    if (status) return status;
    if (join.pool < 0) plan->layer_tensors[join.last] = *parts;
    builder->missing_parts[ending->concat] = builder->network->layers[ending->concat].input_count;
  }
  builder->missing_parts[ending->concat]--;
  *tensor = *parts;
  if (join.own_quantizers || join.last == ending->concat) { /* the part is its last layer's output */
    plan->layer_tensors[ending->last] = *parts;
    plan->layer_parts[ending->last] = builder->network->layers[ending->last].output.channels;
    plan->layer_channels[ending->last] = ending->channel;
  }
  return HWGQ_OK;
}

/* Bits that turn levels round where the chain after the pooling falls: the largest value has the lowest level there. Inverting
 * all planes reverses the order of levels in every coding. NULL when it falls nowhere. */
static enum hwgq_status find_reversed(struct plan_builder *builder, const struct plan_join *join,
                                      const struct plan_tensor *parts, const uint32_t **reversed) {
  const struct hwgq_layer *layers = builder->network->layers;
  const size_t planes = (size_t)parts->coding.planes;
  struct hwgq_chain chain = {.unit = 1, .count = join->chain_count};
  for (int i = 0; i < join->chain_count; i++) chain.layers[i] = &layers[join->chain[i]];
  uint32_t *bits = hwgq_arena_allocate(&builder->plan->arena, plan_pixel_words(parts), sizeof *bits);
  if (!bits) return plan_out_of_memory(builder);
  *reversed = NULL;
  for (int c = 0; c < parts->shape.channels; c++) {
    if (!hwgq_chain_falls(&chain, c)) continue;
    for (size_t p = 0; p < planes; p++) bits[(size_t)(c / 32) * planes + p] |= 1u << (c % 32);
    *reversed = bits;
  }
  return HWGQ_OK;
}

enum hwgq_status plan_build_joined_pool(struct plan_builder *builder, int concat, const struct plan_join *join) {
  const struct hwgq_layer *pool = &builder->network->layers[join->pool];
  const int parts = builder->parts[concat];
  const struct plan_tensor input = *plan_tensor_at(builder, parts); /* adding a tensor may move it */
  int output;
  enum hwgq_status status = plan_add_tensor(builder, PLAN_PACKED, pool->output, &input.coding, 0, &output);
  if (status) return status;
  builder->plan->layer_tensors[join->last] = output;
  struct plan_stage *stage;
  status = plan_add_layer_stage(builder, join->pool, "max_pool_packed", &stage);
  if (status) return status;
  stage->last_layer = join->last;
  stage->run = run_packed_max_pool;
  stage->input_count = 1;
  stage->inputs[0] = parts;
  stage->output = output;
  stage->window = plan_window_of(pool);
  return find_reversed(builder, join, &input, &stage->reversed);
}
