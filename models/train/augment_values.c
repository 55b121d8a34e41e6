/* Changes of an image's values, (pixel - mean) * scale, HWC. */
#include <math.h>
#include <string.h>

#include "models/train/augment.h"

static size_t value_count(struct hwgq_shape shape) {
  return (size_t)shape.height * (size_t)shape.width * (size_t)shape.channels;
}

/* The range of output cell i of `count` cells over `length` pixels. */
static void cell_range(int i, int count, int length, int *from, int *to) {
  *from = i * length / count;
  *to = ((i + 1) * length + count - 1) / count;
}

/* Averages over small cells, height x width of them. */
static void shrink(struct hwgq_shape shape, const float *values, int height, int width, float *small) {
  int channels = shape.channels;
  for (int y = 0; y < height; y++) {
    int y0, y1;
    cell_range(y, height, shape.height, &y0, &y1);
    for (int x = 0; x < width; x++, small += channels) {
      int x0, x1;
      cell_range(x, width, shape.width, &x0, &x1);
      for (int c = 0; c < channels; c++) {
        float sum = 0;
        for (int iy = y0; iy < y1; iy++)
          for (int ix = x0; ix < x1; ix++)
            sum += values[((size_t)iy * (size_t)shape.width + (size_t)ix) * (size_t)channels + c];
        small[c] = sum / (float)((y1 - y0) * (x1 - x0));
      }
    }
  }
}

/* Where output position i of `length` lies among `count` cells: between cell *low and the next, a share *part beyond it. */
static void between(int i, int length, int count, int *low, int *high, float *part) {
  float at = ((float)i + 0.5f) * (float)count / (float)length - 0.5f;
  at = at < 0.0f ? 0.0f : at > (float)(count - 1) ? (float)(count - 1) : at;
  *low = (int)at;
  *high = *low + 1 < count ? *low + 1 : *low;
  *part = at - (float)*low;
}

static void enlarge(struct hwgq_shape shape, const float *small, int height, int width, float *values) {
  size_t channels = (size_t)shape.channels, row = (size_t)width * channels;
  for (int y = 0; y < shape.height; y++) {
    int y0, y1;
    float down;
    between(y, shape.height, height, &y0, &y1, &down);
    for (int x = 0; x < shape.width; x++, values += channels) {
      int x0, x1;
      float right;
      between(x, shape.width, width, &x0, &x1, &right);
      const float *a = small + (size_t)y0 * row, *b = small + (size_t)y1 * row;
      for (size_t c = 0; c < channels; c++) {
        size_t l = (size_t)x0 * channels + c, r = (size_t)x1 * channels + c;
        float above = a[l] + right * (a[r] - a[l]), below = b[l] + right * (b[r] - b[l]);
        values[c] = above + down * (below - above);
      }
    }
  }
}

/* As an image has that was once smaller, or was compressed until its details went. */
static void soften(const struct augmentation *a, struct hwgq_shape shape, struct rng *rng, float *values, float *scratch) {
  float factor = 1.0f + rng_uniform(rng) * (float)a->soften;
  int height = (int)lroundf((float)shape.height / factor), width = (int)lroundf((float)shape.width / factor);
  height = height < 1 ? 1 : height;
  width = width < 1 ? 1 : width;
  if (height == shape.height && width == shape.width) return;
  shrink(shape, values, height, width, scratch);
  enlarge(shape, scratch, height, width, values);
}

/* A line of `count` pixels, `stride` values apart; beyond its ends it goes on as it ended. */
static void blur_line(float *line, int count, size_t stride, int channels, const float *kernel, int radius, float *copy) {
  for (int i = 0; i < count; i++)
    memcpy(copy + (size_t)i * (size_t)channels, line + (size_t)i * stride, sizeof(float) * (size_t)channels);
  for (int i = 0; i < count; i++) {
    for (int c = 0; c < channels; c++) {
      float sum = 0;
      for (int k = -radius; k <= radius; k++) {
        int at = i + k < 0 ? 0 : i + k >= count ? count - 1 : i + k;
        sum += kernel[k + radius] * copy[(size_t)at * (size_t)channels + (size_t)c];
      }
      line[(size_t)i * stride + (size_t)c] = sum;
    }
  }
}

static void blur(const struct augmentation *a, struct hwgq_shape shape, struct rng *rng, float *values, float *scratch) {
  enum { MAX_RADIUS = 24 };
  float kernel[2 * MAX_RADIUS + 1], sigma = rng_uniform(rng) * (float)a->blur, sum = 0;
  if (sigma < 0.05f) return;
  int radius = (int)ceilf(3 * sigma);
  radius = radius > MAX_RADIUS ? MAX_RADIUS : radius;
  for (int k = -radius; k <= radius; k++) sum += kernel[k + radius] = expf(-(float)(k * k) / (2 * sigma * sigma));
  for (int k = 0; k <= 2 * radius; k++) kernel[k] /= sum;
  size_t pixel = (size_t)shape.channels, row = (size_t)shape.width * pixel;
  for (int y = 0; y < shape.height; y++)
    blur_line(values + (size_t)y * row, shape.width, pixel, shape.channels, kernel, radius, scratch);
  for (int x = 0; x < shape.width; x++)
    blur_line(values + (size_t)x * pixel, shape.height, row, shape.channels, kernel, radius, scratch);
}

static float clamp_pixel(float pixel) {
  return pixel < 0.0f ? 0.0f : pixel > 255.0f ? 255.0f : pixel;
}

/* In pixels from 0 to 255. */
static void change_colors(const struct augmentation *a, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                          struct rng *rng, float *values) {
  float brightness = a->brightness > 0 ? augment_factor(rng, a->brightness) : 1.0f;
  float contrast = a->contrast > 0 ? augment_factor(rng, a->contrast) : 1.0f;
  float saturation = a->saturation > 0 ? augment_factor(rng, a->saturation) : 1.0f;
  int channels = shape.channels;
  size_t count = value_count(shape);
  double sum = 0;
  for (size_t i = 0; i < count; i++) {
    int c = (int)(i % (size_t)channels);
    values[i] = values[i] / preprocess->scale[c] + preprocess->mean[c];
    sum += (double)values[i];
  }
  float mean = (float)(sum / (double)count);
  /* Weights of red, green and blue in a gray value (ITU-R BT.601). */
  const float weights[3] = {preprocess->order == HWGQ_BGR ? 0.114f : 0.299f, 0.587f,
                            preprocess->order == HWGQ_BGR ? 0.299f : 0.114f};
  for (size_t i = 0; i < count; i += (size_t)channels) {
    float *pixel = values + i, gray = 0;
    for (int c = 0; c < channels; c++) {
      pixel[c] = ((pixel[c] - mean) * contrast + mean) * brightness;
      gray += weights[c] * pixel[c];
    }
    for (int c = 0; c < channels; c++) {
      if (channels == 3) pixel[c] = gray + (pixel[c] - gray) * saturation;
      pixel[c] = (clamp_pixel(pixel[c]) - preprocess->mean[c]) * preprocess->scale[c];
    }
  }
}

static void cut_out(const struct augmentation *a, struct hwgq_shape shape, struct rng *rng, float *values) {
  int left = (int)rng_below(rng, (uint32_t)shape.width) - a->cutout / 2;
  int top = (int)rng_below(rng, (uint32_t)shape.height) - a->cutout / 2;
  int x0 = left < 0 ? 0 : left, x1 = left + a->cutout < shape.width ? left + a->cutout : shape.width;
  for (int y = top < 0 ? 0 : top; y < top + a->cutout && y < shape.height; y++)
    if (x1 > x0)
      memset(values + ((size_t)y * (size_t)shape.width + (size_t)x0) * (size_t)shape.channels, 0,
             sizeof(float) * (size_t)(x1 - x0) * (size_t)shape.channels);
}

void augment_values(const struct augmentation *a, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                    struct rng *rng, float *values, float *scratch) {
  if (a->soften > 0 && rng_below(rng, 2) == 1) soften(a, shape, rng, values, scratch);
  if (a->blur > 0 && rng_below(rng, 2) == 1) blur(a, shape, rng, values, scratch);
  if (a->brightness > 0 || a->contrast > 0 || a->saturation > 0) change_colors(a, preprocess, shape, rng, values);
  if (a->cutout > 0) cut_out(a, shape, rng, values);
}
