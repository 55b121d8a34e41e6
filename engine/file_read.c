/* Reading a .hwgq file: nothing is trusted before it is checked, and nothing is allocated that the file's size does not bound.
 * The format is described in file.c. */
#include "engine/file.h"
#include "engine/json.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/storage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum hwgq_status hwgq_model_parse_preprocess(const char *text, struct hwgq_preprocess *preprocess, struct hwgq_error *error) {
  const char *where = "preprocess", *order = NULL;
  int means = 0, scales = 0, channels;
  json_t *object = NULL;
  enum hwgq_status status = hwgq_json_parse_object(text, strlen(text), where, &object, error);
  if (!status) status = hwgq_json_check_keys(object, "order resize invert mean scale", where, error);
  if (!status) status = hwgq_json_string(object, "order", where, &order, error);
  if (!status) status = hwgq_json_int(object, "resize", where, 0, HWGQ_MODEL_MAX_RESIZE, &preprocess->resize, error);
  if (!status) status = hwgq_json_bool(object, "invert", where, &preprocess->invert, error);
  if (!status) status = hwgq_json_floats(object, "mean", where, 1, 3, preprocess->mean, &means, error);
  if (!status) status = hwgq_json_floats(object, "scale", where, 1, 3, preprocess->scale, &scales, error);
  if (!status) {
    int found = 0;
    while (found < HWGQ_CHANNEL_ORDERS && (!order || strcmp(order, hwgq_channel_order_names[found]))) found++;
    preprocess->order = (enum hwgq_channel_order)found;
    channels = found == HWGQ_GRAY ? 1 : 3;
    if (found == HWGQ_CHANNEL_ORDERS)
      status = hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: 'order' must be \"rgb\", \"bgr\" or \"gray\"");
    else if (means != channels || scales != channels)
      status = hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: order '%s' needs 'mean' and 'scale' of %d numbers", order,
                         channels);
  }
  json_decref(object);
  return status;
}

static enum hwgq_status copy_labels(const json_t *array, struct hwgq_model *model, struct hwgq_error *error) {
  size_t count = json_array_size(array); /* 0 when it is no array */
  if (count < 1 || count > HWGQ_MAX_CLASSES)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "labels: must be a JSON array of 1 to %d strings", HWGQ_MAX_CLASSES);
  model->labels = calloc(count, sizeof model->labels[0]);
  if (!model->labels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "labels: out of memory");
  model->class_count = (int)count;
  for (size_t i = 0; i < count; i++) {
    const char *label = json_string_value(json_array_get(array, i));
    if (!label) return hwgq_fail(error, HWGQ_ERROR_INVALID, "labels: label %zu must be a string", i);
    model->labels[i] = strdup(label);
    if (!model->labels[i]) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "labels: out of memory");
  }
  return HWGQ_OK;
}

enum hwgq_status hwgq_model_parse_labels(const char *text, struct hwgq_model *model, struct hwgq_error *error) {
  json_error_t details;
  json_t *array = json_loads(text, 0, &details);
  if (!array)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "labels: not valid JSON, line %d column %d: %s", details.line, details.column,
                     details.text);
  enum hwgq_status status = copy_labels(array, model, error);
  json_decref(array);
  return status;
}

static enum hwgq_status check_metadata(const struct hwgq_safetensors *file, struct hwgq_error *error) {
  const char *format = hwgq_safetensors_text(file, "format"), *version = hwgq_safetensors_text(file, "format_version");
  if (!format || strcmp(format, "hwgq"))
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a safetensors file, but its metadata does not say \"format\": \"hwgq\"");
  if (!version || strcmp(version, "1"))
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "format_version is '%.16s', this program reads version 1",
                     version ? version : "missing");
  for (int i = 0; i < HWGQ_MODEL_METADATA; i++)
    if (!hwgq_safetensors_text(file, hwgq_model_metadata[i]))
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "metadata '%s' is missing", hwgq_model_metadata[i]);
  for (int i = 0; i < file->metadata_count; i++) {
    int known = 0;
    while (known < HWGQ_MODEL_METADATA && strcmp(file->metadata[i].key, hwgq_model_metadata[known])) known++;
    if (known == HWGQ_MODEL_METADATA)
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "metadata '%.64s' is not known in format version 1", file->metadata[i].key);
  }
  return HWGQ_OK;
}

static enum hwgq_status check_digest(const struct hwgq_safetensors *file, struct hwgq_model *model, struct hwgq_error *error) {
  const char *stated = hwgq_safetensors_text(file, "digest");
  /* The tensors cover all of the data, in this order. */
  enum hwgq_status status = hwgq_model_digest(file->tensors, file->tensor_count, model->digest, error);
  if (status) return status;
  if (strcmp(stated, model->digest))
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the data's digest is %s, the file says %.40s: the file is damaged",
                     model->digest, stated);
  return HWGQ_OK;
}

static enum hwgq_status check_tensor(const struct hwgq_tensor *tensor, const struct hwgq_parameter *parameter,
                                     struct hwgq_error *error) {
  const char *dtype = parameter->bits ? "U8" : "F32";
  if (strcmp(tensor->dtype, dtype))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "tensor '%s': dtype is %.16s, must be %s", tensor->name, tensor->dtype, dtype);
  if (tensor->rank != parameter->rank)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "tensor '%s': has %d dimensions, must have %d", tensor->name, tensor->rank,
                     parameter->rank);
  for (int i = 0; i < parameter->rank; i++)
    if (tensor->extents[i] != parameter->extents[i])
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "tensor '%s': dimension %d is %llu, the network needs %llu", tensor->name, i,
                       (unsigned long long)tensor->extents[i], (unsigned long long)parameter->extents[i]);
  return HWGQ_OK;
}

/* Order for finding tensors by name in networks of a thousand layers. */
static int compare_names(const void *left, const void *right) {
  return strcmp((*(const struct hwgq_tensor *const *)left)->name, (*(const struct hwgq_tensor *const *)right)->name);
}

static enum hwgq_status copy_tensor(const struct hwgq_tensor *tensor, const struct hwgq_parameter *parameter,
                                    struct hwgq_error *error) {
  enum hwgq_status status = check_tensor(tensor, parameter, error);
  if (status) return status;
  void *data = malloc((size_t)tensor->bytes);
  if (!data)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "tensor '%s': out of memory for %llu bytes", tensor->name,
                     (unsigned long long)tensor->bytes);
  memcpy(data, tensor->data, (size_t)tensor->bytes);
  if (parameter->bits)
    *parameter->bits = data;
  else
    *parameter->floats = data;
  return HWGQ_OK;
}

/* The file's tensors by name, and which of them a layer has taken. */
struct directory {
  int count;
  const struct hwgq_tensor **sorted;
  bool *taken;
};

/* Every array of the network is copied from its tensor; the file's size bounds what is allocated. */
static enum hwgq_status copy_layer(struct directory *directory, struct hwgq_network *network, struct hwgq_layer *layer,
                                   struct hwgq_error *error) {
  struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
  int count = hwgq_layer_parameters(network, layer, parameters);
  for (int i = 0; i < count; i++) {
    char name[HWGQ_MAX_NAME + 32];
    snprintf(name, sizeof name, "%s.%s", layer->name, parameters[i].name);
    const struct hwgq_tensor wanted = {.name = name}, *key = &wanted, **found = NULL;
    if (directory->count)
      found = bsearch(&key, directory->sorted, (size_t)directory->count, sizeof directory->sorted[0], compare_names);
    if (!found) return hwgq_fail(error, HWGQ_ERROR_INVALID, "tensor '%s' is missing", name);
    enum hwgq_status status = copy_tensor(*found, &parameters[i], error);
    if (status) return status;
    directory->taken[found - directory->sorted] = true;
  }
  return HWGQ_OK;
}

static enum hwgq_status copy_tensors(const struct hwgq_safetensors *file, struct directory *directory,
                                     struct hwgq_network *network, struct hwgq_error *error) {
  for (int i = 0; i < file->tensor_count; i++) directory->sorted[i] = &file->tensors[i];
  if (directory->count) qsort(directory->sorted, (size_t)directory->count, sizeof directory->sorted[0], compare_names);
  for (int i = 0; i < network->layer_count; i++) {
    enum hwgq_status status = copy_layer(directory, network, &network->layers[i], error);
    if (status) return status;
  }
  for (int i = 0; i < directory->count; i++)
    if (!directory->taken[i])
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "tensor '%.100s' belongs to no layer of the network",
                       directory->sorted[i]->name);
  return hwgq_network_check_parameters(network, error);
}

static enum hwgq_status load_parameters(const struct hwgq_safetensors *file, struct hwgq_network *network,
                                        struct hwgq_error *error) {
  size_t room = (size_t)file->tensor_count + 1;
  struct directory directory = {file->tensor_count, calloc(room, sizeof *directory.sorted),
                                calloc(room, sizeof *directory.taken)};
  enum hwgq_status status = directory.sorted && directory.taken ? copy_tensors(file, &directory, network, error)
                                                                : hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  free(directory.sorted);
  free(directory.taken);
  return status;
}

static enum hwgq_status load(const struct hwgq_safetensors *file, struct hwgq_model *model, struct hwgq_error *error) {
  enum hwgq_status status = check_metadata(file, error);
  if (status) return status;
  const char *network = hwgq_safetensors_text(file, "network");
  model->provenance = strdup(hwgq_safetensors_text(file, "provenance"));
  if (!model->provenance) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  status = check_digest(file, model, error);
  if (!status) status = hwgq_network_from_json(network, strlen(network), &model->network, error);
  if (!status) status = hwgq_model_parse_preprocess(hwgq_safetensors_text(file, "preprocess"), &model->preprocess, error);
  if (!status) status = hwgq_model_parse_labels(hwgq_safetensors_text(file, "labels"), model, error);
  if (!status) status = hwgq_model_check(model, error);
  if (!status) status = load_parameters(file, model->network, error);
  return status;
}

enum hwgq_status hwgq_model_parse(const void *bytes, size_t length, const char *what, struct hwgq_model **model,
                                  struct hwgq_error *error) {
  struct hwgq_safetensors *file = NULL;
  struct hwgq_error inner = {{0}};
  if (length > HWGQ_MODEL_MAX_FILE)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: has %zu bytes, at most %llu are allowed", hwgq_storage_label(what), length,
                     (unsigned long long)HWGQ_MODEL_MAX_FILE);
  enum hwgq_status status = hwgq_safetensors_parse(bytes, length, what, &file, error);
  if (status) return status;
  struct hwgq_model *loaded = calloc(1, sizeof *loaded);
  status = loaded ? load(file, loaded, &inner) : hwgq_fail(&inner, HWGQ_ERROR_MEMORY, "out of memory");
  hwgq_safetensors_destroy(file);
  if (status) {
    hwgq_model_destroy(loaded);
    return hwgq_fail(error, status, "%s: %s", hwgq_storage_label(what), inner.message);
  }
  loaded->file_bytes = length;
  *model = loaded;
  return HWGQ_OK;
}

enum hwgq_status hwgq_model_read(const char *path, struct hwgq_model **model, struct hwgq_error *error) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  enum hwgq_status status = hwgq_storage_read(path, HWGQ_MODEL_MAX_FILE, &bytes, &length, error);
  if (status) return status;
  status = hwgq_model_parse(bytes, length, path, model, error);
  free(bytes);
  return status;
}
