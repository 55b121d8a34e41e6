/* Fuzzes the network description's JSON. Accepted text must survive writing and reading again unchanged. A small network must
 * run in the reference executor; and it either gets a plan on every kernel set, all with the same bits, or on none. */
#include "engine/parameters.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  char *text = NULL;
  if (index >= 24) return false;
  struct hwgq_network *network = support_random_network(&(struct support_random){(uint64_t)index});
  if (hwgq_network_to_json(network, &text, NULL)) abort();
  fuzz_set(buffer, text, strlen(text));
  free(text);
  hwgq_network_destroy(network);
  return true;
}

/* Small enough to be run thousands of times. */
static bool is_small(const struct hwgq_network *network) {
  uint64_t work = hwgq_shape_elements(network->input);
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    uint64_t window = (uint64_t)layer->kernel_height * (uint64_t)layer->kernel_width,
             elements = hwgq_shape_elements(layer->output);
    work += hwgq_layer_macs(network, layer) + elements;
    if (layer->op == HWGQ_MAX_POOL || layer->op == HWGQ_AVG_POOL) work += elements * window;
    if (layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR)
      work += (uint64_t)layer->out_channels * hwgq_layer_fan_in(network, layer);
  }
  return work < 200000;
}

enum { MOST_SCORES = 4096 };

/* The scores of a plan for one kernel set. *planned is false when a plan was refused with a message. */
static const char *run_plan(const struct hwgq_network *network, const char *cpu, const float *input, float *scores,
                            bool *planned) {
  struct hwgq_plan *plan = NULL;
  struct hwgq_plan_options options = {.cpu = cpu};
  struct hwgq_error error = {{0}};
  *planned = hwgq_plan_create(network, NULL, &options, &plan, &error) == HWGQ_OK;
  if (!*planned) return plan ? "refused, but a plan was made" : error.message[0] ? NULL : "a plan is refused without a message";
  size_t bytes = (hwgq_plan_scratch_bytes(plan) + 63) / 64 * 64 + 64;
  void *scratch = aligned_alloc(64, bytes);
  if (!scratch) abort();
  memset(scratch, 0xa5, bytes);
  if (hwgq_plan_output_count(plan) <= MOST_SCORES) hwgq_run_tensor(plan, scratch, input, scores);
  free(scratch);
  hwgq_plan_destroy(plan);
  return NULL;
}

static const char *check_plans(const struct hwgq_network *network, const float *input) {
  static const char *const cpus[] = {"scalar", "avx2", "avx512", "neon"};
  static float first[MOST_SCORES], scores[MOST_SCORES];
  bool planned = false, also_planned = false;
  memset(first, 0, sizeof first);
  const char *wrong = run_plan(network, cpus[0], input, first, &planned);
  for (size_t i = 1; i < sizeof cpus / sizeof *cpus && !wrong; i++) {
    if (!hwgq_cpu_supports(cpus[i])) continue;
    memset(scores, 0, sizeof scores);
    wrong = run_plan(network, cpus[i], input, scores, &also_planned);
    if (!wrong && planned != also_planned) wrong = "one kernel set has a plan and another has not";
    if (!wrong && memcmp(first, scores, sizeof scores)) wrong = "two kernel sets give different bits";
  }
  return wrong;
}

static const char *check_runs(struct hwgq_network *network) {
  struct support_random random = {1};
  struct hwgq_reference *reference = NULL;
  struct hwgq_error error = {{0}};
  const char *wrong = NULL;
  support_fill_parameters(network, &random);
  float *input = support_random_input(network->input, &random);
  if (hwgq_reference_create(network, &reference, &error) || hwgq_reference_run(reference, input, &error))
    wrong = "an accepted network does not run";
  if (!wrong) wrong = check_plans(network, input);
  hwgq_reference_destroy(reference);
  free(input);
  return wrong;
}

static const char *check_again(const struct hwgq_network *network) {
  struct hwgq_network *again = NULL;
  char *text = NULL, *text_again = NULL;
  const char *wrong = NULL;
  if (hwgq_network_to_json(network, &text, NULL))
    wrong = "an accepted network cannot be written";
  else if (hwgq_network_from_json(text, strlen(text), &again, NULL))
    wrong = "what was written is refused";
  else if (hwgq_network_to_json(again, &text_again, NULL) || strcmp(text, text_again))
    wrong = "written twice, the text differs";
  free(text);
  free(text_again);
  hwgq_network_destroy(again);
  return wrong;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  struct hwgq_network *network = NULL;
  struct hwgq_error error = {{0}};
  if (hwgq_network_from_json((const char *)bytes, length, &network, &error))
    return network ? "refused, but a network was made" : error.message[0] ? NULL : "refused without a message";
  *accepted = true;
  const char *wrong = check_again(network);
  if (!wrong && is_small(network)) wrong = check_runs(network);
  hwgq_network_destroy(network);
  return wrong;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "network_json", .runs = 20000, .make_seed = make_seed, .check = check};
  return fuzz_main(argc, argv, &target);
}
