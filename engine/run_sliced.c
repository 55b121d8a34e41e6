/* Runs a bit-sliced convolution (plan_sliced.c).
 *
 * Output rows are computed a row of tiles at a time, into a ring of rows that hold either one bit per threshold and out channel
 * (sum >= threshold), from which levels are made, after the maximum over a pooling window has been taken bit by bit; or sums,
 * which go through the epilogue. Lists of the input rows that the tiles read are kept in a ring, too. */
#include <string.h>

#include "engine/plan.h"

enum { PREFETCH_BYTES = 640 << 10 };

struct sliced_run {
  const struct hwgq_plan *plan;
  const struct plan_stage *stage;
  const struct plan_conv *conv;
  const struct plan_sliced *sliced;
  const struct plan_frame *frame;
  const struct plan_tensor *input;
  const uint32_t *input_data;
  uint16_t *offsets;
  uint16_t *counts;
  int32_t *totals, *column_totals, *window_totals;
  struct hwgq_sliced_source *sources;
  uint16_t *list;
  uint32_t *masks, *pooled;
  uint8_t *sums;
  uint32_t *marks;              /* [ring row][x][levels][out word] */
  int32_t *accumulators;        /* [out block][ring row][x][HWGQ_LANES] */
  int first_column, end_column; /* of the final rows */
  int listed;                   /* input rows before this one have been listed */
};

/* ---- input lists --------------------------------------------------------------------------------------------------------- */

/* Index of an input pixel in the ring: [ring row][group][x]. */
static size_t ring_pixel(const struct sliced_run *run, int group, int row, int x) {
  const struct plan_conv *conv = run->conv;
  const size_t line = (size_t)(row % run->sliced->input_rows) * (size_t)conv->group_count + (size_t)group;
  return line * (size_t)conv->in.width + (size_t)x;
}

static void list_row(const struct sliced_run *run, int row) {
  const struct plan_conv *conv = run->conv;
  const size_t planes = (size_t)run->input->coding.planes, pixel_words = plan_pixel_words(run->input);
  const size_t width = (size_t)conv->in.width;
  for (int g = 0; g < conv->group_count; g++) {
    const size_t first = ring_pixel(run, g, row, 0);
    const struct hwgq_sliced_list_job job = {.input = run->input_data + (size_t)row * width * pixel_words +
                                                      (size_t)conv->groups[g].first * planes,
                                             .pixels = width,
                                             .pixel_step = pixel_words,
                                             .words = conv->groups[g].count,
                                             .planes = (int)planes,
                                             .offsets = run->offsets + first * planes * run->sliced->offsets_step,
                                             .offsets_step = run->sliced->offsets_step,
                                             .counts = run->counts + first * planes};
    run->sliced->kernels->list(&job);
    for (size_t x = 0; x < width; x++) {
      int32_t total = 0;
      for (size_t p = 0; p < planes; p++) total += job.counts[x * planes + p] << p;
      run->totals[first + x] = total;
    }
  }
}

/* ---- one tile ------------------------------------------------------------------------------------------------------------ */

/* The part of positions start .. start + count - 1 that lies within 0 .. size - 1. */
static void clip(int start, int count, int size, int *first, int *end) {
  *first = start < 0 ? 0 : start;
  *end = start + count < size ? start + count : size;
}

/* Index of an output pixel in the totals of a row of tiles: [row][group][x]. */
static size_t window_pixel(const struct sliced_run *run, int group, int y, int x) {
  const size_t line = (size_t)(y % run->sliced->tile_rows) * (size_t)run->conv->group_count + (size_t)group;
  return line * (size_t)run->conv->out.width + (size_t)x;
}

/* Sums of the levels in the windows of output row y. */
static void sum_windows(const struct sliced_run *run, int group, int y) {
  const struct plan_conv *conv = run->conv;
  int32_t *columns = run->column_totals, *to = run->window_totals + window_pixel(run, group, y, 0);
  int first, end;
  clip(y * conv->window.stride_height - conv->window.pad_height, conv->window.kernel_height, conv->in.height, &first, &end);
  memset(columns, 0, (size_t)conv->in.width * sizeof *columns);
  for (int row = first; row < end; row++) {
    const int32_t *from = run->totals + ring_pixel(run, group, row, 0);
    for (int x = 0; x < conv->in.width; x++) columns[x] += from[x];
  }
  for (int x = 0; x < conv->out.width; x++) {
    clip(x * conv->window.stride_width - conv->window.pad_width, conv->window.kernel_width, conv->in.width, &first, &end);
    int32_t total = 0;
    for (int column = first; column < end; column++) total += columns[column];
    to[x] = total;
  }
}

static int make_sources(const struct sliced_run *run, const struct sliced_part *part, int y, int x) {
  const struct plan_conv *conv = run->conv;
  const size_t planes = (size_t)run->input->coding.planes;
  const int step = conv->in.channels / conv->group_count * (run->sliced->lanes / 8) / HWGQ_SLICED_UNIT;
  const int top = y * conv->window.stride_height - conv->window.pad_height;
  const int left = x * conv->window.stride_width - conv->window.pad_width;
  int first_row, end_row, first_column, end_column, count = 0;
  clip(top, part->source_rows, conv->in.height, &first_row, &end_row);
  clip(left, part->source_columns, conv->in.width, &first_column, &end_column);
  for (int row = first_row; row < end_row; row++) {
    size_t pixel = ring_pixel(run, part->group, row, first_column);
    int source = (row - top) * part->source_columns + first_column - left;
    for (int column = first_column; column < end_column; column++, pixel++, source++) {
      run->sources[count++] = (struct hwgq_sliced_source){.offsets = run->offsets + pixel * planes * run->sliced->offsets_step,
                                                          .counts = run->counts + pixel * planes,
                                                          .part = (uint16_t)(source / part->part_sources),
                                                          .add = (uint16_t)(source % part->part_sources * step)};
    }
  }
  return count;
}

/* sum(w * a) = 2 * sum(bit * a) - sum(a): with `base`, what is added to twice the bit-sliced sum, for each dword of lanes. */
static void set_start(const struct sliced_run *run, const struct sliced_part *part, int y, int x, int32_t base,
                      uint32_t start[HWGQ_SLICED_MAX_DWORDS]) {
  const int dwords = part->pixel_lanes / 32;
  for (int pixel = 0; pixel < part->pixels; pixel++) {
    const int py = y + pixel / part->tile_width, px = x + pixel % part->tile_width;
    const bool exists = py < run->conv->out.height && px < run->conv->out.width;
    const uint32_t value = exists ? (uint32_t)(base - run->window_totals[window_pixel(run, part->group, py, px)]) : 0;
    for (int i = 0; i < dwords; i++) start[pixel * dwords + i] = value;
  }
}

static size_t ring_line(const struct sliced_run *run, int y) {
  return (size_t)(y % run->sliced->output_rows) * (size_t)run->conv->out.width;
}

static void store_marks(const struct sliced_run *run, const struct sliced_part *part, int block, int y, int x) {
  const struct plan_conv *conv = run->conv;
  const int levels = run->stage->epilogue.level_count, dwords = part->pixel_lanes / 32;
  const size_t words = (size_t)conv->block_count, lane_words = (size_t)run->sliced->lanes / 32;
  const int first = block * dwords, left = part->block_count - first, count = left < dwords ? left : dwords;
  for (int pixel = 0; pixel < part->pixels; pixel++) {
    const int py = y + pixel / part->tile_width, px = x + pixel % part->tile_width;
    if (py >= conv->out.height || px >= conv->out.width) continue;
    uint32_t *to = run->marks + (ring_line(run, py) + (size_t)px) * (size_t)levels * words + part->first_block + first;
    const uint32_t *from = run->masks + pixel * dwords;
    for (int j = 0; j < levels; j++, to += words, from += lane_words) {
      for (int i = 0; i < count; i++) to[i] = from[i];
    }
  }
}

static void compare_block(const struct sliced_run *run, const struct sliced_part *part, int block, const uint8_t *sums,
                          const uint32_t *start, int y, int x) {
  const struct plan_sliced *sliced = run->sliced;
  const int levels = run->stage->epilogue.level_count;
  const size_t dwords = (size_t)(sliced->sum_planes + 2) * (size_t)levels * (size_t)sliced->lanes / 32;
  const struct hwgq_sliced_compare_job job = {.sums = sums,
                                              .sum_planes = sliced->sum_planes,
                                              .levels = levels,
                                              .start = start,
                                              .thresholds = part->thresholds + (size_t)block * dwords,
                                              .masks = run->masks};
  sliced->kernels->compare(&job);
  store_marks(run, part, block, y, x);
}

static void unpack_block(const struct sliced_run *run, const struct sliced_part *part, int block, const uint8_t *sums,
                         const uint32_t *start, int y, int x) {
  const struct plan_conv *conv = run->conv;
  const int dwords = part->pixel_lanes / 32;
  int32_t nowhere[HWGQ_LANES];
  int32_t *to[HWGQ_SLICED_MAX_DWORDS];
  const size_t ring = (size_t)run->sliced->output_rows * (size_t)conv->out.width;
  for (int pixel = 0; pixel < part->pixels; pixel++) {
    const int py = y + pixel / part->tile_width, px = x + pixel % part->tile_width;
    for (int i = 0; i < dwords; i++) {
      const int b = block * dwords + i;
      const bool exists = py < conv->out.height && px < conv->out.width && b < part->block_count;
      const size_t at = ((size_t)(part->first_block + b) * ring + ring_line(run, py) + (size_t)px) * HWGQ_LANES;
      to[pixel * dwords + i] = exists ? run->accumulators + at : nowhere;
    }
  }
  const struct hwgq_sliced_unpack_job job = {
      .sums = sums, .sum_planes = run->sliced->sum_planes, .start = start, .sums_of = to};
  run->sliced->kernels->unpack(&job);
}

static void run_tile(const struct sliced_run *run, const struct sliced_part *part, int y, int x) {
  const struct plan_sliced *sliced = run->sliced;
  const bool pack = !run->stage->epilogue.steps;
  const struct hwgq_sliced_job job = {.sources = run->sources,
                                      .source_count = make_sources(run, part, y, x),
                                      .planes = run->input->coding.planes,
                                      .offsets_step = sliced->offsets_step,
                                      .usual = sliced->usual,
                                      .weights = part->weights,
                                      .weight_step = part->weight_step,
                                      .part_step = part->part_step,
                                      .zero = part->zero,
                                      .blocks = part->blocks,
                                      .list = run->list,
                                      .sums = run->sums,
                                      .sum_planes = sliced->sum_planes};
  uint32_t start[HWGQ_SLICED_MAX_DWORDS];
  sliced->kernels->sum(&job);
  set_start(run, part, y, x, pack ? sliced->bound : 0, start);
  const uint8_t *sums = run->sums;
  for (int block = 0; block < part->blocks; block++) {
    if (pack) {
      compare_block(run, part, block, sums, start, y, x);
    } else {
      unpack_block(run, part, block, sums, start, y, x);
    }
    sums += (size_t)sliced->sum_planes * (size_t)sliced->lanes / 8;
  }
}

/* Rows y .. y + tile_rows - 1 of the convolution. */
static void compute_rows(struct sliced_run *run, int y) {
  const struct plan_conv *conv = run->conv;
  const struct plan_sliced *sliced = run->sliced;
  const int top = y * conv->window.stride_height - conv->window.pad_height;
  int first, end;
  clip(top, (sliced->tile_rows - 1) * conv->window.stride_height + conv->window.kernel_height, conv->in.height, &first, &end);
  for (int row = run->listed > first ? run->listed : first; row < end; row++) list_row(run, row);
  if (end > run->listed) run->listed = end;
  for (int row = y; row < y + sliced->tile_rows && row < conv->out.height; row++) {
    for (int g = 0; g < conv->group_count; g++) sum_windows(run, g, row);
  }
  for (int i = 0; i < sliced->part_count; i++) {
    const struct sliced_part *part = &sliced->parts[i];
    for (int row = y; row < y + sliced->tile_rows && row < conv->out.height; row += part->tile_height) {
      const int first_x = conv->pooled ? 0 : run->first_column, end_x = conv->pooled ? conv->out.width : run->end_column;
      for (int x = first_x; x < end_x; x += part->tile_width) run_tile(run, part, row, x);
    }
  }
}

/* ---- one final row ------------------------------------------------------------------------------------------------------- */

/* Levels of one pixel from its marks [levels][words]: `negate` [words] is where a level counts the thresholds that are not
 * reached. */
static void write_levels(const uint32_t *marks, size_t words, const struct plan_coding *coding, const uint32_t *negate,
                         uint32_t *output) {
  const size_t planes = (size_t)coding->planes;
  if (coding->levels == 3 && planes == 2) { /* level = number of marks; two digits */
    for (size_t i = 0; i < words; i++) {
      const uint32_t middle = marks[words + i];
      output[2 * i] = marks[i] ^ middle ^ marks[2 * words + i] ^ negate[i];
      output[2 * i + 1] = middle ^ negate[i];
    }
    return;
  }
  for (size_t i = 0; i < words; i++) {
    for (size_t p = 0; p < planes; p++) {
      uint32_t bits = 0;
      /* Digit p is the parity of the number of multiples of 2^p up to the level. */
      const size_t step = (size_t)1 << p;
      if (coding->thermometer) {
        bits = marks[p * words + i] ^ negate[i];
      } else {
        for (size_t level = step; level <= (size_t)coding->levels; level += step) {
          bits ^= marks[(level - 1) * words + i] ^ negate[i];
        }
      }
      output[planes * i + p] = bits;
    }
  }
}

/* The marks of final pixel x of row y: those of the maximum over its pooling window. */
static const uint32_t *pool_marks(const struct sliced_run *run, int y, int x, size_t size, uint32_t *pooled) {
  const struct plan_conv *conv = run->conv;
  if (!conv->pooled) return run->marks + (ring_line(run, y) + (size_t)x) * size;
  int top, bottom, left, right;
  clip(y * conv->pool.stride_height - conv->pool.pad_height, conv->pool.kernel_height, conv->out.height, &top, &bottom);
  clip(x * conv->pool.stride_width - conv->pool.pad_width, conv->pool.kernel_width, conv->out.width, &left, &right);
  memset(pooled, 0, size * sizeof *pooled);
  for (int row = top; row < bottom; row++) {
    const uint32_t *from = run->marks + (ring_line(run, row) + (size_t)left) * size;
    for (int column = left; column < right; column++, from += size) {
      for (size_t i = 0; i < size; i++) pooled[i] |= from[i];
    }
  }
  return pooled;
}

static void finish_row(const struct sliced_run *run, int y) {
  const struct plan_conv *conv = run->conv;
  const struct plan_epilogue *epilogue = &run->stage->epilogue;
  const size_t width = (size_t)conv->final.width, words = (size_t)conv->block_count;
  const size_t first = (size_t)run->first_column, count = (size_t)run->end_column - first;
  if (epilogue->steps) {
    const size_t ring = (size_t)run->sliced->output_rows * width * HWGQ_LANES;
    const int32_t *accumulators = run->accumulators + (ring_line(run, y) + first) * HWGQ_LANES;
    for (int block = 0; block < conv->block_count; block++, accumulators += ring) {
      run_epilogue(run->plan, run->frame, epilogue, block, accumulators, HWGQ_LANES, count, (size_t)y * width + first, NULL);
    }
    return;
  }
  const struct plan_tensor *output = &run->plan->tensors[epilogue->levels];
  const size_t size = words * (size_t)epilogue->level_count;
  uint32_t *to = plan_data(run->plan, run->frame, epilogue->levels);
  to += ((size_t)y * width + first) * plan_pixel_words(output);
  to += (size_t)(epilogue->channel / 32) * (size_t)output->coding.planes;
  for (int x = run->first_column; x < run->end_column; x++, to += plan_pixel_words(output)) {
    write_levels(pool_marks(run, y, x, size, run->pooled), words, &output->coding, epilogue->negate, to);
  }
}

/* ---- the stage ----------------------------------------------------------------------------------------------------------- */

/* Final rows begin .. end - 1. */
static void run_rows(struct sliced_run *run, int begin, int end) {
  const struct plan_conv *conv = run->conv;
  int computed = 0; /* rows of the convolution before this one are in the ring */
  for (int y = begin; y < end; y++) {
    int first = y, last = y + 1;
    if (conv->pooled) {
      clip(y * conv->pool.stride_height - conv->pool.pad_height, conv->pool.kernel_height, conv->out.height, &first, &last);
    }
    if (computed < first) computed = first;
    for (; computed < last; computed += run->sliced->tile_rows) compute_rows(run, computed);
    finish_row(run, y);
  }
}

/* Rows are visited in an order that no hardware predicts: weights that fit the second-level cache are brought there first. */
static void prefetch_weights(const struct sliced_part *part) {
  const size_t bytes = part->weight_step * (size_t)part->blocks;
  if (bytes > PREFETCH_BYTES) return;
  for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(part->weights + at, 0, 2);
}

void run_sliced(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                struct plan_units units) {
  const struct plan_conv *conv = &stage->conv;
  const struct plan_sliced *s = conv->sliced;
  uint8_t *memory = plan_data(plan, frame, stage->temporaries[TEMP_SLICED]);
  struct sliced_run run = {.plan = plan,
                           .stage = stage,
                           .conv = conv,
                           .sliced = s,
                           .input = &plan->tensors[stage->inputs[0]],
                           .frame = frame,
                           .input_data = plan_data(plan, frame, stage->inputs[0]),
                           .offsets = (uint16_t *)(void *)(memory + s->offsets),
                           .counts = (uint16_t *)(void *)(memory + s->counts),
                           .totals = (int32_t *)(void *)(memory + s->totals),
                           .column_totals = (int32_t *)(void *)(memory + s->column_totals),
                           .window_totals = (int32_t *)(void *)(memory + s->window_totals),
                           .sources = (struct hwgq_sliced_source *)(void *)(memory + s->sources),
                           .list = (uint16_t *)(void *)(memory + s->list),
                           .masks = (uint32_t *)(void *)(memory + s->masks),
                           .pooled = (uint32_t *)(void *)(memory + s->pooled),
                           .sums = memory + s->sums,
                           .marks = (uint32_t *)(void *)(memory + s->output),
                           .accumulators = (int32_t *)(void *)(memory + s->output)};
  if (units.begin == 0 || units.end == stage->run_units) { /* where the first two participants begin */
    for (int i = 0; i < s->part_count; i++) prefetch_weights(&s->parts[i]);
  }
  const int parts = s->column_units, row_units = stage->run_units / parts;
  for (int unit = units.begin; unit < units.end;) {
    const int first = unit / parts, part = unit % parts;
    const int whole = part == 0 ? (units.end - unit) / parts : 0; /* rows of units */
    const int end = first + (whole ? whole : 1);
    run.first_column = whole ? 0 : conv->final.width * part / parts;
    run.end_column = whole ? conv->final.width : conv->final.width * (part + 1) / parts;
    run_rows(&run, (int)((int64_t)conv->final.height * first / row_units),
             (int)((int64_t)conv->final.height * end / row_units));
    unit += whole ? whole * parts : 1;
  }
}
