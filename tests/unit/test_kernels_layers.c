/* Whole layers of random shapes, on every kernel set and form that this CPU has, against the reference executor. */
#include "engine/parameters.h"
#include "tests/support/kernels.h"

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

int main(void) {
  enum { LAYER_ROUNDS = 3 };
  Suite *suite = suite_create("kernels_layers");
  TCase *tests = tcase_create("kernels_layers");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, layers, 0, support_rounds(LAYER_ROUNDS));
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
