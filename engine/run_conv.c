/* Convolutions and float linear layers.
 *
 * Out channels are computed in blocks of up to 32, so that a block's weights stay in the first-level cache; within a block, in
 * bands of output rows, whose accumulators stay there too until the epilogue has made levels or floats of them. Rows that two
 * pooled bands share are moved, not computed twice. */
#include <string.h>

#include "engine/plan.h"

struct conv_run {
  const struct hwgq_plan *plan;
  const struct plan_stage *stage;
  const struct plan_conv *conv;
  const struct plan_frame *frame;
  const struct plan_tensor *input;
  const void *input_data;
  void *accumulators, *pooled; /* of the epilogue's type */
  int32_t *plane;              /* thermometer input: accumulators of one plane */
  int32_t *corrections;        /* [pass][group][output pixel] */
  uint32_t *bits;
  const uint32_t *codes; /* forms with codes: [input pixel][hwgq_code_elements] */
  size_t block_bytes;    /* of a block's accumulators */
  bool real;             /* thermometer input: one pass per plane, added up in double */
  size_t element;        /* bytes of an accumulator */
};

/* ---- corrections -----------------------------------------------------------------------------------------------------------
 * With weights w in {-1,+1} stored as bits b: sum(w * a) = 2 * sum(b * a) - sum(a), and for sign activations stored as bits,
 * a = 2 * bit - 1: sum(w * a) = 4 * sum(b * bit) - 2 * sum(bit) - sum(w). The sums over a belong to the output pixel and are
 * added as its correction; sum(w) belongs to the channel. */

static void sum_windows(const struct plan_conv *conv, const int32_t *sums, int32_t factor, int32_t *corrections) {
  for (int i = 0; i < conv->line_segments; i++) {
    const struct plan_segment *line = &conv->lines[i];
    for (int y = 0; y < line->count; y++) {
      const int top = line->input + y * conv->window.stride_height;
      for (int k = 0; k < conv->column_segments; k++) {
        const struct plan_segment *column = &conv->columns[k];
        int32_t *out = corrections + (size_t)(line->start + y) * (size_t)conv->out.width + column->start;
        for (int x = 0; x < column->count; x++) {
          const int left = column->input + x * conv->window.stride_width;
          int32_t total = 0;
          for (int row = 0; row < line->taps; row++) {
            const int32_t *from = sums + (size_t)(top + row) * (size_t)conv->in.width + left;
            for (int tap = 0; tap < column->taps; tap++) total += from[tap];
          }
          out[x] = factor * total;
        }
      }
    }
  }
}

static void make_corrections(const struct conv_run *run, int32_t *sums) {
  const struct plan_conv *conv = run->conv;
  const struct plan_coding *coding = &run->input->coding;
  const size_t pixel_words = plan_pixel_words(run->input), out_pixels = plan_pixels(conv->out);
  const int passes = run->real ? coding->planes : 1;
  int32_t *corrections = run->corrections;
  for (int pass = 0; pass < passes; pass++) {
    for (int g = 0; g < conv->group_count; g++, corrections += out_pixels) {
      const struct plan_group *group = &conv->groups[g];
      const struct hwgq_sums_job job = {.input = (const uint32_t *)run->input_data +
                                                 (size_t)group->first * (size_t)coding->planes + pass,
                                        .pixels = plan_pixels(conv->in),
                                        .pixel_step = pixel_words,
                                        .words = group->count,
                                        .planes = run->real ? 1 : coding->planes,
                                        .plane_step = coding->planes,
                                        .masks = group->masks,
                                        .sums = sums};
      run->plan->kernels->sums(&job);
      sum_windows(conv, sums, coding->sign ? -2 : -1, corrections);
    }
  }
}

/* ---- one rectangle of output pixels with the same valid taps ---------------------------------------------------------------
 */

struct rectangle {
  const struct plan_block *block;
  int block_index, blocks; /* blocks that are computed together */
  const struct plan_segment *line, *column;
  int first_line, lines; /* output rows, within the line segment */
  size_t row;            /* of the band, where the first of them goes */
};

/* - sum of the valid taps' weights, for sign activations; else 0. */
static void set_base(const struct conv_run *run, const struct rectangle *r, int block, int32_t base[HWGQ_LANES]) {
  const struct plan_conv *conv = run->conv;
  memset(base, 0, HWGQ_LANES * sizeof *base);
  if (!conv->tap_sums) return;
  const size_t taps = (size_t)conv->window.kernel_height * (size_t)conv->window.kernel_width;
  const int32_t *sums = conv->tap_sums + (size_t)block * taps * HWGQ_LANES;
  for (int row = r->line->tap; row < r->line->tap + r->line->taps; row++) {
    for (int tap = r->column->tap; tap < r->column->tap + r->column->taps; tap++) {
      const int32_t *from = sums + ((size_t)row * (size_t)conv->window.kernel_width + (size_t)tap) * HWGQ_LANES;
      for (int lane = 0; lane < HWGQ_LANES; lane++) base[lane] -= from[lane];
    }
  }
}

/* What a pixel and its weights are made of, in 4-byte elements. A unit is a word, a channel, or a code. */
struct layout {
  const uint32_t *data;
  size_t units, unit;  /* of a pixel; elements per unit */
  size_t first, count; /* units that the group uses */
  size_t weights;      /* elements of weights per unit */
};

static struct layout layout_of(const struct conv_run *run, const struct plan_block *block) {
  const struct plan_conv *conv = run->conv;
  const struct plan_group *group = &conv->groups[block->group];
  struct layout l = {.data = run->input_data,
                     .units = conv->binary ? (size_t)plan_words(run->input) : (size_t)conv->in.channels,
                     .unit = conv->binary ? (size_t)run->input->coding.planes : 1,
                     .first = (size_t)group->first,
                     .count = (size_t)group->count,
                     .weights = (size_t)block->lanes};
  if (!run->codes) return l;
  const size_t elements = hwgq_code_elements(conv->form, (int)l.units);
  l.data = run->codes;
  l.units = hwgq_code_units(conv->form, (int)l.units);
  l.unit = elements / l.units;
  l.count = hwgq_code_units(conv->form, group->count);
  l.weights = hwgq_code_unit_weights(conv->form);
  return l;
}

/* Everything that binary and float convolutions share. */
static void fill_job(const struct conv_run *run, const struct rectangle *r, struct hwgq_conv_job *job) {
  const struct plan_conv *conv = run->conv;
  const struct layout l = layout_of(run, r->block);
  const size_t width = (size_t)conv->in.width, words = l.units * l.unit;
  const bool whole = l.count == l.units; /* kernel rows are contiguous */
  const size_t top = (size_t)(r->line->input + (r->first_line - r->line->start) * conv->window.stride_height);
  const size_t element = (top * width + (size_t)r->column->input) * words + l.first * l.unit;
  const size_t tap = (size_t)r->line->tap * (size_t)conv->window.kernel_width + (size_t)r->column->tap;
  *job = (struct hwgq_conv_job){
      .lines = r->lines,
      .columns = r->column->count,
      .input = l.data + element,
      .line_step = (size_t)conv->window.stride_height * width * words,
      .column_step = (size_t)conv->window.stride_width * words,
      .rows = r->line->taps,
      .runs = whole ? 1 : r->column->taps,
      .length = whole ? r->column->taps * (int)l.count : (int)l.count,
      .row_step = width * words,
      .run_step = words,
      .weights = (const uint32_t *)conv->weights + r->block->weights + tap * l.count * l.weights,
      .weight_row_step = (size_t)conv->window.kernel_width * l.count * l.weights,
      .weight_run_step = l.count * l.weights,
      .lanes = r->blocks == 1 ? r->block->lanes : r->blocks * HWGQ_LANES,
      .accumulator_line_step = (size_t)conv->out.width * HWGQ_LANES,
      .accumulator_block_step = run->block_bytes / run->element,
      .plane_step = (int)l.unit,
      .tables = conv->tables,
  };
}

/* Adds factor * accumulators of one plane to the sums in double; the first plane starts them. */
static void add_plane(const struct conv_run *run, const struct rectangle *r, double factor, bool first) {
  const size_t width = (size_t)run->conv->out.width;
  for (int y = 0; y < r->lines; y++) {
    const size_t start = ((r->row + (size_t)y) * width + (size_t)r->column->start) * HWGQ_LANES;
    const struct hwgq_accumulate_job job = {.accumulators = run->plane + start,
                                            .factor = factor,
                                            .first = first,
                                            .count = (size_t)r->column->count * HWGQ_LANES,
                                            .sums = (double *)run->accumulators + start};
    run->plan->kernels->accumulate(&job);
  }
}

static void binary_rectangle(const struct conv_run *run, const struct rectangle *r) {
  const struct plan_conv *conv = run->conv;
  const struct plan_coding *coding = &run->input->coding;
  const size_t out_pixels = plan_pixels(conv->out), width = (size_t)conv->out.width;
  int32_t base[HWGQ_MAX_SPAN * HWGQ_LANES];
  struct hwgq_conv_job job;
  fill_job(run, r, &job);
  for (int i = 0; i < r->blocks; i++) set_base(run, r, r->block_index + i, base + (size_t)i * HWGQ_LANES);
  job.base = base;
  job.planes = run->real ? 1 : coding->planes;
  job.shift = coding->sign ? 2 : 1;
  job.correction_line_step = width;
  const size_t start = (r->row * width + (size_t)r->column->start) * HWGQ_LANES;
  job.accumulators = (run->real ? run->plane : (int32_t *)run->accumulators) + start;
  const uint32_t *input = job.input;
  for (int pass = 0; pass < (run->real ? coding->planes : 1); pass++) {
    const size_t index = (size_t)pass * (size_t)conv->group_count + (size_t)r->block->group;
    job.input = input + pass;
    job.correction = run->corrections + index * out_pixels + (size_t)r->first_line * width + (size_t)r->column->start;
    conv->form->bconv(&job);
    if (run->real) add_plane(run, r, coding->steps[pass], pass == 0);
  }
}

static void float_rectangle(const struct conv_run *run, const struct rectangle *r) {
  struct hwgq_conv_job job;
  fill_job(run, r, &job);
  job.accumulators =
      (float *)run->accumulators + (r->row * (size_t)run->conv->out.width + (size_t)r->column->start) * HWGQ_LANES;
  run->plan->kernels->fconv(&job);
}

/* ---- bands -----------------------------------------------------------------------------------------------------------------
 */

/* Accumulators of rows begin .. end - 1 of a span, to the band's rows from `row` on. */
static void compute_rows(const struct conv_run *run, int block, int begin, int end, size_t row) {
  const struct plan_conv *conv = run->conv;
  struct rectangle r = {.block = &conv->blocks[block], .block_index = block, .blocks = plan_span(conv, block)};
  for (int i = 0; i < conv->line_segments; i++) {
    r.line = &conv->lines[i];
    const int first = r.line->start > begin ? r.line->start : begin;
    const int last = r.line->start + r.line->count < end ? r.line->start + r.line->count : end;
    if (first >= last) continue;
    r.first_line = first;
    r.lines = last - first;
    r.row = row + (size_t)(first - begin);
    for (int k = 0; k < conv->column_segments; k++) {
      r.column = &conv->columns[k];
      if (conv->binary) {
        binary_rectangle(run, &r);
      } else {
        float_rectangle(run, &r);
      }
    }
  }
}

static void finish(const struct conv_run *run, int block, const void *accumulators, int lines, int first_line) {
  const size_t width = (size_t)run->conv->final.width;
  run_epilogue(run->plan, run->frame, &run->stage->epilogue, block, accumulators, HWGQ_LANES, (size_t)lines * width,
               (size_t)first_line * width, run->bits);
}

static void *accumulators_of(const struct conv_run *run, int part) {
  return (char *)run->accumulators + (size_t)part * run->block_bytes;
}

static void plain_blocks(const struct conv_run *run, int block) {
  const struct plan_conv *conv = run->conv;
  for (int y = 0; y < conv->out.height; y += conv->band) {
    const int end = y + conv->band < conv->out.height ? y + conv->band : conv->out.height;
    compute_rows(run, block, y, end, 0);
    for (int i = 0; i < plan_span(conv, block); i++) finish(run, block + i, accumulators_of(run, i), end - y, y);
  }
}

/* Pools one final row; the band starts with row `start` of the convolution. */
static void pool_row(const struct conv_run *run, const void *accumulators, int y, int start, void *output) {
  const struct plan_conv *conv = run->conv;
  const int top = y * conv->pool.stride_height - conv->pool.pad_height, bottom = top + conv->pool.kernel_height;
  const int first = top < 0 ? 0 : top, last = bottom < conv->out.height ? bottom : conv->out.height;
  const size_t line = (size_t)conv->out.width * HWGQ_LANES;
  const struct hwgq_pool_job job = {.accumulators = (const char *)accumulators + (size_t)(first - start) * line * run->element,
                                    .line_step = line,
                                    .lines = last - first,
                                    .columns = conv->out.width,
                                    .output_columns = conv->final.width,
                                    .kernel = conv->pool.kernel_width,
                                    .stride = conv->pool.stride_width,
                                    .pad = conv->pool.pad_width,
                                    .output = output};
  switch (run->stage->epilogue.type) {
  case PLAN_I32:
    run->plan->kernels->pool_i32(&job);
    break;
  case PLAN_F32:
    run->plan->kernels->pool_f32(&job);
    break;
  case PLAN_F64:
    run->plan->kernels->pool_f64(&job);
    break;
  }
}

/* Pools and finishes final rows y .. end - 1 of one block. */
static void pool_block(const struct conv_run *run, int block, const void *accumulators, int y, int end, int start) {
  for (int row = y; row < end; row++) {
    const size_t offset = (size_t)(row - y) * (size_t)run->conv->final.width * HWGQ_LANES * run->element;
    pool_row(run, accumulators, row, start, (char *)run->pooled + offset);
  }
  finish(run, block, run->pooled, end - y, y);
}

static void pooled_blocks(const struct conv_run *run, int block) {
  const struct plan_conv *conv = run->conv;
  const struct plan_window *pool = &conv->pool;
  const size_t line = (size_t)conv->out.width * HWGQ_LANES * run->element;
  int have_begin = 0, have_end = 0; /* rows of the convolution that the band holds */
  for (int y = 0; y < conv->final.height; y += conv->band) {
    const int end = y + conv->band < conv->final.height ? y + conv->band : conv->final.height;
    const int top = y * pool->stride_height - pool->pad_height;
    const int bottom = (end - 1) * pool->stride_height - pool->pad_height + pool->kernel_height;
    const int begin = top < 0 ? 0 : top, last = bottom < conv->out.height ? bottom : conv->out.height;
    int kept = have_end > begin ? have_end - begin : 0;
    for (int i = 0; kept && i < plan_span(conv, block); i++) {
      char *rows = accumulators_of(run, i);
      memmove(rows, rows + (size_t)(begin - have_begin) * line, (size_t)kept * line);
    }
    if (begin + kept < last) compute_rows(run, block, begin + kept, last, (size_t)kept);
    have_begin = begin;
    have_end = begin + kept > last ? begin + kept : last;
    for (int i = 0; i < plan_span(conv, block); i++) pool_block(run, block + i, accumulators_of(run, i), y, end, begin);
  }
}

/* ---- stages ----------------------------------------------------------------------------------------------------------------
 */

static void *temporary(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                       int which) {
  return stage->temporaries[which] < 0 ? NULL : plan_data(plan, frame, stage->temporaries[which]);
}

static const uint32_t *encode(const struct plan_conv *conv, const struct plan_tensor *input, const void *data,
                              uint32_t *codes) {
  const struct hwgq_encode_job job = {.input = data,
                                      .pixels = plan_pixels(input->shape),
                                      .words = plan_words(input),
                                      .planes = input->coding.planes,
                                      .codes = codes};
  conv->form->encode(&job);
  return codes;
}

void run_conv(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame) {
  struct conv_run run = {
      .plan = plan,
      .stage = stage,
      .conv = &stage->conv,
      .input = &plan->tensors[stage->inputs[0]],
      .frame = frame,
      .input_data = plan_data(plan, frame, stage->inputs[0]),
      .accumulators = temporary(plan, stage, frame, TEMP_ACCUMULATORS),
      .pooled = temporary(plan, stage, frame, TEMP_POOLED),
      .plane = temporary(plan, stage, frame, TEMP_PLANE),
      .corrections = temporary(plan, stage, frame, TEMP_CORRECTIONS),
      .bits = temporary(plan, stage, frame, TEMP_BITS),
      .real = stage->epilogue.type == PLAN_F64,
      .element = stage->epilogue.type == PLAN_F64 ? sizeof(double) : sizeof(float),
  };
  const struct plan_conv *conv = &stage->conv;
  run.block_bytes = (size_t)conv->band_lines * (size_t)conv->out.width * HWGQ_LANES * run.element;
  if (conv->binary) make_corrections(&run, temporary(plan, stage, frame, TEMP_SUMS));
  if (conv->tables) run.codes = encode(conv, run.input, run.input_data, temporary(plan, stage, frame, TEMP_CODES));
  for (int block = 0; block < conv->block_count; block += plan_span(conv, block)) {
    if (conv->pooled) {
      pooled_blocks(&run, block);
    } else {
      plain_blocks(&run, block);
    }
  }
}

void run_linear(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame) {
  float *accumulators = temporary(plan, stage, frame, TEMP_ACCUMULATORS);
  const struct hwgq_linear_job job = {.input = plan_data(plan, frame, stage->inputs[0]),
                                      .inputs = stage->linear.inputs,
                                      .weight_step = stage->linear.weight_step,
                                      .weights = stage->linear.weights,
                                      .outputs = stage->linear.outputs,
                                      .output = accumulators};
  plan->kernels->linear(&job);
  for (int block = 0; block < stage->epilogue.block_count; block++) {
    run_epilogue(plan, frame, &stage->epilogue, block, accumulators + stage->epilogue.blocks[block].channel, HWGQ_LANES, 1, 0,
                 temporary(plan, stage, frame, TEMP_BITS));
  }
}
