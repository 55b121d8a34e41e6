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

/* Output (x, y) is input (x * step_x + left, y * step_y + top), between pixels. */
struct window {
  float left, top, step_x, step_y;
};

static void resample(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, const uint8_t *pixels,
                     const struct window *window, bool mirror, float *values) {
  for (int y = 0; y < shape.height; y++) {
    for (int x = 0; x < shape.width; x++, values += shape.channels) {
      float from_x = (float)(mirror ? shape.width - 1 - x : x) * window->step_x + window->left;
      float from_y = (float)y * window->step_y + window->top;
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

float augment_factor(struct rng *rng, double range) {
  return expf((2.0f * rng_uniform(rng) - 1.0f) * logf(1.0f + (float)range));
}

/* The part of the image that is taken: its center moves by the shift. Aspect: width and height share the factor between them.
 */
static struct window draw_window(const struct augmentation *a, struct hwgq_shape shape, float left, float top,
                                 struct rng *rng) {
  float step = a->zoom > 0 ? augment_factor(rng, a->zoom) : 1.0f;
  float aspect = a->aspect > 0 ? augment_factor(rng, sqrt(1.0 + a->aspect) - 1.0) : 1.0f;
  if (a->crop > 0) {
    float away = rng_uniform(rng) * (float)a->crop;
    left += (rng_uniform(rng) - 0.5f) * away * (float)(shape.width - 1);
    top += (rng_uniform(rng) - 0.5f) * away * (float)(shape.height - 1);
    step *= 1.0f - away;
  }
  struct window window = {.step_x = step * aspect, .step_y = step / aspect};
  window.left = (float)(shape.width - 1) / 2 * (1.0f - window.step_x) + left;
  window.top = (float)(shape.height - 1) / 2 * (1.0f - window.step_y) + top;
  return window;
}

enum hwgq_status augmentation_check(const struct augmentation *a, struct hwgq_error *error) {
  const double up_to_4[] = {a->zoom, a->aspect, a->soften, a->brightness, a->contrast, a->saturation};
  bool good = a->pad >= 0 && a->pad <= HWGQ_MAX_KERNEL && a->crop >= 0 && a->crop <= 0.95 && a->blur >= 0 && a->blur <= 8 &&
              a->cutout >= 0 && a->cutout <= HWGQ_MAX_DIMENSION;
  for (size_t i = 0; i < sizeof up_to_4 / sizeof up_to_4[0]; i++) good = good && up_to_4[i] >= 0 && up_to_4[i] <= 4;
  if (good) return HWGQ_OK;
  return hwgq_fail(
      error, HWGQ_ERROR_INVALID,
      "augmentation out of range: shift lies in 0 to %d pixels, crop in 0 to 0.95, blur in 0 to 8 pixels, cutout is "
      "not negative, the others lie in 0 to 4",
      HWGQ_MAX_KERNEL);
}

void augment_image(const struct augmentation *augmentation, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                   const uint8_t *pixels, struct rng *rng, float *values, float *scratch) {
  if (rng == NULL) {
    shift(preprocess, shape, pixels, 0, 0, false, values);
    return;
  }
  bool mirror = augmentation->mirror && rng_below(rng, 2) == 1;
  int range = 2 * augmentation->pad + 1;
  int left = (int)rng_below(rng, (uint32_t)range) - augmentation->pad,
      top = (int)rng_below(rng, (uint32_t)range) - augmentation->pad;
  if (augmentation->zoom <= 0 && augmentation->aspect <= 0 && augmentation->crop <= 0) {
    shift(preprocess, shape, pixels, left, top, mirror, values);
  } else {
    struct window window = draw_window(augmentation, shape, (float)left, (float)top, rng);
    resample(preprocess, shape, pixels, &window, mirror, values);
  }
  augment_values(augmentation, preprocess, shape, rng, values, scratch);
}
