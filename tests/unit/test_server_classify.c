/* The step from an image's bytes to predictions, as the daemon and the tool share it. */
#include "engine/parameters.h"
#include "models/classify/classify.h"
#include "tests/support/support.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct hwgq_error error;

static struct classifier *classifier_of(uint64_t seed) {
  struct support_random random = {seed};
  struct hwgq_model *model = support_random_model(&random);
  struct classifier *classifier = NULL;
  ck_assert_msg(classifier_create(model, NULL, &classifier, &error) == HWGQ_OK, "%s", error.message);
  return classifier;
}

static uint8_t *image_file(size_t *length) {
  uint8_t *bytes = support_read_file("tests/images/baseline.jpg", length);
  ck_assert_msg(bytes != NULL, "tests/images/baseline.jpg (the test runs from the repository's root)");
  return bytes;
}

/* One scratch that has served networks of other sizes gives the same bits as a new one. */
START_TEST(a_scratch_serves_every_network) {
  enum { NETWORKS = 6 };
  struct classifier *classifiers[NETWORKS];
  struct classify_scratch *shared = NULL;
  struct classify_result result, again;
  size_t length;
  uint8_t *bytes = image_file(&length);
  ck_assert_int_eq(classify_scratch_create(NULL, &shared, &error), HWGQ_OK);
  for (int i = 0; i < NETWORKS; i++) classifiers[i] = classifier_of((uint64_t)i + 1);
  for (int round = 0; round < 2 * NETWORKS; round++) {
    const struct classifier *classifier = classifiers[(round * 5) % NETWORKS];
    struct classify_scratch *fresh = NULL;
    ck_assert_int_eq(classify_scratch_create(classifier, &fresh, &error), HWGQ_OK);
    ck_assert_msg(!classify_bytes(classifier, shared, bytes, length, NULL, &result, &error), "%s", error.message);
    ck_assert_int_eq(classify_bytes(classifier, fresh, bytes, length, NULL, &again, &error), HWGQ_OK);
    ck_assert_mem_eq(result.scores, again.scores, (size_t)classifier->class_count * sizeof(float));
    /* and so do the pixels alone, as a data set has them */
    size_t pixel_bytes = (size_t)(classifier->input.channels * classifier->input.height * classifier->input.width);
    uint8_t *pixels = malloc(pixel_bytes);
    memcpy(pixels, again.pixels, pixel_bytes);
    ck_assert_int_eq(classify_pixels(classifier, shared, pixels, &result, &error), HWGQ_OK);
    ck_assert_mem_eq(result.scores, again.scores, (size_t)classifier->class_count * sizeof(float));
    free(pixels);
    classify_scratch_destroy(fresh);
  }
  for (int i = 0; i < NETWORKS; i++) classifier_destroy(classifiers[i]);
  classify_scratch_destroy(shared);
  free(bytes);
}
END_TEST

/* Parameters that are far too large give an error, and no probability that is no number. */
START_TEST(scores_that_overflow) {
  int overflown = 0;
  size_t length;
  uint8_t *bytes = image_file(&length);
  for (uint64_t seed = 1; seed <= 20; seed++) {
    struct support_random random = {seed};
    struct hwgq_model *model = support_random_model(&random);
    for (int i = 0; i < model->network->layer_count; i++) {
      const struct hwgq_layer *layer = &model->network->layers[i];
      if (layer->op != HWGQ_LINEAR || layer->binary) continue;
      const size_t count = (size_t)layer->out_channels * (size_t)hwgq_layer_fan_in(model->network, layer);
      for (size_t k = 0; k < count; k++) layer->weight[k] = 3e38f;
    }
    struct classifier *classifier = NULL;
    struct classify_scratch *scratch = NULL;
    struct classify_result result;
    ck_assert_int_eq(classifier_create(model, NULL, &classifier, &error), HWGQ_OK);
    ck_assert_int_eq(classify_scratch_create(classifier, &scratch, &error), HWGQ_OK);
    enum hwgq_status status = classify_bytes(classifier, scratch, bytes, length, NULL, &result, &error);
    for (int c = 0; c < classifier->class_count; c++) ck_assert_int_eq(isfinite(result.scores[c]), status == HWGQ_OK);
    if (status) {
      ck_assert_int_eq(status, HWGQ_ERROR_INVALID);
      ck_assert_ptr_nonnull(strstr(error.message, "overflow"));
      overflown++;
    }
    classify_scratch_destroy(scratch);
    classifier_destroy(classifier);
  }
  ck_assert_int_gt(overflown, 0);
  free(bytes);
}
END_TEST

START_TEST(errors_say_what_kind_they_are) {
  const struct image_limits small = {.max_pixels = 4, .max_scans = 64};
  struct classifier *classifier = classifier_of(3);
  struct classify_scratch *scratch = NULL;
  struct classify_result result;
  size_t length;
  uint8_t *bytes = image_file(&length);
  ck_assert_int_eq(classify_scratch_create(classifier, &scratch, &error), HWGQ_OK);
  ck_assert_int_eq(classify_bytes(classifier, scratch, bytes, length, &small, &result, &error), HWGQ_ERROR_LIMIT);
  ck_assert_int_gt(result.image.width, 0); /* as far as the header was understood */
  ck_assert_ptr_null(result.scores);
  ck_assert_int_eq(classify_bytes(classifier, scratch, bytes, 20, NULL, &result, &error), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(classify_bytes(classifier, scratch, (const uint8_t *)"text", 4, NULL, &result, &error),
                   HWGQ_ERROR_UNSUPPORTED);
  ck_assert_int_eq(classify_bytes(classifier, scratch, bytes, 0, NULL, &result, &error), HWGQ_ERROR_UNSUPPORTED);
  classify_scratch_destroy(scratch);
  classifier_destroy(classifier);
  free(bytes);
}
END_TEST

START_TEST(scores_must_be_probabilities) {
  struct support_random random = {4};
  struct hwgq_model *model = support_random_model(&random);
  struct classifier *classifier = NULL;
  model->network->layers[model->network->layer_count - 1].op = HWGQ_RELU;
  ck_assert_int_eq(classifier_create(model, NULL, &classifier, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(error.message, "softmax"));
  ck_assert_ptr_null(classifier);
  hwgq_model_destroy(model); /* still the caller's */
}
END_TEST

START_TEST(files_that_are_not_there_are_named) {
  struct classifier *classifier = NULL;
  ck_assert_int_eq(classifier_open("/nonexistent/x.hwgq", NULL, &classifier, &error), HWGQ_ERROR_IO);
  ck_assert_ptr_nonnull(strstr(error.message, "/nonexistent/x.hwgq"));
}
END_TEST

START_TEST(predictions_as_text) {
  char *labels[] = {"cat", "a \"dog\"", "frog\n", "ship"};
  const struct hwgq_model model = {.class_count = 4, .labels = labels};
  const float scores[] = {0.25f, 0.5f, 0.125f, 0.125f};
  struct text text = {0};
  classify_write_predictions(&model, scores, 3, &text);
  ck_assert_str_eq(text.data, "[{\"class\":1,\"label\":\"a \\\"dog\\\"\",\"probability\":0.5},"
                              "{\"class\":0,\"label\":\"cat\",\"probability\":0.25},"
                              "{\"class\":2,\"label\":\"frog\\n\",\"probability\":0.125}]");
  text_release(&text);
  classify_write_predictions(&model, scores, 100, &text);
  ck_assert_ptr_nonnull(strstr(text.data, "\"ship\""));
  text_release(&text);
  classify_write_predictions(&model, scores, 0, &text);
  ck_assert_str_eq(text.data, "[]");
  text_release(&text);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_classify");
  TCase *tests = tcase_create("classify");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, a_scratch_serves_every_network);
  tcase_add_test(tests, scores_that_overflow);
  tcase_add_test(tests, errors_say_what_kind_they_are);
  tcase_add_test(tests, scores_must_be_probabilities);
  tcase_add_test(tests, files_that_are_not_there_are_named);
  tcase_add_test(tests, predictions_as_text);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
