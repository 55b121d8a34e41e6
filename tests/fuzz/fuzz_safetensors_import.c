/* Fuzzes the state_dict importer. Seeds describe their network in the metadata. Mutations of the header keep its length field
 * right, so that they reach what is behind the container's checks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/parameters.h"
#include "models/import/import.h"
#include "tests/support/fuzz.h"

enum { MAX_TENSORS = 256 };

/* What a layer's parameters are called in a state_dict; NULL: alpha, which is not in one. */
static const char *key_of(const char *parameter) {
  static const char *const keys[][2] = {{"weight", "weight"},     {"weight_bits", "weight"},   {"bias", "bias"},
                                        {"mean", "running_mean"}, {"variance", "running_var"}, {"gamma", "weight"},
                                        {"beta", "bias"}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!strcmp(keys[i][0], parameter)) return keys[i][1];
  return NULL;
}

struct draft {
  int count;
  struct hwgq_tensor tensors[MAX_TENSORS];
  char names[MAX_TENSORS][HWGQ_MAX_NAME + 32];
};

/* The shape that torch gives a weight, and its elements. */
static uint64_t weight_shape(const struct hwgq_network *network, const struct hwgq_layer *layer, struct hwgq_tensor *tensor) {
  uint64_t fan_in = hwgq_layer_fan_in(network, layer);
  bool conv = layer->op == HWGQ_CONV2D;
  tensor->rank = conv ? 4 : 2;
  tensor->extents[0] = (uint64_t)layer->out_channels;
  tensor->extents[1] = conv ? fan_in / (uint64_t)(layer->kernel_height * layer->kernel_width) : fan_in;
  tensor->extents[2] = (uint64_t)layer->kernel_height;
  tensor->extents[3] = (uint64_t)layer->kernel_width;
  return (uint64_t)layer->out_channels * fan_in;
}

static void add_layer(struct draft *draft, const struct hwgq_network *network, struct hwgq_layer *layer,
                      struct support_random *random) {
  struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
  int count = hwgq_layer_parameters(network, layer, parameters);
  for (int i = 0; i < count; i++) {
    const char *key = key_of(parameters[i].name);
    if (!key) continue;
    if (draft->count == MAX_TENSORS) abort();
    struct hwgq_tensor *tensor = &draft->tensors[draft->count];
    snprintf(draft->names[draft->count], sizeof draft->names[0], "%s.%s", layer->name, key);
    *tensor = (struct hwgq_tensor){.name = draft->names[draft->count++], .dtype = "F32", .rank = 1};
    uint64_t elements = tensor->extents[0] = (uint64_t)layer->output.channels;
    if ((layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR) && !strcmp(key, "weight"))
      elements = weight_shape(network, layer, tensor);
    float *values = malloc((size_t)elements * sizeof *values + 1);
    if (!values) abort();
    for (uint64_t j = 0; j < elements; j++) {
      values[j] = (float)support_random_normal(random);
      if (parameters[i].floats == &layer->variance) values[j] *= values[j];
    }
    tensor->data = values;
    tensor->bytes = elements * sizeof *values;
  }
}

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= 10) return false;
  struct support_random random = {(uint64_t)index + 500};
  struct hwgq_network *network = NULL;
  struct draft *draft = calloc(1, sizeof *draft);
  char *text = NULL;
  uint8_t *bytes = NULL;
  size_t length = 0;
  struct hwgq_model *model = support_random_model(&random);
  network = model->network;
  if (!draft || hwgq_network_to_json(network, &text, NULL)) abort();
  for (int i = 0; i < network->layer_count; i++) add_layer(draft, network, &network->layers[i], &random);
  const struct hwgq_metadata metadata[] = {{"network", text}, {"provenance", "{\"epochs\":3}"}};
  if (hwgq_safetensors_build(draft->tensors, draft->count, metadata, 2, &bytes, &length, NULL)) abort();
  fuzz_set(buffer, bytes, length);
  for (int i = 0; i < draft->count; i++) free((void *)draft->tensors[i].data);
  free(bytes);
  free(text);
  free(draft);
  hwgq_model_destroy(model);
  return true;
}

static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  uint64_t header_bytes = 0;
  if (buffer->length >= 8) memcpy(&header_bytes, buffer->bytes, 8);
  if (buffer->length < 8 || header_bytes > buffer->length - 8 || support_random_chance(random, 0.3)) {
    fuzz_mutate(random, buffer, other);
    return;
  }
  struct fuzz_buffer header = {0};
  fuzz_set(&header, buffer->bytes + 8, (size_t)header_bytes);
  fuzz_mutate(random, &header, other);
  fuzz_splice(buffer, 8, (size_t)header_bytes, header.bytes, header.length);
  header_bytes = header.length;
  memcpy(buffer->bytes, &header_bytes, 8);
  free(header.bytes);
}

static void ignore_note(void *context, const char *text) {
  *(size_t *)context += strlen(text);
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  size_t noted = 0, written_length = 0;
  uint8_t *written = NULL;
  const struct import_state_options options = {.note = ignore_note, .context = &noted};
  if (import_state(bytes, length, "fuzz", &options, &model, &error))
    return model ? "refused, but a model was made" : error.message[0] ? NULL : "refused without a message";
  *accepted = true;
  const char *wrong = hwgq_model_build(model, &written, &written_length, NULL) ? "what was imported cannot be written" : NULL;
  free(written);
  hwgq_model_destroy(model);
  return wrong;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {
      .name = "safetensors_import", .runs = 6000, .make_seed = make_seed, .mutate = mutate, .check = check};
  return fuzz_main(argc, argv, &target);
}
