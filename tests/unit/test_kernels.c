/* Every kernel of every set that this CPU has: alone on random jobs against a naive computation, and as whole layers of random
 * shapes against the reference executor. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "engine/parameters.h"
#include "tests/support/support.h"

enum { LANES = HWGQ_LANES };

static const struct hwgq_kernels *set_at(int index) {
  const struct hwgq_kernels *kernels = hwgq_kernels_get(index);
  return kernels && hwgq_kernels_supported(kernels) ? kernels : NULL;
}

static void *reserve(size_t count) {
  void *memory = calloc(count + 1, 8);
  ck_assert_ptr_nonnull(memory);
  return memory;
}

static void fill_bits(struct support_random *random, uint32_t *words, size_t count) {
  for (size_t i = 0; i < count; i++) words[i] = (uint32_t)support_random_next(random);
}

static void fill_floats(struct support_random *random, float *values, size_t count) {
  for (size_t i = 0; i < count; i++) values[i] = (float)support_random_normal(random);
}

/* ---- convolutions ----------------------------------------------------------------------------------------------------------
 */

struct conv_fixture {
  struct hwgq_conv_job job;
  uint32_t *input, *weights;
  int32_t base[LANES], *corrections;
  size_t accumulators;
};

static void random_conv(struct support_random *random, struct conv_fixture *f, bool binary) {
  struct hwgq_conv_job *job = &f->job;
  const size_t planes = binary ? (size_t)support_random_int(random, 1, HWGQ_MAX_PLANES) : 1;
  const size_t plane_step = binary ? planes + (size_t)support_random_int(random, 0, 2) : 1;
  *job = (struct hwgq_conv_job){.lines = support_random_int(random, 1, 4),
                                .columns = support_random_int(random, 1, 15),
                                .rows = support_random_int(random, 0, 4),
                                .runs = support_random_int(random, 0, 3),
                                .length = support_random_int(random, 0, 40),
                                .lanes = support_random_chance(random, 0.5) ? 32 : 16,
                                .planes = (int)planes,
                                .plane_step = (int)plane_step,
                                .shift = support_random_int(random, 1, 2)};
  const size_t length = (size_t)job->length * plane_step, lanes = (size_t)job->lanes;
  job->run_step = length + (size_t)support_random_int(random, 0, 9);
  job->row_step = (size_t)job->runs * job->run_step + (size_t)support_random_int(random, 0, 9);
  job->column_step = (size_t)support_random_int(random, 0, 30);
  job->line_step = (size_t)support_random_int(random, 0, 60);
  job->weight_run_step = (size_t)job->length * lanes;
  job->weight_row_step = job->weight_run_step * (size_t)job->runs + lanes * (size_t)support_random_int(random, 0, 2);
  const size_t inputs = (size_t)job->lines * job->line_step + (size_t)job->columns * job->column_step +
                        (size_t)(job->rows + 1) * job->row_step + length + 1;
  const size_t weights = (size_t)job->rows * job->weight_row_step + lanes;
  f->input = reserve(inputs);
  f->weights = reserve(weights);
  if (binary) {
    fill_bits(random, f->input, inputs);
    fill_bits(random, f->weights, weights);
  } else {
    fill_floats(random, (float *)f->input, inputs);
    fill_floats(random, (float *)f->weights, weights);
  }
  job->correction_line_step = (size_t)job->columns + 3;
  f->corrections = reserve((size_t)job->lines * job->correction_line_step);
  for (size_t i = 0; i < (size_t)job->lines * job->correction_line_step; i++) {
    f->corrections[i] = support_random_int(random, -1000, 1000);
  }
  for (int i = 0; i < LANES; i++) f->base[i] = support_random_int(random, -1000, 1000);
  job->input = f->input;
  job->weights = f->weights;
  job->base = f->base;
  job->correction = f->corrections;
  job->accumulator_line_step = ((size_t)job->columns + 1) * LANES;
  f->accumulators = (size_t)job->lines * job->accumulator_line_step;
}

static void free_conv(struct conv_fixture *f) {
  free(f->input);
  free(f->weights);
  free(f->corrections);
}

/* One accumulator, straight from the contract in kernels.h. */
static int32_t naive_binary(const struct hwgq_conv_job *job, size_t line, size_t column, size_t lane) {
  const uint32_t *input = (const uint32_t *)job->input + line * job->line_step + column * job->column_step;
  int32_t sum = 0;
  for (size_t row = 0; row < (size_t)job->rows; row++) {
    for (size_t run = 0; run < (size_t)job->runs; run++) {
      for (size_t i = 0; i < (size_t)job->length; i++) {
        const uint32_t w =
            ((const uint32_t *)
                 job->weights)[row * job->weight_row_step + run * job->weight_run_step + i * (size_t)job->lanes + lane];
        for (int p = 0; p < job->planes; p++) {
          const uint32_t a = input[row * job->row_step + run * job->run_step + i * (size_t)job->plane_step + (size_t)p];
          for (uint32_t both = w & a; both; both &= both - 1) sum += 1 << p;
        }
      }
    }
  }
  return (int32_t)((uint32_t)sum << job->shift) + job->base[lane] + job->correction[line * job->correction_line_step + column];
}

static float naive_float(const struct hwgq_conv_job *job, size_t line, size_t column, size_t lane) {
  const float *input = (const float *)job->input + line * job->line_step + column * job->column_step;
  float sum = 0;
  for (size_t row = 0; row < (size_t)job->rows; row++) {
    for (size_t run = 0; run < (size_t)job->runs; run++) {
      for (size_t i = 0; i < (size_t)job->length; i++) {
        const float w =
            ((const float *)
                 job->weights)[row * job->weight_row_step + run * job->weight_run_step + i * (size_t)job->lanes + lane];
        sum = fmaf(w, input[row * job->row_step + run * job->run_step + i], sum);
      }
    }
  }
  return sum;
}

static const struct hwgq_bconv_form *popcount_of(const struct hwgq_kernels *kernels) {
  const struct hwgq_bconv_form *form = kernels->forms;
  while (form->code) form++;
  ck_assert_str_eq(form->name, "popcount");
  return form;
}

START_TEST(convolutions) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {21};
  for (int round = 0; round < 600; round++) {
    const bool binary = round % 3 != 0;
    struct conv_fixture f;
    random_conv(&random, &f, binary);
    uint32_t *accumulators = reserve(f.accumulators);
    f.job.accumulators = accumulators;
    if (binary) {
      popcount_of(kernels)->bconv(&f.job);
    } else {
      kernels->fconv(&f.job);
    }
    for (size_t line = 0; line < (size_t)f.job.lines; line++) {
      for (size_t column = 0; column < (size_t)f.job.columns; column++) {
        for (size_t lane = 0; lane < (size_t)f.job.lanes; lane++) {
          const uint32_t *got = &accumulators[line * f.job.accumulator_line_step + column * LANES + lane];
          if (binary) {
            const int32_t expected = naive_binary(&f.job, line, column, lane);
            if ((int32_t)*got != expected) ck_abort_msg("round %d lane %zu: %d, not %d", round, lane, (int32_t)*got, expected);
          } else {
            const float expected = naive_float(&f.job, line, column, lane);
            if (memcmp(got, &expected, sizeof expected) != 0)
              ck_abort_msg("round %d lane %zu: not %a", round, lane, (double)expected);
          }
        }
        for (size_t lane = (size_t)f.job.lanes; lane < LANES; lane++) {
          if (accumulators[line * f.job.accumulator_line_step + column * LANES + lane])
            ck_abort_msg("lane %zu was written", lane);
        }
      }
    }
    free(accumulators);
    free_conv(&f);
  }
}
END_TEST

START_TEST(sums) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {22};
  for (int round = 0; round < 300; round++) {
    const int words = support_random_int(&random, 1, 9), planes = support_random_int(&random, 1, 4), step = planes + 1;
    const size_t pixels = (size_t)support_random_int(&random, 1, 20), pixel_step = (size_t)(words * step + 2);
    uint32_t *input = reserve(pixels * pixel_step), masks[9];
    int32_t result[20];
    fill_bits(&random, input, pixels * pixel_step);
    fill_bits(&random, masks, 9);
    const struct hwgq_sums_job job = {input, pixels, pixel_step, words, planes, step, masks, result};
    kernels->sums(&job);
    for (size_t i = 0; i < pixels; i++) {
      int32_t expected = 0;
      for (int word = 0; word < words; word++) {
        for (int p = 0; p < planes; p++) {
          const uint32_t bits = input[i * pixel_step + (size_t)(word * step + p)] & masks[word];
          for (int b = 0; b < 32; b++) expected += (int32_t)(bits >> b & 1) << p;
        }
      }
      ck_assert_int_eq(result[i], expected);
    }
    free(input);
  }
}
END_TEST

/* ---- epilogues -------------------------------------------------------------------------------------------------------------
 */

/* Pixels of exactly `lanes` values, without room behind the last: a read beyond it is found by the address sanitizer. */
struct pixels {
  size_t count, step;
  int lanes;
  int32_t *integers;
  float *floats;
};

static struct pixels random_pixels(struct support_random *random) {
  struct pixels p = {.count = (size_t)support_random_int(random, 1, 9), .lanes = support_random_int(random, 1, LANES)};
  p.step = (size_t)p.lanes + (size_t)support_random_int(random, 0, 3);
  const size_t values = (p.count - 1) * p.step + (size_t)p.lanes;
  p.integers = malloc(values * sizeof(int32_t));
  p.floats = malloc(values * sizeof(float));
  for (size_t i = 0; i < values; i++) {
    p.integers[i] = support_random_int(random, -20, 20);
    p.floats[i] = support_random_chance(random, 0.1) ? -0.0f : (float)p.integers[i] / 4;
  }
  return p;
}

static void free_pixels(struct pixels *p) {
  free(p->integers);
  free(p->floats);
}

/* Rising thresholds per lane, falling for negated ones: a level is reached only when those below are. */
static void random_thresholds(struct support_random *random, int levels, uint32_t negate, int32_t *thresholds) {
  for (int lane = 0; lane < LANES; lane++) {
    int32_t value = support_random_int(random, -25, 5);
    for (int j = 0; j < levels; j++) {
      const int at = negate >> lane & 1 ? levels - 1 - j : j;
      thresholds[at * LANES + lane] = value;
      value += support_random_int(random, 0, 6);
    }
  }
}

static int level_from_planes(const struct hwgq_pack_job *job, const uint32_t *planes, int lane) {
  int level = 0;
  for (int p = 0; p < job->planes; p++) level += (int)(planes[p] >> lane & 1) << (job->thermometer ? 0 : p);
  return level;
}

START_TEST(packing) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {23};
  for (int round = 0; round < 1000; round++) {
    struct pixels p = random_pixels(&random);
    const int levels = round % 3 ? support_random_int(&random, 1, 15) : 3;
    int32_t integers[15 * LANES];
    float floats[15 * LANES];
    uint32_t output[9 * 17];
    struct hwgq_pack_job job = {.accumulator_step = p.step,
                                .pixels = p.count,
                                .levels = levels,
                                .negate = (uint32_t)support_random_next(&random),
                                .valid = p.lanes == 32 ? UINT32_MAX : (1u << p.lanes) - 1,
                                .thermometer = support_random_chance(&random, 0.3),
                                .output = output,
                                .output_step = 17};
    while (levels >> job.planes) job.planes++;
    if (job.thermometer) job.planes = levels;
    random_thresholds(&random, levels, job.negate, integers);
    for (int i = 0; i < levels * LANES; i++) floats[i] = (float)integers[i] / 4;
    for (int type = 0; type < 2; type++) {
      memset(output, 0xee, sizeof output);
      job.accumulators = type ? (void *)p.floats : p.integers;
      job.thresholds = type ? (void *)floats : integers;
      (type ? kernels->pack_f32 : kernels->pack_i32)(&job);
      for (size_t i = 0; i < p.count; i++) {
        for (int lane = 0; lane < LANES; lane++) {
          int expected = 0;
          for (int j = 0; j < levels && lane < p.lanes; j++) {
            const size_t at = i * p.step + (size_t)lane;
            const bool reached = type ? p.floats[at] >= floats[j * LANES + lane] : p.integers[at] >= integers[j * LANES + lane];
            expected += reached != (job.negate >> lane & 1);
          }
          const int level = level_from_planes(&job, output + i * 17, lane);
          if (level != expected) ck_abort_msg("round %d type %d lane %d: level %d, not %d", round, type, lane, level, expected);
        }
        ck_assert_uint_eq(output[i * 17 + (size_t)job.planes], 0xeeeeeeee); /* nothing beyond the planes */
      }
    }
    free_pixels(&p);
  }
}
END_TEST

START_TEST(affine) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {24};
  for (int round = 0; round < 500; round++) {
    struct pixels p = random_pixels(&random);
    double factors[4 * 2 * LANES];
    for (int i = 0; i < 4 * 2 * LANES; i++) factors[i] = support_random_normal(&random);
    const int steps = support_random_int(&random, 1, 4);
    const uint32_t relu = (uint32_t)support_random_int(&random, 0, 15);
    float output[9 * 40], residual[9 * 50];
    fill_floats(&random, residual, 9 * 50);
    const bool adds = support_random_chance(&random, 0.5);
    const double scale = support_random_normal(&random), residual_scale = support_random_normal(&random);
    for (int type = 0; type < 2; type++) {
      for (int i = 0; i < 9 * 40; i++) output[i] = 77;
      const struct hwgq_affine_job job = {.accumulators = type ? (void *)p.floats : p.integers,
                                          .accumulator_step = p.step,
                                          .pixels = p.count,
                                          .factors = factors,
                                          .steps = steps,
                                          .relu = relu,
                                          .lanes = p.lanes,
                                          .output = output,
                                          .output_step = 40,
                                          .residual = adds ? residual : NULL,
                                          .residual_step = 50,
                                          .scale = scale,
                                          .residual_scale = residual_scale};
      (type ? kernels->affine_f32 : kernels->affine_i32)(&job);
      for (size_t i = 0; i < p.count * 40; i++) {
        const size_t lane = i % 40, at = i / 40 * p.step + lane;
        float expected = 77;
        if (lane < (size_t)p.lanes) {
          double x = type ? (double)p.floats[at] : p.integers[at];
          for (int s = 0; s < steps; s++) {
            x = factors[(size_t)s * 2 * LANES + lane] * x + factors[((size_t)s * 2 + 1) * LANES + lane];
            if (relu >> s & 1) x = x > 0 ? x : 0;
          }
          expected = (float)x;
          if (adds) expected = (float)(scale * (double)expected + residual_scale * (double)residual[i / 40 * 50 + lane]);
        }
        if (memcmp(&output[i], &expected, sizeof expected) != 0)
          ck_abort_msg("round %d type %d lane %zu: not %a", round, type, lane, (double)expected);
      }
    }
    free_pixels(&p);
  }
}
END_TEST

START_TEST(adding) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {27};
  for (int round = 0; round < 300; round++) {
    const size_t count = (size_t)support_random_int(&random, 0, 200);
    const int input_count = support_random_int(&random, 1, 4);
    float values[4][200], coefficients[4], output[201];
    fill_floats(&random, values[0], 4 * 200);
    fill_floats(&random, coefficients, 4);
    const float *const inputs[] = {values[0], values[1], values[2], values[3]};
    output[count] = 77;
    kernels->add(&(struct hwgq_add_job){inputs, coefficients, input_count, count, output});
    for (size_t i = 0; i < count; i++) {
      double sum = 0;
      for (int k = 0; k < input_count; k++) sum += (double)coefficients[k] * (double)values[k][i];
      ck_assert(output[i] == (float)sum);
    }
    ck_assert(output[count] == 77);
  }
}
END_TEST

START_TEST(pooling) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {25};
  for (int round = 0; round < 300; round++) {
    const int lines = support_random_int(&random, 1, 4), kernel = support_random_int(&random, 1, 4);
    const int pad = support_random_int(&random, 0, kernel - 1), stride = support_random_int(&random, 1, 3);
    const int columns = support_random_int(&random, kernel, 12);
    const int outputs = (columns + 2 * pad - kernel) / stride + 1;
    const size_t line_step = (size_t)(columns + 1) * LANES;
    int32_t *integers = reserve((size_t)lines * line_step), got_integers[24 * LANES];
    float *floats = reserve((size_t)lines * line_step), got_floats[24 * LANES];
    for (size_t i = 0; i < (size_t)lines * line_step; i++) {
      integers[i] = support_random_int(&random, -1000, 1000);
      floats[i] = (float)integers[i] / 8;
    }
    struct hwgq_pool_job job = {integers, line_step, lines, columns, outputs, kernel, stride, pad, got_integers};
    kernels->pool_i32(&job);
    job.accumulators = floats;
    job.output = got_floats;
    kernels->pool_f32(&job);
    for (int x = 0; x < outputs; x++) {
      for (int lane = 0; lane < LANES; lane++) {
        int32_t expected = INT32_MIN;
        for (int y = 0; y < lines; y++) {
          for (int k = x * stride - pad; k < x * stride - pad + kernel; k++) {
            if (k < 0 || k >= columns) continue;
            const int32_t value = integers[(size_t)y * line_step + (size_t)k * LANES + (size_t)lane];
            if (value > expected) expected = value;
          }
        }
        if (got_integers[x * LANES + lane] != expected || got_floats[x * LANES + lane] != (float)expected / 8) {
          ck_abort_msg("round %d lane %d: %d, not %d", round, lane, got_integers[x * LANES + lane], expected);
        }
      }
    }
    free(integers);
    free(floats);
  }
}
END_TEST

/* Bit for bit the order of kernels.h: 16 partial sums, then halves. */
START_TEST(linear) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  struct support_random random = {26};
  for (int round = 0; round < 300; round++) {
    const size_t inputs = (size_t)support_random_int(&random, 1, 130), step = (inputs + 15) / 16 * 16;
    const size_t outputs = (size_t)support_random_int(&random, 1, 21);
    float *input = malloc(inputs * sizeof(float)), *weights = reserve(outputs * step), output[21];
    fill_floats(&random, input, inputs);
    for (size_t o = 0; o < outputs; o++) fill_floats(&random, weights + o * step, inputs);
    const struct hwgq_linear_job job = {input, inputs, step, weights, outputs, output};
    kernels->linear(&job);
    for (size_t o = 0; o < outputs; o++) {
      float partial[16] = {0};
      for (size_t i = 0; i < inputs; i++) partial[i % 16] = fmaf(weights[o * step + i], input[i], partial[i % 16]);
      for (size_t half = 8; half > 0; half /= 2) {
        for (size_t i = 0; i < half; i++) partial[i] += partial[i + half];
      }
      ck_assert_float_eq(output[o], partial[0]);
    }
    free(input);
    free(weights);
  }
}
END_TEST

/* ---- whole layers ----------------------------------------------------------------------------------------------------------
 */

/* Levels that are exact in float32, so that integer accumulators equal the reference's sums exactly. kind 0: sign, 1 to 4: that
 * many bits, uniform, 5: non-uniform. */
static void exact_quantizer(struct hwgq_layer *layer, int kind) {
  static const float free_centers[] = {0.4375f, 1.5f, 1.75f};
  layer->sign = kind == 0;
  if (layer->sign) return;
  layer->level_count = kind == 5 ? 3 : (1 << kind) - 1;
  for (int j = 0; j < layer->level_count; j++) {
    layer->centers[j] = kind == 5 ? free_centers[j] : 0.5f * (float)(j + 1);
    layer->thresholds[j] = j == 0 ? 0.01f : (layer->centers[j - 1] + layer->centers[j]) / 2;
  }
}

struct shape {
  int channels, out_channels, groups, kernel, stride, pad, height, width, kind, next_kind;
  bool pooled, linear, packed_output;
};

static int random_odd(struct support_random *random, int limit) {
  static const int kernels[] = {1, 3, 5, 7};
  int kernel;
  do {
    kernel = kernels[support_random_int(random, 0, 3)];
  } while (kernel > limit);
  return kernel;
}

static struct shape random_shape(struct support_random *random, int channels) {
  struct shape s = {.channels = channels,
                    .out_channels = support_random_int(random, 1, support_random_chance(random, 0.1) ? 1100 : 100),
                    .groups = 1,
                    .stride = support_random_int(random, 1, 2),
                    .height = support_random_int(random, 1, 9),
                    .width = support_random_int(random, 1, 12),
                    .kind = support_random_int(random, 0, 5),
                    .next_kind = support_random_int(random, 0, 5),
                    .pooled = support_random_chance(random, 0.3),
                    .linear = support_random_chance(random, 0.15),
                    .packed_output = support_random_chance(random, 0.6)};
  const int groups = support_random_int(random, 2, 6);
  if (support_random_chance(random, 0.3) && channels % groups == 0) {
    s.groups = groups;
    s.out_channels = groups * support_random_int(random, 1, 20);
  }
  s.kernel = random_odd(random, 7);
  s.pad = s.kernel / 2;
  if (s.height + 2 * s.pad < s.kernel || s.width + 2 * s.pad < s.kernel) s.kernel = 1, s.pad = 0;
  return s;
}

static void add_weights(struct hwgq_network *network, const struct shape *s) {
  struct hwgq_layer *layer = support_add(network, "layer", s->linear ? HWGQ_LINEAR : HWGQ_CONV2D, "levels");
  layer->out_channels = s->out_channels;
  layer->binary = true;
  layer->has_alpha = true;
  if (s->linear) return;
  layer->groups = s->groups;
  layer->kernel_height = layer->kernel_width = s->kernel;
  layer->stride_height = layer->stride_width = s->stride;
  layer->pad_height = layer->pad_width = s->pad;
}

static struct hwgq_network *layer_network(const struct shape *s, struct support_random *random) {
  struct hwgq_network *network;
  struct hwgq_error error;
  const char *last = "layer";
  ck_assert_int_eq(hwgq_network_create("layer", (struct hwgq_shape){s->channels, s->height, s->width}, &network, &error),
                   HWGQ_OK);
  exact_quantizer(support_add(network, "levels", HWGQ_QUANTIZE, "input"), s->kind);
  add_weights(network, s);
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  const struct hwgq_shape out = network->layers[1].output;
  if (s->pooled && out.height >= 2 && out.width >= 2) {
    struct hwgq_layer *pool = support_add(network, "pool", HWGQ_MAX_POOL, last);
    pool->kernel_height = pool->kernel_width = support_random_int(random, 2, out.height < 3 || out.width < 3 ? 2 : 3);
    pool->stride_height = pool->stride_width = support_random_int(random, 1, 2);
    pool->pad_height = pool->pad_width = support_random_int(random, 0, 1);
    last = "pool";
  }
  support_add(network, "bn", HWGQ_BATCH_NORM, last);
  support_add(network, "scale", HWGQ_SCALE, "bn");
  if (s->packed_output) exact_quantizer(support_add(network, "out", HWGQ_QUANTIZE, "scale"), s->next_kind);
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  support_fill_parameters(network, random);
  support_calibrate(network, random);
  return network;
}

/* Values around 0 that none of the thresholds equals. */
static float *random_values(const struct hwgq_network *network, struct support_random *random) {
  const size_t count = (size_t)hwgq_shape_elements(network->input);
  float *input = malloc(count * sizeof *input);
  for (size_t i = 0; i < count; i++) input[i] = (float)support_random_normal(random);
  return input;
}

static void check_layer(const struct hwgq_kernels *kernels, const char *form, const struct shape *s,
                        const struct hwgq_network *network, const double *expected, const float *input) {
  struct hwgq_plan *plan;
  struct hwgq_error error;
  const struct hwgq_plan_options options = {.cpu = kernels->name, .form = form};
  ck_assert_int_eq(hwgq_plan_create(network, NULL, &options, &plan, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_plan_stage_count(plan), 3);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
  memset(scratch, 0xff, hwgq_plan_scratch_bytes(plan));
  const size_t count = (size_t)hwgq_plan_output_count(plan);
  float *scores = malloc(count * sizeof *scores);
  hwgq_run_tensor(plan, scratch, input, scores);
  for (size_t i = 0; i < count; i++) {
    const double tolerance = s->packed_output ? 0 : 1e-6 * (1 + fabs(expected[i]));
    if (fabs((double)scores[i] - expected[i]) <= tolerance) continue;
    ck_abort_msg("%s %s: %d -> %d channels, %dx%d, kernel %d stride %d groups %d pooled %d: [%zu] is %g, reference %g",
                 hwgq_plan_stage(plan, 2).kernel, s->linear ? "linear" : "conv", s->channels, s->out_channels, s->height,
                 s->width, s->kernel, s->stride, s->groups, s->pooled, i, (double)scores[i], expected[i]);
  }
  free(scores);
  free(scratch);
  hwgq_plan_destroy(plan);
}

/* Every number of input channels from 1 to 200, so every remainder of 32 and 16. */
START_TEST(layers) {
  struct support_random random = {31 + (uint64_t)_i};
  for (int channels = 1; channels <= 200; channels++) {
    const struct shape s = random_shape(&random, channels);
    struct hwgq_network *network = layer_network(&s, &random);
    struct hwgq_reference *reference;
    struct hwgq_error error;
    float *input = random_values(network, &random);
    ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
    ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
    const double *expected = hwgq_reference_output(reference, network->layer_count - 1);
    for (int i = 0; hwgq_kernels_get(i); i++) {
      for (int k = 0; set_at(i) && set_at(i)->forms[k].name; k++) {
        check_layer(set_at(i), set_at(i)->forms[k].name, &s, network, expected, input);
      }
      if (set_at(i)) check_layer(set_at(i), "sliced", &s, network, expected, input);
    }
    hwgq_reference_destroy(reference);
    free(input);
    hwgq_network_destroy(network);
  }
}
END_TEST

START_TEST(names) {
  ck_assert_ptr_null(hwgq_kernels_get(-1));
  ck_assert_ptr_null(hwgq_kernels_find("sse9"));
  for (int i = 0; hwgq_kernels_get(i); i++) {
    ck_assert_ptr_eq(hwgq_kernels_find(hwgq_kernels_get(i)->name), hwgq_kernels_get(i));
    printf("%s: kernel set %s on this CPU\n", set_at(i) ? "tested" : "SKIPPED", hwgq_kernels_get(i)->name);
  }
}
END_TEST

int main(void) {
  enum { SETS = 3, LAYER_ROUNDS = 3 };
  Suite *suite = suite_create("kernels");
  TCase *tests = tcase_create("kernels");
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, names);
  tcase_add_loop_test(tests, convolutions, 0, SETS);
  tcase_add_loop_test(tests, sums, 0, SETS);
  tcase_add_loop_test(tests, packing, 0, SETS);
  tcase_add_loop_test(tests, affine, 0, SETS);
  tcase_add_loop_test(tests, adding, 0, SETS);
  tcase_add_loop_test(tests, pooling, 0, SETS);
  tcase_add_loop_test(tests, linear, 0, SETS);
  tcase_add_loop_test(tests, layers, 0, LAYER_ROUNDS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
