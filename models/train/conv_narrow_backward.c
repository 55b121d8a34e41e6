/* Gradients of layers in narrow numbers. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "models/train/conv_narrow_layout.h"

enum { BLOCK_ROWS = 640 }; /* output pixels whose padded gradient is made at a time */

_Static_assert(DOT_BLOCK <= DOT_ROWS && DOT_TILE_CHANNELS % DOT_BLOCK == 0, "a block of channels is one tile of a gradient");

/* ---- workspace ---------------------------------------------------------------------------------------------------------- */

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

/* ---- rounding ----------------------------------------------------------------------------------------------------------- */

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

/* The greater of two; NaN stays whatever comes after it. */
static float larger(float most, float x) {
  return isnan(most) || x <= most ? most : x;
}

/* The gradient of one output image, times alpha * factor, with zeros around and between. */
static void pad_gradient(const struct conv *conv, const float *gradient, float factor, uint32_t noise, uint8_t *image) {
  const struct conv_narrow *n = conv->narrow;
  const struct conv_padded *g = &n->gradient;
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
    for (int i = 0; i < count; i++) most = larger(most, largest[i] * n->alpha[c + i]);
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
    struct conv_product product = {.from = &n->gradient,
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
    conv_narrow_multiply(&product, w, space.start, space.scale, in_gradient + (size_t)i * in_size);
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
    for (int c = 0; c < count; c++) most[c] = larger(most[c], largest[c]);
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
