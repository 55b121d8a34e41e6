/* The safetensors container (https://huggingface.co/docs/safetensors), which .hwgq files and training checkpoints use:
 *
 *   8 bytes    N, little-endian
 *   N bytes    JSON: {"__metadata__":{"key":"text",...}, "tensor":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}, ...},
 *              may end in spaces; written so that the data starts at a multiple of 64
 *   the rest   data; offsets are relative to its start, tensors touch each other and cover all of it */
#ifndef HWGQ_SAFETENSORS_H
#define HWGQ_SAFETENSORS_H

#include "engine/hwgq.h"

enum { HWGQ_TENSOR_MAX_RANK = 8, HWGQ_TENSORS_MAX_HEADER = 16 << 20 };

struct hwgq_tensor {
  const char *name;
  const char *dtype; /* "F32", "U8", "I64", ... */
  int rank;
  uint64_t extents[HWGQ_TENSOR_MAX_RANK];
  const void *data; /* row-major, little-endian; not aligned when parsed */
  uint64_t bytes;
};

struct hwgq_metadata {
  const char *key, *text;
};

struct hwgq_safetensors {
  int tensor_count;
  struct hwgq_tensor *tensors; /* in the order of their data */
  int metadata_count;
  struct hwgq_metadata *metadata;
  const uint8_t *data;
  uint64_t data_bytes;
  void *header; /* owns names and texts */
};

/* Checks everything and copies no data: the result refers to `bytes`. `what` names the bytes in messages. */
enum hwgq_status hwgq_safetensors_parse(const void *bytes, size_t length, const char *what, struct hwgq_safetensors **parsed,
                                        struct hwgq_error *error);
void hwgq_safetensors_destroy(struct hwgq_safetensors *parsed);
/* NULL when there is none. */
const struct hwgq_tensor *hwgq_safetensors_find(const struct hwgq_safetensors *parsed, const char *name);
const char *hwgq_safetensors_text(const struct hwgq_safetensors *parsed, const char *key);

/* Writes tensors in the given order; tensor.bytes must fit dtype and extents. Put wide types first, so that all stay aligned.
 * *file_bytes (may be NULL) receives the size. */
enum hwgq_status hwgq_safetensors_write(const char *path, const struct hwgq_tensor *tensors, int tensor_count,
                                        const struct hwgq_metadata *metadata, int metadata_count, uint64_t *file_bytes,
                                        struct hwgq_error *error);
/* The same file as bytes in memory, malloc'ed. */
enum hwgq_status hwgq_safetensors_build(const struct hwgq_tensor *tensors, int tensor_count,
                                        const struct hwgq_metadata *metadata, int metadata_count, uint8_t **bytes,
                                        size_t *length, struct hwgq_error *error);

#endif
