/* Plans of the first convolution from pixels (plan_pixels.h): integer weights, constants, memory. */
#include "engine/plan_pixels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "engine/pixel_weights.h"

enum {
  BAND_PIXELS = 192,     /* as in plan_conv.c */
  ROW_BYTES = 640 << 10, /* input rows and differences of a chunk: they should stay in the second-level cache */
  PAIRED_GAIN = 8,       /* words of inputs that two rows must save: less is lost again to the additional pass */
  ALIGNMENT = 64,
  WORD = 4, /* bytes */
};
/* A layer that needs more is computed in float32. */
#define MAX_WEIGHTS ((uint64_t)8 << 20)   /* values of all kernels, those of other groups included */
#define MAX_CONSTANTS ((uint64_t)8 << 20) /* of all rectangles of valid taps */
#define MAX_BYTES ((uint64_t)64 << 20)    /* of a run */

/* A kernel row's share of a pass: input row or difference `row`, times the sum of kernel rows a and b (b: -1 for none). */
struct term {
  bool difference;
  int row, a, b, sign;
};

struct quantizing {
  const struct plan_conv *conv;
  const bool *flip;
  const struct hwgq_iconv_form *form;
  size_t value_bytes;
  bool paired, round; /* round: also weights that integers do not represent exactly */
  struct pixel_weights weights;
  double *sums; /* [kernel_height + 1][kernel_width + 1]: of integer * mean over the taps above and to the left */
  double bound; /* largest |accumulator| so far */
};

/* ---- passes -------------------------------------------------------------------------------------------------------------- */

/* Terms of a pass, at most two per kernel row. */
static int list_terms(const struct plan_window *window, enum plan_pixel_pass pass, struct term *terms) {
  const int stride = window->stride_height;
  int count = 0;
  for (int row = 0; row < window->kernel_height; row++) {
    const bool upper = row / stride % 2 == 0, lone = upper && row + stride >= window->kernel_height;
    if (pass == PASS_WHOLE) terms[count++] = (struct term){false, row, row, -1, 1};
    if (pass == PASS_WHOLE || !upper) continue;
    if (lone) {
      if (pass == PASS_FIRST) terms[count++] = (struct term){false, row, row, -1, 1};
      if (pass == PASS_SECOND) terms[count++] = (struct term){false, row + stride, row, -1, 1};
      continue;
    }
    if (pass == PASS_SHARED) terms[count++] = (struct term){false, row + stride, row, row + stride, 1};
    if (pass == PASS_FIRST) terms[count++] = (struct term){true, row, row, -1, 1};
    if (pass == PASS_SECOND) terms[count++] = (struct term){true, row + stride, row + stride, -1, -1};
  }
  return count;
}

static int row_words(const struct quantizing *q) {
  return (int)((q->weights.row_values * q->value_bytes + WORD - 1) / WORD);
}

/* Differences and sums do not fit bytes. */
static bool worth_pairing(const struct quantizing *q) {
  struct term terms[HWGQ_MAX_KERNEL];
  return !q->form->bytes && list_terms(&q->conv->window, PASS_SHARED, terms) * row_words(q) >= PAIRED_GAIN &&
         q->conv->out.height > 1;
}

/* Offsets and place of the weights of every pass. */
static enum hwgq_status make_passes(struct plan_builder *builder, const struct quantizing *q, struct plan_pixels *pixels) {
  const int words = row_words(q);
  pixels->block_weights = 0;
  for (int pass = 0; pass < (q->paired ? PASSES : PASS_SHARED); pass++) {
    struct term terms[HWGQ_MAX_KERNEL];
    const int count = list_terms(&q->conv->window, (enum plan_pixel_pass)pass, terms);
    size_t *offsets = hwgq_arena_allocate(&builder->plan->arena, (size_t)(count * words), sizeof *offsets);
    if (!offsets) return plan_out_of_memory(builder);
    for (int i = 0; i < count * words; i++) {
      const struct term *term = &terms[i / words];
      const size_t row = (size_t)term->row + (term->difference ? (size_t)pixels->rows : 0);
      offsets[i] = row * pixels->row_bytes + (size_t)(i % words) * WORD;
    }
    pixels->passes[pass].words = count * words;
    pixels->passes[pass].offsets = offsets;
    pixels->passes[pass].weights = pixels->block_weights;
    pixels->block_weights += (size_t)(count * words) * HWGQ_LANES * WORD;
  }
  return HWGQ_OK;
}

/* ---- integer weights ----------------------------------------------------------------------------------------------------- */

/* Weights of one lane of one pass. */
static void place_weights(const struct quantizing *q, enum plan_pixel_pass pass, int lane, int lanes, uint8_t *weights) {
  struct term terms[HWGQ_MAX_KERNEL];
  const int count = list_terms(&q->conv->window, pass, terms), words = row_words(q);
  for (int t = 0; t < count; t++) {
    const int32_t *a = q->weights.integers + terms[t].a * q->weights.row_values;
    const int32_t *b = terms[t].b < 0 ? NULL : q->weights.integers + terms[t].b * q->weights.row_values;
    uint8_t *to = weights + ((size_t)(t * words) * (size_t)lanes + (size_t)lane) * WORD;
    for (size_t i = 0; i < (size_t)q->weights.row_values; i++) {
      const int16_t value = (int16_t)(terms[t].sign * (a[i] + (b ? b[i] : 0)));
      const size_t byte = i * q->value_bytes;
      uint8_t *place = to + byte / WORD * (size_t)lanes * WORD + byte % WORD;
      if (q->value_bytes == 1) {
        *place = (uint8_t)value;
      } else {
        memcpy(place, &value, sizeof value);
      }
    }
  }
}

/* ---- constants ----------------------------------------------------------------------------------------------------------- */

static void add_up_means(const struct quantizing *q) {
  const int height = q->conv->window.kernel_height, width = q->conv->window.kernel_width;
  const size_t step = (size_t)width + 1;
  memset(q->sums, 0, step * sizeof *q->sums);
  for (int row = 0; row < height; row++) {
    double *above = q->sums + (size_t)row * step, *sums = above + step, line = 0;
    sums[0] = 0;
    for (int column = 0; column < width; column++) {
      const int32_t *tap = q->weights.integers + row * q->weights.row_values + column * q->weights.channels;
      for (int c = 0; c < q->weights.channels; c++) line += tap[c] * q->weights.mean[c];
      sums[column + 1] = above[column + 1] + line;
    }
  }
}

static double mean_sum(const struct quantizing *q, const struct plan_segment *line, const struct plan_segment *column) {
  const size_t width = (size_t)q->conv->window.kernel_width + 1;
  const double *top = q->sums + (size_t)line->tap * width + column->tap, *bottom = top + (size_t)line->taps * width;
  return bottom[column->taps] - bottom[0] - top[column->taps] + top[0];
}

/* The segment with most valid taps, all of them where some position sees no padding. */
static const struct plan_segment *widest(const struct plan_segment *segments, int count) {
  const struct plan_segment *best = segments;
  for (int i = 1; i < count; i++) best = segments[i].taps > best->taps ? &segments[i] : best;
  return best;
}

/* What every rectangle of valid taps contributes without pixels, for one lane; `base`: that of the first segments. Returns what
 * rounding leaves out of it: exact for pixels that see no padding. */
static double place_base(const struct quantizing *q, size_t step, int32_t *base) {
  const struct plan_conv *conv = q->conv;
  add_up_means(q);
  const double inner = -mean_sum(q, widest(conv->lines, conv->line_segments), widest(conv->columns, conv->column_segments));
  const double rest = inner - floor(inner + 0.5);
  for (int i = 0; i < conv->line_segments; i++) {
    for (int k = 0; k < conv->column_segments; k++, base += step) {
      *base = (int32_t)floor(-mean_sum(q, &conv->lines[i], &conv->columns[k]) - rest + 0.5);
    }
  }
  return rest;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

static enum hwgq_status fill_weights(struct plan_builder *builder, struct quantizing *q, struct plan_pixels *pixels,
                                     double *units, double *offsets) {
  const struct plan_conv *conv = q->conv;
  struct hwgq_arena *arena = &builder->plan->arena;
  const size_t blocks = (size_t)conv->block_count, segments = (size_t)conv->line_segments * (size_t)conv->column_segments;
  pixels->base_step = blocks * HWGQ_LANES;
  uint8_t *weights = hwgq_arena_allocate(arena, blocks * pixels->block_weights, 1);
  int32_t *base = hwgq_arena_allocate(arena, segments * pixels->base_step, sizeof *base);
  if (!weights || !base) return plan_out_of_memory(builder);
  for (size_t b = 0; b < blocks; b++) {
    const struct plan_block *block = &conv->blocks[b];
    for (int lane = 0; lane < block->count; lane++) {
      const int out = block->channel + lane;
      const bool flip = q->flip && q->flip[out];
      pixel_weights_quantize(&q->weights, out, flip); /* is_possible made sure that it can */
      units[out] = q->weights.unit;
      for (int pass = 0; pass < (q->paired ? PASSES : PASS_SHARED); pass++) {
        place_weights(q, (enum plan_pixel_pass)pass, lane, block->lanes,
                      weights + b * pixels->block_weights + pixels->passes[pass].weights);
      }
      const double rest = place_base(q, pixels->base_step, base + b * HWGQ_LANES + (size_t)lane);
      offsets[out] = q->weights.unit * (flip ? -rest : rest);
    }
  }
  pixels->weights = weights;
  pixels->base = base;
  return HWGQ_OK;
}

static enum hwgq_status make_column_base(struct plan_builder *builder, const struct plan_conv *conv,
                                         struct plan_pixels *pixels) {
  uint16_t *column_base = hwgq_arena_allocate(&builder->plan->arena, (size_t)conv->out.width, sizeof *column_base);
  if (!column_base) return plan_out_of_memory(builder);
  for (int k = 0; k < conv->column_segments; k++) {
    const struct plan_segment *column = &conv->columns[k];
    for (int x = column->start; x < column->start + column->count; x++) column_base[x] = (uint16_t)k;
  }
  pixels->column_base = column_base;
  return HWGQ_OK;
}

/* Rows of the convolution that `count` rows of conv->final need. */
static int lines_for(const struct plan_conv *conv, int count) {
  return conv->pooled ? (count - 1) * conv->pool.stride_height + conv->pool.kernel_height : count;
}

static int input_rows_for(const struct plan_conv *conv, int count) {
  return (lines_for(conv, count) - 1) * conv->window.stride_height + conv->window.kernel_height;
}

static size_t aligned(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Bands, chunks, and the memory that they take. False: a row is too long for sensible memory. */
static bool set_geometry(const struct quantizing *q, int planes, struct plan_pixels *pixels) {
  const struct plan_conv *conv = q->conv;
  const struct plan_window *w = &conv->window;
  const size_t pixel = (size_t)q->weights.channels * q->value_bytes;
  const size_t used = ((size_t)(conv->out.width - 1) * (size_t)w->stride_width + (size_t)w->kernel_width) * pixel;
  pixels->lead = (ALIGNMENT - (size_t)w->pad_width * pixel % ALIGNMENT) % ALIGNMENT;
  pixels->row_bytes = aligned(pixels->lead + used + WORD);
  const size_t row_bytes = pixels->row_bytes * (q->paired ? 2 : 1);
  const int wanted = BAND_PIXELS / conv->out.width & ~1;
  const int least = conv->pooled ? 1 : 2;
  pixels->band = conv->pooled ? conv->band : wanted > least ? wanted : least;
  if (pixels->band > conv->final.height) pixels->band = conv->final.height;
  pixels->band_lines = lines_for(conv, pixels->band);
  pixels->chunk = pixels->band;
  while (pixels->chunk < conv->final.height &&
         (size_t)input_rows_for(conv, pixels->chunk + pixels->band) * row_bytes <= ROW_BYTES) {
    pixels->chunk += pixels->band;
  }
  pixels->rows = input_rows_for(conv, pixels->chunk);
  const size_t lanes = HWGQ_LANES * sizeof(int32_t), final_pixels = (size_t)pixels->band * (size_t)conv->final.width;
  pixels->shared = aligned((size_t)pixels->rows * row_bytes);
  pixels->accumulators = pixels->shared + PIXEL_STRIP * lanes;
  pixels->pooled = pixels->accumulators + (size_t)pixels->band_lines * (size_t)conv->out.width * lanes;
  pixels->bits = pixels->pooled + (conv->pooled ? final_pixels * lanes : 0);
  pixels->bytes = pixels->bits + final_pixels * (size_t)planes * sizeof(uint32_t);
  return (uint64_t)pixels->bytes <= MAX_BYTES;
}

/* bits: of the weights. */
static const struct hwgq_iconv_form *choose_form(const struct hwgq_kernels *kernels, int bits) {
  const struct hwgq_iconv_form *form = kernels->iconvs;
  while ((form->bytes && bits > 8) || !hwgq_iconv_supported(form)) form++; /* the last one is, and takes 16 bits */
  return form;
}

static enum hwgq_status fill_pixels(struct plan_builder *builder, struct plan_stage *stage, struct quantizing *q,
                                    const struct plan_ending *ending) {
  struct hwgq_arena *arena = &builder->plan->arena;
  struct plan_pixels *pixels = hwgq_arena_allocate(arena, 1, sizeof *pixels);
  const size_t outs = (size_t)q->weights.layer->out_channels;
  double *units = hwgq_arena_allocate(arena, 2 * outs, sizeof *units);
  if (!pixels || !units) return plan_out_of_memory(builder);
  const int levels = stage->epilogue.levels;
  if (!set_geometry(q, levels < 0 ? 0 : builder->plan->tensors[levels].coding.planes, pixels)) return HWGQ_OK;
  enum hwgq_status status = make_passes(builder, q, pixels);
  if (!status) status = fill_weights(builder, q, pixels, units, units + outs);
  if (!status) status = make_column_base(builder, q->conv, pixels);
  if (status) return status;
  struct hwgq_chain scaled = ending->chain;
  scaled.units = units;
  scaled.offsets = units + outs;
  pixels->paired = q->paired;
  pixels->form = q->form;
  pixels->value_bytes = q->value_bytes;
  pixels->epilogue = stage->epilogue;
  pixels->epilogue.type = PLAN_I32;
  /* What floats become afterwards is the same as in the float form. */
  status = ending->quantize ? plan_fold_levels(builder, &pixels->epilogue, &scaled, ending->quantize, q->flip, ceil(q->bound))
                            : plan_fold_floats(builder, &pixels->epilogue, &scaled, q->flip);
  stage->pixels = pixels;
  stage->kernel = pixels->form->name;
  stage->weight_bytes = (size_t)q->conv->block_count * pixels->block_weights;
  return status;
}

static bool is_small(const struct plan_conv *conv) {
  const uint64_t lanes = (uint64_t)conv->block_count * HWGQ_LANES;
  const uint64_t taps = (uint64_t)conv->window.kernel_height * (uint64_t)conv->window.kernel_width;
  return taps * (uint64_t)conv->in.channels <= MAX_WEIGHTS / lanes &&
         (uint64_t)conv->line_segments * (uint64_t)conv->column_segments <= MAX_CONSTANTS / lanes;
}

/* Whether every out channel has integers, exact ones unless the caller wants integers anyway; and the largest accumulator. */
static bool is_possible(struct quantizing *q) {
  for (int out = 0; out < q->weights.layer->out_channels; out++) {
    if (!pixel_weights_quantize(&q->weights, out, q->flip && q->flip[out])) return false;
    if (!q->round && !q->weights.exact) return false;
    q->bound = fmax(q->bound, q->weights.bound);
  }
  return true;
}

enum hwgq_status plan_add_pixels(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                 const struct plan_ending *ending, const bool *flip) {
  const struct plan_conv *conv = &stage->conv;
  const struct plan_window *w = &conv->window;
  struct quantizing q = {.conv = conv, .flip = flip, .round = builder->first_conv != NULL};
  if (!is_small(conv)) return HWGQ_OK;
  enum hwgq_status status = pixel_weights_create(&q.weights, layer, conv->in.channels, builder->preprocess, builder->error);
  if (status) return status;
  /* The same numbers whatever the kernels are: then so are the results. */
  q.weights.bits = 8;
  if (!pixel_weights_are_exact(&q.weights)) q.weights.bits = 16;
  q.form = choose_form(builder->plan->kernels, q.weights.bits);
  q.value_bytes = q.form->bytes ? 1 : sizeof(int16_t);
  q.paired = worth_pairing(&q);
  q.sums = malloc((size_t)(w->kernel_height + 1) * (size_t)(w->kernel_width + 1) * sizeof *q.sums);
  if (!q.sums) status = plan_out_of_memory(builder);
  if (!status && is_possible(&q)) status = fill_pixels(builder, stage, &q, ending);
  free(q.sums);
  pixel_weights_destroy(&q.weights);
  return status;
}
