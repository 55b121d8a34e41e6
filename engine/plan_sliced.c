/* Bit-sliced convolutions: how out channels and pixels share the lanes of a vector, and the weights and thresholds in that
 * order. kernels.h says what a row, a source and a tile are; run_sliced.c walks the tiles.
 *
 * LANES lanes hold `pixels` output pixels x `pixel_lanes` out channels: as many channels of a group as there are, or LANES of
 * them, in which case a tile is one pixel. A tile of several pixels reads the union of their windows; rows hold zeros where a
 * source is outside the window of a lane's pixel. */
#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"

enum {
  MAX_SOURCES = UINT16_MAX, /* parts of the weights have 16-bit numbers */
  MAX_ROWS = 8192,          /* that 16-bit offsets reach with 512 lanes */
  MIN_FAN_IN = 1024,
  MIN_PIXELS = 4 /* of the output: with fewer, weights are read from memory, where every second row is as slow as all */
};

/* Height and width of a tile of 1, 2, 4, 8 or 16 pixels. */
static void set_tile(struct sliced_part *part, const struct plan_window *window) {
  part->tile_height = part->pixels >= 16 ? 4 : part->pixels >= 4 ? 2 : 1;
  part->tile_width = part->pixels / part->tile_height;
  part->source_rows = (part->tile_height - 1) * window->stride_height + window->kernel_height;
  part->source_columns = (part->tile_width - 1) * window->stride_width + window->kernel_width;
}

static int lanes_for(int channels) {
  int lanes = 32;
  while (lanes < channels) lanes *= 2;
  return lanes;
}

/* Sources of the tiles of out channels that do not fill the lanes, or of those that do. */
static int64_t sources_of(const struct plan_window *window, int lanes, int out_channels) {
  struct sliced_part part = {.pixels = out_channels >= lanes ? 1 : lanes / lanes_for(out_channels)};
  set_tile(&part, window);
  return (int64_t)part.source_rows * part.source_columns;
}

/* Most sources of a tile. */
static int64_t most_sources(const struct plan_conv *conv, int lanes, int out_channels) {
  const int per_group = out_channels / conv->group_count, rest = per_group % lanes;
  const int64_t full = per_group < lanes ? 0 : sources_of(&conv->window, lanes, lanes);
  const int64_t other = rest ? sources_of(&conv->window, lanes, rest) : 0;
  return full > other ? full : other;
}

static bool can_slice(const struct hwgq_plan *plan, const struct hwgq_layer *layer, const struct plan_tensor *input,
                      const struct plan_conv *conv, const struct plan_epilogue *epilogue) {
  const struct plan_coding *coding = &input->coding;
  const int groups = conv->group_count, channels = conv->in.channels / groups;
  if (!hwgq_sliced_supported(plan->kernels) || coding->sign || coding->thermometer) return false;
  if (groups > 1 && channels % 32 != 0) return false;
  if (channels > MAX_ROWS - 1 || layer->out_channels / groups > 1 << 16) return false;
  const int64_t sources = most_sources(conv, plan->kernels->sliced.lanes, layer->out_channels);
  /* Lists are padded: at most 16 per plane and part of the weights, of which there are fewer than sources. */
  if (sources > MAX_SOURCES || sources * (channels * coding->levels + 64) >= HWGQ_SLICED_MOST) return false;
  if (epilogue->unaligned) return false;
  return epilogue->steps ? !conv->pooled : epilogue->level_count <= HWGQ_SLICED_LEVELS;
}

/* Share of the lanes' work that is needed: less than 1 where out channels do not fill the lanes, or sources of a tile are
 * outside the windows of some of its pixels. */
static double useful_share(const struct plan_conv *conv, int lanes, int out_channels) {
  const struct plan_window *window = &conv->window;
  const int per_group = out_channels / conv->group_count, rest = per_group % lanes;
  const double taps = (double)window->kernel_height * window->kernel_width;
  double rows = taps * (per_group / lanes); /* of lanes, per input channel and output pixel */
  if (rest) rows += (double)sources_of(window, lanes, rest) * lanes_for(rest) / lanes;
  return taps * per_group / (rows * lanes);
}

/* Whether the lanes are used well enough, and enough rows are added for each sum: what happens to a sum afterwards costs as
 * much as several hundred rows. */
static bool is_fast(const struct hwgq_kernels *kernels, const struct plan_conv *conv, const struct plan_epilogue *epilogue,
                    int out_channels) {
  const int64_t fan_in =
      (int64_t)conv->window.kernel_height * conv->window.kernel_width * (conv->in.channels / conv->group_count);
  if (fan_in < MIN_FAN_IN || plan_pixels(conv->out) < MIN_PIXELS) return false;
  return useful_share(conv, kernels->sliced.lanes, out_channels) >= hwgq_sliced_share(kernels, epilogue->steps > 0);
}

bool plan_choose_sliced(const struct hwgq_plan *plan, const struct hwgq_layer *layer, const struct plan_tensor *input,
                        const struct plan_conv *conv, const struct plan_epilogue *epilogue) {
  if (!can_slice(plan, layer, input, conv, epilogue)) return false;
  return plan->form ? strcmp(plan->form, "sliced") == 0 : is_fast(plan->kernels, conv, epilogue, layer->out_channels);
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status make_parts(struct plan_builder *builder, struct plan_conv *conv, int out_channels) {
  struct plan_sliced *sliced = conv->sliced;
  const int per_group = out_channels / conv->group_count, lanes = sliced->lanes;
  const int blocks_per_group = conv->block_count / conv->group_count;
  sliced->parts = hwgq_arena_allocate(&builder->plan->arena, (size_t)conv->group_count * 2, sizeof *sliced->parts);
  if (!sliced->parts) return plan_out_of_memory(builder);
  for (int g = 0; g < conv->group_count; g++) {
    const int full = per_group / lanes, rest = per_group % lanes;
    for (int i = 0; i < 2; i++) {
      if (i == 0 ? full == 0 : rest == 0) continue;
      struct sliced_part *part = &sliced->parts[sliced->part_count++];
      part->group = g;
      part->blocks = i == 0 ? full : 1;
      part->pixel_lanes = i == 0 ? lanes : lanes_for(rest);
      part->pixels = lanes / part->pixel_lanes;
      part->first_block = g * blocks_per_group + (i == 0 ? 0 : full * lanes / HWGQ_LANES);
      part->block_count = i == 0 ? full * lanes / HWGQ_LANES : (rest + HWGQ_LANES - 1) / HWGQ_LANES;
      set_tile(part, &conv->window);
      if (part->tile_height > sliced->tile_rows) sliced->tile_rows = part->tile_height;
    }
  }
  return HWGQ_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------------------- */

/* bits[i] bit j -> bits[j] bit i */
static void transpose32(uint32_t bits[32]) {
  uint32_t mask = 0x0000ffff;
  for (int j = 16; j; j >>= 1, mask ^= mask << j) {
    for (int k = 0; k < 32; k = ((k | j) + 1) & ~j) {
      const uint32_t swap = (bits[k] >> j ^ bits[k | j]) & mask;
      bits[k] ^= swap << j;
      bits[k | j] ^= swap;
    }
  }
}

/* Weights of one block of 32 out channels, [tap][word][32], to dword `dword` of the rows of every pixel of the tile. */
static void place_block(const struct plan_conv *conv, const struct sliced_part *part, const uint32_t *bits, int words,
                        int dword, uint8_t *rows) {
  const struct plan_window *w = &conv->window;
  const size_t channels = (size_t)(conv->in.channels / conv->group_count);
  const size_t part_sources = (size_t)part->part_sources;
  const size_t row_dwords = (size_t)conv->sliced->lanes / 32, pixel_dwords = (size_t)part->pixel_lanes / 32;
  for (int tap = 0; tap < w->kernel_height * w->kernel_width; tap++) {
    for (int word = 0; word < words; word++) {
      uint32_t by_channel[32];
      memcpy(by_channel, bits + ((size_t)tap * (size_t)words + (size_t)word) * HWGQ_LANES, sizeof by_channel);
      transpose32(by_channel);
      const size_t first = (size_t)word * 32, count = channels - first < 32 ? channels - first : 32;
      for (int pixel = 0; pixel < part->pixels; pixel++) {
        const int row = pixel / part->tile_width * w->stride_height + tap / w->kernel_width;
        const int column = pixel % part->tile_width * w->stride_width + tap % w->kernel_width;
        const size_t source = (size_t)row * (size_t)part->source_columns + (size_t)column;
        uint8_t *to =
            rows + source / part_sources * part->part_step +
            4 * ((source % part_sources * channels + first) * row_dwords + (size_t)pixel * pixel_dwords + (size_t)dword);
        for (size_t c = 0; c < count; c++) memcpy(to + 4 * c * row_dwords, &by_channel[c], sizeof by_channel[c]);
      }
    }
  }
}

static enum hwgq_status pack_part(struct plan_builder *builder, const struct plan_conv *conv, struct sliced_part *part,
                                  const struct plan_packing *packing, size_t *total) {
  const int channels = conv->in.channels / conv->group_count, sources = part->source_rows * part->source_columns;
  const size_t row_bytes = (size_t)conv->sliced->lanes / 8;
  part->part_sources = (MAX_ROWS - 1) / channels < sources ? (MAX_ROWS - 1) / channels : sources;
  const size_t part_rows = (size_t)part->part_sources * (size_t)channels,
               parts = (size_t)((sources - 1) / part->part_sources + 1);
  part->zero = (uint16_t)(part_rows * row_bytes / HWGQ_SLICED_UNIT);
  part->part_step = (part_rows + 1) * row_bytes;
  part->weight_step = parts * part->part_step;
  uint8_t *weights;
  enum hwgq_status status =
      plan_allocate_weights(builder, packing->layer, (uint64_t)part->blocks * part->weight_step, (void **)&weights);
  if (status) return status;
  const int words = conv->groups[part->group].count;
  uint32_t *bits = malloc(packing->taps * (size_t)words * HWGQ_LANES * sizeof *bits);
  if (!bits) return plan_out_of_memory(builder);
  const int blocks_per_part = part->pixel_lanes / HWGQ_LANES;
  for (int b = 0; b < part->block_count; b++) {
    memset(bits, 0, packing->taps * (size_t)words * HWGQ_LANES * sizeof *bits);
    struct plan_block block = conv->blocks[part->first_block + b];
    block.lanes = HWGQ_LANES;
    plan_pack_bits(packing, &block, bits, NULL);
    place_block(conv, part, bits, words, b % blocks_per_part, weights + (size_t)(b / blocks_per_part) * part->weight_step);
  }
  free(bits);
  part->weights = weights;
  *total += (size_t)part->blocks * part->weight_step;
  return HWGQ_OK;
}

/* ---- thresholds ---------------------------------------------------------------------------------------------------------- */

/* Kernels compare sum + bound, which is not negative. */
static enum hwgq_status slice_thresholds(struct plan_builder *builder, const struct plan_conv *conv, struct sliced_part *part,
                                         const struct plan_epilogue *epilogue) {
  const int levels = epilogue->level_count, planes = conv->sliced->sum_planes + 2, lanes = conv->sliced->lanes;
  const size_t dwords = (size_t)lanes / 32, block_dwords = (size_t)planes * (size_t)levels * dwords;
  const int64_t most = ((int64_t)1 << planes) - 1;
  uint32_t *sliced = hwgq_arena_allocate(&builder->plan->arena, (size_t)part->blocks * block_dwords, sizeof *sliced);
  if (!sliced) return plan_out_of_memory(builder);
  const int pixel_dwords = part->pixel_lanes / 32;
  for (int b = 0; b < part->block_count; b++) {
    const int32_t *from = (const int32_t *)epilogue->thresholds + (size_t)(part->first_block + b) * (size_t)levels * HWGQ_LANES;
    uint32_t *block = sliced + (size_t)(b / pixel_dwords) * block_dwords;
    for (int level = 0; level < levels; level++) {
      for (int lane = 0; lane < HWGQ_LANES; lane++) {
        int64_t threshold = (int64_t)from[level * HWGQ_LANES + lane] + conv->sliced->bound;
        if (threshold < 0) threshold = 0;
        if (threshold > most || lane >= conv->blocks[part->first_block + b].count) threshold = most; /* never reached */
        for (int i = 0; i < planes; i++) {
          uint32_t *row = block + ((size_t)i * (size_t)levels + (size_t)level) * dwords;
          for (int pixel = 0; pixel < part->pixels; pixel++) {
            row[pixel * pixel_dwords + b % pixel_dwords] |= (uint32_t)(threshold >> i & 1) << lane;
          }
        }
      }
    }
  }
  part->thresholds = sliced;
  return HWGQ_OK;
}

/* ---- memory of a run ----------------------------------------------------------------------------------------------------- */

static size_t reserve(struct plan_sliced *sliced, uint64_t bytes) {
  const size_t offset = sliced->bytes;
  sliced->bytes += (size_t)((bytes + 63) / 64 * 64);
  return offset;
}

static void plan_memory(struct plan_conv *conv, const struct plan_coding *coding, const struct plan_epilogue *epilogue) {
  struct plan_sliced *s = conv->sliced;
  const uint64_t channels = (uint64_t)(conv->in.channels / conv->group_count), planes = (uint64_t)coding->planes;
  const uint64_t out_words = (uint64_t)conv->block_count, row_pixels = (uint64_t)conv->in.width * (uint64_t)conv->group_count;
  uint64_t sources = 0, blocks = 0;
  for (int i = 0; i < s->part_count; i++) {
    const struct sliced_part *part = &s->parts[i];
    const uint64_t n = (uint64_t)part->source_rows * (uint64_t)part->source_columns;
    if (n > sources) sources = n;
    if ((uint64_t)part->blocks > blocks) blocks = (uint64_t)part->blocks;
  }
  s->usual = (size_t)(channels * 3 / 8 + 31) / 32 * 32;
  s->offsets_step = (size_t)channels + HWGQ_SLICED_SLACK;
  s->input_rows = (s->tile_rows - 1) * conv->window.stride_height + conv->window.kernel_height;
  if (s->input_rows > conv->in.height) s->input_rows = conv->in.height;
  s->output_rows = (conv->pooled ? conv->pool.kernel_height : 1) + s->tile_rows;
  const uint64_t input_pixels = (uint64_t)s->input_rows * row_pixels;
  const uint64_t output_pixels = (uint64_t)s->output_rows * (uint64_t)conv->out.width;
  s->offsets = reserve(s, input_pixels * planes * s->offsets_step * sizeof(uint16_t));
  s->counts = reserve(s, input_pixels * planes * sizeof(uint16_t));
  s->totals = reserve(s, input_pixels * sizeof(int32_t));
  s->column_totals = reserve(s, (uint64_t)conv->in.width * sizeof(int32_t));
  s->window_totals = reserve(s, (uint64_t)s->tile_rows * (uint64_t)(conv->out.width * conv->group_count) * sizeof(int32_t));
  s->sources = reserve(s, sources * sizeof(struct hwgq_sliced_source));
  s->list = reserve(s, (MAX_ROWS + s->usual + HWGQ_SLICED_SLACK) * sizeof(uint16_t));
  s->sums = reserve(s, blocks * (uint64_t)s->sum_planes * (uint64_t)s->lanes / 8);
  s->masks = reserve(s, (uint64_t)HWGQ_SLICED_LEVELS * (uint64_t)s->lanes / 8);
  s->pooled = reserve(s, conv->pooled ? (uint64_t)epilogue->level_count * out_words * sizeof(uint32_t) : 0);
  s->output = reserve(s, !epilogue->steps ? output_pixels * (uint64_t)epilogue->level_count * out_words * sizeof(uint32_t)
                                          : output_pixels * out_words * HWGQ_LANES * sizeof(int32_t));
}

enum hwgq_status plan_pack_sliced(struct plan_builder *builder, struct plan_stage *stage, const struct plan_packing *packing,
                                  const struct plan_tensor *input) {
  struct plan_conv *conv = &stage->conv;
  struct plan_sliced *sliced = hwgq_arena_allocate(&builder->plan->arena, 1, sizeof *sliced);
  if (!sliced) return plan_out_of_memory(builder);
  conv->sliced = sliced;
  sliced->kernels = &builder->plan->kernels->sliced;
  sliced->lanes = sliced->kernels->lanes;
  sliced->bound = (int32_t)(packing->fan_in * (size_t)input->coding.levels);
  sliced->sum_planes = 6;
  while (sliced->bound >> sliced->sum_planes) sliced->sum_planes++;
  enum hwgq_status status = make_parts(builder, conv, packing->layer->out_channels);
  stage->weight_bytes = 0;
  for (int i = 0; !status && i < sliced->part_count; i++) {
    status = pack_part(builder, conv, &sliced->parts[i], packing, &stage->weight_bytes);
    if (!status && !stage->epilogue.steps) status = slice_thresholds(builder, conv, &sliced->parts[i], &stage->epilogue);
  }
  if (!status) plan_memory(conv, &input->coding, &stage->epilogue);
  return status;
}
