/* Convolution kernels of every set that this CPU has, and what they need, on random jobs against a naive computation. */
#include <stdio.h>

#include "tests/support/kernels.h"

/* ---- convolutions ----------------------------------------------------------------------------------------------------------
 */

struct conv_fixture {
  struct hwgq_conv_job job;
  uint32_t *input, *weights;
  int32_t base[LANES], *corrections;
  size_t accumulators;
};

static void random_conv(struct support_random *random, struct conv_fixture *f, bool binary) {
  struct hwgq_conv_job *job = &f->job;
  const size_t planes = binary ? (size_t)support_random_int(random, 1, HWGQ_MAX_PLANES) : 1;
  const size_t plane_step = binary ? planes + (size_t)support_random_int(random, 0, 2) : 1;
  *job = (struct hwgq_conv_job){.lines = support_random_int(random, 1, 4),
                                .columns = support_random_int(random, 1, 15),
                                .rows = support_random_int(random, 0, 4),
                                .runs = support_random_int(random, 0, 3),
                                .length = support_random_int(random, 0, 40),
                                .lanes = support_random_chance(random, 0.5) ? 32 : 16,
                                .planes = (int)planes,
                                .plane_step = (int)plane_step,
                                .shift = support_random_int(random, 1, 2)};
  const size_t length = (size_t)job->length * plane_step, lanes = (size_t)job->lanes;
  job->run_step = length + (size_t)support_random_int(random, 0, 9);
  job->row_step = (size_t)job->runs * job->run_step + (size_t)support_random_int(random, 0, 9);
  job->column_step = (size_t)support_random_int(random, 0, 30);
  job->line_step = (size_t)support_random_int(random, 0, 60);
  job->weight_run_step = (size_t)job->length * lanes;
  job->weight_row_step = job->weight_run_step * (size_t)job->runs + lanes * (size_t)support_random_int(random, 0, 2);
  const size_t inputs = (size_t)job->lines * job->line_step + (size_t)job->columns * job->column_step +
                        (size_t)(job->rows + 1) * job->row_step + length + 1;
  const size_t weights = (size_t)job->rows * job->weight_row_step + lanes;
  f->input = reserve(inputs);
  f->weights = reserve(weights);
  if (binary) {
    fill_bits(random, f->input, inputs);
    fill_bits(random, f->weights, weights);
  } else {
    fill_floats(random, (float *)f->input, inputs);
    fill_floats(random, (float *)f->weights, weights);
  }
  job->correction_line_step = (size_t)job->columns + 3;
  f->corrections = reserve((size_t)job->lines * job->correction_line_step);
  for (size_t i = 0; i < (size_t)job->lines * job->correction_line_step; i++) {
    f->corrections[i] = support_random_int(random, -1000, 1000);
  }
  for (int i = 0; i < LANES; i++) f->base[i] = support_random_int(random, -1000, 1000);
  job->input = f->input;
  job->weights = f->weights;
  job->base = f->base;
  job->correction = f->corrections;
  job->accumulator_line_step = ((size_t)job->columns + 1) * LANES;
  f->accumulators = (size_t)job->lines * job->accumulator_line_step;
}

static void free_conv(struct conv_fixture *f) {
  free(f->input);
  free(f->weights);
  free(f->corrections);
}

/* One accumulator, straight from the contract in kernels.h. */
static int32_t naive_binary(const struct hwgq_conv_job *job, size_t line, size_t column, size_t lane) {
  const uint32_t *input = (const uint32_t *)job->input + line * job->line_step + column * job->column_step;
  int32_t sum = 0;
  for (size_t row = 0; row < (size_t)job->rows; row++) {
    for (size_t run = 0; run < (size_t)job->runs; run++) {
      for (size_t i = 0; i < (size_t)job->length; i++) {
        const uint32_t w =
            ((const uint32_t *)
                 job->weights)[row * job->weight_row_step + run * job->weight_run_step + i * (size_t)job->lanes + lane];
        for (int p = 0; p < job->planes; p++) {
          const uint32_t a = input[row * job->row_step + run * job->run_step + i * (size_t)job->plane_step + (size_t)p];
          for (uint32_t both = w & a; both; both &= both - 1) sum += 1 << p;
        }
      }
    }
  }
  return (int32_t)((uint32_t)sum << job->shift) + job->base[lane] + job->correction[line * job->correction_line_step + column];
}

static float naive_float(const struct hwgq_conv_job *job, size_t line, size_t column, size_t lane) {
  const float *input = (const float *)job->input + line * job->line_step + column * job->column_step;
  float sum = 0;
  for (size_t row = 0; row < (size_t)job->rows; row++) {
    for (size_t run = 0; run < (size_t)job->runs; run++) {
      for (size_t i = 0; i < (size_t)job->length; i++) {
        const float w =
            ((const float *)
                 job->weights)[row * job->weight_row_step + run * job->weight_run_step + i * (size_t)job->lanes + lane];
        sum = fmaf(w, input[row * job->row_step + run * job->run_step + i], sum);
      }
    }
  }
  return sum;
}

static const struct hwgq_bconv_form *popcount_of(const struct hwgq_kernels *kernels) {
  const struct hwgq_bconv_form *form = kernels->forms;
  while (form->code) form++;
  ck_assert_str_eq(form->name, "popcount");
  return form;
}

START_TEST(convolutions) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {21};
  for (int round = 0; round < 600; round++) {
    const bool binary = round % 3 != 0;
    struct conv_fixture f;
    random_conv(&random, &f, binary);
    uint32_t *accumulators = reserve(f.accumulators);
    f.job.accumulators = accumulators;
    if (binary) {
      popcount_of(kernels)->bconv(&f.job);
    } else {
      kernels->fconv(&f.job);
    }
    for (size_t line = 0; line < (size_t)f.job.lines; line++) {
      for (size_t column = 0; column < (size_t)f.job.columns; column++) {
        for (size_t lane = 0; lane < (size_t)f.job.lanes; lane++) {
          const uint32_t *got = &accumulators[line * f.job.accumulator_line_step + column * LANES + lane];
          if (binary) {
            const int32_t expected = naive_binary(&f.job, line, column, lane);
            if ((int32_t)*got != expected) ck_abort_msg("round %d lane %zu: %d, not %d", round, lane, (int32_t)*got, expected);
          } else {
            const float expected = naive_float(&f.job, line, column, lane);
            if (memcmp(got, &expected, sizeof expected) != 0)
              ck_abort_msg("round %d lane %zu: not %a", round, lane, (double)expected);
          }
        }
        for (size_t lane = (size_t)f.job.lanes; lane < LANES; lane++) {
          if (accumulators[line * f.job.accumulator_line_step + column * LANES + lane])
            ck_abort_msg("lane %zu was written", lane);
        }
      }
    }
    free(accumulators);
    free_conv(&f);
  }
}
END_TEST

START_TEST(sums) {
  enum { WORDS = 40 };
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {22};
  for (int round = 0; round < 300; round++) {
    const bool dense = round % 3 != 0, masked = round % 5 == 0; /* dense: nothing between words and pixels */
    const int words = support_random_int(&random, 1, support_random_chance(&random, 0.2) ? WORDS : 9);
    const int planes = support_random_int(&random, 1, 4), step = dense ? planes : planes + 1;
    const size_t pixels = (size_t)support_random_int(&random, 1, 20), pixel_step = (size_t)(words * step + (dense ? 0 : 2));
    uint32_t *input = reserve(pixels * pixel_step), masks[WORDS];
    int32_t result[20];
    fill_bits(&random, input, pixels * pixel_step);
    fill_bits(&random, masks, WORDS);
    if (!masked) memset(masks, 0xff, sizeof masks);
    const struct hwgq_sums_job job = {input, pixels, pixel_step, words, planes, step, masked ? masks : NULL, result};
    kernels->sums(&job);
    for (size_t i = 0; i < pixels; i++) {
      int32_t expected = 0;
      for (int word = 0; word < words; word++) {
        for (int p = 0; p < planes; p++) {
          const uint32_t bits = input[i * pixel_step + (size_t)(word * step + p)] & masks[word];
          for (int b = 0; b < 32; b++) expected += (int32_t)(bits >> b & 1) << p;
        }
      }
      ck_assert_int_eq(result[i], expected);
    }
    free(input);
  }
}
END_TEST

START_TEST(names) {
  ck_assert_ptr_null(hwgq_kernels_get(-1));
  ck_assert_ptr_null(hwgq_kernels_find("sse9"));
  for (int i = 0; hwgq_kernels_get(i); i++) {
    ck_assert_ptr_eq(hwgq_kernels_find(hwgq_kernels_get(i)->name), hwgq_kernels_get(i));
    printf("%s: kernel set %s on this CPU\n", set_at(i) ? "tested" : "SKIPPED", hwgq_kernels_get(i)->name);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("kernels_conv");
  TCase *tests = tcase_create("kernels_conv");
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, names);
  tcase_add_loop_test(tests, convolutions, 0, SETS);
  tcase_add_loop_test(tests, sums, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
