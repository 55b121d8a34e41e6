/* Convolutions and float linear layers.
 *
 * Out channels are computed in blocks of up to 32, so that a block's weights stay in the first-level cache; within a block, in
 * bands of output rows, whose accumulators stay there too until the epilogue has made levels or floats of them. Rows that two
 * pooled bands share are moved, not computed twice, when the same call computes both. */
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

/* columns[x] = sum over rows of input column x. */
static void sum_rows(const int32_t *sums, int rows, size_t width, int32_t *columns) {
  memset(columns, 0, width * sizeof *columns);
  for (int row = 0; row < rows; row++, sums += width) {
    for (size_t x = 0; x < width; x++) columns[x] += sums[x];
  }
}

/* Output rows begin .. end - 1. `columns`: memory for a row of the input. */
static void sum_windows(const struct plan_conv *conv, const int32_t *sums, int32_t factor, int32_t *corrections, int begin,
                        int end, int32_t *columns) {
  const size_t width = (size_t)conv->in.width, stride = (size_t)conv->window.stride_width;
  for (int i = 0; i < conv->line_segments; i++) {
    const struct plan_segment *line = &conv->lines[i];
    const int first = line->start > begin ? 0 : begin - line->start;
    const int last = line->start + line->count < end ? line->count : end - line->start;
    for (int y = first; y < last; y++) {
      sum_rows(sums + (size_t)(line->input + y * conv->window.stride_height) * width, line->taps, width, columns);
      int32_t *row = corrections + (size_t)(line->start + y) * (size_t)conv->out.width;
      for (int k = 0; k < conv->column_segments; k++) {
        const struct plan_segment *column = &conv->columns[k];
        int32_t *out = row + column->start;
        const size_t count = (size_t)column->count;
        memset(out, 0, count * sizeof *out);
        for (int tap = 0; tap < column->taps; tap++) {
          const int32_t *from = columns + column->input + tap;
          if (stride == 1) {
            for (size_t x = 0; x < count; x++) out[x] += from[x];
          } else {
            for (size_t x = 0; x < count; x++) out[x] += from[x * stride];
          }
        }
        for (size_t x = 0; x < count; x++) out[x] *= factor;
      }
    }
  }
}

/* Of output rows begin .. end - 1. sums: one for every input pixel, of which those that these rows see are filled, and a row.
 */
static void make_corrections(const struct conv_run *run, int32_t *sums, int begin, int end) {
  const struct plan_conv *conv = run->conv;
  const struct plan_window *w = &conv->window;
  const int top = begin * w->stride_height - w->pad_height;
  const int bottom = (end - 1) * w->stride_height - w->pad_height + w->kernel_height;
  const int first = top < 0 ? 0 : top, last = bottom < conv->in.height ? bottom : conv->in.height;
  const size_t start = (size_t)first * (size_t)conv->in.width;
  const struct plan_coding *coding = &run->input->coding;
  const size_t pixel_words = plan_pixel_words(run->input), out_pixels = plan_pixels(conv->out);
  const int passes = run->real ? coding->planes : 1;
  int32_t *corrections = run->corrections;
  for (int pass = 0; pass < passes; pass++) {
    for (int g = 0; g < conv->group_count; g++, corrections += out_pixels) {
      const struct plan_group *group = &conv->groups[g];
      const struct hwgq_sums_job job = {.input = (const uint32_t *)run->input_data + start * pixel_words +
                                                 (size_t)group->first * (size_t)coding->planes + pass,
                                        .pixels = last > first ? (size_t)(last - first) * (size_t)conv->in.width : 0,
                                        .pixel_step = pixel_words,
                                        .words = group->count,
                                        .planes = run->real ? 1 : coding->planes,
                                        .plane_step = coding->planes,
                                        .masks = conv->group_count > 1 ? group->masks : NULL,
                                        .sums = sums + start};
      run->plan->kernels->sums(&job);
      sum_windows(conv, sums, coding->sign ? -2 : -1, corrections, begin, end, sums + plan_pixels(conv->in));
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

static int band_end(const struct plan_conv *conv, int band) {
  const int end = (band + 1) * conv->band;
  return end < conv->final.height ? end : conv->final.height;
}

static void plain_bands(const struct conv_run *run, int block, struct plan_units bands) {
  const struct plan_conv *conv = run->conv;
  for (int band = bands.begin; band < bands.end; band++) {
    const int y = band * conv->band, end = band_end(conv, band);
    compute_rows(run, block, y, end, 0);
    for (int i = 0; i < plan_span(conv, block); i++) finish(run, block + i, accumulators_of(run, i), end - y, y);
  }
}

void run_pool_row(const struct hwgq_plan *plan, const struct plan_conv *conv, enum plan_type type, const void *accumulators,
                  int start, int y, void *output) {
  const int top = y * conv->pool.stride_height - conv->pool.pad_height, bottom = top + conv->pool.kernel_height;
  const int first = top < 0 ? 0 : top, last = bottom < conv->out.height ? bottom : conv->out.height;
  const size_t line = (size_t)conv->out.width * HWGQ_LANES, element = type == PLAN_F64 ? sizeof(double) : sizeof(float);
  const struct hwgq_pool_job job = {.accumulators = (const char *)accumulators + (size_t)(first - start) * line * element,
                                    .line_step = line,
                                    .lines = last - first,
                                    .columns = conv->out.width,
                                    .output_columns = conv->final.width,
                                    .kernel = conv->pool.kernel_width,
                                    .stride = conv->pool.stride_width,
                                    .pad = conv->pool.pad_width,
                                    .output = output};
  switch (type) {
  case PLAN_I32:
    plan->kernels->pool_i32(&job);
    break;
  case PLAN_F32:
    plan->kernels->pool_f32(&job);
    break;
  case PLAN_F64:
    plan->kernels->pool_f64(&job);
    break;
  }
}

/* Pools and finishes final rows y .. end - 1 of one block. */
static void pool_block(const struct conv_run *run, int block, const void *accumulators, int y, int end, int start) {
  for (int row = y; row < end; row++) {
    const size_t offset = (size_t)(row - y) * (size_t)run->conv->final.width * HWGQ_LANES * run->element;
    run_pool_row(run->plan, run->conv, run->stage->epilogue.type, accumulators, start, row, (char *)run->pooled + offset);
  }
  finish(run, block, run->pooled, end - y, y);
}

static void pooled_bands(const struct conv_run *run, int block, struct plan_units bands) {
  const struct plan_conv *conv = run->conv;
  const struct plan_window *pool = &conv->pool;
  const size_t line = (size_t)conv->out.width * HWGQ_LANES * run->element;
  int have_begin = 0, have_end = 0; /* rows of the convolution that the band holds */
  for (int band = bands.begin; band < bands.end; band++) {
    const int y = band * conv->band, end = band_end(conv, band);
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

static struct conv_run start_run(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame) {
  const struct plan_conv *conv = &stage->conv;
  struct conv_run run = {
      .plan = plan,
      .stage = stage,
      .conv = conv,
      .input = &plan->tensors[stage->inputs[0]],
      .frame = frame,
      .input_data = plan_data(plan, frame, stage->inputs[0]),
      .accumulators = temporary(plan, stage, frame, TEMP_ACCUMULATORS),
      .pooled = temporary(plan, stage, frame, TEMP_POOLED),
      .plane = temporary(plan, stage, frame, TEMP_PLANE),
      .corrections = temporary(plan, stage, frame, TEMP_CORRECTIONS),
      .codes = temporary(plan, stage, frame, TEMP_CODES),
      .bits = temporary(plan, stage, frame, TEMP_BITS),
      .real = stage->epilogue.type == PLAN_F64,
      .element = stage->epilogue.type == PLAN_F64 ? sizeof(double) : sizeof(float),
  };
  run.block_bytes = (size_t)conv->band_lines * (size_t)conv->out.width * HWGQ_LANES * run.element;
  return run;
}

/* Codes of input pixels begin .. end - 1. */
static void encode(const struct plan_conv *conv, const struct plan_tensor *input, const void *data, struct plan_slice pixels,
                   uint32_t *codes) {
  const int words = plan_words(input);
  const struct hwgq_encode_job job = {.input = (const uint32_t *)data + pixels.begin * plan_pixel_words(input),
                                      .pixels = pixels.end - pixels.begin,
                                      .words = words,
                                      .planes = input->coding.planes,
                                      .codes = codes + pixels.begin * hwgq_code_elements(conv->form, words)};
  conv->form->encode(&job);
}

void run_conv_prepare(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                      struct plan_units units) {
  const struct plan_conv *conv = &stage->conv;
  const struct conv_run run = start_run(plan, stage, frame);
  const struct plan_slice rows = plan_slice((size_t)conv->out.height, stage->prepare_units, units);
  if (rows.end > rows.begin) {
    make_corrections(&run, temporary(plan, stage, frame, TEMP_SUMS), (int)rows.begin, (int)rows.end);
  }
  if (conv->tables) {
    encode(conv, run.input, run.input_data, plan_slice(plan_pixels(conv->in), stage->prepare_units, units),
           temporary(plan, stage, frame, TEMP_CODES));
  }
}

static void run_bands(const struct conv_run *run, int block, struct plan_units bands) {
  if (run->conv->pooled) {
    pooled_bands(run, block, bands);
  } else {
    plain_bands(run, block, bands);
  }
}

/* Whole slices of all blocks. */
static void run_slices(const struct conv_run *run, struct plan_units slices) {
  const struct plan_conv *conv = run->conv;
  const struct plan_slice bands = plan_slice((size_t)conv->bands, conv->slices, slices);
  const int begin = (int)bands.begin, end = (int)bands.end;
  for (int block = 0; block < conv->block_count; block += plan_span(conv, block)) {
    run_bands(run, block, (struct plan_units){begin, end});
  }
}

/* One slice of some spans. */
static void run_spans(const struct conv_run *run, int slice, struct plan_units spans) {
  const struct plan_conv *conv = run->conv;
  const struct plan_slice bands = plan_slice((size_t)conv->bands, conv->slices, (struct plan_units){slice, slice + 1});
  for (int span = spans.begin; span < spans.end; span++) {
    run_bands(run, plan_span_block(conv, span), (struct plan_units){(int)bands.begin, (int)bands.end});
  }
}

/* A unit is a slice of a span of blocks (or of all blocks), slice by slice: so large layers are cut by rows, and small ones by
 * channels. */
void run_conv(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
              struct plan_units units) {
  const struct conv_run run = start_run(plan, stage, frame);
  const int spans = stage->run_units / stage->conv.slices; /* units of a slice */
  while (units.begin < units.end) {
    const int slice = units.begin / spans, span = units.begin % spans, count = units.end - units.begin;
    if (span == 0 && count >= spans) {
      const int whole = count / spans;
      run_slices(&run, (struct plan_units){slice, slice + whole});
      units.begin += whole * spans;
    } else {
      const int end = span + count < spans ? span + count : spans;
      run_spans(&run, slice, (struct plan_units){span, end});
      units.begin += end - span;
    }
  }
}

/* A unit is a block, or all of them. */
void run_linear(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                struct plan_units units) {
  const struct plan_slice blocks = plan_slice((size_t)stage->epilogue.block_count, stage->run_units, units);
  const struct plan_block *first = &stage->epilogue.blocks[blocks.begin], *last = &stage->epilogue.blocks[blocks.end - 1];
  float *accumulators = temporary(plan, stage, frame, TEMP_ACCUMULATORS);
  const struct hwgq_linear_job job = {.input = plan_data(plan, frame, stage->inputs[0]),
                                      .inputs = stage->linear.inputs,
                                      .weight_step = stage->linear.weight_step,
                                      .weights = stage->linear.weights + (size_t)first->channel * stage->linear.weight_step,
                                      .outputs = (size_t)(last->channel + last->count - first->channel),
                                      .output = accumulators + first->channel};
  plan->kernels->linear(&job);
  for (int block = (int)blocks.begin; block < (int)blocks.end; block++) {
    run_epilogue(plan, frame, &stage->epilogue, block, accumulators + stage->epilogue.blocks[block].channel, HWGQ_LANES, 1, 0,
                 temporary(plan, stage, frame, TEMP_BITS));
  }
}
