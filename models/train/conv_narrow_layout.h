/* What conv_narrow*.c share. Internal to models/train. */
#ifndef TRAIN_CONV_NARROW_LAYOUT_H
#define TRAIN_CONV_NARROW_LAYOUT_H

#include "models/train/conv_narrow.h"

/* An image with zeros around it (and between its pixels), and windows over it. */
struct conv_padded {
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
  struct conv_padded image, gradient;  /* input, and gradient of the output */
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

static inline int panels(int columns) {
  return (columns + DOT_COLUMNS - 1) / DOT_COLUMNS;
}

static inline size_t whole_panels(int columns) {
  return (size_t)panels(columns) * DOT_COLUMNS;
}

/* Steps along which a weights' gradient is summed: of one row of the output. */
static inline int steps_per_row(const struct conv *conv, const struct conv_narrow *n) {
  return (conv->out.width + n->per_step - 1) / n->per_step;
}

/* Pixels of padded input that a block of the weights' gradient takes from one image. */
static inline int block_positions(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return ((n->block_rows - 1) * conv->stride_height + n->kernel_height) * n->image.width;
}

static inline size_t block_steps(const struct conv *conv) {
  const struct conv_narrow *n = conv->narrow;
  return (size_t)n->block_images * (size_t)n->block_rows * (size_t)steps_per_row(conv, n);
}

/* Products of windows [0, rows) (all pixels of `images` output images of height x width) with every panel. */
struct conv_product {
  const struct conv_padded *from;
  const uint8_t *images;
  int rows, height, width; /* of the output */
  int stride_height, stride_width;
  int columns;
  size_t panel_bytes;
  void (*kernel)(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]);
};

/* start, scale: of all columns, whole panels. w: taps, steps, tap_offsets and panel, the first one; the rest is set here. */
void conv_narrow_multiply(const struct conv_product *p, struct dot_windows w, const int32_t *start, const float *scale,
                          float *out);

#endif
