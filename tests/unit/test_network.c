/* The network description: shape inference and every refusal. */
#include "tests/support/support.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hwgq_error error;

static struct hwgq_network *network_of(int channels, int height, int width) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){channels, height, width}, &network, &error), HWGQ_OK);
  return network;
}

static void assert_shape(struct hwgq_shape shape, int channels, int height, int width) {
  ck_assert_int_eq(shape.channels, channels);
  ck_assert_int_eq(shape.height, height);
  ck_assert_int_eq(shape.width, width);
}

/* The network is refused with `status`, and the message has both texts in it. */
static void assert_refused(struct hwgq_network *network, enum hwgq_status status, const char *first, const char *second) {
  memset(&error, 0, sizeof error);
  enum hwgq_status result = hwgq_network_infer(network, &error);
  ck_assert_msg(result == status, "status %s, message '%s'", hwgq_status_name(result), error.message);
  ck_assert_msg(strstr(error.message, first) && strstr(error.message, second), "'%s' lacks '%s' or '%s'", error.message, first,
                second);
  hwgq_network_destroy(network);
}

/* One layer on an 8x6x6 input, for the caller to spoil. */
static struct hwgq_layer *one_layer(enum hwgq_op op, struct hwgq_network **network) {
  *network = network_of(8, 6, 6);
  struct hwgq_layer *layer = support_add(*network, "layer1", op, "input");
  layer->out_channels = 4;
  layer->level_count = 3;
  for (int i = 0; i < 3; i++) {
    layer->centers[i] = 0.5f * (float)(i + 1);
    layer->thresholds[i] = 0.5f * (float)i;
  }
  return layer;
}

/* ---- shapes ------------------------------------------------------------------------------------------------------------- */

START_TEST(convolutions_round_down) {
  struct hwgq_network *network;
  struct hwgq_layer *layer = one_layer(HWGQ_CONV2D, &network);
  layer->kernel_height = 3, layer->stride_height = 2, layer->pad_height = 0; /* (6 - 3) / 2 + 1 = 2.5 */
  layer->kernel_width = 5, layer->stride_width = 1, layer->pad_width = 2;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  assert_shape(layer->output, 4, 2, 6);
  ck_assert_uint_eq(hwgq_layer_macs(network, layer), 4 * 2 * 6 * 8 * 3 * 5);
  hwgq_network_destroy(network);
}
END_TEST

static const struct {
  int in, kernel, stride, pad, out;
} pooling_cases[] =
    {
        {6, 2, 2, 0, 3}, {7, 2, 2, 0, 4}, {6, 3, 2, 0, 3},     {16, 3, 2, 1, 9}, {17, 3, 2, 1, 9},
        {9, 3, 2, 1, 5}, {5, 3, 1, 1, 5}, {224, 3, 2, 0, 112}, {3, 3, 2, 1, 2},  {2, 2, 2, 1, 2},
        {4, 3, 3, 2, 2}, {3, 1, 2, 0, 2}, {2, 1, 2, 0, 1}, /* rounding up gives 2; the second window would start at 2, outside
                                                            */
        {3, 2, 2, 1, 2}, /* ceil(3/2) + 1 = 3; the third window would start at 4 = 3 + 1 and is dropped */
};

START_TEST(pooling_rounds_up_and_drops_windows_outside) {
  struct hwgq_network *network = network_of(5, pooling_cases[_i].in, pooling_cases[_i].in);
  struct hwgq_layer *layer = support_add(network, "pool", HWGQ_MAX_POOL, "input");
  layer->kernel_height = layer->kernel_width = pooling_cases[_i].kernel;
  layer->stride_height = layer->stride_width = pooling_cases[_i].stride;
  layer->pad_height = layer->pad_width = pooling_cases[_i].pad;
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  assert_shape(layer->output, 5, pooling_cases[_i].out, pooling_cases[_i].out);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(every_shape_is_inferred) {
  struct hwgq_network *network = network_of(3, 10, 8);
  const char *two[] = {"conv", "scale"};
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = 6;
  support_add(network, "bn", HWGQ_BATCH_NORM, "conv");
  support_add(network, "scale", HWGQ_SCALE, "bn");
  ck_assert_int_eq(hwgq_network_add(network, "sum", HWGQ_ADD, 2, two, NULL, &error), HWGQ_OK);
  two[0] = "sum", two[1] = "input";
  ck_assert_int_eq(hwgq_network_add(network, "cat", HWGQ_CONCAT, 2, two, NULL, &error), HWGQ_OK);
  support_add(network, "sign", HWGQ_QUANTIZE, "cat")->sign = true;
  layer = support_add(network, "pool", HWGQ_AVG_POOL, "sign");
  layer->kernel_height = layer->stride_height = 2;
  support_add(network, "flat", HWGQ_FLATTEN, "pool");
  support_add(network, "relu", HWGQ_RELU, "flat");
  support_add(network, "fc", HWGQ_LINEAR, "relu")->out_channels = 7;
  support_add(network, "prob", HWGQ_SOFTMAX, "fc");
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  assert_shape(network->layers[hwgq_network_find(network, "sum")].output, 6, 10, 8);
  assert_shape(network->layers[hwgq_network_find(network, "cat")].output, 9, 10, 8);
  assert_shape(network->layers[hwgq_network_find(network, "pool")].output, 9, 5, 8);
  assert_shape(network->layers[hwgq_network_find(network, "flat")].output, 9 * 5 * 8, 1, 1);
  assert_shape(network->layers[hwgq_network_find(network, "prob")].output, 7, 1, 1);
  ck_assert_uint_eq(hwgq_layer_macs(network, &network->layers[hwgq_network_find(network, "fc")]), 7 * 9 * 5 * 8);
  ck_assert_uint_eq(hwgq_layer_macs(network, &network->layers[hwgq_network_find(network, "relu")]), 0);
  ck_assert_int_eq(hwgq_network_find(network, "input"), HWGQ_NETWORK_INPUT);
  ck_assert_int_eq(hwgq_network_find(network, "nowhere"), -2);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(global_pooling_takes_the_whole_input) {
  struct hwgq_network *network = network_of(5, 100, 7);
  struct hwgq_layer *layer = support_add(network, "pool", HWGQ_AVG_POOL, "input");
  layer->global_pool = true;
  for (int again = 0; again < 2; again++) { /* inference can be repeated */
    ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
    assert_shape(layer->output, 5, 1, 1);
    ck_assert_int_eq(layer->kernel_height, 100);
    ck_assert_int_eq(layer->kernel_width, 7);
  }
  layer->pad_width = 1;
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'pool'", "global pooling");
}
END_TEST

/* ---- refusals ----------------------------------------------------------------------------------------------------------- */

START_TEST(names_are_checked) {
  struct hwgq_network *network = NULL;
  const char *input = "input";
  const struct {
    const char *name, *message;
  } cases[] = {{"", "empty"},
               {"a/b", "'/'"},
               {"tab\there", "0x09"},
               {"gr\xc3\xb6\xc3\x9f"
                "e",
                "0xc3"},
               {"input", "choose another"},
               {"0123456789012345678901234567890123456789012345678901234567890123", "longer than 63"}};
  ck_assert_int_eq(hwgq_network_create("", (struct hwgq_shape){1, 1, 1}, &network, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_null(network);
  network = network_of(1, 1, 1);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    ck_assert_int_ne(hwgq_network_add(network, cases[i].name, HWGQ_RELU, 1, &input, NULL, &error), HWGQ_OK);
    ck_assert_msg(strstr(error.message, cases[i].message) != NULL, "'%s' lacks '%s'", error.message, cases[i].message);
    ck_assert_int_eq(network->layer_count, 0);
  }
  const char longest[] = "012345678901234567890123456789012345678901234567890123456789012";
  ck_assert_int_eq(hwgq_network_add(network, longest, HWGQ_RELU, 1, &input, NULL, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_add(network, longest, HWGQ_RELU, 1, &input, NULL, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "exists already"));
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(additions_are_checked) {
  struct hwgq_network *network = network_of(1, 1, 1);
  const char *inputs[HWGQ_MAX_INPUTS + 1] = {"nowhere"};
  ck_assert_int_eq(hwgq_network_add(network, "a", HWGQ_RELU, 1, inputs, NULL, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "'nowhere' is not an earlier layer"));
  ck_assert_int_eq(hwgq_network_add(network, "a", HWGQ_RELU, 0, inputs, NULL, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(hwgq_network_add(network, "a", HWGQ_ADD, HWGQ_MAX_INPUTS + 1, inputs, NULL, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "17 inputs"));
  ck_assert_int_eq(hwgq_network_add(network, "a", (enum hwgq_op)99, 1, inputs, NULL, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(hwgq_network_add(network, "a", HWGQ_RELU, 0, inputs, NULL, NULL),
                   HWGQ_ERROR_INVALID); /* no message wanted */
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(layers_are_limited) {
  struct hwgq_network *network = network_of(1, 1, 1);
  const char *input = "input";
  char name[16];
  for (int i = 0; i < HWGQ_MAX_LAYERS; i++) {
    snprintf(name, sizeof name, "r%d", i);
    support_add(network, name, HWGQ_RELU, i ? network->layers[i - 1].name : "input");
  }
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_add(network, "more", HWGQ_RELU, 1, &input, NULL, &error), HWGQ_ERROR_LIMIT);
  hwgq_network_destroy(network);
}
END_TEST

/* Each spoils one field of one layer: the message names the layer and has the text. */
static const struct {
  enum hwgq_op op;
  int field; /* see spoil() */
  double value;
  const char *message;
} spoiled[] = {
    {HWGQ_CONV2D, 'o', 0, "out_channels is 0"},
    {HWGQ_CONV2D, 'o', 65537, "must be 1 to 65536"},
    {HWGQ_LINEAR, 'o', -1, "out_channels is -1"},
    {HWGQ_CONV2D, 'k', 0, "kernel height is 0"},
    {HWGQ_CONV2D, 'k', 65, "must be 1 to 64"},
    {HWGQ_CONV2D, 'k', 7, "kernel height 7 is larger than the padded input, 6 + 2 * 0"},
    {HWGQ_CONV2D, 's', 0, "stride along the width is 0"},
    {HWGQ_CONV2D, 's', 65, "stride along the width is 65"},
    {HWGQ_CONV2D, 'p', -1, "pad along the height is -1"},
    {HWGQ_CONV2D, 'p', 65, "pad along the height is 65"},
    {HWGQ_CONV2D, 'g', 0, "groups is 0"},
    {HWGQ_CONV2D, 'g', 3, "groups 3 must divide both the 8 input and the 4 output channels"},
    {HWGQ_CONV2D, 'g', 8, "groups 8 must divide"},
    {HWGQ_CONV2D, 'a', 1, "has alpha but is not binary"},
    {HWGQ_LINEAR, 'k', 2, "must keep their defaults"},
    {HWGQ_LINEAR, 'g', 2, "must keep their defaults"},
    {HWGQ_QUANTIZE, 'l', 0, "0 levels"},
    {HWGQ_QUANTIZE, 'l', 16, "16 levels, must be 1 to 15"},
    {HWGQ_QUANTIZE, 'c', 0.5, "centers must increase: center 1 is 0.5, after 0.5"},
    {HWGQ_QUANTIZE, 'c', NAN, "center 1 is not finite"},
    {HWGQ_QUANTIZE, 'C', 0, "center 0 is 0, must be positive"},
    {HWGQ_QUANTIZE, 't', 0, "thresholds must increase"},
    {HWGQ_QUANTIZE, 't', INFINITY, "threshold 1 is not finite"},
    {HWGQ_QUANTIZE, 'T', -0.25, "threshold 0 is -0.25, must not be negative"},
    {HWGQ_BATCH_NORM, 'e', 0, "eps is 0, must be positive"},
    {HWGQ_BATCH_NORM, 'e', NAN, "must be positive and finite"},
    {HWGQ_MAX_POOL, 'k', 7, "larger than the padded input"},
    {HWGQ_AVG_POOL, 'p', 1, "pad 1 along the height must be smaller than the kernel, 1"},
    {HWGQ_SOFTMAX, 0, 0, "its input is 8x6x6, must be Cx1x1"},
    {HWGQ_ADD, 0, 0, "1 inputs, must be 2 to 16"},
    {HWGQ_RELU, 'i', 2, "2 inputs, must be 1"},
    {HWGQ_RELU, 'I', 0, "input 0 is layer 0, must be an earlier layer"},
    {HWGQ_RELU, 'I', -3, "input 0 is layer -3, must be an earlier layer"},
    {HWGQ_RELU, 'O', 99, "operation 99 does not exist"},
};

static void spoil(struct hwgq_layer *layer, int field, double value) {
  switch (field) {
  case 'o':
    layer->out_channels = (int)value;
    break;
  case 'k':
    layer->kernel_height = (int)value;
    break;
  case 's':
    layer->stride_width = (int)value;
    break;
  case 'p':
    layer->pad_height = (int)value;
    break;
  case 'g':
    layer->groups = (int)value;
    break;
  case 'a':
    layer->has_alpha = true;
    break;
  case 'l':
    layer->level_count = (int)value;
    break;
  case 'c':
    layer->centers[1] = (float)value;
    break;
  case 'C':
    layer->centers[0] = (float)value;
    break;
  case 't':
    layer->thresholds[1] = (float)value;
    break;
  case 'T':
    layer->thresholds[0] = (float)value;
    break;
  case 'e':
    layer->eps = (float)value;
    break;
  case 'i':
    layer->input_count = (int)value;
    break;
  case 'I':
    layer->inputs[0] = (int)value;
    break;
  case 'O':
    layer->op = (enum hwgq_op)(int)value;
    break;
  default:
    break;
  }
}

START_TEST(spoiled_layers_are_refused) {
  struct hwgq_network *network;
  spoil(one_layer(spoiled[_i].op, &network), spoiled[_i].field, spoiled[_i].value);
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'layer1'", spoiled[_i].message);
}
END_TEST

START_TEST(inputs_must_fit_each_other) {
  const char *inputs[] = {"input", "conv"};
  struct hwgq_network *network = network_of(4, 6, 6);
  support_add(network, "conv", HWGQ_CONV2D, "input")->out_channels = 5;
  ck_assert_int_eq(hwgq_network_add(network, "sum", HWGQ_ADD, 2, inputs, NULL, &error), HWGQ_OK);
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'sum'", "input 1 is 5x6x6, but input 0 is 4x6x6");

  struct hwgq_layer *layer;
  network = network_of(4, 6, 6);
  layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = 4;
  layer->stride_width = 2;
  ck_assert_int_eq(hwgq_network_add(network, "cat", HWGQ_CONCAT, 2, inputs, NULL, &error), HWGQ_OK);
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'cat'", "input 1 is 6x3, but input 0 is 6x6");

  network = network_of(4, 6, 6);
  inputs[1] = "input";
  ck_assert_int_eq(hwgq_network_add(network, "sum", HWGQ_ADD, 2, inputs, &layer, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  layer->coefficients[1] = NAN;
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'sum'", "coefficient 1 is not finite");
}
END_TEST

START_TEST(whole_networks_are_checked) {
  assert_refused(network_of(3, 4, 4), HWGQ_ERROR_INVALID, "network 'net'", "no layers");
  assert_refused(network_of(0, 4, 4), HWGQ_ERROR_INVALID, "network 'net'", "input is 0x4x4");
  assert_refused(network_of(3, 65537, 4), HWGQ_ERROR_INVALID, "network 'net'", "1 to 65536");
  assert_refused(network_of(65536, 65536, 65536), HWGQ_ERROR_LIMIT, "network 'net'", "larger than 268435456 elements");
}
END_TEST

START_TEST(unused_layers_are_refused) {
  struct hwgq_network *network = network_of(3, 4, 4);
  support_add(network, "used", HWGQ_RELU, "input");
  support_add(network, "dead", HWGQ_RELU, "used");
  support_add(network, "last", HWGQ_RELU, "used");
  assert_refused(network, HWGQ_ERROR_INVALID, "layer 'dead'", "nothing uses its output");
}
END_TEST

START_TEST(sizes_are_limited) {
  struct hwgq_network *network = network_of(1, 4096, 4096);
  support_add(network, "wide", HWGQ_CONV2D, "input")->out_channels = 17; /* 17 * 2^24 > 2^28 */
  assert_refused(network, HWGQ_ERROR_LIMIT, "layer 'wide'", "more than 268435456 activations");

  network = network_of(65536, 1, 1);
  support_add(network, "a", HWGQ_LINEAR, "input")->out_channels = 32768; /* 2^31 weights: just allowed */
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  support_add(network, "b", HWGQ_LINEAR, "a")->out_channels = 1;
  assert_refused(network, HWGQ_ERROR_LIMIT, "layer 'b'", "more than 2147483648 weights");

  network = network_of(2, 4096, 4096);
  support_add(network, "deep", HWGQ_LINEAR, "input")->out_channels = 1;
  assert_refused(network, HWGQ_ERROR_LIMIT, "layer 'deep'", "inputs per output");

  network = network_of(1, 257, 257);
  support_add(network, "flat", HWGQ_FLATTEN, "input");
  assert_refused(network, HWGQ_ERROR_LIMIT, "layer 'flat'", "66049 channels");

  const char *twice[] = {"input", "input"};
  network = network_of(65536, 1, 1);
  ck_assert_int_eq(hwgq_network_add(network, "cat", HWGQ_CONCAT, 2, twice, NULL, &error), HWGQ_OK);
  assert_refused(network, HWGQ_ERROR_LIMIT, "layer 'cat'", "131072x1x1");
}
END_TEST

/* ---- parameters --------------------------------------------------------------------------------------------------------- */

START_TEST(parameters_are_allocated_with_neutral_values) {
  struct hwgq_network *network;
  struct hwgq_layer *layer = one_layer(HWGQ_CONV2D, &network);
  layer->binary = layer->has_alpha = layer->has_bias = true;
  layer->kernel_height = layer->kernel_width = 3;
  support_add(network, "bn", HWGQ_BATCH_NORM, "layer1");
  support_add(network, "scale", HWGQ_SCALE, "bn")->has_bias = true;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  struct hwgq_layer *layers = network->layers;
  float *kept = layers[0].alpha;
  ck_assert_ptr_null(layers[0].weight);
  for (int i = 0; i < 4 * 9; i++) ck_assert_uint_eq(layers[0].weight_bits[i], 0); /* 8 * 9 bits are 9 bytes */
  for (int c = 0; c < 4; c++) {
    ck_assert(layers[0].alpha[c] == 1 && layers[0].bias[c] == 0);
    ck_assert(layers[1].mean[c] == 0 && layers[1].variance[c] == 1);
    ck_assert(layers[2].gamma[c] == 1 && layers[2].beta[c] == 0);
  }
  kept[0] = 5;
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  ck_assert(layers[0].alpha == kept && kept[0] == 5);
  hwgq_network_destroy(network);
}
END_TEST

/* ---- status ------------------------------------------------------------------------------------------------------------- */

START_TEST(words_have_names) {
  for (int i = 0; i < HWGQ_OP_COUNT; i++)
    for (int j = 0; j < i; j++) ck_assert_str_ne(hwgq_op_name((enum hwgq_op)i), hwgq_op_name((enum hwgq_op)j));
  ck_assert_str_eq(hwgq_op_name(HWGQ_CONV2D), "conv2d");
  ck_assert_str_eq(hwgq_op_name(HWGQ_OP_COUNT), "unknown");
  for (int i = 0; i <= HWGQ_ERROR_UNSUPPORTED; i++)
    for (int j = 0; j < i; j++) ck_assert_str_ne(hwgq_status_name((enum hwgq_status)i), hwgq_status_name((enum hwgq_status)j));
  ck_assert_str_eq(hwgq_status_name(HWGQ_OK), "ok");
  ck_assert_str_eq(hwgq_status_name((enum hwgq_status)77), "unknown");
}
END_TEST

/* A message longer than the buffer is cut, and NULL takes none. */
START_TEST(messages_are_cut) {
  char lengthy[1000];
  memset(lengthy, 'x', sizeof lengthy);
  lengthy[sizeof lengthy - 1] = 0;
  ck_assert_int_eq(hwgq_fail(&error, HWGQ_ERROR_IO, "%s", lengthy), HWGQ_ERROR_IO);
  ck_assert_uint_eq(strlen(error.message), sizeof error.message - 1);
  ck_assert_int_eq(hwgq_fail(NULL, HWGQ_ERROR_LIMIT, "%s", lengthy), HWGQ_ERROR_LIMIT);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void) {
  Suite *suite = suite_create("network");
  TCase *shapes = tcase_create("shapes"), *refusals = tcase_create("refusals");
  tcase_add_test(shapes, convolutions_round_down);
  tcase_add_loop_test(shapes, pooling_rounds_up_and_drops_windows_outside, 0, COUNT(pooling_cases));
  tcase_add_test(shapes, every_shape_is_inferred);
  tcase_add_test(shapes, global_pooling_takes_the_whole_input);
  tcase_add_test(shapes, parameters_are_allocated_with_neutral_values);
  tcase_add_test(refusals, names_are_checked);
  tcase_add_test(refusals, additions_are_checked);
  tcase_add_test(refusals, layers_are_limited);
  tcase_add_loop_test(refusals, spoiled_layers_are_refused, 0, COUNT(spoiled));
  tcase_add_test(refusals, inputs_must_fit_each_other);
  tcase_add_test(refusals, whole_networks_are_checked);
  tcase_add_test(refusals, unused_layers_are_refused);
  tcase_add_test(refusals, sizes_are_limited);
  tcase_add_test(refusals, words_have_names);
  tcase_add_test(refusals, messages_are_cut);
  suite_add_tcase(suite, shapes);
  suite_add_tcase(suite, refusals);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
