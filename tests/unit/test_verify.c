/* models/verify: what must pass passes, and what is wrong is found, in the right place. Run from the repository's root. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/verify/verify.h"
#include "tests/support/support.h"

static const char mini[] = "tests/golden/mini";
static struct hwgq_error failure;

static void must(enum hwgq_status status) {
  ck_assert_msg(status == HWGQ_OK, "%s", failure.message);
}

static struct verifier *make_verifier(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess) {
  struct verifier *verifier = NULL;
  must(verifier_create(network, preprocess, "all", VERIFY_TOLERANCE, &verifier, &failure));
  return verifier;
}

static struct hwgq_model *import_mini(void) {
  struct hwgq_model *model = NULL;
  must(golden_import(mini, "tests/golden/mini/model.caffemodel", &model, &failure));
  return model;
}

static void assert_passed(const struct hwgq_network *network, const struct verify_result *result) {
  struct text text = {0};
  verify_write_text(network, result, &text);
  ck_assert_msg(result->passed, "%s", text.data);
  text_release(&text);
}

/* The layer that comparison k names, or "". */
static const char *failed_layer(const struct hwgq_network *network, const struct verify_result *result, int k) {
  const int layer = result->comparisons[k].first_failed;
  return layer < 0 ? "" : network->layers[layer].name;
}

/* ---- one layer ----------------------------------------------------------------------------------------------------------- */

static struct hwgq_layer paper_quantizer(void) {
  struct hwgq_layer layer = {.op = HWGQ_QUANTIZE, .level_count = 3, .output = {2, 1, 2}};
  const float centers[] = {0.538f, 1.076f, 1.614f}, thresholds[] = {0, 0.807f, 1.345f};
  memcpy(layer.centers, centers, sizeof centers);
  memcpy(layer.thresholds, thresholds, sizeof thresholds);
  return layer;
}

START_TEST(code_at_a_threshold) {
  const struct hwgq_layer layer = paper_quantizer();
  const double center = (double)layer.centers[0], threshold = (double)layer.thresholds[1];
  double before[] = {2, -1, threshold + 1e-6, 0.5}, expected[4], found[4];
  for (int i = 0; i < 4; i++) expected[i] = found[i] = verify_code_value(&layer, i == 0 ? 3 : i == 1 ? 0 : i == 2 ? 2 : 1);
  struct verify_operands operands = {&layer, expected, found, before, 4, VERIFY_TOLERANCE};
  struct verify_layer result;
  verify_compare(&operands, &result);
  ck_assert(result.codes && !result.failed && result.differing == 0);
  found[2] = center;
  verify_compare(&operands, &result); /* 1e-6 of a largest magnitude of 2 */
  ck_assert(!result.failed && result.differing == 1 && result.wrong == 0);
  ck_assert_int_eq(result.place.channel, 1);
  ck_assert_int_eq(result.place.x, 0);
  ck_assert_double_eq_tol(result.distance, 5e-7, 1e-12);
  before[2] = threshold + 1e-3;
  verify_compare(&operands, &result);
  ck_assert(result.failed && result.wrong == 1);
  ck_assert(result.expected == 2 && result.found == 1);
  before[2] = threshold + 1e-6; /* two levels off: the farther threshold counts */
  found[2] = 0;
  verify_compare(&operands, &result);
  ck_assert(result.failed);
  ck_assert_double_eq_tol(result.distance, threshold / 2, 1e-5);
  found[2] = 0.6; /* no level */
  verify_compare(&operands, &result);
  ck_assert(result.failed && result.found == -1);
}
END_TEST

START_TEST(floats_that_are_wrong) {
  const struct hwgq_layer layer = {.op = HWGQ_ADD, .output = {1, 2, 2}};
  double expected[] = {1, -10, 3, 4}, found[] = {1, -10, 3, 4};
  struct verify_operands operands = {&layer, expected, found, NULL, 0, VERIFY_TOLERANCE};
  struct verify_layer result;
  found[2] = 3 + 9e-5;
  verify_compare(&operands, &result);
  ck_assert(!result.failed && !result.codes);
  ck_assert_double_eq_tol(result.error, 9e-6, 1e-12);
  found[2] = 3 + 2e-4;
  verify_compare(&operands, &result);
  ck_assert(result.failed);
  ck_assert(result.place.y == 1 && result.place.x == 0);
  found[2] = (double)NAN;
  verify_compare(&operands, &result);
  ck_assert(result.failed && isinf(result.error));
}
END_TEST

START_TEST(nearest_threshold) {
  const struct hwgq_layer layer = paper_quantizer();
  const double before[] = {0, 0.9, -3, 1.3};
  struct verify_nearest nearest = {.layer = -1};
  verify_find_nearest(&layer, 7, before, &nearest);
  ck_assert_int_eq(nearest.layer, 7);
  ck_assert_int_eq((int)nearest.on_threshold, 1);
  ck_assert_int_eq(nearest.place.channel, 1);
  ck_assert_int_eq(nearest.place.x, 1);
  ck_assert(nearest.threshold == (double)layer.thresholds[2]);
  ck_assert_double_eq_tol(nearest.distance, 0.045 / 3, 1e-6);
}
END_TEST

/* ---- networks ------------------------------------------------------------------------------------------------------------ */

START_TEST(random_networks_pass) {
  struct support_random random = {.state = (uint64_t)_i * 977 + 5};
  struct hwgq_model *model = support_random_model(&random);
  const struct hwgq_shape shape = model->network->input;
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  struct verify_result result;
  float *input = support_random_input(shape, &random);
  must(verifier_run_input(verifier, input, &result, &failure));
  assert_passed(model->network, &result);
  ck_assert(result.comparisons[0].code_layers > 0 && result.nearest.layer >= 0);
  verify_result_release(&result);
  uint8_t *pixels = malloc((size_t)hwgq_shape_elements(shape));
  for (size_t i = 0; i < hwgq_shape_elements(shape); i++) pixels[i] = (uint8_t)support_random_int(&random, 0, 255);
  must(verifier_run_pixels(verifier, pixels, &result, &failure));
  assert_passed(model->network, &result);
  verify_result_release(&result);
  free(pixels);
  free(input);
  verifier_destroy(verifier);
  hwgq_model_destroy(model);
}
END_TEST

/* The reference borrows the network and plans copy it: a parameter that is changed afterwards is one that they disagree on. */
static void check_corrupted(const char *corrupted, const char *named) {
  struct hwgq_model *model = import_mini();
  struct golden *golden = NULL;
  must(golden_open(mini, &golden, &failure));
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  struct hwgq_layer *layer = &model->network->layers[hwgq_network_find(model->network, corrupted)];
  struct verify_result result;
  if (layer->binary) {
    const size_t row = ((size_t)hwgq_layer_fan_in(model->network, layer) + 7) / 8;
    for (size_t i = 0; i < row - 1; i++) layer->weight_bits[3 * row + i] ^= 0xff; /* channel 3 */
  } else {
    layer->bias[3] += 0.5f;
  }
  must(verifier_run_input(verifier, golden->input, &result, &failure));
  ck_assert(!result.passed);
  for (int k = 0; k < result.count; k++) {
    ck_assert_str_eq(failed_layer(model->network, &result, k), named);
    ck_assert_int_eq(result.comparisons[k].layers[result.comparisons[k].first_failed].place.channel, 3);
    ck_assert_int_eq(result.comparisons[k].scores_differ, -1);
    for (int i = result.comparisons[k].first_failed + 1; i < model->network->layer_count && layer->binary; i++)
      ck_assert_msg(!result.comparisons[k].layers[i].failed, "layer '%s' is not judged by itself",
                    model->network->layers[i].name);
  }
  struct text text = {0};
  char expected[64];
  snprintf(expected, sizeof expected, "FAIL at layer '%s'", named);
  verify_write_text(model->network, &result, &text);
  ck_assert_msg(strstr(text.data, expected) != NULL, "%s", text.data);
  text_release(&text);
  verify_result_release(&result);
  /* Against the recording only the reference is wrong now: it has the changed layer itself. */
  must(verifier_run_golden(verifier, golden, NULL, &result, &failure));
  ck_assert_str_eq(failed_layer(model->network, &result, 0), corrupted);
  for (int k = 1; k < result.count; k++) ck_assert_str_eq(failed_layer(model->network, &result, k), "");
  ck_assert(!result.passed);
  verify_result_release(&result);
  verifier_destroy(verifier);
  golden_close(golden);
  hwgq_model_destroy(model);
}

START_TEST(corrupted_parameters_are_found) {
  check_corrupted("u1_c3", "u1_q2"); /* folded into the stage that ends with the quantizer */
  check_corrupted("fc", "fc");
}
END_TEST

/* One value lies so near a threshold that engine and reference give it different codes: tolerated, and the linear layer behind
 * it is compared from the engine's code on. */
START_TEST(tolerated_difference) {
  struct hwgq_network *network = NULL;
  must(hwgq_network_create("near", (struct hwgq_shape){4, 1, 1}, &network, &failure));
  support_add(network, "shift", HWGQ_SCALE, "input")->has_bias = true;
  struct hwgq_layer *quantizer = support_add(network, "levels", HWGQ_QUANTIZE, "shift");
  const struct hwgq_layer paper = paper_quantizer();
  quantizer->level_count = paper.level_count;
  memcpy(quantizer->centers, paper.centers, sizeof paper.centers);
  memcpy(quantizer->thresholds, paper.thresholds, sizeof paper.thresholds);
  struct hwgq_layer *linear = support_add(network, "sum", HWGQ_LINEAR, "levels");
  linear->binary = true;
  linear->out_channels = 8;
  must(hwgq_network_infer(network, &failure));
  must(hwgq_network_allocate_parameters(network, &failure));
  struct verifier *verifier = make_verifier(network, NULL);
  network->layers[0].beta[0] = -2e-7f; /* for the reference only */
  const float input[] = {1e-7f, 1, -1, 0.5f};
  struct verify_result result;
  must(verifier_run_input(verifier, input, &result, &failure));
  assert_passed(network, &result);
  ck_assert_int_eq((int)result.comparisons[0].tolerated, 1);
  ck_assert_int_eq(result.comparisons[0].compared, 2);
  verify_result_release(&result);
  network->layers[0].beta[0] = -2e-4f;
  must(verifier_run_input(verifier, input, &result, &failure));
  ck_assert_str_eq(failed_layer(network, &result, 0), "levels");
  verify_result_release(&result);
  verifier_destroy(verifier);
  hwgq_network_destroy(network);
}
END_TEST

/* ---- recordings ---------------------------------------------------------------------------------------------------------- */

static void copy_file(const char *from, const char *to, const char *name) {
  char *source = support_path(from, name), *target = support_path(to, name);
  size_t length;
  uint8_t *bytes = support_read_file(source, &length);
  ck_assert_msg(bytes != NULL, "%s cannot be read; run this program from the repository's root", source);
  support_write_file(target, bytes, length);
  free(bytes);
  free(source);
  free(target);
}

/* A copy of the recording, in which things can be damaged. */
static char *copy_recording(void) {
  char *directory = support_make_directory();
  struct golden *golden = NULL;
  must(golden_open(mini, &golden, &failure));
  copy_file(mini, directory, "index.json");
  copy_file(mini, directory, "000_data.input.bin");
  for (int i = 0; i < golden->blob_count; i++) copy_file(mini, directory, golden->blobs[i].file);
  golden_close(golden);
  return directory;
}

static void change_value(const char *directory, const char *name, size_t index, float value) {
  char *path = support_path(directory, name);
  size_t length;
  uint8_t *bytes = support_read_file(path, &length);
  ck_assert(bytes != NULL && length >= 4 * (index + 1));
  memcpy(bytes + 4 * index, &value, sizeof value);
  support_write_file(path, bytes, length);
  free(bytes);
  free(path);
}

static void check_changed_blob(const char *file, size_t index, float value, const char *layer, int channel, int y, int x,
                               bool plans_have_it) {
  struct hwgq_model *model = import_mini();
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  char *directory = copy_recording();
  struct golden *golden = NULL;
  struct verify_result result;
  change_value(directory, file, index, value);
  must(golden_open(directory, &golden, &failure));
  must(verifier_run_golden(verifier, golden, NULL, &result, &failure));
  ck_assert(!result.passed);
  for (int k = 0; k < (plans_have_it ? result.count : 1); k++) {
    const struct verify_comparison *c = &result.comparisons[k];
    ck_assert_str_eq(failed_layer(model->network, &result, k), layer);
    const struct verify_place place = c->layers[c->first_failed].place;
    ck_assert(place.channel == channel && place.y == y && place.x == x);
    for (int i = c->first_failed + 1; i < c->layer_count; i++) ck_assert(!c->layers[i].failed);
  }
  verify_result_release(&result);
  golden_close(golden);
  support_remove_directory(directory);
  verifier_destroy(verifier);
  hwgq_model_destroy(model);
}

START_TEST(changed_blobs_are_found) {
  check_changed_blob("009_u1_q2.codes.bin", 81 * 5 + 9 * 2 + 7, 2, "u1_q2", 5, 2, 7, true);
  check_changed_blob("022_u2_sum.out.bin", 25 * 11 + 5 * 3 + 4, 77, "u2_sum", 11, 3, 4, true);
  check_changed_blob("006_u1_c3.acc.bin", 80, -1000, "u1_c3", 0, 8, 8, false);
}
END_TEST

/* A recorded code on the other side of a threshold that is 1e-7 away, or on which the value lies exactly, fails, unless a
 * tolerance is asked for. */
START_TEST(recorded_codes_are_exact) {
  static const char index[] = "{\"blobs\": [{\"file\": \"in\", \"layer\": \"data\", \"kind\": \"input\", \"shape\": [4]},"
                              "{\"file\": \"codes\", \"layer\": \"levels\", \"kind\": \"codes\", \"shape\": [4]}]}";
  char *directory = support_make_directory();
  char *paths[3] = {support_path(directory, "index.json"), support_path(directory, "in"), support_path(directory, "codes")};
  struct hwgq_network *network = NULL;
  must(hwgq_network_create("near", (struct hwgq_shape){4, 1, 1}, &network, &failure));
  struct hwgq_layer *quantizer = support_add(network, "levels", HWGQ_QUANTIZE, "input");
  const struct hwgq_layer paper = paper_quantizer();
  quantizer->level_count = paper.level_count;
  memcpy(quantizer->centers, paper.centers, sizeof paper.centers);
  memcpy(quantizer->thresholds, paper.thresholds, sizeof paper.thresholds);
  must(hwgq_network_infer(network, &failure));
  support_write_file(paths[0], index, strlen(index));
  for (int on = 0; on < 2; on++) {
    const float input[] = {on ? 0 : 1e-7f, 2, -1, 2}, codes[] = {on ? 1 : 0, 3, 0, 3};
    support_write_file(paths[1], input, sizeof input);
    support_write_file(paths[2], codes, sizeof codes);
    struct verifier *verifier = make_verifier(network, NULL);
    struct golden *golden = NULL;
    struct verify_result result;
    must(golden_open(directory, &golden, &failure));
    must(verifier_run_golden(verifier, golden, NULL, &result, &failure));
    for (int k = 0; k < result.count; k++) ck_assert_str_eq(failed_layer(network, &result, k), "levels");
    ck_assert(!result.passed);
    verify_result_release(&result);
    verifier_tolerate_recorded_codes(verifier, VERIFY_TOLERANCE);
    must(verifier_run_golden(verifier, golden, NULL, &result, &failure));
    assert_passed(network, &result);
    ck_assert_int_eq((int)result.comparisons[0].tolerated, 1);
    verify_result_release(&result);
    golden_close(golden);
    verifier_destroy(verifier);
  }
  for (int i = 0; i < 3; i++) free(paths[i]);
  hwgq_network_destroy(network);
  support_remove_directory(directory);
}
END_TEST

START_TEST(top_classes_are_compared) {
  struct hwgq_model *model = import_mini();
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  struct golden *golden = NULL;
  struct verify_result result;
  must(golden_open(mini, &golden, &failure));
  ck_assert_int_eq(golden->top_count, 5);
  golden->top[1] = golden->top[2];
  must(verifier_run_golden(verifier, golden, NULL, &result, &failure));
  ck_assert(!result.passed);
  ck_assert(!result.comparisons[0].top_classes_differ && result.comparisons[1].top_classes_differ);
  verify_result_release(&result);
  golden_close(golden);
  verifier_destroy(verifier);
  hwgq_model_destroy(model);
}
END_TEST

static void refused_index(const char *directory, const char *index, const char *words) {
  char *path = support_path(directory, "index.json");
  struct golden *golden = NULL;
  support_write_file(path, index, strlen(index));
  ck_assert_msg(golden_open(directory, &golden, &failure) != HWGQ_OK, "accepted: %s", index);
  ck_assert_msg(strstr(failure.message, words) != NULL, "'%s' has no '%s'", failure.message, words);
  free(path);
}

#define ENTRY(file, kind, shape) "{\"file\":\"" file "\",\"layer\":\"a\",\"kind\":\"" kind "\",\"shape\":" shape "}"
#define INPUT ENTRY("000_data.input.bin", "input", "[1,3,31,33]")

START_TEST(damaged_indexes_are_refused) {
  char *directory = copy_recording();
  refused_index(directory, "", "index.json");
  refused_index(directory, "[]", "object");
  refused_index(directory, "{}", "blobs");
  refused_index(directory, "{\"blobs\":[1,2]}", "must be strings");
  refused_index(directory, "{\"blobs\":[" INPUT "," ENTRY("../x", "out", "[1]") "]}", "not a name within the folder");
  refused_index(directory, "{\"blobs\":[" INPUT "," ENTRY("x", "out", "[]") "]}", "shape");
  refused_index(directory, "{\"blobs\":[" INPUT "," ENTRY("x", "out", "[-1]") "]}", "positive");
  refused_index(directory, "{\"blobs\":[" INPUT "," ENTRY("x", "out", "[65536,65536,65536,65536]") "]}", "product");
  refused_index(directory, "{\"blobs\":[" ENTRY("x", "out", "[1]") "," INPUT "]}", "first blob");
  refused_index(directory, "{\"blobs\":[" ENTRY("000_data.input.bin", "input", "[1,3,31,34]") "," INPUT "]}", "bytes");
  refused_index(directory, "{\"blobs\":[" ENTRY("missing.bin", "input", "[1]") "," INPUT "]}", "missing.bin");
  support_remove_directory(directory);
}
END_TEST

START_TEST(damaged_blobs_are_refused) {
  struct hwgq_model *model = import_mini();
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  char *directory = copy_recording();
  struct golden *golden = NULL;
  struct verify_result result;
  must(golden_open(directory, &golden, &failure));
  const float bad[] = {4, -1, 0.5f, (float)NAN};
  for (int i = 0; i < 4; i++) {
    change_value(directory, "009_u1_q2.codes.bin", 3, bad[i]);
    ck_assert(verifier_run_golden(verifier, golden, NULL, &result, &failure) == HWGQ_ERROR_INVALID);
    ck_assert_msg(strstr(failure.message, "u1_q2") != NULL, "%s", failure.message);
  }
  golden->blobs[7].layer[0] = 'z'; /* a layer that the network does not have */
  ck_assert(verifier_run_golden(verifier, golden, NULL, &result, &failure) == HWGQ_ERROR_INVALID);
  ck_assert_msg(strstr(failure.message, "has no layer 'z1_sc'") != NULL, "%s", failure.message);
  golden_close(golden);
  support_remove_directory(directory);
  verifier_destroy(verifier);
  hwgq_model_destroy(model);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("verify");
  TCase *cases = tcase_create("verify");
  tcase_set_timeout(cases, 300);
  tcase_add_test(cases, code_at_a_threshold);
  tcase_add_test(cases, floats_that_are_wrong);
  tcase_add_test(cases, nearest_threshold);
  tcase_add_loop_test(cases, random_networks_pass, 0, 40);
  tcase_add_test(cases, corrupted_parameters_are_found);
  tcase_add_test(cases, tolerated_difference);
  tcase_add_test(cases, changed_blobs_are_found);
  tcase_add_test(cases, recorded_codes_are_exact);
  tcase_add_test(cases, top_classes_are_compared);
  tcase_add_test(cases, damaged_indexes_are_refused);
  tcase_add_test(cases, damaged_blobs_are_refused);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
