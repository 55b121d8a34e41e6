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

/* Of a CPU that has no bfloat16. */
static const struct dot_kernels only_int8 = {.int8 = &dot_int8_plain};
static const struct dot_kernels *const tables[] = {&dot_kernels_plain, NULL, &only_int8};

/* Table 0 is the plain one, 1 this CPU's; NULL without, which is said. 2: without bfloat16. */
static const struct dot_kernels *table(int index) {
  const struct dot_kernels *kernels = tables[index] != NULL ? tables[index] : dot_kernels_fast();
  if (kernels == NULL) puts("SKIPPED: this CPU cannot run the narrow products of AVX512-VNNI");
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

/* Formats by number: 8 bits, bfloat16. NULL: this CPU has it not, which is said. */
static const struct dot_format *format(const struct dot_kernels *kernels, int index) {
  const struct dot_format *found = kernels == NULL ? NULL : index == 0 ? kernels->int8 : kernels->bf16;
  if (kernels != NULL && found == NULL) puts("SKIPPED: this CPU cannot run the narrow products of AVX512-BF16");
  return found;
}

START_TEST(test_element_kernels) {
  const struct dot_format *fast = format(table(1), _i), *plain = format(&dot_kernels_plain, _i);
  if (fast == NULL) return;
  struct support_random random = {3};
  for (int round = 0; round < 200; round++) {
    int count = support_random_int(&random, 1, 100), zero = support_random_int(&random, 0, 1);
    float step = 0.1f + (float)support_random_uniform(&random);
    uint32_t noise = (uint32_t)support_random_next(&random);
    float *x = random_floats(&random, 4 * 128), *y = random_floats(&random, 128);
    uint8_t bytes[2][8192] = {{0}};
    if (round == 0) x[0] = NAN;
    fast->pad(x, y, count, 10, noise, bytes[0]);
    plain->pad(x, y, count, 10, noise, bytes[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], sizeof bytes[0]);
    int columns = count < DOT_COLUMNS ? count : DOT_COLUMNS, pixels = support_random_int(&random, 1, 4 / plain->bytes);
    fast->group(x, 128, pixels, columns, y, noise, bytes[0]);
    plain->group(x, 128, pixels, columns, y, noise, bytes[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], sizeof bytes[0]);
    if (plain->largest != NULL) {
      float largest[2][DOT_COLUMNS] = {{0}};
      fast->largest(x, 128, 4, columns, largest[0]);
      plain->largest(x, 128, 4, columns, largest[1]);
      ck_assert_mem_eq(largest[0], largest[1], sizeof largest[0]);
      ck_assert(round > 0 || isnan(largest[0][0]));
      for (int i = 0; i < 4; i++) ck_assert(round == 0 || largest[0][0] >= fabsf(x[128 * i]));
    }
    for (int i = 0; i < count; i++) x[i] = step * (float)support_random_int(&random, -zero, 127);
    fast->keep(x, (size_t)count, 1 / step, zero, bytes[0]);
    plain->keep(x, (size_t)count, 1 / step, zero, bytes[1]);
    ck_assert_mem_eq(bytes[0], bytes[1], sizeof bytes[0]);
    for (int i = 0; plain->bytes == 1 && i < count; i++) ck_assert_int_eq(bytes[1][i], (int)roundf(x[i] / step) + zero);
    struct dot_spread s = {.pixel_bytes = DOT_TILE_CHANNELS * plain->bytes,
                           .pixels = support_random_int(&random, 1, 6),
                           .stride = support_random_int(&random, 1, 2),
                           .block_bytes = 1024};
    for (int i = 0; i < 6 * DOT_TILE_CHANNELS * plain->bytes; i++) bytes[0][i] = (uint8_t)support_random_next(&random);
    uint8_t spread[2][2048] = {{0}};
    fast->spread(&s, bytes[0], spread[0]);
    plain->spread(&s, bytes[0], spread[1]);
    ck_assert_mem_eq(spread[0], spread[1], sizeof spread[0]);
    free(x);
    free(y);
  }
}
END_TEST

/* Over many noises the mean of a rounded number is the number, and no rounding is off by 1 or more. */
START_TEST(test_rounding_is_fair) {
  const struct dot_format *int8 = &dot_int8_plain;
  struct support_random random = {11};
  for (int round = 0; round < 20; round++) {
    float x[DOT_COLUMNS], one[DOT_COLUMNS];
    double sum[DOT_COLUMNS] = {0};
    enum { TIMES = 4000 };
    for (int c = 0; c < DOT_COLUMNS; c++) {
      x[c] = (float)(2 * DOT_LARGEST * support_random_uniform(&random) - DOT_LARGEST);
      one[c] = 1;
    }
    for (int i = 0; i < TIMES; i++) {
      uint32_t noise = (uint32_t)support_random_next(&random);
      int8_t grouped[DOT_COLUMNS * 4];
      uint8_t padded[DOT_COLUMNS];
      int8->group(x, 0, 1, DOT_COLUMNS, one, noise, grouped);
      int8->pad(x, one, DOT_COLUMNS, 1, noise, padded);
      for (int c = 0; c < DOT_COLUMNS; c++) {
        ck_assert_int_eq(padded[c] - 128, grouped[4 * c]);
        ck_assert_float_le(fabsf((float)grouped[4 * c] - x[c]), 1.0f);
        sum[c] += (double)grouped[4 * c];
      }
    }
    for (int c = 0; c < DOT_COLUMNS; c++) /* the standard deviation of the mean is at most 0.5 / sqrt(TIMES) */
      ck_assert_double_lt(fabs(sum[c] / TIMES - (double)x[c]), 5 * 0.5 / sqrt(TIMES));
  }
}
END_TEST

START_TEST(test_weight_kernels) {
  const struct dot_format *fast = format(table(1), _i), *plain = format(&dot_kernels_plain, _i);
  if (fast == NULL) return;
  struct support_random random = {8};
  for (int round = 0; round < 200; round++) {
    int channels = support_random_int(&random, 1, DOT_TILE_CHANNELS), columns = support_random_int(&random, 1, DOT_COLUMNS);
    bool signs = plain->bytes == 1 || round % 2 == 0;
    float *weights = random_floats(&random, 40 * DOT_TILE_CHANNELS);
    for (int i = 0; i < 40; i++)
      weights[support_random_int(&random, 0, 40 * DOT_TILE_CHANNELS - 1)] = i % 2 == 0 ? 0.0f : -0.0f;
    uint8_t forward[2][2 * DOT_TILE_CHANNELS * DOT_COLUMNS] = {{0}}, backward[2][2 * DOT_COLUMNS * DOT_COLUMNS] = {{0}};
    int32_t sums[2][DOT_TILE_CHANNELS] = {{7}, {7}};
    bool forward_only = round % 5 == 0;
    fast->weights(weights, 40, channels, columns, signs, forward[0], forward_only ? NULL : backward[0],
                  forward_only ? NULL : sums[0]);
    plain->weights(weights, 40, channels, columns, signs, forward[1], forward_only ? NULL : backward[1],
                   forward_only ? NULL : sums[1]);
    ck_assert_mem_eq(forward[0], forward[1], sizeof forward[0]);
    ck_assert_mem_eq(backward[0], backward[1], sizeof backward[0]);
    ck_assert_mem_eq(sums[0], sums[1], sizeof sums[0]);
    free(weights);
  }
}
END_TEST

/* Sums of integers are exact in every order, so that results must be equal; of real numbers they must be close. */
static void random_numbers(struct support_random *random, const struct dot_format *f, bool integers, size_t bytes, void *out) {
  for (size_t i = 0; i < bytes / 2; i++) {
    uint16_t number = f->bytes == 1 ? (uint16_t)support_random_next(random)
                      : integers    ? dot_round((float)support_random_int(random, -9, 9))
                                    : dot_round((float)support_random_normal(random));
    memcpy((uint8_t *)out + 2 * i, &number, sizeof number);
  }
}

enum { MOST_STEPS = 40, MOST_TAPS = 9, STRIDE = 40, AREA = 1 << 14 };

static void check_tile(const float *fast, const float *plain, int rows, int columns, double tolerance) {
  for (int m = 0; m < DOT_ROWS; m++)
    for (int n = 0; n < STRIDE; n++) {
      double a = (double)fast[m * STRIDE + n], b = (double)plain[m * STRIDE + n];
      if (m >= rows || n >= columns)
        ck_assert_msg(a == 7, "written outside of the tile");
      else
        ck_assert_msg(fabs(a - b) <= tolerance + 1e-6 * fabs(b), "[%d][%d] %g instead of %g", m, n, a, b);
    }
}

START_TEST(test_window_kernels) {
  const struct dot_format *fast = format(table(1), _i), *plain = format(&dot_kernels_plain, _i);
  if (fast == NULL) return;
  struct support_random random = {4};
  uint8_t *area = allocate(AREA), *panel = allocate(MOST_TAPS * MOST_STEPS * DOT_COLUMNS * 4);
  for (int round = 0; round < 200; round++) {
    bool integers = _i == 0 || round % 2 == 0;
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
    random_numbers(&random, plain, integers, AREA, area);
    random_numbers(&random, plain, integers, (size_t)(w.taps * w.steps * DOT_COLUMNS * 4), panel);
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
      (k == 0 ? fast : plain)->windows(&w, row);
    }
    check_tile(out[0], out[1], w.rows, w.columns, integers ? 0 : 1e-5 * w.taps * w.steps);
  }
  free(area);
  free(panel);
}
END_TEST

START_TEST(test_gradient_kernels) {
  const struct dot_format *fast = format(table(1), _i), *plain = format(&dot_kernels_plain, _i);
  if (fast == NULL) return;
  struct support_random random = {5};
  enum { MOST = 70 };
  uint8_t *a = allocate(AREA), *b = allocate(MOST * DOT_COLUMNS * 4);
  for (int round = 0; round < 200; round++) {
    bool integers = _i == 0 || round % 2 == 0;
    int32_t offsets[MOST], start[DOT_COLUMNS];
    float scale[DOT_COLUMNS], out[2][DOT_ROWS * STRIDE];
    struct dot_gradient g = {.steps = support_random_int(&random, 0, MOST),
                             .offsets = offsets,
                             .b = b,
                             .start = start,
                             .scale = scale,
                             .rows = support_random_int(&random, 1, DOT_ROWS),
                             .columns = support_random_int(&random, 1, DOT_COLUMNS),
                             .stride = STRIDE};
    random_numbers(&random, plain, integers, AREA, a);
    random_numbers(&random, plain, integers, MOST * DOT_COLUMNS * 4, b);
    for (int k = 0; k < MOST; k++) offsets[k] = 4 * support_random_int(&random, 0, AREA / 4 - DOT_BLOCK);
    for (int n = 0; n < DOT_COLUMNS; n++) {
      start[n] = support_random_int(&random, -100000, 100000);
      scale[n] = (float)support_random_uniform(&random);
    }
    for (int k = 0; k < 2; k++) {
      for (int i = 0; i < DOT_ROWS * STRIDE; i++) out[k][i] = 7;
      g.out = out[k];
      (k == 0 ? fast : plain)->gradient(&g, a);
    }
    check_tile(out[0], out[1], g.rows, g.columns, integers ? 1e-5 : 1e-5 * (g.steps + 1));
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

/* large: so many pixels and channels that they are computed in several blocks and slices. */
static struct hwgq_layer random_layer(struct support_random *random, bool large, struct hwgq_shape *in) {
  int side = large ? 45 : 11;
  *in = (struct hwgq_shape){support_random_int(random, 1, large ? 20 : 70), support_random_int(random, 1, side),
                            support_random_int(random, 1, side)};
  struct hwgq_layer layer = {.op = support_random_chance(random, 0.2) ? HWGQ_LINEAR : HWGQ_CONV2D,
                             .name = "layer",
                             .groups = 1,
                             .out_channels = support_random_int(random, 1, large ? 300 : 140),
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
  bool narrow = kernels != NULL &&
                (layer->binary && levels.step > 0 ? kernels->int8 != NULL : kernels->bf16 != NULL && in.channels >= 16);
  ck_assert_int_eq(conv.narrow != NULL, narrow);
  conv.noise = 12345;
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
  conv_backward_input(&conv, &blas, out_gradient, 0, first, r.in_gradient, workspace);
  conv_backward_input(&conv, &blas, out_gradient + (size_t)first * size_of(layer->output), first, images - first,
                      r.in_gradient + (size_t)first * size_of(in), workspace);
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

/* Levels and binary weights in 8 bits, exact forward; the rest in bfloat16. Errors are relative to the whole tensor. */
START_TEST(test_layers) {
  const struct dot_kernels *kernels = table(_i);
  if (kernels == NULL) return;
  struct support_random random = {6};
  for (int round = 0; round < support_rounds(_i != 1 ? 60 : 200); round++) {
    struct hwgq_shape in;
    struct hwgq_layer layer = random_layer(&random, round % 15 == 0, &in);
    bool sign = support_random_chance(&random, 0.3), quantized = support_random_chance(&random, 0.6);
    layer.binary = quantized || support_random_chance(&random, 0.5);
    layer.has_alpha = layer.binary && layer.has_alpha;
    struct conv_levels levels = {.step = sign ? 1 : 0.538f, .zero = sign};
    int images = support_random_int(&random, 1, 9), most = support_random_int(&random, 1, 15);
    int positions = layer.op == HWGQ_LINEAR ? in.height * in.width : layer.kernel_height * layer.kernel_width;
    size_t in_count = size_of(in) * (size_t)images, out_count = size_of(layer.output) * (size_t)images;
    size_t weight_count = (size_t)(positions * in.channels) * (size_t)layer.out_channels;
    float *input = random_floats(&random, in_count), *weights = random_floats(&random, weight_count);
    float *gradient = random_floats(&random, out_count);
    for (size_t i = 0; quantized && i < in_count; i++)
      input[i] =
          sign ? (float)(2 * support_random_int(&random, 0, 1) - 1) : levels.step * (float)support_random_int(&random, 0, most);
    if (!quantized) levels = (struct conv_levels){0};
    struct results expected = run_layer(&layer, in, NULL, levels, images, input, weights, gradient);
    struct results got = run_layer(&layer, in, kernels, levels, images, input, weights, gradient);
    ck_assert_double_lt(relative_error(got.out, expected.out, out_count), quantized ? 2e-6 : 6e-3);
    ck_assert_double_lt(relative_error(got.in_gradient, expected.in_gradient, in_count), quantized ? 4e-2 : 6e-3);
    ck_assert_double_lt(relative_error(got.weight_gradient, expected.weight_gradient, weight_count), quantized ? 2e-2 : 6e-3);
    free_results(&expected);
    free_results(&got);
    free(input);
    free(weights);
    free(gradient);
  }
}
END_TEST

/* A gradient that is not finite must not become one that is, in whichever image of a block it is. */
START_TEST(test_not_finite) {
  enum { IMAGES = 12, CHANNELS = 33, PIXELS = 16 };
  const struct dot_kernels *kernels = table(_i);
  if (kernels == NULL) return;
  struct hwgq_shape in = {16, 4, 4};
  struct hwgq_layer layer = {.op = HWGQ_CONV2D,
                             .name = "layer",
                             .groups = 1,
                             .out_channels = CHANNELS,
                             .binary = true,
                             .has_alpha = true,
                             .kernel_height = 1,
                             .kernel_width = 1,
                             .stride_height = 1,
                             .stride_width = 1,
                             .output = {CHANNELS, 4, 4}};
  struct support_random random = {7};
  for (int k = 0; k < 3 * IMAGES; k++) {
    int image = k / 3;
    float *input = allocate(sizeof(float) * size_of(in) * IMAGES), *weights = random_floats(&random, 16 * CHANNELS);
    float *gradient = random_floats(&random, (size_t)CHANNELS * PIXELS * IMAGES);
    for (size_t i = 0; i < size_of(in) * IMAGES; i++) input[i] = 0.538f;
    gradient[CHANNELS * (PIXELS * image + 5) + 32] = (const float[]){NAN, INFINITY, -INFINITY}[k % 3];
    struct results got = run_layer(&layer, in, kernels, (struct conv_levels){.step = 0.538f}, IMAGES, input, weights, gradient);
    ck_assert(!isfinite(got.in_gradient[16 * (PIXELS * image + 5)]));
    ck_assert_msg(!isfinite(got.weight_gradient[32]), "image %d: a finite gradient of the weights", image);
    ck_assert(isfinite(got.weight_gradient[31]));
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

enum variant { UNIFORM, SIGN, FLOAT };

static void append_activation(struct hwgq_network *network, const char *norm, const char *name, enum variant variant) {
  append(network, norm, HWGQ_BATCH_NORM);
  struct hwgq_layer *layer = append(network, name, variant == FLOAT ? HWGQ_RELU : HWGQ_QUANTIZE);
  if (variant == FLOAT) return;
  bool sign = variant == SIGN;
  layer->sign = sign;
  layer->level_count = sign ? 0 : 3;
  for (int i = 0; !sign && i < 3; i++) {
    layer->centers[i] = 0.538f * (float)(i + 1);
    layer->thresholds[i] = i == 0 ? 0 : 0.538f * ((float)i + 0.5f);
  }
}

/* Convolutions on levels, on max-pooled levels and with a stride, and a linear layer. */
static struct hwgq_network *make_network(enum variant variant) {
  bool binary = variant != FLOAT;
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){3, 13, 11}, &network, &error), HWGQ_OK);
  append_conv(network, "conv1", 20, false);
  append_activation(network, "bn1", "quant1", variant);
  struct hwgq_layer *pool = append(network, "pool1", HWGQ_MAX_POOL);
  pool->kernel_height = pool->kernel_width = 3;
  pool->stride_height = pool->stride_width = 1;
  pool->pad_height = pool->pad_width = 1;
  append_conv(network, "conv2", 45, binary);
  append_activation(network, "bn2", "quant2", variant);
  append_conv(network, "conv3", 70, binary)->stride_width = 2;
  append_activation(network, "bn3", "quant3", variant);
  struct hwgq_layer *linear = append(network, "fc1", HWGQ_LINEAR);
  linear->out_channels = 40;
  linear->binary = linear->has_alpha = binary;
  linear->has_bias = true;
  append_activation(network, "bn4", "quant4", variant);
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
    ck_assert_int_eq(net->layers[i].conv.narrow != NULL,
                     kernels != NULL && net->layers[i].conv.taps > 27 && strcmp(net->layers[i].layer->name, "fc2") != 0);
  net_initialize(net, NET_UNIFORM, 9);
  struct rng rng = rng_make(9, 1, 1);
  for (size_t i = 0; i < BATCH * size_of(network->input); i++) net->input[i] = 3 * rng_uniform(&rng) - 1.5f;
  int labels[BATCH];
  for (int i = 0; i < BATCH; i++) labels[i] = i % CLASSES;
  net_forward(net, BATCH, true);
  memcpy(scores, net_output(net), sizeof(float) * BATCH * CLASSES);
  net_backward(net, labels, NULL, BATCH, 5);
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
  const struct dot_kernels *kernels = table(_i / 3);
  enum variant variant = (enum variant)(_i % 3);
  if (kernels == NULL || (variant == FLOAT && format(kernels, 1) == NULL)) return;
  struct hwgq_network *network = make_network(variant);
  float scores[3][BATCH * CLASSES];
  size_t count = 0;
  float *expected = step(network, NULL, 1, scores[0], &count);
  float *one = step(network, kernels, 1, scores[1], &count), *three = step(network, kernels, 3, scores[2], &count);
  ck_assert_double_lt(relative_error(scores[1], scores[0], BATCH * CLASSES), variant == FLOAT ? 2e-2 : 1e-5);
  ck_assert_double_lt(relative_error(one, expected, count), variant == FLOAT ? 0.1 : 3e-2);
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
  tcase_add_loop_test(tests, test_element_kernels, 0, 2);
  tcase_add_test(tests, test_rounding_is_fair);
  tcase_add_loop_test(tests, test_weight_kernels, 0, 2);
  tcase_add_loop_test(tests, test_window_kernels, 0, 2);
  tcase_add_loop_test(tests, test_gradient_kernels, 0, 2);
  tcase_add_loop_test(tests, test_not_finite, 0, 2);
  tcase_add_loop_test(tests, test_layers, 0, 3);
  tcase_add_test(tests, test_levels_of);
  tcase_add_loop_test(tests, test_networks, 0, 8);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
