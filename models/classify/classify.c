#include "models/classify/classify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct classify_scratch {
  void *arena;     /* the plan's run arena, 64-byte aligned */
  uint8_t *pixels; /* network input */
  float *scores;
  struct hwgq_team *team; /* borrowed, or NULL */
  int helpers;            /* of the team; 0 without one */
  size_t arena_bytes, pixel_bytes;
  int score_count;
};

enum { ARENA_ALIGNMENT = 64 };

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static size_t pixel_bytes_of(const struct classifier *classifier) {
  return (size_t)classifier->input.channels * (size_t)classifier->input.height * (size_t)classifier->input.width;
}

static size_t arena_bytes_of(const struct classifier *classifier, int helpers) {
  size_t bytes = hwgq_plan_team_scratch_bytes(classifier->plan, helpers);
  if (bytes == 0) bytes = 1;
  return (bytes + ARENA_ALIGNMENT - 1) / ARENA_ALIGNMENT * ARENA_ALIGNMENT;
}

enum hwgq_status classifier_create(struct hwgq_model *model, const char *cpu, struct classifier **classifier,
                                   struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  const struct hwgq_plan_options options = {.cpu = cpu};
  if (network->layer_count < 1 || network->layers[network->layer_count - 1].op != HWGQ_SOFTMAX) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "network '%s' does not end in a softmax layer, so its scores are not probabilities: add one to its "
                     "description",
                     network->name);
  }
  struct classifier *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a classifier");
  enum hwgq_status status = hwgq_plan_create(network, &model->preprocess, &options, &made->plan, error);
  if (status) {
    free(made);
    return status;
  }
  made->input = network->input;
  made->class_count = model->class_count;
  made->shorter_side = image_shorter_side(&model->preprocess, network->input);
  if (hwgq_plan_output_count(made->plan) != model->class_count) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "network '%s' has %d outputs but the model names %d classes", network->name,
                       hwgq_plan_output_count(made->plan), model->class_count);
    hwgq_plan_destroy(made->plan);
    free(made);
    return status;
  }
  made->model = model;
  *classifier = made;
  return HWGQ_OK;
}

enum hwgq_status classifier_open(const char *path, const char *cpu, struct classifier **classifier, struct hwgq_error *error) {
  struct hwgq_model *model;
  enum hwgq_status status = hwgq_model_read(path, &model, error);
  if (status) return status;
  status = classifier_create(model, cpu, classifier, error);
  if (status) hwgq_model_destroy(model);
  return status;
}

void classifier_destroy(struct classifier *classifier) {
  if (!classifier) return;
  hwgq_plan_destroy(classifier->plan);
  hwgq_model_destroy(classifier->model);
  free(classifier);
}

size_t classifier_bytes(const struct classifier *classifier) {
  return hwgq_plan_bytes(classifier->plan) + (size_t)classifier->model->file_bytes;
}

void classify_scratch_set_team(struct classify_scratch *scratch, struct hwgq_team *team, int helpers) {
  scratch->team = team;
  scratch->helpers = team ? helpers : 0;
}

size_t classify_scratch_bytes(const struct classifier *classifier, int helpers) {
  return arena_bytes_of(classifier, helpers) + pixel_bytes_of(classifier) + (size_t)classifier->class_count * sizeof(float);
}

enum hwgq_status classify_scratch_create(const struct classifier *classifier, struct classify_scratch **scratch,
                                         struct hwgq_error *error) {
  struct classify_scratch *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a scratch");
  if (classifier) {
    enum hwgq_status status = classify_scratch_reserve(made, classifier, error);
    if (status) {
      classify_scratch_destroy(made);
      return status;
    }
  }
  *scratch = made;
  return HWGQ_OK;
}

enum hwgq_status classify_scratch_reserve(struct classify_scratch *scratch, const struct classifier *classifier,
                                          struct hwgq_error *error) {
  size_t arena_bytes = arena_bytes_of(classifier, scratch->helpers), pixel_bytes = pixel_bytes_of(classifier);
  if (arena_bytes > scratch->arena_bytes) {
    void *arena = aligned_alloc(ARENA_ALIGNMENT, arena_bytes);
    if (!arena) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a run arena of %zu bytes", arena_bytes);
    free(scratch->arena);
    scratch->arena = arena;
    scratch->arena_bytes = arena_bytes;
  }
  if (pixel_bytes > scratch->pixel_bytes) {
    uint8_t *pixels = malloc(pixel_bytes);
    if (!pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %zu bytes of pixels", pixel_bytes);
    free(scratch->pixels);
    scratch->pixels = pixels;
    scratch->pixel_bytes = pixel_bytes;
  }
  if (classifier->class_count > scratch->score_count) {
    float *scores = malloc((size_t)classifier->class_count * sizeof *scores);
    if (!scores) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %d scores", classifier->class_count);
    free(scratch->scores);
    scratch->scores = scores;
    scratch->score_count = classifier->class_count;
  }
  return HWGQ_OK;
}

void classify_scratch_destroy(struct classify_scratch *scratch) {
  if (!scratch) return;
  free(scratch->arena);
  free(scratch->pixels);
  free(scratch->scores);
  free(scratch);
}

uint64_t classify_spent_ns(const struct classify_result *result) {
  return result->decode_ns + result->preprocess_ns + result->inference_ns;
}

enum hwgq_status classify_prepare(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *bytes,
                                  size_t length, const struct image_limits *limits, struct classify_result *result,
                                  struct hwgq_error *error) {
  const struct image_limits default_limits = IMAGE_LIMITS_DEFAULT;
  *result = (struct classify_result){0};
  enum hwgq_status status = classify_scratch_reserve(scratch, classifier, error);
  if (status) return status;
  struct image_times times;
  uint64_t start = now_ns();
  status = image_prepare(bytes, length, limits ? limits : &default_limits, &classifier->model->preprocess, classifier->input,
                         scratch->pixels, &result->image, &times, error);
  result->decode_ns = now_ns() - start - times.resize_ns;
  result->preprocess_ns = times.resize_ns;
  result->waited_ns = times.waited_ns;
  if (status) return status;
  result->pixels = scratch->pixels;
  return HWGQ_OK;
}

static enum hwgq_status run(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *pixels,
                            struct classify_result *result, struct hwgq_error *error) {
  uint64_t start = now_ns();
  if (scratch->team) {
    result->helpers = hwgq_run_team(classifier->plan, scratch->arena, pixels, scratch->scores, scratch->team, NULL);
  } else {
    hwgq_run(classifier->plan, scratch->arena, pixels, scratch->scores);
  }
  result->inference_ns = now_ns() - start;
  result->pixels = pixels;
  result->scores = scratch->scores;
  if (isfinite(scratch->scores[0])) return HWGQ_OK; /* what overflows makes all of them NaN in the softmax */
  return hwgq_fail(error, HWGQ_ERROR_INVALID,
                   "the scores of this image overflow: the network's parameters are far too large, train it again");
}

enum hwgq_status classify_bytes(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *bytes,
                                size_t length, const struct image_limits *limits, struct classify_result *result,
                                struct hwgq_error *error) {
  enum hwgq_status status = classify_prepare(classifier, scratch, bytes, length, limits, result, error);
  if (status) return status;
  return run(classifier, scratch, scratch->pixels, result, error);
}

enum hwgq_status classify_pixels(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *pixels,
                                 struct classify_result *result, struct hwgq_error *error) {
  *result = (struct classify_result){0};
  enum hwgq_status status = classify_scratch_reserve(scratch, classifier, error);
  if (status) return status;
  return run(classifier, scratch, pixels, result, error);
}

enum hwgq_status classify_image(const struct classifier *classifier, struct classify_scratch *scratch,
                                const struct image *image, struct classify_result *result, struct hwgq_error *error) {
  *result = (struct classify_result){0};
  enum hwgq_status status = classify_scratch_reserve(scratch, classifier, error);
  if (status) return status;
  uint64_t start = now_ns();
  status = image_preprocess(image, &classifier->model->preprocess, classifier->input, scratch->pixels, error);
  if (status) return status;
  result->preprocess_ns = now_ns() - start;
  return run(classifier, scratch, scratch->pixels, result, error);
}

enum hwgq_status classify_tensor(const struct classifier *classifier, struct classify_scratch *scratch, const float *input,
                                 struct classify_result *result, struct hwgq_error *error) {
  *result = (struct classify_result){0};
  enum hwgq_status status = classify_scratch_reserve(scratch, classifier, error);
  if (status) return status;
  uint64_t start = now_ns();
  hwgq_run_tensor(classifier->plan, scratch->arena, input, scratch->scores);
  result->inference_ns = now_ns() - start;
  result->scores = scratch->scores;
  if (isfinite(scratch->scores[0])) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "the input's values are so large that the scores overflow: preprocess them");
}

void classify_write_predictions(const struct hwgq_model *model, const float *scores, int top_k, struct text *text) {
  if (top_k > model->class_count) top_k = model->class_count;
  if (top_k < 0) top_k = 0;
  struct hwgq_prediction *predictions = malloc((size_t)(top_k ? top_k : 1) * sizeof *predictions);
  if (!predictions) {
    text->failed = true;
    return;
  }
  int count = hwgq_top_k(scores, model->class_count, top_k, predictions);
  text_puts(text, "[");
  for (int i = 0; i < count; i++) {
    text_printf(text, "%s{\"class\":%d,\"label\":", i ? "," : "", predictions[i].class_index);
    text_json_string(text, model->labels ? model->labels[predictions[i].class_index] : NULL);
    text_puts(text, ",\"probability\":");
    text_json_float(text, predictions[i].probability);
    text_puts(text, "}");
  }
  text_puts(text, "]");
  free(predictions);
}

void classify_write_image(const struct image_info *image, struct text *text) {
  text_printf(text, "{\"format\":\"%s\",\"width\":%d,\"height\":%d}", image_format_name(image->format), image->width,
              image->height);
}
