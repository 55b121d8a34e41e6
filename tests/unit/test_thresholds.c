/* hwgq_plan_thresholds: the thresholds that a plan reports give the codes that the reference gives. Run from the repository's
 * root. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/verify/verify.h"
#include "tests/support/support.h"

static struct hwgq_error failure;

static void must(enum hwgq_status status) {
  ck_assert_msg(status == HWGQ_OK, "%s", failure.message);
}

static int find_stage(const struct hwgq_plan *plan, const char *name) {
  for (int s = 0; s < hwgq_plan_stage_count(plan); s++) {
    if (strcmp(hwgq_plan_stage(plan, s).name, name) == 0) return s;
  }
  ck_abort_msg("there is no stage '%s'", name);
  return -1;
}

/* In units of the input quantizer's step for whole numbers, else as it is. */
static double accumulator(const struct hwgq_layer *layer, int channel, double output, double unit) {
  const double bias = layer->has_bias ? (double)layer->bias[channel] : 0;
  const double alpha = layer->has_alpha ? (double)layer->alpha[channel] : 1;
  const double sum = (output - bias) / alpha / unit;
  return unit == 1 ? sum : round(sum);
}

/* A binary layer `weighted` whose stage ends in the quantizer `quantizer`. */
static void check_stage(const struct hwgq_network *network, const struct hwgq_plan *plan,
                        const struct hwgq_reference *reference, const char *weighted, const char *quantizer, bool integers) {
  const int w = hwgq_network_find(network, weighted), q = hwgq_network_find(network, quantizer);
  const struct hwgq_layer *layer = &network->layers[w], *input = &network->layers[layer->inputs[0]];
  const double *outputs = hwgq_reference_output(reference, w), *levels = hwgq_reference_output(reference, q);
  const size_t plane = (size_t)layer->output.height * (size_t)layer->output.width;
  const int stage = find_stage(plan, weighted);
  ck_assert_int_eq(hwgq_plan_stage(plan, stage).last_layer, q);
  int reversed = 0;
  for (int c = 0; c < layer->output.channels; c++) {
    const struct hwgq_thresholds t = hwgq_plan_thresholds(plan, stage, c);
    ck_assert_int_eq(t.channels, layer->output.channels);
    ck_assert_int_eq(t.count, network->layers[q].sign ? 1 : network->layers[q].level_count);
    ck_assert(t.integers == integers && !t.constant);
    reversed += t.reversed;
    for (size_t i = 0; i < plane; i++) {
      const double a = accumulator(layer, c, outputs[(size_t)c * plane + i], integers ? (double)input->centers[0] : 1);
      int code = 0;
      for (int j = 0; j < t.count; j++) code += (a >= t.thresholds[j]) != t.reversed;
      ck_assert_int_eq(code, verify_code(&network->layers[q], levels[(size_t)c * plane + i]));
    }
  }
  if (strcmp(weighted, "u1_c3") == 0) ck_assert_int_eq(reversed, 6); /* its scale has 6 negative gammas */
}

START_TEST(thresholds_give_the_codes) {
  struct hwgq_model *model = NULL;
  struct golden *golden = NULL;
  struct hwgq_plan *plan = NULL;
  struct hwgq_reference *reference = NULL;
  must(golden_import("tests/golden/mini", "tests/golden/mini/model.caffemodel", &model, &failure));
  must(golden_open("tests/golden/mini", &golden, &failure));
  must(hwgq_plan_create(model->network, &model->preprocess, NULL, &plan, &failure));
  must(hwgq_reference_create(model->network, &reference, &failure));
  must(hwgq_reference_run(reference, golden->input, &failure));
  check_stage(model->network, plan, reference, "u1_c3", "u1_q2", true);
  check_stage(model->network, plan, reference, "fa", "fb_q", true);
  check_stage(model->network, plan, reference, "inc_b2_r", "inc_b2_q", false);
  ck_assert_int_eq(hwgq_plan_thresholds(plan, find_stage(plan, "fc"), 0).channels, 0);
  hwgq_reference_destroy(reference);
  hwgq_plan_destroy(plan);
  golden_close(golden);
  hwgq_model_destroy(model);
}
END_TEST

/* A channel whose scale is 0 gives one level only. */
START_TEST(constant_channels) {
  struct hwgq_model *model = NULL;
  struct hwgq_plan *plan = NULL;
  must(golden_import("tests/golden/mini", "tests/golden/mini/model.caffemodel", &model, &failure));
  struct hwgq_network *network = model->network;
  network->layers[hwgq_network_find(network, "u1_sc")].gamma[33] = 0;
  must(hwgq_plan_create(network, &model->preprocess, NULL, &plan, &failure));
  const int stage = find_stage(plan, "u1_c3");
  for (int c = 0; c < 36; c++) ck_assert(hwgq_plan_thresholds(plan, stage, c).constant == (c == 33));
  hwgq_plan_destroy(plan);
  hwgq_model_destroy(model);
}
END_TEST

/* One layer at a time is the same run, and later layers take a replaced output. */
START_TEST(reference_in_steps) {
  struct hwgq_model *model = NULL;
  struct golden *golden = NULL;
  struct hwgq_reference *whole = NULL, *steps = NULL;
  must(golden_import("tests/golden/mini", "tests/golden/mini/model.caffemodel", &model, &failure));
  must(golden_open("tests/golden/mini", &golden, &failure));
  const struct hwgq_network *network = model->network;
  const int relu = hwgq_network_find(network, "stem_relu"), last = network->layer_count - 1;
  must(hwgq_reference_create(network, &whole, &failure));
  must(hwgq_reference_create(network, &steps, &failure));
  must(hwgq_reference_run(whole, golden->input, &failure));
  for (int round = 0; round < 2; round++) {
    must(hwgq_reference_begin(steps, golden->input, &failure));
    for (int i = 0; i <= last; i++) {
      hwgq_reference_step(steps, i);
      if (round == 0 || i != relu) continue;
      double *zeros = calloc((size_t)hwgq_shape_elements(network->layers[i].output), sizeof *zeros);
      hwgq_reference_replace(steps, i, zeros);
      free(zeros);
    }
    const bool same = memcmp(hwgq_reference_output(whole, last), hwgq_reference_output(steps, last), 10 * sizeof(double)) == 0;
    ck_assert(same == (round == 0));
  }
  hwgq_reference_destroy(whole);
  hwgq_reference_destroy(steps);
  golden_close(golden);
  hwgq_model_destroy(model);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("thresholds");
  TCase *cases = tcase_create("mini");
  tcase_set_timeout(cases, 120);
  tcase_add_test(cases, thresholds_give_the_codes);
  tcase_add_test(cases, constant_channels);
  tcase_add_test(cases, reference_in_steps);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
