#include "models/train/conv_narrow.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  IN_MULTIPLE = DOT_SIGN_CHANNELS, /* channels of padded images: so that tiles of signs are whole */
  OUT_MULTIPLE = DOT_COLUMNS,
  BLOCK_ROWS = 640,                /* output pixels whose padded gradient is made at a time */
  BLOCK_PAIRS = 256,               /* pairs of pixels along which a weights' gradient is summed in registers */
  SPREAD_CHANNELS = 2 * DOT_BLOCK, /* of the input that are prepared for it at a time */
  SLICE_PANELS = 2,                /* panels of out channels that a task of it takes ... */
  MOST_SLICES = 4,                 /* ... or more, so that there are no more tasks than this for a part of the batch */
};

/* An image with zeros around it (and between its pixels), and windows over it. */
struct padded {
  int height, width;    /* with the padding */
  int top, left;        /* of the first pixel */
  int space_y, space_x; /* from one pixel to the next; 1: nothing between */
  size_t pixel_bytes, image_bytes;
};

struct conv_narrow {
  const struct dot_kernels *kernels;
  struct conv_levels levels;
  struct hwgq_shape in; /* of the layer; of a linear one with all its inputs as channels of one pixel */
  int kernel_height, kernel_width, pad_height, pad_width;
  struct padded image;                 /* input, 8-bit levels */
  struct padded gradient;              /* the output's, bfloat16 */
  int32_t *image_taps, *gradient_taps; /* [kernel position] bytes from a window's first pixel */
  uint8_t *kept;                       /* [image of the batch] padded levels */
  int8_t *forward;                     /* [panel of out channels][position][in channels / 4][DOT_COLUMNS][4] */
  uint16_t *backward;                  /* [panel of in channels][position, reversed][out channels / 2][DOT_COLUMNS][2] */
  int32_t *start;                      /* [out channels, whole panels] -zero * sum of signs */
  float *scale;                        /* [out channels, whole panels] step * alpha */
  int block_rows;                      /* output rows of a block of the weights' gradient; images below */
  int block_images;
  int32_t *pair_offsets, *gradient_tap_offsets;
  int slice_panels; /* panels of out channels in a task of the weights' gradient */
};

static size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static int panels(int columns) {
  return (columns + DOT_COLUMNS - 1) / DOT_COLUMNS;
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
  n->image = (struct padded){.height = height > n->in.height + n->pad_height ? height : n->in.height + n->pad_height,
                             .width = width > n->in.width + n->pad_width ? width : n->in.width + n->pad_width,
                             .top = n->pad_height,
                             .left = n->pad_width,
                             .space_y = 1,
                             .space_x = 1,
                             .pixel_bytes = round_up((size_t)n->in.channels, IN_MULTIPLE)};
  n->gradient = (struct padded){.height = n->in.height + n->kernel_height - 1,
                                .width = n->in.width + n->kernel_width - 1,
                                .top = n->kernel_height - 1 - n->pad_height,
                                .left = n->kernel_width - 1 - n->pad_width,
                                .space_y = conv->stride_height,
                                .space_x = conv->stride_width,
                                .pixel_bytes = 2 * round_up((size_t)conv->out.channels, OUT_MULTIPLE)};
  n->image.image_bytes = (size_t)n->image.height * (size_t)n->image.width * n->image.pixel_bytes;
  n->gradient.image_bytes = (size_t)n->gradient.height * (size_t)n->gradient.width * n->gradient.pixel_bytes;
}

static int pairs_per_row(const struct conv *conv) {
  return (conv->out.width + 1) / 2;
}

/* Pixels of padded input that a block of the weights' gradient takes from one image. */
static int block_positions(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return ((n->block_rows - 1) * conv->stride_height + n->kernel_height) * n->image.width;
}

static void set_blocks(struct conv *conv, struct conv_narrow *n) {
  int per_row = pairs_per_row(conv), rows = BLOCK_PAIRS / per_row;
  n->block_rows = rows < 1 ? 1 : rows > conv->out.height ? conv->out.height : rows;
  rows = BLOCK_PAIRS / (per_row * conv->out.height);
  n->block_images = rows < 1 ? 1 : rows;
  int all = panels(conv->out.channels);
  n->slice_panels = (all + MOST_SLICES - 1) / MOST_SLICES;
  if (n->slice_panels < SLICE_PANELS) n->slice_panels = SLICE_PANELS;
  conv->slices = (all + n->slice_panels - 1) / n->slice_panels;
  conv->groups = 2;
}

static void set_offsets(const struct conv *conv, struct conv_narrow *n) {
  enum { PAIR_BYTES = DOT_BLOCK * DOT_STEP_BYTES };
  for (int y = 0, p = 0; y < n->kernel_height; y++) {
    for (int x = 0; x < n->kernel_width; x++, p++) {
      n->image_taps[p] = (int32_t)((size_t)(y * n->image.width + x) * n->image.pixel_bytes);
      n->gradient_taps[p] = (int32_t)((size_t)(y * n->gradient.width + x) * n->gradient.pixel_bytes);
      n->gradient_tap_offsets[p] = (y * n->image.width + x) * DOT_BLOCK * 2;
    }
  }
  int32_t *offset = n->pair_offsets;
  for (int i = 0; i < n->block_images; i++)
    for (int y = 0; y < n->block_rows; y++)
      for (int x = 0; x < pairs_per_row(conv); x++)
        *offset++ =
            PAIR_BYTES * (i * block_positions(conv) + y * conv->stride_height * n->image.width + 2 * x * conv->stride_width);
}

static bool possible(const struct conv *conv, const struct conv_narrow *n) {
  uint64_t most = (uint64_t)1 << 28; /* so that offsets fit 32 bits */
  return n->pad_height < n->kernel_height && n->pad_width < n->kernel_width && n->image.image_bytes < most &&
         n->gradient.image_bytes < most &&
         (uint64_t)n->image.height * (uint64_t)n->image.width * (uint64_t)n->block_images < most / 64 &&
         (uint64_t)conv->taps * 127 < (uint64_t)1 << 31;
}

static bool allocate_all(const struct conv *conv, struct conv_narrow *n, int batch) {
  size_t positions = (size_t)n->kernel_height * (size_t)n->kernel_width;
  size_t out_panels = (size_t)panels(conv->out.channels), in_panels = (size_t)panels(n->in.channels);
  n->image_taps = allocate(sizeof *n->image_taps * positions);
  n->gradient_taps = allocate(sizeof *n->gradient_taps * positions);
  n->gradient_tap_offsets = allocate(sizeof *n->gradient_tap_offsets * positions);
  n->pair_offsets =
      allocate(sizeof *n->pair_offsets * (size_t)n->block_images * (size_t)n->block_rows * (size_t)pairs_per_row(conv));
  n->kept = allocate((size_t)batch * n->image.image_bytes);
  n->forward = allocate(out_panels * positions * n->image.pixel_bytes * DOT_COLUMNS);
  n->backward = conv->needs_input_gradient ? allocate(in_panels * positions * n->gradient.pixel_bytes * DOT_COLUMNS) : NULL;
  n->start = allocate(sizeof *n->start * out_panels * DOT_COLUMNS);
  n->scale = allocate(sizeof *n->scale * out_panels * DOT_COLUMNS);
  return n->image_taps != NULL && n->gradient_taps != NULL && n->gradient_tap_offsets != NULL && n->pair_offsets != NULL &&
         n->kept != NULL && n->forward != NULL && (n->backward != NULL || !conv->needs_input_gradient) && n->start != NULL &&
         n->scale != NULL;
}

enum hwgq_status conv_narrow_create(struct conv *conv, const struct dot_kernels *kernels, struct conv_levels levels, int batch,
                                    struct hwgq_error *error) {
  if (!conv->binary || kernels == NULL || !(levels.step > 0)) return HWGQ_OK;
  struct conv_narrow shapes = {.kernels = kernels, .levels = levels};
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
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the levels of a batch of %d images: make it smaller", batch);
  }
  free(conv->gradient);
  conv->gradient = sums;
  free(conv->effective);
  free(conv->flipped);
  conv->effective = conv->flipped = NULL;
  set_offsets(conv, n);
  memset(n->kept, levels.zero, (size_t)batch * n->image.image_bytes); /* the padding stays */
  return HWGQ_OK;
}

void conv_narrow_destroy(struct conv_narrow *n) {
  if (n == NULL) return;
  void *arrays[] = {n->image_taps, n->gradient_taps, n->gradient_tap_offsets, n->pair_offsets, n->kept, n->forward, n->backward,
                    n->start,      n->scale};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) free(arrays[i]);
  free(n);
}

static int gradient_images(const struct conv *conv) {
  int pixels = conv->narrow->in.height * conv->narrow->in.width;
  return (BLOCK_ROWS + pixels - 1) / pixels;
}

/* Numbers of one channel block of a block's spread input. */
static ptrdiff_t spread_numbers(const struct conv *conv) {
  return (ptrdiff_t)conv->narrow->block_images * block_positions(conv) * 2 * DOT_BLOCK;
}

static size_t panel_numbers(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return (size_t)n->block_images * (size_t)n->block_rows * (size_t)pairs_per_row(conv) * 2 * DOT_COLUMNS;
}

size_t conv_narrow_workspace(const struct conv *conv) {
  size_t input = (size_t)gradient_images(conv) * conv->narrow->gradient.image_bytes;
  size_t weight =
      (size_t)spread_numbers(conv) * SPREAD_CHANNELS / DOT_BLOCK + panel_numbers(conv) * (size_t)conv->narrow->slice_panels;
  weight *= sizeof(uint16_t);
  return (input > weight ? input : weight) / sizeof(float) + 1;
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
    n->scale[o] = n->levels.step * conv->alpha[o];
    n->start[o] = 0;
  }
  if (n->levels.zero != 0) sum_signs(conv, from, to);
  for (size_t p = 0; p < positions; p++) {
    for (size_t c = 0; c < channels; c += DOT_SIGN_CHANNELS) {
      const float *weights = conv->weight + (p * channels + c) * out_channels + (size_t)from;
      int8_t *forward = n->forward + ((panel * positions + p) * n->image.pixel_bytes + c) * DOT_COLUMNS;
      uint16_t *backward = n->backward;
      if (backward != NULL)
        backward +=
            ((c / DOT_COLUMNS * positions + positions - 1 - p) * n->gradient.pixel_bytes / 2 + (size_t)from) * DOT_COLUMNS +
            2 * (c % DOT_COLUMNS);
      int count = channels - c < DOT_SIGN_CHANNELS ? (int)(channels - c) : DOT_SIGN_CHANNELS;
      n->kernels->signs(weights, (ptrdiff_t)out_channels, count, to - from, forward, backward);
    }
  }
}

/* ---- forward ------------------------------------------------------------------------------------------------------------ */

/* Products of windows [0, rows) (all pixels of `images` output images of height x width) with every panel. */
struct product {
  const struct padded *from;
  const uint8_t *images;
  int rows, height, width; /* of the output */
  int stride_height, stride_width;
  int columns;
  size_t panel_bytes;
  void (*kernel)(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]);
};

static void set_rows(const struct product *p, int first, int count, const uint8_t *row[DOT_ROWS]) {
  int per_image = p->height * p->width;
  for (int m = 0; m < DOT_ROWS; m++) {
    int i = first + (m < count ? m : 0), y = i % per_image / p->width * p->stride_height, x = i % p->width * p->stride_width;
    row[m] =
        p->images + (size_t)(i / per_image) * p->from->image_bytes + (size_t)(y * p->from->width + x) * p->from->pixel_bytes;
  }
}

static void multiply(const struct product *p, struct dot_windows w, const int32_t *start, const float *scale, float *out) {
  const char *panel = w.panel;
  w.stride = p->columns;
  for (int column = 0; column < p->columns; column += DOT_COLUMNS, panel += p->panel_bytes) {
    w.panel = panel;
    w.columns = p->columns - column < DOT_COLUMNS ? p->columns - column : DOT_COLUMNS;
    w.start = start != NULL ? start + column : NULL;
    w.scale = scale != NULL ? scale + column : NULL;
    for (int row = 0; row < p->rows; row += DOT_ROWS) {
      const uint8_t *rows[DOT_ROWS];
      w.rows = p->rows - row < DOT_ROWS ? p->rows - row : DOT_ROWS;
      set_rows(p, row, w.rows, rows);
      w.out = out + (ptrdiff_t)row * w.stride + column;
      p->kernel(&w, rows);
    }
  }
}

static void keep_levels(const struct conv_narrow *n, const float *in, uint8_t *image) {
  int channels = n->in.channels;
  bool whole = n->image.pixel_bytes == (size_t)channels; /* pixels follow each other */
  float inverse = 1 / n->levels.step;
  for (int y = 0; y < n->in.height; y++) {
    uint8_t *target = image + (size_t)((y + n->image.top) * n->image.width + n->image.left) * n->image.pixel_bytes;
    int runs = whole ? 1 : n->in.width;
    size_t length = (size_t)channels * (size_t)(whole ? n->in.width : 1);
    for (int r = 0; r < runs; r++, in += length, target += n->image.pixel_bytes)
      n->kernels->levels(in, length, inverse, n->levels.zero, target);
  }
}

void conv_narrow_forward(const struct conv *conv, const float *in, int first, int images, float *out) {
  const struct conv_narrow *n = conv->narrow;
  uint8_t *kept = n->kept + (size_t)first * n->image.image_bytes;
  size_t in_size = (size_t)n->in.channels * (size_t)n->in.height * (size_t)n->in.width;
  for (int i = 0; i < images; i++) keep_levels(n, in + (size_t)i * in_size, kept + (size_t)i * n->image.image_bytes);
  int positions = n->kernel_height * n->kernel_width, steps = (int)n->image.pixel_bytes / DOT_STEP_BYTES;
  struct product product = {.from = &n->image,
                            .images = kept,
                            .rows = images * conv->out.height * conv->out.width,
                            .height = conv->out.height,
                            .width = conv->out.width,
                            .stride_height = conv->stride_height,
                            .stride_width = conv->stride_width,
                            .columns = conv->out.channels,
                            .panel_bytes = (size_t)positions * n->image.pixel_bytes * DOT_COLUMNS,
                            .kernel = n->kernels->windows_u8};
  struct dot_windows w = {.taps = positions, .steps = steps, .tap_offsets = n->image_taps, .panel = n->forward};
  multiply(&product, w, n->start, n->scale, out);
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

/* The gradient of one output image, times alpha, rounded, with zeros around and between. */
static void pad_gradient(const struct conv *conv, const float *gradient, uint8_t *image) {
  const struct conv_narrow *n = conv->narrow;
  const struct padded *g = &n->gradient;
  size_t row_bytes = (size_t)g->width * g->pixel_bytes, inside = (size_t)conv->out.width * g->pixel_bytes;
  bool dense = g->space_y == 1 && g->space_x == 1 && g->pixel_bytes == 2 * (size_t)conv->out.channels;
  size_t before = (size_t)g->left * g->pixel_bytes, after = row_bytes - before - inside;
  size_t above = (size_t)g->top * row_bytes, all = (size_t)conv->out.height * row_bytes;
  memset(image, 0, dense ? above : g->image_bytes);
  if (dense) memset(image + above + all, 0, g->image_bytes - above - all);
  for (int y = 0; y < conv->out.height; y++) {
    uint8_t *row = image + (size_t)((y * g->space_y + g->top) * g->width + g->left) * g->pixel_bytes;
    if (dense) {
      memset(row - before, 0, before);
      memset(row + inside, 0, after);
    }
    for (int x = 0; x < conv->out.width; x++, gradient += conv->out.channels, row += (size_t)g->space_x * g->pixel_bytes)
      n->kernels->round(gradient, conv->alpha, conv->out.channels, (uint16_t *)(void *)row);
  }
}

void conv_narrow_backward_input(const struct conv *conv, const float *out_gradient, int images, float *in_gradient,
                                float *workspace) {
  const struct conv_narrow *n = conv->narrow;
  size_t out_size = (size_t)conv->out.channels * (size_t)conv->out.height * (size_t)conv->out.width;
  size_t in_size = (size_t)n->in.channels * (size_t)n->in.height * (size_t)n->in.width;
  int positions = n->kernel_height * n->kernel_width, block = gradient_images(conv);
  uint8_t *padded = (uint8_t *)workspace;
  for (int first = 0; first < images; first += block) {
    int count = images - first < block ? images - first : block;
    for (int i = 0; i < count; i++)
      pad_gradient(conv, out_gradient + (size_t)(first + i) * out_size, padded + (size_t)i * n->gradient.image_bytes);
    struct product product = {.from = &n->gradient,
                              .images = padded,
                              .rows = count * n->in.height * n->in.width,
                              .height = n->in.height,
                              .width = n->in.width,
                              .stride_height = 1,
                              .stride_width = 1,
                              .columns = n->in.channels,
                              .panel_bytes = (size_t)positions * n->gradient.pixel_bytes * DOT_COLUMNS,
                              .kernel = n->kernels->windows_bf16};
    struct dot_windows w = {.taps = positions,
                            .steps = (int)n->gradient.pixel_bytes / DOT_STEP_BYTES,
                            .tap_offsets = n->gradient_taps,
                            .panel = n->backward};
    multiply(&product, w, NULL, NULL, in_gradient + (size_t)first * in_size);
  }
}

/* Part of a batch along which a weights' gradient is summed: rows [row, row + rows) of some images. */
struct block {
  int image, images, row, rows;
};

/* Channels [channel, channel + SPREAD_CHANNELS) of the block's input, as pairs (x, x + stride) of bfloat16:
 * [channel block][image][row][column][DOT_BLOCK][2]. Returns the number of channel blocks. */
static int spread_block(const struct conv *conv, const struct block *b, int channel, uint16_t *out) {
  const struct conv_narrow *n = conv->narrow;
  int width = n->image.width, in_rows = (b->rows - 1) * conv->stride_height + n->kernel_height;
  struct dot_spread s = {.pixel_bytes = (ptrdiff_t)n->image.pixel_bytes,
                         .partner_bytes = (ptrdiff_t)n->image.pixel_bytes * conv->stride_width,
                         .pixels = width,
                         .partners = width - conv->stride_width,
                         .blocks = n->in.channels - channel > DOT_BLOCK ? SPREAD_CHANNELS / DOT_BLOCK : 1,
                         .block_stride = spread_numbers(conv),
                         .zero = n->levels.zero};
  for (int i = 0; i < b->images; i++) {
    const uint8_t *row = n->kept + (size_t)(b->image + i) * n->image.image_bytes +
                         (size_t)(b->row * conv->stride_height * width) * n->image.pixel_bytes + channel;
    uint16_t *target = out + (size_t)i * (size_t)block_positions(conv) * 2 * DOT_BLOCK;
    for (int y = 0; y < in_rows; y++, row += (size_t)width * n->image.pixel_bytes, target += width * 2 * DOT_BLOCK)
      n->kernels->spread(&s, row, target);
  }
  return s.blocks;
}

/* The block's output gradient, times step, of one panel of channels: [pair][DOT_COLUMNS][2]. */
static void pair_block(const struct conv *conv, const struct block *b, const float *gradient, int panel, uint16_t *out) {
  const struct conv_narrow *n = conv->narrow;
  int channels = conv->out.channels, column = panel * DOT_COLUMNS, width = conv->out.width;
  int count = channels - column < DOT_COLUMNS ? channels - column : DOT_COLUMNS;
  for (int i = 0; i < b->images; i++) {
    for (int y = b->row; y < b->row + b->rows; y++) {
      const float *row =
          gradient + ((size_t)(b->image + i) * (size_t)conv->out.height + (size_t)y) * (size_t)width * (size_t)channels;
      for (int x = 0; x < width; x += 2, out += 2 * DOT_COLUMNS) {
        const float *first = row + (size_t)x * (size_t)channels + column;
        n->kernels->pair(first, x + 1 < width ? first + channels : NULL, count, n->levels.step, out);
      }
    }
  }
}

/* Adds the block's share to the weights' gradient of channels [channel, channel + DOT_BLOCK). */
static void add_block(const struct conv *conv, const struct block *b, int panel, int channel, const uint16_t *image,
                      const uint16_t *pairs, float *gradient) {
  const struct conv_narrow *n = conv->narrow;
  int positions = n->kernel_height * n->kernel_width, channels = conv->out.channels;
  int count = b->images * b->rows * pairs_per_row(conv);
  int rows = n->in.channels - channel < DOT_BLOCK ? n->in.channels - channel : DOT_BLOCK;
  for (int p = 0; p < positions; p++) {
    float *out = gradient + ((size_t)p * (size_t)n->in.channels + (size_t)channel) * (size_t)channels;
    for (int s = 0; s < n->slice_panels; s++) {
      int column = (panel + s) * DOT_COLUMNS;
      if (column >= channels) break;
      n->kernels->gradient(image + n->gradient_tap_offsets[p], n->pair_offsets, count, pairs + (size_t)s * panel_numbers(conv),
                           rows, channels - column < DOT_COLUMNS ? channels - column : DOT_COLUMNS, out + column, channels);
    }
  }
}

void conv_narrow_backward_weight(const struct conv *conv, const float *out_gradient, int images, int task, float *workspace) {
  const struct conv_narrow *n = conv->narrow;
  int group = task / conv->slices, panel = task % conv->slices * n->slice_panels, channels = conv->out.channels;
  int from = (int)((int64_t)images * group / conv->groups), to = (int)((int64_t)images * (group + 1) / conv->groups);
  float *gradient = conv->gradient + (size_t)group * conv->weight_count;
  int column = panel * DOT_COLUMNS, end = (panel + n->slice_panels) * DOT_COLUMNS;
  for (int t = 0; t < conv->taps; t++)
    memset(gradient + (size_t)t * (size_t)channels + column, 0,
           sizeof(float) * (size_t)((end < channels ? end : channels) - column));
  uint16_t *image = (uint16_t *)(void *)workspace;
  uint16_t *pairs = image + spread_numbers(conv) * SPREAD_CHANNELS / DOT_BLOCK;
  struct block b;
  for (b.image = from; b.image < to; b.image += n->block_images) {
    b.images = to - b.image < n->block_images ? to - b.image : n->block_images;
    for (b.row = 0; b.row < conv->out.height; b.row += n->block_rows) {
      b.rows = conv->out.height - b.row < n->block_rows ? conv->out.height - b.row : n->block_rows;
      for (int s = 0; s < n->slice_panels && (panel + s) * DOT_COLUMNS < channels; s++)
        pair_block(conv, &b, out_gradient, panel + s, pairs + (size_t)s * panel_numbers(conv));
      for (int c = 0; c < n->in.channels; c += SPREAD_CHANNELS) {
        int blocks = spread_block(conv, &b, c, image);
        for (int i = 0; i < blocks; i++)
          add_block(conv, &b, panel, c + i * DOT_BLOCK, image + i * spread_numbers(conv), pairs, gradient);
      }
    }
  }
}
