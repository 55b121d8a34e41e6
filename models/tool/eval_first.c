#include "models/tool/eval_first.h"

#include <stdlib.h>
#include <string.h>

/* One way to compute it. */
struct side {
  struct hwgq_plan *plan;
  void *scratch;
  float *scores, *levels;
};

static enum hwgq_status open_side(const struct hwgq_model *model, const char *first_conv, size_t level_count, struct side *side,
                                  struct hwgq_error *error) {
  const struct hwgq_plan_options options = {.first_conv = first_conv, .keep_all_layers = true};
  enum hwgq_status status = hwgq_plan_create(model->network, &model->preprocess, &options, &side->plan, error);
  if (status) return status;
  side->scratch = aligned_alloc(64, (hwgq_plan_scratch_bytes(side->plan) + 63) / 64 * 64);
  side->scores = calloc((size_t)model->class_count, sizeof *side->scores);
  side->levels = calloc(level_count + 1, sizeof *side->levels);
  if (side->scratch && side->scores && side->levels) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
}

static void close_side(struct side *side) {
  hwgq_plan_destroy(side->plan);
  free(side->scratch);
  free(side->scores);
  free(side->levels);
}

static bool takes_pixels(const struct hwgq_plan *plan) {
  for (int s = 0; s < hwgq_plan_stage_count(plan); s++) {
    if (strncmp(hwgq_plan_stage(plan, s).kernel, "iconv_", 6) == 0) return true;
  }
  return false;
}

static int first_quantizer(const struct hwgq_network *network) {
  for (int i = 0; i < network->layer_count; i++) {
    if (network->layers[i].op == HWGQ_QUANTIZE) return i;
  }
  return -1;
}

static enum hwgq_status run_side(struct side *side, const uint8_t *pixels, int quantizer, struct hwgq_error *error) {
  hwgq_run(side->plan, side->scratch, pixels, side->scores);
  return quantizer < 0 ? HWGQ_OK : hwgq_run_output(side->plan, side->scratch, quantizer, side->levels, error);
}

static void count(const struct side sides[2], int class_count, size_t level_count, struct first_comparison *comparison) {
  struct hwgq_prediction best[2];
  uint64_t different = 0;
  for (int i = 0; i < 2; i++) hwgq_top_k(sides[i].scores, class_count, 1, &best[i]);
  for (size_t i = 0; i < level_count; i++) different += sides[0].levels[i] != sides[1].levels[i];
  comparison->predictions += best[0].class_index != best[1].class_index;
  comparison->scores += memcmp(sides[0].scores, sides[1].scores, (size_t)class_count * sizeof(float)) != 0;
  comparison->images += different > 0;
  comparison->levels += different;
  comparison->level_count += level_count;
}

enum hwgq_status first_compare(const struct hwgq_model *model, const struct dataset *data, struct first_comparison *comparison,
                               struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  const int quantizer = first_quantizer(network);
  const struct hwgq_shape shape = quantizer < 0 ? (struct hwgq_shape){0, 0, 0} : network->layers[quantizer].output;
  const size_t level_count = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
  const size_t image = (size_t)data->height * (size_t)data->width * (size_t)data->channels;
  struct side sides[2] = {{0}, {0}};
  *comparison = (struct first_comparison){.layer = quantizer < 0 ? NULL : network->layers[quantizer].name};
  enum hwgq_status status = open_side(model, "integer", level_count, &sides[0], error);
  if (!status) status = open_side(model, "float", level_count, &sides[1], error);
  if (!status && !takes_pixels(sides[0].plan)) {
    status = hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "network '%s' has no first convolution that can run in integers",
                       network->name);
  }
  for (int i = 0; i < data->count && !status; i++) {
    for (int k = 0; k < 2 && !status; k++) status = run_side(&sides[k], data->pixels + (size_t)i * image, quantizer, error);
    if (!status) count(sides, model->class_count, level_count, comparison);
  }
  for (int k = 0; k < 2; k++) close_side(&sides[k]);
  return status;
}
