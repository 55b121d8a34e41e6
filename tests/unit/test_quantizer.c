/* The quantizer design against published figures and against brute force. */
#include "engine/hwgq.h"

#include <check.h>
#include <math.h>
#include <string.h>

static struct hwgq_error error;

static struct hwgq_quantizer design(int levels, bool uniform, bool half_step_zero) {
  struct hwgq_quantizer quantizer;
  ck_assert_int_eq(hwgq_quantizer_design(levels, uniform, half_step_zero, &quantizer, &error), HWGQ_OK);
  return quantizer;
}

/* Steps and squared errors of 1 to 4 bits, to the digits in which they are published. */
static const struct {
  int levels;
  bool half;
  double step, squared_error, error_digits;
} published[] = {
    {1, false, 0.7979, 0.363, 0.0005},    {3, false, 0.5388, 0.0864, 0.00005}, {7, false, 0.3217, 0.0204, 0.00005},
    {15, false, 0.1842, 0.0050, 0.00005}, {1, true, 1.2240, 0.190, 0.0005},    {3, true, 0.6508, 0.0469, 0.00005},
    {7, true, 0.3534, 0.0129, 0.00005},   {15, true, 0.1932, 0.0037, 0.00005},
};

START_TEST(uniform_steps_are_the_published_ones) {
  struct hwgq_quantizer q = design(published[_i].levels, true, published[_i].half);
  ck_assert_double_eq_tol((double)q.centers[0], published[_i].step, 0.00005);
  ck_assert_double_eq_tol(q.mean_squared_error, published[_i].squared_error, published[_i].error_digits);
  ck_assert_int_eq(q.level_count, published[_i].levels);
  for (int k = 0; k < q.level_count; k++) ck_assert((double)q.centers[k] == (k + 1) * (double)q.centers[0]); /* exact */
  ck_assert(q.thresholds[0] == (published[_i].half ? q.centers[0] / 2 : 0));
}
END_TEST

/* Max, "Quantizing for minimum distortion" (1960), table for 4 and 6 levels of N(0,1), positive half; the squared error over
 * all of N(0,1) is the same as over its positive half. */
START_TEST(free_levels_are_max_quantizers) {
  struct hwgq_quantizer q = design(2, false, false);
  ck_assert_double_eq_tol((double)q.centers[0], 0.4528, 0.00005);
  ck_assert_double_eq_tol((double)q.centers[1], 1.510, 0.0005);
  ck_assert_double_eq_tol((double)q.thresholds[1], 0.9816, 0.00005);
  ck_assert_double_eq_tol(q.mean_squared_error, 0.1175, 0.00005);
  q = design(3, false, false);
  ck_assert_double_eq_tol((double)q.centers[0], 0.3177, 0.00005);
  ck_assert_double_eq_tol((double)q.centers[1], 1.000, 0.0005);
  ck_assert_double_eq_tol((double)q.centers[2], 1.894, 0.0005);
  ck_assert_double_eq_tol(q.mean_squared_error, 0.05798, 0.000005);
  /* An odd number of levels, one of them at 0: Max's 3 and 5. */
  q = design(1, false, true);
  ck_assert_double_eq_tol((double)q.centers[0], 1.224, 0.0005);
  q = design(2, false, true);
  ck_assert_double_eq_tol((double)q.centers[0], 0.7646, 0.00005);
  ck_assert_double_eq_tol((double)q.centers[1], 1.724, 0.0005);
  ck_assert_double_eq_tol(q.mean_squared_error, 0.07994, 0.000005);
}
END_TEST

/* Squared error of a quantizer by summing over a fine grid of the half-normal density. */
static double measured_error(const struct hwgq_quantizer *q) {
  const double width = 1e-4;
  double sum = 0;
  for (int i = 0; i < 90000; i++) {
    double x = (i + 0.5) * width;
    int level = 0;
    while (level < q->level_count && x > (double)q->thresholds[level]) level++;
    double difference = x - (level ? (double)q->centers[level - 1] : 0);
    sum += difference * difference * exp(-x * x / 2);
  }
  return sum * width * sqrt(2 / M_PI);
}

/* Every combination is consistent: ordered, thresholds halfway, the stated error is the real one, and moving any center (all
 * in proportion, when uniform) makes it worse. */
START_TEST(every_design_is_optimal) {
  bool uniform = _i & 1, half = _i & 2;
  for (int levels = 1; levels <= HWGQ_MAX_LEVELS; levels++) {
    struct hwgq_quantizer q = design(levels, uniform, half);
    double error_here = measured_error(&q);
    ck_assert_double_eq_tol(q.mean_squared_error, error_here, 1e-6);
    for (int k = 1; k < levels; k++) {
      ck_assert(q.centers[k] > q.centers[k - 1]);
      ck_assert(q.thresholds[k] == (q.centers[k - 1] + q.centers[k]) / 2);
    }
    for (int moved = 0; moved < (uniform ? 1 : levels); moved++)
      for (int direction = -1; direction <= 1; direction += 2) {
        struct hwgq_quantizer other = q;
        for (int k = 0; k < levels; k++)
          if (uniform || k == moved) other.centers[k] *= 1 + 0.01f * (float)direction;
        for (int k = 1; k < levels; k++) other.thresholds[k] = (other.centers[k - 1] + other.centers[k]) / 2;
        if (half) other.thresholds[0] = other.centers[0] / 2;
        ck_assert_double_gt(measured_error(&other), error_here);
      }
  }
}
END_TEST

START_TEST(impossible_level_counts_are_refused) {
  struct hwgq_quantizer q;
  memset(&q, 77, sizeof q);
  struct hwgq_quantizer untouched = q;
  ck_assert_int_eq(hwgq_quantizer_design(0, true, false, &q, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(hwgq_quantizer_design(16, true, false, &q, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "16 levels, must be 1 to 15"));
  ck_assert_mem_eq(&q, &untouched, sizeof q);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("quantizer");
  TCase *tests = tcase_create("design");
  tcase_set_timeout(tests, 60);
  tcase_add_loop_test(tests, uniform_steps_are_the_published_ones, 0, (int)(sizeof published / sizeof published[0]));
  tcase_add_test(tests, free_levels_are_max_quantizers);
  tcase_add_loop_test(tests, every_design_is_optimal, 0, 4);
  tcase_add_test(tests, impossible_level_counts_are_refused);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
