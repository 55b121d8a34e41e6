/* Networks that the HWGQ authors' own program ran: imported here, every blob compared. tests/golden/.../README.md says what
 * each blob is. Run from the repository's root.
 *
 * Tolerances, relative to the largest magnitude of the recorded blob: 3e-6 for the reference executor (the recording is
 * float32 and up to 2.2e-6 off), 1e-5 for the plan. Level codes must be equal everywhere: models/verify, which compares here,
 * would tolerate ones at a threshold, but these recordings have none. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/import/import.h"
#include "models/verify/verify.h"
#include "tests/support/support.h"

#define REFERENCE_TOLERANCE 3e-6

static struct hwgq_error failure;

static void must(enum hwgq_status status, const char *what) {
  ck_assert_msg(status == HWGQ_OK, "%s: %s", what, failure.message);
}

/* ---- the fixtures ---------------------------------------------------------------------------------------------------------
 */

static const struct fixture {
  const char *network, *weights, *recording;
  bool plain_types; /* BinaryConvolution -> Convolution in the prototxt, as nets for files of stored +-alpha have it */
} fixtures[] = {
    {"tests/golden/mini", "model.caffemodel", "tests/golden/mini", false},
    {"tests/golden/mini", "model.caffemodel", "tests/golden/mini/input2", false},
    {"tests/golden/mini", "model.caffemodel", "tests/golden/mini/input3", false},
    {"tests/golden/mini", "model_bw.caffemodel", "tests/golden/mini", false},
    {"tests/golden/mini", "model_bw.caffemodel", "tests/golden/mini/input2", true},
    {"tests/golden/mini", "model_bw.caffemodel", "tests/golden/mini/input3", true},
    {"tests/golden/slim-basic", "model.caffemodel", "tests/golden/slim-basic", false},
};
enum { FIXTURES = sizeof fixtures / sizeof *fixtures };

static uint8_t *read_in(const char *folder, const char *name, size_t *length) {
  char *path = support_path(folder, name);
  uint8_t *bytes = support_read_file(path, length);
  ck_assert_msg(bytes != NULL, "%s cannot be read; run this program from the repository's root", path);
  free(path);
  return bytes;
}

/* Cuts "Binary" out of the layer types. */
static void make_types_plain(char *prototxt, size_t *length) {
  static const char from[] = "type: \"Binary", to[] = "type: \"";
  for (char *at = prototxt; (at = strstr(at, from)); at += strlen(to)) {
    memmove(at + strlen(to), at + strlen(from), strlen(at + strlen(from)) + 1);
    *length -= strlen(from) - strlen(to);
  }
}

static struct hwgq_model *import_fixture(const struct fixture *fixture) {
  size_t prototxt_length, weights_length;
  char *prototxt = (char *)read_in(fixture->network, "model.prototxt", &prototxt_length);
  uint8_t *weights = read_in(fixture->network, fixture->weights, &weights_length);
  if (fixture->plain_types) make_types_plain(prototxt, &prototxt_length);
  struct hwgq_model *model = NULL;
  must(import_caffe(prototxt, prototxt_length, weights, weights_length, NULL, &model, &failure), fixture->network);
  free(prototxt);
  free(weights);
  return model;
}

static struct golden *open_recording(const struct fixture *fixture) {
  struct golden *golden = NULL;
  must(golden_open(fixture->recording, &golden, &failure), fixture->recording);
  ck_assert_int_eq(golden->top_count, 5);
  return golden;
}

static struct verifier *make_verifier(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess) {
  struct verifier *verifier = NULL;
  must(verifier_create(network, preprocess, NULL, VERIFY_TOLERANCE, &verifier, &failure), network->name);
  return verifier;
}

/* Every code equal, floats within the tolerances; the reference is comparison 0. */
static void check_result(const struct hwgq_network *network, const struct verify_result *result, double reference_tolerance) {
  struct text text = {0};
  verify_write_text(network, result, &text);
  ck_assert_msg(result->passed, "%s", text.data);
  for (int k = 0; k < result->count; k++) {
    ck_assert_msg(result->comparisons[k].tolerated == 0 && result->comparisons[k].followers == 0, "%s", text.data);
  }
  ck_assert_msg(result->comparisons[0].largest_error <= reference_tolerance, "%s", text.data);
  text_release(&text);
}

/* ---- end to end -----------------------------------------------------------------------------------------------------------
 */

START_TEST(end_to_end) {
  const struct fixture *fixture = &fixtures[_i];
  struct hwgq_model *model = import_fixture(fixture);
  struct golden *golden = open_recording(fixture);
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  struct verify_result result;
  must(verifier_run_golden(verifier, golden, NULL, &result, &failure), fixture->recording);
  check_result(model->network, &result, REFERENCE_TOLERANCE);
  ck_assert_int_ge(result.count, 2);
  ck_assert_int_eq(result.comparisons[0].compared, golden->blob_count);
  for (int k = 0; k < result.count; k++) {
    const struct verify_comparison *c = &result.comparisons[k];
    ck_assert_int_eq(c->code_layers, result.comparisons[0].code_layers); /* codes can always be read */
    ck_assert_int_gt(c->code_layers, 5);
    printf("%s, %s: %s: %d blobs, %d of them codes, largest float error %.2g\n", fixture->recording, fixture->weights, c->who,
           c->compared, c->code_layers, c->largest_error);
  }
  verify_result_release(&result);
  verifier_destroy(verifier);
  golden_close(golden);
  hwgq_model_destroy(model);
}
END_TEST

/* The pixels of the recording, preprocessed as the model says, are the recorded input; and hwgq_run on them passes too. */
START_TEST(from_pixels) {
  const struct fixture *fixture = &fixtures[_i];
  struct hwgq_model *model = import_fixture(fixture);
  struct golden *golden = open_recording(fixture);
  struct hwgq_shape shape = model->network->input;
  size_t plane = (size_t)shape.height * (size_t)shape.width, length;
  uint8_t *chw = read_in(fixture->recording, "input_raw_u8.bin", &length), *hwc = malloc(3 * plane);
  ck_assert_uint_eq(length, 3 * plane);
  for (size_t i = 0; i < plane; i++)
    for (size_t c = 0; c < 3; c++) hwc[3 * i + c] = chw[c * plane + i];
  float *made = malloc(3 * plane * sizeof *made);
  hwgq_preprocess_to_float(&model->preprocess, shape, hwc, made);
  ck_assert(memcmp(made, golden->input, 3 * plane * sizeof *made) == 0);
  struct verifier *verifier = make_verifier(model->network, &model->preprocess);
  struct verify_result result;
  must(verifier_run_pixels(verifier, hwc, &result, &failure), fixture->recording);
  check_result(model->network, &result, VERIFY_TOLERANCE);
  verify_result_release(&result);
  verifier_destroy(verifier);
  free(made);
  free(hwc);
  free(chw);
  golden_close(golden);
  hwgq_model_destroy(model);
}
END_TEST

/* ---- layer by layer -------------------------------------------------------------------------------------------------------
 */

/* Appends a copy of a layer, fed by the last layer of `network` or by its input. Parameters follow in copy_parameters. */
static void copy_layer(struct hwgq_network *network, const struct hwgq_layer *source) {
  const char *input[1] = {network->layer_count ? network->layers[network->layer_count - 1].name : "input"};
  struct hwgq_layer *layer;
  must(hwgq_network_add(network, source->name, source->op, 1, input, &layer, &failure), source->name);
  struct hwgq_layer fields = *source;
  fields.name = layer->name;
  fields.input_count = 1;
  fields.inputs[0] = layer->inputs[0];
  fields.weight = fields.alpha = fields.bias = fields.mean = fields.variance = fields.gamma = fields.beta = NULL;
  fields.weight_bits = NULL;
  *layer = fields;
}

static void copy_parameters(struct hwgq_network *network, const struct hwgq_network *from) {
  must(hwgq_network_infer(network, &failure), "a chain of layers");
  must(hwgq_network_allocate_parameters(network, &failure), "a chain of layers");
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_parameter to[HWGQ_MAX_PARAMETERS], source[HWGQ_MAX_PARAMETERS];
    int index = hwgq_network_find(from, network->layers[i].name);
    int count = hwgq_layer_parameters(network, &network->layers[i], to);
    ck_assert_int_eq(hwgq_layer_parameters(from, &from->layers[index], source), count);
    for (int p = 0; p < count; p++) {
      ck_assert_uint_eq(hwgq_parameter_bytes(&to[p]), hwgq_parameter_bytes(&source[p]));
      memcpy(hwgq_parameter_data(&to[p]), hwgq_parameter_data(&source[p]), (size_t)hwgq_parameter_bytes(&to[p]));
    }
  }
}

/* The one layer that reads `index`, if there is one and it reads nothing else; else -1. */
static int only_reader(const struct hwgq_network *network, int index) {
  int reader = -1;
  for (int i = 0; i < network->layer_count; i++) {
    for (int k = 0; k < network->layers[i].input_count; k++) {
      if (network->layers[i].inputs[k] != index) continue;
      if (reader >= 0 || network->layers[i].input_count != 1) return -1;
      reader = i;
    }
  }
  return reader;
}

struct tally {
  int layers, codes;
  double largest; /* float error of the reference */
};

/* Quantizer, binary layer and, with `whole`, what follows up to the next quantizer, fed with the recorded codes: accumulators
 * and next codes. A quantizer keeps the values that its own levels stand for, so the recorded values can be its input. */
static void check_chain(const struct golden *golden, const struct hwgq_network *from, int layer, bool whole,
                        struct tally *tally) {
  const struct hwgq_layer *quantizer = &from->layers[from->layers[layer].inputs[0]];
  struct hwgq_network *network = NULL;
  must(hwgq_network_create("chain", quantizer->output, &network, &failure), "chain");
  copy_layer(network, quantizer);
  for (int i = layer; i >= 0; i = whole ? only_reader(from, i) : -1) {
    if (i != layer && (from->layers[i].op == HWGQ_CONV2D || from->layers[i].op == HWGQ_LINEAR)) break;
    copy_layer(network, &from->layers[i]);
    if (from->layers[i].op == HWGQ_QUANTIZE) break;
  }
  copy_parameters(network, from);
  const struct golden_blob *blob = golden_find(golden, quantizer->name);
  ck_assert(blob != NULL);
  double *values = malloc(blob->count * sizeof *values);
  float *codes = malloc(blob->count * sizeof *codes);
  must(golden_read(golden, blob, quantizer, values, &failure), quantizer->name);
  for (size_t i = 0; i < blob->count; i++) codes[i] = (float)values[i];
  struct verifier *verifier = make_verifier(network, NULL);
  struct verify_result result;
  must(verifier_run_golden(verifier, golden, codes, &result, &failure), quantizer->name);
  check_result(network, &result, REFERENCE_TOLERANCE);
  tally->layers += result.comparisons[0].compared - 1; /* without the first quantizer */
  tally->codes += result.comparisons[0].code_layers - 1;
  tally->largest = fmax(tally->largest, result.comparisons[0].largest_error);
  verify_result_release(&result);
  verifier_destroy(verifier);
  free(codes);
  free(values);
  hwgq_network_destroy(network);
}

START_TEST(layer_by_layer) {
  const struct fixture *fixture = &fixtures[_i];
  struct hwgq_model *model = import_fixture(fixture);
  struct golden *golden = open_recording(fixture);
  const struct hwgq_network *network = model->network;
  struct tally accumulators = {0}, chains = {0};
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    if (!layer->binary || layer->inputs[0] < 0 || network->layers[layer->inputs[0]].op != HWGQ_QUANTIZE) continue;
    check_chain(golden, network, i, false, &accumulators);
    check_chain(golden, network, i, true, &chains);
  }
  ck_assert_int_gt(accumulators.layers, 10);
  ck_assert_int_gt(chains.codes, 3);
  printf("%s, %s: layer by layer: %d accumulators, largest error %.2g; %d next codes\n", fixture->recording, fixture->weights,
         accumulators.layers, accumulators.largest, chains.codes);
  golden_close(golden);
  hwgq_model_destroy(model);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------------------------------- */

/* A model survives its file: the read model agrees with the recording as the imported one does. */
START_TEST(through_a_file) {
  const struct fixture *fixture = &fixtures[_i];
  struct hwgq_model *model = import_fixture(fixture), *read = NULL;
  struct golden *golden = open_recording(fixture);
  char *directory = support_make_directory(), *path = support_path(directory, "model.hwgq");
  must(hwgq_model_write(model, path, &failure), path);
  must(hwgq_model_read(path, &read, &failure), path);
  struct verifier *verifiers[2] = {make_verifier(model->network, &model->preprocess),
                                   make_verifier(read->network, &read->preprocess)};
  struct verify_result results[2];
  for (int i = 0; i < 2; i++) {
    must(verifier_run_golden(verifiers[i], golden, NULL, &results[i], &failure), path);
    check_result(i ? read->network : model->network, &results[i], REFERENCE_TOLERANCE);
  }
  ck_assert_int_eq(results[0].count, results[1].count);
  for (int k = 0; k < results[0].count; k++) {
    ck_assert(results[0].comparisons[k].largest_error == results[1].comparisons[k].largest_error);
  }
  ck_assert(results[0].nearest.value == results[1].nearest.value);
  for (int i = 0; i < 2; i++) {
    verify_result_release(&results[i]);
    verifier_destroy(verifiers[i]);
  }
  free(path);
  support_remove_directory(directory);
  golden_close(golden);
  hwgq_model_destroy(read);
  hwgq_model_destroy(model);
}
END_TEST

/* Latent floats, stored +-alpha, and +-alpha under plain layer types are one model: the same bits in the file. */
START_TEST(weight_files_agree) {
  char *directory = support_make_directory(), *path = support_path(directory, "model.hwgq");
  char digest[40] = "";
  for (int i = 0; i < FIXTURES; i++) {
    if (strcmp(fixtures[i].network, "tests/golden/mini") != 0) continue;
    struct hwgq_model *model = import_fixture(&fixtures[i]);
    must(hwgq_model_write(model, path, &failure), path);
    if (i == 0) memcpy(digest, model->digest, sizeof digest);
    ck_assert_int_gt((int)strlen(model->digest), 30);
    ck_assert_str_eq(model->digest, digest);
    hwgq_model_destroy(model);
  }
  free(path);
  support_remove_directory(directory);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("golden");
  TCase *cases = tcase_create("caffe");
  tcase_set_timeout(cases, 300);
  tcase_add_loop_test(cases, end_to_end, 0, FIXTURES);
  tcase_add_loop_test(cases, from_pixels, 0, FIXTURES);
  tcase_add_loop_test(cases, layer_by_layer, 0, FIXTURES);
  tcase_add_loop_test(cases, through_a_file, 0, FIXTURES);
  tcase_add_test(cases, weight_files_agree);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
