/* Archives of images, read once from front to back: each image is decoded as it comes, and put in order at the end. */
#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>

#include "models/data/index.h"

/* Only what libarchive unpacks itself: its other filters would start programs. */
static bool support_filters(struct archive *archive) {
  return archive_read_support_filter_gzip(archive) == ARCHIVE_OK && archive_read_support_filter_xz(archive) == ARCHIVE_OK &&
         archive_read_support_filter_bzip2(archive) == ARCHIVE_OK && archive_read_support_filter_zstd(archive) == ARCHIVE_OK;
}

static const char *reason_of(struct archive *archive) {
  const char *reason = archive_error_string(archive);
  return reason ? reason : "damaged";
}

/* archive_errno is a system's error number for failed reads and one of libarchive's own below 0 or above for bad bytes. */
static enum hwgq_status archive_fail(struct archive *archive, const char *path, const char *entry, struct hwgq_error *error) {
  if (!entry) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "cannot read '%s': %s", path, reason_of(archive));
  return hwgq_fail(error, HWGQ_ERROR_FORMAT, "cannot read '%s' in '%s': %s", entry, path, reason_of(archive));
}

struct reader {
  const struct dataset_request *request;
  struct archive *archive;
  struct dataset_index index;
  uint8_t *bytes; /* of the entry at hand */
  size_t length, capacity;
  uint8_t *pixels; /* [slots] images in the order of the archive */
  size_t slots;    /* capacity of `pixels` */
  struct dataset_damage damage;
};

/* Reads the current entry's bytes and puts a zero behind them. The size that the header states is not trusted. */
static enum hwgq_status read_entry(struct reader *reader, const char *path, size_t limit, struct hwgq_error *error) {
  reader->length = 0;
  for (;;) {
    size_t room = reader->capacity - reader->length;
    if (room < 2) {
      size_t capacity = reader->capacity ? reader->capacity * 2 : 64 << 10;
      uint8_t *bytes = realloc(reader->bytes, capacity);
      if (!bytes) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for '%s' in '%s'", path, reader->request->path);
      reader->bytes = bytes;
      reader->capacity = capacity;
      continue;
    }
    la_ssize_t got = archive_read_data(reader->archive, reader->bytes + reader->length, room - 1);
    if (got == ARCHIVE_RETRY) continue;
    if (got < 0) return archive_fail(reader->archive, reader->request->path, path, error);
    reader->length += (size_t)got;
    reader->bytes[reader->length] = 0;
    if (got == 0) return HWGQ_OK;
    if (reader->length > limit) {
      return hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' in '%s' is larger than the %zu bytes that are read here", path,
                       reader->request->path, limit);
    }
  }
}

static enum hwgq_status reserve_slot(struct reader *reader, struct hwgq_error *error) {
  if (reader->index.count <= reader->slots) return HWGQ_OK;
  size_t slots = reader->slots ? reader->slots * 2 : 1024;
  enum hwgq_status status = dataset_check_memory(reader->request, reader->index.count, error);
  if (status) return status;
  uint8_t *pixels = reallocarray(reader->pixels, slots, dataset_image_bytes(reader->request));
  if (!pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of '%s'", reader->request->path);
  reader->pixels = pixels;
  reader->slots = slots;
  return HWGQ_OK;
}

static enum hwgq_status read_image(struct reader *reader, const char *path, struct hwgq_error *error) {
  char where[768];
  enum hwgq_status status = reserve_slot(reader, error);
  if (!status) status = read_entry(reader, path, DATASET_MAX_FILE_BYTES, error);
  if (status) return status;
  uint8_t *pixels = reader->pixels + (reader->index.count - 1) * dataset_image_bytes(reader->request);
  snprintf(where, sizeof where, "%.200s' in '%.200s", path, reader->request->path);
  status = dataset_decode(reader->request, where, reader->bytes, reader->length, pixels, error);
  return dataset_note(&reader->damage, path, status, error);
}

static enum hwgq_status take_entry(struct reader *reader, struct archive_entry *entry, struct hwgq_error *error) {
  bool wanted;
  if (archive_entry_filetype(entry) != AE_IFREG) return HWGQ_OK;
  const char *path = archive_entry_pathname(entry);
  if (!path) path = archive_entry_pathname_utf8(entry);
  if (!path) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' holds a file whose name cannot be read: use UTF-8 names",
                     reader->request->path);
  }
  if (dataset_index_is_annotations(path)) {
    enum hwgq_status status = read_entry(reader, path, DATASET_MAX_FILE_BYTES, error);
    if (status) return status;
    dataset_index_annotate(&reader->index, (char *)reader->bytes);
    reader->bytes = NULL;
    reader->capacity = 0;
    return HWGQ_OK;
  }
  enum hwgq_status status = dataset_index_add(&reader->index, reader->request, path, &wanted, error);
  return status || !wanted ? status : read_image(reader, path, error);
}

static enum hwgq_status read_entries(struct reader *reader, struct hwgq_error *error) {
  struct archive_entry *entry;
  enum hwgq_status status = HWGQ_OK;
  for (int count = 0; !status; count++) {
    int got = archive_read_next_header(reader->archive, &entry);
    if (got == ARCHIVE_EOF) return HWGQ_OK;
    if (got == ARCHIVE_FATAL) return archive_fail(reader->archive, reader->request->path, NULL, error);
    if (count == DATASET_MAX_FILES)
      return hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' has more than %d files", reader->request->path, DATASET_MAX_FILES);
    if (got == ARCHIVE_OK || got == ARCHIVE_WARN) status = take_entry(reader, entry, error);
  }
  return status;
}

/* Moves each chosen image from its place in the archive to its place in the data set. */
static enum hwgq_status order_pixels(struct reader *reader, struct dataset *dataset, struct hwgq_error *error) {
  const struct dataset_index *index = &reader->index;
  size_t image = dataset_image_bytes(reader->request);
  bool ordered = true;
  for (size_t i = 0; i < index->count && ordered; i++) ordered = index->entries[i].slot >= i;
  for (size_t i = 1; i < index->count && ordered; i++) ordered = index->entries[i].slot > index->entries[i - 1].slot;
  uint8_t *pixels = ordered ? reader->pixels : malloc(index->count * image + 1);
  if (!pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of '%s'", reader->request->path);
  for (size_t i = 0; i < index->count; i++) {
    const uint8_t *from = reader->pixels + index->entries[i].slot * image;
    if (from != pixels + i * image) memcpy(pixels + i * image, from, image);
  }
  if (ordered) {
    reader->pixels = NULL;
    uint8_t *smaller = realloc(pixels, index->count * image + 1);
    if (smaller) pixels = smaller;
  }
  dataset->pixels = pixels;
  return HWGQ_OK;
}

enum hwgq_status dataset_open_archive(const struct dataset_request *request, struct dataset **dataset,
                                      struct hwgq_error *error) {
  struct reader reader = {.request = request, .archive = archive_read_new()};
  struct dataset *made = NULL;
  enum hwgq_status status = HWGQ_OK;
  if (!reader.archive) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to read '%s'", request->path);
  if (!support_filters(reader.archive) || archive_read_support_format_tar(reader.archive) != ARCHIVE_OK ||
      archive_read_support_format_zip(reader.archive) != ARCHIVE_OK) {
    status =
        hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "this libarchive cannot unpack all of gzip, xz, bzip2, zstd, tar and zip");
  } else if (archive_read_open_filename(reader.archive, request->path, 256 << 10) != ARCHIVE_OK) {
    status = archive_fail(reader.archive, request->path, NULL, error);
  }
  if (!status) status = read_entries(&reader, error);
  if (!status) status = dataset_damage_status(&reader.damage, error);
  if (!status) status = dataset_index_choose(&reader.index, request, &made, error);
  if (!status) status = order_pixels(&reader, made, error);
  archive_read_free(reader.archive);
  dataset_index_release(&reader.index);
  free(reader.bytes);
  free(reader.pixels);
  if (status) {
    dataset_destroy(made);
  } else {
    *dataset = made;
  }
  return status;
}

/* Grows with what is there, so that a small file that claims much costs little. */
static enum hwgq_status read_front(struct reader *reader, size_t limit, struct hwgq_error *error) {
  while (reader->length < limit) {
    if (reader->length == reader->capacity) {
      size_t capacity = reader->capacity ? reader->capacity * 2 : 64 << 10;
      if (capacity > limit) capacity = limit;
      uint8_t *bytes = realloc(reader->bytes, capacity);
      if (!bytes) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for '%s'", reader->request->path);
      reader->bytes = bytes;
      reader->capacity = capacity;
    }
    la_ssize_t got = archive_read_data(reader->archive, reader->bytes + reader->length, reader->capacity - reader->length);
    if (got == ARCHIVE_RETRY) continue;
    if (got < 0) return archive_fail(reader->archive, reader->request->path, NULL, error);
    if (got == 0) break;
    reader->length += (size_t)got;
  }
  return HWGQ_OK;
}

enum hwgq_status dataset_read_unpacked(const char *path, size_t limit, uint8_t **bytes, size_t *length,
                                       struct hwgq_error *error) {
  const struct dataset_request request = {.path = path};
  struct reader reader = {.request = &request, .archive = archive_read_new()};
  struct archive_entry *entry;
  enum hwgq_status status = HWGQ_OK;
  if (!reader.archive) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to read '%s'", path);
  if (!support_filters(reader.archive) || archive_read_support_format_raw(reader.archive) != ARCHIVE_OK) {
    status = hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "this libarchive cannot unpack all of gzip, xz, bzip2 and zstd");
  } else if (archive_read_open_filename(reader.archive, path, 256 << 10) != ARCHIVE_OK ||
             archive_read_next_header(reader.archive, &entry) != ARCHIVE_OK) {
    status = archive_fail(reader.archive, path, NULL, error);
  }
  if (!status) status = read_front(&reader, limit, error);
  archive_read_free(reader.archive);
  if (status) {
    free(reader.bytes);
  } else {
    *bytes = reader.bytes;
    *length = reader.length;
  }
  return status;
}
