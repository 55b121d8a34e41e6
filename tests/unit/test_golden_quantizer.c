/* The quantizer's edges, as the HWGQ authors' own program decides them (tests/golden/mini/quant-edge.json): which side of a
 * threshold an input falls on, to the last bit. Imported quantizers, reference executor and plan on every kernel set. Run from
 * the repository's root. */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/import/import.h"
#include "tests/support/support.h"

enum { MAX_CASES = 64 };

static struct hwgq_error failure;

static void must(enum hwgq_status status, const char *what) {
  ck_assert_msg(status == HWGQ_OK, "%s: %s", what, failure.message);
}

static uint8_t *read_golden(const char *name, size_t *length) {
  char *path = support_path("tests/golden/mini", name);
  uint8_t *bytes = support_read_file(path, length);
  ck_assert_msg(bytes != NULL, "%s cannot be read; run this program from the repository's root", path);
  free(path);
  return bytes;
}

static float float_of_bits(json_t *text) {
  uint32_t bits = (uint32_t)strtoul(json_string_value(text), NULL, 16);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* A net of one quantizer. The importer wants weights to be there, so it gets those of another net, which it leaves out. */
static enum hwgq_status import_quantizer(const char *quant_param, int count, struct hwgq_model **model) {
  char prototxt[1024];
  int length = snprintf(prototxt, sizeof prototxt,
                        "input: 'x' input_shape { dim: 1 dim: %d dim: 1 dim: 1 } "
                        "layer { name: 'q' type: 'Quant' bottom: 'x' top: 'q' quant_param { %s } }",
                        count, quant_param);
  size_t weights_length;
  uint8_t *weights = read_golden("model.caffemodel", &weights_length);
  enum hwgq_status status = import_caffe(prototxt, (size_t)length, weights, weights_length, NULL, model, &failure);
  free(weights);
  return status;
}

/* The quantizer's output for `input`, by a plan on kernel set `cpu`. */
static void run_plan(const struct hwgq_model *model, const char *cpu, const float *input, float *output) {
  const struct hwgq_plan_options options = {.cpu = cpu, .keep_all_layers = true};
  struct hwgq_plan *plan = NULL;
  must(hwgq_plan_create(model->network, &model->preprocess, &options, &plan, &failure), cpu);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan) / 64 * 64 + 64);
  float scores[MAX_CASES];
  hwgq_run_tensor(plan, scratch, input, scores);
  must(hwgq_run_output(plan, scratch, 0, output, &failure), cpu);
  free(scratch);
  hwgq_plan_destroy(plan);
}

static void check_edges(json_t *entry) {
  const char *label = json_string_value(json_object_get(entry, "label"));
  const char *quant_param = json_string_value(json_object_get(entry, "quant_param"));
  float input[MAX_CASES], expected[MAX_CASES], output[MAX_CASES];
  int count = 0;
  size_t i;
  json_t *one;
  json_array_foreach(json_object_get(entry, "cases"), i, one) {
    float value = float_of_bits(json_object_get(one, "in_bits"));
    if (!isfinite(value)) continue; /* finite pixels and parameters give no others */
    ck_assert_int_lt(count, MAX_CASES);
    input[count] = value;
    expected[count++] = float_of_bits(json_object_get(one, "out_bits"));
  }
  struct hwgq_model *model = NULL;
  if (strstr(quant_param, "negative_slope")) {
    ck_assert_int_eq(import_quantizer(quant_param, count, &model), HWGQ_ERROR_UNSUPPORTED);
    return;
  }
  must(import_quantizer(quant_param, count, &model), label);
  struct hwgq_reference *reference = NULL;
  must(hwgq_reference_create(model->network, &reference, &failure), label);
  must(hwgq_reference_run(reference, input, &failure), label);
  for (int c = 0; c < count; c++)
    ck_assert_msg(hwgq_reference_output(reference, 0)[c] == (double)expected[c], "%s: reference: %.9g is wrong", label,
                  (double)input[c]);
  static const char *const kernel_sets[] = {"scalar", "avx2", "avx512", "neon"};
  for (size_t k = 0; k < sizeof kernel_sets / sizeof *kernel_sets; k++) {
    if (!hwgq_cpu_supports(kernel_sets[k])) continue;
    run_plan(model, kernel_sets[k], input, output);
    for (int c = 0; c < count; c++)
      ck_assert_msg(output[c] == expected[c], "%s: %s: %.9g became %.9g instead of %.9g", label, kernel_sets[k],
                    (double)input[c], (double)output[c], (double)expected[c]);
  }
  hwgq_reference_destroy(reference);
  hwgq_model_destroy(model);
}

START_TEST(quantizer_edges) {
  size_t length, i;
  char *text = (char *)read_golden("quant-edge.json", &length);
  json_t *edges = json_loadb(text, length, 0, NULL), *entry;
  ck_assert(json_is_array(edges) && json_array_size(edges) == 4);
  json_array_foreach(edges, i, entry) check_edges(entry);
  json_decref(edges);
  free(text);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("golden quantizer");
  TCase *cases = tcase_create("edges");
  tcase_add_test(cases, quantizer_edges);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
