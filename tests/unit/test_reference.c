/* The reference executor, by hand-computed values for every operation, by a second implementation of convolution and pooling
 * written straight from the definitions, and by values recorded from the HWGQ authors' program. Also what it stands on: the
 * exponential, the conversion of pixels, and the choice of the best classes. */
#include "engine/math.h"
#include "tests/support/support.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct hwgq_error error;

static struct hwgq_network *network_of(int channels, int height, int width) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){channels, height, width}, &network, &error), HWGQ_OK);
  return network;
}

static void prepare(struct hwgq_network *network) {
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
}

/* Runs, compares the last layer's values, destroys the network. */
static void assert_output(struct hwgq_network *network, const float *input, int count, const double *expected) {
  struct hwgq_reference *reference = NULL;
  int last = network->layer_count - 1;
  struct hwgq_shape shape = network->layers[last].output;
  ck_assert_int_eq(shape.channels * shape.height * shape.width, count);
  ck_assert_msg(hwgq_reference_create(network, &reference, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
  const double *output = hwgq_reference_output(reference, last);
  for (int i = 0; i < count; i++)
    ck_assert_msg(fabs(output[i] - expected[i]) <= 1e-12, "value %d: %.17g, expected %.17g", i, output[i], expected[i]);
  hwgq_reference_destroy(reference);
  hwgq_network_destroy(network);
}

/* ---- every operation by hand -------------------------------------------------------------------------------------------- */

START_TEST(float_convolution) {
  struct hwgq_network *network = network_of(1, 3, 3);
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = 1;
  layer->kernel_height = layer->kernel_width = 2;
  layer->has_bias = true;
  prepare(network);
  memcpy(layer->weight, (float[]){1, 2, 3, 4}, 4 * sizeof(float));
  layer->bias[0] = 0.5f;
  /* 1 2 3 / 4 5 6 / 7 8 9: 1*1 + 2*2 + 3*4 + 4*5 = 37 */
  assert_output(network, (float[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, 4, (double[]){37.5, 47.5, 67.5, 77.5});
}
END_TEST

START_TEST(binary_convolution_with_groups_stride_and_padding) {
  struct hwgq_network *network = network_of(2, 1, 3);
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = 2;
  layer->kernel_width = 3;
  layer->stride_width = 2;
  layer->pad_width = 1;
  layer->groups = 2;
  layer->binary = layer->has_alpha = layer->has_bias = true;
  prepare(network);
  layer->weight_bits[0] = 0x5; /* + - + */
  layer->weight_bits[1] = 0x6; /* - + + */
  layer->alpha[0] = 0.5f, layer->alpha[1] = 2;
  layer->bias[0] = 1, layer->bias[1] = -1;
  /* channel 0: 1 2 3 -> (0 - 1 + 2) = 1, (2 - 3 + 0) = -1; channel 1: 10 20 40 -> (10 + 20) = 30, (-20 + 40) = 20 */
  assert_output(network, (float[]){1, 2, 3, 10, 20, 40}, 4, (double[]){1.5, 0.5, 59, 39});
}
END_TEST

START_TEST(padding_is_zero_for_sign_activations_too) {
  struct hwgq_network *network = network_of(1, 1, 1);
  support_add(network, "sign", HWGQ_QUANTIZE, "input")->sign = true;
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "sign");
  layer->out_channels = 1;
  layer->kernel_height = layer->kernel_width = 3;
  layer->pad_height = layer->pad_width = 1;
  layer->binary = true;
  prepare(network);
  /* All eight border weights are -1, the center is +1: only the center sees the input. */
  layer->weight_bits[0] = 0x10;
  assert_output(network, (float[]){0.25f}, 1, (double[]){1});
}
END_TEST

START_TEST(linear_takes_channels_then_rows_then_columns) {
  struct hwgq_network *network = network_of(2, 1, 2);
  struct hwgq_layer *layer = support_add(network, "fc", HWGQ_LINEAR, "input");
  layer->out_channels = 2;
  prepare(network);
  memcpy(layer->weight, (float[]){1, 10, 100, 1000, -1, 0, 0, 0.5f}, 8 * sizeof(float));
  assert_output(network, (float[]){1, 2, 3, 4}, 2, (double[]){4321, 1});
}
END_TEST

START_TEST(binary_linear_over_more_than_a_byte) {
  struct hwgq_network *network = network_of(9, 1, 1);
  struct hwgq_layer *layer = support_add(network, "fc", HWGQ_LINEAR, "input");
  layer->out_channels = 2;
  layer->binary = layer->has_bias = true;
  prepare(network);
  layer->weight_bits[0] = 0xff, layer->weight_bits[1] = 0x01; /* all + */
  layer->weight_bits[2] = 0x01, layer->weight_bits[3] = 0x00; /* only the first + */
  layer->bias[1] = 0.25f;
  assert_output(network, (float[]){1, 2, 3, 4, 5, 6, 7, 8, 9}, 2, (double[]){45, 1 - 44 + 0.25});
}
END_TEST

START_TEST(normalization) {
  struct hwgq_network *network = network_of(2, 1, 1);
  struct hwgq_layer *layer = support_add(network, "bn", HWGQ_BATCH_NORM, "input");
  layer->eps = 0.25f;
  prepare(network);
  layer->mean[0] = 1, layer->variance[0] = 3.75f; /* deviation 2 */
  layer->mean[1] = -1, layer->variance[1] = 0;    /* deviation 0.5 */
  assert_output(network, (float[]){4, 0}, 2, (double[]){1.5, 2});
}
END_TEST

START_TEST(scaling) {
  struct hwgq_network *network = network_of(2, 1, 1);
  struct hwgq_layer *layer = support_add(network, "scale", HWGQ_SCALE, "input");
  layer->has_bias = true;
  prepare(network);
  layer->gamma[0] = -2, layer->beta[0] = 0.5f, layer->gamma[1] = 3;
  assert_output(network, (float[]){4, 5}, 2, (double[]){-7.5, 15});
}
END_TEST

START_TEST(relu_and_flatten) {
  struct hwgq_network *network = network_of(1, 2, 2);
  support_add(network, "relu", HWGQ_RELU, "input");
  support_add(network, "flat", HWGQ_FLATTEN, "relu");
  prepare(network);
  assert_output(network, (float[]){-1, 0, 2.5f, -0.0f}, 4, (double[]){0, 0, 2.5, 0});
}
END_TEST

START_TEST(max_pooling_ignores_padding) {
  struct hwgq_network *network = network_of(1, 1, 4);
  struct hwgq_layer *layer = support_add(network, "pool", HWGQ_MAX_POOL, "input");
  layer->kernel_width = 3;
  layer->stride_width = 2;
  layer->pad_width = 1;
  prepare(network);
  /* Windows over columns -1..1, 1..3, 3..5: a 0 from the padding would win in the first and the last. */
  assert_output(network, (float[]){-5, -4, -3, -7}, 3, (double[]){-4, -3, -7});
}
END_TEST

START_TEST(average_divides_by_padding_but_not_by_overhang) {
  struct hwgq_network *network = network_of(1, 1, 4);
  struct hwgq_layer *layer = support_add(network, "pool", HWGQ_AVG_POOL, "input");
  layer->kernel_width = 3;
  layer->stride_width = 2;
  layer->pad_width = 1;
  prepare(network);
  /* -1..1: (6 + 12) / 3; 1..3: (12 + 18 + 24) / 3; 3..5, of which 5 is beyond size + pad: 24 / 2 */
  assert_output(network, (float[]){6, 12, 18, 24}, 3, (double[]){6, 18, 12});
}
END_TEST

START_TEST(global_average) {
  struct hwgq_network *network = network_of(2, 2, 2);
  support_add(network, "pool", HWGQ_AVG_POOL, "input")->global_pool = true;
  prepare(network);
  assert_output(network, (float[]){1, 2, 3, 6, -1, -1, -1, -2}, 2, (double[]){3, -1.25});
}
END_TEST

START_TEST(adding_and_concatenating) {
  struct hwgq_network *network = network_of(1, 1, 2);
  const char *inputs[] = {"input", "relu", "input"};
  struct hwgq_layer *layer = NULL;
  support_add(network, "relu", HWGQ_RELU, "input");
  ck_assert_int_eq(hwgq_network_add(network, "sum", HWGQ_ADD, 3, inputs, &layer, &error), HWGQ_OK);
  layer->coefficients[1] = -0.5f, layer->coefficients[2] = 2;
  inputs[0] = "sum";
  ck_assert_int_eq(hwgq_network_add(network, "cat", HWGQ_CONCAT, 2, inputs, NULL, &error), HWGQ_OK);
  prepare(network);
  assert_output(network, (float[]){4, -2}, 4, (double[]){10, -6, 4, 0}); /* 4 - 2 + 8, -2 - 0 - 4; then relu */
}
END_TEST

START_TEST(softmax) {
  struct hwgq_network *network = network_of(3, 1, 1);
  support_add(network, "prob", HWGQ_SOFTMAX, "input");
  prepare(network);
  assert_output(network, (float[]){1000, 1000 + (float)M_LN2, -1000}, 3,
                (double[]){1 / (1 + exp((double)(1000 + (float)M_LN2) - 1000)),
                           1 - 1 / (1 + exp((double)(1000 + (float)M_LN2) - 1000)), 0});
}
END_TEST

/* ---- the quantizer on edge values, as the authors' program computes them ------------------------------------------------ */

static float float_of_bits(const json_t *item, const char *key) {
  uint32_t bits = (uint32_t)strtoul(json_string_value(json_object_get(item, key)), NULL, 16);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* The quantizers of the recording that a network can have; the other one has a slope for negative values. */
static struct hwgq_layer *recorded_quantizer(const char *label, struct hwgq_network **network) {
  *network = network_of(1, 1, 1);
  struct hwgq_layer *layer = support_add(*network, "q", HWGQ_QUANTIZE, "input");
  if (strcmp(label, "sign") == 0) {
    layer->sign = true;
  } else if (strcmp(label, "uniform3") == 0) {
    layer->level_count = 3;
    memcpy(layer->centers, (float[]){0.538f, 1.076f, 1.614f}, 3 * sizeof(float));
  } else if (strcmp(label, "nonuniform2") == 0) {
    layer->level_count = 2;
    memcpy(layer->centers, (float[]){0.453f, 1.51f}, 2 * sizeof(float));
  } else {
    ck_assert_str_eq(label, "uniform3_negslope");
    hwgq_network_destroy(*network);
    return NULL;
  }
  for (int j = 1; j < layer->level_count; j++) layer->thresholds[j] = (layer->centers[j - 1] + layer->centers[j]) / 2;
  prepare(*network);
  return layer;
}

START_TEST(recorded_edge_values_are_quantized_alike) {
  size_t length = 0, index, number;
  int compared = 0, refused = 0;
  char *text = (char *)support_read_file("tests/golden/mini/quant-edge.json", &length);
  ck_assert_msg(text != NULL, "cannot read tests/golden/mini/quant-edge.json: run from the repository's root");
  json_t *recording = json_loads(text, 0, NULL), *part, *item;
  ck_assert_ptr_nonnull(recording);
  json_array_foreach(recording, index, part) {
    struct hwgq_network *network;
    struct hwgq_reference *reference = NULL;
    if (!recorded_quantizer(json_string_value(json_object_get(part, "label")), &network)) continue;
    ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
    json_array_foreach(json_object_get(part, "cases"), number, item) {
      float input = float_of_bits(item, "in_bits");
      enum hwgq_status status = hwgq_reference_run(reference, &input, &error);
      if (!isfinite(input)) {
        ck_assert_int_eq(status, HWGQ_ERROR_INVALID);
        refused++;
        continue;
      }
      ck_assert_int_eq(status, HWGQ_OK);
      /* Compared as numbers: the recording has -0 where this has 0. */
      ck_assert_msg((float)*hwgq_reference_output(reference, 0) == float_of_bits(item, "out_bits"), "input %.9g gives %.9g",
                    (double)input, *hwgq_reference_output(reference, 0));
      compared++;
    }
    hwgq_reference_destroy(reference);
    hwgq_network_destroy(network);
  }
  ck_assert_int_eq(compared, 17 + 9 + 6);
  ck_assert_int_eq(refused, 3 + 2 + 3);
  json_decref(recording);
  free(text);
}
END_TEST

/* ---- convolution and pooling from the definition, on random geometry ---------------------------------------------------- */

static double padded(const struct hwgq_shape in, const float *x, int c, int y, int column, double outside) {
  if (y < 0 || y >= in.height || column < 0 || column >= in.width) return outside;
  return (double)x[(c * in.height + y) * in.width + column];
}

static double convolve_at(const struct hwgq_network *network, const struct hwgq_layer *l, const float *x, int o, int y,
                          int column) {
  struct hwgq_shape in = network->input;
  int per_group = in.channels / l->groups, first = o / (l->out_channels / l->groups) * per_group;
  int fan_in = per_group * l->kernel_height * l->kernel_width;
  double sum = 0;
  for (int c = 0; c < per_group; c++)
    for (int i = 0; i < l->kernel_height; i++)
      for (int j = 0; j < l->kernel_width; j++) {
        int index = (c * l->kernel_height + i) * l->kernel_width + j;
        double w = l->binary ? ((l->weight_bits[o * ((fan_in + 7) / 8) + index / 8] >> (index % 8)) & 1 ? 1 : -1)
                             : (double)l->weight[o * fan_in + index];
        sum += w * padded(in, x, first + c, y * l->stride_height - l->pad_height + i,
                          column * l->stride_width - l->pad_width + j, 0);
      }
  return sum * (l->has_alpha ? (double)l->alpha[o] : 1) + (l->has_bias ? (double)l->bias[o] : 0);
}

/* Cells beyond size + pad do not exist; padding counts as 0 for the average and not at all for the maximum. */
static double pool_at(const struct hwgq_network *network, const struct hwgq_layer *l, const float *x, int c, int y,
                      int column) {
  struct hwgq_shape in = network->input;
  double sum = 0, highest = -INFINITY;
  int cells = 0;
  for (int i = 0; i < l->kernel_height; i++)
    for (int j = 0; j < l->kernel_width; j++) {
      int row = y * l->stride_height - l->pad_height + i, at = column * l->stride_width - l->pad_width + j;
      if (row >= in.height + l->pad_height || at >= in.width + l->pad_width) continue;
      cells++;
      sum += padded(in, x, c, row, at, 0);
      highest = fmax(highest, padded(in, x, c, row, at, -INFINITY));
    }
  return l->op == HWGQ_MAX_POOL ? highest : sum / cells;
}

static struct hwgq_layer *random_layer(struct support_random *random, struct hwgq_network **network) {
  enum hwgq_op ops[] = {HWGQ_CONV2D, HWGQ_MAX_POOL, HWGQ_AVG_POOL};
  int groups = support_random_int(random, 1, 3);
  *network =
      network_of(groups * support_random_int(random, 1, 4), support_random_int(random, 1, 9), support_random_int(random, 1, 9));
  struct hwgq_layer *layer = support_add(*network, "layer", ops[support_random_int(random, 0, 2)], "input");
  bool pooling = layer->op != HWGQ_CONV2D;
  layer->out_channels = groups * support_random_int(random, 1, 4);
  layer->groups = pooling ? 1 : groups;
  layer->binary = layer->has_alpha = support_random_chance(random, 0.5);
  layer->has_bias = support_random_chance(random, 0.5);
  layer->kernel_height = support_random_int(random, 1, (*network)->input.height);
  layer->kernel_width = support_random_int(random, 1, (*network)->input.width);
  layer->stride_height = support_random_int(random, 1, 4);
  layer->stride_width = support_random_int(random, 1, 4);
  layer->pad_height = support_random_int(random, 0, pooling ? layer->kernel_height - 1 : 5);
  layer->pad_width = support_random_int(random, 0, pooling ? layer->kernel_width - 1 : 5);
  ck_assert_msg(hwgq_network_infer(*network, &error) == HWGQ_OK, "%s", error.message);
  support_fill_parameters(*network, random);
  return layer;
}

START_TEST(windows_agree_with_their_definition) {
  struct support_random random = {(uint64_t)_i};
  struct hwgq_network *network;
  struct hwgq_layer *layer = random_layer(&random, &network);
  struct hwgq_reference *reference = NULL;
  float *input = support_random_input(network->input, &random);
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
  const double *output = hwgq_reference_output(reference, 0);
  for (int c = 0; c < layer->output.channels; c++)
    for (int y = 0; y < layer->output.height; y++)
      for (int x = 0; x < layer->output.width; x++, output++) {
        double expected =
            layer->op == HWGQ_CONV2D ? convolve_at(network, layer, input, c, y, x) : pool_at(network, layer, input, c, y, x);
        ck_assert_msg(fabs(*output - expected) < 1e-11, "%s at %d,%d,%d: %.17g, expected %.17g", hwgq_op_name(layer->op), c, y,
                      x, *output, expected);
      }
  hwgq_reference_destroy(reference);
  hwgq_network_destroy(network);
  free(input);
}
END_TEST

/* Whole random networks: probabilities are probabilities, and a second run gives the same bits. */
START_TEST(networks_end_in_probabilities) {
  struct support_random random = {(uint64_t)_i};
  struct hwgq_network *network = support_random_network(&random);
  struct hwgq_reference *reference = NULL;
  float *input = support_random_input(network->input, &random);
  int last = network->layer_count - 1, classes = network->layers[last].output.channels;
  double first[32], sum = 0;
  ck_assert_int_le(classes, 32);
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
  for (int run = 0; run < 2; run++) {
    ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
    const double *output = hwgq_reference_output(reference, last);
    if (run == 1) ck_assert_mem_eq(first, output, (size_t)classes * sizeof(double));
    memcpy(first, output, (size_t)classes * sizeof(double));
  }
  for (int i = 0; i < classes; i++) {
    ck_assert(first[i] >= 0 && first[i] <= 1);
    sum += first[i];
  }
  ck_assert_double_eq_tol(sum, 1, 1e-12);
  hwgq_reference_destroy(reference);
  hwgq_network_destroy(network);
  free(input);
}
END_TEST

START_TEST(incomplete_networks_and_infinite_inputs_are_refused) {
  struct hwgq_network *network = network_of(1, 1, 2);
  struct hwgq_reference *reference = NULL;
  support_add(network, "fc", HWGQ_LINEAR, "input")->out_channels = 2;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "layer 'fc' has no weight"));
  ck_assert_int_eq(hwgq_network_allocate_parameters(network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_run(reference, (float[]){1, INFINITY}, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "input value 1 is not finite"));
  ck_assert_int_eq(hwgq_reference_run(reference, (float[]){NAN, 1}, &error), HWGQ_ERROR_INVALID);
  hwgq_reference_destroy(reference);
  network->layers[0].weight[3] = NAN;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "weight element 3 is not a number"));
  hwgq_network_destroy(network);
}
END_TEST

/* ---- beside the executor ------------------------------------------------------------------------------------------------ */

START_TEST(exponential_is_exact_to_one_unit) {
  struct support_random random = {11};
  for (int i = 0; i < 400000; i++) {
    double span = i & 1 ? 40 : 745, x = (i & 2 ? 1 : -1) * span * support_random_uniform(&random);
    if (x > 709.78) continue;
    long double exact = expl((long double)x);
    double rounded = (double)exact, unit = nextafter(rounded, INFINITY) - rounded;
    ck_assert_msg(fabsl((long double)hwgq_exp(x) - exact) <= (long double)unit, "exp(%.17g) = %.17g, exactly %.21Lg", x,
                  hwgq_exp(x), exact);
  }
  ck_assert(hwgq_exp(0) == 1 && hwgq_exp(-0.0) == 1);
  ck_assert(isinf(hwgq_exp(710)) && isinf(hwgq_exp(INFINITY)));
  ck_assert(hwgq_exp(-746) == 0 && hwgq_exp(-INFINITY) == 0);
  ck_assert(isnan(hwgq_exp(NAN)));
  ck_assert(hwgq_exp(709.782712893384) > 1.797e308 && isfinite(hwgq_exp(709.782712893384)));
  /* A few bit patterns: they must be these on every machine. */
  ck_assert(hwgq_exp(1) == 0x1.5bf0a8b14576ap+1); /* two thirds of a unit above e */
  ck_assert(hwgq_exp(-1) == 0x1.78b56362cef38p-2);
}
END_TEST

START_TEST(pixels_become_inputs) {
  const struct hwgq_shape shape = {3, 1, 2};
  const uint8_t pixels[] = {0, 100, 255, 10, 20, 30}; /* two pixels of three channels */
  struct hwgq_preprocess preprocess = {.order = HWGQ_RGB, .mean = {10, 100, 0.5f}, .scale = {1, 0.5f, 2}};
  float input[6];
  hwgq_preprocess_to_float(&preprocess, shape, pixels, input);
  const float expected[] = {-10, 0, 0, -40, 509, 59};
  for (int i = 0; i < 6; i++) ck_assert(input[i] == expected[i]);
  preprocess.invert = true;
  hwgq_preprocess_to_float(&preprocess, shape, pixels, input);
  const float inverted[] = {245, 235, 27.5f, 67.5f, -1, 449};
  for (int i = 0; i < 6; i++) ck_assert(input[i] == inverted[i]);
  /* float32, each operation rounded: not the double result. */
  preprocess = (struct hwgq_preprocess){.order = HWGQ_GRAY, .mean = {33.3f}, .scale = {0.1f}};
  hwgq_preprocess_to_float(&preprocess, (struct hwgq_shape){1, 1, 1}, (uint8_t[]){200}, input);
  volatile float difference = 200.0f - 33.3f;
  volatile float product = difference * 0.1f;
  ck_assert(input[0] == product);
}
END_TEST

START_TEST(best_classes_come_first) {
  const float scores[] = {0.1f, 0.3f, 0.05f, 0.3f, 0.25f};
  struct hwgq_prediction best[6];
  memset(best, 0xee, sizeof best);
  ck_assert_int_eq(hwgq_top_k(scores, 5, 3, best), 3);
  ck_assert_int_eq(best[0].class_index, 1);
  ck_assert_int_eq(best[1].class_index, 3);
  ck_assert_int_eq(best[2].class_index, 4);
  ck_assert(best[2].probability == 0.25f);
  ck_assert_uint_eq((unsigned)best[3].class_index, 0xeeeeeeeeu); /* nothing is written beyond k */
  ck_assert_int_eq(hwgq_top_k(scores, 5, 6, best), 5);
  ck_assert_int_eq(best[4].class_index, 2);
  ck_assert_int_eq(hwgq_top_k(scores, 5, 0, best), 0);
  ck_assert_int_eq(hwgq_top_k(scores, 0, 3, best), 0);
}
END_TEST

/* Against sorting, with many ties. */
static int by_score(const void *left, const void *right) {
  const struct hwgq_prediction *a = left, *b = right;
  if (a->probability != b->probability) return a->probability < b->probability ? 1 : -1;
  return a->class_index - b->class_index;
}

START_TEST(best_classes_agree_with_sorting) {
  struct support_random random = {3};
  for (int round = 0; round < 300; round++) {
    float scores[40];
    struct hwgq_prediction sorted[40], best[40];
    int count = support_random_int(&random, 1, 40), k = support_random_int(&random, 1, 40);
    for (int i = 0; i < count; i++) {
      scores[i] = (float)support_random_int(&random, 0, 9) / 10;
      sorted[i] = (struct hwgq_prediction){i, scores[i]};
    }
    qsort(sorted, (size_t)count, sizeof sorted[0], by_score);
    int found = hwgq_top_k(scores, count, k, best);
    ck_assert_int_eq(found, k < count ? k : count);
    for (int i = 0; i < found; i++) ck_assert_int_eq(best[i].class_index, sorted[i].class_index);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("reference");
  TCase *operations = tcase_create("operations"), *definitions = tcase_create("definitions"), *beside = tcase_create("beside");
  tcase_add_test(operations, float_convolution);
  tcase_add_test(operations, binary_convolution_with_groups_stride_and_padding);
  tcase_add_test(operations, padding_is_zero_for_sign_activations_too);
  tcase_add_test(operations, linear_takes_channels_then_rows_then_columns);
  tcase_add_test(operations, binary_linear_over_more_than_a_byte);
  tcase_add_test(operations, normalization);
  tcase_add_test(operations, scaling);
  tcase_add_test(operations, relu_and_flatten);
  tcase_add_test(operations, max_pooling_ignores_padding);
  tcase_add_test(operations, average_divides_by_padding_but_not_by_overhang);
  tcase_add_test(operations, global_average);
  tcase_add_test(operations, adding_and_concatenating);
  tcase_add_test(operations, softmax);
  tcase_add_test(operations, recorded_edge_values_are_quantized_alike);
  tcase_add_test(operations, incomplete_networks_and_infinite_inputs_are_refused);
  tcase_add_loop_test(definitions, windows_agree_with_their_definition, 0, 150);
  tcase_add_loop_test(definitions, networks_end_in_probabilities, 0, 40);
  tcase_add_test(beside, exponential_is_exact_to_one_unit);
  tcase_add_test(beside, pixels_become_inputs);
  tcase_add_test(beside, best_classes_come_first);
  tcase_add_test(beside, best_classes_agree_with_sorting);
  suite_add_tcase(suite, operations);
  suite_add_tcase(suite, definitions);
  suite_add_tcase(suite, beside);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
