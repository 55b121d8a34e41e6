/* The planner and the runner against the reference executor, on random networks and on the corners that random networks rarely
 * reach; and the kernel sets against each other, bit for bit. */
#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"
#include "tests/support/verify_plan.h"

START_TEST(random_networks) {
  const unsigned networks = (unsigned)support_rounds(150);
  int moved = 0;
  size_t compared = 0;
  for (unsigned seed = 0; seed < networks; seed++) {
    struct support_random random = {seed};
    struct hwgq_network *network = support_random_network(&random);
    for (int image = 0; image < 2; image++) {
      float *input = support_random_input(network->input, &random);
      compared += verify(network, input, seed, &moved);
      free(input);
    }
    hwgq_network_destroy(network);
  }
  ck_assert_uint_gt(compared, 700 * networks);
  ck_assert_uint_le((unsigned)moved, 2 * networks / 10);
}
END_TEST

/* ---- corners ------------------------------------------------------------------------------------------------------------- */

/* Levels are pooled, concatenated, flattened, added and normalized without a quantizer of their own. */
START_TEST(packed_operations) {
  struct hwgq_network *network = start(37, 9, 7);
  add_quantize(network, "q", "input", _i);
  add_pool(network, "pool", "q", 3, 2, 1);
  add_conv(network, "a", "pool", 45, 3, 1, 1);
  add_quantize(network, "aq", "a", _i);
  join(network, "cat", HWGQ_CONCAT, "pool", "aq");
  add_conv(network, "b", "cat", 40, 1, 0, 1);
  support_add(network, "bn", HWGQ_BATCH_NORM, "cat");
  add_conv(network, "c", "bn", 40, 3, 1, 2);
  join(network, "sum", HWGQ_ADD, "b", "c")->coefficients[0] = -0.25f;
  add_quantize(network, "sumq", "sum", _i);
  join(network, "levels", HWGQ_ADD, "sumq", "sumq");
  support_add(network, "flat", HWGQ_FLATTEN, "sumq");
  support_add(network, "flatbn", HWGQ_BATCH_NORM, "flat");
  support_add(network, "flat2", HWGQ_FLATTEN, "levels");
  struct hwgq_layer *fc = support_add(network, "fc", HWGQ_LINEAR, "flat");
  fc->out_channels = 33;
  fc->binary = true;
  struct hwgq_layer *fc2 = support_add(network, "fc2", HWGQ_LINEAR, "flat2");
  fc2->out_channels = 33;
  struct hwgq_layer *fc3 = support_add(network, "fc3", HWGQ_LINEAR, "flatbn");
  fc3->out_channels = 33;
  join(network, "ends", HWGQ_CONCAT, "fc", "fc2");
  join(network, "all", HWGQ_CONCAT, "ends", "fc3");
  finish_and_verify(network, 1000u + (unsigned)_i);
}
END_TEST

/* Folded pooling of negative, zero and positive alphas, in bands that share rows; groups whose channels straddle words. */
START_TEST(pooled_groups) {
  static const int kernels[] = {2, 3, 5}, strides[] = {2, 1, 3}, widths[] = {90, 13, 201};
  for (int k = 0; k < support_rounds(3); k++) {
    struct hwgq_network *network = start(3, 23, widths[k]);
    add_conv(network, "stem", "input", 60, 3, 1, 1);
    add_quantize(network, "q", "stem", _i);
    add_conv(network, "conv", "q", 70, 3, 2, 5);
    add_pool(network, "pool", "conv", kernels[k], strides[k], kernels[k] / 2);
    support_add(network, "bn", HWGQ_BATCH_NORM, "pool");
    support_add(network, "scale", HWGQ_SCALE, "bn");
    add_quantize(network, "q2", "scale", 2);
    finish_and_verify(network, 2000u + 10u * (unsigned)_i + (unsigned)k);
  }
}
END_TEST

/* A relu inside a chain; a pooling whose input has two users; chains that end without a quantizer; a strided wide pad. */
START_TEST(chains) {
  struct hwgq_network *network = start(2, 11, 12);
  add_conv(network, "stem", "input", 48, 5, 4, 1);
  network->layers[0].stride_height = 2;
  network->layers[0].stride_width = 3;
  support_add(network, "relu", HWGQ_RELU, "stem");
  support_add(network, "bn", HWGQ_BATCH_NORM, "relu");
  add_quantize(network, "q", "bn", _i);
  add_conv(network, "conv", "q", 50, 3, 1, 1);
  add_pool(network, "pool", "conv", 2, 2, 0);
  support_add(network, "scale", HWGQ_SCALE, "pool");
  support_add(network, "relu2", HWGQ_RELU, "scale");
  support_add(network, "bn2", HWGQ_BATCH_NORM, "relu2");
  support_add(network, "relu3", HWGQ_RELU, "conv");
  struct hwgq_layer *average = support_add(network, "average", HWGQ_AVG_POOL, "relu3");
  average->kernel_height = average->kernel_width = 3;
  average->stride_height = average->stride_width = 2;
  join(network, "cat", HWGQ_CONCAT, "bn2", "average");
  finish_and_verify(network, 3000u + (unsigned)_i);
}
END_TEST

/* More normalizations in a row than one chain holds. */
START_TEST(long_chain) {
  struct hwgq_network *network = start(3, 5, 5);
  char last[16] = "conv", name[16];
  add_conv(network, "conv", "input", 20, 3, 1, 1);
  for (int i = 0; i < 40; i++) {
    snprintf(name, sizeof name, "bn%d", i);
    support_add(network, name, i % 5 == 4 ? HWGQ_RELU : HWGQ_BATCH_NORM, last);
    strcpy(last, name);
  }
  add_quantize(network, "q", last, 2);
  finish_and_verify(network, 4000);
}
END_TEST

/* 0.3 in float32 is not three times 0.1, and a sum that is 0 in multiples would not be 0 with it: the levels are multiples, for
 * the engine and for the reference. */
START_TEST(rounded_multiples) {
  enum { INPUTS = 4, OUTPUTS = 8, PLACES = 200 };
  struct hwgq_error error;
  struct support_random random = {77};
  struct hwgq_network *network = start(INPUTS, 1, PLACES);
  struct hwgq_layer *quantize = support_add(network, "q", HWGQ_QUANTIZE, "input");
  quantize->level_count = 3;
  for (int j = 0; j < 3; j++) {
    quantize->centers[j] = (float)(0.1 * (j + 1));
    quantize->thresholds[j] = (float)j;
  }
  add_conv(network, "conv", "q", OUTPUTS, 1, 0, 1);
  network->layers[1].has_alpha = network->layers[1].has_bias = false;
  quantize = support_add(network, "q2", HWGQ_QUANTIZE, "conv");
  quantize->level_count = 1;
  quantize->centers[0] = 1;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  for (int c = 0; c < OUTPUTS; c++) network->layers[1].weight_bits[c] = (uint64_t)support_random_int(&random, 0, 15);
  float input[INPUTS * PLACES], levels[OUTPUTS * PLACES];
  for (int i = 0; i < INPUTS * PLACES; i++) input[i] = (float)support_random_int(&random, 0, 3);
  struct hwgq_reference *reference;
  struct hwgq_plan *plan;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_OK);
  void *scratch = aligned_alloc(64, (hwgq_plan_scratch_bytes(plan) + 63) / 64 * 64);
  ck_assert_ptr_nonnull(scratch);
  hwgq_run_tensor(plan, scratch, input, levels);
  const double *sums = hwgq_reference_output(reference, 1), *expected = hwgq_reference_output(reference, 2);
  int zeros = 0;
  for (int i = 0; i < OUTPUTS * PLACES; i++) {
    ck_assert_double_eq((double)levels[i], expected[i]);
    ck_assert(sums[i] == 0 || fabs(sums[i]) > 0.09);
    zeros += sums[i] == 0;
  }
  ck_assert_int_gt(zeros, 50);
  free(scratch);
  hwgq_plan_destroy(plan);
  hwgq_reference_destroy(reference);
  hwgq_network_destroy(network);
}
END_TEST

/* ---- the interface ---------------------------------------------------------------------------------------------------------
 */

/* Pixels through preprocessing give what the preprocessed tensor gives; profiled and plain runs agree. */
START_TEST(pixels) {
  struct support_random random = {77};
  for (int round = 0; round < 10; round++) {
    struct hwgq_model *model = support_random_model(&random);
    const struct hwgq_network *network = model->network;
    struct hwgq_plan *plan;
    struct hwgq_error error;
    ck_assert_int_eq(hwgq_plan_create(network, &model->preprocess, NULL, &plan, &error), HWGQ_OK);
    const size_t count = elements(network->input), bytes = (size_t)hwgq_plan_output_count(plan) * sizeof(float);
    uint8_t *image = malloc(count);
    float *input = malloc(count * sizeof(float)), *scores[3] = {malloc(bytes), malloc(bytes), malloc(bytes)};
    uint64_t *times = malloc((size_t)hwgq_plan_stage_count(plan) * sizeof *times);
    void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
    for (size_t i = 0; i < count; i++) image[i] = (uint8_t)support_random_next(&random);
    hwgq_preprocess_to_float(&model->preprocess, network->input, image, input);
    hwgq_run(plan, scratch, image, scores[0]);
    hwgq_run_tensor(plan, scratch, input, scores[1]);
    hwgq_run_profiled(plan, scratch, image, scores[2], times);
    ck_assert_mem_eq(scores[0], scores[1], bytes);
    ck_assert_mem_eq(scores[0], scores[2], bytes);
    for (int i = 0; i < 3; i++) free(scores[i]);
    free(scratch);
    free(times);
    free(input);
    free(image);
    hwgq_plan_destroy(plan);
    hwgq_model_destroy(model);
  }
}
END_TEST

START_TEST(kernel_sets) {
  struct support_random random = {5};
  struct hwgq_network *network = support_random_network(&random);
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error;
  ck_assert(hwgq_cpu_supports("scalar"));
  ck_assert(hwgq_cpu_supports(hwgq_cpu_best()));
  ck_assert(!hwgq_cpu_supports("mmx"));
  ck_assert_int_eq(hwgq_plan_create(network, NULL, &(struct hwgq_plan_options){.cpu = "mmx"}, &plan, &error),
                   HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "'mmx'"));
  ck_assert_ptr_nonnull(strstr(error.message, "scalar"));
  ck_assert_ptr_null(plan);
  setenv("HWGQ_CPU", "scalar", 1);
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_OK);
  ck_assert_str_eq(hwgq_plan_cpu(plan), "scalar");
  hwgq_plan_destroy(plan);
  setenv("HWGQ_CPU", "z80", 1);
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "HWGQ_CPU"));
  unsetenv("HWGQ_CPU");
  hwgq_network_destroy(network);
}
END_TEST

/* A stage's numbers, and what folding hides. */
START_TEST(descriptions) {
  struct hwgq_network *network = start(3, 8, 8);
  struct hwgq_plan *plan;
  struct hwgq_error error;
  float values[16 * 8 * 8];
  add_conv(network, "conv", "input", 16, 3, 1, 1);
  network->layers[0].binary = network->layers[0].has_alpha = false;
  support_add(network, "bn", HWGQ_BATCH_NORM, "conv");
  add_quantize(network, "q", "bn", 2);
  add_conv(network, "conv2", "q", 32, 3, 1, 1);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  struct support_random random = {6};
  support_fill_parameters(network, &random);
  const struct hwgq_plan_options options = {.cpu = "scalar", .keep_all_layers = true};
  const struct hwgq_plan_options unknown = {.cpu = "scalar", .form = "lookup9"};
  ck_assert_int_eq(hwgq_plan_create(network, NULL, &unknown, &plan, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "lookup9"));
  ck_assert_int_eq(hwgq_plan_create(network, NULL, &options, &plan, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_plan_stage_count(plan), 3);
  ck_assert_str_eq(hwgq_plan_stage(plan, 0).name, "input");
  ck_assert_str_eq(hwgq_plan_stage(plan, 1).kernel, "fconv_direct_scalar");
  ck_assert_int_eq(hwgq_plan_stage(plan, 1).last_layer, 2);
  ck_assert_uint_eq(hwgq_plan_stage(plan, 1).macs, 3 * 9 * 16 * 64);
  ck_assert_uint_eq(hwgq_plan_stage(plan, 1).output_bytes, 64 * 2 * 4);
  ck_assert_str_eq(hwgq_plan_stage(plan, 2).kernel, "bconv_u2_popcount_scalar");
  ck_assert_uint_eq(hwgq_plan_stage(plan, 2).weight_bytes, 9 * 32 * 4);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
  memset(scratch, 0, hwgq_plan_scratch_bytes(plan));
  ck_assert_int_eq(hwgq_run_output(plan, scratch, 1, values, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(error.message, "'bn'"));
  ck_assert_int_eq(hwgq_run_output(plan, scratch, 2, values, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_run_output(plan, scratch, HWGQ_NETWORK_INPUT, values, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_run_output(plan, scratch, 4, values, &error), HWGQ_ERROR_INVALID);
  ck_assert_uint_gt(hwgq_plan_bytes(plan), 0);
  free(scratch);
  hwgq_plan_destroy(plan);
  hwgq_network_destroy(network);
}
END_TEST

/* One plan, several threads. */
struct worker {
  const struct hwgq_plan *plan;
  const float *input;
  float scores[64];
};

static void *work(void *argument) {
  struct worker *worker = argument;
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(worker->plan));
  for (int i = 0; i < 20; i++) hwgq_run_tensor(worker->plan, scratch, worker->input, worker->scores);
  free(scratch);
  return NULL;
}

START_TEST(threads) {
  enum { THREADS = 4 };
  struct support_random random = {9};
  struct hwgq_network *network = support_random_network(&random);
  float *input = support_random_input(network->input, &random);
  struct hwgq_plan *plan;
  struct hwgq_error error;
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_OK);
  ck_assert_int_le(hwgq_plan_output_count(plan), 64);
  pthread_t ids[THREADS];
  struct worker workers[THREADS];
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){.plan = plan, .input = input};
    ck_assert_int_eq(pthread_create(&ids[i], NULL, work, &workers[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(ids[i], NULL);
  for (int i = 1; i < THREADS; i++) {
    ck_assert_mem_eq(workers[0].scores, workers[i].scores, (size_t)hwgq_plan_output_count(plan) * sizeof(float));
  }
  free(input);
  hwgq_plan_destroy(plan);
  hwgq_network_destroy(network);
}
END_TEST

/* A global pooling of a large convolution does not hold all its rows at once beside the tensors. */
START_TEST(large_pool) {
  struct hwgq_network *network = start(1, 512, 512);
  struct hwgq_error error;
  struct hwgq_plan *plan;
  struct hwgq_layer *conv = support_add(network, "conv", HWGQ_CONV2D, "input");
  conv->out_channels = 2;
  support_add(network, "pool", HWGQ_MAX_POOL, "conv")->global_pool = true;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  network->layers[0].weight[0] = 1;
  network->layers[0].weight[1] = -1;
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_OK);
  ck_assert_uint_lt(hwgq_plan_scratch_bytes(plan), 4 << 20);
  float *input = calloc(512 * 512, sizeof *input), scores[2];
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
  input[512 * 300 + 77] = 3;
  input[512 * 511 + 511] = -5;
  hwgq_run_tensor(plan, scratch, input, scores);
  ck_assert_float_eq(scores[0], 3);
  ck_assert_float_eq(scores[1], 5);
  free(scratch);
  free(input);
  hwgq_plan_destroy(plan);
  hwgq_network_destroy(network);
}
END_TEST

/* Sixteen lanes for every group of one channel, with a large kernel: gigabytes from megabytes. */
START_TEST(large_groups) {
  struct hwgq_network *network = start(16384, 32, 32);
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error;
  support_add(network, "q", HWGQ_QUANTIZE, "input")->sign = true;
  add_conv(network, "depthwise", "q", 16384, 32, 0, 16384);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_nonnull(strstr(error.message, "depthwise"));
  hwgq_network_destroy(network);
}
END_TEST

/* A network that would need several gigabytes for one image is refused. */
START_TEST(too_large) {
  struct hwgq_network *network = start(16384, 64, 64);
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error;
  struct hwgq_layer *quantize = support_add(network, "q", HWGQ_QUANTIZE, "input");
  quantize->level_count = 15;
  for (int j = 0; j < 15; j++) {
    quantize->centers[j] = (float)((j + 1) * (j + 1));
    quantize->thresholds[j] = (float)(j * j);
  }
  add_conv(network, "depthwise", "q", 16384, 1, 0, 16384);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_plan_create(network, NULL, NULL, &plan, &error), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_nonnull(strstr(error.message, "memory"));
  ck_assert_ptr_null(plan);
  hwgq_network_destroy(network);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("plan");
  TCase *tests = tcase_create("alone"), *several = tcase_create("threads");
  tcase_set_timeout(tests, 300);
  tcase_set_timeout(several, 300);
  tcase_add_test(tests, random_networks);
  tcase_add_loop_test(tests, packed_operations, 0, 7);
  tcase_add_loop_test(tests, pooled_groups, 0, 7);
  tcase_add_loop_test(tests, chains, 0, 7);
  tcase_add_test(tests, long_chain);
  tcase_add_test(tests, rounded_multiples);
  tcase_add_test(tests, pixels);
  tcase_add_test(tests, kernel_sets);
  tcase_add_test(tests, descriptions);
  tcase_add_test(several, threads);
  tcase_add_test(tests, large_pool);
  tcase_add_test(tests, large_groups);
  tcase_add_test(tests, too_large);
  suite_add_tcase(suite, tests);
  suite_add_tcase(suite, several);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
