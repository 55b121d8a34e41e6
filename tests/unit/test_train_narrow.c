/* Products in narrow numbers: every kernel against the plain one, layers against the same layers in float32, and whole networks
 * against themselves in float32 and with other numbers of threads. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/conv_narrow.h"
#include "models/train/net.h"
#include "models/train/rng.h"
#include "tests/support/support.h"

static struct hwgq_error error;
static struct blas blas;

static const struct dot_kernels *const tables[] = {&dot_kernels_plain, NULL};

/* Table 0 is the plain one, 1 this CPU's; NULL without, which is said. */
static const struct dot_kernels *table(int index) {
  const struct dot_kernels *kernels = tables[index] != NULL ? tables[index] : dot_kernels_fast();
  if (kernels == NULL) puts("SKIPPED: this CPU cannot run the narrow products of AVX512-BF16");
  return kernels;
}

static void *allocate(size_t bytes) {
  void *p = calloc(bytes + 64, 1);
  ck_assert_ptr_nonnull(p);
  return p;
}

static float *random_floats(struct support_random *random, size_t count) {
  float *values = allocate(sizeof *values * count);
  for (size_t i = 0; i < count; i++) values[i] = (float)support_random_normal(random);
  return values;
}

/* ---- kernels ------------------------------------------------------------------------------------------------------------ */

START_TEST(test_round) {
  static const struct {
    float x;
    uint16_t rounded;
  } cases[] = {{1.0f, 0x3f80},      {-2.0f, 0xc000},           {0x1.01p0f, 0x3f80}, {0x1.03p0f, 0x3f82}, {0x1.0101p0f, 0x3f81},
               {0x1.ffp0f, 0x4000}, {0x1.fffffep127f, 0x7f80}, {INFINITY, 0x7f80},  {-INFINITY, 0xff80}, {0.0f, 0},
               {-0.0f, 0x8000},     {0x1p-126f, 0x0080},       {0x1p-127f, 0},      {-0x1p-130f, 0x8000}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) ck_assert_uint_eq(dot_round(cases[i].x), cases[i].rounded);
  ck_assert(isnan(dot_widen(dot_round(NAN))));
  ck_assert_float_eq(dot_widen(0x4049), 3.140625f);
}
END_TEST

START_TEST(test_element_kernels) {
  const struct dot_kernels *fast = table(1), *plain = &dot_kernels_plain;
  if (fast == NULL) return;
  struct support_random random = {3};
  for (int round = 0; round < 200; round++) {
    int count = support_random_int(&random, 1, 100), zero = support_random_int(&random, 0, 1);
    float step = 0.1f + (float)support_random_uniform(&random);
    float *x = random_floats(&random, (size_t)count), *y = random_floats(&random, (size_t)count);
    uint8_t bytes[2][128] = {{0}};
    uint16_t numbers[2][4096] = {{0}};
    fast->round(x, y, count, numbers[0]);
    plain->round(x, y, count, numbers[1]);
    ck_assert_mem_eq(numbers[0], numbers[1], sizeof numbers[0]);
    int columns = count < DOT_COLUMNS ? count : DOT_COLUMNS;
    fast->pair(x, count % 2 == 0 ? y : NULL, columns, step, numbers[0]);
    plain->pair(x, count % 2 == 0 ? y : NULL, columns, step, numbers[1]);
    ck_assert_mem_eq(numbers[0], numbers[1], sizeof numbers[0]);
    for (int i = 0; i < count; i++) x[i] = step * (float)support_random_int(&random, -zero, 127);
    fast->levels(x, (size_t)count, 1 / step, zero, bytes[0]);
    plain->levels(x, (size_t)count, 1 / step, zero, bytes[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], sizeof bytes[0]);
    for (int i = 0; i < count; i++) ck_assert_int_eq(bytes[1][i], (int)roundf(x[i] / step) + zero);
    struct dot_spread s = {.pixel_bytes = 16,
                           .partner_bytes = 16 * support_random_int(&random, 1, 2),
                           .pixels = support_random_int(&random, 1, 6),
                           .blocks = support_random_int(&random, 1, 2),
                           .block_stride = 128,
                           .zero = zero};
    s.partners = support_random_int(&random, 0, s.pixels);
    fast->spread(&s, bytes[0], numbers[0]);
    plain->spread(&s, bytes[0], numbers[1]);
    ck_assert_mem_eq(numbers[0], numbers[1], sizeof numbers[0]);
    free(x);
    free(y);
  }
}
END_TEST

START_TEST(test_sign_kernels) {
  const struct dot_kernels *fast = table(1), *plain = &dot_kernels_plain;
  if (fast == NULL) return;
  struct support_random random = {8};
  for (int round = 0; round < 200; round++) {
    int channels = support_random_int(&random, 1, DOT_SIGN_CHANNELS), columns = support_random_int(&random, 1, DOT_COLUMNS);
    float *weights = random_floats(&random, 40 * DOT_SIGN_CHANNELS);
    for (int i = 0; i < 40; i++)
      weights[support_random_int(&random, 0, 40 * DOT_SIGN_CHANNELS - 1)] = i % 2 == 0 ? 0.0f : -0.0f;
    int8_t forward[2][DOT_SIGN_CHANNELS * DOT_COLUMNS];
    uint16_t backward[2][DOT_COLUMNS * DOT_COLUMNS] = {{0}};
    fast->signs(weights, 40, channels, columns, forward[0], round % 5 == 0 ? NULL : backward[0]);
    plain->signs(weights, 40, channels, columns, forward[1], round % 5 == 0 ? NULL : backward[1]);
    ck_assert_mem_eq(forward[0], forward[1], sizeof forward[0]);
    ck_assert_mem_eq(backward[0], backward[1], sizeof backward[0]);
    free(weights);
  }
}
END_TEST

/* Sums of small integers are exact in every order, so that results must be equal; of real numbers they must be close. */
static uint16_t random_bf16(struct support_random *random, bool integers) {
  return dot_round(integers ? (float)support_random_int(random, -9, 9) : (float)support_random_normal(random));
}

enum { MOST_STEPS = 40, MOST_TAPS = 9, STRIDE = 40, AREA = 1 << 14 };

static void check_tile(const float *fast, const float *plain, int rows, int columns, double tolerance) {
  for (int m = 0; m < DOT_ROWS; m++)
    for (int n = 0; n < STRIDE; n++) {
      double a = (double)fast[m * STRIDE + n], b = (double)plain[m * STRIDE + n];
      if (m >= rows || n >= columns)
        ck_assert_msg(a == 7, "written outside of the tile");
      else
        ck_assert_msg(fabs(a - b) <= tolerance, "[%d][%d] %g instead of %g", m, n, a, b);
    }
}

START_TEST(test_window_kernels) {
  const struct dot_kernels *fast = table(1), *plain = &dot_kernels_plain;
  if (fast == NULL) return;
  struct support_random random = {4};
  uint8_t *area = allocate(AREA);
  uint8_t *panel = allocate(MOST_TAPS * MOST_STEPS * DOT_COLUMNS * 4);
  for (int round = 0; round < 300; round++) {
    bool bytes = round % 3 == 0, integers = round % 3 == 1;
    int32_t offsets[MOST_TAPS], start[DOT_COLUMNS];
    float scale[DOT_COLUMNS], out[2][DOT_ROWS * STRIDE];
    struct dot_windows w = {.taps = support_random_int(&random, 1, MOST_TAPS),
                            .steps = support_random_int(&random, 1, MOST_STEPS),
                            .tap_offsets = offsets,
                            .panel = panel,
                            .start = start,
                            .scale = scale,
                            .rows = support_random_int(&random, 1, DOT_ROWS),
                            .columns = support_random_int(&random, 1, DOT_COLUMNS),
                            .stride = STRIDE};
    for (int i = 0; i < AREA / 2; i++) {
      uint16_t number = bytes ? (uint16_t)support_random_next(&random) : random_bf16(&random, integers);
      memcpy(area + 2 * i, &number, sizeof number);
    }
    for (int i = 0; i < w.taps * w.steps * DOT_COLUMNS * 2; i++) {
      uint16_t number = bytes ? (uint16_t)support_random_next(&random) : random_bf16(&random, integers);
      memcpy(panel + 2 * i, &number, sizeof number);
    }
    const uint8_t *row[DOT_ROWS];
    for (int m = 0; m < DOT_ROWS; m++) row[m] = area + 2 * support_random_int(&random, 0, AREA / 8);
    for (int t = 0; t < MOST_TAPS; t++) offsets[t] = 2 * support_random_int(&random, 0, AREA / 8);
    for (int n = 0; n < DOT_COLUMNS; n++) {
      start[n] = support_random_int(&random, -100000, 100000);
      scale[n] = (float)support_random_uniform(&random);
    }
    for (int k = 0; k < 2; k++) {
      for (int i = 0; i < DOT_ROWS * STRIDE; i++) out[k][i] = 7;
      w.out = out[k];
      const struct dot_kernels *kernels = k == 0 ? fast : plain;
      (bytes ? kernels->windows_u8 : kernels->windows_bf16)(&w, row);
    }
    check_tile(out[0], out[1], w.rows, w.columns, bytes || integers ? 0 : 1e-5 * w.taps * w.steps);
  }
  free(area);
  free(panel);
}
END_TEST

START_TEST(test_gradient_kernels) {
  const struct dot_kernels *fast = table(1), *plain = &dot_kernels_plain;
  if (fast == NULL) return;
  struct support_random random = {5};
  enum { PAIRS = 70 };
  uint16_t *a = allocate(2 * AREA), *b = allocate(sizeof *b * PAIRS * DOT_COLUMNS * 2);
  for (int round = 0; round < 300; round++) {
    bool integers = round % 2 == 0;
    int pairs = support_random_int(&random, 0, PAIRS), rows = support_random_int(&random, 1, DOT_ROWS);
    int columns = support_random_int(&random, 1, DOT_COLUMNS);
    int32_t offsets[PAIRS];
    float out[2][DOT_ROWS * STRIDE];
    for (int i = 0; i < AREA; i++) a[i] = random_bf16(&random, integers);
    for (int i = 0; i < PAIRS * DOT_COLUMNS * 2; i++) b[i] = random_bf16(&random, integers);
    for (int k = 0; k < PAIRS; k++) offsets[k] = 4 * support_random_int(&random, 0, AREA / 2 - DOT_BLOCK);
    for (int k = 0; k < 2; k++) {
      for (int i = 0; i < DOT_ROWS * STRIDE; i++) out[k][i] = 7;
      (k == 0 ? fast : plain)->gradient(a, offsets, pairs, b, rows, columns, out[k], STRIDE);
    }
    check_tile(out[0], out[1], rows, columns, integers ? 0 : 1e-5 * (pairs + 1));
  }
  free(a);
  free(b);
}
END_TEST

/* ---- layers ------------------------------------------------------------------------------------------------------------- */

/* |a - b| / |b| */
static double relative_error(const float *a, const float *b, size_t count) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < count; i++) {
    difference += pow((double)a[i] - (double)b[i], 2);
    size += pow((double)b[i], 2);
  }
  return sqrt(difference / (size + 1e-30));
}

static size_t size_of(struct hwgq_shape shape) {
  return (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
}

static struct hwgq_layer random_layer(struct support_random *random, struct hwgq_shape *in) {
  *in = (struct hwgq_shape){support_random_int(random, 1, 70), support_random_int(random, 1, 11),
                            support_random_int(random, 1, 11)};
  struct hwgq_layer layer = {.op = support_random_chance(random, 0.2) ? HWGQ_LINEAR : HWGQ_CONV2D,
                             .name = "layer",
                             .groups = 1,
                             .out_channels = support_random_int(random, 1, 140),
                             .binary = true,
                             .has_alpha = support_random_chance(random, 0.8),
                             .has_bias = support_random_chance(random, 0.3),
                             .kernel_height = support_random_int(random, 1, 4),
                             .kernel_width = support_random_int(random, 1, 4),
                             .stride_height = support_random_int(random, 1, 3),
                             .stride_width = support_random_int(random, 1, 3)};
  if (layer.op == HWGQ_LINEAR) {
    layer.output = (struct hwgq_shape){layer.out_channels, 1, 1};
    return layer;
  }
  layer.pad_height = support_random_int(random, 0, layer.kernel_height - 1);
  layer.pad_width = support_random_int(random, 0, layer.kernel_width - 1);
  if (in->height + 2 * layer.pad_height < layer.kernel_height) in->height = layer.kernel_height;
  if (in->width + 2 * layer.pad_width < layer.kernel_width) in->width = layer.kernel_width;
  layer.output = (struct hwgq_shape){layer.out_channels,
                                     (in->height + 2 * layer.pad_height - layer.kernel_height) / layer.stride_height + 1,
                                     (in->width + 2 * layer.pad_width - layer.kernel_width) / layer.stride_width + 1};
  return layer;
}

struct results {
  float *out, *in_gradient, *weight_gradient;
};

/* Forward in two parts, as chunks come; then everything backward. */
static struct results run_layer(const struct hwgq_layer *layer, struct hwgq_shape in, const struct dot_kernels *kernels,
                                struct conv_levels levels, int images, const float *input, const float *weights,
                                const float *out_gradient) {
  struct conv conv;
  ck_assert_int_eq(conv_create(layer, in, true, &conv, &error), HWGQ_OK);
  ck_assert_int_eq(conv_narrow_create(&conv, kernels, levels, images, &error), HWGQ_OK);
  ck_assert_int_eq(conv.narrow != NULL, kernels != NULL);
  memcpy(conv.weight, weights, sizeof(float) * conv.weight_count);
  for (int c = 0; conv.has_bias && c < layer->out_channels; c++) conv.bias[c] = 0.25f * (float)c;
  for (int c = 0; c < layer->out_channels; c += 32)
    conv_prepare(&conv, c, c + 32 < layer->out_channels ? c + 32 : layer->out_channels);
  float *workspace = allocate(sizeof(float) * conv_workspace(&conv));
  memset(workspace, 0x7f, sizeof(float) * conv_workspace(&conv)); /* what is not written must not be read: NaN as bfloat16 */
  struct results r = {.out = allocate(sizeof(float) * size_of(layer->output) * (size_t)images),
                      .in_gradient = allocate(sizeof(float) * size_of(in) * (size_t)images),
                      .weight_gradient = allocate(sizeof(float) * conv.weight_count)};
  int first = images / 2;
  conv_forward(&conv, &blas, train_kernels(), input, 0, first, r.out, workspace);
  conv_forward(&conv, &blas, train_kernels(), input + (size_t)first * size_of(in), first, images - first,
               r.out + (size_t)first * size_of(layer->output), workspace);
  conv_backward_input(&conv, &blas, out_gradient, images, r.in_gradient, workspace);
  for (int task = 0; task < conv.groups * conv.slices; task++)
    conv_backward_weight(&conv, &blas, input, out_gradient, images, task, workspace);
  conv_reduce(&conv, train_kernels(), 0, conv.weight_count);
  memcpy(r.weight_gradient, conv.gradient, sizeof(float) * conv.weight_count);
  free(workspace);
  conv_destroy(&conv);
  return r;
}

static void free_results(struct results *r) {
  free(r->out);
  free(r->in_gradient);
  free(r->weight_gradient);
}

START_TEST(test_layers) {
  const struct dot_kernels *kernels = table(_i);
  if (kernels == NULL) return;
  struct support_random random = {6};
  for (int round = 0; round < support_rounds(_i == 0 ? 40 : 150); round++) {
    struct hwgq_shape in;
    struct hwgq_layer layer = random_layer(&random, &in);
    bool sign = support_random_chance(&random, 0.3);
    struct conv_levels levels = {.step = sign ? 1 : 0.538f, .zero = sign};
    int images = support_random_int(&random, 1, 9), most = support_random_int(&random, 1, 15);
    int positions = layer.op == HWGQ_LINEAR ? in.height * in.width : layer.kernel_height * layer.kernel_width;
    size_t in_count = size_of(in) * (size_t)images, out_count = size_of(layer.output) * (size_t)images;
    size_t weight_count = (size_t)(positions * in.channels) * (size_t)layer.out_channels;
    float *input = allocate(sizeof(float) * in_count), *weights = random_floats(&random, weight_count);
    float *gradient = random_floats(&random, out_count);
    for (size_t i = 0; i < in_count; i++)
      input[i] =
          sign ? (float)(2 * support_random_int(&random, 0, 1) - 1) : levels.step * (float)support_random_int(&random, 0, most);
    struct results expected = run_layer(&layer, in, NULL, levels, images, input, weights, gradient);
    struct results got = run_layer(&layer, in, kernels, levels, images, input, weights, gradient);
    ck_assert_double_lt(relative_error(got.out, expected.out, out_count), 2e-6);
    ck_assert_double_lt(relative_error(got.in_gradient, expected.in_gradient, in_count), 4e-3);
    ck_assert_double_lt(relative_error(got.weight_gradient, expected.weight_gradient, weight_count), 4e-3);
    free_results(&expected);
    free_results(&got);
    free(input);
    free(weights);
    free(gradient);
  }
}
END_TEST

START_TEST(test_levels_of) {
  struct hwgq_layer layer = {.op = HWGQ_QUANTIZE, .level_count = 3, .centers = {0.538f, 0.538f * 2, 0.538f * 3}};
  ck_assert_float_eq(conv_levels_of(&layer).step, 0.538f);
  ck_assert_int_eq(conv_levels_of(&layer).zero, 0);
  layer.centers[2] = 1.7f; /* not a multiple */
  ck_assert_float_eq(conv_levels_of(&layer).step, 0);
  layer.sign = true;
  ck_assert_float_eq(conv_levels_of(&layer).step, 1);
  ck_assert_int_eq(conv_levels_of(&layer).zero, 1);
}
END_TEST

/* ---- networks ----------------------------------------------------------------------------------------------------------- */

enum { BATCH = 7, CLASSES = 4 };

static struct hwgq_layer *append(struct hwgq_network *network, const char *name, enum hwgq_op op) {
  return support_add(network, name, op, network->layer_count > 0 ? network->layers[network->layer_count - 1].name : "input");
}

static struct hwgq_layer *append_conv(struct hwgq_network *network, const char *name, int channels, bool binary) {
  struct hwgq_layer *layer = append(network, name, HWGQ_CONV2D);
  layer->out_channels = channels;
  layer->kernel_height = layer->kernel_width = 3;
  layer->stride_height = layer->stride_width = layer->pad_height = layer->pad_width = 1;
  layer->binary = layer->has_alpha = binary;
  return layer;
}

static void append_quantize(struct hwgq_network *network, const char *norm, const char *name, bool sign) {
  append(network, norm, HWGQ_BATCH_NORM);
  struct hwgq_layer *layer = append(network, name, HWGQ_QUANTIZE);
  layer->sign = sign;
  layer->level_count = sign ? 0 : 3;
  for (int i = 0; !sign && i < 3; i++) {
    layer->centers[i] = 0.538f * (float)(i + 1);
    layer->thresholds[i] = i == 0 ? 0 : 0.538f * ((float)i + 0.5f);
  }
}

/* Convolutions on levels, on max-pooled levels and with a stride, and a binary linear layer. */
static struct hwgq_network *make_network(bool sign) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){3, 13, 11}, &network, &error), HWGQ_OK);
  append_conv(network, "conv1", 20, false);
  append_quantize(network, "bn1", "quant1", sign);
  struct hwgq_layer *pool = append(network, "pool1", HWGQ_MAX_POOL);
  pool->kernel_height = pool->kernel_width = 3;
  pool->stride_height = pool->stride_width = 1;
  pool->pad_height = pool->pad_width = 1;
  append_conv(network, "conv2", 45, true);
  append_quantize(network, "bn2", "quant2", sign);
  append_conv(network, "conv3", 70, true)->stride_width = 2;
  append_quantize(network, "bn3", "quant3", sign);
  struct hwgq_layer *linear = append(network, "fc1", HWGQ_LINEAR);
  linear->out_channels = 40;
  linear->binary = linear->has_alpha = linear->has_bias = true;
  append_quantize(network, "bn4", "quant4", sign);
  linear = append(network, "fc2", HWGQ_LINEAR);
  linear->out_channels = CLASSES;
  linear->has_bias = true;
  append(network, "prob", HWGQ_SOFTMAX);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  return network;
}

/* All gradients of one step, parameter after parameter; free() them. The scores go to `scores`. */
static float *step(const struct hwgq_network *network, const struct dot_kernels *kernels, int threads, float *scores,
                   size_t *count) {
  struct blas with = blas;
  with.dot = kernels;
  struct pool *pool = NULL;
  struct net *net = NULL;
  ck_assert_int_eq(pool_create(threads, &pool, &error), HWGQ_OK);
  ck_assert_int_eq(net_create(network, BATCH, pool, &with, &net, &error), HWGQ_OK);
  for (int i = 0; i < net->layer_count; i++)
    ck_assert_int_eq(net->layers[i].conv.narrow != NULL, kernels != NULL && net->layers[i].layer->binary);
  net_initialize(net, NET_UNIFORM, 9);
  struct rng rng = rng_make(9, 1, 1);
  for (size_t i = 0; i < BATCH * size_of(network->input); i++) net->input[i] = 3 * rng_uniform(&rng) - 1.5f;
  int labels[BATCH];
  for (int i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  net_forward(net, BATCH, true);
  memcpy(scores, net_output(net), sizeof(float) * BATCH * CLASSES);
  net_backward(net, labels, NULL, BATCH);
  *count = 0;
  for (int p = 0; p < net->parameter_count; p++) *count += net->parameters[p].count;
  float *gradients = allocate(sizeof *gradients * *count), *next = gradients;
  for (int p = 0; p < net->parameter_count; p++) {
    struct net_parameter *parameter = &net->parameters[p];
    if (parameter->gradient == parameter->layer->conv.gradient)
      conv_reduce(&parameter->layer->conv, net->kernels, 0, parameter->count);
    memcpy(next, parameter->gradient, sizeof *next * parameter->count);
    next += parameter->count;
  }
  net_destroy(net);
  pool_destroy(pool);
  return gradients;
}

START_TEST(test_networks) {
  const struct dot_kernels *kernels = table(_i / 2);
  if (kernels == NULL) return;
  struct hwgq_network *network = make_network(_i % 2 == 1);
  float scores[3][BATCH * CLASSES];
  size_t count = 0;
  float *expected = step(network, NULL, 1, scores[0], &count);
  float *one = step(network, kernels, 1, scores[1], &count), *three = step(network, kernels, 3, scores[2], &count);
  ck_assert_double_lt(relative_error(scores[1], scores[0], BATCH * CLASSES), 1e-5);
  ck_assert_double_lt(relative_error(one, expected, count), 1e-2);
  ck_assert_mem_eq(scores[1], scores[2], sizeof scores[1]);
  ck_assert_mem_eq(one, three, sizeof(float) * count);
  free(expected);
  free(one);
  free(three);
  hwgq_network_destroy(network);
}
END_TEST

int main(void) {
  enum hwgq_status status = blas_load(NULL, &blas, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  Suite *suite = suite_create("train_narrow");
  TCase *tests = tcase_create("narrow");
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, test_round);
  tcase_add_test(tests, test_element_kernels);
  tcase_add_test(tests, test_sign_kernels);
  tcase_add_test(tests, test_window_kernels);
  tcase_add_test(tests, test_gradient_kernels);
  tcase_add_loop_test(tests, test_layers, 0, 2);
  tcase_add_test(tests, test_levels_of);
  tcase_add_loop_test(tests, test_networks, 0, 4);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
