#include "models/train/augment.h"

#include <math.h>

static void normalize(const struct hwgq_preprocess *preprocess, int channels, const uint8_t *pixel, float *value) {
  for (int c = 0; c < channels; c++) {
    int level = preprocess->invert ? 255 - pixel[c] : pixel[c];
    value[c] = ((float)level - preprocess->mean[c]) * preprocess->scale[c];
  }
}

/* The image shifted by whole pixels: output (x, y) is input (x + left, y + top). */
static void shift(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, const uint8_t *pixels, int left, int top,
                  bool mirror, float *values) {
  for (int y = 0; y < shape.height; y++) {
    for (int x = 0; x < shape.width; x++, values += shape.channels) {
      int from_x = (mirror ? shape.width - 1 - x : x) + left, from_y = y + top;
      if (from_x < 0 || from_x >= shape.width || from_y < 0 || from_y >= shape.height) {
        for (int c = 0; c < shape.channels; c++) values[c] = 0.0f;
      } else {
        normalize(preprocess, shape.channels,
                  pixels + ((size_t)from_y * (size_t)shape.width + (size_t)from_x) * (size_t)shape.channels, values);
      }
    }
  }
}

/* Output (x, y) is input (x, y) * step + (left, top) between pixels. */
static void resample(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, const uint8_t *pixels, float left,
                     float top, float step, bool mirror, float *values) {
  for (int y = 0; y < shape.height; y++) {
    for (int x = 0; x < shape.width; x++, values += shape.channels) {
      float from_x = (float)(mirror ? shape.width - 1 - x : x) * step + left, from_y = (float)y * step + top;
      float floor_x = floorf(from_x), floor_y = floorf(from_y);
      for (int c = 0; c < shape.channels; c++) values[c] = 0.0f;
      for (int k = 0; k < 4; k++) {
        int ix = (int)floor_x + (k & 1), iy = (int)floor_y + (k >> 1);
        if (ix < 0 || ix >= shape.width || iy < 0 || iy >= shape.height) continue;
        float weight_x = k & 1 ? from_x - floor_x : 1.0f - (from_x - floor_x);
        float weight_y = k >> 1 ? from_y - floor_y : 1.0f - (from_y - floor_y);
        float value[3];
        normalize(preprocess, shape.channels, pixels + ((size_t)iy * (size_t)shape.width + (size_t)ix) * (size_t)shape.channels,
                  value);
        for (int c = 0; c < shape.channels; c++) values[c] += weight_x * weight_y * value[c];
      }
    }
  }
}

void augment_image(const struct augmentation *augmentation, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                   const uint8_t *pixels, struct rng *rng, float *values) {
  if (rng == NULL) {
    shift(preprocess, shape, pixels, 0, 0, false, values);
    return;
  }
  bool mirror = augmentation->mirror && rng_below(rng, 2) == 1;
  int range = 2 * augmentation->pad + 1;
  int left = (int)rng_below(rng, (uint32_t)range) - augmentation->pad,
      top = (int)rng_below(rng, (uint32_t)range) - augmentation->pad;
  if (augmentation->zoom <= 0.0f) {
    shift(preprocess, shape, pixels, left, top, mirror, values);
    return;
  }
  /* Sizes are drawn uniformly in their logarithm; the window's center moves by the shift. */
  float step = expf((2.0f * rng_uniform(rng) - 1.0f) * logf(1.0f + augmentation->zoom));
  float center_x = (float)(shape.width - 1) / 2, center_y = (float)(shape.height - 1) / 2;
  resample(preprocess, shape, pixels, center_x * (1.0f - step) + (float)left, center_y * (1.0f - step) + (float)top, step,
           mirror, values);
}
