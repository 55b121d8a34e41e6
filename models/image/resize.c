/* Resizing in integers, without rounding before the end, while rows arrive. Along each axis an output sample is a weighted sum
 * of neighboring source samples with integer weights whose sum is the same for every output sample: shrinking (area average):
 * source sample i covers [i out, (i + 1) out), output sample x covers [x in, (x + 1) in); the weight is the length of the
 * overlap, the sum of weights `in`; growing (bilinear, half-pixel centers): output sample x lies at ((2 x + 1) in - out) / (2
 * out) between source samples, clamped to the border; the sum of weights is 2 out. Both axes are summed exactly and divided
 * once, rounding half up. An axis that keeps its length passes unchanged.
 *
 * Rows come as stored; EXIF orientation is applied to the small result: weights are the same from either end of an axis, so
 * that turning before or after resizing gives the same bits. Rows are summed first (whole rows, which compilers vectorize),
 * then columns, once for each row of the result. */
#include <stdlib.h>
#include <string.h>

#include "models/image/decode.h"

/* Of one output sample: source samples first .. first + count - 1. Those between the first and the last share one weight. */
struct tap {
  uint32_t first, count;
  uint32_t first_weight, middle_weight, last_weight;
};

enum { MAX_RESIZED = 1 << 23 }; /* pixels along a side; 2 * 255 * MAX_RESIZED fits 32 bits, as does 255 * IMAGE_MAX_SIDE */

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

/* One axis of a frame: `in` samples become `out`. Of a frame that the decoder reduced, a sample covers 8 out instead of out,
 * the whole axis full * eighths instead of in: so the crop lies exactly where it lies in the full picture, although the reduced
 * length was rounded up. Reduced frames only shrink. */
struct axis {
  uint64_t in, out, scale;
};

static struct axis axis_make(int full, int eighths, int out) {
  if (eighths == IMAGE_EIGHTHS) return (struct axis){(uint64_t)full, (uint64_t)out, 1};
  return (struct axis){(uint64_t)full * (uint64_t)eighths, (uint64_t)out, IMAGE_EIGHTHS};
}

static bool axis_grows(struct axis axis) {
  return axis.scale == 1 && axis.out > axis.in;
}

static uint64_t axis_weight(struct axis axis) {
  return axis_grows(axis) ? 2 * axis.out : axis.in;
}

/* Taps of output samples offset .. offset + count - 1. */
static void fill_taps(struct tap *taps, struct axis axis, int offset, int count) {
  for (int i = 0; i < count; i++) {
    uint64_t x = (uint64_t)(offset + i);
    taps[i] = axis_grows(axis) ? linear_tap(axis.in, axis.out, x) : area_tap(axis.in, axis.out * axis.scale, x);
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

/* For an upright image. */
static enum hwgq_status find_geometry(int image_width, int image_height, int resize, struct hwgq_shape shape,
                                      struct geometry *geometry, struct hwgq_error *error) {
  uint64_t w = (uint64_t)image_width, h = (uint64_t)image_height, width, height;
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
                     image_width, image_height, shape.width, shape.height);
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

struct image_resizer {
  struct image_sink sink; /* first */
  const struct hwgq_preprocess *preprocess;
  struct hwgq_shape shape;
  uint8_t *pixels; /* the result, upright */
  struct image_frame frame;
  struct geometry geometry;     /* as stored, like everything below */
  int crop_width, crop_height;  /* of the result */
  ptrdiff_t start, right, down; /* where the crop's first pixel lies in `pixels`, and the steps from there */
  struct tap *columns, *rows;   /* of the crop */
  struct divider divider;
  uint32_t *sums, *middle; /* of one row of the result, for every column: weighted rows; rows whose weight is middle_weight */
  uint8_t *before;         /* the last source row, for growing: there, rows of the result share source rows */
  uint32_t source;         /* the next source row */
  int row;                 /* of the result: the one that is being summed */
  bool started;            /* it has its first source row */
};

static void put_row(struct image_resizer *resizer) {
  const struct tap *tap = resizer->columns;
  const int channels = resizer->frame.channels;
  const uint32_t *sums = resizer->sums;
  uint8_t *to = resizer->pixels + resizer->start + resizer->row * resizer->down;
  for (int x = 0; x < resizer->crop_width; x++, tap++, to += resizer->right) {
    uint8_t pixel[3];
    for (int c = 0; c < channels; c++) {
      const uint32_t *from = sums + (size_t)tap->first * (size_t)channels + c;
      uint64_t sum = (uint64_t)tap->first_weight * *from, middle = 0;
      if (tap->count > 1) {
        from += channels;
        for (uint32_t k = 2; k < tap->count; k++, from += channels) middle += *from;
        sum += tap->middle_weight * middle + (uint64_t)tap->last_weight * *from;
      }
      pixel[c] = divide(resizer->divider, sum);
    }
    put_pixel(pixel, channels, resizer->preprocess->order, to);
  }
}

/* The source columns that the crop needs, in samples. */
static void needed_samples(const struct image_resizer *resizer, size_t *from, size_t *to) {
  const struct tap *last = &resizer->columns[resizer->crop_width - 1];
  *from = (size_t)resizer->columns[0].first * (size_t)resizer->frame.channels;
  *to = ((size_t)last->first + last->count) * (size_t)resizer->frame.channels;
}

static void add_weighted(const struct image_resizer *resizer, const uint8_t *restrict row, uint32_t weight) {
  uint32_t *restrict sums = resizer->sums;
  size_t from, to;
  needed_samples(resizer, &from, &to);
  for (size_t i = from; i < to; i++) sums[i] += weight * row[i];
}

static void add_plain(const struct image_resizer *resizer, const uint8_t *restrict row) {
  uint32_t *restrict middle = resizer->middle;
  size_t from, to;
  needed_samples(resizer, &from, &to);
  for (size_t i = from; i < to; i++) middle[i] += row[i];
}

static void start_row(struct image_resizer *resizer, const struct tap *tap) {
  size_t samples = (size_t)resizer->frame.width * (size_t)resizer->frame.channels;
  memset(resizer->sums, 0, samples * sizeof *resizer->sums);
  if (tap->count > 2) memset(resizer->middle, 0, samples * sizeof *resizer->middle);
  if (tap->first < resizer->source) add_weighted(resizer, resizer->before, tap->first_weight);
  resizer->started = true;
}

static void finish_row(struct image_resizer *resizer, const struct tap *tap) {
  if (tap->count > 2) {
    size_t from, to;
    needed_samples(resizer, &from, &to);
    for (size_t i = from; i < to; i++) resizer->sums[i] += tap->middle_weight * resizer->middle[i];
  }
  put_row(resizer);
  resizer->row++;
  resizer->started = false;
}

/* A source row belongs to several rows of the result when growing, and to two when it lies on their border. */
static void take_row(struct image_resizer *resizer, const uint8_t *row) {
  uint32_t source = resizer->source;
  for (; resizer->row < resizer->crop_height;) {
    const struct tap *tap = &resizer->rows[resizer->row];
    if (source < tap->first) break;
    if (!resizer->started) start_row(resizer, tap);
    uint32_t k = source - tap->first;
    if (k > 0 && k + 1 < tap->count) {
      add_plain(resizer, row);
    } else {
      add_weighted(resizer, row, k == 0 ? tap->first_weight : tap->last_weight);
    }
    if (k + 1 < tap->count) break;
    finish_row(resizer, tap);
  }
  if (resizer->before) memcpy(resizer->before, row, (size_t)resizer->frame.width * (size_t)resizer->frame.channels);
  resizer->source++;
}

/* A picture that has the right size already. */
static void copy_row(struct image_resizer *resizer, const uint8_t *row) {
  int y = (int)resizer->source++ - resizer->geometry.top;
  if (y < 0 || y >= resizer->crop_height) return;
  const uint8_t *from = row + (size_t)resizer->geometry.left * (size_t)resizer->frame.channels;
  uint8_t *to = resizer->pixels + resizer->start + y * resizer->down;
  for (int x = 0; x < resizer->crop_width; x++, from += resizer->frame.channels, to += resizer->right)
    put_pixel(from, resizer->frame.channels, resizer->preprocess->order, to);
}

static void take_rows(struct image_sink *sink, const uint8_t *rows, int count) {
  struct image_resizer *resizer = (struct image_resizer *)sink;
  for (int i = 0; i < count; i++, rows += (size_t)resizer->frame.width * (size_t)resizer->frame.channels) {
    if (resizer->sums) {
      take_row(resizer, rows);
    } else {
      copy_row(resizer, rows);
    }
  }
}

/* From the geometry of the upright picture to that of the stored one. */
static void turn_geometry(struct image_resizer *resizer, struct geometry upright) {
  struct exif_turn turn = exif_turn_of(resizer->frame.orientation);
  struct geometry stored = upright;
  ptrdiff_t pixel = resizer->shape.channels, row = pixel * resizer->shape.width;
  int width = resizer->shape.width, height = resizer->shape.height;
  if (turn.swap) {
    stored = (struct geometry){upright.height, upright.width, upright.top, upright.left};
    width = resizer->shape.height;
    height = resizer->shape.width;
  }
  resizer->right = turn.swap ? row : pixel;
  resizer->down = turn.swap ? pixel : row;
  resizer->start = 0;
  if (turn.flip_x) {
    stored.left = stored.width - width - stored.left;
    resizer->start += (width - 1) * resizer->right;
    resizer->right = -resizer->right;
  }
  if (turn.flip_y) {
    stored.top = stored.height - height - stored.top;
    resizer->start += (height - 1) * resizer->down;
    resizer->down = -resizer->down;
  }
  resizer->geometry = stored;
  resizer->crop_width = width;
  resizer->crop_height = height;
}

static enum hwgq_status begin_rows(struct image_sink *sink, const struct image_frame *frame, struct hwgq_error *error) {
  struct image_resizer *resizer = (struct image_resizer *)sink;
  struct geometry geometry = {0};
  bool swap = exif_turn_of(frame->orientation).swap;
  int width = swap ? frame->full_height : frame->full_width, height = swap ? frame->full_width : frame->full_height;
  enum hwgq_status status = find_geometry(width, height, resizer->preprocess->resize, resizer->shape, &geometry, error);
  if (status) return status;
  resizer->frame = *frame;
  turn_geometry(resizer, geometry);
  const struct geometry *stored = &resizer->geometry;
  if (frame->eighths == IMAGE_EIGHTHS && stored->width == frame->width && stored->height == frame->height) return HWGQ_OK;
  size_t samples = (size_t)frame->width * (size_t)frame->channels;
  const struct axis across = axis_make(frame->full_width, frame->eighths, stored->width);
  const struct axis down = axis_make(frame->full_height, frame->eighths, stored->height);
  bool grows = axis_grows(down);
  resizer->columns = calloc((size_t)resizer->crop_width, sizeof *resizer->columns);
  resizer->rows = calloc((size_t)resizer->crop_height, sizeof *resizer->rows);
  resizer->sums = malloc(samples * sizeof *resizer->sums);
  resizer->middle = malloc(samples * sizeof *resizer->middle);
  resizer->before = grows ? malloc(samples) : NULL;
  if (!resizer->columns || !resizer->rows || !resizer->sums || !resizer->middle || (grows && !resizer->before))
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to resize an image of %dx%d", width, height);
  resizer->divider = divider_make(axis_weight(across) * axis_weight(down));
  fill_taps(resizer->columns, across, stored->left, resizer->crop_width);
  fill_taps(resizer->rows, down, stored->top, resizer->crop_height);
  return HWGQ_OK;
}

enum hwgq_status image_resizer_create(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, uint8_t *pixels,
                                      struct image_resizer **resizer, struct hwgq_error *error) {
  if (shape.channels != (preprocess->order == HWGQ_GRAY ? 1 : 3)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "a network input of %d channels does not fit a channel order of %d",
                     shape.channels, preprocess->order == HWGQ_GRAY ? 1 : 3);
  }
  struct image_resizer *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to resize an image");
  *made = (struct image_resizer){
      .sink = {.begin = begin_rows, .rows = take_rows}, .preprocess = preprocess, .shape = shape, .pixels = pixels};
  *resizer = made;
  return HWGQ_OK;
}

struct image_sink *image_resizer_sink(struct image_resizer *resizer) {
  return &resizer->sink;
}

void image_resizer_destroy(struct image_resizer *resizer) {
  if (!resizer) return;
  free(resizer->columns);
  free(resizer->rows);
  free(resizer->sums);
  free(resizer->middle);
  free(resizer->before);
  free(resizer);
}

int image_shorter_side(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape) {
  int side = shape.width > shape.height ? shape.width : shape.height;
  return preprocess->resize > side ? preprocess->resize : side;
}

enum hwgq_status image_preprocess(const struct image *image, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                                  uint8_t *pixels, struct hwgq_error *error) {
  const struct image_frame frame = {image->width, image->height, image->channels, 1,
                                    image->width, image->height, IMAGE_EIGHTHS};
  struct image_resizer *resizer = NULL;
  if (image->width > IMAGE_MAX_SIDE || image->height > IMAGE_MAX_SIDE)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "an image with a side longer than %d pixels", IMAGE_MAX_SIDE);
  enum hwgq_status status = image_resizer_create(preprocess, shape, pixels, &resizer, error);
  if (!status) status = begin_rows(&resizer->sink, &frame, error);
  if (!status) take_rows(&resizer->sink, image->pixels, image->height);
  image_resizer_destroy(resizer);
  return status;
}
