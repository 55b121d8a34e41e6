/* Convolutions and linear layers by matrix product. A linear layer is a convolution whose kernel is as large as its input.
 *
 * Layouts here are [image][row][column][channel] for values and [kernel row][kernel column][in channel][out channel] for
 * weights, so that im2col copies runs of whole pixels and every product has the channels as its columns. The product of a
 * binary layer uses alpha * sign(w); its gradient with respect to that is taken for the gradient with respect to the latent
 * weight w (straight-through estimator with derivative 1; the trainer clamps w to [-1, 1] after each step). */
#ifndef TRAIN_CONV_H
#define TRAIN_CONV_H

#include "engine/hwgq.h"
#include "models/train/blas.h"
#include "models/train/kernels.h"

struct conv_narrow;

struct conv {
  struct hwgq_shape in, out;
  int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
  bool binary, has_alpha, has_bias;
  bool direct; /* the input is its own im2col: kernel 1x1 with stride 1, or as large as the input, no padding */
  bool needs_input_gradient;

  int taps;            /* kernel_height * kernel_width * in.channels: rows of the weight matrix */
  size_t weight_count; /* taps * out.channels */
  float *weight;       /* latent; [taps][out channels] */
  float *bias;         /* NULL without */
  float *alpha;        /* binary: mean |w| per output channel, or 1 without alpha */
  float *effective;    /* what the forward product uses; == weight in float layers */
  float *flipped; /* [kernel row, reversed][kernel column, reversed][out channel][in channel], of `effective`; not if direct */

  /* The weights' gradient is summed in `groups` parts of the batch, each split by kernel row (in narrow numbers: by panels of
   * out channels) into `slices` tasks, whatever the number of threads: the sum is the same for all of them. */
  int groups, slices;
  float *gradient;      /* [groups][weight_count], summed into the first by conv_reduce */
  float *bias_gradient; /* [out channels] */

  struct conv_narrow
      *narrow;    /* models/train/conv_narrow.h; NULL: products in float32. With it `effective` and `flipped` are NULL. */
  uint32_t noise; /* for its rounding at random: another number for each layer and batch */
};

/* Zero floats, aligned to a cache line; for free(). NULL when there is no memory. */
float *conv_allocate(size_t count);
/* Allocates the parameters of a layer, zero. */
enum hwgq_status conv_create(const struct hwgq_layer *layer, struct hwgq_shape in, bool needs_input_gradient, struct conv *conv,
                             struct hwgq_error *error);
void conv_destroy(struct conv *conv);
/* Floats of workspace that the calls below need. */
size_t conv_workspace(const struct conv *conv);

/* Output channels [from, to) of alpha, effective and flipped, or of one panel in narrow numbers (from: a multiple of
 * DOT_COLUMNS, to: the next or the end), from the latent weights. */
void conv_prepare(struct conv *conv, int from, int to);
/* `images` images whose values begin at `in`, the first of them number `first` of the batch. */
void conv_forward(const struct conv *conv, const struct blas *blas, const struct train_kernels *kernels, const float *in,
                  int first, int images, float *out, float *workspace);
/* The same images; in_gradient is overwritten. */
void conv_backward_input(const struct conv *conv, const struct blas *blas, const float *out_gradient, int first, int images,
                         float *in_gradient, float *workspace);
/* Task 0 to groups * slices - 1 of the gradient with respect to the weights, for images [0, images) of the batch, which
 * conv_forward has seen. */
void conv_backward_weight(const struct conv *conv, const struct blas *blas, const float *in, const float *out_gradient,
                          int images, int task, float *workspace);
/* Sums the groups' gradients of weights [from, to) into the first. */
void conv_reduce(const struct conv *conv, const struct train_kernels *kernels, size_t from, size_t to);
/* bias_gradient, from the whole batch. */
void conv_backward_bias(const struct conv *conv, const float *out_gradient, int images);

#endif
