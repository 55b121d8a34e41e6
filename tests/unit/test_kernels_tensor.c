/* Kernels for sums, pooling, float linear layers and softmax, of every set that this CPU has, on random jobs against a naive
 * computation. */
#include "engine/math.h"
#include "tests/support/kernels.h"

START_TEST(adding) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {27};
  for (int round = 0; round < 300; round++) {
    const size_t count = (size_t)support_random_int(&random, 0, 200);
    const int input_count = support_random_int(&random, 1, 4);
    float values[4][200], coefficients[4], output[201];
    fill_floats(&random, values[0], 4 * 200);
    fill_floats(&random, coefficients, 4);
    const float *const inputs[] = {values[0], values[1], values[2], values[3]};
    output[count] = 77;
    kernels->add(&(struct hwgq_add_job){inputs, coefficients, input_count, count, output});
    for (size_t i = 0; i < count; i++) {
      double sum = 0;
      for (int k = 0; k < input_count; k++) sum += (double)coefficients[k] * (double)values[k][i];
      ck_assert(output[i] == (float)sum);
    }
    ck_assert(output[count] == 77);
  }
}
END_TEST

START_TEST(pooling) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {25};
  for (int round = 0; round < 300; round++) {
    const int lines = support_random_int(&random, 1, 4), kernel = support_random_int(&random, 1, 4);
    const int pad = support_random_int(&random, 0, kernel - 1), stride = support_random_int(&random, 1, 3);
    const int columns = support_random_int(&random, kernel, 12);
    const int outputs = (columns + 2 * pad - kernel) / stride + 1;
    const size_t line_step = (size_t)(columns + 1) * LANES;
    int32_t *integers = reserve((size_t)lines * line_step), got_integers[24 * LANES];
    float *floats = reserve((size_t)lines * line_step), got_floats[24 * LANES];
    for (size_t i = 0; i < (size_t)lines * line_step; i++) {
      integers[i] = support_random_int(&random, -1000, 1000);
      floats[i] = (float)integers[i] / 8;
    }
    struct hwgq_pool_job job = {integers, line_step, lines, columns, outputs, kernel, stride, pad, got_integers};
    kernels->pool_i32(&job);
    job.accumulators = floats;
    job.output = got_floats;
    kernels->pool_f32(&job);
    for (int x = 0; x < outputs; x++) {
      for (int lane = 0; lane < LANES; lane++) {
        int32_t expected = INT32_MIN;
        for (int y = 0; y < lines; y++) {
          for (int k = x * stride - pad; k < x * stride - pad + kernel; k++) {
            if (k < 0 || k >= columns) continue;
            const int32_t value = integers[(size_t)y * line_step + (size_t)k * LANES + (size_t)lane];
            if (value > expected) expected = value;
          }
        }
        if (got_integers[x * LANES + lane] != expected || got_floats[x * LANES + lane] != (float)expected / 8) {
          ck_abort_msg("round %d lane %d: %d, not %d", round, lane, got_integers[x * LANES + lane], expected);
        }
      }
    }
    free(integers);
    free(floats);
  }
}
END_TEST

/* Bit for bit the order of kernels.h: 16 partial sums, then halves. */
START_TEST(linear) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {26};
  for (int round = 0; round < 300; round++) {
    const size_t inputs = (size_t)support_random_int(&random, 1, 130), step = (inputs + 15) / 16 * 16;
    const size_t outputs = (size_t)support_random_int(&random, 1, 21);
    float *input = malloc(inputs * sizeof(float)), *weights = reserve(outputs * step), output[21];
    fill_floats(&random, input, inputs);
    for (size_t o = 0; o < outputs; o++) fill_floats(&random, weights + o * step, inputs);
    const struct hwgq_linear_job job = {input, inputs, step, weights, outputs, output};
    kernels->linear(&job);
    for (size_t o = 0; o < outputs; o++) {
      float partial[16] = {0};
      for (size_t i = 0; i < inputs; i++) partial[i % 16] = fmaf(weights[o * step + i], input[i], partial[i % 16]);
      for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) partial[i] += partial[i + half];
      }
      ck_assert_float_eq(output[o], partial[0]);
    }
    free(input);
    free(weights);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("kernels_tensor");
  TCase *tests = tcase_create("kernels_tensor");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, adding, 0, SETS);
  tcase_add_loop_test(tests, pooling, 0, SETS);
  tcase_add_loop_test(tests, linear, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
