/* The caffemodel: NetParameter { layers (V1) = 2; layer = 100 }, LayerParameter { name = 1; blobs = 7 }, V1LayerParameter
 * { name = 4; blobs = 6 }, BlobProto { num, channels, height, width = 1..4; data = 5; shape = 7 { dim = 1 }; double_data = 8 }.
 * Everything else in the file (types, parameters, gradients) repeats the prototxt or does not matter. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/import/caffe.h"
#include "models/import/protobuf.h"

static enum hwgq_status damaged(const char *where, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                   "caffemodel: %s is not a valid protobuf message: the file is damaged, cut short or not a caffemodel", where);
}

/* Counts the layer's blobs and finds its name. */
static enum hwgq_status parse_layer(const struct protobuf_field *message, struct caffemodel_layer *layer,
                                    struct hwgq_error *error) {
  bool v1 = message->number == 2;
  *layer = (struct caffemodel_layer){.bytes = message->bytes, .length = message->length, .blob_field = v1 ? 6 : 7};
  struct protobuf_reader reader = protobuf_open(message->bytes, message->length);
  struct protobuf_field field;
  enum protobuf_result result;
  while ((result = protobuf_next(&reader, &field)) == PROTOBUF_FIELD) {
    if (field.wire != PROTOBUF_BYTES) continue;
    if (field.number == (v1 ? 4u : 1u)) {
      layer->name = field.bytes;
      layer->name_length = field.length;
    } else if (field.number == layer->blob_field) {
      layer->blob_count++;
    }
  }
  return result == PROTOBUF_END ? HWGQ_OK : damaged("a layer", error);
}

static enum hwgq_status add_layer(struct caffemodel *model, const struct caffemodel_layer *layer, struct hwgq_error *error) {
  if (model->count == CAFFE_MAX_MODEL_LAYERS)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "caffemodel: more than %d layers with weights", CAFFE_MAX_MODEL_LAYERS);
  if (model->count == model->capacity) {
    int capacity = model->capacity ? 2 * model->capacity : 32;
    struct caffemodel_layer *layers = realloc(model->layers, (size_t)capacity * sizeof *layers);
    if (!layers) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "caffemodel: out of memory");
    model->layers = layers;
    model->capacity = capacity;
  }
  model->layers[model->count++] = *layer;
  return HWGQ_OK;
}

enum hwgq_status caffemodel_parse(const uint8_t *bytes, size_t length, struct caffemodel *model, struct hwgq_error *error) {
  *model = (struct caffemodel){0};
  if (length >= 4 && memcmp(bytes, "\x89HDF", 4) == 0)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "caffemodel: this is an HDF5 snapshot; save the net with snapshot_format: BINARYPROTO (the default)");
  struct protobuf_reader reader = protobuf_open(bytes, length);
  struct protobuf_field field;
  enum protobuf_result result;
  enum hwgq_status status = HWGQ_OK;
  while (!status && (result = protobuf_next(&reader, &field)) != PROTOBUF_END) {
    if (result == PROTOBUF_DAMAGED) {
      status = damaged("the file", error);
    } else if (field.wire == PROTOBUF_BYTES && (field.number == 100 || field.number == 2)) {
      struct caffemodel_layer layer;
      status = parse_layer(&field, &layer, error);
      if (!status && layer.blob_count > 0 && layer.name_length > 0) status = add_layer(model, &layer, error);
    }
  }
  if (!status && model->count == 0)
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT,
                       "caffemodel: no layer with weights in it: this is not a caffemodel, or one of an untrained net");
  if (status) caffemodel_release(model);
  return status;
}

void caffemodel_release(struct caffemodel *model) {
  free(model->layers);
  *model = (struct caffemodel){0};
}

struct caffemodel_layer *caffemodel_find(const struct caffemodel *model, const char *name) {
  size_t length = strlen(name);
  for (int i = 0; i < model->count; i++)
    if (model->layers[i].name_length == length && memcmp(model->layers[i].name, name, length) == 0) return &model->layers[i];
  return NULL;
}

/* Leading ones are dropped, so that shapes of old and new files compare equal. False: too many dimensions. */
static bool add_dim(struct caffe_blob *blob, uint64_t dim) {
  if (blob->dim_count == 0 && dim == 1) return true;
  if (blob->dim_count == CAFFE_MAX_DIMS || dim > INT32_MAX) return false;
  blob->dims[blob->dim_count++] = (int64_t)dim;
  return true;
}

static bool parse_shape(const struct protobuf_field *message, struct caffe_blob *blob) {
  struct protobuf_reader reader = protobuf_open(message->bytes, message->length);
  struct protobuf_field field;
  enum protobuf_result result;
  blob->dim_count = 0;
  while ((result = protobuf_next(&reader, &field)) == PROTOBUF_FIELD) {
    if (field.number != 1) continue;
    if (field.wire == PROTOBUF_VARINT && !add_dim(blob, field.value)) return false;
    if (field.wire != PROTOBUF_BYTES) continue;
    struct protobuf_reader packed = protobuf_open(field.bytes, field.length);
    uint64_t dim;
    while ((result = protobuf_varint(&packed, &dim)) == PROTOBUF_FIELD)
      if (!add_dim(blob, dim)) return false;
    if (result != PROTOBUF_END) return false;
  }
  return result == PROTOBUF_END;
}

/* Sizes and places only. False: not a blob that makes sense. */
static bool parse_blob(struct caffe_blob *blob) {
  struct protobuf_reader reader = protobuf_open(blob->bytes, blob->length);
  struct protobuf_field field;
  enum protobuf_result result;
  uint64_t floats = 0, doubles = 0, legacy[4] = {1, 1, 1, 1};
  bool shaped = false;
  while ((result = protobuf_next(&reader, &field)) == PROTOBUF_FIELD) {
    bool bytes = field.wire == PROTOBUF_BYTES;
    if (field.number >= 1 && field.number <= 4 && field.wire == PROTOBUF_VARINT) {
      legacy[field.number - 1] = field.value;
    } else if (field.number == 5) {
      if (bytes ? field.length % 4 != 0 : field.wire != PROTOBUF_FIXED32) return false;
      floats += bytes ? field.length / 4 : 1;
    } else if (field.number == 8) {
      if (bytes ? field.length % 8 != 0 : field.wire != PROTOBUF_FIXED64) return false;
      doubles += bytes ? field.length / 8 : 1;
    } else if (field.number == 7 && bytes) {
      if (!parse_shape(&field, blob)) return false;
      shaped = true;
    }
  }
  if (result != PROTOBUF_END || (floats && doubles)) return false;
  for (int i = 0; !shaped && i < 4; i++)
    if (!add_dim(blob, legacy[i])) return false;
  blob->count = floats + doubles;
  uint64_t product = 1;
  for (int i = 0; i < blob->dim_count; i++)
    if (__builtin_mul_overflow(product, (uint64_t)blob->dims[i], &product)) return false;
  return product == blob->count && blob->count > 0;
}

enum hwgq_status caffemodel_blob(const struct caffemodel_layer *layer, int index, const char *name, struct caffe_blob *blob,
                                 struct hwgq_error *error) {
  struct protobuf_reader reader = protobuf_open(layer->bytes, layer->length);
  struct protobuf_field field;
  int seen = 0;
  while (protobuf_next(&reader, &field) == PROTOBUF_FIELD) {
    if (field.number != layer->blob_field || field.wire != PROTOBUF_BYTES || seen++ != index) continue;
    *blob = (struct caffe_blob){.bytes = field.bytes, .length = field.length};
    if (parse_blob(blob)) return HWGQ_OK;
  }
  return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                   "caffemodel: blob %d of layer '%s' is damaged: its shape and its number of values do not agree", index,
                   name);
}

static float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* HUGE_VALF for what float32 cannot hold. */
static float float_from_double_bits(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return fabs(value) <= (double)FLT_MAX ? (float)value : HUGE_VALF;
}

static uint64_t little_endian(const uint8_t *bytes, int count) {
  uint64_t value = 0;
  for (int i = 0; i < count; i++) value |= (uint64_t)bytes[i] << 8 * i;
  return value;
}

enum hwgq_status caffemodel_read(const struct caffe_blob *blob, const char *name, float *values, struct hwgq_error *error) {
  struct protobuf_reader reader = protobuf_open(blob->bytes, blob->length);
  struct protobuf_field field;
  uint64_t at = 0;
  while (protobuf_next(&reader, &field) == PROTOBUF_FIELD) {
    if (field.number == 5 && field.wire == PROTOBUF_FIXED32)
      values[at++] = float_from_bits((uint32_t)field.value);
    else if (field.number == 8 && field.wire == PROTOBUF_FIXED64)
      values[at++] = float_from_double_bits(field.value);
    else if (field.number == 5)
      for (size_t i = 0; i < field.length; i += 4) values[at++] = float_from_bits((uint32_t)little_endian(field.bytes + i, 4));
    else if (field.number == 8)
      for (size_t i = 0; i < field.length; i += 8) values[at++] = float_from_double_bits(little_endian(field.bytes + i, 8));
  }
  for (uint64_t i = 0; i < at; i++)
    if (!isfinite(values[i]))
      return hwgq_fail(
          error, HWGQ_ERROR_FORMAT,
          "caffemodel: value %llu of a blob of layer '%s' is not a finite float32: training diverged, or the file is damaged",
          (unsigned long long)i, name);
  return HWGQ_OK;
}
