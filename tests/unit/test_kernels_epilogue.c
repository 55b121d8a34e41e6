/* Kernels that finish accumulators, of every set that this CPU has, on random jobs against a naive computation. */
#include "tests/support/kernels.h"

/* Pixels of exactly `lanes` values, without room behind the last: a read beyond it is found by the address sanitizer. */
struct pixels {
  size_t count, step;
  int lanes;
  int32_t *integers;
  float *floats;
  double *doubles;
};

static struct pixels random_pixels(struct support_random *random) {
  struct pixels p = {.count = (size_t)support_random_int(random, 1, 9), .lanes = support_random_int(random, 1, LANES)};
  p.step = (size_t)p.lanes + (size_t)support_random_int(random, 0, 3);
  const size_t values = (p.count - 1) * p.step + (size_t)p.lanes;
  p.integers = malloc(values * sizeof(int32_t));
  p.floats = malloc(values * sizeof(float));
  p.doubles = malloc(values * sizeof(double));
  for (size_t i = 0; i < values; i++) {
    p.integers[i] = support_random_int(random, -20, 20);
    p.floats[i] = support_random_chance(random, 0.1) ? -0.0f : (float)p.integers[i] / 4;
    p.doubles[i] = (double)p.floats[i];
  }
  return p;
}

static void free_pixels(struct pixels *p) {
  free(p->integers);
  free(p->floats);
  free(p->doubles);
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
    static const int full[] = {3, 7, 15}; /* as many levels as their digits have, with kernels of their own */
    const int levels = round % 2 ? support_random_int(&random, 1, 15) : full[round / 2 % 3];
    int32_t integers[15 * LANES];
    float floats[15 * LANES];
    double doubles[15 * LANES];
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
    for (int i = 0; i < levels * LANES; i++) doubles[i] = (double)(floats[i] = (float)integers[i] / 4);
    const struct {
      const void *accumulators, *thresholds;
      void (*pack)(const struct hwgq_pack_job *job);
    } types[] = {{p.integers, integers, kernels->pack_i32},
                 {p.floats, floats, kernels->pack_f32},
                 {p.doubles, doubles, kernels->pack_f64}};
    for (int type = 0; type < 3; type++) {
      memset(output, 0xee, sizeof output);
      job.accumulators = types[type].accumulators;
      job.thresholds = types[type].thresholds;
      types[type].pack(&job);
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

/* What an affine job gives for one accumulator, straight from the contract in kernels.h. */
static float naive_affine(const struct hwgq_affine_job *job, double x, size_t lane, float residual) {
  for (int s = 0; s < job->steps; s++) {
    x = job->factors[(size_t)s * 2 * LANES + lane] * x + job->factors[((size_t)s * 2 + 1) * LANES + lane];
    if (job->relu >> s & 1) x = x > 0 ? x : 0;
    if (job->round >> s & 1) x = (double)(float)x;
  }
  float y = (float)x;
  if (!job->residual) return y;
  y = (float)(job->scale * (double)y + job->residual_scale * (double)residual);
  return job->residual_relu && !(y > 0) ? 0 : y;
}

/* Residuals are added where they are, or from elsewhere; plain sums, and scaled ones. */
START_TEST(affine) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {24};
  for (int round = 0; round < 1000; round++) {
    struct pixels p = random_pixels(&random);
    double factors[4 * 2 * LANES];
    for (int i = 0; i < 4 * 2 * LANES; i++) factors[i] = support_random_normal(&random);
    float output[9 * 40], residual[9 * 50];
    fill_floats(&random, residual, 9 * 50);
    const bool adds = support_random_chance(&random, 0.6), in_place = support_random_chance(&random, 0.5);
    const bool plain = support_random_chance(&random, 0.5), simple = support_random_chance(&random, 0.5);
    struct hwgq_affine_job job = {.accumulator_step = p.step,
                                  .pixels = p.count,
                                  .factors = factors,
                                  .steps = simple ? 1 : support_random_int(&random, 1, 4),
                                  .relu = simple ? 0 : (uint32_t)support_random_int(&random, 0, 15),
                                  .round = simple ? 0 : (uint32_t)support_random_int(&random, 0, 15),
                                  .lanes = p.lanes,
                                  .output = output,
                                  .output_step = 40,
                                  .residual = !adds      ? NULL
                                              : in_place ? output
                                                         : residual,
                                  .residual_step = in_place ? 40 : 50,
                                  .scale = plain ? 1 : support_random_normal(&random),
                                  .residual_scale = plain ? 1 : support_random_normal(&random),
                                  .residual_relu = support_random_chance(&random, 0.3)};
    const struct {
      const void *accumulators;
      void (*affine)(const struct hwgq_affine_job *job);
    } types[] = {{p.integers, kernels->affine_i32}, {p.floats, kernels->affine_f32}, {p.doubles, kernels->affine_f64}};
    for (int type = 0; type < 3; type++) {
      for (size_t i = 0; i < 9 * 40; i++) output[i] = i % 40 < (size_t)p.lanes ? residual[i / 40 * 50 + i % 40] : 77;
      job.accumulators = types[type].accumulators;
      types[type].affine(&job);
      for (size_t i = 0; i < p.count * 40; i++) {
        const size_t lane = i % 40, at = i / 40 * p.step + lane;
        float expected = 77;
        if (lane < (size_t)p.lanes) {
          const double x = type == 0 ? p.integers[at] : p.doubles[at];
          expected = naive_affine(&job, x, lane, residual[i / 40 * 50 + lane]);
        }
        if (memcmp(&output[i], &expected, sizeof expected) != 0)
          ck_abort_msg("round %d type %d lane %zu: %a, not %a", round, type, lane, (double)output[i], (double)expected);
      }
    }
    free_pixels(&p);
  }
}
END_TEST

/* 3 * (1 / 3) rounds to 1: a multiplication that is fused with the addition of -1 leaves a rest. */
START_TEST(affine_rounds_twice) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  static const double thirds = 1.0 / 3;
  int32_t integers[LANES];
  float floats[LANES], residual[LANES], output[LANES];
  double factors[2 * LANES];
  for (int lane = 0; lane < LANES; lane++) integers[lane] = 3, floats[lane] = 3;
  for (int round = 0; round < 3; round++) { /* what is a third: the factor, the output's scale, the residual's scale */
    for (int lane = 0; lane < LANES; lane++) {
      factors[lane] = thirds;
      factors[LANES + lane] = round == 0 ? -1 : 0;
      if (round == 1) factors[lane] = 1; /* y = 3 */
      residual[lane] = round == 1 ? 1 : 3;
    }
    for (int type = 0; type < 2; type++) {
      for (int lane = 0; lane < LANES; lane++) output[lane] = 77;
      const struct hwgq_affine_job job = {.accumulators = type ? (void *)floats : integers,
                                          .pixels = 1,
                                          .factors = factors,
                                          .steps = 1,
                                          .lanes = LANES,
                                          .output = output,
                                          .residual = round == 0 ? NULL : residual,
                                          .scale = round == 1 ? thirds : -1,
                                          .residual_scale = round == 1 ? -1 : thirds};
      (type ? kernels->affine_f32 : kernels->affine_i32)(&job);
      for (int lane = 0; lane < LANES; lane++)
        ck_assert_msg(output[lane] == 0, "round %d lane %d: %a", round, lane, (double)output[lane]);
    }
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("kernels_epilogue");
  TCase *tests = tcase_create("kernels_epilogue");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, packing, 0, SETS);
  tcase_add_loop_test(tests, affine, 0, SETS);
  tcase_add_loop_test(tests, affine_rounds_twice, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
