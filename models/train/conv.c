#include "models/train/conv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/conv_narrow.h"

enum {
  COLUMN_BYTES = 1 << 20, /* an im2col block should stay in the second-level cache ... */
  COLUMN_ROWS = 256,      /* ... but not be so low that packing the weights costs more than the product */
  WEIGHT_COLUMN_ROWS = 1024,
};

/* What im2col copies: the windows of a kernel over an input. */
struct windows {
  int in_height, in_width, channels;
  int out_height, out_width;
  int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
  int first_row, row_count; /* the kernel rows wanted */
  int upsample_height,
      upsample_width; /* the input stands for one with zeros between: the stride of a convolution seen backwards */
};

/* One kernel row of one window: kernel_width pixels. */
static void copy_run(const struct windows *w, const float *row, int left, float *column) {
  size_t pixel = (size_t)w->channels;
  if (w->upsample_width == 1) {
    int from = left < 0 ? -left : 0;
    int to = w->in_width - left < w->kernel_width ? w->in_width - left : w->kernel_width;
    if (from >= to) from = to = 0;
    if (from > 0) memset(column, 0, sizeof(float) * pixel * (size_t)from);
    if (to > from)
      memcpy(column + pixel * (size_t)from, row + (ptrdiff_t)pixel * (left + from),
             sizeof(float) * pixel * (size_t)(to - from));
    if (to < w->kernel_width) memset(column + pixel * (size_t)to, 0, sizeof(float) * pixel * (size_t)(w->kernel_width - to));
    return;
  }
  for (int k = 0; k < w->kernel_width; k++, column += pixel) {
    int x = left + k;
    if (x >= 0 && x % w->upsample_width == 0 && x / w->upsample_width < w->in_width)
      memcpy(column, row + pixel * (size_t)(x / w->upsample_width), sizeof(float) * pixel);
    else
      memset(column, 0, sizeof(float) * pixel);
  }
}

/* Windows [first, first + count), numbered through all images, as rows of `columns`. */
static void im2col(const struct windows *w, const float *in, int first, int count, float *columns) {
  size_t run = (size_t)w->kernel_width * (size_t)w->channels;
  size_t row_length = (size_t)w->in_width * (size_t)w->channels;
  int per_image = w->out_height * w->out_width;
  for (int i = first; i < first + count; i++) {
    const float *image = in + (size_t)(i / per_image) * (size_t)w->in_height * row_length;
    int top = i % per_image / w->out_width * w->stride_height - w->pad_height;
    int left = i % w->out_width * w->stride_width - w->pad_width;
    for (int k = w->first_row; k < w->first_row + w->row_count; k++, columns += run) {
      int y = top + k;
      if (y < 0 || y % w->upsample_height != 0 || y / w->upsample_height >= w->in_height)
        memset(columns, 0, sizeof(float) * run);
      else
        copy_run(w, image + (size_t)(y / w->upsample_height) * row_length, left, columns);
    }
  }
}

static struct windows forward_windows(const struct conv *conv) {
  return (struct windows){
      .in_height = conv->in.height,
      .in_width = conv->in.width,
      .channels = conv->in.channels,
      .out_height = conv->out.height,
      .out_width = conv->out.width,
      .kernel_height = conv->kernel_height,
      .kernel_width = conv->kernel_width,
      .stride_height = conv->stride_height,
      .stride_width = conv->stride_width,
      .pad_height = conv->pad_height,
      .pad_width = conv->pad_width,
      .row_count = conv->kernel_height,
      .upsample_height = 1,
      .upsample_width = 1,
  };
}

/* The gradient of the input is a convolution of the output's gradient with the flipped kernel. */
static struct windows backward_windows(const struct conv *conv) {
  return (struct windows){
      .in_height = conv->out.height,
      .in_width = conv->out.width,
      .channels = conv->out.channels,
      .out_height = conv->in.height,
      .out_width = conv->in.width,
      .kernel_height = conv->kernel_height,
      .kernel_width = conv->kernel_width,
      .stride_height = 1,
      .stride_width = 1,
      .pad_height = conv->kernel_height - 1 - conv->pad_height,
      .pad_width = conv->kernel_width - 1 - conv->pad_width,
      .row_count = conv->kernel_height,
      .upsample_height = conv->stride_height,
      .upsample_width = conv->stride_width,
  };
}

static int block_rows(int row_length) {
  int rows = COLUMN_BYTES / (int)sizeof(float) / row_length;
  return rows < COLUMN_ROWS ? COLUMN_ROWS : rows > 2 * WEIGHT_COLUMN_ROWS ? 2 * WEIGHT_COLUMN_ROWS : rows;
}

static int weight_slice(const struct conv *conv) {
  return conv->taps / conv->slices;
}

/* The weights' gradient takes columns of one slice. */
static int weight_block_rows(const struct conv *conv) {
  int rows = block_rows(weight_slice(conv));
  return rows < WEIGHT_COLUMN_ROWS ? WEIGHT_COLUMN_ROWS : rows;
}

size_t conv_workspace(const struct conv *conv) {
  if (conv->narrow != NULL) return conv_narrow_workspace(conv);
  if (conv->direct) return 0;
  int back_taps = conv->kernel_height * conv->kernel_width * conv->out.channels;
  size_t forward = (size_t)block_rows(conv->taps) * (size_t)conv->taps;
  size_t backward = (size_t)block_rows(back_taps) * (size_t)back_taps;
  size_t weight = (size_t)weight_block_rows(conv) * (size_t)weight_slice(conv);
  size_t most = forward > backward ? forward : backward;
  return most > weight ? most : weight;
}

float *conv_allocate(size_t count) {
  /* Cache-line aligned; one line more than asked for, so that zero is no special case. */
  size_t bytes = (count * sizeof(float) + 127) / 64 * 64;
  float *values = aligned_alloc(64, bytes);
  if (values != NULL) memset(values, 0, bytes);
  return values;
}

enum hwgq_status conv_create(const struct hwgq_layer *layer, struct hwgq_shape in, bool needs_input_gradient, struct conv *conv,
                             struct hwgq_error *error) {
  bool linear = layer->op == HWGQ_LINEAR;
  if (!linear && layer->groups != 1)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer %s has %d groups: the trainer takes convolutions without groups",
                     layer->name, layer->groups);
  *conv = (struct conv){
      .in = in,
      .out = layer->output,
      .kernel_height = linear ? in.height : layer->kernel_height,
      .kernel_width = linear ? in.width : layer->kernel_width,
      .stride_height = linear ? 1 : layer->stride_height,
      .stride_width = linear ? 1 : layer->stride_width,
      .pad_height = linear ? 0 : layer->pad_height,
      .pad_width = linear ? 0 : layer->pad_width,
      .binary = layer->binary,
      .has_alpha = layer->has_alpha,
      .has_bias = layer->has_bias,
      .needs_input_gradient = needs_input_gradient,
  };
  bool no_pad = conv->pad_height == 0 && conv->pad_width == 0;
  bool pointwise = conv->kernel_height == 1 && conv->kernel_width == 1 && conv->stride_height == 1 && conv->stride_width == 1;
  conv->direct = no_pad && (pointwise || (conv->kernel_height == in.height && conv->kernel_width == in.width));
  uint64_t taps = (uint64_t)conv->kernel_height * (uint64_t)conv->kernel_width * (uint64_t)in.channels;
  uint64_t weights = taps * (uint64_t)layer->out_channels;
  if (taps > 1 << 22 || weights > 1 << 28)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "layer %s has %llu weights: the trainer takes up to %d", layer->name,
                     (unsigned long long)weights, 1 << 28);
  conv->taps = (int)taps;
  conv->weight_count = (size_t)weights;
  bool small = conv->direct || conv->taps < 128;
  conv->slices = small ? 1 : conv->kernel_height;
  conv->groups = small ? 4 : 2;
  size_t channels = (size_t)layer->out_channels;
  conv->weight = conv_allocate(conv->weight_count);
  conv->gradient = conv_allocate((size_t)conv->groups * conv->weight_count);
  conv->alpha = conv_allocate(channels);
  conv->bias_gradient = conv_allocate(channels);
  conv->bias = conv->has_bias ? conv_allocate(channels) : NULL;
  conv->effective = conv->binary ? conv_allocate(conv->weight_count) : conv->weight;
  conv->flipped = conv->direct || !needs_input_gradient ? NULL : conv_allocate(conv->weight_count);
  if (conv->weight == NULL || conv->gradient == NULL || conv->alpha == NULL || conv->bias_gradient == NULL ||
      (conv->has_bias && conv->bias == NULL) || conv->effective == NULL ||
      (conv->flipped == NULL && !conv->direct && needs_input_gradient)) {
    conv_destroy(conv);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the %llu weights of layer %s", (unsigned long long)weights,
                     layer->name);
  }
  return HWGQ_OK;
}

void conv_destroy(struct conv *conv) {
  conv_narrow_destroy(conv->narrow);
  if (conv->effective != conv->weight) free(conv->effective);
  free(conv->weight);
  free(conv->gradient);
  free(conv->alpha);
  free(conv->bias_gradient);
  free(conv->bias);
  free(conv->flipped);
  *conv = (struct conv){0};
}

static void prepare_alpha(struct conv *conv, int from, int to) {
  enum { BLOCK = 32 };
  size_t channels = (size_t)conv->out.channels;
  for (int o = from; o < to; o += BLOCK) {
    int width = to - o < BLOCK ? to - o : BLOCK;
    double sum[BLOCK] = {0};
    for (int t = 0; t < conv->taps; t++) {
      const float *weight = conv->weight + (size_t)t * channels + o;
      for (int i = 0; i < width; i++) sum[i] += fabs((double)weight[i]);
    }
    for (int i = 0; i < width; i++) conv->alpha[o + i] = conv->has_alpha ? (float)(sum[i] / conv->taps) : 1.0f;
  }
}

static void prepare_effective(struct conv *conv, int from, int to) {
  size_t channels = (size_t)conv->out.channels;
  for (int t = 0; t < conv->taps; t++) {
    const float *weight = conv->weight + (size_t)t * channels;
    float *effective = conv->effective + (size_t)t * channels;
    for (int o = from; o < to; o++) effective[o] = weight[o] >= 0.0f ? conv->alpha[o] : -conv->alpha[o];
  }
}

void conv_prepare(struct conv *conv, int from, int to) {
  if (conv->binary) prepare_alpha(conv, from, to);
  if (conv->narrow != NULL) {
    conv_narrow_prepare(conv, from, to);
    return;
  }
  if (conv->binary) prepare_effective(conv, from, to);
  if (conv->flipped == NULL) return;
  int positions = conv->kernel_height * conv->kernel_width, in_channels = conv->in.channels, out_channels = conv->out.channels;
  for (int p = 0; p < positions; p++) {
    const float *source = conv->effective + (size_t)p * (size_t)in_channels * (size_t)out_channels;
    float *target = conv->flipped + (size_t)(positions - 1 - p) * (size_t)in_channels * (size_t)out_channels;
    for (int i = 0; i < in_channels; i++) {
      for (int o = from; o < to; o++)
        target[(size_t)o * (size_t)in_channels + (size_t)i] = source[(size_t)i * (size_t)out_channels + (size_t)o];
    }
  }
}

void conv_forward(const struct conv *conv, const struct blas *blas, const struct train_kernels *kernels, const float *in,
                  int first, int images, float *out, float *workspace) {
  int channels = conv->out.channels, rows = images * conv->out.height * conv->out.width;
  if (conv->narrow != NULL) {
    conv_narrow_forward(conv, in, first, images, out);
  } else if (conv->direct) {
    blas_gemm(blas, false, false, rows, channels, conv->taps, in, conv->taps, conv->effective, channels, 0.0f, out, channels);
  } else {
    struct windows windows = forward_windows(conv);
    int block = block_rows(conv->taps);
    for (int row = 0; row < rows; row += block) {
      int count = rows - row < block ? rows - row : block;
      im2col(&windows, in, row, count, workspace);
      blas_gemm(blas, false, false, count, channels, conv->taps, workspace, conv->taps, conv->effective, channels, 0.0f,
                out + (size_t)row * (size_t)channels, channels);
    }
  }
  if (conv->has_bias) kernels->add_bias(out, (size_t)rows, channels, conv->bias);
}

void conv_backward_input(const struct conv *conv, const struct blas *blas, const float *out_gradient, int first, int images,
                         float *in_gradient, float *workspace) {
  if (conv->narrow != NULL) {
    conv_narrow_backward_input(conv, out_gradient, first, images, in_gradient, workspace);
    return;
  }
  if (conv->direct) {
    int rows = images * conv->out.height * conv->out.width;
    blas_gemm(blas, false, true, rows, conv->taps, conv->out.channels, out_gradient, conv->out.channels, conv->effective,
              conv->out.channels, 0.0f, in_gradient, conv->taps);
    return;
  }
  struct windows windows = backward_windows(conv);
  int channels = conv->in.channels, rows = images * conv->in.height * conv->in.width;
  int taps = conv->kernel_height * conv->kernel_width * conv->out.channels, block = block_rows(taps);
  for (int row = 0; row < rows; row += block) {
    int count = rows - row < block ? rows - row : block;
    im2col(&windows, out_gradient, row, count, workspace);
    blas_gemm(blas, false, false, count, channels, taps, workspace, taps, conv->flipped, channels, 0.0f,
              in_gradient + (size_t)row * (size_t)channels, channels);
  }
}

void conv_backward_weight(const struct conv *conv, const struct blas *blas, const float *in, const float *out_gradient,
                          int images, int task, float *workspace) {
  if (conv->narrow != NULL) {
    conv_narrow_backward_weight(conv, out_gradient, images, task, workspace);
    return;
  }
  int group = task / conv->slices, slice = task % conv->slices;
  int channels = conv->out.channels, per_image = conv->out.height * conv->out.width, slice_taps = weight_slice(conv);
  int from = (int)((int64_t)images * group / conv->groups) * per_image;
  int to = (int)((int64_t)images * (group + 1) / conv->groups) * per_image;
  float *gradient = conv->gradient + (size_t)group * conv->weight_count + (size_t)slice * (size_t)slice_taps * (size_t)channels;
  if (from == to) memset(gradient, 0, sizeof(float) * (size_t)slice_taps * (size_t)channels);
  if (conv->direct) {
    if (to > from)
      blas_gemm(blas, true, false, slice_taps, channels, to - from, in + (size_t)from * (size_t)slice_taps, slice_taps,
                out_gradient + (size_t)from * (size_t)channels, channels, 0.0f, gradient, channels);
    return;
  }
  struct windows windows = forward_windows(conv);
  if (conv->slices > 1) {
    windows.first_row = slice;
    windows.row_count = 1;
  }
  int block = weight_block_rows(conv);
  for (int row = from; row < to; row += block) {
    int count = to - row < block ? to - row : block;
    im2col(&windows, in, row, count, workspace);
    blas_gemm(blas, true, false, slice_taps, channels, count, workspace, slice_taps,
              out_gradient + (size_t)row * (size_t)channels, channels, row == from ? 0.0f : 1.0f, gradient, channels);
  }
}

void conv_reduce(const struct conv *conv, const struct train_kernels *kernels, size_t from, size_t to) {
  for (int g = 1; g < conv->groups; g++)
    kernels->add(conv->gradient + from, conv->gradient + (size_t)g * conv->weight_count + from, to - from);
}

void conv_backward_bias(const struct conv *conv, const float *out_gradient, int images) {
  size_t channels = (size_t)conv->out.channels, rows = (size_t)images * (size_t)conv->out.height * (size_t)conv->out.width;
  for (size_t c = 0; c < channels; c++) {
    double sum = 0;
    for (size_t row = 0; row < rows; row++) sum += (double)out_gradient[row * channels + c];
    conv->bias_gradient[c] = (float)sum;
  }
}
