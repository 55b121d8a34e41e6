/* Resizing in integers, without rounding before the end. Along each axis an output sample is a weighted sum of neighboring
 * source samples with integer weights whose sum is the same for every output sample: shrinking (area average): source sample i
 * covers [i out, (i + 1) out), output sample x covers [x in, (x + 1) in); the weight is the length of the overlap, the sum of
 * weights `in`; growing (bilinear, half-pixel centers): output sample x lies at ((2 x + 1) in - out) / (2 out) between source
 * samples, clamped to the border; the sum of weights is 2 out. Both axes are summed exactly and divided once, rounding half up.
 * An axis that keeps its length passes unchanged. */
#include <stdlib.h>
#include <string.h>

#include "models/image/image.h"

/* Of one output sample: source samples first .. first + count - 1. Those between the first and the last share one weight. */
struct tap {
  uint32_t first, count;
  uint32_t first_weight, middle_weight, last_weight;
};

enum { MAX_RESIZED = 1 << 23 }; /* pixels along a side; 2 * 255 * MAX_RESIZED fits 32 bits */

static struct tap area_tap(uint64_t in, uint64_t out, uint64_t x) {
  uint64_t start = x * in, end = start + in;
  uint64_t first = start / out, last = (end - 1) / out;
  struct tap tap = {(uint32_t)first, (uint32_t)(last - first + 1), (uint32_t)in, (uint32_t)out, 0};
  if (last > first) {
    tap.first_weight = (uint32_t)((first + 1) * out - start);
    tap.last_weight = (uint32_t)(end - last * out);
  }
  return tap;
}

static struct tap linear_tap(uint64_t in, uint64_t out, uint64_t x) {
  uint64_t position = (2 * x + 1) * in;
  position = position > out ? position - out : 0;
  uint64_t first = position / (2 * out), fraction = position % (2 * out);
  if (first + 1 >= in) return (struct tap){(uint32_t)(in - 1), 1, (uint32_t)(2 * out), 0, 0};
  return (struct tap){(uint32_t)first, 2, (uint32_t)(2 * out - fraction), 0, (uint32_t)fraction};
}

static uint64_t axis_weight(uint64_t in, uint64_t out) {
  return out <= in ? in : 2 * out;
}

/* Taps of output samples offset .. offset + count - 1. */
static void fill_taps(struct tap *taps, int in, int out, int offset, int count) {
  for (int i = 0; i < count; i++) {
    uint64_t x = (uint64_t)(offset + i);
    taps[i] = out <= in ? area_tap((uint64_t)in, (uint64_t)out, x) : linear_tap((uint64_t)in, (uint64_t)out, x);
  }
}

static void reduce_row(const uint8_t *row, int channels, const struct tap *taps, int count, uint32_t *sums) {
  for (int i = 0; i < count; i++) {
    const struct tap tap = taps[i];
    const uint8_t *pixel = row + (size_t)tap.first * (size_t)channels;
    for (int c = 0; c < channels; c++) {
      const uint8_t *from = pixel + c;
      uint32_t sum = tap.first_weight * *from, middle = 0;
      if (tap.count > 1) {
        from += channels;
        for (uint32_t k = 2; k < tap.count; k++, from += channels) middle += *from;
        sum += tap.middle_weight * middle + tap.last_weight * *from;
      }
      *sums++ = sum;
    }
  }
}

/* Rounded division by a constant. For divisors up to 2^28 a multiplication by the reciprocal is exact: with
 * inverse = ceil(2^64 / d), floor(n inverse / 2^64) = floor(n / d) while n d < 2^64, and n < 256 d. */
struct divider {
  uint64_t divisor, inverse;
};

static struct divider divider_make(uint64_t divisor) {
  return (struct divider){divisor, divisor > 1 && divisor <= 1u << 28 ? UINT64_MAX / divisor + 1 : 0};
}

static uint8_t divide(struct divider divider, uint64_t n) {
  n += divider.divisor / 2;
  if (divider.inverse) return (uint8_t)((unsigned __int128)n * divider.inverse >> 64);
  return (uint8_t)(n / divider.divisor);
}

struct geometry {
  int width, height; /* of the whole resized image */
  int left, top;     /* of the crop in it */
};

/* The other side for a side that goes from `from` to `to`, rounded half up. */
static uint64_t scaled(uint64_t other, uint64_t from, uint64_t to) {
  return (2 * other * to + from) / (2 * from);
}

static enum hwgq_status find_geometry(const struct image *image, int resize, struct hwgq_shape shape, struct geometry *geometry,
                                      struct hwgq_error *error) {
  uint64_t w = (uint64_t)image->width, h = (uint64_t)image->height, width, height;
  uint64_t crop_width = (uint64_t)shape.width, crop_height = (uint64_t)shape.height;
  bool upright = w <= h;
  width = upright ? (uint64_t)resize : scaled(w, h, (uint64_t)resize);
  height = upright ? scaled(h, w, (uint64_t)resize) : (uint64_t)resize;
  if (resize == 0 || width < crop_width || height < crop_height) { /* smallest size that covers the crop */
    bool by_width = w * crop_height <= h * crop_width;
    width = by_width ? crop_width : scaled(w, h, crop_height);
    height = by_width ? scaled(h, w, crop_width) : crop_height;
  }
  if (width > MAX_RESIZED || height > MAX_RESIZED) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "image of %dx%d is too narrow to be resized for a network that takes %dx%d",
                     image->width, image->height, shape.width, shape.height);
  }
  *geometry = (struct geometry){(int)width, (int)height, (int)((width - crop_width) / 2), (int)((height - crop_height) / 2)};
  return HWGQ_OK;
}

/* One pixel in the channels of the image to one in those of the network. */
static void put_pixel(const uint8_t *from, int channels, enum hwgq_channel_order order, uint8_t *to) {
  if (order == HWGQ_GRAY) {
    to[0] = channels == 1 ? from[0] : (uint8_t)((77 * from[0] + 150 * from[1] + 29 * from[2] + 128) >> 8);
    return;
  }
  for (int c = 0; c < 3; c++) to[c] = channels == 1 ? from[0] : from[order == HWGQ_BGR ? 2 - c : c];
}

static void copy_crop(const struct image *image, const struct geometry *geometry, enum hwgq_channel_order order,
                      struct hwgq_shape shape, uint8_t *pixels) {
  size_t channels = (size_t)image->channels;
  for (int y = 0; y < shape.height; y++) {
    const uint8_t *from =
        image->pixels + ((size_t)(geometry->top + y) * (size_t)image->width + (size_t)geometry->left) * channels;
    for (int x = 0; x < shape.width; x++, from += channels, pixels += shape.channels)
      put_pixel(from, image->channels, order, pixels);
  }
}

/* Buffers of one resize: taps of both axes, one row of horizontal sums, one row of sums of both. */
struct work {
  struct tap *columns, *rows;
  uint32_t *across;
  uint64_t *sums;
};

static void resize_crop(const struct image *image, const struct geometry *geometry, enum hwgq_channel_order order,
                        struct hwgq_shape shape, const struct work *work, uint8_t *pixels) {
  size_t samples = (size_t)shape.width * (size_t)image->channels, stride = (size_t)image->width * (size_t)image->channels;
  struct divider divider = divider_make(axis_weight((uint64_t)image->width, (uint64_t)geometry->width) *
                                        axis_weight((uint64_t)image->height, (uint64_t)geometry->height));
  uint32_t reduced = UINT32_MAX; /* the source row that work->across holds: neighbors in y share border rows */
  fill_taps(work->columns, image->width, geometry->width, geometry->left, shape.width);
  fill_taps(work->rows, image->height, geometry->height, geometry->top, shape.height);
  for (int y = 0; y < shape.height; y++) {
    const struct tap tap = work->rows[y];
    memset(work->sums, 0, samples * sizeof *work->sums);
    for (uint32_t k = 0; k < tap.count; k++) {
      uint64_t weight = k == 0 ? tap.first_weight : k + 1 == tap.count ? tap.last_weight : tap.middle_weight;
      if (reduced != tap.first + k) {
        reduced = tap.first + k;
        reduce_row(image->pixels + reduced * stride, image->channels, work->columns, shape.width, work->across);
      }
      for (size_t i = 0; i < samples; i++) work->sums[i] += weight * work->across[i];
    }
    const uint64_t *sums = work->sums;
    for (int x = 0; x < shape.width; x++, sums += image->channels, pixels += shape.channels) {
      uint8_t pixel[3];
      for (int c = 0; c < image->channels; c++) pixel[c] = divide(divider, sums[c]);
      put_pixel(pixel, image->channels, order, pixels);
    }
  }
}

int image_shorter_side(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape) {
  int side = shape.width > shape.height ? shape.width : shape.height;
  return preprocess->resize > side ? preprocess->resize : side;
}

enum hwgq_status image_preprocess(const struct image *image, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                                  uint8_t *pixels, struct hwgq_error *error) {
  struct geometry geometry = {0};
  if (shape.channels != (preprocess->order == HWGQ_GRAY ? 1 : 3)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "a network input of %d channels does not fit a channel order of %d",
                     shape.channels, preprocess->order == HWGQ_GRAY ? 1 : 3);
  }
  enum hwgq_status status = find_geometry(image, preprocess->resize, shape, &geometry, error);
  if (status) return status;
  if (geometry.width == image->width && geometry.height == image->height) {
    copy_crop(image, &geometry, preprocess->order, shape, pixels);
    return HWGQ_OK;
  }
  size_t samples = (size_t)shape.width * (size_t)image->channels;
  const struct work work = {
      .columns = calloc((size_t)shape.width, sizeof *work.columns),
      .rows = calloc((size_t)shape.height, sizeof *work.rows),
      .across = calloc(samples, sizeof *work.across),
      .sums = calloc(samples, sizeof *work.sums),
  };
  if (work.columns && work.rows && work.across && work.sums) {
    resize_crop(image, &geometry, preprocess->order, shape, &work, pixels);
  } else {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to resize an image of %dx%d", image->width, image->height);
  }
  free(work.columns);
  free(work.rows);
  free(work.across);
  free(work.sums);
  return status;
}
