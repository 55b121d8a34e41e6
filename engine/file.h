/* What reading and writing a .hwgq file share. The format is described in file.c. */
#ifndef HWGQ_FILE_H
#define HWGQ_FILE_H

#include "engine/hwgq.h"
#include "engine/safetensors.h"

#define HWGQ_MODEL_MAX_FILE ((uint64_t)2 << 30) /* bytes */

enum {
  HWGQ_MODEL_MAX_RESIZE = 4096, /* pixels */
  HWGQ_MODEL_METADATA = 7,
  HWGQ_CHANNEL_ORDERS = 3,
};

/* Keys of the metadata, in the order in which they are written. */
extern const char *const hwgq_model_metadata[HWGQ_MODEL_METADATA];
/* By enum hwgq_channel_order. */
extern const char *const hwgq_channel_order_names[HWGQ_CHANNEL_ORDERS];

/* What must hold for every model, read or written, beside its inferred network and its parameters: a softmax at the end,
 * sensible preprocessing, labels, provenance. */
enum hwgq_status hwgq_model_check(const struct hwgq_model *model, struct hwgq_error *error);
/* What must hold for a label: 1 to 256 bytes of UTF-8 without control characters. `where` begins the message. */
enum hwgq_status hwgq_model_check_label(const char *label, size_t length, const char *where, struct hwgq_error *error);
/* "xxh3:" and 32 hexadecimal digits of XXH3-128 over the tensors' bytes, one after another. */
enum hwgq_status hwgq_model_digest(const struct hwgq_tensor *tensors, int count, char digest[40], struct hwgq_error *error);

/* The texts of the metadata "preprocess" and "labels". hwgq_model_parse_labels fills labels and class_count, also when it
 * fails part of the way: hwgq_model_destroy releases them. */
enum hwgq_status hwgq_model_parse_preprocess(const char *text, struct hwgq_preprocess *preprocess, struct hwgq_error *error);
enum hwgq_status hwgq_model_parse_labels(const char *text, struct hwgq_model *model, struct hwgq_error *error);

/* What hwgq_model_write would write, as malloc'ed bytes. Fills model->digest and model->file_bytes too. */
enum hwgq_status hwgq_model_build(struct hwgq_model *model, uint8_t **bytes, size_t *length, struct hwgq_error *error);

#endif
