/* The state_dict importer: what the tensors become, and how files that do not fit are refused. Whole networks against PyTorch:
 * tests/torch. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/safetensors.h"
#include "models/import/import.h"
#include "tests/support/support.h"

static struct hwgq_error failure;
static char notes[2048];

static void collect(void *context, const char *text) {
  (void)context;
  strncat(notes, text, sizeof notes - strlen(notes) - 1);
}

/* input 1x2x2 -> conv (float, 2 channels, bias) -> bn -> q -> fc (binary, 3 classes) -> prob */
static const char small_network[] =
    "{\"name\":\"small\",\"input\":[1,2,2],\"layers\":["
    "{\"name\":\"conv\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":2,\"kernel\":[1,2],\"bias\":true},"
    "{\"name\":\"bn\",\"op\":\"batch_norm\",\"inputs\":[\"conv\"]},"
    "{\"name\":\"q\",\"op\":\"quantize\",\"inputs\":[\"bn\"],\"centers\":[0.538],\"thresholds\":[0]},"
    "{\"name\":\"fc\",\"op\":\"linear\",\"inputs\":[\"q\"],\"out_channels\":3,\"binary\":true,\"alpha\":true},"
    "{\"name\":\"prob\",\"op\":\"softmax\",\"inputs\":[\"fc\"]}]}";

static const float conv_weight[4] = {0.5f, -1.25f, 3, 0}, conv_bias[2] = {7, -8}, bn_mean[2] = {0.25f, -3},
                   bn_variance[2] = {4, 0};
/* fc takes 2 x 2 x 1 values: three rows of four latent weights. Row 0 has both zeros. */
static const float fc_weight[12] = {0.0f, -0.0f, 0.5f, -0.25f, -1, -1, -1, -1, 0.125f, 0.25f, -0.5f, 1};

enum { CONV_WEIGHT, CONV_BIAS, MEAN, VARIANCE, FC_WEIGHT, TENSORS, ROOM = 12 };

struct state {
  struct hwgq_tensor tensors[ROOM];
  int count;
  struct hwgq_metadata metadata[4];
  int metadata_count;
};

static struct hwgq_tensor tensor(const char *name, const char *dtype, int rank, const uint64_t *extents, const void *data) {
  struct hwgq_tensor t = {.name = name, .dtype = dtype, .rank = rank, .data = data};
  uint64_t size = !strcmp(dtype, "F64") || !strcmp(dtype, "I64") ? 8 : !strcmp(dtype, "F32") ? 4 : 2;
  t.bytes = size;
  for (int i = 0; i < rank; i++) {
    t.extents[i] = extents[i];
    t.bytes *= extents[i];
  }
  return t;
}

static void add(struct state *state, struct hwgq_tensor t) {
  ck_assert_int_lt(state->count, ROOM);
  state->tensors[state->count++] = t;
}

static struct state good_state(void) {
  static const uint64_t four[] = {2, 1, 1, 2}, two[] = {2}, matrix[] = {3, 4};
  struct state state = {.metadata = {{"network", small_network}}, .metadata_count = 1};
  add(&state, tensor("conv.weight", "F32", 4, four, conv_weight));
  add(&state, tensor("conv.bias", "F32", 1, two, conv_bias));
  add(&state, tensor("bn.running_mean", "F32", 1, two, bn_mean));
  add(&state, tensor("bn.running_var", "F32", 1, two, bn_variance));
  add(&state, tensor("fc.weight", "F32", 2, matrix, fc_weight));
  return state;
}

static enum hwgq_status import_with(const struct state *state, struct import_state_options *options,
                                    struct hwgq_model **model) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  notes[0] = '\0';
  failure.message[0] = '\0';
  options->note = collect;
  enum hwgq_status built =
      hwgq_safetensors_build(state->tensors, state->count, state->metadata, state->metadata_count, &bytes, &length, &failure);
  ck_assert_msg(!built, "%s", failure.message);
  uint8_t *exact = malloc(length); /* a byte too far is a finding under ASan */
  memcpy(exact, bytes, length);
  free(bytes);
  enum hwgq_status status = import_state(exact, length, "state", options, model, &failure);
  free(exact);
  return status;
}

static struct hwgq_model *import_good(const struct state *state) {
  struct import_state_options options = {0};
  struct hwgq_model *model = NULL;
  enum hwgq_status status = import_with(state, &options, &model);
  ck_assert_msg(!status, "%s", failure.message);
  return model;
}

/* The message names the file, and has every word. */
static void refused(const struct state *state, enum hwgq_status expected, const char *const *words) {
  struct import_state_options options = {0};
  struct hwgq_model *model = NULL;
  enum hwgq_status status = import_with(state, &options, &model);
  ck_assert_ptr_null(model);
  ck_assert_msg(status == expected, "%s: %s", hwgq_status_name(status), failure.message);
  ck_assert_msg(strncmp(failure.message, "state: ", 7) == 0, "%s", failure.message);
  for (; *words; words++) ck_assert_msg(strstr(failure.message, *words) != NULL, "'%s' in: %s", *words, failure.message);
}

#define REFUSED(state, status, ...) refused(state, status, (const char *const[]){__VA_ARGS__, NULL})

static struct hwgq_layer *layer_of(struct hwgq_model *model, const char *name) {
  int index = hwgq_network_find(model->network, name);
  ck_assert_msg(index >= 0, "no layer %s", name);
  return &model->network->layers[index];
}

/* ---- what the tensors become ----------------------------------------------------------------------------------------------
 */

START_TEST(values) {
  struct state state = good_state();
  struct hwgq_model *model = import_good(&state);
  struct hwgq_layer *conv = layer_of(model, "conv"), *bn = layer_of(model, "bn"), *fc = layer_of(model, "fc");
  ck_assert_mem_eq(conv->weight, conv_weight, sizeof conv_weight);
  ck_assert_mem_eq(conv->bias, conv_bias, sizeof conv_bias);
  ck_assert_mem_eq(bn->mean, bn_mean, sizeof bn_mean);
  ck_assert_mem_eq(bn->variance, bn_variance, sizeof bn_variance);
  ck_assert_uint_eq(fc->weight_bits[0], 7); /* both zeros are +1 */
  ck_assert_uint_eq(fc->weight_bits[1], 0);
  ck_assert_uint_eq(fc->weight_bits[2], 11);
  ck_assert(fc->alpha[0] == 0.1875f && fc->alpha[1] == 1 && fc->alpha[2] == 0.46875f);
  ck_assert_int_eq(model->class_count, 3);
  ck_assert_str_eq(model->labels[2], "2");
  ck_assert_int_eq(model->preprocess.order, HWGQ_GRAY);
  ck_assert(strstr(notes, "--mean") != NULL);
  ck_assert(strstr(model->provenance, "pytorch") != NULL);
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(element_types) {
  /* 0.5, -1.25, 3, 0 and 0.25, -3 as binary16 and bfloat16 */
  static const uint16_t half[] = {0x3800, 0xbd00, 0x4200, 0x0000}, bfloat[] = {0x3e80, 0xc040};
  static const double wide[] = {1e-300, -1e-300, 0.5, -0.25, -1, -1, -1, -1, 0.125, 0.25, -0.5, 1};
  static const uint64_t four[] = {2, 1, 1, 2}, two[] = {2}, matrix[] = {3, 4};
  struct state state = good_state();
  state.tensors[CONV_WEIGHT] = tensor("conv.weight", "F16", 4, four, half);
  state.tensors[MEAN] = tensor("bn.running_mean", "BF16", 1, two, bfloat);
  state.tensors[FC_WEIGHT] = tensor("fc.weight", "F64", 2, matrix, wide);
  struct hwgq_model *model = import_good(&state);
  ck_assert_mem_eq(layer_of(model, "conv")->weight, conv_weight, sizeof conv_weight);
  ck_assert_mem_eq(layer_of(model, "bn")->mean, bn_mean, sizeof bn_mean);
  ck_assert_uint_eq(layer_of(model, "fc")->weight_bits[0], 5); /* -1e-300 is -0 as a float, but it is not 0 */
  hwgq_model_destroy(model);
  static const uint16_t subnormal[] = {0x0001, 0x83ff, 0x7bff, 0x8000};
  state.tensors[CONV_WEIGHT].data = subnormal;
  model = import_good(&state);
  const float *w = layer_of(model, "conv")->weight;
  ck_assert(w[0] == 0x1p-24f && w[1] == -1023 * 0x1p-24f && w[2] == 65504 && w[3] == 0 && signbit(w[3]));
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(ignored_counter) {
  static const int64_t steps = 1234;
  struct state state = good_state();
  add(&state, tensor("bn.num_batches_tracked", "I64", 0, NULL, &steps));
  hwgq_model_destroy(import_good(&state));
  state.tensors[TENSORS].name = "conv.num_batches_tracked";
  REFUSED(&state, HWGQ_ERROR_INVALID, "conv.num_batches_tracked", "conv2d");
}
END_TEST

START_TEST(file_says_all) {
  struct state state = good_state();
  state.metadata[state.metadata_count++] =
      (struct hwgq_metadata){"preprocess", "{\"order\":\"gray\",\"mean\":[5],\"scale\":[0.25]}"};
  state.metadata[state.metadata_count++] = (struct hwgq_metadata){"labels", "[\"a\",\"b\",\"c\"]"};
  state.metadata[state.metadata_count++] = (struct hwgq_metadata){"provenance", "{\"epochs\":3}"};
  struct hwgq_model *model = import_good(&state);
  ck_assert_str_eq(model->labels[1], "b");
  ck_assert(model->preprocess.mean[0] == 5 && model->preprocess.scale[0] == 0.25f);
  ck_assert_str_eq(notes, "");
  ck_assert(strstr(model->provenance, "\"training\":{\"epochs\":3}") != NULL);
  hwgq_model_destroy(model);
  static const char *const names[] = {"x", "y", "z"};
  struct import_state_options options = {
      .labels = names, .label_count = 3, .has_mean = true, .has_invert = true, .preprocess = {.mean = {9}, .invert = true}};
  ck_assert_int_eq(import_with(&state, &options, &model), HWGQ_OK);
  ck_assert_str_eq(model->labels[1], "y");
  ck_assert(model->preprocess.mean[0] == 9 && model->preprocess.scale[0] == 0.25f && model->preprocess.invert);
  hwgq_model_destroy(model);
  model = NULL;
  options.label_count = 2;
  ck_assert_int_eq(import_with(&state, &options, &model), HWGQ_ERROR_INVALID);
  ck_assert(strstr(failure.message, "2 labels") != NULL);
  state.metadata[2].text = "[\"a\",\"b\"]";
  REFUSED(&state, HWGQ_ERROR_INVALID, "labels");
  state.metadata[2].text = "[\"a\",\"b\",3]";
  REFUSED(&state, HWGQ_ERROR_INVALID, "label 2");
  state.metadata[1].text = "{\"order\":\"rgb\",\"mean\":[5,5,5],\"scale\":[1,1,1]}";
  state.metadata[2].text = "[\"a\",\"b\",\"c\"]";
  REFUSED(&state, HWGQ_ERROR_INVALID, "rgb");
}
END_TEST

/* torch's default batch norm has weight and bias. */
START_TEST(affine_batch_norm) {
  static const float gamma[2] = {-2, 0.5f}, beta[2] = {1, 3};
  static const uint64_t two[] = {2};
  struct state state = good_state();
  add(&state, tensor("bn.weight", "F32", 1, two, gamma));
  REFUSED(&state, HWGQ_ERROR_INVALID, "bn.bias", "missing");
  add(&state, tensor("bn.bias", "F32", 1, two, beta));
  struct hwgq_model *model = import_good(&state);
  const struct hwgq_layer *scale = layer_of(model, "bn.scale");
  ck_assert_int_eq(scale->op, HWGQ_SCALE);
  ck_assert_mem_eq(scale->gamma, gamma, sizeof gamma);
  ck_assert_mem_eq(scale->beta, beta, sizeof beta);
  ck_assert_int_eq(layer_of(model, "q")->inputs[0], hwgq_network_find(model->network, "bn.scale"));
  ck_assert(strstr(notes, "scale layer") != NULL);
  hwgq_model_destroy(model);

  /* A network that has the scale layer already gets them there. */
  char text[1024], *q = strstr(strcpy(text, small_network), "{\"name\":\"q\"");
  char rest[1024];
  snprintf(rest, sizeof rest, "{\"name\":\"s\",\"op\":\"scale\",\"inputs\":[\"bn\"],\"bias\":true},%s", q);
  strcpy(q, rest);
  memcpy(strstr(text, "\"inputs\":[\"bn\"],\"centers\"") + 10, "\"s\" ", 4);
  state.metadata[0].text = text;
  model = import_good(&state);
  ck_assert_int_eq(hwgq_network_find(model->network, "bn.scale"), -2);
  ck_assert_mem_eq(layer_of(model, "s")->gamma, gamma, sizeof gamma);
  hwgq_model_destroy(model);
  state.tensors[TENSORS].name = "s.weight";
  state.tensors[TENSORS + 1].name = "s.bias";
  model = import_good(&state);
  ck_assert_mem_eq(layer_of(model, "s")->beta, beta, sizeof beta);
  hwgq_model_destroy(model);
}
END_TEST

/* ---- what is refused --------------------------------------------------------------------------------------------------------
 */

START_TEST(missing) {
  static const char *const names[] = {"conv.weight", "conv.bias", "bn.running_mean", "bn.running_var", "fc.weight"};
  for (int i = 0; i < TENSORS; i++) {
    struct state state = good_state();
    state.tensors[i] = state.tensors[--state.count];
    REFUSED(&state, HWGQ_ERROR_INVALID, names[i], "missing", "small");
  }
  struct state empty = good_state();
  empty.count = 0;
  REFUSED(&empty, HWGQ_ERROR_INVALID, "conv.weight", "missing");
}
END_TEST

START_TEST(surplus) {
  static const uint64_t three[] = {3};
  struct state state = good_state();
  add(&state, tensor("fc.bias", "F32", 1, three, fc_weight));
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc.bias'", "bias=False");
  state.tensors[TENSORS].name = "fc2.weight";
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc2.weight'", "no layer");
  state.tensors[TENSORS].name = "nothing";
  REFUSED(&state, HWGQ_ERROR_INVALID, "'nothing'", "no layer");
  state.tensors[TENSORS].name = "q.weight";
  REFUSED(&state, HWGQ_ERROR_INVALID, "'q.weight'", "quantize");
}
END_TEST

START_TEST(wrapped) {
  static const char *const names[] = {"module.conv.weight", "module.conv.bias", "module.bn.running_mean",
                                      "module.bn.running_var", "module.fc.weight"};
  struct state state = good_state();
  for (int i = 0; i < TENSORS; i++) state.tensors[i].name = names[i];
  REFUSED(&state, HWGQ_ERROR_INVALID, "'conv.weight'", "'module.conv.weight'", "model.module.state_dict()");
}
END_TEST

START_TEST(wrong_shapes) {
  static const uint64_t swapped[] = {4, 3}, flat[] = {12}, square[] = {2, 1, 2, 1};
  struct state state = good_state();
  state.tensors[FC_WEIGHT] = tensor("fc.weight", "F32", 2, swapped, fc_weight);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc.weight'", "[4, 3]", "[3, 4]");
  state.tensors[FC_WEIGHT] = tensor("fc.weight", "F32", 1, flat, fc_weight);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc.weight'", "[12]");
  state = good_state();
  state.tensors[CONV_WEIGHT] = tensor("conv.weight", "F32", 4, square, conv_weight);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'conv.weight'", "[2, 1, 2, 1]", "[2, 1, 1, 2]");
  state = good_state();
  state.tensors[CONV_BIAS] = tensor("conv.bias", "I16", 1, (const uint64_t[]){2}, conv_bias);
  REFUSED(&state, HWGQ_ERROR_UNSUPPORTED, "'conv.bias'", "I16");
}
END_TEST

START_TEST(wrong_values) {
  static const double huge[12] = {1e39}, nan_rows[12] = {0, 0, 0, 0, 0, (double)NAN};
  static const float negative[2] = {1, -0.5f}, infinite[2] = {1, INFINITY};
  static const uint64_t two[] = {2}, matrix[] = {3, 4};
  struct state state = good_state();
  state.tensors[FC_WEIGHT] = tensor("fc.weight", "F64", 2, matrix, huge);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc.weight'", "element 0", "finite");
  state.tensors[FC_WEIGHT] = tensor("fc.weight", "F64", 2, matrix, nan_rows);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'fc.weight'", "element 5", "finite");
  state = good_state();
  state.tensors[VARIANCE] = tensor("bn.running_var", "F32", 1, two, negative);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'bn.running_var'", "element 1", "variance");
  state.tensors[VARIANCE] = tensor("bn.running_var", "F32", 1, two, infinite);
  REFUSED(&state, HWGQ_ERROR_INVALID, "'bn.running_var'", "element 1", "finite");
}
END_TEST

START_TEST(which_network) {
  struct hwgq_network *network = NULL, *other = NULL;
  ck_assert_int_eq(hwgq_network_from_json(small_network, strlen(small_network), &network, &failure), HWGQ_OK);
  char text[1024];
  strcpy(text, small_network);
  memcpy(strstr(text, "0.538"), "0.539", 5);
  ck_assert_int_eq(hwgq_network_from_json(text, strlen(text), &other, &failure), HWGQ_OK);
  struct state state = good_state();
  struct import_state_options options = {.network = network};
  struct hwgq_model *model = NULL;
  ck_assert_int_eq(import_with(&state, &options, &model), HWGQ_OK); /* both say the same */
  hwgq_model_destroy(model);
  model = NULL;
  options.network = other;
  ck_assert_int_eq(import_with(&state, &options, &model), HWGQ_ERROR_INVALID);
  ck_assert(strstr(failure.message, "leave --network out") != NULL);
  state.metadata_count = 0;
  ck_assert_int_eq(import_with(&state, &options, &model), HWGQ_OK);
  ck_assert(layer_of(model, "q")->centers[0] == 0.539f);
  hwgq_model_destroy(model);
  REFUSED(&state, HWGQ_ERROR_INVALID, "--network");
  state = good_state();
  state.metadata[0].text = "{\"name\":\"x\"}";
  REFUSED(&state, HWGQ_ERROR_INVALID, "network");
  hwgq_network_destroy(network);
  hwgq_network_destroy(other);
}
END_TEST

/* No tensor, so no memory: sizes are only what a description claims. */
START_TEST(claimed_sizes) {
  struct state state = {.metadata_count = 1};
  state.metadata[0] =
      (struct hwgq_metadata){"network", "{\"name\":\"big\",\"input\":[1,64,64],\"layers\":["
                                        "{\"name\":\"a\",\"op\":\"linear\",\"inputs\":[\"input\"],\"out_channels\":60000},"
                                        "{\"name\":\"p\",\"op\":\"softmax\",\"inputs\":[\"a\"]}]}"};
  REFUSED(&state, HWGQ_ERROR_INVALID, "a.weight", "missing");
}
END_TEST

START_TEST(not_a_container) {
  struct hwgq_model *model = NULL;
  ck_assert_int_eq(import_state((const uint8_t *)"PK\3\4 a torch.save file", 20, "old.pth", NULL, &model, &failure),
                   HWGQ_ERROR_FORMAT);
  ck_assert(strstr(failure.message, "old.pth") != NULL);
  ck_assert_ptr_null(model);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("import safetensors");
  TCase *cases = tcase_create("state");
  tcase_add_test(cases, values);
  tcase_add_test(cases, element_types);
  tcase_add_test(cases, ignored_counter);
  tcase_add_test(cases, file_says_all);
  tcase_add_test(cases, affine_batch_norm);
  tcase_add_test(cases, missing);
  tcase_add_test(cases, surplus);
  tcase_add_test(cases, wrapped);
  tcase_add_test(cases, wrong_shapes);
  tcase_add_test(cases, wrong_values);
  tcase_add_test(cases, which_network);
  tcase_add_test(cases, claimed_sizes);
  tcase_add_test(cases, not_a_container);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
