/* From the pixels of a data set to a training batch: each change of an image does what it says and nothing else. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/augment.h"

static struct hwgq_error error;

enum { SIDE = 8, COUNT = SIDE * SIDE * 3 };

static const struct hwgq_shape shape = {3, SIDE, SIDE};
static const struct hwgq_preprocess preprocess = {.mean = {10, 20, 30}, .scale = {1, 0.5f, 0.25f}};

/* A pixel that tells where it is and is never the mean. */
static void fill_pixels(uint8_t *pixels) {
  for (int i = 0; i < SIDE * SIDE; i++)
    for (int c = 0; c < 3; c++) pixels[i * 3 + c] = (uint8_t)(64 + i + c * 10);
}

static float value_at(const uint8_t *pixels, int x, int y, int c) {
  if (x < 0 || y < 0 || x >= SIDE || y >= SIDE) return 0;
  return ((float)pixels[(y * SIDE + x) * 3 + c] - preprocess.mean[c]) * preprocess.scale[c];
}

static bool is_shifted(const uint8_t *pixels, const float *values, int left, int top, bool mirror) {
  for (int y = 0; y < SIDE; y++)
    for (int x = 0; x < SIDE; x++)
      for (int c = 0; c < 3; c++) {
        float expected = value_at(pixels, (mirror ? SIDE - 1 - x : x) + left, y + top, c);
        if (fabsf(values[(y * SIDE + x) * 3 + c] - expected) > 1e-4f) return false;
      }
  return true;
}

START_TEST(test_images_are_left_alone) {
  uint8_t pixels[SIDE * SIDE * 3];
  float values[SIDE * SIDE * 3], scratch[SIDE * SIDE * 3];
  struct augmentation augmentation = {.mirror = true, .pad = 3, .zoom = 0.5f};
  fill_pixels(pixels);
  augment_image(&augmentation, &preprocess, shape, pixels, NULL, values, scratch);
  ck_assert(is_shifted(pixels, values, 0, 0, false));
}
END_TEST

/* As the engine does it. */
START_TEST(inverted_images_are_what_the_engine_gets) {
  uint8_t pixels[SIDE * SIDE * 3];
  float values[SIDE * SIDE * 3], scratch[SIDE * SIDE * 3], expected[SIDE * SIDE * 3];
  struct hwgq_preprocess inverted = preprocess;
  struct augmentation augmentation = {.zoom = _i == 0 ? 0.0f : 1e-7f}; /* shifted by 0, resampled by almost nothing */
  struct rng rng = rng_make(1, 1, 1);
  inverted.invert = true;
  fill_pixels(pixels);
  hwgq_preprocess_to_float(&inverted, shape, pixels, expected);
  augment_image(&augmentation, &inverted, shape, pixels, &rng, values, scratch);
  for (int y = 1; y < SIDE - 1; y++)
    for (int x = 1; x < SIDE - 1; x++)
      for (int c = 0; c < 3; c++) {
        ck_assert_float_eq_tol(values[(y * SIDE + x) * 3 + c], expected[(c * SIDE + y) * SIDE + x], 1e-3f); /* CHW */
      }
}
END_TEST

START_TEST(shifts_and_mirrors_all_occur) {
  uint8_t pixels[SIDE * SIDE * 3];
  float values[SIDE * SIDE * 3], scratch[SIDE * SIDE * 3];
  struct augmentation augmentation = {.mirror = true, .pad = 2};
  int seen[2][5][5] = {0};
  fill_pixels(pixels);
  for (uint64_t i = 0; i < 2000; i++) {
    struct rng rng = rng_make(1, 1, i);
    augment_image(&augmentation, &preprocess, shape, pixels, &rng, values, scratch);
    int found = 0;
    for (int m = 0; m < 2; m++)
      for (int left = -2; left <= 2; left++)
        for (int top = -2; top <= 2; top++)
          if (is_shifted(pixels, values, left, top, m == 1)) {
            found++;
            seen[m][left + 2][top + 2]++;
          }
    ck_assert_int_eq(found, 1);
  }
  /* 40 of each are expected; six standard deviations. */
  for (int i = 0; i < 50; i++) ck_assert_int_lt(abs(((int *)seen)[i] - 40), 38);
}
END_TEST

START_TEST(zoom_keeps_the_range_and_changes_the_size) {
  uint8_t pixels[SIDE * SIDE * 3];
  float values[SIDE * SIDE * 3], scratch[SIDE * SIDE * 3];
  struct augmentation augmentation = {.zoom = 0.5f};
  float smallest = 1e9f, largest = 0;
  /* A ramp to the right: the difference of neighbours in the middle tells the step. */
  for (int i = 0; i < SIDE * SIDE * 3; i++) pixels[i] = (uint8_t)(20 * (i / 3 % SIDE));
  for (uint64_t i = 0; i < 300; i++) {
    struct rng rng = rng_make(1, 1, i);
    augment_image(&augmentation, &preprocess, shape, pixels, &rng, values, scratch);
    const float *middle = values + (SIDE / 2 * SIDE + SIDE / 2) * 3;
    float step = (middle[0] - middle[-3]) / 20;
    smallest = step < smallest ? step : smallest;
    largest = step > largest ? step : largest;
    for (int k = 0; k < SIDE * SIDE; k++) ck_assert(values[k * 3] >= -10.001f && values[k * 3] <= 130.001f);
  }
  ck_assert(smallest > 0.66f && smallest < 0.72f);
  ck_assert(largest < 1.51f && largest > 1.4f);
}
END_TEST

/* ---- sizes --------------------------------------------------------------------------------------------------------------- */

/* A crop shows a part of the image and nothing from outside it: a ramp stays a ramp, less steep. */
START_TEST(crops_enlarge_a_part) {
  uint8_t pixels[COUNT];
  float values[COUNT], scratch[COUNT];
  struct augmentation augmentation = {.crop = 0.5};
  float smallest = 1e9f, largest = 0, lowest = 1e9f, highest = 0;
  for (int i = 0; i < COUNT; i++) pixels[i] = (uint8_t)(20 + 20 * (i / 3 % SIDE));
  for (uint64_t i = 0; i < 500; i++) {
    struct rng rng = rng_make(1, 1, i);
    augment_image(&augmentation, &preprocess, shape, pixels, &rng, values, scratch);
    const float *middle = values + (SIDE / 2 * SIDE + SIDE / 2) * 3;
    float step = (middle[0] - middle[-3]) / 20;
    smallest = step < smallest ? step : smallest;
    largest = step > largest ? step : largest;
    lowest = middle[0] < lowest ? middle[0] : lowest;
    highest = middle[0] > highest ? middle[0] : highest;
    for (int k = 0; k < SIDE * SIDE; k++) ck_assert(values[k * 3] >= 9.99f && values[k * 3] <= 150.01f);
  }
  ck_assert(smallest > 0.499f && smallest < 0.52f && largest < 1.001f && largest > 0.97f);
  ck_assert(highest - lowest > 40); /* anywhere */
}
END_TEST

/* Steps to the right and down: their product is that of the zoom, their ratio the aspect's. */
START_TEST(aspect_stretches_one_way) {
  uint8_t pixels[COUNT];
  float values[COUNT], scratch[COUNT], most = 0, least = 1;
  struct augmentation augmentation = {.aspect = 0.4};
  for (int i = 0; i < COUNT; i++) pixels[i] = (uint8_t)(i % 3 == 0 ? 20 * (i / 3 % SIDE) : 20 * (i / 3 / SIDE));
  for (uint64_t i = 0; i < 300; i++) {
    struct rng rng = rng_make(1, 1, i);
    augment_image(&augmentation, &preprocess, shape, pixels, &rng, values, scratch);
    const float *middle = values + (SIDE / 2 * SIDE + SIDE / 2) * 3;
    float right = (middle[0] - middle[-3]) / 20, down = (middle[1] - middle[1 - 3 * SIDE]) / 20 / preprocess.scale[1];
    ck_assert_float_eq_tol(right * down, 1, 1e-3f);
    most = right / down > most ? right / down : most;
    least = right / down < least ? right / down : least;
  }
  ck_assert(most > 1.37f && most < 1.4015f && least < 1 / 1.37f && least > 1 / 1.4015f);
}
END_TEST

/* ---- values -------------------------------------------------------------------------------------------------------------- */

static void random_values(float *values) {
  struct rng rng = rng_make(8, 8, 8);
  for (int i = 0; i < COUNT; i++) values[i] = (80 + 90 * rng_uniform(&rng) - preprocess.mean[i % 3]) * preprocess.scale[i % 3];
}

static double mean_of(const float *values, int channel) {
  double sum = 0;
  for (int i = channel; i < COUNT; i += 3) sum += (double)values[i];
  return sum * 3 / COUNT;
}

/* Of neighbours to the right, squared. */
static double roughness(const float *values) {
  double sum = 0;
  for (int i = 0; i + 3 < COUNT; i++)
    if (i / 3 % SIDE != SIDE - 1) sum += pow((double)(values[i + 3] - values[i]), 2);
  return sum;
}

/* Half of the images stay; the others get smoother; an even image stays even. */
static void check_smoothing(const struct augmentation *augmentation) {
  int same = 0;
  double least = 1;
  for (uint64_t i = 0; i < 200; i++) {
    float before[COUNT], values[COUNT], scratch[COUNT];
    random_values(before);
    memcpy(values, before, sizeof values);
    struct rng rng = rng_make(2, 2, i);
    augment_values(augmentation, &preprocess, shape, &rng, values, scratch);
    double share = roughness(values) / roughness(before);
    same += memcmp(values, before, sizeof values) == 0;
    ck_assert(share <= 1.0001);
    least = share < least ? share : least;
    for (int k = 0; k < COUNT; k++) values[k] = 7.5f;
    rng = rng_make(2, 2, i);
    augment_values(augmentation, &preprocess, shape, &rng, values, scratch);
    for (int k = 0; k < COUNT; k++) ck_assert_float_eq_tol(values[k], 7.5f, 1e-5f);
  }
  ck_assert_int_gt(same, 70);
  ck_assert_int_lt(same, 150);
  ck_assert_double_lt(least, 0.3);
}

START_TEST(blur_and_softness_smooth) {
  check_smoothing(&(struct augmentation){.blur = 1.5});
  check_smoothing(&(struct augmentation){.soften = 2});
}
END_TEST

/* One bright pixel in the middle: what a Gaussian makes of it falls by exp(-1 / (2 sigma^2)) to its neighbour. */
START_TEST(blur_is_gaussian) {
  int seen = 0;
  for (uint64_t i = 0; i < 40; i++) {
    float values[COUNT] = {0}, scratch[COUNT];
    int middle = (4 * SIDE + 4) * 3;
    values[middle] = 100;
    struct rng rng = rng_make(3, 3, i), same = rng;
    augment_values(&(struct augmentation){.blur = 0.8}, &preprocess, shape, &rng, values, scratch);
    if (rng_below(&same, 2) == 0) continue;
    float sigma = 0.8f * rng_uniform(&same);
    if (sigma < 0.2f) continue;
    seen++;
    float ratio = expf(-1 / (2 * sigma * sigma));
    ck_assert_float_eq_tol(values[middle + 3] / values[middle], ratio, 1e-4f);
    ck_assert_float_eq_tol(values[middle - 3 * SIDE] / values[middle], ratio, 1e-4f);
    ck_assert_float_eq_tol(values[middle + 3 + 3 * SIDE] / values[middle], ratio * ratio, 1e-4f);
    ck_assert_float_eq(values[middle + 1], 0);
  }
  ck_assert_int_gt(seen, 5);
}
END_TEST

static float pixel_of(const float *values, int i) {
  return values[i] / preprocess.scale[i % 3] + preprocess.mean[i % 3];
}

static double gray_of(const float *values, int i) {
  return 0.299 * (double)pixel_of(values, i) + 0.587 * (double)pixel_of(values, i + 1) +
         0.114 * (double)pixel_of(values, i + 2);
}

START_TEST(colors_change_as_they_should) {
  float before[COUNT], values[COUNT], scratch[COUNT], lowest = 9, highest = 0;
  random_values(before);
  for (uint64_t i = 0; i < 200; i++) {
    struct rng rng = rng_make(4, 4, i);
    memcpy(values, before, sizeof values);
    augment_values(&(struct augmentation){.brightness = 0.25}, &preprocess, shape, &rng, values, scratch);
    float factor = pixel_of(values, 0) / pixel_of(before, 0);
    for (int k = 0; k < COUNT; k++) ck_assert_float_eq_tol(pixel_of(values, k), factor * pixel_of(before, k), 1e-2f);
    lowest = factor < lowest ? factor : lowest;
    highest = factor > highest ? factor : highest;
  }
  ck_assert(lowest > 0.799f && lowest < 0.82f && highest < 1.251f && highest > 1.22f);
  struct rng rng = rng_make(5, 5, 5);
  memcpy(values, before, sizeof values);
  augment_values(&(struct augmentation){.contrast = 0.5}, &preprocess, shape, &rng, values, scratch);
  double sum[2] = {0};
  for (int k = 0; k < COUNT; k++) {
    sum[0] += (double)pixel_of(before, k);
    sum[1] += (double)pixel_of(values, k);
  }
  ck_assert_double_eq_tol(sum[0] / COUNT, sum[1] / COUNT, 0.05);
  ck_assert(fabs(roughness(values) / roughness(before) - 1) > 0.02);
  memcpy(values, before, sizeof values);
  augment_values(&(struct augmentation){.saturation = 0.5}, &preprocess, shape, &rng, values, scratch);
  ck_assert(memcmp(values, before, sizeof values) != 0);
  for (int k = 0; k < COUNT; k += 3) ck_assert_double_eq_tol(gray_of(values, k), gray_of(before, k), 0.02);
  ck_assert_double_gt(fabs(mean_of(before, 0)), 1);
}
END_TEST

/* Bright pixels end at 255, dark ones at 0. */
START_TEST(colors_stay_pixels) {
  for (uint64_t i = 0; i < 50; i++) {
    float values[COUNT], scratch[COUNT];
    for (int k = 0; k < COUNT; k++)
      values[k] = ((k / 3 % 2 == 0 ? 250.0f : 2.0f) - preprocess.mean[k % 3]) * preprocess.scale[k % 3];
    struct rng rng = rng_make(6, 6, i);
    augment_values(&(struct augmentation){.brightness = 1, .contrast = 1, .saturation = 1}, &preprocess, shape, &rng, values,
                   scratch);
    for (int k = 0; k < COUNT; k++) ck_assert(pixel_of(values, k) > -0.01f && pixel_of(values, k) < 255.01f);
  }
}
END_TEST

START_TEST(cutouts_are_squares_of_the_mean) {
  int most = 0, least = SIDE * SIDE;
  for (uint64_t i = 0; i < 300; i++) {
    float before[COUNT], values[COUNT], scratch[COUNT];
    random_values(before);
    memcpy(values, before, sizeof values);
    struct rng rng = rng_make(7, 7, i);
    augment_values(&(struct augmentation){.cutout = 4}, &preprocess, shape, &rng, values, scratch);
    int cut = 0, left = SIDE, right = -1, top = SIDE, bottom = -1;
    for (int k = 0; k < COUNT; k += 3) {
      if (memcmp(values + k, before + k, 3 * sizeof *values) == 0) continue;
      for (int c = 0; c < 3; c++) ck_assert_float_eq(values[k + c], 0);
      int x = k / 3 % SIDE, y = k / 3 / SIDE;
      left = x < left ? x : left;
      right = x > right ? x : right;
      top = y < top ? y : top;
      bottom = y > bottom ? y : bottom;
      cut++;
    }
    ck_assert_int_eq(cut, (right - left + 1) * (bottom - top + 1));
    ck_assert(right - left < 4 && bottom - top < 4);
    most = cut > most ? cut : most;
    least = cut < least ? cut : least;
  }
  ck_assert_int_eq(most, 16);
  ck_assert(least >= 4 && least < 16); /* its center lies within the image */
}
END_TEST

START_TEST(gray_images_work_too) {
  const struct hwgq_shape gray = {1, SIDE, SIDE};
  uint8_t pixels[SIDE * SIDE];
  float values[SIDE * SIDE], scratch[SIDE * SIDE], again[SIDE * SIDE];
  const struct augmentation all = {.mirror = true,
                                   .pad = 1,
                                   .zoom = 0.2,
                                   .crop = 0.2,
                                   .aspect = 0.2,
                                   .blur = 1,
                                   .soften = 1,
                                   .brightness = 0.3,
                                   .contrast = 0.3,
                                   .saturation = 0.3,
                                   .cutout = 3};
  for (int i = 0; i < SIDE * SIDE; i++) pixels[i] = (uint8_t)(i * 3);
  for (uint64_t i = 0; i < 50; i++) {
    struct rng rng = rng_make(9, 9, i), same = rng;
    augment_image(&all, &preprocess, gray, pixels, &rng, values, scratch);
    augment_image(&all, &preprocess, gray, pixels, &same, again, scratch);
    ck_assert(memcmp(values, again, sizeof values) == 0);
    for (int k = 0; k < SIDE * SIDE; k++) ck_assert(isfinite(values[k]));
  }
}
END_TEST

START_TEST(senseless_ranges_are_refused) {
  static const struct augmentation bad[] = {
      {.pad = -1},     {.zoom = 5},        {.crop = 1},     {.crop = -0.1},           {.aspect = -1}, {.blur = 9},
      {.soften = NAN}, {.brightness = -1}, {.contrast = 5}, {.saturation = INFINITY}, {.cutout = -2}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    ck_assert_int_eq(augmentation_check(&bad[i], &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(augmentation_check(&(struct augmentation){0}, &error), HWGQ_OK);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("train_augment");
  TCase *tests = tcase_create("images");
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, test_images_are_left_alone);
  tcase_add_loop_test(tests, inverted_images_are_what_the_engine_gets, 0, 2);
  tcase_add_test(tests, shifts_and_mirrors_all_occur);
  tcase_add_test(tests, zoom_keeps_the_range_and_changes_the_size);
  tcase_add_test(tests, crops_enlarge_a_part);
  tcase_add_test(tests, aspect_stretches_one_way);
  tcase_add_test(tests, blur_and_softness_smooth);
  tcase_add_test(tests, blur_is_gaussian);
  tcase_add_test(tests, colors_change_as_they_should);
  tcase_add_test(tests, colors_stay_pixels);
  tcase_add_test(tests, cutouts_are_squares_of_the_mean);
  tcase_add_test(tests, gray_images_work_too);
  tcase_add_test(tests, senseless_ranges_are_refused);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
