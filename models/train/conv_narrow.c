#include "models/train/conv_narrow.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  IN_MULTIPLE = DOT_TILE_CHANNELS, /* channels of padded images: so that tiles of weights are whole */
  OUT_MULTIPLE = DOT_COLUMNS,
  BLOCK_ROWS = 640,  /* output pixels whose padded gradient is made at a time */
  BLOCK_STEPS = 256, /* steps of pixels along which a weights' gradient is summed in registers */
  SLICE_PANELS = 2,  /* panels of out channels that a task of it takes ... */
  MOST_SLICES = 4,   /* ... or more, so that there are no more tasks than this for a part of the batch */
};

/* An image with zeros around it (and between its pixels), and windows over it. */
struct padded {
  int height, width;    /* with the padding */
  int top, left;        /* of the first pixel */
  int space_y, space_x; /* from one pixel to the next; 1: nothing between */
  size_t pixel_bytes, image_bytes;
};

struct conv_narrow {
  const struct dot_format *format;
  int per_step; /* numbers: 4 of 8 bits, 2 of 16 */
  struct conv_levels levels;
  struct hwgq_shape in; /* of the layer; of a linear one with all its inputs as channels of one pixel */
  int kernel_height, kernel_width, pad_height, pad_width;
  struct padded image, gradient;       /* input, and gradient of the output */
  int32_t *image_taps, *gradient_taps; /* [kernel position] bytes from a window's first pixel */
  uint8_t *kept;                       /* [image of the batch] padded inputs */
  uint8_t *forward;                    /* [panel of out channels][position][in channel step][DOT_COLUMNS][4 bytes] */
  uint8_t *backward;                   /* [panel of in channels][position, reversed][out channel step][DOT_COLUMNS][4 bytes] */
  int32_t *start;                      /* [out channels, whole panels] -zero * sum of signs */
  float *alpha, *scale;                /* [out channels, whole panels] 1 in float layers; times the levels' step */
  int32_t *sums;                       /* [panel of out channels][in channels, whole panels] of signs */
  int block_rows, block_images;        /* output rows of a block of the weights' gradient; images */
  int32_t *step_offsets, *gradient_tap_offsets;
  int slice_panels; /* panels of out channels in a task of the weights' gradient */
};

static size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

static int panels(int columns) {
  return (columns + DOT_COLUMNS - 1) / DOT_COLUMNS;
}

static size_t whole_panels(int columns) {
  return (size_t)panels(columns) * DOT_COLUMNS;
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
                             .pixel_bytes = round_up((size_t)n->in.channels, IN_MULTIPLE) * (size_t)n->format->bytes};
  n->gradient = (struct padded){.height = n->in.height + n->kernel_height - 1,
                                .width = n->in.width + n->kernel_width - 1,
                                .top = n->kernel_height - 1 - n->pad_height,
                                .left = n->kernel_width - 1 - n->pad_width,
                                .space_y = conv->stride_height,
                                .space_x = conv->stride_width,
                                .pixel_bytes = round_up((size_t)conv->out.channels, OUT_MULTIPLE) * (size_t)n->format->bytes};
  n->image.image_bytes = (size_t)n->image.height * (size_t)n->image.width * n->image.pixel_bytes;
  n->gradient.image_bytes = (size_t)n->gradient.height * (size_t)n->gradient.width * n->gradient.pixel_bytes;
}

static int steps_per_row(const struct conv *conv, const struct conv_narrow *n) {
  return (conv->out.width + n->per_step - 1) / n->per_step;
}

/* Pixels of padded input that a block of the weights' gradient takes from one image. */
static int block_positions(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return ((n->block_rows - 1) * conv->stride_height + n->kernel_height) * n->image.width;
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
  uint64_t most = (uint64_t)1 << 28; /* so that offsets fit 32 bits */
  return n->pad_height < n->kernel_height && n->pad_width < n->kernel_width && n->image.image_bytes < most &&
         n->gradient.image_bytes < most &&
         (uint64_t)n->image.height * (uint64_t)n->image.width * (uint64_t)n->block_images < most / 64 &&
         (uint64_t)conv->taps * 127 < (uint64_t)1 << 31;
}

static size_t block_steps(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return (size_t)n->block_images * (size_t)n->block_rows * (size_t)steps_per_row(conv, n);
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

static int gradient_images(const struct conv *conv) {
  int pixels = conv->narrow->in.height * conv->narrow->in.width;
  return (BLOCK_ROWS + pixels - 1) / pixels;
}

/* Of one channel block of a block's spread input. */
static size_t spread_bytes(const struct conv *conv) {
  return (size_t)conv->narrow->block_images * (size_t)block_positions(conv) * DOT_BLOCK * DOT_STEP_BYTES;
}

static size_t panel_bytes(const struct conv *conv) {
  return block_steps(conv) * DOT_COLUMNS * DOT_STEP_BYTES;
}

/* Workspace of a task, in this order: */
struct input_space { /* for the inputs' gradient */
  int32_t *start;    /* [in channels, whole panels] */
  float *scale;      /* the same */
  uint8_t *padded;
};

struct weight_space { /* for the weights' */
  int32_t *start;     /* [out channels of the task, whole panels] */
  float *scale;       /* the same */
  uint8_t *image, *groups;
};

static struct input_space input_space(const struct conv *conv, float *workspace) {
  struct input_space s = {.start = (int32_t *)(void *)workspace};
  s.scale = workspace + whole_panels(conv->narrow->in.channels);
  s.padded = (uint8_t *)(s.scale + whole_panels(conv->narrow->in.channels));
  return s;
}

static struct weight_space weight_space(const struct conv *conv, float *workspace) {
  size_t columns = (size_t)conv->narrow->slice_panels * DOT_COLUMNS;
  struct weight_space s = {.start = (int32_t *)(void *)workspace, .scale = workspace + columns};
  s.image = (uint8_t *)(s.scale + columns);
  s.groups = s.image + spread_bytes(conv) * (DOT_TILE_CHANNELS / DOT_BLOCK);
  return s;
}

size_t conv_narrow_workspace(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  size_t input = 2 * whole_panels(n->in.channels) * sizeof(float) + (size_t)gradient_images(conv) * n->gradient.image_bytes;
  size_t weight = spread_bytes(conv) * (DOT_TILE_CHANNELS / DOT_BLOCK) +
                  (panel_bytes(conv) + 2 * DOT_COLUMNS * sizeof(float)) * (size_t)n->slice_panels;
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

/* start, scale: of all columns, whole panels. */
static void multiply(const struct product *p, struct dot_windows w, const int32_t *start, const float *scale, float *out) {
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
  struct product product = {.from = &n->image,
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
  multiply(&product, w, n->start, n->scale, out);
}

/* ---- backward ----------------------------------------------------------------------------------------------------------- */

/* Of the noise at the first pixel of image number `image` of the batch (models/train/dot.h). */
static uint32_t image_noise(const struct conv *conv, int image) {
  return conv->noise + (uint32_t)image * (uint32_t)(conv->out.height * conv->out.width) * DOT_NOISE_PIXEL;
}

/* The factor that brings numbers up to `largest` into 8 bits, and the one that brings sums of them back: NaN, so that nobody
 * overlooks it, if they were not finite. */
static void choose_scale(float largest, float *factor, float *scale) {
  *factor = largest >= FLT_MIN * DOT_LARGEST ? DOT_LARGEST / largest : 0;
  *scale = largest / DOT_LARGEST;
  if (!isfinite(largest)) {
    *factor = 0;
    *scale = NAN;
  }
}

/* The gradient of one output image, times alpha * factor, with zeros around and between. */
static void pad_gradient(const struct conv *conv, const float *gradient, float factor, uint32_t noise, uint8_t *image) {
  const struct conv_narrow *n = conv->narrow;
  const struct padded *g = &n->gradient;
  int fill = n->format->fill;
  size_t row_bytes = (size_t)g->width * g->pixel_bytes, inside = (size_t)conv->out.width * g->pixel_bytes;
  bool dense = g->space_y == 1 && g->space_x == 1 && g->pixel_bytes == (size_t)(n->format->bytes * conv->out.channels);
  size_t before = (size_t)g->left * g->pixel_bytes, after = row_bytes - before - inside;
  size_t above = (size_t)g->top * row_bytes, all = (size_t)conv->out.height * row_bytes;
  memset(image, fill, dense ? above : g->image_bytes);
  if (dense) memset(image + above + all, fill, g->image_bytes - above - all);
  for (int y = 0; y < conv->out.height; y++) {
    uint8_t *row = image + (size_t)((y * g->space_y + g->top) * g->width + g->left) * g->pixel_bytes;
    if (dense) {
      memset(row - before, fill, before);
      memset(row + inside, fill, after);
    }
    for (int x = 0; x < conv->out.width; x++, gradient += conv->out.channels, row += (size_t)g->space_x * g->pixel_bytes) {
      n->format->pad(gradient, n->alpha, conv->out.channels, factor, noise, row);
      noise += DOT_NOISE_PIXEL;
    }
  }
}

/* The greatest |gradient * alpha| of `pixels` pixels. */
static float largest_product(const struct conv *conv, const float *gradient, int pixels) {
  const struct conv_narrow *n = conv->narrow;
  float most = 0;
  for (int c = 0; c < conv->out.channels; c += DOT_COLUMNS) {
    int count = conv->out.channels - c < DOT_COLUMNS ? conv->out.channels - c : DOT_COLUMNS;
    float largest[DOT_COLUMNS];
    n->format->largest(gradient + c, conv->out.channels, pixels, count, largest);
    for (int i = 0; i < count; i++) {
      float product = largest[i] * n->alpha[c + i];
      if (!(product <= most)) most = product;
      if (isnan(product)) return product;
    }
  }
  return most;
}

void conv_narrow_backward_input(const struct conv *conv, const float *out_gradient, int first, int images, float *in_gradient,
                                float *workspace) {
  const struct conv_narrow *n = conv->narrow;
  struct input_space space = input_space(conv, workspace);
  int pixels = conv->out.height * conv->out.width, columns = (int)whole_panels(n->in.channels);
  size_t out_size = (size_t)conv->out.channels * (size_t)pixels;
  size_t in_size = (size_t)n->in.channels * (size_t)n->in.height * (size_t)n->in.width;
  int positions = n->kernel_height * n->kernel_width, block = gradient_images(conv);
  memset(space.start, 0, sizeof *space.start * (size_t)columns);
  for (int p = 0; n->format->fill != 0 && p < panels(conv->out.channels); p++)
    for (int c = 0; c < columns; c++) space.start[c] -= n->format->fill * n->sums[p * columns + c];
  for (int i = 0; i < images; i += block) {
    int count = images - i < block ? images - i : block;
    const float *gradient = out_gradient + (size_t)i * out_size;
    float factor = 1, scale = 1;
    if (n->format->largest != NULL) choose_scale(largest_product(conv, gradient, count * pixels), &factor, &scale);
    for (int c = 0; c < columns; c++) space.scale[c] = scale;
    for (int k = 0; k < count; k++)
      pad_gradient(conv, gradient + (size_t)k * out_size, factor, image_noise(conv, first + i + k),
                   space.padded + (size_t)k * n->gradient.image_bytes);
    struct product product = {.from = &n->gradient,
                              .images = space.padded,
                              .rows = count * n->in.height * n->in.width,
                              .height = n->in.height,
                              .width = n->in.width,
                              .stride_height = 1,
                              .stride_width = 1,
                              .columns = n->in.channels,
                              .panel_bytes = (size_t)positions * n->gradient.pixel_bytes * DOT_COLUMNS,
                              .kernel = n->format->windows};
    struct dot_windows w = {.taps = positions,
                            .steps = (int)n->gradient.pixel_bytes / DOT_STEP_BYTES,
                            .tap_offsets = n->gradient_taps,
                            .panel = n->backward};
    multiply(&product, w, space.start, space.scale, in_gradient + (size_t)i * in_size);
  }
}

/* Part of a batch along which a weights' gradient is summed: rows [row, row + rows) of some images. */
struct block {
  int image, images, row, rows;
};

/* Channels [channel, channel + DOT_TILE_CHANNELS) of the block's input: [channel block][image][row][column][DOT_BLOCK][4
 * bytes]. */
static void spread_block(const struct conv *conv, const struct block *b, int channel, uint8_t *out) {
  const struct conv_narrow *n = conv->narrow;
  int width = n->image.width, in_rows = (b->rows - 1) * conv->stride_height + n->kernel_height;
  struct dot_spread s = {.pixel_bytes = (ptrdiff_t)n->image.pixel_bytes,
                         .pixels = width,
                         .stride = conv->stride_width,
                         .block_bytes = (ptrdiff_t)spread_bytes(conv)};
  for (int i = 0; i < b->images; i++) {
    const uint8_t *row = n->kept + (size_t)(b->image + i) * n->image.image_bytes +
                         (size_t)(b->row * conv->stride_height * width) * n->image.pixel_bytes +
                         (size_t)(channel * n->format->bytes);
    uint8_t *target = out + (size_t)i * (size_t)block_positions(conv) * DOT_BLOCK * DOT_STEP_BYTES;
    for (int y = 0; y < in_rows; y++) {
      n->format->spread(&s, row, target);
      row += (size_t)width * n->image.pixel_bytes;
      target += width * DOT_BLOCK * DOT_STEP_BYTES;
    }
  }
}

/* Makes the factors of `count` channels of the block's gradient that begin at `first`, and the scale of its sums. */
static void scale_block(const struct conv *conv, const struct block *b, const float *first, int count, float *factor,
                        float *scale) {
  const struct conv_narrow *n = conv->narrow;
  float largest[DOT_COLUMNS], most[DOT_COLUMNS] = {0};
  for (int c = 0; c < count; c++) scale[c] = 1;
  for (int i = 0; n->format->largest != NULL && i < b->images; i++) {
    n->format->largest(first + (size_t)i * (size_t)conv->out.channels * (size_t)conv->out.height * (size_t)conv->out.width,
                       conv->out.channels, b->rows * conv->out.width, count, largest);
    for (int c = 0; c < count; c++)
      if (!(largest[c] <= most[c])) most[c] = largest[c];
  }
  for (int c = 0; n->format->largest != NULL && c < count; c++) choose_scale(most[c], &factor[c], &scale[c]);
  for (int c = 0; c < count; c++) scale[c] *= n->levels.step;
}

/* Of levels less zero: the sums of 8-bit gradients, times -zero. */
static void start_block(const struct conv *conv, const uint8_t *groups, int32_t *start) {
  const struct conv_narrow *n = conv->narrow;
  memset(start, 0, sizeof *start * DOT_COLUMNS);
  if (n->levels.zero == 0) return;
  for (size_t s = 0; s < block_steps(conv); s++)
    for (int c = 0; c < DOT_COLUMNS * DOT_STEP_BYTES; c++)
      start[c / DOT_STEP_BYTES] -= n->levels.zero * (int8_t)groups[s * DOT_COLUMNS * DOT_STEP_BYTES + (size_t)c];
}

/* The block's output gradient of one panel of channels: groups[step][DOT_COLUMNS][4 bytes], and its scale and start. */
static void group_block(const struct conv *conv, const struct block *b, const float *gradient, int panel, uint8_t *groups,
                        float *scale, int32_t *start) {
  const struct conv_narrow *n = conv->narrow;
  int channels = conv->out.channels, column = panel * DOT_COLUMNS, width = conv->out.width;
  int count = channels - column < DOT_COLUMNS ? channels - column : DOT_COLUMNS;
  size_t image_size = (size_t)channels * (size_t)conv->out.height * (size_t)width;
  const float *first = gradient + (size_t)b->image * image_size + (size_t)(b->row * width) * (size_t)channels + (size_t)column;
  float factor[DOT_COLUMNS];
  uint8_t *out = groups;
  scale_block(conv, b, first, count, factor, scale);
  for (int i = 0; i < b->images; i++) {
    const float *pixel = first + (size_t)i * image_size;
    uint32_t noise =
        image_noise(conv, b->image + i) + (uint32_t)(b->row * width) * DOT_NOISE_PIXEL + (uint32_t)column * DOT_NOISE_CHANNEL;
    for (int y = 0; y < b->rows; y++) {
      for (int x = 0; x < width; x += n->per_step, out += DOT_COLUMNS * DOT_STEP_BYTES) {
        int pixels = width - x < n->per_step ? width - x : n->per_step;
        n->format->group(pixel, channels, pixels, count, factor, noise, out);
        pixel += (size_t)pixels * (size_t)channels;
        noise += (uint32_t)pixels * DOT_NOISE_PIXEL;
      }
    }
  }
  memset(out, 0, (size_t)(groups + panel_bytes(conv) - out)); /* of a block that is not full */
  start_block(conv, groups, start);
}

/* Adds the block's share to the weights' gradient of in channels [channel, channel + DOT_BLOCK). */
static void add_block(const struct conv *conv, const struct block *b, int panel, int channel, const uint8_t *image,
                      const struct weight_space *space, float *gradient) {
  const struct conv_narrow *n = conv->narrow;
  int positions = n->kernel_height * n->kernel_width, channels = conv->out.channels;
  struct dot_gradient g = {.steps = b->images * b->rows * steps_per_row(conv, n),
                           .offsets = n->step_offsets,
                           .rows = n->in.channels - channel < DOT_BLOCK ? n->in.channels - channel : DOT_BLOCK,
                           .stride = channels};
  for (int p = 0; p < positions; p++) {
    for (int s = 0; s < n->slice_panels; s++) {
      int column = (panel + s) * DOT_COLUMNS;
      if (column >= channels) break;
      g.b = space->groups + (size_t)s * panel_bytes(conv);
      g.start = space->start + s * DOT_COLUMNS;
      g.scale = space->scale + s * DOT_COLUMNS;
      g.columns = channels - column < DOT_COLUMNS ? channels - column : DOT_COLUMNS;
      g.out = gradient + ((size_t)p * (size_t)n->in.channels + (size_t)channel) * (size_t)channels + column;
      n->format->gradient(&g, image + n->gradient_tap_offsets[p]);
    }
  }
}

void conv_narrow_backward_weight(const struct conv *conv, const float *out_gradient, int images, int task, float *workspace) {
  const struct conv_narrow *n = conv->narrow;
  struct weight_space space = weight_space(conv, workspace);
  int group = task / conv->slices, panel = task % conv->slices * n->slice_panels, channels = conv->out.channels;
  int from = (int)((int64_t)images * group / conv->groups), to = (int)((int64_t)images * (group + 1) / conv->groups);
  float *gradient = conv->gradient + (size_t)group * conv->weight_count;
  int column = panel * DOT_COLUMNS, end = (panel + n->slice_panels) * DOT_COLUMNS;
  for (int t = 0; t < conv->taps; t++)
    memset(gradient + (size_t)t * (size_t)channels + column, 0,
           sizeof(float) * (size_t)((end < channels ? end : channels) - column));
  struct block b;
  for (b.image = from; b.image < to; b.image += n->block_images) {
    b.images = to - b.image < n->block_images ? to - b.image : n->block_images;
    for (b.row = 0; b.row < conv->out.height; b.row += n->block_rows) {
      b.rows = conv->out.height - b.row < n->block_rows ? conv->out.height - b.row : n->block_rows;
      for (int s = 0; s < n->slice_panels && (panel + s) * DOT_COLUMNS < channels; s++)
        group_block(conv, &b, out_gradient, panel + s, space.groups + (size_t)s * panel_bytes(conv),
                    space.scale + s * DOT_COLUMNS, space.start + s * DOT_COLUMNS);
      for (int c = 0; c < n->in.channels; c += DOT_TILE_CHANNELS) {
        spread_block(conv, &b, c, space.image);
        for (int k = 0; k < DOT_TILE_CHANNELS && c + k < n->in.channels; k += DOT_BLOCK)
          add_block(conv, &b, panel, c + k, space.image + (size_t)(k / DOT_BLOCK) * spread_bytes(conv), &space, gradient);
      }
    }
  }
}
