/* The first convolution from pixels (plan_pixels.h). Output rows are computed in chunks, whose input rows are padded and made
 * as wide as the kernel wants them first; within a chunk block by block, and within a block in bands of rows, whose
 * accumulators stay in the first-level cache until the epilogue has made levels or floats of them. */
#include <string.h>

#include "engine/plan_pixels.h"

struct pixel_run {
  const struct hwgq_plan *plan;
  const struct plan_frame *frame;
  const struct plan_conv *conv;
  const struct plan_pixels *pixels;
  uint8_t *rows; /* the chunk's input rows, then their differences */
  int top;       /* row of the convolution whose window starts at the first of them */
  int32_t *shared, *accumulators, *pooled;
  uint32_t *bits;
};

/* ---- input rows -----------------------------------------------------------------------------------------------------------
 */

static int16_t *words_of(uint8_t *row) {
  return (int16_t *)(void *)row;
}

/* A row of the padded image, `row` counted from the image's first. */
static void make_row(const struct pixel_run *run, int row, uint8_t *to) {
  const struct plan_conv *conv = run->conv;
  const struct plan_pixels *pixels = run->pixels;
  const size_t channels = (size_t)conv->in.channels, width = (size_t)conv->in.width * channels;
  const size_t pad = pixels->lead + (size_t)conv->window.pad_width * channels * pixels->value_bytes, size = pixels->row_bytes;
  if (row < 0 || row >= conv->in.height) {
    memset(to, 0, size);
    return;
  }
  const uint8_t *from = run->frame->pixels + (size_t)row * width;
  const size_t left = pad < size ? pad : size, room = (size - left) / pixels->value_bytes, count = width < room ? width : room;
  memset(to, 0, left);
  if (pixels->form->bytes) {
    memcpy(to + left, from, count);
  } else {
    pixels->form->widen(from, count, words_of(to + left));
  }
  memset(to + left + count * pixels->value_bytes, 0, size - left - count * pixels->value_bytes);
}

/* Input rows for rows begin .. end - 1 of the convolution. */
static void make_rows(struct pixel_run *run, int begin, int end) {
  const struct plan_window *window = &run->conv->window;
  const size_t size = run->pixels->row_bytes, stride = (size_t)window->stride_height;
  const int first = begin * window->stride_height - window->pad_height;
  const size_t count = (size_t)((end - 1 - begin) * window->stride_height + window->kernel_height);
  uint8_t *const differences = run->rows + (size_t)run->pixels->rows * size;
  run->top = begin;
  for (size_t i = 0; i < count; i++) {
    uint8_t *row = run->rows + i * size;
    make_row(run, first + (int)i, row);
    if (!run->pixels->paired || i < stride) continue;
    run->pixels->form->subtract(words_of(row - stride * size), words_of(row), size / sizeof(int16_t),
                                words_of(differences + (i - stride) * size));
  }
}

/* ---- rows of the convolution -----------------------------------------------------------------------------------------------
 */

static const int32_t *base_of(const struct pixel_run *run, int block, int y) {
  const struct plan_conv *conv = run->conv;
  size_t segment = 0;
  while (conv->lines[segment].start + conv->lines[segment].count <= y) segment++;
  return run->pixels->base + segment * (size_t)conv->column_segments * run->pixels->base_step + (size_t)block * HWGQ_LANES;
}

/* One pass for columns x .. x + count - 1 of row y, from the window of row `top` on. */
static void run_pass(const struct pixel_run *run, int block, enum plan_pixel_pass pass, int top, int y, int x, int count,
                     const int32_t *add, int32_t *accumulators) {
  const struct plan_conv *conv = run->conv;
  const struct plan_pixels *pixels = run->pixels;
  const size_t first = (size_t)((top - run->top) * conv->window.stride_height) * pixels->row_bytes;
  const size_t step = (size_t)conv->window.stride_width * (size_t)conv->in.channels * pixels->value_bytes;
  const struct hwgq_iconv_job job = {
      .columns = count,
      .input = run->rows + pixels->lead + first + (size_t)x * step,
      .column_step = step,
      .words = pixels->passes[pass].words,
      .offsets = pixels->passes[pass].offsets,
      .weights = pixels->weights + (size_t)block * pixels->block_weights + pixels->passes[pass].weights,
      .lanes = conv->blocks[block].lanes,
      .base = pass == PASS_SHARED ? NULL : base_of(run, block, y),
      .base_step = pixels->base_step,
      .base_index = pixels->column_base + x,
      .add = add,
      .accumulators = accumulators,
  };
  pixels->form->iconv(&job);
}

/* Rows y and y + 1. */
static void compute_two_rows(const struct pixel_run *run, int block, int y, int32_t *accumulators) {
  const int width = run->conv->out.width;
  for (int x = 0; x < width; x += PIXEL_STRIP) {
    const int count = width - x < PIXEL_STRIP ? width - x : PIXEL_STRIP;
    int32_t *first = accumulators + (size_t)x * HWGQ_LANES, *second = first + (size_t)width * HWGQ_LANES;
    run_pass(run, block, PASS_SHARED, y, y, x, count, NULL, run->shared);
    run_pass(run, block, PASS_FIRST, y, y, x, count, run->shared, first);
    run_pass(run, block, PASS_SECOND, y, y + 1, x, count, run->shared, second);
  }
}

/* Rows begin .. end - 1. */
static void compute_rows(const struct pixel_run *run, int block, int begin, int end, int32_t *accumulators) {
  const int width = run->conv->out.width;
  const size_t line = (size_t)width * HWGQ_LANES;
  int y = begin;
  for (; run->pixels->paired && y + 1 < end; y += 2, accumulators += 2 * line) compute_two_rows(run, block, y, accumulators);
  for (; y < end; y++, accumulators += line) run_pass(run, block, PASS_WHOLE, y, y, 0, width, NULL, accumulators);
}

/* ---- bands -----------------------------------------------------------------------------------------------------------------
 */

static void finish(const struct pixel_run *run, int block, const int32_t *accumulators, int begin, int end) {
  const size_t width = (size_t)run->conv->final.width;
  run_epilogue(run->plan, run->frame, &run->pixels->epilogue, block, accumulators, HWGQ_LANES, (size_t)(end - begin) * width,
               (size_t)begin * width, run->bits);
}

/* Rows of the convolution that rows begin .. end - 1 of the output are made of. */
static void lines_of(const struct plan_conv *conv, int begin, int end, int *first, int *last) {
  *first = begin;
  *last = end;
  if (!conv->pooled) return;
  const int top = begin * conv->pool.stride_height - conv->pool.pad_height;
  const int bottom = (end - 1) * conv->pool.stride_height - conv->pool.pad_height + conv->pool.kernel_height;
  *first = top < 0 ? 0 : top;
  *last = bottom < conv->out.height ? bottom : conv->out.height;
}

/* The band's accumulators start with row `start` of the convolution. */
static void pool_rows(const struct pixel_run *run, int begin, int end, int start) {
  const size_t line = (size_t)run->conv->final.width * HWGQ_LANES;
  for (int y = begin; y < end; y++) {
    run_pool_row(run->plan, run->conv, PLAN_I32, run->accumulators, start, y, run->pooled + (size_t)(y - begin) * line);
  }
}

/* Output rows begin .. end - 1 of one block. Rows of the convolution that two bands share are moved, not computed twice. */
static void run_block(const struct pixel_run *run, int block, int begin, int end) {
  const struct plan_conv *conv = run->conv;
  const size_t line = (size_t)conv->out.width * HWGQ_LANES;
  int have_first = 0, have_last = 0;
  for (int y = begin; y < end; y += run->pixels->band) {
    const int next = y + run->pixels->band < end ? y + run->pixels->band : end;
    int first, last;
    lines_of(conv, y, next, &first, &last);
    const int kept = have_last > first ? have_last - first : 0;
    if (kept) memmove(run->accumulators, run->accumulators + (size_t)(first - have_first) * line, (size_t)kept * line * 4);
    if (first + kept < last) compute_rows(run, block, first + kept, last, run->accumulators + (size_t)kept * line);
    have_first = first;
    have_last = first + kept > last ? first + kept : last;
    if (conv->pooled) pool_rows(run, y, next, first);
    finish(run, block, conv->pooled ? run->pooled : run->accumulators, y, next);
  }
}

void run_pixel_rows(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame, int begin,
                    int end, uint8_t *memory) {
  const struct plan_pixels *pixels = stage->pixels;
  struct pixel_run run = {
      .plan = plan,
      .frame = frame,
      .conv = &stage->conv,
      .pixels = pixels,
      .rows = memory,
      .shared = (int32_t *)(void *)(memory + pixels->shared),
      .accumulators = (int32_t *)(void *)(memory + pixels->accumulators),
      .pooled = (int32_t *)(void *)(memory + pixels->pooled),
      .bits = (uint32_t *)(void *)(memory + pixels->bits),
  };
  for (int y = begin; y < end; y += pixels->chunk) {
    const int next = y + pixels->chunk < end ? y + pixels->chunk : end;
    int first, last;
    lines_of(run.conv, y, next, &first, &last);
    make_rows(&run, first, last);
    for (int block = 0; block < run.conv->block_count; block++) run_block(&run, block, y, next);
  }
}

/* From pixels, the first unit of a slice of rows computes all of its blocks: they share its input rows. */
void run_first_conv(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                    struct plan_units units) {
  if (!frame->pixels) {
    run_conv(plan, stage, frame, units);
    return;
  }
  const struct plan_conv *conv = &stage->conv;
  const int spans = stage->run_units / conv->slices;
  const struct plan_units slices = {(units.begin + spans - 1) / spans, (units.end + spans - 1) / spans};
  if (slices.begin == slices.end) return;
  const struct plan_slice rows = plan_slice((size_t)conv->final.height, conv->slices, slices);
  if (rows.begin == rows.end) return;
  run_pixel_rows(plan, stage, frame, (int)rows.begin, (int)rows.end, plan_data(plan, frame, stage->temporaries[TEMP_PIXELS]));
}
