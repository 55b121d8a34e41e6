/* The loops of kernels.h, written so that a compiler turns them into vector code of whatever instruction set the including
 * file is compiled for. The including file defines KERNELS_TABLE and KERNELS_NAME. */
#include "models/train/kernels.h"

#include <math.h>

enum { LANES = 16 }; /* channels summed at a time: a cache line */

/* Left to itself, gcc 12 keeps sums over rows in registers of one float each. */
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

static void sum_products_lanes(const float *g, const float *x, size_t pixels, int channels, int width, double *sum,
                               double *product) {
  union {
    lanes all;
    float each[LANES];
  } s = {0}, q = {0};
  if (width == LANES) {
    for (size_t at = 0; at < pixels * (size_t)channels; at += (size_t)channels) {
      lanes row = *(const lanes *)(g + at);
      s.all += row;
      q.all += row * *(const lanes *)(x + at);
    }
  } else {
    for (size_t at = 0; at < pixels * (size_t)channels; at += (size_t)channels) {
      for (int c = 0; c < width; c++) {
        s.each[c] += g[at + (size_t)c];
        q.each[c] += g[at + (size_t)c] * x[at + (size_t)c];
      }
    }
  }
  for (int c = 0; c < width; c++) {
    sum[c] += (double)s.each[c];
    product[c] += (double)q.each[c];
  }
}

static void sum_products(const float *g, const float *x, size_t pixels, int channels, double *sum, double *product) {
  for (size_t p = 0; p < pixels; p += KERNELS_SUM_PIXELS) {
    size_t n = pixels - p < KERNELS_SUM_PIXELS ? pixels - p : KERNELS_SUM_PIXELS;
    size_t at = p * (size_t)channels;
    for (int c = 0; c < channels; c += LANES)
      sum_products_lanes(g + at + c, x + at + c, n, channels, channels - c < LANES ? channels - c : LANES, sum + c,
                         product + c);
  }
}

static void sum_squares(const float *x, size_t pixels, int channels, double *sum, double *square) {
  sum_products(x, x, pixels, channels, sum, square);
}

static void affine(const float *x, size_t pixels, int channels, const float *a, const float *b, float *y) {
  for (size_t p = 0; p < pixels; p++, x += channels, y += channels)
    for (int c = 0; c < channels; c++) y[c] = x[c] * a[c] + b[c];
}

static void normalize_backward(float *g, const float *x, size_t pixels, int channels, const float *restrict a,
                               const float *restrict b, const float *restrict d) {
  for (size_t p = 0; p < pixels; p++, x += channels, g += channels)
    for (int c = 0; c < channels; c++) g[c] = g[c] * a[c] + x[c] * b[c] + d[c];
}

static void add_bias(float *x, size_t pixels, int channels, const float *bias) {
  for (size_t p = 0; p < pixels; p++, x += channels)
    for (int c = 0; c < channels; c++) x[c] += bias[c];
}

static void quantize(const float *restrict x, size_t count, int level_count, const float *thresholds, const float *centers,
                     float *restrict y) {
  if (level_count == 3) { /* 2 bits, the common case, in one pass */
    float t0 = thresholds[0], t1 = thresholds[1], t2 = thresholds[2];
    float c0 = centers[0], c1 = centers[1], c2 = centers[2];
    for (size_t i = 0; i < count; i++) {
      float value = x[i] > t0 ? c0 : 0.0f;
      value = x[i] > t1 ? c1 : value;
      y[i] = x[i] > t2 ? c2 : value;
    }
    return;
  }
  for (size_t i = 0; i < count; i++) y[i] = x[i] > thresholds[0] ? centers[0] : 0.0f;
  for (int level = 1; level < level_count; level++) {
    float threshold = thresholds[level], center = centers[level];
    for (size_t i = 0; i < count; i++) y[i] = x[i] > threshold ? center : y[i];
  }
}

static void sign(const float *restrict x, size_t count, float *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] >= 0.0f ? 1.0f : -1.0f;
}

static void relu(const float *restrict x, size_t count, float *restrict y) {
  for (size_t i = 0; i < count; i++) y[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

static void mask_half_open(float *restrict g, const float *restrict x, size_t count, float low, float high) {
  for (size_t i = 0; i < count; i++) {
    float above = x[i] > low ? g[i] : 0.0f;
    g[i] = x[i] <= high ? above : 0.0f;
  }
}

static void mask_log_tailed(float *restrict g, const float *restrict x, size_t count, float high) {
  for (size_t i = 0; i < count; i++) {
    float beyond = x[i] > high ? x[i] - high : 0.0f;
    float value = g[i] / (beyond + 1.0f);
    g[i] = x[i] > 0.0f ? value : 0.0f;
  }
}

static void mask_hard_tanh(float *restrict g, const float *restrict x, size_t count) {
  for (size_t i = 0; i < count; i++) g[i] = fabsf(x[i]) <= 1.0f ? g[i] : 0.0f;
}

static void max_first(const float *restrict x, int channels, float *restrict out, uint8_t *restrict which, uint8_t number) {
  for (int c = 0; c < channels; c++) out[c] = x[c];
  for (int c = 0; c < channels; c++) which[c] = number;
}

static void max_next(const float *restrict x, int channels, float *restrict out, uint8_t *restrict which, uint8_t number) {
  for (int c = 0; c < channels; c++) which[c] = x[c] > out[c] ? number : which[c];
  for (int c = 0; c < channels; c++) out[c] = x[c] > out[c] ? x[c] : out[c];
}

static void max_backward(float *restrict gradient, int channels, const float *restrict out_gradient,
                         const uint8_t *restrict which, uint8_t number) {
  for (int c = 0; c < channels; c++) gradient[c] += which[c] == number ? out_gradient[c] : 0.0f;
}

static void add(float *restrict x, const float *restrict y, size_t count) {
  for (size_t i = 0; i < count; i++) x[i] += y[i];
}

static void adam(float *restrict weight, const float *restrict gradient, float *restrict first, float *restrict second,
                 size_t count, float rate, float beta1, float beta2, float epsilon) {
  float rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
  for (size_t i = 0; i < count; i++) {
    float g = gradient[i];
    float m = beta1 * first[i] + rest1 * g;
    float v = beta2 * second[i] + rest2 * (g * g);
    first[i] = m;
    second[i] = v;
    weight[i] -= rate * m / (sqrtf(v) + epsilon);
  }
}

static void momentum_step(float *restrict weight, const float *restrict gradient, float *restrict velocity, size_t count,
                          float rate, float momentum) {
  for (size_t i = 0; i < count; i++) {
    float v = momentum * velocity[i] - rate * gradient[i];
    velocity[i] = v;
    weight[i] += v;
  }
}

static void add_scaled(float *restrict x, const float *restrict y, size_t count, float factor) {
  for (size_t i = 0; i < count; i++) x[i] += factor * y[i];
}

static void clamp(float *x, size_t count, float low, float high) {
  for (size_t i = 0; i < count; i++) {
    float value = x[i] < low ? low : x[i];
    x[i] = value > high ? high : value;
  }
}

const struct train_kernels KERNELS_TABLE = {
    .name = KERNELS_NAME,
    .sum_squares = sum_squares,
    .sum_products = sum_products,
    .affine = affine,
    .normalize_backward = normalize_backward,
    .add_bias = add_bias,
    .quantize = quantize,
    .sign = sign,
    .relu = relu,
    .mask_half_open = mask_half_open,
    .mask_log_tailed = mask_log_tailed,
    .mask_hard_tanh = mask_hard_tanh,
    .max_first = max_first,
    .max_next = max_next,
    .max_backward = max_backward,
    .add = add,
    .adam = adam,
    .momentum = momentum_step,
    .add_scaled = add_scaled,
    .clamp = clamp,
};
