/* Every layer's output of a model for one image, by both executors:
 *   layers MODEL.hwgq PIXELS OUT.safetensors
 * PIXELS: 8-bit HWC in the network's channel order. OUT: reference.LAYER (F64), engine.LAYER (F32, layers that exist in the
 * plan) and scores (F32), flat. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/hwgq.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/storage.h"

struct output {
  int count;
  struct hwgq_tensor tensors[2 * HWGQ_MAX_LAYERS + 1];
  char names[2 * HWGQ_MAX_LAYERS + 1][HWGQ_MAX_NAME + 16];
};

static void must(enum hwgq_status status, const struct hwgq_error *error) {
  if (!status) return;
  fprintf(stderr, "layers: %s\n", error->message);
  exit(1);
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
  if (!memory) abort();
  return memory;
}

static void add(struct output *output, const char *prefix, const char *name, const char *dtype, uint64_t count,
                const void *data) {
  char *full = output->names[output->count];
  snprintf(full, sizeof output->names[0], "%s%s", prefix, name);
  output->tensors[output->count++] = (struct hwgq_tensor){
      .name = full, .dtype = dtype, .rank = 1, .extents = {count}, .data = data, .bytes = count * (dtype[1] == '6' ? 8 : 4)};
}

static void run_reference(const struct hwgq_model *model, const float *input, struct hwgq_reference **reference,
                          struct output *output) {
  struct hwgq_error error;
  must(hwgq_reference_create(model->network, reference, &error), &error);
  must(hwgq_reference_run(*reference, input, &error), &error);
  for (int i = 0; i < model->network->layer_count; i++) {
    const struct hwgq_layer *layer = &model->network->layers[i];
    add(output, "reference.", layer->name, "F64", hwgq_shape_elements(layer->output), hwgq_reference_output(*reference, i));
  }
}

static void run_engine(const struct hwgq_model *model, const uint8_t *pixels, struct output *output) {
  const struct hwgq_network *network = model->network;
  struct hwgq_plan_options options = {.keep_all_layers = true};
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error;
  must(hwgq_plan_create(network, &model->preprocess, &options, &plan, &error), &error);
  void *scratch = allocate(hwgq_plan_scratch_bytes(plan));
  float *scores = allocate((size_t)hwgq_plan_output_count(plan) * sizeof *scores);
  hwgq_run(plan, scratch, pixels, scores);
  for (int i = 0; i < network->layer_count; i++) {
    uint64_t count = hwgq_shape_elements(network->layers[i].output);
    float *values = allocate((size_t)count * sizeof *values);
    if (hwgq_run_output(plan, scratch, i, values, &error) == HWGQ_OK)
      add(output, "engine.", network->layers[i].name, "F32", count, values);
    else
      free(values);
  }
  add(output, "scores", "", "F32", (uint64_t)hwgq_plan_output_count(plan), scores);
  free(scratch);
  hwgq_plan_destroy(plan);
}

int main(int argc, char **argv) {
  static struct output output;
  struct hwgq_model *model = NULL;
  struct hwgq_reference *reference = NULL;
  struct hwgq_error error;
  uint8_t *pixels = NULL;
  size_t length = 0;
  if (argc != 4) return 2;
  must(hwgq_model_read(argv[1], &model, &error), &error);
  must(hwgq_storage_read(argv[2], 1 << 26, &pixels, &length, &error), &error);
  uint64_t inputs = hwgq_shape_elements(model->network->input);
  if (length != inputs) return 2;
  float *input = allocate((size_t)inputs * sizeof *input);
  hwgq_preprocess_to_float(&model->preprocess, model->network->input, pixels, input);
  run_reference(model, input, &reference, &output);
  int borrowed = output.count;
  run_engine(model, pixels, &output);
  must(hwgq_safetensors_write(argv[3], output.tensors, output.count, NULL, 0, NULL, &error), &error);
  for (int i = borrowed; i < output.count; i++) free((void *)output.tensors[i].data);
  free(input);
  free(pixels);
  hwgq_reference_destroy(reference);
  hwgq_model_destroy(model);
  return 0;
}
