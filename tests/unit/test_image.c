/* Decoding against libjpeg's own output and known pictures, resizing against a naive double-precision one. Fixtures:
 * tests/images, made by make.c there. */
#include "models/image/decode.h"
#include "models/image/image.h"
#include "tests/support/image_files.h"
#include "tests/support/support.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct hwgq_error error;
static const struct image_limits limits = IMAGE_LIMITS_DEFAULT;

static uint8_t *load(const char *name, size_t *length) {
  char path[256];
  snprintf(path, sizeof path, "%s.jpg", name);
  return image_file(path, length);
}

static enum hwgq_status decode_file(const char *name, struct image *image, struct image_info *info) {
  size_t length;
  uint8_t *bytes = load(name, &length);
  enum hwgq_status status = image_decode(bytes, length, &limits, image, info, &error);
  free(bytes);
  return status;
}

static struct image decoded(const char *name) {
  struct image image = {0};
  struct image_info info;
  enum hwgq_status status = decode_file(name, &image, &info);
  ck_assert_msg(status == HWGQ_OK, "%s: %s", name, error.message);
  ck_assert_int_eq(info.format, IMAGE_JPEG);
  ck_assert_int_eq(info.width, image.width);
  ck_assert_int_eq(info.height, image.height);
  return image;
}

static double mean_difference(const struct image *a, const struct image *b) {
  size_t count = (size_t)a->width * (size_t)a->height * (size_t)a->channels;
  double sum = 0;
  ck_assert_int_eq(a->width, b->width);
  ck_assert_int_eq(a->height, b->height);
  ck_assert_int_eq(a->channels, b->channels);
  for (size_t i = 0; i < count; i++) sum += abs(a->pixels[i] - b->pixels[i]);
  return sum / (double)count;
}

static void expect_failure(const char *name, enum hwgq_status expected, const char *words) {
  struct image image = {0};
  struct image_info info;
  ck_assert_int_eq(decode_file(name, &image, &info), expected);
  ck_assert_ptr_null(image.pixels);
  ck_assert_msg(strstr(error.message, words) != NULL, "'%s' does not say '%s'", error.message, words);
}

/* ---- decoding ------------------------------------------------------------------------------------------------------------ */

START_TEST(formats_are_told_apart) {
  struct image image = {0};
  struct image_info info;
  ck_assert_int_eq(image_sniff((const uint8_t *)"\xff\xd8\xff\xe0", 4), IMAGE_JPEG);
  ck_assert_int_eq(image_sniff((const uint8_t *)"\xff\xd8", 2), IMAGE_UNKNOWN);
  ck_assert_str_eq(image_format_name(IMAGE_JPEG), "jpeg");
  ck_assert_str_eq(image_format_name(IMAGE_UNKNOWN), "unknown");
  ck_assert_int_eq(image_decode((const uint8_t *)"", 0, &limits, &image, &info, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_int_eq(image_decode((const uint8_t *)"hello, world", 12, &limits, &image, &info, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_int_eq(image_decode((const uint8_t *)"GIF89a......", 12, &limits, &image, &info, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(error.message, "GIF"));
  ck_assert_int_eq(image_sniff((const uint8_t *)"\x89PNG\r\n\x1a\n", 8), IMAGE_PNG);
  ck_assert_int_eq(image_sniff((const uint8_t *)"\x89PNG\n\x1a\n\n", 8), IMAGE_UNKNOWN);
  ck_assert_int_eq(image_sniff((const uint8_t *)"RIFF\0\0\0\0WEBP", 12), IMAGE_WEBP);
  ck_assert_int_eq(image_sniff((const uint8_t *)"RIFF\0\0\0\0WAVE", 12), IMAGE_UNKNOWN);
  ck_assert_str_eq(image_format_name(IMAGE_PNG), "png");
  ck_assert_str_eq(image_format_name(IMAGE_WEBP), "webp");
  ck_assert_int_eq(info.format, IMAGE_UNKNOWN);
}
END_TEST

/* Both have the same coefficients, so the pixels must be the same bits. */
START_TEST(progressive_equals_baseline) {
  struct image baseline = decoded("baseline"), progressive = decoded("progressive"), no_end = decoded("no-end");
  ck_assert(mean_difference(&baseline, &progressive) == 0);
  ck_assert(mean_difference(&baseline, &no_end) == 0);
  ck_assert_int_eq(baseline.channels, 3);
  image_release(&baseline);
  image_release(&progressive);
  image_release(&no_end);
}
END_TEST

START_TEST(gray_stays_gray) {
  struct image gray = decoded("gray"), color = decoded("orientation-1");
  double sum = 0;
  ck_assert_int_eq(gray.channels, 1);
  ck_assert_int_eq(gray.width, color.width);
  for (int i = 0; i < gray.width * gray.height; i++) {
    const uint8_t *rgb = color.pixels + 3 * i;
    sum += fabs(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] - gray.pixels[i]);
  }
  ck_assert_double_lt(sum / (gray.width * gray.height), 1.5);
  image_release(&gray);
  image_release(&color);
}
END_TEST

START_TEST(four_inks_give_the_same_picture) {
  static const char *const names[] = {"cmyk", "ycck", "cmyk-plain"};
  struct image ink = decoded(names[_i]), color = decoded("orientation-1");
  ck_assert_int_eq(ink.channels, 3);
  ck_assert_double_lt(mean_difference(&ink, &color), _i == 1 ? 4 : 3); /* ycck: chroma at half size */
  image_release(&ink);
  image_release(&color);
}
END_TEST

/* The files were stored turned (checked against jpegtran when they were made); upright they all show one picture. */
START_TEST(orientation_is_obeyed) {
  char name[32];
  struct image first = decoded("orientation-1");
  snprintf(name, sizeof name, "orientation-%d", _i);
  struct image turned = decoded(name);
  ck_assert_int_eq(turned.width, 96);
  ck_assert_int_eq(turned.height, 64);
  ck_assert_double_lt(mean_difference(&first, &turned), 1);
  image_release(&first);
  image_release(&turned);
}
END_TEST

/* The size is told before later scans of a progressive file are read: an orientation among those turns nothing. */
START_TEST(orientation_behind_the_first_scan_is_ignored) {
  size_t length, turned_length;
  struct image image = {0}, plain = decoded("progressive");
  struct image_info info;
  struct fuzz_buffer file = {0};
  uint8_t *bytes = load("progressive", &length), *turned = load("orientation-6", &turned_length);
  size_t last = length - 2, exif = 2;
  while (memcmp(bytes + last, "\xff\xda", 2) != 0) last--;
  while (turned[exif + 1] != 0xe1) exif += 2 + (size_t)(turned[exif + 2] << 8 | turned[exif + 3]);
  fuzz_set(&file, bytes, length);
  fuzz_splice(&file, last, 0, turned + exif, 2 + (size_t)(turned[exif + 2] << 8 | turned[exif + 3]));
  ck_assert_int_eq(image_decode(file.bytes, file.length, &limits, &image, &info, &error), HWGQ_OK);
  ck_assert_int_eq(info.width, plain.width);
  ck_assert(mean_difference(&image, &plain) == 0);
  image_release(&image);
  image_release(&plain);
  free(file.bytes);
  free(turned);
  free(bytes);
}
END_TEST

/* A 2x3 image of numbered pixels, and what EXIF says each orientation shows. */
START_TEST(orientation_moves_single_pixels) {
  static const char *const expected[] = {"abcdef", "badcfe", "fedcba", "efcdab", "acebdf", "ecafdb", "fdbeca", "bdface"};
  struct image image = {2, 3, 1, malloc(6)};
  memcpy(image.pixels, "abcdef", 6);
  ck_assert_int_eq(exif_orient(&image, _i, &error), HWGQ_OK);
  ck_assert_int_eq(image.width, _i >= 5 ? 3 : 2);
  ck_assert_int_eq(image.height, _i >= 5 ? 2 : 3);
  ck_assert_mem_eq(image.pixels, expected[_i - 1], 6);
  image_release(&image);
}
END_TEST

START_TEST(exif_is_read_within_bounds) {
  static const uint8_t little[] = {'E', 'x', 'i', 'f', 0, 0, 'I',  'I', 42, 0, 8, 0, 0, 0, 2, 0, 0x0f, 1, 2, 0, 1, 0,
                                   0,   0,   0,   0,   0, 0, 0x12, 1,   3,  0, 1, 0, 0, 0, 6, 0, 0,    0, 0, 0, 0, 0};
  ck_assert_int_eq(exif_orientation(little, sizeof little), 6);
  /* every shorter segment, in an allocation of its own so that a sanitizer sees reads beyond it */
  for (size_t length = 0; length < sizeof little; length++) {
    uint8_t *part = malloc(length ? length : 1);
    memcpy(part, little, length);
    int orientation = exif_orientation(part, length);
    ck_assert(orientation == 0 || (orientation == 6 && length >= 40));
    free(part);
  }
  uint8_t bad[sizeof little];
  memcpy(bad, little, sizeof bad);
  memset(bad + 10, 0xff, 4); /* directory far outside */
  ck_assert_int_eq(exif_orientation(bad, sizeof bad), 0);
  memcpy(bad, little, sizeof bad);
  bad[36] = 9; /* no such orientation */
  ck_assert_int_eq(exif_orientation(bad, sizeof bad), 0);
}
END_TEST

START_TEST(odd_sizes_decode) {
  struct image odd = decoded("odd"), one = decoded("one");
  ck_assert_int_eq(odd.width, 17);
  ck_assert_int_eq(odd.height, 13);
  ck_assert_int_eq(one.width * one.height, 1);
  image_release(&odd);
  image_release(&one);
}
END_TEST

START_TEST(damage_is_refused) {
  size_t length;
  struct image image = {0};
  struct image_info info;
  expect_failure("truncated", HWGQ_ERROR_FORMAT, "truncated");
  expect_failure("truncated-progressive", HWGQ_ERROR_FORMAT, "truncated");
  uint8_t *bytes = load("baseline", &length);
  /* no prefix decodes but those that lack only (part of) the end marker, and none leaks or reads beyond its end */
  for (size_t part = 0; part + 2 < length; part += part < 700 ? 1 : 7) {
    uint8_t *prefix = malloc(part + 1);
    memcpy(prefix, bytes, part);
    enum hwgq_status status = image_decode(prefix, part, &limits, &image, &info, &error);
    ck_assert_msg(status == HWGQ_ERROR_FORMAT || (status == HWGQ_ERROR_UNSUPPORTED && part < 3), "%zu bytes: %d", part, status);
    free(prefix);
  }
  free(bytes);
}
END_TEST

/* Bytes between segments are odd but harm nothing. */
START_TEST(harmless_warnings_are_tolerated) {
  size_t length;
  struct image image = {0}, clean = decoded("baseline");
  struct image_info info;
  uint8_t *bytes = load("baseline", &length), *padded = malloc(length + 3);
  size_t at = 4 + (size_t)(bytes[4] << 8 | bytes[5]); /* behind the first segment */
  memcpy(padded, bytes, at);
  memcpy(padded + at, "\1\2\3", 3);
  memcpy(padded + at + 3, bytes + at, length - at);
  ck_assert_int_eq(image_decode(padded, length + 3, &limits, &image, &info, &error), HWGQ_OK);
  ck_assert(mean_difference(&image, &clean) == 0);
  image_release(&image);
  image_release(&clean);
  free(bytes);
  free(padded);
}
END_TEST

START_TEST(too_many_scans_are_refused) {
  struct image image = {0};
  struct image_info info;
  size_t length;
  expect_failure("scans", HWGQ_ERROR_LIMIT, "64 scans");
  uint8_t *bytes = load("scans", &length);
  const struct image_limits generous = {.max_pixels = 1000, .max_scans = 127};
  ck_assert_int_eq(image_decode(bytes, length, &generous, &image, &info, &error), HWGQ_OK);
  image_release(&image);
  free(bytes);
}
END_TEST

/* A megabyte of empty segments costs no more than reading it, and the orientation is still found behind them. */
START_TEST(empty_segments_cost_nothing) {
  enum { SEGMENTS = 250000 };
  size_t length, padded = 0;
  uint8_t *bytes = load("orientation-6", &length), *file = malloc(length + 4 * SEGMENTS);
  struct image image = {0}, plain = decoded("orientation-6");
  struct image_info info;
  memcpy(file, bytes, 2);
  for (padded = 2; padded < 2 + 4 * SEGMENTS; padded += 4) memcpy(file + padded, "\xff\xe1\x00\x02", 4);
  memcpy(file + padded, bytes + 2, length - 2);
  const long before = support_peak_kib();
  enum hwgq_status status = image_decode(file, length + 4 * SEGMENTS, &limits, &image, &info, &error);
  const long more = support_peak_kib() - before;
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
  ck_assert(mean_difference(&image, &plain) == 0);
  ck_assert_int_lt(more, 4096); /* as a list that libjpeg saves they took 32 bytes each, and most of a minute */
  image_release(&image);
  image_release(&plain);
  /* cut in a segment's length, in its data, and a length that is less than its own two bytes */
  ck_assert_int_eq(image_decode(file, 5, &limits, &image, &info, &error), HWGQ_ERROR_FORMAT);
  memcpy(file + 2, "\xff\xe1\xff\xff", 4);
  ck_assert_int_eq(image_decode(file, 40000, &limits, &image, &info, &error), HWGQ_ERROR_FORMAT);
  memcpy(file + 2, "\xff\xe1\x00\x01", 4);
  ck_assert_int_eq(image_decode(file, 40000, &limits, &image, &info, &error), HWGQ_ERROR_FORMAT);
  free(file);
  free(bytes);
}
END_TEST

/* A header that states 65500 x 65500 pixels costs nothing, and the information is filled all the same. */
START_TEST(too_many_pixels_are_refused) {
  size_t length, at = 2;
  struct image image = {0};
  struct image_info info;
  uint8_t *bytes = load("baseline", &length);
  while (bytes[at + 1] != 0xc0) at += 2 + (size_t)(bytes[at + 2] << 8 | bytes[at + 3]);
  memcpy(bytes + at + 5, "\xff\xdc\xff\xdc", 4);
  ck_assert_int_eq(image_decode(bytes, length, &limits, &image, &info, &error), HWGQ_ERROR_LIMIT);
  ck_assert_int_eq(info.width, 65500);
  ck_assert_int_eq(info.format, IMAGE_JPEG);
  ck_assert_ptr_nonnull(strstr(error.message, "65500x65500"));
  free(bytes);
}
END_TEST

/* ---- preprocessing ------------------------------------------------------------------------------------------------------- */

static struct image random_image(struct support_random *random, int width, int height, int channels) {
  struct image image = {width, height, channels, malloc((size_t)width * (size_t)height * (size_t)channels)};
  ck_assert_ptr_nonnull(image.pixels);
  for (int i = 0; i < width * height * channels; i++) image.pixels[i] = (uint8_t)support_random_int(random, 0, 255);
  return image;
}

/* Weight of source sample i in output sample x, as documented, in floating point. */
static double naive_weight(int in, int out, int x, int i) {
  if (out <= in) {
    double ratio = (double)in / out, low = fmax(x * ratio, i), high = fmin((x + 1) * ratio, i + 1);
    return high > low ? (high - low) / ratio : 0;
  }
  double at = fmin(fmax((x + 0.5) * in / out - 0.5, 0), in - 1);
  return fmax(0, 1 - fabs(at - i));
}

static double naive_sample(const struct image *image, int width, int height, int x, int y, int c) {
  double sum = 0;
  for (int j = 0; j < image->height; j++) {
    double row = 0, weight = naive_weight(image->height, height, y, j);
    if (weight == 0) continue;
    for (int i = 0; i < image->width; i++)
      row += naive_weight(image->width, width, x, i) * image->pixels[(j * image->width + i) * image->channels + c];
    sum += weight * row;
  }
  return sum;
}

/* Size of the resized image: shorter side `resize`, the other one in proportion, rounded half up. */
static void naive_size(const struct image *image, int resize, int side, int *width, int *height) {
  int shorter = image->width < image->height ? image->width : image->height;
  double scale = (double)(resize ? resize : side) / shorter;
  *width = (int)floor(image->width * scale + 0.5 + 1e-9);
  *height = (int)floor(image->height * scale + 0.5 + 1e-9);
}

START_TEST(resizing_equals_the_naive_one) {
  struct support_random random = {(uint64_t)_i + 1};
  int side = support_random_int(&random, 1, 24), channels = support_random_chance(&random, 0.5) ? 3 : 1, width, height;
  struct image image = random_image(&random, support_random_int(&random, 1, 90), support_random_int(&random, 1, 90), channels);
  struct hwgq_preprocess preprocess = {.order = channels == 3 ? HWGQ_RGB : HWGQ_GRAY};
  const struct hwgq_shape shape = {channels, side, side};
  uint8_t pixels[24 * 24 * 3];
  if (_i % 3 == 0) preprocess.resize = side + support_random_int(&random, 0, 20);
  naive_size(&image, preprocess.resize, side, &width, &height);
  ck_assert_int_eq(image_shorter_side(&preprocess, shape), preprocess.resize ? preprocess.resize : side);
  ck_assert_int_eq(image_preprocess(&image, &preprocess, shape, pixels, &error), HWGQ_OK);
  for (int y = 0, k = 0; y < side; y++) {
    for (int x = 0; x < side; x++) {
      for (int c = 0; c < channels; c++, k++) {
        double expected = naive_sample(&image, width, height, x + (width - side) / 2, y + (height - side) / 2, c);
        /* rounded once: never further than half a level from the exact value */
        ck_assert_msg(fabs(pixels[k] - expected) <= 0.5 + 1e-6, "%dx%d to %dx%d at %d,%d: %d, not %f", image.width,
                      image.height, width, height, x, y, pixels[k], expected);
      }
    }
  }
  image_release(&image);
}
END_TEST

START_TEST(exact_size_passes_unchanged) {
  struct support_random random = {7};
  struct image image = random_image(&random, 40, 32, 3);
  uint8_t pixels[40 * 32 * 3];
  const struct hwgq_preprocess preprocess = {.order = HWGQ_RGB, .resize = 32};
  ck_assert_int_eq(image_preprocess(&image, &preprocess, (struct hwgq_shape){3, 32, 40}, pixels, &error), HWGQ_OK);
  ck_assert_mem_eq(pixels, image.pixels, sizeof pixels);
  /* and the crop is the center */
  ck_assert_int_eq(image_preprocess(&image, &preprocess, (struct hwgq_shape){3, 32, 32}, pixels, &error), HWGQ_OK);
  for (int y = 0; y < 32; y++) ck_assert_mem_eq(pixels + y * 96, image.pixels + (y * 40 + 4) * 3, 96);
  image_release(&image);
}
END_TEST

START_TEST(channels_are_put_in_order) {
  uint8_t rgb[] = {200, 100, 50}, gray[] = {77}, out[3];
  const struct image color = {1, 1, 3, rgb}, single = {1, 1, 1, gray};
  struct hwgq_preprocess preprocess = {.order = HWGQ_BGR, .invert = true}; /* invert belongs to the engine */
  const struct hwgq_shape three = {3, 1, 1}, one = {1, 1, 1};
  ck_assert_int_eq(image_preprocess(&color, &preprocess, three, out, &error), HWGQ_OK);
  ck_assert_mem_eq(out, ((uint8_t[]){50, 100, 200}), 3);
  ck_assert_int_eq(image_preprocess(&single, &preprocess, three, out, &error), HWGQ_OK);
  ck_assert_mem_eq(out, ((uint8_t[]){77, 77, 77}), 3);
  ck_assert_int_eq(image_preprocess(&color, &preprocess, one, out, &error), HWGQ_ERROR_INVALID);
  preprocess.order = HWGQ_GRAY;
  ck_assert_int_eq(image_preprocess(&color, &preprocess, one, out, &error), HWGQ_OK);
  ck_assert_int_eq(out[0], (77 * 200 + 150 * 100 + 29 * 50 + 128) >> 8);
  ck_assert_int_eq(image_preprocess(&single, &preprocess, one, out, &error), HWGQ_OK);
  ck_assert_int_eq(out[0], 77);
}
END_TEST

START_TEST(white_stays_white) {
  uint8_t pixels[24 * 24];
  struct support_random random = {(uint64_t)_i + 50};
  struct image image = random_image(&random, support_random_int(&random, 1, 3000), support_random_int(&random, 1, 200), 1);
  memset(image.pixels, 255, (size_t)image.width * (size_t)image.height);
  const struct hwgq_preprocess preprocess = {.order = HWGQ_GRAY};
  ck_assert_int_eq(image_preprocess(&image, &preprocess, (struct hwgq_shape){1, 24, 24}, pixels, &error), HWGQ_OK);
  for (size_t i = 0; i < sizeof pixels; i++) ck_assert_int_eq(pixels[i], 255);
  image_release(&image);
}
END_TEST

/* The widest file that JPEG allows, one pixel high, resized to more than can be computed in 32 bits, is refused. */
START_TEST(extreme_shapes_are_handled) {
  uint8_t *row = calloc(65535, 1), *pixels = malloc(256 * 256);
  const struct image image = {65535, 1, 1, row};
  const struct hwgq_preprocess preprocess = {.order = HWGQ_GRAY};
  ck_assert_int_eq(image_preprocess(&image, &preprocess, (struct hwgq_shape){1, 32, 32}, pixels, &error), HWGQ_OK);
  ck_assert_int_eq(image_preprocess(&image, &preprocess, (struct hwgq_shape){1, 256, 256}, pixels, &error), HWGQ_ERROR_LIMIT);
  /* resize is too small for the wide side of this input: the smallest size that covers it is taken */
  const struct hwgq_preprocess small = {.order = HWGQ_GRAY, .resize = 8};
  const struct image upright = {10, 20, 1, row};
  ck_assert_int_eq(image_preprocess(&upright, &small, (struct hwgq_shape){1, 8, 16}, pixels, &error), HWGQ_OK);
  free(row);
  free(pixels);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("image");
  TCase *decoding = tcase_create("decoding"), *resizing = tcase_create("preprocessing");
  tcase_set_timeout(decoding, 60);
  tcase_set_timeout(resizing, 60);
  tcase_add_test(decoding, formats_are_told_apart);
  tcase_add_test(decoding, progressive_equals_baseline);
  tcase_add_test(decoding, gray_stays_gray);
  tcase_add_loop_test(decoding, four_inks_give_the_same_picture, 0, 3);
  tcase_add_loop_test(decoding, orientation_is_obeyed, 1, 9);
  tcase_add_test(decoding, orientation_behind_the_first_scan_is_ignored);
  tcase_add_loop_test(decoding, orientation_moves_single_pixels, 1, 9);
  tcase_add_test(decoding, exif_is_read_within_bounds);
  tcase_add_test(decoding, odd_sizes_decode);
  tcase_add_test(decoding, damage_is_refused);
  tcase_add_test(decoding, harmless_warnings_are_tolerated);
  tcase_add_test(decoding, too_many_scans_are_refused);
  tcase_add_test(decoding, empty_segments_cost_nothing);
  tcase_add_test(decoding, too_many_pixels_are_refused);
  tcase_add_loop_test(resizing, resizing_equals_the_naive_one, 0, 120);
  tcase_add_test(resizing, exact_size_passes_unchanged);
  tcase_add_test(resizing, channels_are_put_in_order);
  tcase_add_loop_test(resizing, white_stays_white, 0, 20);
  tcase_add_test(resizing, extreme_shapes_are_handled);
  suite_add_tcase(suite, decoding);
  suite_add_tcase(suite, resizing);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed > 0;
}
