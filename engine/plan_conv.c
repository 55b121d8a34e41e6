/* Weights of convolutions and linear layers, in the order in which the kernels read them. */
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan.h"

enum { BAND_PIXELS = 192 }; /* accumulators of a band: 24 KB at most, unless a row is longer */

/* What packing convolutions may grow a plan to. */
#define MAX_PLAN_BYTES ((uint64_t)2 << 30)

/* ---- blocks ------------------------------------------------------------------------------------------------------------- */

/* Blocks of every group's out channels; a last block of at most 16 channels has 16 lanes. lane_elements: weight elements per
 * lane (0: no weights). */
enum hwgq_status plan_make_blocks(struct plan_builder *builder, int channels, int groups, size_t lane_elements,
                                  struct plan_block **blocks, int *count) {
  const int per_group = channels / groups;
  const int blocks_per_group = (per_group + HWGQ_LANES - 1) / HWGQ_LANES;
  *count = blocks_per_group * groups;
  *blocks = hwgq_arena_allocate(&builder->plan->arena, (size_t)*count, sizeof **blocks);
  if (!*blocks) return plan_out_of_memory(builder);
  size_t weights = 0;
  for (int b = 0; b < *count; b++) {
    const int done = b % blocks_per_group * HWGQ_LANES;
    const int left = per_group - done < HWGQ_LANES ? per_group - done : HWGQ_LANES;
    const int lanes = left <= HWGQ_LANES / 2 ? HWGQ_LANES / 2 : HWGQ_LANES;
    (*blocks)[b] = (struct plan_block){.channel = b / blocks_per_group * per_group + done,
                                       .count = left,
                                       .lanes = lanes,
                                       .group = b / blocks_per_group,
                                       .weights = weights};
    weights += lane_elements * (size_t)lanes;
  }
  return HWGQ_OK;
}

/* ---- geometry ----------------------------------------------------------------------------------------------------------- */

static enum hwgq_status make_segments(struct plan_builder *builder, int out, int in, int kernel, int stride, int pad,
                                      struct plan_segment **segments, int *count) {
  *segments = hwgq_arena_allocate(&builder->plan->arena, (size_t)out, sizeof **segments);
  if (!*segments) return plan_out_of_memory(builder);
  *count = 0;
  for (int position = 0; position < out; position++) {
    const int start = position * stride - pad;
    const int first = start < 0 ? -start : 0;
    const int last = start + kernel > in ? in - start : kernel;
    const bool any = last > first;
    const struct plan_segment segment = {.start = position,
                                         .count = 1,
                                         .tap = any ? first : 0,
                                         .taps = any ? last - first : 0,
                                         .input = any ? start + first : 0};
    struct plan_segment *previous = *count > 0 ? &(*segments)[*count - 1] : NULL;
    if (previous && previous->tap == segment.tap && previous->taps == segment.taps) {
      previous->count++;
    } else {
      (*segments)[(*count)++] = segment;
    }
  }
  return HWGQ_OK;
}

static enum hwgq_status make_groups(struct plan_builder *builder, struct plan_conv *conv, int groups) {
  const int channels = conv->in.channels / groups;
  conv->group_count = groups;
  conv->groups = hwgq_arena_allocate(&builder->plan->arena, (size_t)groups, sizeof *conv->groups);
  if (!conv->groups) return plan_out_of_memory(builder);
  for (int g = 0; g < groups; g++) {
    const int begin = g * channels, end = begin + channels;
    struct plan_group *group = &conv->groups[g];
    if (!conv->binary) {
      *group = (struct plan_group){.first = begin, .count = channels};
      continue;
    }
    *group = (struct plan_group){.first = begin / 32, .count = (end - 1) / 32 + 1 - begin / 32};
    uint32_t *masks = hwgq_arena_allocate(&builder->plan->arena, (size_t)group->count, sizeof *masks);
    if (!masks) return plan_out_of_memory(builder);
    for (int c = begin; c < end; c++) masks[c / 32 - group->first] |= 1u << (c % 32);
    group->masks = masks;
  }
  return HWGQ_OK;
}

/* How many final rows are computed at once: as many as their accumulators allow, in bands of nearly equal height. */
static void choose_band(struct plan_conv *conv) {
  const int lines = BAND_PIXELS / conv->out.width > 1 ? BAND_PIXELS / conv->out.width : 1;
  int rows = lines;
  if (conv->pooled) {
    const int more = (lines - conv->pool.kernel_height) / conv->pool.stride_height;
    rows = more > 0 ? more + 1 : 1;
  }
  conv->bands = (conv->final.height - 1) / rows + 1;
  conv->band = (conv->final.height - 1) / conv->bands + 1;
  conv->bands = (conv->final.height - 1) / conv->band + 1;
  conv->band_lines = conv->pooled ? (conv->band - 1) * conv->pool.stride_height + conv->pool.kernel_height : conv->band;
}

static enum hwgq_status set_geometry(struct plan_builder *builder, struct plan_conv *conv, const struct hwgq_layer *layer,
                                     const struct plan_tensor *input, const struct hwgq_layer *pool) {
  conv->in = input->shape;
  conv->out = layer->output;
  if (layer->op == HWGQ_LINEAR) {
    conv->window = (struct plan_window){input->shape.height, input->shape.width, 1, 1, 0, 0};
  } else {
    conv->window = (struct plan_window){layer->kernel_height, layer->kernel_width, layer->stride_height,
                                        layer->stride_width,  layer->pad_height,   layer->pad_width};
  }
  conv->final = conv->out;
  if (pool) {
    conv->pooled = true;
    conv->final = pool->output;
    conv->pool = (struct plan_window){pool->kernel_height, pool->kernel_width, pool->stride_height,
                                      pool->stride_width,  pool->pad_height,   pool->pad_width};
  }
  choose_band(conv);
  const struct plan_window *w = &conv->window;
  enum hwgq_status status = make_segments(builder, conv->out.height, conv->in.height, w->kernel_height, w->stride_height,
                                          w->pad_height, &conv->lines, &conv->line_segments);
  if (status) return status;
  return make_segments(builder, conv->out.width, conv->in.width, w->kernel_width, w->stride_width, w->pad_width, &conv->columns,
                       &conv->column_segments);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* +1 or -1, or the float weight, of input channel c (within the group) at tap t = row * kernel_width + column. */
static float weight_at(const struct plan_packing *packing, int out, size_t c, size_t t) {
  const struct hwgq_layer *layer = packing->layer;
  const size_t index = c * packing->taps + t;
  float w;
  if (layer->binary) {
    const uint8_t *bits = layer->weight_bits + (size_t)out * ((packing->fan_in + 7) / 8);
    w = bits[index / 8] >> (index % 8) & 1 ? 1.0f : -1.0f;
  } else {
    w = layer->weight[(size_t)out * packing->fan_in + index];
  }
  return packing->flip && packing->flip[out] ? -w : w;
}

/* Bits index .. index + count - 1 (count <= 32) of a row of `bytes` bytes. */
static uint32_t bits_at(const uint8_t *row, size_t bytes, size_t index, unsigned count) {
  uint64_t bits = 0;
  for (size_t i = index / 8, at = 0; at < 40 && i < bytes; i++, at += 8) bits |= (uint64_t)row[i] << at;
  return (uint32_t)(bits >> (index % 8) & (((uint64_t)1 << count) - 1));
}

/* One lane's words of up to 32 taps from `tap` on, for the channels of one word: 32 channels x taps bits, transposed. */
static void pack_lane(const struct plan_packing *packing, int out, size_t c, size_t end, unsigned shift, size_t tap,
                      unsigned taps, uint32_t *words) {
  const size_t bytes = (packing->fan_in + 7) / 8;
  const uint8_t *row = packing->layer->weight_bits + (size_t)out * bytes;
  const uint32_t flip = packing->flip && packing->flip[out] ? ~0u : 0;
  memset(words, 0, taps * sizeof *words);
  if (packing->taps == 1) {
    const unsigned count = (unsigned)(end - c);
    words[0] = ((bits_at(row, bytes, c, count) ^ flip) & (uint32_t)(((uint64_t)1 << count) - 1)) << shift;
    return;
  }
  for (; c < end; c++, shift++) {
    const uint32_t bits = bits_at(row, bytes, c * packing->taps + tap, taps) ^ flip;
    for (unsigned t = 0; t < taps; t++) words[t] |= (bits >> t & 1) << shift;
  }
}

void plan_pack_bits(const struct plan_packing *packing, const struct plan_block *block, uint32_t *weights, int32_t *tap_sums) {
  const struct plan_group *group = &packing->conv->groups[block->group];
  const size_t begin = (size_t)block->group * packing->channels, lanes = (size_t)block->lanes;
  for (int lane = 0; lane < block->count; lane++) {
    for (size_t c = 0; c < packing->channels;) {
      const unsigned shift = (unsigned)((begin + c) % 32);
      const size_t end = c + 32 - shift < packing->channels ? c + 32 - shift : packing->channels;
      const size_t word = (begin + c) / 32 - (size_t)group->first;
      for (size_t tap = 0; tap < packing->taps; tap += 32) {
        const unsigned taps = packing->taps - tap < 32 ? (unsigned)(packing->taps - tap) : 32;
        uint32_t words[32];
        pack_lane(packing, block->channel + lane, c, end, shift, tap, taps, words);
        for (unsigned t = 0; t < taps; t++) {
          weights[((tap + t) * (size_t)group->count + word) * lanes + (size_t)lane] = words[t];
          if (tap_sums)
            tap_sums[(tap + t) * HWGQ_LANES + (size_t)lane] += 2 * __builtin_popcount(words[t]) - (int32_t)(end - c);
        }
      }
      c = end;
    }
  }
}

static void pack_floats(const struct plan_packing *packing, const struct plan_block *block, float *weights) {
  const size_t lanes = (size_t)block->lanes;
  for (size_t tap = 0; tap < packing->taps; tap++) {
    for (size_t c = 0; c < packing->channels; c++) {
      for (int lane = 0; lane < block->count; lane++) {
        weights[(tap * packing->channels + c) * lanes + (size_t)lane] = weight_at(packing, block->channel + lane, c, tap);
      }
    }
  }
}

/* ---- forms of binary convolutions --------------------------------------------------------------------------------------- */

static bool can_take(const struct hwgq_bconv_form *form, int groups, const struct plan_tensor *input) {
  if (!hwgq_form_supported(form)) return false;
  if (!form->code) return true; /* thermometer planes, which may be more than max_planes, are summed one by one */
  if (input->coding.thermometer || input->coding.planes > form->max_planes) return false;
  return groups == 1 || form->code == 4; /* codes of six cross the words that groups use */
}

const struct hwgq_bconv_form *plan_choose_form(const struct plan_builder *builder, const struct hwgq_layer *layer,
                                               const struct plan_tensor *input) {
  const struct hwgq_plan *plan = builder->plan;
  const int groups = layer->op == HWGQ_LINEAR ? 1 : layer->groups;
  const struct hwgq_bconv_form *first = NULL;
  for (const struct hwgq_bconv_form *form = plan->kernels->forms; form->name; form++) {
    if (!can_take(form, groups, input)) continue;
    if (!first && hwgq_form_preferred(form, input->coding.planes)) first = form;
    if (plan->form && strcmp(plan->form, form->name) == 0) return form;
  }
  return first;
}

static enum hwgq_status make_tables(struct plan_builder *builder, struct plan_conv *conv) {
  struct hwgq_plan *plan = builder->plan;
  const ptrdiff_t index = conv->form - plan->kernels->forms;
  if (!plan->tables[index]) {
    uint8_t *tables = hwgq_arena_allocate(&plan->arena, hwgq_code_table_bytes(conv->form), 1);
    if (!tables) return plan_out_of_memory(builder);
    hwgq_code_make_tables(conv->form, tables);
    plan->tables[index] = tables;
  }
  conv->tables = plan->tables[index];
  return HWGQ_OK;
}

/* ---- convolutions ------------------------------------------------------------------------------------------------------- */

/* Groups may use different numbers of words: offsets of the blocks' weights, and their total in elements. */
static size_t set_weight_offsets(struct plan_conv *conv, size_t taps) {
  const struct hwgq_bconv_form *form = conv->form;
  size_t total = 0;
  for (int b = 0; b < conv->block_count; b++) {
    struct plan_block *block = &conv->blocks[b];
    const int words = conv->groups[block->group].count;
    if (form && form->code) block->lanes = HWGQ_LANES;
    if (plan_span_part(conv, b)) { /* shares its neighbour's */
      block->weights = conv->blocks[b - 1].weights;
      continue;
    }
    block->weights = total;
    total += taps * (form && form->code ? hwgq_code_units(form, words) * hwgq_code_unit_weights(form)
                                        : (size_t)words * (size_t)block->lanes);
  }
  return total;
}

/* Bits of a block, then code by code. `bits`: memory for one block, zeroed. */
static void pack_codes(const struct plan_packing *packing, int b, uint32_t *bits, uint32_t *weights, int32_t *tap_sums) {
  const struct plan_conv *conv = packing->conv;
  const struct plan_block *block = &conv->blocks[b];
  const int words = conv->groups[block->group].count;
  const size_t tap_weights = hwgq_code_units(conv->form, words) * hwgq_code_unit_weights(conv->form);
  plan_pack_bits(packing, block, bits, tap_sums);
  for (size_t tap = 0; tap < packing->taps; tap++) {
    hwgq_code_arrange(conv->form, bits + tap * (size_t)words * HWGQ_LANES, words, plan_span_part(conv, b),
                      (uint8_t *)(weights + block->weights + tap * tap_weights));
  }
}

static enum hwgq_status pack_weights(struct plan_builder *builder, const struct plan_packing *packing, void *weights,
                                     int32_t *tap_sums) {
  const struct plan_conv *conv = packing->conv;
  size_t words = 0;
  for (int g = 0; g < conv->group_count; g++) {
    words = (size_t)conv->groups[g].count > words ? (size_t)conv->groups[g].count : words;
  }
  const bool codes = conv->binary && conv->form->code;
  const size_t block_bits = packing->taps * words * HWGQ_LANES;
  uint32_t *bits = codes ? malloc(block_bits * sizeof *bits) : NULL;
  if (codes && !bits) return plan_out_of_memory(builder);
  for (int b = 0; b < conv->block_count; b++) {
    const struct plan_block *block = &conv->blocks[b];
    int32_t *sums = tap_sums ? tap_sums + (size_t)b * packing->taps * HWGQ_LANES : NULL;
    if (codes) {
      memset(bits, 0, block_bits * sizeof *bits);
      pack_codes(packing, b, bits, weights, sums);
    } else if (conv->binary) {
      plan_pack_bits(packing, block, (uint32_t *)weights + block->weights, sums);
    } else {
      pack_floats(packing, block, (float *)weights + block->weights);
    }
  }
  free(bits);
  return HWGQ_OK;
}

enum hwgq_status plan_shape_conv(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                 const struct plan_tensor *input, const struct hwgq_layer *pool) {
  struct plan_conv *conv = &stage->conv;
  const int groups = layer->op == HWGQ_LINEAR ? 1 : layer->groups;
  conv->binary = input->format == PLAN_PACKED;
  enum hwgq_status status = set_geometry(builder, conv, layer, input, pool);
  if (!status) status = make_groups(builder, conv, groups);
  if (!status) status = plan_make_blocks(builder, layer->out_channels, groups, 0, &conv->blocks, &conv->block_count);
  stage->epilogue.blocks = conv->blocks;
  stage->epilogue.block_count = conv->block_count;
  return status;
}

struct plan_packing plan_packing_of(const struct plan_builder *builder, const struct plan_stage *stage,
                                    const struct hwgq_layer *layer, const bool *flip) {
  const struct plan_conv *conv = &stage->conv;
  return (struct plan_packing){.conv = conv,
                               .layer = layer,
                               .flip = flip,
                               .fan_in = (size_t)hwgq_layer_fan_in(builder->network, layer),
                               .taps = (size_t)conv->window.kernel_height * (size_t)conv->window.kernel_width,
                               .channels = (size_t)(conv->in.channels / conv->group_count)};
}

enum hwgq_status plan_allocate_weights(struct plan_builder *builder, const struct hwgq_layer *layer, uint64_t bytes,
                                       void **memory) {
  struct hwgq_arena *arena = &builder->plan->arena;
  /* A file of a few megabytes may describe groups whose packed weights are a thousand times as large. */
  if (bytes + hwgq_arena_bytes(arena) > MAX_PLAN_BYTES) {
    return hwgq_fail(
        builder->error, HWGQ_ERROR_LIMIT,
        "layer '%s': the packed weights would need more than %llu MB of memory: use fewer groups or a smaller kernel",
        layer->name, (unsigned long long)(MAX_PLAN_BYTES >> 20));
  }
  *memory = hwgq_arena_allocate(arena, (size_t)bytes, 1);
  return *memory ? HWGQ_OK : plan_out_of_memory(builder);
}

enum hwgq_status plan_pack_conv(struct plan_builder *builder, struct plan_stage *stage, const struct plan_packing *packing,
                                const struct plan_tensor *input) {
  struct plan_conv *conv = &stage->conv;
  enum hwgq_status status = conv->binary && conv->form->code ? make_tables(builder, conv) : HWGQ_OK;
  if (status) return status;
  const size_t elements = set_weight_offsets(conv, packing->taps);
  const size_t sums = conv->binary && input->coding.sign ? (size_t)conv->block_count * packing->taps * HWGQ_LANES : 0;
  void *weights, *tap_sums = NULL;
  status = plan_allocate_weights(builder, packing->layer, (uint64_t)elements * sizeof(uint32_t), &weights);
  if (!status && sums) {
    status = plan_allocate_weights(builder, packing->layer, (uint64_t)sums * sizeof(int32_t), &tap_sums);
  }
  if (!status) status = pack_weights(builder, packing, weights, tap_sums);
  if (status) return status;
  conv->weights = weights;
  conv->tap_sums = tap_sums;
  stage->weight_bytes = elements * sizeof(uint32_t);
  return HWGQ_OK;
}

enum hwgq_status plan_pack_linear(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                  const struct plan_tensor *input) {
  struct plan_linear *linear = &stage->linear;
  const size_t pixels = plan_pixels(input->shape), channels = (size_t)input->shape.channels;
  linear->inputs = pixels * channels;
  linear->outputs = (size_t)layer->out_channels;
  linear->weight_step = (linear->inputs + 15) / 16 * 16;
  float *weights =
      hwgq_arena_allocate(&builder->plan->arena, (size_t)layer->out_channels * linear->weight_step, sizeof *weights);
  if (!weights) return plan_out_of_memory(builder);
  const struct plan_packing packing = {.layer = layer, .fan_in = linear->inputs, .taps = pixels, .channels = channels};
  for (int out = 0; out < layer->out_channels; out++) {
    float *row = weights + (size_t)out * linear->weight_step;
    for (size_t pixel = 0; pixel < pixels; pixel++) {
      for (size_t c = 0; c < channels; c++) row[pixel * channels + c] = weight_at(&packing, out, c, pixel);
    }
  }
  linear->weights = weights;
  stage->weight_bytes = (size_t)layer->out_channels * linear->weight_step * sizeof *weights;
  struct plan_block *blocks;
  enum hwgq_status status = plan_make_blocks(builder, layer->out_channels, 1, 0, &blocks, &stage->epilogue.block_count);
  stage->epilogue.blocks = blocks;
  return status;
}
