/* Whole files: read into memory, and replaced so that no reader ever sees half of one. */
#ifndef HWGQ_STORAGE_H
#define HWGQ_STORAGE_H

#include "engine/hwgq.h"

/* Reads a regular file of at most `limit` bytes. *bytes is malloc'ed (never NULL, also for an empty file), with a NUL behind
 * the *length bytes, so that a text can be used as a string. */
enum hwgq_status hwgq_storage_read(const char *path, uint64_t limit, uint8_t **bytes, size_t *length, struct hwgq_error *error);

struct hwgq_chunk {
  const void *bytes;
  size_t length;
};

/* Writes the chunks one after another to a temporary file in the same directory, makes it durable (fsync) and renames it to
 * `path`. On failure the temporary file is removed and `path` is as it was. Of a symbolic link the file that it points to is
 * replaced; anything else that is there and no regular file is refused. */
enum hwgq_status hwgq_storage_replace(const char *path, const struct hwgq_chunk *chunks, size_t count,
                                      struct hwgq_error *error);

/* The end of a path or other name that may be too long for a message. */
const char *hwgq_storage_label(const char *path);

#endif
