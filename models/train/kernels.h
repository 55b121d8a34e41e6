/* The trainer's loops over values, one table per instruction set. All give the same bits: no sum is reordered between them
 * and nothing is contracted.
 *
 * Values lie as [pixel][channel]; "pixels" counts the pixels of any number of images. */
#ifndef TRAIN_KERNELS_H
#define TRAIN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum { KERNELS_SUM_PIXELS = 256 }; /* pixels summed in float before the sum goes to double */

struct train_kernels {
  const char *name;
  /* sum[c] += x, square[c] += x * x. */
  void (*sum_squares)(const float *x, size_t pixels, int channels, double *sum, double *square);
  /* sum[c] += g, product[c] += g * x. */
  void (*sum_products)(const float *g, const float *x, size_t pixels, int channels, double *sum, double *product);
  /* y = x * a[c] + b[c]; y may be x. */
  void (*affine)(const float *x, size_t pixels, int channels, const float *a, const float *b, float *y);
  /* g = g * a[c] + x * b[c] + d[c] */
  void (*normalize_backward)(float *g, const float *x, size_t pixels, int channels, const float *a, const float *b,
                             const float *d);
  void (*add_bias)(float *x, size_t pixels, int channels, const float *bias);
  /* y = 0 for x <= thresholds[0], else the center of the level. */
  void (*quantize)(const float *x, size_t count, int level_count, const float *thresholds, const float *centers, float *y);
  /* y = x >= 0 ? 1 : -1 */
  void (*sign)(const float *x, size_t count, float *y);
  void (*relu)(const float *x, size_t count, float *y);
  /* g = low < x <= high ? g : 0 */
  void (*mask_half_open)(float *g, const float *x, size_t count, float low, float high);
  /* g = x <= 0 ? 0 : x <= high ? g : g / (x - high + 1): the log-tailed ReLU's derivative. high > 0. */
  void (*mask_log_tailed)(float *g, const float *x, size_t count, float high);
  /* g = |x| <= 1 ? g : 0 */
  void (*mask_hard_tanh)(float *g, const float *x, size_t count);
  /* out = the window's largest value, which = its number in the window: taps are added one by one. */
  void (*max_first)(const float *x, int channels, float *out, uint8_t *which, uint8_t number);
  void (*max_next)(const float *x, int channels, float *out, uint8_t *which, uint8_t number);
  /* gradient += which == number ? out_gradient : 0 */
  void (*max_backward)(float *gradient, int channels, const float *out_gradient, const uint8_t *which, uint8_t number);
  void (*add)(float *x, const float *y, size_t count);
  /* One step of Adam (Kingma and Ba, arXiv 1412.6980): rate already has both bias corrections in it, epsilon its own. */
  void (*adam)(float *weight, const float *gradient, float *first, float *second, size_t count, float rate, float beta1,
               float beta2, float epsilon);
  /* velocity = momentum * velocity - rate * gradient; weight += velocity */
  void (*momentum)(float *weight, const float *gradient, float *velocity, size_t count, float rate, float momentum);
  /* x += factor * y */
  void (*add_scaled)(float *x, const float *y, size_t count, float factor);
  void (*clamp)(float *x, size_t count, float low, float high);
};

/* The best for this CPU. */
const struct train_kernels *train_kernels(void);

extern const struct train_kernels train_kernels_baseline, train_kernels_avx2, train_kernels_avx512;

#endif
