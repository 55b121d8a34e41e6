#include "models/verify/golden.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/parameters.h"
#include "engine/storage.h"
#include "models/data/index.h"
#include "models/import/import.h"
#include "models/verify/verify.h"

enum { MAX_INDEX_BYTES = 16 << 20, MAX_BLOB_VALUES = 1 << 28 };

/* ---- the index ----------------------------------------------------------------------------------------------------------- */

static enum hwgq_status out_of_memory(const char *folder, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", folder);
}

static enum hwgq_status read_shape(const json_t *shape, const char *where, size_t *count, struct hwgq_error *error) {
  size_t i;
  json_t *extent;
  uint64_t product = 1;
  json_array_foreach(shape, i, extent) {
    const json_int_t value = json_integer_value(extent);
    if (value < 1 || value > MAX_BLOB_VALUES || product * (uint64_t)value > MAX_BLOB_VALUES)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: a shape is positive numbers with a product of at most %d", where,
                       MAX_BLOB_VALUES);
    product *= (uint64_t)value;
  }
  if (i == 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: \"shape\" must be a list of numbers", where);
  *count = (size_t)product;
  return HWGQ_OK;
}

/* One entry; its strings stay in the index. */
static enum hwgq_status read_entry(const char *folder, const json_t *entry, size_t number, struct golden_blob *blob,
                                   const char **kind, struct hwgq_error *error) {
  const char *layer = json_string_value(json_object_get(entry, "layer"));
  const char *type = json_string_value(json_object_get(entry, "type"));
  const char *dtype = json_string_value(json_object_get(entry, "dtype"));
  char where[256];
  snprintf(where, sizeof where, "%.200s/index.json: blob %zu", folder, number);
  *kind = json_string_value(json_object_get(entry, "kind"));
  blob->file = json_string_value(json_object_get(entry, "file"));
  if (!layer || !*kind || !blob->file)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: \"file\", \"layer\" and \"kind\" must be strings", where);
  if (strchr(blob->file, '/') || blob->file[0] == '.')
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: file '%.80s' is not a name within the folder", where, blob->file);
  if (dtype && strcmp(dtype, "float32") != 0)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "%s: values are of type '%.20s'; float32 is read", where, dtype);
  blob->codes = strcmp(*kind, "codes") == 0;
  blob->identity = type && (!strcmp(type, "Dropout") || !strcmp(type, "Split"));
  blob->layer = strdup(layer);
  if (!blob->layer) return out_of_memory(folder, error);
  for (char *c = blob->layer; *c; c++) *c = *c == '/' ? '.' : *c;
  return read_shape(json_object_get(entry, "shape"), where, &blob->count, error);
}

static enum hwgq_status read_values(const struct golden *golden, const struct golden_blob *blob, float **values,
                                    struct hwgq_error *error) {
  char *path = dataset_join(golden->folder, blob->file);
  uint8_t *bytes = NULL;
  size_t length = 0;
  if (!path) return out_of_memory(golden->folder, error);
  enum hwgq_status status = hwgq_storage_read(path, blob->count * sizeof(float), &bytes, &length, error);
  if (!status && length != blob->count * sizeof(float)) {
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: %zu bytes, but the index's shape has %zu float32 values", path, length,
                       blob->count);
    free(bytes);
  }
  free(path);
  if (!status) *values = (float *)(void *)bytes;
  return status;
}

static void read_top(struct golden *golden, const json_t *top) {
  size_t i;
  json_t *entry;
  json_array_foreach(top, i, entry) {
    const json_t *class_index = json_array_get(entry, 0), *probability = json_array_get(entry, 1);
    if (i == GOLDEN_TOP || !json_is_integer(class_index) || !json_is_number(probability)) break;
    const json_int_t value = json_integer_value(class_index);
    if (value < 0 || value >= HWGQ_MAX_CLASSES) break;
    golden->top[golden->top_count++] = (struct hwgq_prediction){(int)value, (float)json_number_value(probability)};
  }
}

static enum hwgq_status read_index(struct golden *golden, const json_t *index, struct hwgq_error *error) {
  const json_t *blobs = json_object_get(index, "blobs");
  const size_t count = json_array_size(blobs);
  struct golden_blob input = {0};
  const char *kind;
  if (count < 2 || count > GOLDEN_MAX_BLOBS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/index.json: \"blobs\" must be a list of 2 to %d blobs", golden->folder,
                     GOLDEN_MAX_BLOBS);
  golden->blobs = calloc(count, sizeof *golden->blobs);
  if (!golden->blobs) return out_of_memory(golden->folder, error);
  enum hwgq_status status = read_entry(golden->folder, json_array_get(blobs, 0), 0, &input, &kind, error);
  if (!status && strcmp(kind, "input") != 0)
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/index.json: the first blob must be of kind \"input\"", golden->folder);
  if (!status) status = read_values(golden, &input, &golden->input, error);
  free(input.layer);
  golden->input_count = input.count;
  for (size_t i = 1; i < count && !status; i++) {
    status = read_entry(golden->folder, json_array_get(blobs, i), i, &golden->blobs[golden->blob_count++], &kind, error);
  }
  if (!status) read_top(golden, json_object_get(index, "top5"));
  return status;
}

enum hwgq_status golden_open(const char *folder, struct golden **golden, struct hwgq_error *error) {
  struct golden *opened = calloc(1, sizeof *opened);
  char *path = dataset_join(folder, "index.json");
  uint8_t *text = NULL;
  size_t length = 0;
  json_t *index = NULL;
  enum hwgq_status status = HWGQ_OK;
  if (!opened || !path || !(opened->folder = strdup(folder))) status = out_of_memory(folder, error);
  if (!status) status = hwgq_storage_read(path, MAX_INDEX_BYTES, &text, &length, error);
  if (!status) status = hwgq_json_parse_object((const char *)text, length, path, &index, error);
  free(text);
  free(path);
  if (opened) opened->index = index;
  if (!status) status = read_index(opened, index, error);
  if (status) {
    golden_close(opened);
    return status;
  }
  *golden = opened;
  return HWGQ_OK;
}

void golden_close(struct golden *golden) {
  if (!golden) return;
  for (int i = 0; i < golden->blob_count; i++) free(golden->blobs[i].layer);
  free(golden->blobs);
  free(golden->input);
  free(golden->folder);
  json_decref(golden->index);
  free(golden);
}

/* ---- blobs --------------------------------------------------------------------------------------------------------------- */

const struct golden_blob *golden_find(const struct golden *golden, const char *layer) {
  for (int i = 0; i < golden->blob_count; i++) {
    if (strcmp(golden->blobs[i].layer, layer) == 0) return &golden->blobs[i];
  }
  return NULL;
}

enum hwgq_status golden_read(const struct golden *golden, const struct golden_blob *blob, const struct hwgq_layer *layer,
                             double *values, struct hwgq_error *error) {
  const int codes = layer->sign ? 2 : layer->level_count + 1;
  float *recorded = NULL;
  if (blob->count != hwgq_shape_elements(layer->output))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/%s: %zu values, but layer '%s' has %d x %d x %d outputs", golden->folder,
                     blob->file, blob->count, layer->name, layer->output.channels, layer->output.height, layer->output.width);
  if (blob->codes != (layer->op == HWGQ_QUANTIZE))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/%s: layer '%s' is %sa quantizer, but its blob has %s", golden->folder,
                     blob->file, layer->name, blob->codes ? "not " : "", blob->codes ? "codes" : "no codes");
  enum hwgq_status status = read_values(golden, blob, &recorded, error);
  for (size_t i = 0; i < blob->count && !status; i++) {
    const float value = recorded[i];
    if (!blob->codes) {
      values[i] = (double)value;
    } else if (value >= 0 && value < (float)codes && value == floorf(value)) {
      values[i] = verify_code_value(layer, (int)value);
    } else {
      status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s/%s: value %zu of layer '%s' is %.9g, not a code from 0 to %d",
                         golden->folder, blob->file, i, layer->name, (double)value, codes - 1);
    }
  }
  free(recorded);
  return status;
}

enum hwgq_status golden_import(const char *folder, const char *weights, struct hwgq_model **model, struct hwgq_error *error) {
  char *path = dataset_join(folder, "model.prototxt");
  uint8_t *prototxt = NULL, *caffemodel = NULL;
  size_t prototxt_length = 0, caffemodel_length = 0;
  if (!path) return out_of_memory(folder, error);
  enum hwgq_status status = hwgq_storage_read(path, IMPORT_MAX_PROTOTXT, &prototxt, &prototxt_length, error);
  if (!status) status = hwgq_storage_read(weights, IMPORT_MAX_CAFFEMODEL, &caffemodel, &caffemodel_length, error);
  if (!status) {
    struct import_options options = IMPORT_OPTIONS_DEFAULT;
    options.prototxt_name = path;
    options.caffemodel_name = weights;
    status = import_caffe((const char *)prototxt, prototxt_length, caffemodel, caffemodel_length, &options, model, error);
  }
  free(caffemodel);
  free(prototxt);
  free(path);
  return status;
}
