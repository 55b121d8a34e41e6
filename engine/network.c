/* Building a network description: layers, names, parameter arrays. Checks and shapes are in network_infer.c, the JSON form in
 * network_json.c. */
#include "engine/hwgq.h"
#include "engine/parameters.h"

#include <stdlib.h>
#include <string.h>

const char *hwgq_op_name(enum hwgq_op op) {
  switch (op) {
  case HWGQ_CONV2D:
    return "conv2d";
  case HWGQ_LINEAR:
    return "linear";
  case HWGQ_QUANTIZE:
    return "quantize";
  case HWGQ_BATCH_NORM:
    return "batch_norm";
  case HWGQ_SCALE:
    return "scale";
  case HWGQ_RELU:
    return "relu";
  case HWGQ_MAX_POOL:
    return "max_pool";
  case HWGQ_AVG_POOL:
    return "avg_pool";
  case HWGQ_ADD:
    return "add";
  case HWGQ_CONCAT:
    return "concat";
  case HWGQ_FLATTEN:
    return "flatten";
  case HWGQ_SOFTMAX:
    return "softmax";
  case HWGQ_OP_COUNT:
    break;
  }
  return "unknown";
}

enum hwgq_status hwgq_check_name(const char *what, const char *name, struct hwgq_error *error) {
  size_t length = strnlen(name, HWGQ_MAX_NAME + 1);
  if (length == 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s is empty: give it 1 to %d characters", what, HWGQ_MAX_NAME);
  if (length > HWGQ_MAX_NAME)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s '%.*s...' is longer than %d characters: shorten it", what, HWGQ_MAX_NAME,
                     name, HWGQ_MAX_NAME);
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)name[i];
    if (c < 0x20 || c > 0x7e)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has byte 0x%02x at position %zu: only printable ASCII is allowed", what,
                       c, i);
    if (c == '/')
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s '%s' contains '/': use another character, for example '.'", what, name);
  }
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_create(const char *name, struct hwgq_shape input, struct hwgq_network **network,
                                     struct hwgq_error *error) {
  enum hwgq_status status = hwgq_check_name("network name", name, error);
  if (status) return status;
  struct hwgq_network *created = calloc(1, sizeof *created);
  char *copy = strdup(name);
  if (!created || !copy) {
    free(created);
    free(copy);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': out of memory", name);
  }
  created->name = copy;
  created->input = input;
  *network = created;
  return HWGQ_OK;
}

void hwgq_network_release_parameters(struct hwgq_network *network) {
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    float **arrays[] = {&layer->weight,   &layer->alpha, &layer->bias, &layer->mean,
                        &layer->variance, &layer->gamma, &layer->beta};
    for (size_t a = 0; a < sizeof arrays / sizeof *arrays; a++) {
      free(*arrays[a]);
      *arrays[a] = NULL;
    }
    free(layer->weight_bits);
    layer->weight_bits = NULL;
  }
}

void hwgq_network_destroy(struct hwgq_network *network) {
  if (!network) return;
  hwgq_network_release_parameters(network);
  for (int i = 0; i < network->layer_count; i++) free(network->layers[i].name);
  free(network->layers);
  free(network->name);
  free(network);
}

int hwgq_network_find(const struct hwgq_network *network, const char *name) {
  if (strcmp(name, "input") == 0) return HWGQ_NETWORK_INPUT;
  for (int i = 0; i < network->layer_count; i++)
    if (strcmp(network->layers[i].name, name) == 0) return i;
  return -2;
}

/* Room for one more layer. The capacity is not stored: it is the smallest power of two that holds layer_count, so the array
 * is full exactly when layer_count is 0 or a power of two. */
static enum hwgq_status reserve_layer(struct hwgq_network *network, struct hwgq_error *error) {
  int count = network->layer_count;
  if (count >= HWGQ_MAX_LAYERS)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "network '%s' has more than %d layers", network->name, HWGQ_MAX_LAYERS);
  if (count & (count - 1)) return HWGQ_OK;
  size_t capacity = count ? 2 * (size_t)count : 1;
  struct hwgq_layer *layers = realloc(network->layers, capacity * sizeof *layers);
  if (!layers) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': out of memory for layers", network->name);
  network->layers = layers;
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_add(struct hwgq_network *network, const char *name, enum hwgq_op op, int input_count,
                                  const char *const *inputs, struct hwgq_layer **layer, struct hwgq_error *error) {
  enum hwgq_status status = hwgq_check_name("layer name", name, error);
  if (status) return status;
  if (strcmp(name, "input") == 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer name 'input' stands for the network's input: choose another");
  if (hwgq_network_find(network, name) != -2)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s' exists already: names must be unique", name);
  if ((unsigned)op >= HWGQ_OP_COUNT)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': operation %d does not exist", name, (int)op);
  if (input_count < 1 || input_count > HWGQ_MAX_INPUTS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': %d inputs, must be 1 to %d", name, input_count, HWGQ_MAX_INPUTS);

  struct hwgq_layer added = {.op = op,
                             .input_count = input_count,
                             .kernel_height = 1,
                             .kernel_width = 1,
                             .stride_height = 1,
                             .stride_width = 1,
                             .groups = 1,
                             .eps = 1e-5f};
  for (int i = 0; i < HWGQ_MAX_INPUTS; i++) added.coefficients[i] = 1;
  for (int i = 0; i < input_count; i++) {
    added.inputs[i] = hwgq_network_find(network, inputs[i]);
    if (added.inputs[i] == -2)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': its input '%.*s' is not an earlier layer", name, HWGQ_MAX_NAME,
                       inputs[i]);
  }
  status = reserve_layer(network, error);
  if (status) return status;
  added.name = strdup(name);
  if (!added.name) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "layer '%s': out of memory", name);
  network->layers[network->layer_count] = added;
  if (layer) *layer = &network->layers[network->layer_count];
  network->layer_count++;
  return HWGQ_OK;
}

struct hwgq_shape hwgq_network_input_shape(const struct hwgq_network *network, const struct hwgq_layer *layer, int i) {
  int source = layer->inputs[i];
  return source == HWGQ_NETWORK_INPUT ? network->input : network->layers[source].output;
}

uint64_t hwgq_layer_fan_in(const struct hwgq_network *network, const struct hwgq_layer *layer) {
  struct hwgq_shape in = hwgq_network_input_shape(network, layer, 0);
  if (layer->op == HWGQ_LINEAR) return hwgq_shape_elements(in);
  return (uint64_t)(in.channels / layer->groups) * (uint64_t)layer->kernel_height * (uint64_t)layer->kernel_width;
}

uint64_t hwgq_layer_macs(const struct hwgq_network *network, const struct hwgq_layer *layer) {
  if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) return 0;
  return hwgq_shape_elements(layer->output) * hwgq_layer_fan_in(network, layer);
}
