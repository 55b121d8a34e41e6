/* Kernels that finish accumulators, of every set that this CPU has, on random jobs against a naive computation. */
#include "tests/support/kernels.h"

/* Pixels of exactly `lanes` values, without room behind the last: a read beyond it is found by the address sanitizer. */
struct pixels {
  size_t count, step;
  int lanes;
  int32_t *integers;
  float *floats;
};

static struct pixels random_pixels(struct support_random *random) {
  struct pixels p = {.count = (size_t)support_random_int(random, 1, 9), .lanes = support_random_int(random, 1, LANES)};
  p.step = (size_t)p.lanes + (size_t)support_random_int(random, 0, 3);
  const size_t values = (p.count - 1) * p.step + (size_t)p.lanes;
  p.integers = malloc(values * sizeof(int32_t));
  p.floats = malloc(values * sizeof(float));
  for (size_t i = 0; i < values; i++) {
    p.integers[i] = support_random_int(random, -20, 20);
    p.floats[i] = support_random_chance(random, 0.1) ? -0.0f : (float)p.integers[i] / 4;
  }
  return p;
}

static void free_pixels(struct pixels *p) {
  free(p->integers);
  free(p->floats);
}

/* Rising thresholds per lane, falling for negated ones: a level is reached only when those below are. */
static void random_thresholds(struct support_random *random, int levels, uint32_t negate, int32_t *thresholds) {
  for (int lane = 0; lane < LANES; lane++) {
    int32_t value = support_random_int(random, -25, 5);
    for (int j = 0; j < levels; j++) {
      const int at = negate >> lane & 1 ? levels - 1 - j : j;
      thresholds[at * LANES + lane] = value;
      value += support_random_int(random, 0, 6);
    }
  }
}

static int level_from_planes(const struct hwgq_pack_job *job, const uint32_t *planes, int lane) {
  int level = 0;
  for (int p = 0; p < job->planes; p++) level += (int)(planes[p] >> lane & 1) << (job->thermometer ? 0 : p);
  return level;
}

START_TEST(packing) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {23};
  for (int round = 0; round < 1000; round++) {
    struct pixels p = random_pixels(&random);
    const int levels = round % 3 ? support_random_int(&random, 1, 15) : 3;
    int32_t integers[15 * LANES];
    float floats[15 * LANES];
    uint32_t output[9 * 17];
    struct hwgq_pack_job job = {.accumulator_step = p.step,
                                .pixels = p.count,
                                .levels = levels,
                                .negate = (uint32_t)support_random_next(&random),
                                .valid = p.lanes == 32 ? UINT32_MAX : (1u << p.lanes) - 1,
                                .thermometer = support_random_chance(&random, 0.3),
                                .output = output,
                                .output_step = 17};
    while (levels >> job.planes) job.planes++;
    if (job.thermometer) job.planes = levels;
    random_thresholds(&random, levels, job.negate, integers);
    for (int i = 0; i < levels * LANES; i++) floats[i] = (float)integers[i] / 4;
    for (int type = 0; type < 2; type++) {
      memset(output, 0xee, sizeof output);
      job.accumulators = type ? (void *)p.floats : p.integers;
      job.thresholds = type ? (void *)floats : integers;
      (type ? kernels->pack_f32 : kernels->pack_i32)(&job);
      for (size_t i = 0; i < p.count; i++) {
        for (int lane = 0; lane < LANES; lane++) {
          int expected = 0;
          for (int j = 0; j < levels && lane < p.lanes; j++) {
            const size_t at = i * p.step + (size_t)lane;
            const bool reached = type ? p.floats[at] >= floats[j * LANES + lane] : p.integers[at] >= integers[j * LANES + lane];
            expected += reached != (job.negate >> lane & 1);
          }
          const int level = level_from_planes(&job, output + i * 17, lane);
          if (level != expected) ck_abort_msg("round %d type %d lane %d: level %d, not %d", round, type, lane, level, expected);
        }
        ck_assert_uint_eq(output[i * 17 + (size_t)job.planes], 0xeeeeeeee); /* nothing beyond the planes */
      }
    }
    free_pixels(&p);
  }
}
END_TEST

START_TEST(affine) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {24};
  for (int round = 0; round < 500; round++) {
    struct pixels p = random_pixels(&random);
    double factors[4 * 2 * LANES];
    for (int i = 0; i < 4 * 2 * LANES; i++) factors[i] = support_random_normal(&random);
    const int steps = support_random_int(&random, 1, 4);
    const uint32_t relu = (uint32_t)support_random_int(&random, 0, 15);
    float output[9 * 40], residual[9 * 50];
    fill_floats(&random, residual, 9 * 50);
    const bool adds = support_random_chance(&random, 0.5);
    const double scale = support_random_normal(&random), residual_scale = support_random_normal(&random);
    for (int type = 0; type < 2; type++) {
      for (int i = 0; i < 9 * 40; i++) output[i] = 77;
      const struct hwgq_affine_job job = {.accumulators = type ? (void *)p.floats : p.integers,
                                          .accumulator_step = p.step,
                                          .pixels = p.count,
                                          .factors = factors,
                                          .steps = steps,
                                          .relu = relu,
                                          .lanes = p.lanes,
                                          .output = output,
                                          .output_step = 40,
                                          .residual = adds ? residual : NULL,
                                          .residual_step = 50,
                                          .scale = scale,
                                          .residual_scale = residual_scale};
      (type ? kernels->affine_f32 : kernels->affine_i32)(&job);
      for (size_t i = 0; i < p.count * 40; i++) {
        const size_t lane = i % 40, at = i / 40 * p.step + lane;
        float expected = 77;
        if (lane < (size_t)p.lanes) {
          double x = type ? (double)p.floats[at] : p.integers[at];
          for (int s = 0; s < steps; s++) {
            x = factors[(size_t)s * 2 * LANES + lane] * x + factors[((size_t)s * 2 + 1) * LANES + lane];
            if (relu >> s & 1) x = x > 0 ? x : 0;
          }
          expected = (float)x;
          if (adds) expected = (float)(scale * (double)expected + residual_scale * (double)residual[i / 40 * 50 + lane]);
        }
        if (memcmp(&output[i], &expected, sizeof expected) != 0)
          ck_abort_msg("round %d type %d lane %zu: not %a", round, type, lane, (double)expected);
      }
    }
    free_pixels(&p);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("kernels_epilogue");
  TCase *tests = tcase_create("kernels_epilogue");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, packing, 0, SETS);
  tcase_add_loop_test(tests, affine, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
