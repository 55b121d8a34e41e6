/* Convolutions and linear layers in narrow numbers (models/train/dot.h).
 *
 * Binary layers whose inputs are levels, in 8 bits: the input is (level - zero) * step, the weights are alpha times a sign, so
 * that the forward product is one of integers, exact, times step * alpha. Backward, signs and levels are exact too, and the
 * gradient is rounded at random, so that its mean stays: for the inputs' gradient on a scale for each block of images, for the
 * weights' on one for each channel of a block. Other layers, in bfloat16: inputs, weights and gradients are rounded to it
 * (signs are exact), sums are made in float32. Nothing is written out as im2col: the products take their rows from padded
 * images. */
#ifndef TRAIN_CONV_NARROW_H
#define TRAIN_CONV_NARROW_H

#include "models/train/conv.h"
#include "models/train/dot.h"

/* What a layer's input consists of: (level - zero) * step. */
struct conv_levels {
  float step; /* 0: not of levels */
  int zero;
};

struct conv_narrow;

/* Of a quantize layer; step 0 if they are not multiples of one step (or too many of it). */
struct conv_levels conv_levels_of(const struct hwgq_layer *quantize);
/* Makes `conv` compute in narrow numbers from now on, for batches of up to `batch` images. Does nothing for layers that cannot.
 */
enum hwgq_status conv_narrow_create(struct conv *conv, const struct dot_kernels *kernels, struct conv_levels levels, int batch,
                                    struct hwgq_error *error);
void conv_narrow_destroy(struct conv_narrow *narrow);
size_t conv_narrow_workspace(const struct conv *conv);

/* As the functions of conv.h, which call these. The forward pass keeps the inputs of images [first, first + images) for
 * conv_narrow_backward_weight. */
void conv_narrow_prepare(const struct conv *conv, int from, int to);
void conv_narrow_forward(const struct conv *conv, const float *in, int first, int images, float *out);
void conv_narrow_backward_input(const struct conv *conv, const float *out_gradient, int first, int images, float *in_gradient,
                                float *workspace);
void conv_narrow_backward_weight(const struct conv *conv, const float *out_gradient, int images, int task, float *workspace);

#endif
