/* Runs the reference layer by layer beside a plan of each kernel set and compares as it goes. */
#include "models/verify/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"

static const char *const known_sets[] = {"scalar", "avx2", "avx512", "neon"};
enum { KNOWN_SETS = sizeof known_sets / sizeof *known_sets };

/* A kernel set with two plans: one keeps every stage's output, the other one reuses buffers as the one that serves does. */
struct executor {
  const char *cpu;
  struct hwgq_plan *plan, *serving;
  void *scratch, *serving_scratch;
  float *scores, *serving_scores;
};

struct verifier {
  const struct hwgq_network *network; /* borrowed */
  struct hwgq_preprocess preprocess;
  bool has_preprocess;
  double tolerance, recorded_code_tolerance;
  struct hwgq_reference *reference;
  struct executor executors[VERIFY_MAX_SETS];
  int executor_count;
  size_t largest;         /* values of the largest layer */
  float *input, *values;  /* network input; one layer */
  double *wide_input;     /* the network input again */
  double *expected;       /* one layer: recorded */
  double *found, *others; /* one layer of the first kernel set, and of another one */
};

/* ---- making -------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status out_of_memory(const struct hwgq_network *network, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': no memory to verify it", network->name);
}

static void *allocate_scratch(const struct hwgq_plan *plan) {
  return aligned_alloc(64, (hwgq_plan_scratch_bytes(plan) + 63) / 64 * 64 + 64);
}

static enum hwgq_status add_executor(struct verifier *v, const char *cpu, struct hwgq_error *error) {
  const struct hwgq_preprocess *preprocess = v->has_preprocess ? &v->preprocess : NULL;
  const struct hwgq_plan_options keep = {.cpu = cpu, .keep_all_layers = true}, serve = {.cpu = cpu};
  struct executor *e = &v->executors[v->executor_count++];
  enum hwgq_status status = hwgq_plan_create(v->network, preprocess, &keep, &e->plan, error);
  if (!status) status = hwgq_plan_create(v->network, preprocess, &serve, &e->serving, error);
  if (status) return status;
  const size_t scores = (size_t)hwgq_plan_output_count(e->plan);
  e->cpu = hwgq_plan_cpu(e->plan);
  e->scratch = allocate_scratch(e->plan);
  e->serving_scratch = allocate_scratch(e->serving);
  e->scores = calloc(scores, sizeof *e->scores);
  e->serving_scores = calloc(scores, sizeof *e->serving_scores);
  return e->scratch && e->serving_scratch && e->scores && e->serving_scores ? HWGQ_OK : out_of_memory(v->network, error);
}

static enum hwgq_status fill_verifier(struct verifier *v, const char *cpu, struct hwgq_error *error) {
  const size_t input = (size_t)hwgq_shape_elements(v->network->input);
  enum hwgq_status status = hwgq_reference_create(v->network, &v->reference, error);
  if (status) return status;
  for (int i = 0; i < v->network->layer_count; i++) {
    const size_t count = (size_t)hwgq_shape_elements(v->network->layers[i].output);
    if (count > v->largest) v->largest = count;
  }
  v->input = calloc(input, sizeof *v->input);
  v->wide_input = calloc(input, sizeof *v->wide_input);
  v->values = calloc(v->largest, sizeof *v->values);
  v->expected = calloc(v->largest, sizeof *v->expected);
  v->found = calloc(v->largest, sizeof *v->found);
  v->others = calloc(v->largest, sizeof *v->others);
  if (!v->input || !v->wide_input || !v->values || !v->expected || !v->found || !v->others)
    return out_of_memory(v->network, error);
  if (cpu && strcmp(cpu, "all") != 0) return add_executor(v, cpu, error);
  for (int k = 0; k < KNOWN_SETS && !status; k++) {
    if (hwgq_cpu_supports(known_sets[k])) status = add_executor(v, known_sets[k], error);
  }
  return status;
}

enum hwgq_status verifier_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess, const char *cpu,
                                 double tolerance, struct verifier **verifier, struct hwgq_error *error) {
  struct verifier *created = calloc(1, sizeof *created);
  if (!created) return out_of_memory(network, error);
  created->network = network;
  created->tolerance = tolerance;
  created->recorded_code_tolerance = -1; /* not even exactly on a threshold */
  created->has_preprocess = preprocess != NULL;
  if (preprocess) created->preprocess = *preprocess;
  enum hwgq_status status = fill_verifier(created, cpu, error);
  if (status) {
    verifier_destroy(created);
    return status;
  }
  *verifier = created;
  return HWGQ_OK;
}

void verifier_destroy(struct verifier *v) {
  if (!v) return;
  for (int k = 0; k < v->executor_count; k++) {
    struct executor *e = &v->executors[k];
    hwgq_plan_destroy(e->plan);
    hwgq_plan_destroy(e->serving);
    free(e->scratch);
    free(e->serving_scratch);
    free(e->scores);
    free(e->serving_scores);
  }
  hwgq_reference_destroy(v->reference);
  free(v->input);
  free(v->wide_input);
  free(v->values);
  free(v->expected);
  free(v->found);
  free(v->others);
  free(v);
}

/* ---- results ------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status start_result(const struct verifier *v, bool recording, struct verify_result *result,
                                     struct hwgq_error *error) {
  *result = (struct verify_result){.recording = recording, .nearest = {.layer = -1}};
  for (int k = recording ? -1 : 0; k < v->executor_count; k++) {
    struct verify_comparison *c = &result->comparisons[result->count++];
    *c = (struct verify_comparison){.who = k < 0 ? "reference" : v->executors[k].cpu,
                                    .layer_count = v->network->layer_count,
                                    .worst_layer = -1,
                                    .first_failed = -1,
                                    .scores_differ = -1};
    c->layers = calloc((size_t)v->network->layer_count, sizeof *c->layers);
    if (!c->layers) {
      verify_result_release(result);
      return out_of_memory(v->network, error);
    }
  }
  return HWGQ_OK;
}

void verify_result_release(struct verify_result *result) {
  for (int k = 0; k < result->count; k++) free(result->comparisons[k].layers);
  *result = (struct verify_result){0};
}

static void sum_up(struct verify_comparison *c) {
  for (int i = 0; i < c->layer_count; i++) {
    const struct verify_layer *layer = &c->layers[i];
    if (layer->failed && c->first_failed < 0) c->first_failed = i;
    if (!layer->compared) continue;
    c->compared++;
    c->followers += layer->follows;
    if (layer->codes) {
      c->code_layers++;
      c->code_values += layer->values;
      if (!layer->follows) c->tolerated += layer->differing - layer->wrong;
    } else if (!layer->follows && (c->worst_layer < 0 || layer->error > c->largest_error)) {
      c->worst_layer = i;
      c->largest_error = layer->error;
    }
  }
}

static void finish_result(const struct verifier *v, struct verify_result *result) {
  const struct executor *first = &v->executors[0];
  const size_t bytes = (size_t)hwgq_plan_output_count(first->plan) * sizeof *first->scores;
  const int offset = result->count - v->executor_count;
  result->passed = true;
  for (int k = 0; k < result->count; k++) {
    struct verify_comparison *c = &result->comparisons[k];
    sum_up(c);
    if (k >= offset) {
      const struct executor *e = &v->executors[k - offset];
      if (memcmp(e->scores, first->scores, bytes) != 0) c->scores_differ = offset;
      c->serving_differs = memcmp(e->scores, e->serving_scores, bytes) != 0;
    }
    if (c->first_failed >= 0 || c->scores_differ >= 0 || c->serving_differs || c->top_classes_differ) result->passed = false;
  }
}

/* ---- layers -------------------------------------------------------------------------------------------------------------- */

static const double *before_of(const struct verifier *v, const struct hwgq_layer *layer) {
  return layer->inputs[0] == HWGQ_NETWORK_INPUT ? v->wide_input : hwgq_reference_output(v->reference, layer->inputs[0]);
}

static void compare_layer(const struct verifier *v, int index, const double *expected, const double *found,
                          double code_tolerance, struct verify_layer *result) {
  const struct hwgq_layer *layer = &v->network->layers[index];
  const struct hwgq_shape in = hwgq_network_input_shape(v->network, layer, 0);
  const struct verify_operands operands = {.layer = layer,
                                           .expected = expected,
                                           .found = found,
                                           .before = before_of(v, layer),
                                           .before_count = (size_t)hwgq_shape_elements(in),
                                           .tolerance = layer->op == HWGQ_QUANTIZE ? code_tolerance : v->tolerance};
  verify_compare(&operands, result);
}

/* A layer's output as a kernel set has it; *made false: it was folded into another stage. */
static enum hwgq_status read_output(struct verifier *v, int k, int layer, double *values, bool *made,
                                    struct hwgq_error *error) {
  const size_t count = (size_t)hwgq_shape_elements(v->network->layers[layer].output);
  enum hwgq_status status = hwgq_run_output(v->executors[k].plan, v->executors[k].scratch, layer, v->values, error);
  *made = status == HWGQ_OK;
  for (size_t i = 0; i < count && *made; i++) values[i] = (double)v->values[i];
  return status == HWGQ_ERROR_UNSUPPORTED ? HWGQ_OK : status;
}

/* Some layer that this one reads has a difference that this one cannot be freed from. */
static bool follows_difference(const struct verify_comparison *c, const struct hwgq_layer *layer) {
  for (int i = 0; i < layer->input_count; i++) {
    if (layer->inputs[i] != HWGQ_NETWORK_INPUT && c->layers[layer->inputs[i]].follows) return true;
  }
  return false;
}

static void mark_follower(struct verify_layer *layer) {
  layer->follows = true;
  layer->failed = false;
}

/* ---- against the reference ----------------------------------------------------------------------------------------------- */

/* The first kernel set is compared with the reference, which then goes on from its codes. The others must have the first
 * one's bits; where one has not, it is compared too, and what it computes from there on is not judged any more. */
static enum hwgq_status verify_layer_outputs(struct verifier *v, int index, struct verify_result *result,
                                             struct hwgq_error *error) {
  const struct hwgq_layer *layer = &v->network->layers[index];
  const size_t bytes = (size_t)hwgq_shape_elements(layer->output) * sizeof(double);
  const double *expected = hwgq_reference_output(v->reference, index);
  for (int k = 0; k < v->executor_count; k++) {
    struct verify_layer *entry = &result->comparisons[k].layers[index];
    const bool follower = k > 0 && follows_difference(&result->comparisons[k], layer);
    double *values = k == 0 ? v->found : v->others;
    bool made;
    enum hwgq_status status = read_output(v, k, index, values, &made, error);
    if (status) return status;
    if (made) compare_layer(v, index, expected, values, v->tolerance, entry);
    if (follower) mark_follower(entry);
    if (!made || k == 0 || follower || memcmp(values, v->found, bytes) == 0) continue;
    entry->differs_from = 0;
    entry->failed = true;
    entry->follows = true;
  }
  if (result->comparisons[0].layers[index].differing) hwgq_reference_replace(v->reference, index, v->found);
  return HWGQ_OK;
}

static enum hwgq_status verify_all(struct verifier *v, struct verify_result *result, struct hwgq_error *error) {
  enum hwgq_status status = hwgq_reference_begin(v->reference, v->input, error);
  for (int i = 0; i < v->network->layer_count && !status; i++) {
    const struct hwgq_layer *layer = &v->network->layers[i];
    hwgq_reference_step(v->reference, i);
    if (layer->op == HWGQ_QUANTIZE) verify_find_nearest(layer, i, before_of(v, layer), &result->nearest);
    status = verify_layer_outputs(v, i, result, error);
  }
  if (status) {
    verify_result_release(result);
  } else {
    finish_result(v, result);
  }
  return status;
}

static void widen_input(struct verifier *v) {
  const size_t count = (size_t)hwgq_shape_elements(v->network->input);
  for (size_t i = 0; i < count; i++) v->wide_input[i] = (double)v->input[i];
}

static void run_input(struct verifier *v, const float *input) {
  memcpy(v->input, input, (size_t)hwgq_shape_elements(v->network->input) * sizeof *input);
  widen_input(v);
  for (int k = 0; k < v->executor_count; k++) {
    struct executor *e = &v->executors[k];
    hwgq_run_tensor(e->plan, e->scratch, v->input, e->scores);
    hwgq_run_tensor(e->serving, e->serving_scratch, v->input, e->serving_scores);
  }
}

enum hwgq_status verifier_run_pixels(struct verifier *v, const uint8_t *pixels, struct verify_result *result,
                                     struct hwgq_error *error) {
  if (!v->has_preprocess || v->network->input.channels > 3)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "network '%s' does not take images: run it on input values", v->network->name);
  enum hwgq_status status = start_result(v, false, result, error);
  if (status) return status;
  hwgq_preprocess_to_float(&v->preprocess, v->network->input, pixels, v->input);
  widen_input(v);
  for (int k = 0; k < v->executor_count; k++) {
    struct executor *e = &v->executors[k];
    hwgq_run(e->plan, e->scratch, pixels, e->scores);
    hwgq_run(e->serving, e->serving_scratch, pixels, e->serving_scores);
  }
  return verify_all(v, result, error);
}

enum hwgq_status verifier_run_input(struct verifier *v, const float *input, struct verify_result *result,
                                    struct hwgq_error *error) {
  enum hwgq_status status = start_result(v, false, result, error);
  if (status) return status;
  run_input(v, input);
  return verify_all(v, result, error);
}

/* ---- against a recording ------------------------------------------------------------------------------------------------- */

void verifier_tolerate_recorded_codes(struct verifier *v, double tolerance) {
  v->recorded_code_tolerance = tolerance;
}

static void compare_recording(const struct verifier *v, int index, const double *found, struct verify_layer *result) {
  compare_layer(v, index, v->expected, found, v->recorded_code_tolerance, result);
}

/* The reference can go on from the recorded codes where they differ by a tolerated amount; kernel sets cannot. */
static enum hwgq_status compare_recorded(struct verifier *v, const struct golden *golden, int index,
                                         struct verify_result *result, struct hwgq_error *error) {
  const struct hwgq_layer *layer = &v->network->layers[index];
  const struct golden_blob *blob = golden_find(golden, layer->name);
  struct verify_layer *reference = &result->comparisons[0].layers[index];
  enum hwgq_status status = blob ? golden_read(golden, blob, layer, v->expected, error) : HWGQ_OK;
  if (status) return status;
  if (blob) compare_recording(v, index, hwgq_reference_output(v->reference, index), reference);
  for (int k = 0; k < v->executor_count; k++) {
    struct verify_comparison *c = &result->comparisons[k + 1];
    bool made = false;
    if (blob) status = read_output(v, k, index, v->found, &made, error);
    if (status) return status;
    if (made) compare_recording(v, index, v->found, &c->layers[index]);
    if (follows_difference(c, layer)) mark_follower(&c->layers[index]);
    if (c->layers[index].differing && !c->layers[index].failed) c->layers[index].follows = true;
  }
  if (reference->differing && !reference->failed) hwgq_reference_replace(v->reference, index, v->expected);
  return HWGQ_OK;
}

static enum hwgq_status check_blobs(const struct verifier *v, const struct golden *golden, struct hwgq_error *error) {
  if (golden->input_count != hwgq_shape_elements(v->network->input))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: the recorded input has %zu values, but network '%s' takes %llu",
                     golden->folder, golden->input_count, v->network->name,
                     (unsigned long long)hwgq_shape_elements(v->network->input));
  for (int i = 0; i < golden->blob_count; i++) {
    if (golden->blobs[i].identity || hwgq_network_find(v->network, golden->blobs[i].layer) >= 0) continue;
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/index.json: network '%s' has no layer '%s'", golden->folder,
                     v->network->name, golden->blobs[i].layer);
  }
  return HWGQ_OK;
}

/* The recorded best classes come in the same order, but for ones whose scores are equal within the tolerance. */
static bool top_differs(const struct golden *golden, const float *scores, int count, double tolerance) {
  struct hwgq_prediction top[GOLDEN_TOP];
  const int found = hwgq_top_k(scores, count, golden->top_count, top);
  for (int i = 0; i < golden->top_count; i++) {
    const int recorded = golden->top[i].class_index;
    if (i >= found || recorded >= count) return true;
    if (top[i].class_index != recorded && fabs((double)top[i].probability - (double)scores[recorded]) > tolerance) return true;
  }
  return false;
}

enum hwgq_status verifier_run_golden(struct verifier *v, const struct golden *golden, const float *input,
                                     struct verify_result *result, struct hwgq_error *error) {
  enum hwgq_status status = input ? HWGQ_OK : check_blobs(v, golden, error);
  if (!status) status = start_result(v, true, result, error);
  if (status) return status;
  run_input(v, input ? input : golden->input);
  status = hwgq_reference_begin(v->reference, v->input, error);
  for (int i = 0; i < v->network->layer_count && !status; i++) {
    const struct hwgq_layer *layer = &v->network->layers[i];
    hwgq_reference_step(v->reference, i);
    if (layer->op == HWGQ_QUANTIZE) verify_find_nearest(layer, i, before_of(v, layer), &result->nearest);
    status = compare_recorded(v, golden, i, result, error);
  }
  if (status) {
    verify_result_release(result);
    return status;
  }
  for (int k = 0; k < v->executor_count && !input; k++) {
    struct verify_comparison *c = &result->comparisons[k + 1];
    const bool follows = c->layers[v->network->layer_count - 1].follows;
    c->top_classes_differ =
        !follows && top_differs(golden, v->executors[k].scores, hwgq_plan_output_count(v->executors[k].plan), v->tolerance);
  }
  finish_result(v, result);
  return HWGQ_OK;
}
