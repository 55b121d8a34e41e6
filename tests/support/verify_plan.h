/* Plans against the reference executor, and kernel sets against each other: what test programs of the planner share. Functions,
 * with the assertions of Check, in a header: the support library must not need Check. */
#ifndef SUPPORT_VERIFY_PLAN_H
#define SUPPORT_VERIFY_PLAN_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "tests/support/support.h"

static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
enum { SET_COUNT = sizeof sets / sizeof *sets };

static inline size_t elements(struct hwgq_shape shape) {
  return (size_t)hwgq_shape_elements(shape);
}

/* Every way to compute binary convolutions, which a plan chooses by CPU. */
static const char *const forms[] = {"sliced", "popcount", "lookup4", "lookup6"};
enum { FORM_COUNT = sizeof forms / sizeof *forms };

/* A plan with its scratch memory and every layer's output of one run. */
struct outcome {
  struct hwgq_plan *plan;
  const char *form; /* that was asked for */
  void *scratch;
  float *scores;
  float **layers; /* [layer_count], NULL where folded */
};

static inline struct outcome execute(const struct hwgq_network *network, const char *cpu, const char *form,
                                     const float *input) {
  struct hwgq_error error = {""};
  struct outcome outcome = {.form = form};
  const struct hwgq_plan_options options = {.cpu = cpu, .form = form, .keep_all_layers = true};
  ck_assert_msg(hwgq_plan_create(network, NULL, &options, &outcome.plan, &error) == HWGQ_OK, "%s", error.message);
  const size_t bytes = hwgq_plan_scratch_bytes(outcome.plan);
  ck_assert_uint_eq(bytes % 64, 0);
  outcome.scratch = aligned_alloc(64, bytes);
  memset(outcome.scratch, 0xa5, bytes);
  outcome.scores = calloc((size_t)hwgq_plan_output_count(outcome.plan), sizeof(float));
  hwgq_run_tensor(outcome.plan, outcome.scratch, input, outcome.scores);
  outcome.layers = calloc((size_t)network->layer_count, sizeof *outcome.layers);
  for (int i = 0; i < network->layer_count; i++) {
    outcome.layers[i] = malloc(elements(network->layers[i].output) * sizeof(float));
    if (hwgq_run_output(outcome.plan, outcome.scratch, i, outcome.layers[i], &error) == HWGQ_OK) continue;
    free(outcome.layers[i]);
    outcome.layers[i] = NULL;
  }
  return outcome;
}

static inline void release(struct outcome *outcome, int layer_count) {
  for (int i = 0; i < layer_count; i++) free(outcome->layers[i]);
  free(outcome->layers);
  free(outcome->scores);
  free(outcome->scratch);
  hwgq_plan_destroy(outcome->plan);
}

/* A float32 rounding before a quantizer may move a value across a threshold: allowed when it lies this close. */
static inline bool near_threshold(const struct hwgq_layer *quantize, double x) {
  if (quantize->sign) return fabs(x) < 2e-5;
  for (int j = 0; j < quantize->level_count; j++) {
    if (fabs(x - (double)quantize->thresholds[j]) < 2e-5 * (1 + fabs(x))) return true;
  }
  return false;
}

/* Compares layer by layer, up to the first level that rounding may have moved. Returns how many values were compared. */
static inline size_t compare_with_reference(const struct hwgq_network *network, const struct hwgq_reference *reference,
                                            const struct outcome *outcome, const float *input, unsigned seed, bool *moved) {
  size_t compared = 0;
  *moved = false;
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    const double *expected = hwgq_reference_output(reference, i);
    if (!outcome->layers[i]) continue;
    for (size_t k = 0; k < elements(layer->output); k++, compared++) {
      const double value = (double)outcome->layers[i][k];
      if (layer->op == HWGQ_QUANTIZE) {
        if (value == expected[k]) continue;
        const double x =
            layer->inputs[0] == HWGQ_NETWORK_INPUT ? (double)input[k] : hwgq_reference_output(reference, layer->inputs[0])[k];
        ck_assert_msg(near_threshold(layer, x), "seed %u %s: '%s' [%zu] is %g, reference %g of %.9g", seed,
                      hwgq_plan_cpu(outcome->plan), layer->name, k, value, expected[k], x);
        *moved = true;
        return compared;
      }
      if (fabs(value - expected[k]) <= 2e-5 * (1 + fabs(expected[k]))) continue;
      ck_abort_msg("seed %u %s: '%s' [%zu] is %.9g, reference %.9g", seed, hwgq_plan_cpu(outcome->plan), layer->name, k, value,
                   expected[k]);
    }
  }
  return compared;
}

static inline void compare_sets(const struct hwgq_network *network, const struct outcome *a, const struct outcome *b,
                                unsigned seed) {
  for (int i = 0; i < network->layer_count; i++) {
    ck_assert_int_eq(a->layers[i] != NULL, b->layers[i] != NULL);
    if (!a->layers[i]) continue;
    ck_assert_msg(memcmp(a->layers[i], b->layers[i], elements(network->layers[i].output) * sizeof(float)) == 0,
                  "seed %u: '%s' differs between %s and %s", seed, network->layers[i].name, hwgq_plan_cpu(a->plan),
                  hwgq_plan_cpu(b->plan));
  }
  ck_assert_mem_eq(a->scores, b->scores, (size_t)hwgq_plan_output_count(a->plan) * sizeof(float));
}

/* The same scores when buffers are reused, from memory with other contents, twice. */
static inline void compare_reuse(const struct hwgq_network *network, const struct outcome *kept, const float *input) {
  struct hwgq_error error;
  struct hwgq_plan *plan;
  const struct hwgq_plan_options options = {.cpu = hwgq_plan_cpu(kept->plan), .form = kept->form};
  ck_assert_int_eq(hwgq_plan_create(network, NULL, &options, &plan, &error), HWGQ_OK);
  const size_t bytes = hwgq_plan_scratch_bytes(plan), scores_bytes = (size_t)hwgq_plan_output_count(plan) * sizeof(float);
  ck_assert_uint_le(bytes, hwgq_plan_scratch_bytes(kept->plan));
  void *scratch = aligned_alloc(64, bytes);
  float *scores = malloc(scores_bytes);
  memset(scratch, 0x5a, bytes);
  for (int i = 0; i < 2; i++) {
    hwgq_run_tensor(plan, scratch, input, scores);
    ck_assert_mem_eq(scores, kept->scores, scores_bytes);
  }
  ck_assert_int_eq(hwgq_run_output(plan, scratch, 0, scores, &error), HWGQ_ERROR_UNSUPPORTED);
  free(scores);
  free(scratch);
  hwgq_plan_destroy(plan);
}

/* Everything that must hold for a network. Returns how many values were compared with the reference. */
static inline size_t verify(const struct hwgq_network *network, const float *input, unsigned seed, int *moved_count) {
  struct hwgq_error error;
  struct hwgq_reference *reference;
  struct outcome outcomes[SET_COUNT * FORM_COUNT];
  int count = 0;
  bool moved = false;
  size_t compared = 0;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
  for (int i = 0; i < SET_COUNT; i++) {
    for (int k = 0; k < FORM_COUNT && hwgq_cpu_supports(sets[i]); k++) {
      if (i > 0 || k < 2) outcomes[count++] = execute(network, sets[i], forms[k], input); /* scalar has no look-up */
    }
  }
  compared = compare_with_reference(network, reference, &outcomes[0], input, seed, &moved);
  for (int i = 1; i < count; i++) compare_sets(network, &outcomes[0], &outcomes[i], seed);
  for (int i = count > FORM_COUNT ? count - FORM_COUNT : 0; i < count; i++) compare_reuse(network, &outcomes[i], input);
  for (int i = 0; i < count; i++) release(&outcomes[i], network->layer_count);
  hwgq_reference_destroy(reference);
  if (moved && moved_count) ++*moved_count;
  return compared;
}

/* ---- networks layer by layer --------------------------------------------------------------------------------------------- */

static inline struct hwgq_network *start(int channels, int height, int width) {
  struct hwgq_network *network;
  struct hwgq_error error;
  ck_assert_int_eq(hwgq_network_create("corner", (struct hwgq_shape){channels, height, width}, &network, &error), HWGQ_OK);
  return network;
}

static inline struct hwgq_layer *join(struct hwgq_network *network, const char *name, enum hwgq_op op, const char *a,
                                      const char *b) {
  struct hwgq_layer *layer;
  struct hwgq_error error;
  const char *const inputs[] = {a, b};
  ck_assert_int_eq(hwgq_network_add(network, name, op, 2, inputs, &layer, &error), HWGQ_OK);
  return layer;
}

static inline void add_conv(struct hwgq_network *network, const char *name, const char *input, int out, int kernel, int pad,
                            int groups) {
  struct hwgq_layer *layer = support_add(network, name, HWGQ_CONV2D, input);
  layer->binary = layer->has_alpha = true;
  layer->out_channels = out;
  layer->kernel_height = layer->kernel_width = kernel;
  layer->pad_height = layer->pad_width = pad;
  layer->groups = groups;
}

static inline void add_pool(struct hwgq_network *network, const char *name, const char *input, int kernel, int stride,
                            int pad) {
  struct hwgq_layer *layer = support_add(network, name, HWGQ_MAX_POOL, input);
  layer->kernel_height = layer->kernel_width = kernel;
  layer->stride_height = layer->stride_width = stride;
  layer->pad_height = layer->pad_width = pad;
}

/* kind: 0 sign, 1 two free levels, 2 three uniform levels, 3 fifteen uniform, 4 seven free, 5 one level, 6 six uniform */
static inline void add_quantize(struct hwgq_network *network, const char *name, const char *input, int kind) {
  static const int levels[] = {0, 2, 3, 15, 7, 1, 6};
  struct hwgq_layer *layer = support_add(network, name, HWGQ_QUANTIZE, input);
  struct hwgq_error error;
  struct hwgq_quantizer quantizer;
  layer->sign = kind == 0;
  if (layer->sign) return;
  ck_assert_int_eq(hwgq_quantizer_design(levels[kind], kind != 1 && kind != 4, kind == 3, &quantizer, &error), HWGQ_OK);
  layer->level_count = quantizer.level_count;
  memcpy(layer->centers, quantizer.centers, sizeof layer->centers);
  memcpy(layer->thresholds, quantizer.thresholds, sizeof layer->thresholds);
}

static inline void finish_and_verify(struct hwgq_network *network, unsigned seed) {
  struct hwgq_error error;
  struct support_random random = {seed};
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  support_fill_parameters(network, &random);
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    for (int c = 0; layer->alpha && c < layer->out_channels; c++) {
      if (support_random_chance(&random, 0.3)) layer->alpha[c] = -layer->alpha[c];
      if (support_random_chance(&random, 0.05)) layer->alpha[c] = 0;
    }
  }
  support_calibrate(network, &random);
  float *input = support_random_input(network->input, &random);
  ck_assert_uint_gt(verify(network, input, seed, NULL), 0);
  free(input);
  hwgq_network_destroy(network);
}

#endif
