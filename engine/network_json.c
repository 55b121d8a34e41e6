/* The network description as JSON, as it stands in a .hwgq file's metadata. Parameters are not part of it.
 *
 *   {"name":"tiny","input":[3,8,8],"layers":[
 *     {"name":"conv1","op":"conv2d","inputs":["input"],"out_channels":64,"kernel":3,"pad":1},
 *     {"name":"bn1","op":"batch_norm","inputs":["conv1"]},
 *     {"name":"q1","op":"quantize","inputs":["bn1"],"centers":[0.538,1.076,1.614],"thresholds":[0,0.807,1.345]},
 *     {"name":"conv2","op":"conv2d","inputs":["q1"],"out_channels":64,"kernel":[3,1],"pad":[1,0],"binary":true,"alpha":true},
 *     {"name":"pool","op":"avg_pool","inputs":["conv2"],"global":true},
 *     {"name":"fc","op":"linear","inputs":["pool"],"out_channels":10,"bias":true},
 *     {"name":"prob","op":"softmax","inputs":["fc"]}]}
 *
 * "input" is [channels, height, width]. Layers stand in execution order; the last one is the network's output. "inputs" names
 * earlier layers, or "input". A key may be left out when it has its default; a key that the operation does not know is
 * refused. By operation:
 *   conv2d               out_channels, kernel 1, stride 1, pad 0, groups 1, binary false, alpha false, bias false,
 *                        float_pixels false (only on "input"; see struct hwgq_layer)
 *   linear               out_channels, binary false, alpha false, bias false
 *   quantize             sign false, or centers and thresholds, of equal length
 *   batch_norm           eps 1e-5
 *   scale                bias false
 *   max_pool, avg_pool   kernel 1, stride 1, pad 0; or global true
 *   add                  coefficients, all 1
 *   relu, concat, flatten, softmax take no more keys.
 * kernel, stride and pad are one number for both axes, or [height, width]. */
#include "engine/json.h"
#include "engine/parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)4 << 20)

#define COMMON_KEYS "name op inputs"
static const char *const layer_keys[HWGQ_OP_COUNT] = {
    [HWGQ_CONV2D] = COMMON_KEYS " out_channels kernel stride pad groups binary alpha bias float_pixels",
    [HWGQ_LINEAR] = COMMON_KEYS " out_channels binary alpha bias",
    [HWGQ_QUANTIZE] = COMMON_KEYS " sign centers thresholds",
    [HWGQ_BATCH_NORM] = COMMON_KEYS " eps",
    [HWGQ_SCALE] = COMMON_KEYS " bias",
    [HWGQ_RELU] = COMMON_KEYS,
    [HWGQ_MAX_POOL] = COMMON_KEYS " kernel stride pad global",
    [HWGQ_AVG_POOL] = COMMON_KEYS " kernel stride pad global",
    [HWGQ_ADD] = COMMON_KEYS " coefficients",
    [HWGQ_CONCAT] = COMMON_KEYS,
    [HWGQ_FLATTEN] = COMMON_KEYS,
    [HWGQ_SOFTMAX] = COMMON_KEYS,
};

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

/* jansson's setters return -1 when out of memory; `failed` collects that, and is looked at once at the end. */
static void set(json_t *object, const char *key, json_t *value, bool *failed) {
  if (json_object_set_new(object, key, value)) *failed = true;
}

static json_t *float_array(const float *values, int count, bool *failed) {
  json_t *array = json_array();
  for (int i = 0; i < count; i++)
    if (json_array_append_new(array, json_real((double)values[i]))) *failed = true;
  return array;
}

static void set_pair(json_t *object, const char *key, int height, int width, int absent, bool *failed) {
  if (height != width)
    set(object, key, json_pack("[ii]", height, width), failed);
  else if (height != absent)
    set(object, key, json_integer(height), failed);
}

static void set_true(json_t *object, const char *key, bool value, bool *failed) {
  if (value) set(object, key, json_true(), failed);
}

static void set_window(json_t *object, const struct hwgq_layer *layer, bool *failed) {
  set_pair(object, "kernel", layer->kernel_height, layer->kernel_width, 1, failed);
  set_pair(object, "stride", layer->stride_height, layer->stride_width, 1, failed);
  set_pair(object, "pad", layer->pad_height, layer->pad_width, 0, failed);
}

static void set_fields(json_t *object, const struct hwgq_layer *layer, bool *failed) {
  bool unit = true;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    set(object, "out_channels", json_integer(layer->out_channels), failed);
    if (layer->op == HWGQ_CONV2D) set_window(object, layer, failed);
    if (layer->op == HWGQ_CONV2D && layer->groups != 1) set(object, "groups", json_integer(layer->groups), failed);
    set_true(object, "binary", layer->binary, failed);
    set_true(object, "alpha", layer->has_alpha, failed);
    set_true(object, "bias", layer->has_bias, failed);
    set_true(object, "float_pixels", layer->float_pixels, failed);
    break;
  case HWGQ_QUANTIZE:
    set_true(object, "sign", layer->sign, failed);
    if (layer->sign) break;
    set(object, "centers", float_array(layer->centers, layer->level_count, failed), failed);
    set(object, "thresholds", float_array(layer->thresholds, layer->level_count, failed), failed);
    break;
  case HWGQ_BATCH_NORM:
    if (layer->eps != 1e-5f) set(object, "eps", json_real((double)layer->eps), failed);
    break;
  case HWGQ_SCALE:
    set_true(object, "bias", layer->has_bias, failed);
    break;
  case HWGQ_MAX_POOL:
  case HWGQ_AVG_POOL:
    set_true(object, "global", layer->global_pool, failed);
    if (!layer->global_pool) set_window(object, layer, failed);
    break;
  case HWGQ_ADD:
    for (int i = 0; i < layer->input_count; i++) unit = unit && layer->coefficients[i] == 1;
    if (!unit) set(object, "coefficients", float_array(layer->coefficients, layer->input_count, failed), failed);
    break;
  default:
    break;
  }
}

static json_t *layer_to_json(const struct hwgq_network *network, const struct hwgq_layer *layer, bool *failed) {
  json_t *object = json_object(), *inputs = json_array();
  for (int i = 0; i < layer->input_count; i++) {
    int source = layer->inputs[i];
    const char *name = source == HWGQ_NETWORK_INPUT ? "input" : network->layers[source].name;
    if (json_array_append_new(inputs, json_string(name))) *failed = true;
  }
  set(object, "name", json_string(layer->name), failed);
  set(object, "op", json_string(hwgq_op_name(layer->op)), failed);
  set(object, "inputs", inputs, failed);
  set_fields(object, layer, failed);
  return object;
}

enum hwgq_status hwgq_network_to_json(const struct hwgq_network *network, char **text, struct hwgq_error *error) {
  bool failed = false;
  json_t *root = json_object(), *layers = json_array();
  set(root, "name", json_string(network->name), &failed);
  set(root, "input", json_pack("[iii]", network->input.channels, network->input.height, network->input.width), &failed);
  for (int i = 0; i < network->layer_count; i++)
    if (json_array_append_new(layers, layer_to_json(network, &network->layers[i], &failed))) failed = true;
  set(root, "layers", layers, &failed);
  char *dumped = failed ? NULL : hwgq_json_text(root);
  json_decref(root);
  if (!dumped) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': out of memory for its JSON", network->name);
  *text = dumped;
  return HWGQ_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

/* One number, or [height, width]. The values' meaning is checked by hwgq_network_infer, their range here. */
static enum hwgq_status get_pair(const json_t *object, const char *key, const char *where, int *height, int *width,
                                 struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  const json_t *first = item, *second = item;
  if (json_is_array(item) && json_array_size(item) == 2) {
    first = json_array_get(item, 0);
    second = json_array_get(item, 1);
  }
  if (!json_is_integer(first) || !json_is_integer(second) || json_integer_value(first) < 0 || json_integer_value(second) < 0 ||
      json_integer_value(first) > HWGQ_MAX_KERNEL || json_integer_value(second) > HWGQ_MAX_KERNEL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be a whole number from 0 to %d, or [height, width]", where, key,
                     HWGQ_MAX_KERNEL);
  *height = (int)json_integer_value(first);
  *width = (int)json_integer_value(second);
  return HWGQ_OK;
}

static enum hwgq_status get_window(const json_t *object, const char *where, struct hwgq_layer *layer,
                                   struct hwgq_error *error) {
  enum hwgq_status status = get_pair(object, "kernel", where, &layer->kernel_height, &layer->kernel_width, error);
  if (!status) status = get_pair(object, "stride", where, &layer->stride_height, &layer->stride_width, error);
  if (!status) status = get_pair(object, "pad", where, &layer->pad_height, &layer->pad_width, error);
  return status;
}

static enum hwgq_status get_weights(const json_t *object, const char *where, struct hwgq_layer *layer,
                                    struct hwgq_error *error) {
  if (!json_object_get(object, "out_channels"))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'out_channels' is missing", where);
  enum hwgq_status status = hwgq_json_int(object, "out_channels", where, 1, HWGQ_MAX_DIMENSION, &layer->out_channels, error);
  if (!status) status = hwgq_json_int(object, "groups", where, 1, HWGQ_MAX_DIMENSION, &layer->groups, error);
  if (!status) status = hwgq_json_bool(object, "binary", where, &layer->binary, error);
  if (!status) status = hwgq_json_bool(object, "alpha", where, &layer->has_alpha, error);
  if (!status) status = hwgq_json_bool(object, "bias", where, &layer->has_bias, error);
  if (!status) status = hwgq_json_bool(object, "float_pixels", where, &layer->float_pixels, error);
  return status;
}

static enum hwgq_status get_quantizer(const json_t *object, const char *where, struct hwgq_layer *layer,
                                      struct hwgq_error *error) {
  int thresholds = 0;
  enum hwgq_status status = hwgq_json_bool(object, "sign", where, &layer->sign, error);
  if (!status)
    status = hwgq_json_floats(object, "centers", where, 1, HWGQ_MAX_LEVELS, layer->centers, &layer->level_count, error);
  if (!status)
    status = hwgq_json_floats(object, "thresholds", where, 1, HWGQ_MAX_LEVELS, layer->thresholds, &thresholds, error);
  if (status) return status;
  if (layer->sign && (layer->level_count || thresholds))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'sign' goes without 'centers' and 'thresholds'", where);
  if (!layer->sign && (layer->level_count == 0 || thresholds != layer->level_count))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: needs 'sign', or as many 'thresholds' as 'centers' (%d and %d given)",
                     where, thresholds, layer->level_count);
  return HWGQ_OK;
}

static enum hwgq_status get_pooling(const json_t *object, const char *where, struct hwgq_layer *layer,
                                    struct hwgq_error *error) {
  enum hwgq_status status = hwgq_json_bool(object, "global", where, &layer->global_pool, error);
  if (status) return status;
  if (layer->global_pool &&
      (json_object_get(object, "kernel") || json_object_get(object, "stride") || json_object_get(object, "pad")))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'global' goes without 'kernel', 'stride' and 'pad'", where);
  return get_window(object, where, layer, error);
}

static enum hwgq_status get_fields(const json_t *object, const char *where, struct hwgq_layer *layer,
                                   struct hwgq_error *error) {
  int count;
  enum hwgq_status status;
  switch (layer->op) {
  case HWGQ_CONV2D:
    status = get_weights(object, where, layer, error);
    return status ? status : get_window(object, where, layer, error);
  case HWGQ_LINEAR:
    return get_weights(object, where, layer, error);
  case HWGQ_QUANTIZE:
    return get_quantizer(object, where, layer, error);
  case HWGQ_BATCH_NORM:
    return hwgq_json_float(object, "eps", where, &layer->eps, error);
  case HWGQ_SCALE:
    return hwgq_json_bool(object, "bias", where, &layer->has_bias, error);
  case HWGQ_MAX_POOL:
  case HWGQ_AVG_POOL:
    return get_pooling(object, where, layer, error);
  case HWGQ_ADD:
    return hwgq_json_floats(object, "coefficients", where, layer->input_count, layer->input_count, layer->coefficients, &count,
                            error);
  default:
    return HWGQ_OK;
  }
}

static enum hwgq_status get_op(const json_t *object, const char *where, enum hwgq_op *op, struct hwgq_error *error) {
  const char *name = NULL;
  enum hwgq_status status = hwgq_json_string(object, "op", where, &name, error);
  if (status) return status;
  if (!name) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'op' is missing", where);
  for (int i = 0; i < HWGQ_OP_COUNT; i++)
    if (strcmp(name, hwgq_op_name((enum hwgq_op)i)) == 0) {
      *op = (enum hwgq_op)i;
      return HWGQ_OK;
    }
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: unknown operation '%.32s'", where, name);
}

/* Names of the inputs, borrowed from the JSON value. */
static enum hwgq_status get_inputs(const json_t *object, const char *where, const char **names, int *count,
                                   struct hwgq_error *error) {
  const json_t *array = json_object_get(object, "inputs");
  size_t length = json_array_size(array);
  if (length < 1 || length > HWGQ_MAX_INPUTS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'inputs' must be an array of 1 to %d names", where, HWGQ_MAX_INPUTS);
  for (size_t i = 0; i < length; i++) {
    names[i] = json_string_value(json_array_get(array, i));
    if (!names[i]) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'inputs' element %zu must be a string", where, i);
  }
  *count = (int)length;
  return HWGQ_OK;
}

static enum hwgq_status add_layer(struct hwgq_network *network, const json_t *object, struct hwgq_error *error) {
  char where[HWGQ_MAX_NAME + 16];
  const char *name, *inputs[HWGQ_MAX_INPUTS];
  int input_count = 0;
  enum hwgq_op op = HWGQ_OP_COUNT;
  struct hwgq_layer *layer = NULL;

  snprintf(where, sizeof where, "layer number %d", network->layer_count);
  if (!json_is_object(object)) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: must be a JSON object", where);
  name = json_string_value(json_object_get(object, "name"));
  if (!name) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: 'name' must be a string", where);
  enum hwgq_status status = hwgq_check_name("layer name", name, error);
  if (status) return status;
  snprintf(where, sizeof where, "layer '%s'", name);
  status = get_op(object, where, &op, error);
  if (!status) status = hwgq_json_check_keys(object, layer_keys[op], where, error);
  if (!status) status = get_inputs(object, where, inputs, &input_count, error);
  if (!status) status = hwgq_network_add(network, name, op, input_count, inputs, &layer, error);
  return status ? status : get_fields(object, where, layer, error);
}

static enum hwgq_status get_shape(const json_t *root, struct hwgq_shape *shape, struct hwgq_error *error) {
  const json_t *array = json_object_get(root, "input");
  int *fields[3] = {&shape->channels, &shape->height, &shape->width};
  for (size_t i = 0; i < 3; i++) {
    const json_t *item = json_array_get(array, i);
    if (json_array_size(array) != 3 || !json_is_integer(item) || json_integer_value(item) < 1 ||
        json_integer_value(item) > HWGQ_MAX_DIMENSION)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "network: 'input' must be [channels, height, width], each 1 to %d",
                       HWGQ_MAX_DIMENSION);
    *fields[i] = (int)json_integer_value(item);
  }
  return HWGQ_OK;
}

static enum hwgq_status build(const json_t *root, struct hwgq_network **network, struct hwgq_error *error) {
  struct hwgq_shape input = {0};
  const char *name = json_string_value(json_object_get(root, "name"));
  const json_t *layers = json_object_get(root, "layers");
  enum hwgq_status status = hwgq_json_check_keys(root, "name input layers", "network", error);
  if (status) return status;
  if (!name) return hwgq_fail(error, HWGQ_ERROR_INVALID, "network: 'name' must be a string");
  if (!json_is_array(layers)) return hwgq_fail(error, HWGQ_ERROR_INVALID, "network: 'layers' must be an array");
  status = get_shape(root, &input, error);
  struct hwgq_network *built = NULL;
  if (!status) status = hwgq_network_create(name, input, &built, error);
  for (size_t i = 0; !status && i < json_array_size(layers); i++) status = add_layer(built, json_array_get(layers, i), error);
  if (!status) status = hwgq_network_infer(built, error);
  if (status)
    hwgq_network_destroy(built);
  else
    *network = built;
  return status;
}

enum hwgq_status hwgq_network_from_json(const char *text, size_t length, struct hwgq_network **network,
                                        struct hwgq_error *error) {
  if (length > MAX_TEXT)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "network: its JSON has %zu bytes, at most %zu are allowed", length, MAX_TEXT);
  json_t *root = NULL;
  enum hwgq_status status = hwgq_json_parse_object(text, length, "network", &root, error);
  if (status) return status;
  status = build(root, network, error);
  json_decref(root);
  return status;
}
