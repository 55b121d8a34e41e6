/* The safetensors container, read and written. */
#include "engine/safetensors.h"
#include "engine/json.h"
#include "engine/storage.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "tensors are little-endian in files and are used as they are");

#define ALIGNMENT 64u
#define METADATA_KEY "__metadata__"

/* Bytes per element; 0 for a type that is not known. */
static uint64_t dtype_bytes(const char *dtype) {
  static const struct {
    const char *name;
    uint64_t bytes;
  } known[] = {{"F32", 4}, {"U8", 1},   {"F64", 8}, {"I64", 8}, {"U64", 8}, {"I32", 4}, {"U32", 4},
               {"F16", 2}, {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"BOOL", 1}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, dtype) == 0) return known[i].bytes;
  return 0;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

/* Where errors are reported: the label of the bytes. */
struct context {
  const char *what;
  struct hwgq_error *error;
};

#define FORMAT(context, ...) hwgq_fail((context)->error, HWGQ_ERROR_FORMAT, __VA_ARGS__)

static enum hwgq_status parse_shape(const struct context *context, const json_t *shape, struct hwgq_tensor *tensor,
                                    uint64_t *elements) {
  size_t rank = json_array_size(shape);
  if (!json_is_array(shape) || rank > HWGQ_TENSOR_MAX_RANK)
    return FORMAT(context, "%s: tensor '%.100s': shape must be an array of at most %d numbers", context->what, tensor->name,
                  HWGQ_TENSOR_MAX_RANK);
  *elements = 1;
  for (size_t i = 0; i < rank; i++) {
    const json_t *item = json_array_get(shape, i);
    if (!json_is_integer(item) || json_integer_value(item) < 0)
      return FORMAT(context, "%s: tensor '%.100s': shape element %zu must be a whole number, 0 or more", context->what,
                    tensor->name, i);
    tensor->extents[i] = (uint64_t)json_integer_value(item);
    if (__builtin_mul_overflow(*elements, tensor->extents[i], elements))
      return FORMAT(context, "%s: tensor '%.100s': shape is impossibly large", context->what, tensor->name);
  }
  tensor->rank = (int)rank;
  return HWGQ_OK;
}

static enum hwgq_status parse_tensor(const struct context *context, const json_t *value, const struct hwgq_safetensors *parsed,
                                     struct hwgq_tensor *tensor) {
  const char *what = context->what, *name = tensor->name;
  uint64_t elements = 0, bytes = 0;
  tensor->dtype = json_string_value(json_object_get(value, "dtype"));
  if (!tensor->dtype || json_object_size(value) != 3)
    return FORMAT(context, "%s: tensor '%.100s': must have exactly dtype, shape and data_offsets", what, name);
  uint64_t element_bytes = dtype_bytes(tensor->dtype);
  if (!element_bytes)
    return hwgq_fail(context->error, HWGQ_ERROR_UNSUPPORTED, "%s: tensor '%.100s': dtype '%.16s' is not known", what, name,
                     tensor->dtype);
  enum hwgq_status status = parse_shape(context, json_object_get(value, "shape"), tensor, &elements);
  if (status) return status;
  if (__builtin_mul_overflow(elements, element_bytes, &bytes))
    return FORMAT(context, "%s: tensor '%.100s': shape is impossibly large", what, name);

  const json_t *offsets = json_object_get(value, "data_offsets");
  const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
  if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second))
    return FORMAT(context, "%s: tensor '%.100s': data_offsets must be two whole numbers", what, name);
  json_int_t begin = json_integer_value(first), end = json_integer_value(second);
  if (begin < 0 || end < begin || (uint64_t)end > parsed->data_bytes)
    return FORMAT(context, "%s: tensor '%.100s': data_offsets [%lld, %lld] are not within the %llu bytes of data", what, name,
                  (long long)begin, (long long)end, (unsigned long long)parsed->data_bytes);
  if ((uint64_t)(end - begin) != bytes)
    return FORMAT(context, "%s: tensor '%.100s': has %lld bytes of data, its shape needs %llu", what, name,
                  (long long)(end - begin), (unsigned long long)bytes);
  tensor->data = parsed->data + begin;
  tensor->bytes = bytes;
  return HWGQ_OK;
}

static int compare_position(const void *left, const void *right) {
  const struct hwgq_tensor *a = left, *b = right;
  if (a->data != b->data) return (const uint8_t *)a->data < (const uint8_t *)b->data ? -1 : 1;
  return (a->bytes > b->bytes) - (a->bytes < b->bytes); /* empty tensors before the one that starts there */
}

/* Sorted by position, each tensor must start where the last one ended. */
static enum hwgq_status check_coverage(const struct context *context, struct hwgq_safetensors *parsed) {
  uint64_t position = 0;
  if (parsed->tensor_count) qsort(parsed->tensors, (size_t)parsed->tensor_count, sizeof parsed->tensors[0], compare_position);
  for (int i = 0; i < parsed->tensor_count; i++) {
    const struct hwgq_tensor *tensor = &parsed->tensors[i];
    uint64_t begin = (uint64_t)((const uint8_t *)tensor->data - parsed->data);
    if (begin != position)
      return FORMAT(context, "%s: tensor '%.100s': starts at %llu, %s (%llu)", context->what, tensor->name,
                    (unsigned long long)begin,
                    begin < position ? "inside the tensor before it" : "with a gap to the end of the tensor before it",
                    (unsigned long long)position);
    position += tensor->bytes;
  }
  if (position != parsed->data_bytes)
    return FORMAT(context, "%s: %llu bytes after the last tensor belong to none", context->what,
                  (unsigned long long)(parsed->data_bytes - position));
  return HWGQ_OK;
}

static enum hwgq_status parse_metadata(const struct context *context, const json_t *object, struct hwgq_safetensors *parsed) {
  if (!object) return HWGQ_OK;
  if (!json_is_object(object)) return FORMAT(context, "%s: %s must be an object of strings", context->what, METADATA_KEY);
  size_t count = json_object_size(object);
  parsed->metadata = calloc(count + 1, sizeof parsed->metadata[0]);
  if (!parsed->metadata) return hwgq_fail(context->error, HWGQ_ERROR_MEMORY, "%s: out of memory", context->what);
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)object, key, value) {
    if (!json_is_string(value)) return FORMAT(context, "%s: %s '%.100s' must be a string", context->what, METADATA_KEY, key);
    parsed->metadata[parsed->metadata_count++] = (struct hwgq_metadata){key, json_string_value(value)};
  }
  return HWGQ_OK;
}

static enum hwgq_status parse_header(const struct context *context, struct hwgq_safetensors *parsed) {
  json_t *header = parsed->header;
  enum hwgq_status status = parse_metadata(context, json_object_get(header, METADATA_KEY), parsed);
  if (status) return status;
  parsed->tensors = calloc(json_object_size(header) + 1, sizeof parsed->tensors[0]);
  if (!parsed->tensors) return hwgq_fail(context->error, HWGQ_ERROR_MEMORY, "%s: out of memory", context->what);
  const char *key;
  json_t *value;
  json_object_foreach(header, key, value) {
    if (strcmp(key, METADATA_KEY) == 0) continue;
    struct hwgq_tensor *tensor = &parsed->tensors[parsed->tensor_count++];
    tensor->name = key;
    status = parse_tensor(context, value, parsed, tensor);
    if (status) return status;
  }
  return check_coverage(context, parsed);
}

/* The header's text and where the data starts. */
static enum hwgq_status split(const struct context *context, const uint8_t *bytes, size_t length, const char **text,
                              size_t *text_length) {
  uint64_t header_bytes = 0;
  if (length < 8)
    return FORMAT(context, "%s: has %zu bytes, too few for a safetensors file: truncated?", context->what, length);
  memcpy(&header_bytes, bytes, 8);
  if (header_bytes > HWGQ_TENSORS_MAX_HEADER)
    return hwgq_fail(context->error, HWGQ_ERROR_FORMAT,
                     "%s: the header length is %llu, at most %d are allowed: not a safetensors or .hwgq file?", context->what,
                     (unsigned long long)header_bytes, HWGQ_TENSORS_MAX_HEADER);
  if (header_bytes > length - 8)
    return FORMAT(context, "%s: the header should have %llu bytes, but only %zu follow: truncated?", context->what,
                  (unsigned long long)header_bytes, length - 8);
  if (header_bytes == 0 || bytes[8] != '{')
    return FORMAT(context, "%s: the header does not start with '{': not a safetensors or .hwgq file?", context->what);
  *text = (const char *)bytes + 8;
  *text_length = (size_t)header_bytes;
  return HWGQ_OK;
}

enum hwgq_status hwgq_safetensors_parse(const void *bytes, size_t length, const char *what, struct hwgq_safetensors **parsed,
                                        struct hwgq_error *error) {
  struct context context = {hwgq_storage_label(what), error};
  const char *text = NULL;
  size_t text_length = 0;
  enum hwgq_status status = split(&context, bytes, length, &text, &text_length);
  if (status) return status;
  struct hwgq_safetensors *result = calloc(1, sizeof *result);
  if (!result) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", context.what);
  result->data = (const uint8_t *)bytes + 8 + text_length;
  result->data_bytes = length - 8 - text_length;
  json_t *header = NULL;
  status = hwgq_json_parse_object(text, text_length, context.what, &header, error);
  if (!status) {
    result->header = header;
    status = parse_header(&context, result);
  }
  if (status)
    hwgq_safetensors_destroy(result);
  else
    *parsed = result;
  return status;
}

void hwgq_safetensors_destroy(struct hwgq_safetensors *parsed) {
  if (!parsed) return;
  json_decref(parsed->header);
  free(parsed->tensors);
  free(parsed->metadata);
  free(parsed);
}

const struct hwgq_tensor *hwgq_safetensors_find(const struct hwgq_safetensors *parsed, const char *name) {
  for (int i = 0; i < parsed->tensor_count; i++)
    if (strcmp(parsed->tensors[i].name, name) == 0) return &parsed->tensors[i];
  return NULL;
}

const char *hwgq_safetensors_text(const struct hwgq_safetensors *parsed, const char *key) {
  for (int i = 0; i < parsed->metadata_count; i++)
    if (strcmp(parsed->metadata[i].key, key) == 0) return parsed->metadata[i].text;
  return NULL;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static json_t *tensor_entry(const struct hwgq_tensor *tensor, uint64_t begin) {
  json_t *shape = json_array();
  for (int i = 0; i < tensor->rank; i++)
    if (json_array_append_new(shape, json_integer((json_int_t)tensor->extents[i]))) {
      json_decref(shape);
      return NULL;
    }
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tensor->dtype, "shape", shape, "data_offsets", (json_int_t)begin,
                   (json_int_t)(begin + tensor->bytes));
}

static json_t *header_object(const struct hwgq_tensor *tensors, int tensor_count, const struct hwgq_metadata *metadata,
                             int metadata_count) {
  bool failed = false;
  uint64_t position = 0;
  json_t *header = json_object(), *texts = json_object();
  for (int i = 0; i < metadata_count; i++)
    if (json_object_set_new(texts, metadata[i].key, json_string(metadata[i].text))) failed = true;
  if (json_object_set_new(header, METADATA_KEY, texts)) failed = true;
  for (int i = 0; i < tensor_count; i++) {
    if (json_object_set_new(header, tensors[i].name, tensor_entry(&tensors[i], position))) failed = true;
    position += tensors[i].bytes;
  }
  if (!failed) return header;
  json_decref(header);
  return NULL;
}

/* Length field, JSON and padding; malloc'ed. */
static enum hwgq_status build_header(const struct hwgq_tensor *tensors, int tensor_count, const struct hwgq_metadata *metadata,
                                     int metadata_count, const char *what, uint8_t **bytes, size_t *length,
                                     struct hwgq_error *error) {
  json_t *object = header_object(tensors, tensor_count, metadata, metadata_count);
  char *text = object ? hwgq_json_text(object) : NULL;
  json_decref(object);
  size_t used = text ? 8 + strlen(text) : 0, padded = (used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  uint8_t *header = text ? malloc(padded) : NULL;
  if (!header) {
    free(text);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: cannot build the header: out of memory, or a text that is not UTF-8", what);
  }
  if (padded - 8 > HWGQ_TENSORS_MAX_HEADER) {
    free(text);
    free(header);
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: the header would have %zu bytes, at most %d are allowed", what, padded - 8,
                     HWGQ_TENSORS_MAX_HEADER);
  }
  uint64_t header_bytes = padded - 8;
  memcpy(header, &header_bytes, 8);
  memcpy(header + 8, text, used - 8);
  memset(header + used, ' ', padded - used);
  free(text);
  *bytes = header;
  *length = padded;
  return HWGQ_OK;
}

enum hwgq_status hwgq_safetensors_write(const char *path, const struct hwgq_tensor *tensors, int tensor_count,
                                        const struct hwgq_metadata *metadata, int metadata_count, uint64_t *file_bytes,
                                        struct hwgq_error *error) {
  uint8_t *header = NULL;
  size_t header_length = 0;
  enum hwgq_status status =
      build_header(tensors, tensor_count, metadata, metadata_count, hwgq_storage_label(path), &header, &header_length, error);
  if (status) return status;
  struct hwgq_chunk *chunks = calloc((size_t)tensor_count + 1, sizeof *chunks);
  if (!chunks) {
    free(header);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", hwgq_storage_label(path));
  }
  uint64_t total = header_length;
  chunks[0] = (struct hwgq_chunk){header, header_length};
  for (int i = 0; i < tensor_count; i++) {
    chunks[i + 1] = (struct hwgq_chunk){tensors[i].data, (size_t)tensors[i].bytes};
    total += tensors[i].bytes;
  }
  status = hwgq_storage_replace(path, chunks, (size_t)tensor_count + 1, error);
  if (!status && file_bytes) *file_bytes = total;
  free(chunks);
  free(header);
  return status;
}

enum hwgq_status hwgq_safetensors_build(const struct hwgq_tensor *tensors, int tensor_count,
                                        const struct hwgq_metadata *metadata, int metadata_count, uint8_t **bytes,
                                        size_t *length, struct hwgq_error *error) {
  uint8_t *header = NULL;
  size_t used = 0, total;
  enum hwgq_status status = build_header(tensors, tensor_count, metadata, metadata_count, "safetensors", &header, &used, error);
  if (status) return status;
  total = used;
  for (int i = 0; i < tensor_count; i++) total += (size_t)tensors[i].bytes;
  uint8_t *whole = realloc(header, total);
  if (!whole) {
    free(header);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "safetensors: out of memory for %zu bytes", total);
  }
  for (int i = 0; i < tensor_count; i++) {
    if (tensors[i].bytes) memcpy(whole + used, tensors[i].data, (size_t)tensors[i].bytes);
    used += (size_t)tensors[i].bytes;
  }
  *bytes = whole;
  *length = total;
  return HWGQ_OK;
}
