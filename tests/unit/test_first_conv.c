/* The first convolution in integers: every kernel against a plain sum, whole layers of random shapes against the reference
 * executor, and what decides between integers and floats. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan_pixels.h"
#include "tests/support/support.h"

enum { LANES = HWGQ_LANES };

static const struct hwgq_kernels *set_at(int index) {
  const struct hwgq_kernels *kernels = hwgq_kernels_get(index);
  return kernels && hwgq_kernels_supported(kernels) ? kernels : NULL;
}

static void *reserve(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
  ck_assert_ptr_nonnull(memory);
  memset(memory, 0x5a, (bytes + 64) / 64 * 64);
  return memory;
}

/* ---- kernels ---------------------------------------------------------------------------------------------------------------
 */

struct fixture {
  struct hwgq_iconv_job job;
  uint8_t *input, *weights;
  size_t *offsets;
  int32_t *base, *add, *accumulators;
  uint16_t *base_index;
};

static void random_values(struct support_random *random, int lowest, int highest, size_t bytes, bool wide, uint8_t *values) {
  for (size_t i = 0; i < (wide ? bytes / 2 : bytes); i++) {
    const int16_t value = (int16_t)support_random_int(random, lowest, highest);
    if (wide) {
      memcpy(values + 2 * i, &value, sizeof value);
    } else {
      values[i] = (uint8_t)value;
    }
  }
}

static void random_job(struct support_random *random, bool bytes, struct fixture *f) {
  const size_t value_bytes = bytes ? 1 : 2;
  struct hwgq_iconv_job *job = &f->job;
  *job = (struct hwgq_iconv_job){.columns = support_random_int(random, 1, 60),
                                 .column_step = (size_t)support_random_int(random, 1, 40) * value_bytes,
                                 .words = support_random_int(random, 0, 90),
                                 .lanes = support_random_chance(random, 0.7) ? 32 : 16,
                                 .base_step = (size_t)support_random_int(random, 1, 3) * LANES};
  const size_t columns = (size_t)job->columns, words = (size_t)job->words, lanes = (size_t)job->lanes;
  const size_t reach = 500, inputs = (columns * job->column_step + reach * value_bytes + 4) & ~(size_t)1;
  f->input = reserve(inputs);
  f->weights = reserve(words * lanes * 4);
  f->offsets = reserve(words * sizeof *f->offsets);
  f->base = reserve(4 * job->base_step * sizeof *f->base);
  f->base_index = reserve(columns * sizeof *f->base_index);
  f->add = reserve(columns * LANES * sizeof *f->add);
  f->accumulators = reserve(columns * LANES * sizeof *f->accumulators);
  random_values(random, bytes ? 0 : -255, 255, inputs, !bytes, f->input);
  random_values(random, bytes ? -128 : -32767, bytes ? 127 : 32767, words * lanes * 4, !bytes, f->weights);
  for (size_t i = 0; i < words; i++) f->offsets[i] = (size_t)support_random_int(random, 0, (int)reach) * value_bytes;
  for (size_t i = 0; i < 4 * job->base_step; i++) f->base[i] = support_random_int(random, -1000000, 1000000);
  for (size_t i = 0; i < columns; i++) f->base_index[i] = (uint16_t)support_random_int(random, 0, 3);
  for (size_t i = 0; i < columns * LANES; i++) f->add[i] = support_random_int(random, -1000000, 1000000);
  job->input = f->input;
  job->weights = f->weights;
  job->offsets = f->offsets;
  job->base = support_random_chance(random, 0.7) ? f->base : NULL;
  job->base_index = f->base_index;
  job->add = support_random_chance(random, 0.5) ? f->add : NULL;
  job->accumulators = f->accumulators;
}

static void free_job(struct fixture *f) {
  free(f->input);
  free(f->weights);
  free(f->offsets);
  free(f->base);
  free(f->base_index);
  free(f->add);
  free(f->accumulators);
}

static int64_t word_product(const uint8_t *input, const uint8_t *weights, bool bytes) {
  int16_t a[2], b[2];
  if (bytes) {
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) sum += input[i] * (int8_t)weights[i];
    return sum;
  }
  memcpy(a, input, sizeof a);
  memcpy(b, weights, sizeof b);
  return (int64_t)a[0] * b[0] + (int64_t)a[1] * b[1];
}

/* In 64 bits, then cut to 32. */
static int32_t naive(const struct hwgq_iconv_job *job, bool bytes, size_t x, size_t lane) {
  int64_t sum = 0;
  if (job->base) sum += job->base[job->base_index[x] * job->base_step + lane];
  if (job->add) sum += job->add[x * LANES + lane];
  for (size_t word = 0; word < (size_t)job->words; word++) {
    sum += word_product(job->input + x * job->column_step + job->offsets[word],
                        job->weights + (word * (size_t)job->lanes + lane) * 4, bytes);
  }
  return (int32_t)(uint32_t)(uint64_t)sum;
}

static void check_kernel(const struct hwgq_iconv_form *form, struct support_random *random) {
  for (int round = 0; round < support_rounds(300); round++) {
    struct fixture f;
    random_job(random, form->bytes, &f);
    form->iconv(&f.job);
    for (size_t x = 0; x < (size_t)f.job.columns; x++) {
      for (size_t lane = 0; lane < (size_t)f.job.lanes; lane++) {
        const int32_t expected = naive(&f.job, form->bytes, x, lane), got = f.accumulators[x * LANES + lane];
        ck_assert_msg(got == expected, "%s: columns %d words %d lanes %d: [%zu][%zu] is %d, not %d", form->name, f.job.columns,
                      f.job.words, f.job.lanes, x, lane, got, expected);
      }
    }
    free_job(&f);
  }
}

static void check_rows(const struct hwgq_iconv_form *form, struct support_random *random) {
  for (size_t count = 0; count < 150; count++) {
    uint8_t *pixels = reserve(count);
    int16_t *wide = reserve((count + 1) * 2), *difference = reserve((count + 1) * 2);
    for (size_t i = 0; i < count; i++) pixels[i] = (uint8_t)support_random_next(random);
    form->widen(pixels, count, wide);
    form->subtract(wide + count / 3, wide, count - count / 3, difference);
    for (size_t i = 0; i < count; i++) ck_assert_int_eq(wide[i], pixels[i]);
    for (size_t i = 0; i < count - count / 3; i++) ck_assert_int_eq(difference[i], pixels[i + count / 3] - pixels[i]);
    ck_assert_int_eq(wide[count], 0x5a5a);
    ck_assert_int_eq(difference[count - count / 3], 0x5a5a);
    free(pixels);
    free(wide);
    free(difference);
  }
}

START_TEST(kernels) {
  struct support_random random = {5};
  const struct hwgq_kernels *set = set_at(_i);
  for (int i = 0; set && i < HWGQ_MAX_ICONVS && set->iconvs[i].name; i++) {
    const struct hwgq_iconv_form *form = &set->iconvs[i];
    if (!hwgq_iconv_supported(form)) {
      printf("SKIPPED: this CPU cannot run %s\n", form->name);
      continue;
    }
    check_kernel(form, &random);
    if (!form->bytes) check_rows(form, &random);
  }
}
END_TEST

/* ---- layers ----------------------------------------------------------------------------------------------------------------
 */

/* A first convolution with what can follow it. */
struct shape {
  int channels, height, width, out_channels, groups;
  int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
  bool binary, pooled, quantized, alpha, invert;
};

static struct shape random_shape(struct support_random *random) {
  struct shape s = {.channels = support_random_int(random, 1, 4),
                    .height = support_random_int(random, 1, 24),
                    .width = support_random_int(random, 1, 40),
                    .out_channels = support_random_int(random, 1, 75),
                    .groups = 1,
                    .stride_height = support_random_int(random, 1, 4),
                    .stride_width = support_random_int(random, 1, 4),
                    .binary = support_random_chance(random, 0.2),
                    .pooled = support_random_chance(random, 0.4),
                    .quantized = support_random_chance(random, 0.7),
                    .alpha = support_random_chance(random, 0.3),
                    .invert = support_random_chance(random, 0.3)};
  s.pad_height = support_random_int(random, 0, 3);
  s.pad_width = support_random_int(random, 0, 3);
  s.kernel_height = support_random_int(random, 1, s.height + 2 * s.pad_height < 11 ? s.height + 2 * s.pad_height : 11);
  s.kernel_width = support_random_int(random, 1, s.width + 2 * s.pad_width < 11 ? s.width + 2 * s.pad_width : 11);
  if (support_random_chance(random, 0.2)) {
    s.groups = s.channels;
    s.out_channels = s.channels * support_random_int(random, 1, 40);
  }
  return s;
}

static const struct shape known_shapes[] = {
    {3, 40, 40, 64, 1, 7, 7, 2, 2, 3, 3, false, true, true, false, false},    /* ResNet */
    {3, 32, 32, 128, 1, 3, 3, 1, 1, 1, 1, false, false, true, false, false},  /* VGG-small */
    {3, 47, 47, 96, 1, 11, 11, 4, 4, 0, 0, false, true, true, false, false},  /* AlexNet */
    {3, 47, 47, 96, 3, 11, 11, 4, 4, 0, 0, false, false, true, false, false}, /* in groups */
    {1, 28, 28, 20, 1, 5, 5, 1, 1, 0, 0, true, true, true, true, true},       /* LeNet */
    {3, 150, 700, 16, 1, 5, 7, 2, 2, 2, 3, false, true, true, true, false},   /* more than one chunk of rows */
};

static struct hwgq_network *layer_network(const struct shape *s, struct support_random *random) {
  struct hwgq_network *network;
  struct hwgq_error error;
  ck_assert_int_eq(hwgq_network_create("first", (struct hwgq_shape){s->channels, s->height, s->width}, &network, &error), 0);
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = s->out_channels;
  layer->groups = s->groups;
  layer->kernel_height = s->kernel_height;
  layer->kernel_width = s->kernel_width;
  layer->stride_height = s->stride_height;
  layer->stride_width = s->stride_width;
  layer->pad_height = s->pad_height;
  layer->pad_width = s->pad_width;
  layer->binary = s->binary;
  layer->has_alpha = s->binary && s->alpha;
  layer->has_bias = support_random_chance(random, 0.5);
  ck_assert_msg(hwgq_network_infer(network, &error) == 0, "%s", error.message);
  const struct hwgq_shape out = network->layers[0].output;
  const char *last = "conv";
  if (s->pooled && out.height >= 2 && out.width >= 2) {
    struct hwgq_layer *pool = support_add(network, "pool", HWGQ_MAX_POOL, last);
    pool->kernel_height = pool->kernel_width = support_random_int(random, 2, out.height < 3 || out.width < 3 ? 2 : 3);
    pool->stride_height = pool->stride_width = support_random_int(random, 1, 2);
    pool->pad_height = pool->pad_width = support_random_int(random, 0, 1);
    last = "pool";
  }
  support_add(network, "bn", HWGQ_BATCH_NORM, last);
  if (s->quantized) {
    struct hwgq_layer *quantize = support_add(network, "levels", HWGQ_QUANTIZE, "bn");
    quantize->level_count = 3;
    for (int j = 0; j < 3; j++) {
      quantize->centers[j] = 0.538f * (float)(j + 1);
      quantize->thresholds[j] = j ? 0.538f * ((float)j + 0.5f) : 0;
    }
  }
  ck_assert_msg(hwgq_network_infer(network, &error) == 0, "%s", error.message);
  support_fill_parameters(network, random);
  support_calibrate(network, random);
  return network;
}

/* Whole means and scales that are powers of two: then nothing is rounded anywhere, and levels must agree exactly. */
static void whole_preprocess(struct hwgq_preprocess *p, const struct shape *s, struct support_random *random) {
  *p = (struct hwgq_preprocess){.order = HWGQ_RGB, .invert = s->invert};
  for (int c = 0; c < 3; c++) {
    p->mean[c] = (float)support_random_int(random, -20, 280);
    p->scale[c] = s->binary ? 0.015625f : ldexpf(1, -support_random_int(random, 4, 8));
  }
}

static void any_preprocess(struct hwgq_preprocess *p, const struct shape *s, struct support_random *random) {
  *p = (struct hwgq_preprocess){.order = HWGQ_RGB, .invert = s->invert};
  for (int c = 0; c < 3; c++) {
    p->mean[c] = (float)(255 * support_random_uniform(random));
    p->scale[c] = (float)(s->binary && c > 0 ? p->scale[0] : 0.005 + 0.02 * support_random_uniform(random));
  }
}

struct outcome {
  float *pixels, *tensor; /* scores of hwgq_run and of hwgq_run_tensor */
  size_t count;
  char kernel[64];
};

static struct outcome run(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                          const struct hwgq_plan_options *options, const uint8_t *pixels, const float *input) {
  struct hwgq_plan *plan;
  struct hwgq_error error;
  ck_assert_msg(hwgq_plan_create(network, preprocess, options, &plan, &error) == 0, "%s", error.message);
  void *scratch = reserve(hwgq_plan_scratch_bytes(plan));
  struct outcome outcome = {.count = (size_t)hwgq_plan_output_count(plan)};
  outcome.pixels = malloc(outcome.count * sizeof(float));
  outcome.tensor = malloc(outcome.count * sizeof(float));
  hwgq_run(plan, scratch, pixels, outcome.pixels);
  if (input) hwgq_run_tensor(plan, scratch, input, outcome.tensor);
  snprintf(outcome.kernel, sizeof outcome.kernel, "%s", hwgq_plan_stage(plan, 1).kernel);
  free(scratch);
  hwgq_plan_destroy(plan);
  return outcome;
}

static void free_outcome(struct outcome *outcome) {
  free(outcome->pixels);
  free(outcome->tensor);
}

struct image {
  uint8_t *pixels;
  float *input;
};

static struct image random_image(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                 struct support_random *random) {
  const size_t count = (size_t)network->input.channels * (size_t)network->input.height * (size_t)network->input.width;
  struct image image = {malloc(count), malloc(count * sizeof(float))};
  const bool extreme = support_random_chance(random, 0.2); /* only 0 and 255 */
  for (size_t i = 0; i < count; i++) {
    image.pixels[i] = (uint8_t)support_random_next(random);
    if (extreme) image.pixels[i] = image.pixels[i] < 128 ? 0 : 255;
  }
  if (network->input.channels <= 3) {
    hwgq_preprocess_to_float(preprocess, network->input, image.pixels, image.input);
  } else { /* pixels as they are */
    const size_t plane = count / (size_t)network->input.channels;
    for (size_t i = 0; i < count; i++) {
      image.input[i] = image.pixels[i % plane * (size_t)network->input.channels + i / plane];
    }
  }
  return image;
}

static void compare(const struct shape *s, const char *kernel, const float *scores, const double *expected, size_t count,
                    double tolerance) {
  for (size_t i = 0; i < count; i++) {
    if (fabs((double)scores[i] - expected[i]) <= tolerance * (1 + fabs(expected[i]))) continue;
    ck_abort_msg(
        "%s: %d -> %d channels, %dx%d, kernel %dx%d, stride %dx%d, pad %dx%d, groups %d, pooled %d, invert %d: [%zu] is "
        "%.9g, reference %.9g",
        kernel, s->channels, s->out_channels, s->height, s->width, s->kernel_height, s->kernel_width, s->stride_height,
        s->stride_width, s->pad_height, s->pad_width, s->groups, s->pooled, s->invert, i, (double)scores[i], expected[i]);
  }
}

/* Whether the set multiplies bytes on this CPU. */
static bool takes_bytes(const struct hwgq_kernels *set) {
  return set->iconvs[0].bytes && hwgq_iconv_supported(&set->iconvs[0]);
}

/* All kernel sets on one layer: the same bits, and those of the reference as far as `exact` promises. */
static void check_layer(const struct shape *s, const struct hwgq_preprocess *preprocess, bool exact, int bits,
                        struct support_random *random) {
  struct hwgq_network *network = layer_network(s, random);
  struct hwgq_error error;
  ck_assert_msg(hwgq_network_round_pixels(network, preprocess, bits, &error) == 0, "%s", error.message);
  const struct image image = random_image(network, preprocess, random);
  struct hwgq_reference *reference;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), 0);
  ck_assert_int_eq(hwgq_reference_run(reference, image.input, &error), 0);
  const double *expected = hwgq_reference_output(reference, network->layer_count - 1);
  struct outcome first = {.count = 0};
  for (int i = 0; set_at(i); i++) {
    const struct hwgq_plan_options options = {.cpu = set_at(i)->name};
    struct outcome outcome = run(network, preprocess, &options, image.pixels, NULL);
    const char *kernel = bits == 8 && takes_bytes(set_at(i)) ? "iconv_bytes_" : "iconv_";
    ck_assert_msg(strncmp(outcome.kernel, kernel, strlen(kernel)) == 0, "%s, not %s", outcome.kernel, kernel);
    if (exact || !s->quantized) {
      compare(s, outcome.kernel, outcome.pixels, expected, outcome.count,
              s->quantized ? 0
              : exact      ? 1e-6
              : bits == 8  ? 2e-3
                           : 2e-4);
    }
    if (first.count) ck_assert_mem_eq(outcome.pixels, first.pixels, first.count * sizeof(float));
    if (!first.count) {
      first = outcome;
    } else {
      free_outcome(&outcome);
    }
  }
  free_outcome(&first);
  hwgq_reference_destroy(reference);
  free(image.pixels);
  free(image.input);
  hwgq_network_destroy(network);
}

START_TEST(exact_layers) {
  struct support_random random = {100 + (uint64_t)_i};
  struct hwgq_preprocess preprocess;
  for (int round = 0; round < support_rounds(150); round++) {
    const struct shape s = random_shape(&random);
    whole_preprocess(&preprocess, &s, &random);
    check_layer(&s, &preprocess, true, 16, &random);
  }
}
END_TEST

START_TEST(layers) {
  struct support_random random = {200 + (uint64_t)_i};
  struct hwgq_preprocess preprocess;
  for (int round = 0; round < support_rounds(150); round++) {
    const struct shape s = random_shape(&random);
    any_preprocess(&preprocess, &s, &random);
    check_layer(&s, &preprocess, false, round % 2 ? 8 : 16, &random);
  }
}
END_TEST

START_TEST(shapes_of_networks) {
  struct support_random random = {7};
  struct hwgq_preprocess preprocess;
  const struct shape *s = &known_shapes[_i];
  whole_preprocess(&preprocess, s, &random);
  check_layer(s, &preprocess, true, 16, &random);
  any_preprocess(&preprocess, s, &random);
  check_layer(s, &preprocess, false, 16, &random);
  check_layer(s, &preprocess, false, 8, &random);
}
END_TEST

/* Output rows in pieces, each with its own memory, as several threads would compute them. */
START_TEST(ranges_of_rows) {
  struct support_random random = {300};
  struct hwgq_preprocess preprocess;
  struct hwgq_error error;
  for (int round = 0; round < support_rounds(60); round++) {
    const struct shape s = round == 0 ? known_shapes[5] : random_shape(&random);
    any_preprocess(&preprocess, &s, &random);
    struct hwgq_network *network = layer_network(&s, &random);
    if (round % 2) ck_assert_int_eq(hwgq_network_round_pixels(network, &preprocess, 8, &error), 0);
    struct hwgq_plan *plan;
    const struct hwgq_plan_options options = {.first_conv = "integer", .keep_all_layers = true};
    ck_assert_int_eq(hwgq_plan_create(network, &preprocess, &options, &plan, &error), 0);
    const struct plan_stage *stage = &plan->stages[1];
    const struct plan_tensor *output = &plan->tensors[stage->output];
    const struct image image = random_image(network, &preprocess, &random);
    uint8_t *scratch = reserve(hwgq_plan_scratch_bytes(plan)), *whole = reserve(output->bytes);
    const struct plan_frame frame = {.scratch = scratch, .local = scratch + plan->shared_bytes, .pixels = image.pixels};
    stage->run(plan, stage, &frame, (struct plan_units){0, stage->run_units});
    memcpy(whole, scratch + output->offset, output->bytes);
    memset(scratch + output->offset, stage->pixels->epilogue.unaligned ? 0 : 0xff, output->bytes);
    for (int begin = 0, end; begin < stage->conv.final.height; begin = end) {
      end = support_random_int(&random, begin + 1, stage->conv.final.height);
      uint8_t *memory = reserve(stage->pixels->bytes);
      run_pixel_rows(plan, stage, &frame, begin, end, memory);
      free(memory);
    }
    const size_t used =
        plan_pixels(output->shape) * (output->format == PLAN_FLOAT ? (size_t)output->shape.channels * sizeof(float)
                                                                   : plan_pixel_words(output) * sizeof(uint32_t));
    ck_assert_mem_eq(scratch + output->offset, whole, used);
    free(scratch);
    free(whole);
    free(image.pixels);
    free(image.input);
    hwgq_plan_destroy(plan);
    hwgq_network_destroy(network);
  }
}
END_TEST

/* ---- integers or floats ----------------------------------------------------------------------------------------------------
 */

static struct hwgq_network *small_network(struct support_random *random) {
  const struct shape s = {3, 12, 14, 40, 1, 3, 3, 1, 1, 1, 1, false, false, true, false, false};
  return layer_network(&s, random);
}

static const struct hwgq_preprocess usual = {
    .order = HWGQ_RGB, .mean = {123.7f, 116.3f, 103.5f}, .scale = {0.0171f, 0.0175f, 0.0174f}};

static void check_kernel_name(const struct hwgq_network *network, const char *first_conv, const char *prefix) {
  struct support_random random = {1};
  const struct image image = random_image(network, &usual, &random);
  const struct hwgq_plan_options options = {.first_conv = first_conv}, floats = {.first_conv = "float"};
  struct outcome outcome = run(network, &usual, &options, image.pixels, image.input);
  struct outcome expected = run(network, &usual, &floats, image.pixels, image.input);
  ck_assert_msg(strncmp(outcome.kernel, prefix, strlen(prefix)) == 0, "%s, not %s", outcome.kernel, prefix);
  /* Values, unlike pixels, always go through the float form. */
  ck_assert_mem_eq(outcome.tensor, expected.tensor, expected.count * sizeof(float));
  ck_assert_mem_eq(expected.pixels, expected.tensor, expected.count * sizeof(float));
  free_outcome(&outcome);
  free_outcome(&expected);
  free(image.pixels);
  free(image.input);
}

START_TEST(choice) {
  struct support_random random = {11};
  struct hwgq_network *network = small_network(&random);
  struct hwgq_error error;
  struct hwgq_plan *plan = NULL;
  check_kernel_name(network, NULL, "fconv_");
  check_kernel_name(network, "float", "fconv_");
  check_kernel_name(network, "integer", "iconv_");
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 16, &error), 0);
  check_kernel_name(network, NULL, "iconv_");
  check_kernel_name(network, "float", "fconv_");
  network->layers[0].float_pixels = true;
  check_kernel_name(network, NULL, "fconv_");
  check_kernel_name(network, "integer", "iconv_");
  const struct hwgq_plan_options unknown = {.first_conv = "double"};
  ck_assert_int_eq(hwgq_plan_create(network, &usual, &unknown, &plan, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "choose integer or float"));
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(rounding) {
  struct support_random random = {12};
  struct hwgq_network *network = small_network(&random);
  struct hwgq_error error;
  const size_t count = 40 * 27;
  float *weight = network->layers[0].weight, before[40 * 27], once[40 * 27];
  memcpy(before, weight, sizeof before);
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 16, &error), 0);
  memcpy(once, weight, sizeof once);
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 16, &error), 0);
  ck_assert_mem_eq(once, weight, sizeof once);
  for (size_t out = 0; out < 40; out++) {
    double most = 0;
    for (size_t i = 0; i < 27; i++) most = fmax(most, fabs((double)before[out * 27 + i]));
    for (size_t i = out * 27; i < out * 27 + 27; i++) {
      ck_assert_double_le(fabs((double)once[i] - (double)before[i]), most * 1.03 / 16384); /* scales differ by 3 % */
    }
  }
  memcpy(weight, before, sizeof before);
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 8, &error), 0);
  memcpy(once, weight, sizeof once);
  for (int bits = 8; bits <= 16; bits += 8) { /* weights of 8 bits are of 16 bits too */
    ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, bits, &error), 0);
    ck_assert_mem_eq(once, weight, sizeof once);
  }
  for (size_t out = 0; out < 40; out++) {
    double most = 0;
    for (size_t i = 0; i < 27; i++) most = fmax(most, fabs((double)before[out * 27 + i]));
    for (size_t i = out * 27; i < out * 27 + 27; i++) {
      ck_assert_double_le(fabs((double)once[i] - (double)before[i]), most * 1.05 / 254);
    }
  }
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 12, &error), HWGQ_ERROR_INVALID);
  for (size_t i = 0; i < count; i++) weight[i] = 0;
  check_kernel_name(network, NULL, "iconv_");
  weight[0] = 1e-45f;
  ck_assert_int_eq(hwgq_network_round_pixels(network, &usual, 16, &error), 0);
  /* A mean that no 32-bit sum can hold. */
  struct hwgq_preprocess far = usual;
  far.mean[1] = 1e12f;
  memcpy(weight, before, sizeof before);
  ck_assert_int_eq(hwgq_network_round_pixels(network, &far, 16, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_ptr_nonnull(strstr(error.message, "conv"));
  hwgq_network_destroy(network);
}
END_TEST

/* The largest sums that a kernel of 16-bit weights can make: the unit grows until they fit. */
START_TEST(largest_sums) {
  const struct shape s = {3, 40, 40, 33, 1, 40, 40, 1, 1, 2, 2, false, false, false, false, false};
  struct support_random random = {13};
  struct hwgq_preprocess preprocess = {.order = HWGQ_RGB, .scale = {1, 1, 1}};
  struct hwgq_error error;
  struct hwgq_network *network = layer_network(&s, &random);
  for (size_t i = 0; i < 33 * 4800; i++) network->layers[0].weight[i] = i % 4800 < 500 ? 1 : 0.02f;
  network->layers[0].has_bias = false;
  ck_assert_int_eq(hwgq_network_round_pixels(network, &preprocess, 16, &error), 0);
  struct image image = random_image(network, &preprocess, &random);
  memset(image.pixels, 255, 4800);
  hwgq_preprocess_to_float(&preprocess, network->input, image.pixels, image.input);
  struct hwgq_reference *reference;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), 0);
  ck_assert_int_eq(hwgq_reference_run(reference, image.input, &error), 0);
  for (int i = 0; set_at(i); i++) {
    const struct hwgq_plan_options options = {.cpu = set_at(i)->name};
    struct outcome outcome = run(network, &preprocess, &options, image.pixels, NULL);
    ck_assert_msg(strncmp(outcome.kernel, "iconv_", 6) == 0, "%s", outcome.kernel);
    compare(&s, outcome.kernel, outcome.pixels, hwgq_reference_output(reference, network->layer_count - 1), outcome.count,
            1e-6);
    free_outcome(&outcome);
  }
  hwgq_reference_destroy(reference);
  free(image.pixels);
  free(image.input);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(description) {
  struct support_random random = {14};
  struct hwgq_network *network = small_network(&random), *copy = NULL;
  struct hwgq_error error;
  char *text = NULL;
  ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), 0);
  ck_assert_ptr_null(strstr(text, "float_pixels"));
  free(text);
  network->layers[0].float_pixels = true;
  ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), 0);
  ck_assert_int_eq(hwgq_network_from_json(text, strlen(text), &copy, &error), 0);
  ck_assert(copy->layers[0].float_pixels);
  free(text);
  hwgq_network_destroy(copy);
  hwgq_network_destroy(network);
  const char *elsewhere =
      "{\"name\":\"n\",\"input\":[3,8,8],\"layers\":[{\"name\":\"r\",\"op\":\"relu\",\"inputs\":[\"input\"]},"
      "{\"name\":\"c\",\"op\":\"conv2d\",\"inputs\":[\"r\"],\"out_channels\":4,\"float_pixels\":true}]}";
  ck_assert_int_eq(hwgq_network_from_json(elsewhere, strlen(elsewhere), &copy, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "float_pixels"));
}
END_TEST

int main(void) {
  enum { SETS = 4, LAYER_ROUNDS = 2, SHAPES = sizeof known_shapes / sizeof *known_shapes };
  Suite *suite = suite_create("first convolution");
  TCase *tests = tcase_create("first convolution");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, kernels, 0, SETS);
  tcase_add_loop_test(tests, exact_layers, 0, LAYER_ROUNDS);
  tcase_add_loop_test(tests, layers, 0, LAYER_ROUNDS);
  tcase_add_loop_test(tests, shapes_of_networks, 0, SHAPES);
  tcase_add_test(tests, ranges_of_rows);
  tcase_add_test(tests, choice);
  tcase_add_test(tests, rounding);
  tcase_add_test(tests, largest_sums);
  tcase_add_test(tests, description);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
