/* Folding against the chain it replaces: for every accumulator, the thresholds give the level that the chain and the quantizer
 * give; the affine steps give its value. */
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/arena.h"
#include "engine/fold.h"
#include "tests/support/support.h"

enum { MAX_LAYERS = 6 };

/* A random chain of one channel, with room for its parameters. */
struct fixture {
  struct hwgq_chain chain;
  struct hwgq_layer layers[MAX_LAYERS], quantize;
  float parameters[MAX_LAYERS][2];
};

static float random_factor(struct support_random *random) {
  const double scale[] = {1, 1, 1e-3, 30, 0};
  return (float)(support_random_normal(random) * scale[support_random_int(random, 0, 4)]);
}

static void random_layer(struct support_random *random, struct hwgq_layer *layer, float parameters[2], enum hwgq_op op) {
  *layer = (struct hwgq_layer){.op = op, .eps = 1e-5f, .has_bias = support_random_chance(random, 0.6)};
  parameters[0] = random_factor(random);
  parameters[1] = random_factor(random);
  layer->has_alpha = support_random_chance(random, 0.6);
  layer->alpha = layer->gamma = layer->mean = &parameters[0];
  layer->bias = layer->beta = layer->variance = &parameters[1];
  if (op == HWGQ_BATCH_NORM) parameters[1] = fabsf(parameters[1]);
}

static void random_quantizer(struct support_random *random, struct hwgq_layer *quantize) {
  static const int levels[] = {1, 2, 3, 7, 15};
  struct hwgq_quantizer design;
  struct hwgq_error error;
  *quantize = (struct hwgq_layer){.op = HWGQ_QUANTIZE, .sign = support_random_chance(random, 0.2)};
  if (quantize->sign) return;
  ck_assert_int_eq(hwgq_quantizer_design(levels[support_random_int(random, 0, 4)], support_random_chance(random, 0.5),
                                         support_random_chance(random, 0.5), &design, &error),
                   HWGQ_OK);
  quantize->level_count = design.level_count;
  memcpy(quantize->centers, design.centers, sizeof quantize->centers);
  memcpy(quantize->thresholds, design.thresholds, sizeof quantize->thresholds);
}

static void random_fixture(struct support_random *random, struct fixture *f) {
  static const enum hwgq_op ops[] = {HWGQ_BATCH_NORM, HWGQ_SCALE, HWGQ_RELU, HWGQ_BATCH_NORM};
  f->chain = (struct hwgq_chain){.unit = support_random_chance(random, 0.5) ? 1 : (double)0.538f};
  f->chain.count = support_random_int(random, 0, MAX_LAYERS);
  for (int i = 0; i < f->chain.count; i++) {
    random_layer(random, &f->layers[i], f->parameters[i], i == 0 ? HWGQ_CONV2D : ops[support_random_int(random, 0, 3)]);
    f->chain.layers[i] = &f->layers[i];
  }
  random_quantizer(random, &f->quantize);
}

START_TEST(integers) {
  struct support_random random = {11};
  for (int round = 0; round < 1500; round++) {
    struct fixture f;
    random_fixture(&random, &f);
    const int bound = support_random_int(&random, 1, 1200), levels = hwgq_quantize_levels(&f.quantize);
    const bool flip = support_random_chance(&random, 0.3);
    int32_t thresholds[HWGQ_MAX_LEVELS];
    bool negate;
    hwgq_fold_i32(&f.chain, 0, flip, &f.quantize, bound, thresholds, 1, &negate);
    for (int x = -bound; x <= bound; x++) {
      const int expected = hwgq_quantize_level(&f.quantize, hwgq_chain_evaluate(&f.chain, 0, flip, x));
      int level = 0;
      for (int j = 0; j < levels; j++) {
        const bool above = (x >= thresholds[j]) != negate;
        if (above != (expected > j)) ck_abort_msg("round %d: level %d at %d", round, j, x);
        level += above;
      }
      if (level != expected) ck_abort_msg("round %d: level %d instead of %d at %d", round, level, expected, x);
    }
  }
}
END_TEST

/* Values that matter: around every threshold, and all magnitudes. */
static double interesting(struct support_random *random, const double *thresholds, int levels) {
  const int kind = support_random_int(random, 0, 5);
  double x = thresholds[support_random_int(random, 0, levels - 1)];
  if (kind == 0) return support_random_normal(random) * pow(10, support_random_int(random, -6, 6));
  if (kind == 1) return support_random_normal(random);
  if (!isfinite(x)) x = support_random_chance(random, 0.5) ? 0.0 : -0.0;
  return kind == 2 ? nextafterf((float)x, -FLT_MAX) : kind == 3 ? nextafterf((float)x, FLT_MAX) : x;
}

START_TEST(floats) {
  const double BOUND = 1e9;
  struct support_random random = {12};
  for (int round = 0; round < 1500; round++) {
    struct fixture f;
    random_fixture(&random, &f);
    const int levels = hwgq_quantize_levels(&f.quantize);
    const bool flip = support_random_chance(&random, 0.3);
    float single[HWGQ_MAX_LEVELS];
    double both[2][HWGQ_MAX_LEVELS];
    bool negate[2];
    hwgq_fold_f32(&f.chain, 0, flip, &f.quantize, single, 1, &negate[0]);
    hwgq_fold_f64(&f.chain, 0, flip, &f.quantize, BOUND, both[1], 1, &negate[1]);
    for (int j = 0; j < levels; j++) both[0][j] = (double)single[j];
    for (int type = 0; type < 2; type++) {
      for (int i = 0; i < 400; i++) {
        double x = interesting(&random, both[type], levels);
        if (type == 0) x = (double)(float)x;
        if (type == 1 && fabs(x) > BOUND) continue;
        const int expected = hwgq_quantize_level(&f.quantize, hwgq_chain_evaluate(&f.chain, 0, flip, x));
        for (int j = 0; j < levels; j++) {
          const bool above = (x >= both[type][j]) != negate[type];
          if (above != (expected > j)) ck_abort_msg("round %d type %d: level %d at %.17g", round, type, j, x);
        }
      }
    }
  }
}
END_TEST

/* A channel that has died: its gain is so large that accumulators that it cannot have overflow, and then scaled to nothing. */
START_TEST(large_gains) {
  float no_variance = 0, no_mean = 0, nothing = 0, offset = 1;
  struct hwgq_layer layers[2] = {{.op = HWGQ_BATCH_NORM, .eps = 1e-20f, .mean = &no_mean, .variance = &no_variance},
                                 {.op = HWGQ_SCALE, .gamma = &nothing, .beta = &offset, .has_bias = true}};
  struct hwgq_chain chain = {.unit = 1, .count = 2, .layers = {&layers[0], &layers[1]}};
  struct hwgq_layer quantize = {.op = HWGQ_QUANTIZE, .level_count = 1, .centers = {1}, .thresholds = {0}};
  double threshold;
  bool negate;
  hwgq_fold_f64(&chain, 0, false, &quantize, 9, &threshold, 1, &negate);
  for (int x = -9; x <= 9; x++) ck_assert(((double)x >= threshold) != negate);
}
END_TEST

START_TEST(affine) {
  struct support_random random = {13};
  for (int round = 0; round < 3000; round++) {
    struct fixture f;
    random_fixture(&random, &f);
    double a[HWGQ_MAX_CHAIN + 1], b[HWGQ_MAX_CHAIN + 1];
    uint32_t relu, relu_again, rounding;
    const bool flip = support_random_chance(&random, 0.3);
    const int steps = hwgq_fold_affine(&f.chain, 0, flip, a, b, 1, &relu, &rounding);
    ck_assert_int_ge(steps, 1);
    ck_assert_int_le(steps, HWGQ_MAX_CHAIN + 1);
    ck_assert_int_eq(hwgq_fold_affine(&f.chain, 0, flip, NULL, NULL, 0, &relu_again, &rounding), steps);
    ck_assert_uint_eq(relu, relu_again);
    for (int i = 0; i < 20; i++) {
      const double x = support_random_int(&random, -500, 500), expected = hwgq_chain_evaluate(&f.chain, 0, flip, x);
      double y = x, size = fabs(x); /* largest term: what cancellation is relative to */
      for (int s = 0; s < steps; s++) {
        size = fabs(a[s]) * size + fabs(b[s]);
        y = a[s] * y + b[s];
        if (relu >> s & 1) y = y > 0 ? y : 0;
        if (rounding >> s & 1) y = (double)(float)y;
      }
      ck_assert_double_le(fabs(y - expected), 1e-11 * (1 + size));
    }
  }
}
END_TEST

START_TEST(arena) {
  struct hwgq_arena memory = {NULL};
  size_t total = 0;
  ck_assert_ptr_null(hwgq_arena_allocate(&memory, SIZE_MAX / 2, 4));
  ck_assert_ptr_null(hwgq_arena_allocate(&memory, SIZE_MAX, 1));
  for (size_t size = 1; size < 3000000; size = size * 3 + 1) {
    uint8_t *piece = hwgq_arena_allocate(&memory, size, 1);
    ck_assert_ptr_nonnull(piece);
    ck_assert_uint_eq((uintptr_t)piece % 64, 0);
    for (size_t i = 0; i < size; i++) {
      if (piece[i]) ck_abort_msg("byte %zu of %zu is not 0", i, size);
    }
    memset(piece, 0xff, size);
    total += size;
  }
  ck_assert_uint_ge(hwgq_arena_bytes(&memory), total);
  ck_assert_str_eq(hwgq_arena_format(&memory, "%s_%d", "kernel", 7), "kernel_7");
  hwgq_arena_free(&memory);
  ck_assert_uint_eq(hwgq_arena_bytes(&memory), 0);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("fold");
  TCase *tests = tcase_create("fold");
  tcase_set_timeout(tests, 120);
  tcase_add_test(tests, integers);
  tcase_add_test(tests, floats);
  tcase_add_test(tests, large_gains);
  tcase_add_test(tests, affine);
  tcase_add_test(tests, arena);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
