#include "models/train/conv_narrow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/conv_narrow_layout.h"

enum {
  IN_MULTIPLE = DOT_TILE_CHANNELS, /* channels of padded images: so that tiles of weights are whole */
  OUT_MULTIPLE = DOT_COLUMNS,
  BLOCK_STEPS = 256, /* steps of pixels along which a weights' gradient is summed in registers */
  SLICE_PANELS = 2,  /* panels of out channels that a task of it takes ... */
  MOST_SLICES = 4,   /* ... or more, so that there are no more tasks than this for a part of the batch */
};

static size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static void *allocate(size_t bytes) {
  return conv_allocate(bytes / sizeof(float) + 1);
}

struct conv_levels conv_levels_of(const struct hwgq_layer *quantize) {
  if (quantize->sign) return (struct conv_levels){.step = 1, .zero = 1};
  float step = quantize->centers[0];
  for (int k = 0; k < quantize->level_count; k++) {
    float multiple = step * (float)(k + 1);
    if (!(fabsf(quantize->centers[k] - multiple) <= 1e-6f * multiple)) return (struct conv_levels){0};
  }
  return (struct conv_levels){.step = quantize->level_count <= 127 ? step : 0};
}

/* ---- creation ----------------------------------------------------------------------------------------------------------- */

static void set_shapes(struct conv *conv, struct conv_narrow *n) {
  bool whole = conv->kernel_height == conv->in.height && conv->kernel_width == conv->in.width && conv->direct;
  n->in = whole ? (struct hwgq_shape){.channels = conv->taps, .height = 1, .width = 1} : conv->in;
  n->kernel_height = whole ? 1 : conv->kernel_height;
  n->kernel_width = whole ? 1 : conv->kernel_width;
  n->pad_height = conv->pad_height;
  n->pad_width = conv->pad_width;
  int height = (conv->out.height - 1) * conv->stride_height + n->kernel_height;
  int width = (conv->out.width - 1) * conv->stride_width + n->kernel_width;
  n->image = (struct conv_padded){.height = height > n->in.height + n->pad_height ? height : n->in.height + n->pad_height,
                                  .width = width > n->in.width + n->pad_width ? width : n->in.width + n->pad_width,
                                  .top = n->pad_height,
                                  .left = n->pad_width,
                                  .space_y = 1,
                                  .space_x = 1,
                                  .pixel_bytes = round_up((size_t)n->in.channels, IN_MULTIPLE) * (size_t)n->format->bytes};
  n->gradient =
      (struct conv_padded){.height = n->in.height + n->kernel_height - 1,
                           .width = n->in.width + n->kernel_width - 1,
                           .top = n->kernel_height - 1 - n->pad_height,
                           .left = n->kernel_width - 1 - n->pad_width,
                           .space_y = conv->stride_height,
                           .space_x = conv->stride_width,
                           .pixel_bytes = round_up((size_t)conv->out.channels, OUT_MULTIPLE) * (size_t)n->format->bytes};
  n->image.image_bytes = (size_t)n->image.height * (size_t)n->image.width * n->image.pixel_bytes;
  n->gradient.image_bytes = (size_t)n->gradient.height * (size_t)n->gradient.width * n->gradient.pixel_bytes;
}

static void set_blocks(struct conv *conv, struct conv_narrow *n) {
  int per_row = steps_per_row(conv, n), rows = BLOCK_STEPS / per_row;
  n->block_rows = rows < 1 ? 1 : rows > conv->out.height ? conv->out.height : rows;
  rows = BLOCK_STEPS / (per_row * conv->out.height);
  n->block_images = rows < 1 ? 1 : rows;
  int all = panels(conv->out.channels);
  n->slice_panels = (all + MOST_SLICES - 1) / MOST_SLICES;
  if (n->slice_panels < SLICE_PANELS) n->slice_panels = SLICE_PANELS;
  conv->slices = (all + n->slice_panels - 1) / n->slice_panels;
  conv->groups = 2;
}

static void set_offsets(const struct conv *conv, struct conv_narrow *n) {
  enum { PIXEL_BYTES = DOT_BLOCK * DOT_STEP_BYTES };
  for (int y = 0, p = 0; y < n->kernel_height; y++) {
    for (int x = 0; x < n->kernel_width; x++, p++) {
      n->image_taps[p] = (int32_t)((size_t)(y * n->image.width + x) * n->image.pixel_bytes);
      n->gradient_taps[p] = (int32_t)((size_t)(y * n->gradient.width + x) * n->gradient.pixel_bytes);
      n->gradient_tap_offsets[p] = (y * n->image.width + x) * PIXEL_BYTES;
    }
  }
  int32_t *offset = n->step_offsets;
  for (int i = 0; i < n->block_images; i++)
    for (int y = 0; y < n->block_rows; y++)
      for (int x = 0; x < steps_per_row(conv, n); x++)
        *offset++ = PIXEL_BYTES * (i * block_positions(conv) + y * conv->stride_height * n->image.width +
                                   n->per_step * x * conv->stride_width);
}

static bool possible(const struct conv *conv, const struct conv_narrow *n) {
  uint64_t most = (uint64_t)1 << 28; /* so that offsets fit 32 bits, and sums, below, too */
  return n->pad_height < n->kernel_height && n->pad_width < n->kernel_width && n->image.image_bytes < most &&
         n->gradient.image_bytes < most &&
         (uint64_t)n->image.height * (uint64_t)n->image.width * (uint64_t)n->block_images < most / 64 &&
         (uint64_t)conv->taps * 127 < (uint64_t)1 << 31 &&
         (uint64_t)conv->out.channels * (uint64_t)n->kernel_height * (uint64_t)n->kernel_width * 255 < (uint64_t)1 << 31 &&
         (uint64_t)n->block_images * (uint64_t)n->block_rows * (uint64_t)steps_per_row(conv, n) * DOT_STEP_BYTES * 127 * 127 <
             (uint64_t)1 << 31;
}

static bool allocate_all(const struct conv *conv, struct conv_narrow *n, int batch) {
  size_t positions = (size_t)n->kernel_height * (size_t)n->kernel_width;
  size_t out_channels = whole_panels(conv->out.channels), in_channels = whole_panels(n->in.channels);
  n->image_taps = allocate(sizeof *n->image_taps * positions);
  n->gradient_taps = allocate(sizeof *n->gradient_taps * positions);
  n->gradient_tap_offsets = allocate(sizeof *n->gradient_tap_offsets * positions);
  n->step_offsets = allocate(sizeof *n->step_offsets * block_steps(conv));
  n->kept = allocate((size_t)batch * n->image.image_bytes);
  n->forward = allocate(out_channels * positions * n->image.pixel_bytes);
  n->start = allocate(sizeof *n->start * out_channels);
  n->alpha = allocate(sizeof *n->alpha * out_channels);
  n->scale = allocate(sizeof *n->scale * out_channels);
  if (conv->needs_input_gradient) {
    n->backward = allocate(in_channels * positions * n->gradient.pixel_bytes);
    n->sums = allocate(sizeof *n->sums * (size_t)panels(conv->out.channels) * in_channels);
    if (n->backward == NULL || n->sums == NULL) return false;
  }
  return n->image_taps != NULL && n->gradient_taps != NULL && n->gradient_tap_offsets != NULL && n->step_offsets != NULL &&
         n->kept != NULL && n->forward != NULL && n->start != NULL && n->alpha != NULL && n->scale != NULL;
}

/* Levels by signs in 8 bits; else all but layers of so few channels that they are not worth it in bfloat16. */
static const struct dot_format *choose_format(const struct conv *conv, const struct dot_kernels *kernels,
                                              struct conv_levels levels) {
  if (kernels == NULL) return NULL;
  if (conv->binary && levels.step > 0) return kernels->int8;
  return conv->in.channels >= DOT_TILE_CHANNELS ? kernels->bf16 : NULL;
}

enum hwgq_status conv_narrow_create(struct conv *conv, const struct dot_kernels *kernels, struct conv_levels levels, int batch,
                                    struct hwgq_error *error) {
  const struct dot_format *format = choose_format(conv, kernels, levels);
  if (format == NULL) return HWGQ_OK;
  if (format->bytes > 1) levels = (struct conv_levels){.step = 1};
  struct conv_narrow shapes = {.format = format, .per_step = DOT_STEP_BYTES / format->bytes, .levels = levels};
  struct conv as_before = *conv;
  set_shapes(conv, &shapes);
  set_blocks(conv, &shapes);
  if (!possible(conv, &shapes)) {
    *conv = as_before;
    return HWGQ_OK;
  }
  float *sums = conv_allocate((size_t)conv->groups * conv->weight_count);
  struct conv_narrow *n = calloc(1, sizeof *n);
  if (n != NULL) *n = shapes;
  conv->narrow = n;
  if (n == NULL || sums == NULL || !allocate_all(conv, n, batch)) {
    free(sums);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the inputs of a batch of %d images: make it smaller", batch);
  }
  free(conv->gradient);
  conv->gradient = sums;
  if (conv->effective != conv->weight) free(conv->effective);
  free(conv->flipped);
  conv->effective = conv->flipped = NULL;
  set_offsets(conv, n);
  memset(n->kept, levels.zero, (size_t)batch * n->image.image_bytes); /* the padding stays */
  return HWGQ_OK;
}

void conv_narrow_destroy(struct conv_narrow *n) {
  if (n == NULL) return;
  void *arrays[] = {n->image_taps,   n->gradient_taps, n->gradient_tap_offsets,
                    n->step_offsets, n->kept,          n->forward,
                    n->backward,     n->start,         n->alpha,
                    n->scale,        n->sums};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) free(arrays[i]);
  free(n);
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* start = -zero * sum of signs: only where zero is not 0. */
static void sum_signs(const struct conv *conv, int from, int to) {
  const struct conv_narrow *n = conv->narrow;
  size_t channels = (size_t)conv->out.channels;
  for (size_t t = 0; t < (size_t)conv->taps; t++)
    for (int o = from; o < to; o++)
      n->start[o] -= conv->weight[t * channels + (size_t)o] >= 0.0f ? n->levels.zero : -n->levels.zero;
}

void conv_narrow_prepare(const struct conv *conv, int from, int to) {
  const struct conv_narrow *n = conv->narrow;
  size_t positions = (size_t)n->kernel_height * (size_t)n->kernel_width, out_channels = (size_t)conv->out.channels;
  size_t channels = (size_t)n->in.channels, panel = (size_t)from / DOT_COLUMNS;
  for (int o = from; o < to; o++) {
    n->alpha[o] = conv->binary ? conv->alpha[o] : 1.0f;
    n->scale[o] = n->levels.step * n->alpha[o];
    n->start[o] = 0;
  }
  if (n->levels.zero != 0) sum_signs(conv, from, to);
  int32_t *sums = n->sums != NULL ? n->sums + panel * whole_panels(n->in.channels) : NULL;
  if (sums != NULL) memset(sums, 0, sizeof *sums * whole_panels(n->in.channels));
  for (size_t p = 0; p < positions; p++) {
    for (size_t c = 0; c < channels; c += DOT_TILE_CHANNELS) {
      const float *weights = conv->weight + (p * channels + c) * out_channels + (size_t)from;
      uint8_t *forward =
          n->forward + ((panel * positions + p) * n->image.pixel_bytes + c * (size_t)n->format->bytes) * DOT_COLUMNS;
      uint8_t *backward = n->backward;
      if (backward != NULL)
        backward += ((c / DOT_COLUMNS * positions + positions - 1 - p) * n->gradient.pixel_bytes +
                     (size_t)from * (size_t)n->format->bytes) *
                        DOT_COLUMNS +
                    DOT_STEP_BYTES * (c % DOT_COLUMNS);
      int count = channels - c < DOT_TILE_CHANNELS ? (int)(channels - c) : DOT_TILE_CHANNELS;
      n->format->weights(weights, (ptrdiff_t)out_channels, count, to - from, conv->binary, forward, backward,
                         sums != NULL ? sums + c : NULL);
    }
  }
}

/* ---- forward ------------------------------------------------------------------------------------------------------------ */

static void set_rows(const struct conv_product *p, int first, int count, const uint8_t *row[DOT_ROWS]) {
  int per_image = p->height * p->width;
  for (int m = 0; m < DOT_ROWS; m++) {
    int i = first + (m < count ? m : 0), y = i % per_image / p->width * p->stride_height, x = i % p->width * p->stride_width;
    row[m] =
        p->images + (size_t)(i / per_image) * p->from->image_bytes + (size_t)(y * p->from->width + x) * p->from->pixel_bytes;
  }
}

void conv_narrow_multiply(const struct conv_product *p, struct dot_windows w, const int32_t *start, const float *scale,
                          float *out) {
  const char *panel = w.panel;
  w.stride = p->columns;
  for (int column = 0; column < p->columns; column += DOT_COLUMNS, panel += p->panel_bytes) {
    w.panel = panel;
    w.columns = p->columns - column < DOT_COLUMNS ? p->columns - column : DOT_COLUMNS;
    w.start = start + column;
    w.scale = scale + column;
    for (int row = 0; row < p->rows; row += DOT_ROWS) {
      const uint8_t *rows[DOT_ROWS];
      w.rows = p->rows - row < DOT_ROWS ? p->rows - row : DOT_ROWS;
      set_rows(p, row, w.rows, rows);
      w.out = out + (ptrdiff_t)row * w.stride + column;
      p->kernel(&w, rows);
    }
  }
}

static void keep_image(const struct conv_narrow *n, const float *in, uint8_t *image) {
  int channels = n->in.channels;
  bool whole = n->image.pixel_bytes == (size_t)(channels * n->format->bytes); /* pixels follow each other */
  float inverse = 1 / n->levels.step;
  for (int y = 0; y < n->in.height; y++) {
    uint8_t *target = image + (size_t)((y + n->image.top) * n->image.width + n->image.left) * n->image.pixel_bytes;
    int runs = whole ? 1 : n->in.width;
    size_t length = (size_t)channels * (size_t)(whole ? n->in.width : 1);
    for (int r = 0; r < runs; r++, in += length, target += n->image.pixel_bytes)
      n->format->keep(in, length, inverse, n->levels.zero, target);
  }
}

void conv_narrow_forward(const struct conv *conv, const float *in, int first, int images, float *out) {
  const struct conv_narrow *n = conv->narrow;
  uint8_t *kept = n->kept + (size_t)first * n->image.image_bytes;
  size_t in_size = (size_t)n->in.channels * (size_t)n->in.height * (size_t)n->in.width;
  for (int i = 0; i < images; i++) keep_image(n, in + (size_t)i * in_size, kept + (size_t)i * n->image.image_bytes);
  int positions = n->kernel_height * n->kernel_width, steps = (int)n->image.pixel_bytes / DOT_STEP_BYTES;
  struct conv_product product = {.from = &n->image,
                                 .images = kept,
                                 .rows = images * conv->out.height * conv->out.width,
                                 .height = conv->out.height,
                                 .width = conv->out.width,
                                 .stride_height = conv->stride_height,
                                 .stride_width = conv->stride_width,
                                 .columns = conv->out.channels,
                                 .panel_bytes = (size_t)positions * n->image.pixel_bytes * DOT_COLUMNS,
                                 .kernel = n->format->windows};
  struct dot_windows w = {.taps = positions, .steps = steps, .tap_offsets = n->image_taps, .panel = n->forward};
  conv_narrow_multiply(&product, w, n->start, n->scale, out);
}
