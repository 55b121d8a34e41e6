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

START_TEST(accumulating) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {28};
  for (int round = 0; round < 200; round++) {
    const size_t count = (size_t)support_random_int(&random, 0, 200);
    int32_t accumulators[200];
    double sums[201], expected[201];
    for (size_t i = 0; i < 200; i++) accumulators[i] = support_random_int(&random, -5000, 5000);
    for (size_t i = 0; i < 201; i++) sums[i] = expected[i] = support_random_normal(&random);
    const struct hwgq_accumulate_job job = {accumulators, support_random_normal(&random), round % 2 == 0, count, sums};
    for (size_t i = 0; i < count; i++) expected[i] = (job.first ? 0 : expected[i]) + job.factor * accumulators[i];
    kernels->accumulate(&job);
    ck_assert_mem_eq(sums, expected, sizeof sums);
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
    double *doubles = reserve((size_t)lines * line_step), got_doubles[24 * LANES];
    for (size_t i = 0; i < (size_t)lines * line_step; i++) {
      integers[i] = support_random_int(&random, -1000, 1000);
      floats[i] = (float)integers[i] / 8;
      doubles[i] = (double)integers[i] / 16;
    }
    struct hwgq_pool_job job = {integers, line_step, lines, columns, outputs, kernel, stride, pad, got_integers};
    kernels->pool_i32(&job);
    job.accumulators = floats;
    job.output = got_floats;
    kernels->pool_f32(&job);
    job.accumulators = doubles;
    job.output = got_doubles;
    kernels->pool_f64(&job);
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
        if (got_integers[x * LANES + lane] != expected || got_floats[x * LANES + lane] != (float)expected / 8 ||
            got_doubles[x * LANES + lane] != (double)expected / 16) {
          ck_abort_msg("round %d lane %d: %d, not %d", round, lane, got_integers[x * LANES + lane], expected);
        }
      }
    }
    free(integers);
    free(floats);
    free(doubles);
  }
}
END_TEST

/* ---- windows of packed and of float pixels ------------------------------------------------------------------------------- */

/* Level of a channel, with its planes inverted where `reversed` is set. Thermometer planes and signs: the number of set ones.
 */
static int level_at(const struct hwgq_max_job *job, const uint32_t *pixel, size_t word, int bit, bool invert) {
  int level = 0;
  for (int p = 0; p < job->planes; p++) {
    const size_t at = word * (size_t)job->planes + (size_t)p;
    const uint32_t bits = pixel[at] ^ (invert && job->reversed ? job->reversed[at] : 0);
    level += (int)(bits >> bit & 1) << (job->digits ? p : 0);
  }
  return level;
}

/* Planes of random levels: digits, or nested thermometer planes. */
static void random_levels(struct support_random *random, size_t words, int planes, bool digits, uint32_t *pixel) {
  for (size_t word = 0; word < words; word++, pixel += planes) {
    fill_bits(random, pixel, (size_t)planes);
    for (int p = 1; p < planes && !digits; p++) pixel[p] &= pixel[p - 1];
  }
}

START_TEST(largest_levels) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {29};
  for (int round = 0; round < 600; round++) {
    const size_t words = (size_t)support_random_int(&random, 1, 40);
    const bool digits = support_random_chance(&random, 0.7), reverses = support_random_chance(&random, 0.5);
    const int planes = support_random_int(&random, 1, digits ? 4 : 7);
    const size_t step = words * (size_t)planes, width = (size_t)support_random_int(&random, 1, 5);
    uint32_t *input = reserve(3 * width * step), *reversed = reserve(step), *output = reserve(step + 1);
    for (size_t i = 0; i < 3 * width; i++) random_levels(&random, words, planes, digits, input + i * step);
    for (size_t word = 0; word < words; word++) { /* all planes of a channel or none */
      const uint32_t channels = (uint32_t)support_random_next(&random);
      for (int p = 0; p < planes; p++) reversed[word * (size_t)planes + (size_t)p] = channels;
    }
    const struct hwgq_max_job job = {.input = input,
                                     .row_step = width * step,
                                     .column_step = step,
                                     .rows = support_random_int(&random, 1, 3),
                                     .columns = support_random_int(&random, 1, (int)width),
                                     .words = words,
                                     .planes = planes,
                                     .digits = digits,
                                     .reversed = reverses ? reversed : NULL,
                                     .output = output};
    output[step] = 77;
    kernels->max(&job);
    ck_assert_uint_eq(output[step], 77);
    for (size_t channel = 0; channel < words * 32; channel++) {
      int best = -1, expected = -1;
      for (int y = 0; y < job.rows; y++) {
        for (int x = 0; x < job.columns; x++) {
          const uint32_t *pixel = input + (size_t)y * job.row_step + (size_t)x * step;
          const int order = level_at(&job, pixel, channel / 32, (int)(channel % 32), true);
          if (order <= best) continue;
          best = order;
          expected = level_at(&job, pixel, channel / 32, (int)(channel % 32), false);
        }
      }
      ck_assert_int_eq(level_at(&job, output, channel / 32, (int)(channel % 32), false), expected);
    }
    free(input);
    free(reversed);
    free(output);
  }
}
END_TEST

START_TEST(averaging) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {30};
  for (int round = 0; round < 300; round++) {
    const size_t channels = (size_t)support_random_int(&random, 1, 90), step = channels + (size_t)(round % 3);
    const int rows = support_random_int(&random, 0, 4), columns = support_random_int(&random, 0, 5);
    float *input = reserve(4 * 5 * step), output[91];
    fill_floats(&random, input, 4 * 5 * step);
    output[channels] = 77;
    const struct hwgq_average_job job = {input, 5 * step, step, rows, columns, channels, 1 + round % 7, output};
    kernels->average(&job);
    for (size_t c = 0; c < channels; c++) {
      double sum = 0;
      for (size_t y = 0; y < (size_t)rows; y++) {
        for (size_t x = 0; x < (size_t)columns; x++) sum += (double)input[(y * 5 + x) * step + c];
      }
      const float expected = (float)(sum / job.divisor);
      ck_assert_mem_eq(&output[c], &expected, sizeof expected);
    }
    ck_assert(output[channels] == 77);
    free(input);
  }
}
END_TEST

/* ---- linear layers and softmax ---------------------------------------------------------------------------------------------
 */

/* The bits of hwgq_exp: close to the highest score, far from it, at the end of the range and beyond. */
START_TEST(exponentials) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {31};
  static const double scales[] = {1, 30, 300, 800, 1e-6};
  for (int round = 0; round < 200; round++) {
    const size_t count = (size_t)support_random_int(&random, 1, 120);
    float input[120], highest = -INFINITY;
    double output[121];
    for (size_t i = 0; i < count; i++) {
      input[i] = (float)(support_random_normal(&random) * scales[round % 5]);
      if (support_random_chance(&random, 0.02)) input[i] = support_random_chance(&random, 0.5) ? -INFINITY : -745.13f;
      if (input[i] > highest) highest = input[i];
    }
    if (round % 10 == 0) input[support_random_int(&random, 0, (int)count - 1)] = NAN;
    output[count] = 77;
    kernels->exp(input, count, highest, output);
    for (size_t i = 0; i < count; i++) {
      const double expected = hwgq_exp((double)input[i] - (double)highest);
      if (isnan(expected) && isnan(output[i])) continue;
      if (memcmp(&output[i], &expected, sizeof expected) != 0)
        ck_abort_msg("round %d: e^(%a - %a) is %a, not %a", round, (double)input[i], (double)highest, output[i], expected);
    }
    ck_assert(output[count] == 77);
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
  tcase_add_loop_test(tests, accumulating, 0, SETS);
  tcase_add_loop_test(tests, pooling, 0, SETS);
  tcase_add_loop_test(tests, largest_levels, 0, SETS);
  tcase_add_loop_test(tests, averaging, 0, SETS);
  tcase_add_loop_test(tests, exponentials, 0, SETS);
  tcase_add_loop_test(tests, linear, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
