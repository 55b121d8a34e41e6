/* PNG and WebP against the formula of the picture that tests/images/make.py stores in every kind of both. */
#include "models/image/image.h"
#include "tests/support/image_files.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 96, HEIGHT = 64 };

static struct hwgq_error error;
static const struct image_limits limits = IMAGE_LIMITS_DEFAULT;

static void picture(int x, int y, uint8_t rgb[3]) {
  double u = (x + 0.5) / WIDTH, v = (y + 0.5) / HEIGHT;
  rgb[0] = (uint8_t)(40 + 160 * u);
  rgb[1] = (uint8_t)(60 + 120 * v);
  rgb[2] = (uint8_t)(200 - 120 * u * v);
  if (hypot((u - 0.25) * WIDTH / HEIGHT, v - 0.3) < 0.2) memcpy(rgb, (uint8_t[]){220, 40, 30}, 3);
  if (u > 0.2 && u < 0.9 && v > 0.65 && v < 0.8) memcpy(rgb, (uint8_t[]){30, 30, 140}, 3);
}

static int gray_of(const uint8_t rgb[3]) {
  return (77 * rgb[0] + 150 * rgb[1] + 29 * rgb[2] + 128) >> 8;
}

static int over_white(int value, int alpha) {
  return (value * alpha + 255 * (255 - alpha) + 127) / 255;
}

/* What a file shows at a place. */
enum kind {
  RGB,
  GRAY,        /* 8 bits, or the high byte of 16 */
  GRAY_LEVELS, /* of `bits` bits */
  RED_CLEAR,   /* the disk's color is transparent */
  RED_CLEAR_GRAY,
  ALPHA, /* opaque only at the right */
  ALPHA_GRAY,
  COLUMN_ALPHA, /* the column's number, through a palette with that column's alpha */
  FRAME,        /* the picture at 8,4 to 72,52; white around */
  FRAME_ALPHA,
};

static bool in_frame(int x, int y) {
  return x >= 8 && x < 72 && y >= 4 && y < 52;
}

static void expected_pixel(enum kind kind, int bits, int x, int y, int rgb[3]) {
  uint8_t color[3];
  int alpha = x * 255 / (WIDTH - 1), top = (1 << bits) - 1;
  picture(x, y, color);
  int gray = gray_of(color), clear = gray_of((uint8_t[]){220, 40, 30});
  bool red = color[0] == 220 && color[1] == 40 && color[2] == 30;
  for (int c = 0; c < 3; c++) {
    switch (kind) {
    case RGB:
      rgb[c] = color[c];
      break;
    case GRAY:
      rgb[c] = gray;
      break;
    case GRAY_LEVELS:
      rgb[c] = (gray >> (8 - bits)) * 255 / top;
      break;
    case RED_CLEAR:
      rgb[c] = red ? 255 : color[c];
      break;
    case RED_CLEAR_GRAY:
      rgb[c] = gray == clear ? 255 : gray;
      break;
    case ALPHA:
      rgb[c] = over_white(color[c], alpha);
      break;
    case ALPHA_GRAY:
      rgb[c] = over_white(gray, alpha);
      break;
    case COLUMN_ALPHA:
      rgb[c] = over_white((3 * x + c) % 96, alpha);
      break;
    case FRAME:
      rgb[c] = in_frame(x, y) ? color[c] : 255;
      break;
    case FRAME_ALPHA:
      rgb[c] = in_frame(x, y) ? over_white(color[c], alpha) : 255;
      break;
    }
  }
}

struct file {
  const char *name;
  enum kind kind;
  int channels, bits;
  double tolerance; /* mean difference; 0: every pixel must be exact */
};

static const struct file files[] = {
    {"rgb.png", RGB, 3, 8, 0},
    {"rgb-interlaced.png", RGB, 3, 8, 0},
    {"rgb-16.png", RGB, 3, 8, 0},
    {"rgb-16-interlaced.png", RGB, 3, 8, 0},
    {"animated.png", RGB, 3, 8, 0},
    {"exif-6.png", RGB, 3, 8, 0},
    {"exif-6-late.png", RGB, 3, 8, 0},
    {"gray-1.png", GRAY_LEVELS, 1, 1, 0},
    {"gray-2.png", GRAY_LEVELS, 1, 2, 0},
    {"gray-4.png", GRAY_LEVELS, 1, 4, 0},
    {"gray-8.png", GRAY_LEVELS, 1, 8, 0},
    {"gray-1-interlaced.png", GRAY_LEVELS, 1, 1, 0},
    {"gray-2-interlaced.png", GRAY_LEVELS, 1, 2, 0},
    {"gray-4-interlaced.png", GRAY_LEVELS, 1, 4, 0},
    {"gray-8-interlaced.png", GRAY_LEVELS, 1, 8, 0},
    {"palette-1.png", GRAY_LEVELS, 3, 1, 0},
    {"palette-2.png", GRAY_LEVELS, 3, 2, 0},
    {"palette-4.png", GRAY_LEVELS, 3, 4, 0},
    {"palette-8.png", GRAY_LEVELS, 3, 8, 0},
    {"palette-1-interlaced.png", GRAY_LEVELS, 3, 1, 0},
    {"palette-2-interlaced.png", GRAY_LEVELS, 3, 2, 0},
    {"palette-4-interlaced.png", GRAY_LEVELS, 3, 4, 0},
    {"palette-8-interlaced.png", GRAY_LEVELS, 3, 8, 0},
    {"gray-16.png", GRAY, 1, 8, 0},
    {"rgb-trns.png", RED_CLEAR, 3, 8, 0},
    {"gray-trns.png", RED_CLEAR_GRAY, 1, 8, 0},
    {"palette-trns.png", COLUMN_ALPHA, 3, 8, 0},
    {"rgb-alpha.png", ALPHA, 3, 8, 0},
    {"rgb-alpha-interlaced.png", ALPHA, 3, 8, 0},
    {"rgb-alpha-16.png", ALPHA, 3, 8, 0},
    {"gray-alpha.png", ALPHA_GRAY, 1, 8, 0},
    {"gray-alpha-16.png", ALPHA_GRAY, 1, 8, 0},
    {"lossless.webp", RGB, 3, 8, 0},
    {"lossless-alpha.webp", ALPHA, 3, 8, 0},
    {"exif-6.webp", RGB, 3, 8, 0},
    {"frames.webp", FRAME, 3, 8, 0},
    {"lossy.webp", RGB, 3, 8, 4},
    {"lossy-alpha.webp", ALPHA, 3, 8, 4},
    {"frames-alpha.webp", FRAME_ALPHA, 3, 8, 4},
};
enum { FILES = sizeof files / sizeof *files };

static struct image decoded(const char *name, enum image_format format) {
  size_t length;
  struct image image = {0};
  struct image_info info;
  uint8_t *bytes = image_file(name, &length);
  enum hwgq_status status = image_decode(bytes, length, &limits, &image, &info, &error);
  ck_assert_msg(status == HWGQ_OK, "%s: %s", name, error.message);
  ck_assert_int_eq(info.format, format);
  ck_assert_int_eq(info.width, image.width);
  ck_assert_int_eq(info.height, image.height);
  free(bytes);
  return image;
}

static enum image_format format_of(const char *name) {
  return strstr(name, ".png") ? IMAGE_PNG : IMAGE_WEBP;
}

START_TEST(every_kind_shows_its_picture) {
  const struct file *file = &files[_i];
  struct image image = decoded(file->name, format_of(file->name));
  double sum = 0;
  ck_assert_int_eq(image.width, WIDTH);
  ck_assert_int_eq(image.height, HEIGHT);
  ck_assert_int_eq(image.channels, file->channels);
  for (int y = 0; y < HEIGHT; y++) {
    for (int x = 0; x < WIDTH; x++) {
      int rgb[3];
      expected_pixel(file->kind, file->bits, x, y, rgb);
      for (int c = 0; c < image.channels; c++) {
        int difference = abs(image.pixels[(y * WIDTH + x) * image.channels + c] - rgb[c]);
        if (file->tolerance == 0)
          ck_assert_msg(difference == 0, "%s at %d,%d channel %d: off by %d", file->name, x, y, c, difference);
        sum += difference;
      }
    }
  }
  ck_assert_double_le(sum / (WIDTH * HEIGHT * image.channels), file->tolerance);
  image_release(&image);
}
END_TEST

/* Rows that are resized as they come give the bits of the whole picture, turned or not, shrunk or grown. */
START_TEST(rows_and_whole_pictures_agree) {
  static const struct {
    int width, height, resize;
  } cases[] = {{32, 32, 0},   {32, 32, 40},  {96, 64, 0}, {64, 64, 0}, {31, 57, 0},
               {200, 150, 0}, {150, 200, 0}, {1, 1, 0},   {5, 5, 333}};
  static const char *const more[] = {"odd.png",           "one.png",           "one.webp",          "orientation-2.jpg",
                                     "orientation-3.jpg", "orientation-4.jpg", "orientation-5.jpg", "orientation-6.jpg",
                                     "orientation-7.jpg", "orientation-8.jpg", "cmyk.jpg"};
  size_t length;
  const char *name = _i < FILES ? files[_i].name : more[_i - FILES];
  uint8_t *bytes = image_file(name, &length), *rows = malloc(200 * 200 * 3), *whole = malloc(200 * 200 * 3);
  struct image image = {0};
  struct image_info info;
  ck_assert_int_eq(image_decode(bytes, length, &limits, &image, &info, &error), HWGQ_OK);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const struct hwgq_preprocess preprocess = {.order = i % 2 ? HWGQ_GRAY : HWGQ_BGR, .resize = cases[i].resize};
    const struct hwgq_shape shape = {i % 2 ? 1 : 3, cases[i].height, cases[i].width};
    int shorter = image.width < image.height ? image.width : image.height;
    if (strstr(name, ".jpg") && shorter >= 6 * image_shorter_side(&preprocess, shape)) continue; /* reduced: has a tolerance */
    enum hwgq_status status = image_preprocess(&image, &preprocess, shape, whole, &error);
    ck_assert_int_eq(image_prepare(bytes, length, &limits, &preprocess, shape, rows, &info, NULL, &error), status);
    if (status) continue;
    size_t size = (size_t)shape.width * (size_t)shape.height * (size_t)shape.channels;
    ck_assert_msg(!memcmp(rows, whole, size), "%s to %dx%d", name, shape.width, shape.height);
  }
  image_release(&image);
  free(bytes);
  free(rows);
  free(whole);
}
END_TEST

/* ---- damage -------------------------------------------------------------------------------------------------------------- */

/* What stands behind the picture may be missing: PNG's end chunk (12 bytes), and text and EXIF before it; the padding
 * and EXIF of a WebP. */
static size_t needed(const char *name, size_t length) {
  if (!strcmp(name, "exif-6-late.png")) return length - 12 - 38 - 22;
  if (!strcmp(name, "animated.png")) return length - 12 - 38 - 28;
  if (!strcmp(name, "exif-6.webp")) return length - 34;
  if (!strcmp(name, "frames.webp")) return 857; /* of the second frame nothing is needed */
  return format_of(name) == IMAGE_PNG ? length - 12 : length - 1;
}

START_TEST(every_prefix_is_refused) {
  size_t length, least;
  const char *name = files[_i].name;
  uint8_t *bytes = image_file(name, &length);
  least = needed(name, length);
  /* every one of a small file; of a larger one, every one of its ends, and of the middle every fifth */
  for (size_t part = 0; part<length; part += length> 2500 && part > 300 && part + 100 < length ? 5 : 1) {
    struct image image = {0};
    struct image_info info;
    uint8_t *prefix = malloc(part + 1);
    memcpy(prefix, bytes, part);
    error.message[0] = 0;
    enum hwgq_status status = image_decode(prefix, part, &limits, &image, &info, &error);
    if (part < least) {
      ck_assert_msg(status == HWGQ_ERROR_FORMAT || (status == HWGQ_ERROR_UNSUPPORTED && part < 12), "%s, %zu of %zu bytes: %d",
                    name, part, length, status);
    }
    if (status) ck_assert(error.message[0] && !image.pixels);
    image_release(&image);
    free(prefix);
  }
  free(bytes);
}
END_TEST

START_TEST(missing_png_ends_are_tolerated) {
  static const char *const names[] = {"rgb.png", "exif-6-late.png", "rgb-interlaced.png"};
  size_t length;
  for (size_t i = 0; i < 3; i++) {
    uint8_t *bytes = image_file(names[i], &length);
    for (size_t cut = 1; cut <= 12; cut++) {
      struct image image = {0};
      struct image_info info;
      ck_assert_msg(!image_decode(bytes, length - cut, &limits, &image, &info, &error), "%s: %s", names[i], error.message);
      image_release(&image);
    }
    free(bytes);
  }
}
END_TEST

/* Any changed byte of what counts is noticed: chunks have checksums. */
START_TEST(every_changed_byte_of_a_png_is_noticed) {
  size_t length, accepted = 0;
  uint8_t *bytes = image_file("gray-4.png", &length);
  for (size_t at = 8; at < length - 12; at++) {
    struct image image = {0};
    struct image_info info;
    bytes[at] ^= 0x10;
    accepted += !image_decode(bytes, length, &limits, &image, &info, &error);
    image_release(&image);
    bytes[at] ^= 0x10;
  }
  ck_assert_uint_eq(accepted, 0);
  free(bytes);
}
END_TEST

START_TEST(unknown_critical_chunks_are_refused) {
  struct fuzz_buffer file = {0};
  struct image image = {0};
  struct image_info info;
  image_png_header(&file, 1, 1, 8, 0, false);
  image_png_chunk(&file, "ABCD", "x", 1);
  ck_assert_int_eq(image_decode(file.bytes, file.length, &limits, &image, &info, &error), HWGQ_ERROR_UNSUPPORTED);
  free(file.bytes);
}
END_TEST

/* Chunks that say different things: canvas and picture, frame and canvas, no picture at all. */
START_TEST(contradictions_in_webp_are_refused) {
  static const struct {
    const char *file;
    size_t at;
    uint8_t value;
    enum hwgq_status status;
  } cases[] = {
      {"lossy-alpha.webp", 24, 94, HWGQ_ERROR_FORMAT}, /* canvas width - 1 */
      {"frames.webp", 24, 70, HWGQ_ERROR_FORMAT},      /* the frame does not lie on the canvas */
      {"frames.webp", 58, 60, HWGQ_ERROR_FORMAT},      /* the frame's own width */
      {"frames.webp", 26, 255, HWGQ_ERROR_LIMIT},      /* a canvas of 16711776 x 16646208 */
      {"lossless.webp", 12, 'X', HWGQ_ERROR_FORMAT},   /* the picture's chunk is of no known kind */
  };
  size_t length;
  struct image image = {0};
  struct image_info info;
  uint8_t *bytes = image_file(cases[_i].file, &length);
  if (_i == 3) bytes[29] = 254;
  bytes[cases[_i].at] = cases[_i].value;
  ck_assert_int_eq(image_decode(bytes, length, &limits, &image, &info, &error), cases[_i].status);
  ck_assert_int_eq(info.format, IMAGE_WEBP);
  free(bytes);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("image formats");
  TCase *pictures = tcase_create("pictures"), *damage = tcase_create("damage");
  tcase_set_timeout(damage, 120);
  tcase_add_loop_test(pictures, every_kind_shows_its_picture, 0, FILES);
  tcase_add_loop_test(pictures, rows_and_whole_pictures_agree, 0, FILES + 11);
  tcase_add_loop_test(damage, every_prefix_is_refused, 0, FILES);
  tcase_add_test(damage, missing_png_ends_are_tolerated);
  tcase_add_test(damage, every_changed_byte_of_a_png_is_noticed);
  tcase_add_test(damage, unknown_critical_chunks_are_refused);
  tcase_add_loop_test(damage, contradictions_in_webp_are_refused, 0, 5);
  suite_add_tcase(suite, pictures);
  suite_add_tcase(suite, damage);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed > 0;
}
