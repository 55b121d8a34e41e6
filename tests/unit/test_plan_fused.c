/* What the planner folds into the layers before it: residual sums and the quantizers that read them, concatenations, poolings
 * of joined levels. Each network against the reference executor, on every kernel set and form, with memory that is kept and
 * with memory that is reused; and the stages that must not exist. */
#include <stdio.h>

#include "engine/plan.h"
#include "tests/support/verify_plan.h"

enum { KINDS = 7 }; /* of quantizers: add_quantize */

/* Stages whose kernel's name is `kernel`. */
static int count_stages(const struct hwgq_plan *plan, const char *kernel) {
  int count = 0;
  for (int s = 0; s < hwgq_plan_stage_count(plan); s++) count += strcmp(hwgq_plan_stage(plan, s).kernel, kernel) == 0;
  return count;
}

/* A plan of a network without values. */
static struct hwgq_plan *plan_of(struct hwgq_network *network) {
  struct hwgq_plan *plan;
  struct hwgq_error error = {""};
  struct support_random random = {1};
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  support_fill_parameters(network, &random);
  ck_assert_msg(hwgq_plan_create(network, NULL, NULL, &plan, &error) == HWGQ_OK, "%s", error.message);
  return plan;
}

static void expect_stages(struct hwgq_network *network, const char *kernel, int expected) {
  struct hwgq_plan *plan = plan_of(network);
  ck_assert_msg(count_stages(plan, kernel) == expected, "%d stages '%s', not %d", count_stages(plan, kernel), kernel, expected);
  hwgq_plan_destroy(plan);
}

/* ---- residual sums ---------------------------------------------------------------------------------------------------------
 */

/* conv -> batch norm -> scale -> quantizer, reading `input`. */
static void add_block(struct hwgq_network *network, const char *name, const char *input, int out, int kernel, int groups,
                      int kind) {
  char bn[32], scale[32], q[32];
  snprintf(bn, sizeof bn, "%s_bn", name);
  snprintf(scale, sizeof scale, "%s_scale", name);
  snprintf(q, sizeof q, "%s_q", name);
  add_conv(network, name, input, out, kernel, kernel / 2, groups);
  support_add(network, bn, HWGQ_BATCH_NORM, name);
  support_add(network, scale, HWGQ_SCALE, bn);
  if (kind >= 0) add_quantize(network, q, scale, kind);
}

/* Batch norm and quantizer of a sum. */
static void add_normalized(struct hwgq_network *network, const char *name, const char *input, int kind) {
  char bn[32];
  snprintf(bn, sizeof bn, "%s_bn", name);
  support_add(network, bn, HWGQ_BATCH_NORM, input);
  add_quantize(network, name, bn, kind);
}

/* Three sums in a row. The first is read by a quantizer and the next sum, the second by two quantizers, the next sum and an
 * average, the third after a relu by a quantizer only. */
static struct hwgq_network *sums(int channels, int groups, int kind) {
  struct hwgq_network *network = start(3, 10, 9);
  add_conv(network, "stem", "input", channels, 3, 1, 1);
  add_normalized(network, "q0", "stem", kind);
  add_block(network, "a", "q0", channels, 3, groups, -1);
  join(network, "sum1", HWGQ_ADD, "stem", "a_scale");
  add_normalized(network, "q1", "sum1", kind);
  add_block(network, "b", "q1", 40, 1, 1, kind);
  add_block(network, "c", "b_q", channels, 3, 1, -1);
  struct hwgq_layer *sum2 = join(network, "sum2", HWGQ_ADD, "c_scale", "sum1");
  sum2->coefficients[0] = 0.75f;
  sum2->coefficients[1] = -1.25f;
  add_normalized(network, "q2", "sum2", kind);
  add_normalized(network, "q2b", "sum2", 2);
  struct hwgq_layer *average = support_add(network, "average", HWGQ_AVG_POOL, "sum2");
  average->kernel_height = average->kernel_width = 3;
  average->stride_height = average->stride_width = 2;
  add_block(network, "d", "q2", channels, 3, groups, -1);
  add_block(network, "e", "q2b", 33, 3, 1, -1);
  join(network, "sum3", HWGQ_ADD, "sum2", "d_scale");
  support_add(network, "relu", HWGQ_RELU, "sum3");
  add_normalized(network, "q3", "relu", kind);
  add_block(network, "f", "q3", 21, 1, 1, -1);
  join(network, "cat", HWGQ_CONCAT, "e_scale", "f_scale");
  support_add(network, "flat", HWGQ_FLATTEN, "cat");
  support_add(network, "flat2", HWGQ_FLATTEN, "average");
  support_add(network, "fc", HWGQ_LINEAR, "flat")->out_channels = 9;
  support_add(network, "fc2", HWGQ_LINEAR, "flat2")->out_channels = 8;
  join(network, "scores", HWGQ_CONCAT, "fc", "fc2");
  return network;
}

/* Whole blocks of channels, also in groups; groups that blocks of 32 straddle; and an odd number. */
START_TEST(residual_sums) {
  static const int channels[] = {64, 96, 45, 64, 96}, groups[] = {1, 3, 1, 4, 2}; /* 96 / 2: blocks cross words */
  for (int i = 0; i < 5; i++) {
    finish_and_verify(sums(channels[i], groups[i], _i), 5000u + 10u * (unsigned)_i + (unsigned)i);
  }
}
END_TEST

/* Sums are part of the convolutions before them, and so are all quantizers but the second one of a sum. */
START_TEST(sums_are_no_stages) {
  struct hwgq_network *network = sums(64, 1, 2);
  struct hwgq_plan *plan = plan_of(network);
  ck_assert_int_eq(count_stages(plan, "add"), 0);
  ck_assert_int_eq(count_stages(plan, "affine"), 0);
  ck_assert_int_eq(count_stages(plan, "quantize"), 1);
  ck_assert_int_eq(count_stages(plan, "concat"), 0);
  ck_assert_int_eq(hwgq_plan_stage_count(plan), 12); /* input, 7 convolutions, quantizer, average, 2 linear layers */
  hwgq_plan_destroy(plan);
  hwgq_network_destroy(network);
}
END_TEST

/* A sum of three, and of tensors with different orders of channels in memory: a stage of its own. */
START_TEST(sums_of_three) {
  struct hwgq_network *network = start(64, 7, 6);
  struct hwgq_layer *sum;
  struct hwgq_error error;
  const char *const inputs[] = {"a_scale", "input", "b_scale"};
  add_quantize(network, "q", "input", _i);
  add_block(network, "a", "q", 64, 3, 1, -1);
  add_block(network, "b", "q", 64, 1, 1, -1);
  ck_assert_int_eq(hwgq_network_add(network, "sum", HWGQ_ADD, 3, inputs, &sum, &error), HWGQ_OK);
  sum->coefficients[1] = 0.5f;
  add_normalized(network, "q1", "sum", _i);
  add_block(network, "c", "q1", 64, 3, 1, -1);
  join(network, "sum2", HWGQ_ADD, "sum", "c_scale");
  support_add(network, "average", HWGQ_AVG_POOL, "sum2")->global_pool = true;
  finish_and_verify(network, 5100u + (unsigned)_i);
}
END_TEST

/* The same float tensor as input and as residual of a convolution of floats is not overwritten while it is read. */
START_TEST(float_residual) {
  struct hwgq_network *network = start(64, 9, 9); /* the second block of channels reads what the first one must not change */
  add_conv(network, "a", "input", 64, 3, 1, 1);
  join(network, "sum", HWGQ_ADD, "a", "input");
  add_conv(network, "b", "sum", 64, 3, 1, 1);
  network->layers[2].binary = network->layers[2].has_alpha = false;
  join(network, "sum2", HWGQ_ADD, "b", "sum");
  support_add(network, "relu", HWGQ_RELU, "sum2");
  support_add(network, "average", HWGQ_AVG_POOL, "relu")->global_pool = true;
  finish_and_verify(network, 5200);
}
END_TEST

/* ---- concatenations --------------------------------------------------------------------------------------------------------
 */

static const int aligned[] = {64, 32, 48}, unaligned[] = {21, 40, 77, 3};

/* Branches of `q` that are joined; with own quantizers when kind >= 0. A branch may pool. */
static void add_branches(struct hwgq_network *network, const int *channels, int count, int kind, bool backwards, bool pooled) {
  static const char *const names[] = {"p0", "p1", "p2", "p3"};
  char ends[4][32];
  const char *inputs[4];
  for (int i = 0; i < count; i++) {
    const int k = backwards ? count - 1 - i : i;
    if (pooled && k == 1) {
      char last[32];
      snprintf(last, sizeof last, "%s_pool", names[k]);
      add_conv(network, names[k], "q", channels[k], 1, 0, 1);
      add_pool(network, last, names[k], 3, 1, 1);
      support_add(network, "p1_scale", HWGQ_SCALE, last);
      if (kind >= 0) add_quantize(network, "p1_q", "p1_scale", kind);
    } else {
      add_block(network, names[k], "q", channels[k], k % 2 ? 1 : 3, 1, kind);
    }
    snprintf(ends[k], sizeof ends[k], "%s_%s", names[k], kind >= 0 ? "q" : "scale");
    inputs[k] = ends[k];
  }
  struct hwgq_layer *layer;
  struct hwgq_error error;
  ck_assert_int_eq(hwgq_network_add(network, "cat", HWGQ_CONCAT, count, inputs, &layer, &error), HWGQ_OK);
}

static struct hwgq_network *branches(int variant, int kind, bool own) {
  struct hwgq_network *network = start(37, 8, 7);
  const bool whole = variant == 0;
  add_quantize(network, "q", "input", kind);
  add_branches(network, whole ? aligned : unaligned, whole ? 3 : 4, own ? kind : -1, variant == 2, variant == 1);
  return network;
}

/* Levels are written where the joined tensor has them. */
START_TEST(joined_levels) {
  for (int variant = 0; variant < 3; variant++) {
    struct hwgq_network *network = branches(variant, _i, true);
    add_block(network, "end", "cat", 50, 3, 1, -1);
    finish_and_verify(network, 5300u + 10u * (unsigned)_i + (unsigned)variant);
  }
}
END_TEST

/* The normalization and quantizer after a concat are those of its inputs' stages. */
START_TEST(joined_chain) {
  for (int variant = 0; variant < 3; variant++) {
    struct hwgq_network *network = branches(variant, _i, false);
    support_add(network, "cat_bn", HWGQ_BATCH_NORM, "cat");
    support_add(network, "cat_scale", HWGQ_SCALE, "cat_bn");
    if (variant == 1) support_add(network, "cat_relu", HWGQ_RELU, "cat_scale");
    add_quantize(network, "cat_q", variant == 1 ? "cat_relu" : "cat_scale", _i);
    add_block(network, "end", "cat_q", 50, 3, 1, -1);
    finish_and_verify(network, 5400u + 10u * (unsigned)_i + (unsigned)variant);
  }
}
END_TEST

/* Pooled between: on levels, of which the lowest counts where the scale is negative. */
START_TEST(joined_pool) {
  for (int variant = 0; variant < 3; variant++) {
    struct hwgq_network *network = branches(variant, _i, false);
    add_pool(network, "cat_pool", "cat", 3, variant + 1, variant == 2);
    support_add(network, "cat_bn", HWGQ_BATCH_NORM, "cat_pool");
    support_add(network, "cat_scale", HWGQ_SCALE, "cat_bn");
    add_quantize(network, "cat_q", "cat_scale", _i);
    add_block(network, "end", "cat_q", 50, 1, 1, -1);
    finish_and_verify(network, 5500u + 10u * (unsigned)_i + (unsigned)variant);
  }
}
END_TEST

/* Floats: with a normalization and relu to an average, pooled as floats, and with two users. */
START_TEST(joined_floats) {
  for (int variant = 0; variant < 3; variant++) {
    struct hwgq_network *network = branches(variant, _i, false);
    const char *last = "cat";
    if (variant == 0) {
      support_add(network, "cat_bn", HWGQ_BATCH_NORM, "cat");
      support_add(network, "cat_relu", HWGQ_RELU, "cat_bn");
      last = "cat_relu";
    } else if (variant == 1) {
      add_pool(network, "cat_pool", "cat", 2, 2, 0);
      support_add(network, "cat_bn", HWGQ_BATCH_NORM, "cat_pool");
      last = "cat_bn";
    } else {
      add_normalized(network, "cat_q", "cat", _i);
      add_block(network, "side", "cat_q", 141, 3, 1, -1);
      join(network, "sum", HWGQ_ADD, "side_scale", "cat");
      last = "sum";
    }
    support_add(network, "average", HWGQ_AVG_POOL, last)->global_pool = true;
    finish_and_verify(network, 5600u + 10u * (unsigned)_i + (unsigned)variant);
  }
}
END_TEST

/* Linear layers are joined too, and a branch with another user is not. */
START_TEST(joined_others) {
  struct hwgq_network *network = start(37, 4, 4);
  add_quantize(network, "q", "input", _i);
  support_add(network, "flat", HWGQ_FLATTEN, "q");
  struct hwgq_layer *fc = support_add(network, "fc", HWGQ_LINEAR, "flat");
  fc->out_channels = 45;
  fc->binary = true;
  support_add(network, "fc2", HWGQ_LINEAR, "input")->out_channels = 39;
  join(network, "cat", HWGQ_CONCAT, "fc", "fc2");
  add_quantize(network, "cat_q", "cat", _i);
  struct hwgq_layer *fc3 = support_add(network, "fc3", HWGQ_LINEAR, "cat_q");
  fc3->out_channels = 12;
  fc3->binary = true;
  support_add(network, "fc4", HWGQ_LINEAR, "cat_q")->out_channels = 12;
  join(network, "sum", HWGQ_ADD, "fc3", "fc4");
  join(network, "cat2", HWGQ_CONCAT, "sum", "fc4");
  finish_and_verify(network, 5700u + (unsigned)_i);
}
END_TEST

/* The sum of a concatenation and of a convolution that comes before its last part. */
START_TEST(joined_late) {
  struct hwgq_network *network = start(64, 6, 5);
  add_quantize(network, "q", "input", _i);
  add_block(network, "a", "q", 32, 3, 1, -1);
  add_block(network, "c", "q", 64, 1, 1, -1);
  add_block(network, "b", "q", 32, 3, 1, -1);
  join(network, "cat", HWGQ_CONCAT, "a_scale", "b_scale");
  join(network, "sum", HWGQ_ADD, "cat", "c_scale");
  support_add(network, "average", HWGQ_AVG_POOL, "sum")->global_pool = true;
  finish_and_verify(network, 5800u + (unsigned)_i);
}
END_TEST

START_TEST(concats_are_no_stages) {
  struct hwgq_network *network = branches(1, 2, true);
  expect_stages(network, "concat_packed", 0);
  hwgq_network_destroy(network);
  network = branches(2, 2, true); /* parts share words and are not written in their order */
  expect_stages(network, "concat_packed", 1);
  hwgq_network_destroy(network);
  network = branches(2, 2, false);
  add_pool(network, "cat_pool", "cat", 2, 2, 0);
  add_quantize(network, "cat_q", "cat_pool", 2);
  expect_stages(network, "max_pool", 1); /* in that order, it stays with the floats */
  hwgq_network_destroy(network);
  network = branches(1, 2, false);
  add_pool(network, "cat_pool", "cat", 2, 2, 0);
  add_quantize(network, "cat_q", "cat_pool", 2);
  expect_stages(network, "max_pool_packed", 1);
  expect_stages(network, "quantize", 1); /* of the input */
  expect_stages(network, "concat", 0);
  hwgq_network_destroy(network);
}
END_TEST

/* A relu and a negative scale before a pooling are folded with it. */
START_TEST(pool_after_chain) {
  for (int variant = 0; variant < 2; variant++) {
    struct hwgq_network *network = start(3, 12, 13);
    add_conv(network, "stem", "input", 50, 3, 1, 1);
    support_add(network, "relu", HWGQ_RELU, "stem");
    add_pool(network, "pool", "relu", 3, 2, 1);
    add_normalized(network, "q", "pool", _i);
    add_conv(network, "conv", "q", 70, 3, 1, 1);
    support_add(network, "bn", HWGQ_BATCH_NORM, "conv");
    support_add(network, "scale", HWGQ_SCALE, "bn");
    add_pool(network, "pool2", "scale", 2, 2, 0);
    support_add(network, "relu2", HWGQ_RELU, "pool2");
    if (variant) add_normalized(network, "q2", "relu2", _i);
    finish_and_verify(network, 5800u + 10u * (unsigned)_i + (unsigned)variant);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("plan_fused");
  TCase *tests = tcase_create("plan_fused");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, residual_sums, 0, KINDS);
  tcase_add_test(tests, sums_are_no_stages);
  tcase_add_loop_test(tests, sums_of_three, 0, KINDS);
  tcase_add_test(tests, float_residual);
  tcase_add_loop_test(tests, joined_levels, 0, KINDS);
  tcase_add_loop_test(tests, joined_chain, 0, KINDS);
  tcase_add_loop_test(tests, joined_pool, 0, KINDS);
  tcase_add_loop_test(tests, joined_floats, 0, KINDS);
  tcase_add_loop_test(tests, joined_others, 0, KINDS);
  tcase_add_loop_test(tests, joined_late, 0, KINDS);
  tcase_add_test(tests, concats_are_no_stages);
  tcase_add_loop_test(tests, pool_after_chain, 0, KINDS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
