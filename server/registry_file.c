#include "server/registry_file.h"

#include "server/clock.h"

#include <stdlib.h>
#include <string.h>

/* One gray image: touches every page of weights and shows whether the network gives numbers at all. */
static enum hwgq_status warm_up(const struct classifier *classifier, struct hwgq_error *error) {
  size_t bytes = (size_t)classifier->input.channels * (size_t)classifier->input.height * (size_t)classifier->input.width;
  struct classify_scratch *scratch = NULL;
  struct classify_result result = {0};
  uint8_t *pixels = malloc(bytes);
  enum hwgq_status status = HWGQ_ERROR_MEMORY;
  if (pixels) {
    memset(pixels, 128, bytes);
    status = classify_scratch_create(classifier, &scratch, error);
  } else {
    hwgq_fail(error, status, "no memory for a first image");
  }
  if (!status) status = classify_pixels(classifier, scratch, pixels, &result, error);
  classify_scratch_destroy(scratch);
  free(pixels);
  return status;
}

/* Times of the stages, for GET /v1/models/{name}. A few runs, because other work may be going on.
 */
static enum hwgq_status measure_stages(const struct classifier *classifier, uint64_t **stage_ns, struct hwgq_error *error) {
  enum { RUNS = 3 };
  const uint64_t most = 20 * CLOCK_MS, start = clock_now();
  const struct hwgq_plan *plan = classifier->plan;
  size_t stages = (size_t)hwgq_plan_stage_count(plan);
  size_t pixel_bytes = (size_t)classifier->input.channels * (size_t)classifier->input.height * (size_t)classifier->input.width;
  uint64_t *shortest = calloc(stages, sizeof *shortest), *one = calloc(stages, sizeof *one);
  float *scores = calloc((size_t)hwgq_plan_output_count(plan), sizeof *scores);
  void *scratch = aligned_alloc(64, (hwgq_plan_scratch_bytes(plan) / 64 + 1) * 64);
  uint8_t *pixels = malloc(pixel_bytes);
  bool ready = shortest && one && scores && scratch && pixels;
  if (ready) memset(pixels, 128, pixel_bytes);
  for (int run = 0; run < RUNS && ready && (run == 0 || clock_now() - start < most); run++) {
    hwgq_run_profiled(plan, scratch, pixels, scores, one);
    for (size_t s = 0; s < stages; s++) {
      if (run == 0 || one[s] < shortest[s]) shortest[s] = one[s];
    }
  }
  free(pixels);
  free(scratch);
  free(scores);
  free(one);
  *stage_ns = shortest;
  return ready ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to time the layers");
}

static enum hwgq_status open_model(const struct wanted *wanted, const char *cpu, struct served_model *model,
                                   struct hwgq_error *error) {
  enum hwgq_status status = classifier_open(wanted->path, cpu, &model->classifier, error);
  if (status) return status;
  status = warm_up(model->classifier, error);
  if (!status) status = measure_stages(model->classifier, &model->stage_ns, error);
  for (int s = 0; !status && s < hwgq_plan_stage_count(model->classifier->plan); s++) model->first_ns += model->stage_ns[s];
  /* The plan has its own copy of the weights; the description is kept for GET /v1/models/{name}. */
  hwgq_network_release_parameters(model->classifier->model->network);
  return status;
}

enum hwgq_status registry_file_load(struct wanted *wanted, const char *cpu) {
  struct hwgq_error why = {{0}};
  enum hwgq_status status = HWGQ_ERROR_MEMORY;
  if (wanted->failed) return HWGQ_ERROR_IO;
  struct served_model *model = calloc(1, sizeof *model);
  if (model && (model->path = strdup(wanted->path))) {
    memcpy(model->name, wanted->name, sizeof model->name);
    atomic_init(&model->references, 1);
    status = open_model(wanted, cpu, model, &why);
  }
  if (!status) {
    wanted->model = model;
    return status;
  }
  if (model) registry_release(model);
  const char *prefix = strstr(why.message, wanted->path) ? "" : wanted->path;
  const bool file = status == HWGQ_ERROR_IO || status == HWGQ_ERROR_FORMAT; /* not for an unknown kernel set */
  wanted->failed = true;
  return hwgq_fail(&wanted->failure, status, "network '%s': %s%s%s%s", wanted->name, prefix, *prefix ? ": " : "",
                   why.message[0] ? why.message : "no memory",
                   file ? "; correct `models`, or make the file (hwgq train, hwgq import)" : "");
}

void registry_files_release(struct wanted_list *list) {
  for (int i = 0; i < list->count; i++) registry_release(list->items[i].model);
  registry_scan_release(list);
}
