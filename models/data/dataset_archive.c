/* Archives of images, read from front to back: each image is decoded as it comes, and put in order at the end. Only where there
 * are links it is read a second time, for what they lead to. */
#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>

#include "models/data/archive_links.h"
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

/* An image that could not be read, which matters only if it is chosen. */
struct damaged {
  size_t slot;
  enum hwgq_status status;
  char *message; /* owned */
};

struct reader {
  const struct dataset_request *request;
  struct archive *archive;
  struct dataset_index index;
  uint8_t *bytes; /* of the entry at hand */
  size_t length, capacity;
  uint8_t *pixels; /* [slots] images in the order of the archive */
  size_t slots;    /* capacity of `pixels` */
  struct damaged *damaged;
  size_t damaged_count, damaged_capacity;
  struct archive_links links;
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

/* Keeps why an image cannot be read. Without memory reading stops. */
static enum hwgq_status note_damage(struct reader *reader, size_t slot, enum hwgq_status status, struct hwgq_error *error) {
  if (status == HWGQ_OK || status == HWGQ_ERROR_MEMORY) return status;
  if (reader->damaged_count == reader->damaged_capacity) {
    size_t capacity = reader->damaged_capacity ? reader->damaged_capacity * 2 : 16;
    struct damaged *list = reallocarray(reader->damaged, capacity, sizeof *list);
    if (!list) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the damaged images of '%s'", reader->request->path);
    reader->damaged = list;
    reader->damaged_capacity = capacity;
  }
  char *message = strdup(error->message);
  if (!message) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the damaged images of '%s'", reader->request->path);
  reader->damaged[reader->damaged_count++] = (struct damaged){slot, status, message};
  return HWGQ_OK;
}

/* The entry's bytes, which are the image of this path and slot. */
static enum hwgq_status decode_entry(struct reader *reader, const char *path, size_t slot, struct hwgq_error *error) {
  char where[768];
  uint8_t *pixels = reader->pixels + slot * dataset_image_bytes(reader->request);
  snprintf(where, sizeof where, "%.200s' in '%.200s", path, reader->request->path);
  struct hwgq_error reason = {""};
  enum hwgq_status status = dataset_decode(reader->request, where, reader->bytes, reader->length, pixels, &reason);
  status = note_damage(reader, slot, status, &reason);
  return status ? hwgq_fail(error, status, "%s", reason.message) : HWGQ_OK;
}

static enum hwgq_status read_image(struct reader *reader, const char *path, struct hwgq_error *error) {
  const size_t slot = reader->index.count - 1;
  struct hwgq_error reason = {""};
  enum hwgq_status status = reserve_slot(reader, error);
  if (status) return status;
  status = read_entry(reader, path, DATASET_MAX_FILE_BYTES, &reason);
  if (!status) return decode_entry(reader, path, slot, error);
  if (status == HWGQ_ERROR_LIMIT) status = note_damage(reader, slot, status, &reason);
  return status ? hwgq_fail(error, status, "%s", reason.message) : HWGQ_OK;
}

/* NULL: it cannot be read. */
static const char *path_of(struct archive_entry *entry) {
  const char *path = archive_entry_pathname(entry);
  return path ? path : archive_entry_pathname_utf8(entry);
}

/* What a link leads to; NULL: the entry is none. A hard link may come with the file's bytes, and is as good as the file then.
 */
static const char *stated_target(struct archive_entry *entry, bool *hard) {
  const char *target = archive_entry_hardlink(entry);
  if (!target) target = archive_entry_hardlink_utf8(entry);
  *hard = target != NULL;
  if (*hard) return archive_entry_size(entry) > 0 ? NULL : target;
  if (archive_entry_filetype(entry) != AE_IFLNK) return NULL;
  target = archive_entry_symlink(entry);
  if (!target) target = archive_entry_symlink_utf8(entry);
  return target ? target : "";
}

static enum hwgq_status take_link(struct reader *reader, const char *path, const char *target, bool hard,
                                  struct hwgq_error *error) {
  bool image;
  enum hwgq_status status = dataset_index_add(&reader->index, reader->request, path, &image, error);
  if (!status && image) status = reserve_slot(reader, error);
  if (status || archive_links_add(&reader->links, path, target, hard, image, reader->index.count - 1)) return status;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the links of '%s'", reader->request->path);
}

static enum hwgq_status take_entry(struct reader *reader, struct archive_entry *entry, struct hwgq_error *error) {
  bool wanted, hard;
  const char *target = stated_target(entry, &hard);
  if (archive_entry_filetype(entry) != AE_IFREG && !target) return HWGQ_OK;
  const char *path = path_of(entry);
  if (!path) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' holds a file whose name cannot be read: use UTF-8 names",
                     reader->request->path);
  }
  if (target) return take_link(reader, path, target, hard, error);
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

/* In the second reading: the file may be what links lead to. */
static enum hwgq_status take_target(struct reader *reader, struct archive_entry *entry, const bool *used,
                                    struct hwgq_error *error) {
  bool hard;
  size_t count;
  const char *path = path_of(entry);
  if (!path || archive_entry_filetype(entry) != AE_IFREG || stated_target(entry, &hard)) return HWGQ_OK;
  struct archive_link **links = archive_links_note(&reader->links, path, &count);
  enum hwgq_status status = HWGQ_OK;
  bool read = false;
  for (size_t i = 0; i < count && !status; i++) {
    if (!links[i]->image || !used[links[i]->slot]) continue;
    if (!read) status = read_entry(reader, path, DATASET_MAX_FILE_BYTES, error);
    if (!status) status = decode_entry(reader, links[i]->path, links[i]->slot, error);
    read = true;
  }
  return status;
}

/* used: NULL in the first reading. */
static enum hwgq_status read_entries(struct reader *reader, const bool *used, struct hwgq_error *error) {
  struct archive_entry *entry;
  enum hwgq_status status = HWGQ_OK;
  for (int count = 0; !status; count++) {
    int got = archive_read_next_header(reader->archive, &entry);
    if (got == ARCHIVE_EOF) return HWGQ_OK;
    if (got == ARCHIVE_FATAL) return archive_fail(reader->archive, reader->request->path, NULL, error);
    if (count == DATASET_MAX_FILES)
      return hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' has more than %d files", reader->request->path, DATASET_MAX_FILES);
    if (got == ARCHIVE_OK || got == ARCHIVE_WARN)
      status = used ? take_target(reader, entry, used, error) : take_entry(reader, entry, error);
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

/* Opens the archive and reads all of its entries. used: as above. */
static enum hwgq_status read_archive(struct reader *reader, const bool *used, struct hwgq_error *error) {
  const char *path = reader->request->path;
  struct archive *archive = reader->archive = archive_read_new();
  enum hwgq_status status;
  if (!archive) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to read '%s'", path);
  if (!support_filters(archive) || archive_read_support_format_tar(archive) != ARCHIVE_OK ||
      archive_read_support_format_zip(archive) != ARCHIVE_OK) {
    status =
        hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "this libarchive cannot unpack all of gzip, xz, bzip2, zstd, tar and zip");
  } else if (archive_read_open_filename(archive, path, 256 << 10) != ARCHIVE_OK) {
    status = archive_fail(archive, path, NULL, error);
  } else {
    status = read_entries(reader, used, error);
  }
  archive_read_free(archive);
  return status;
}

static bool *used_slots(const struct reader *reader, size_t slots) {
  bool *used = calloc(slots + 1, sizeof *used);
  for (size_t i = 0; used && i < reader->index.count; i++) used[reader->index.entries[i].slot] = true;
  return used;
}

/* The images that links stand for. */
static enum hwgq_status read_links(struct reader *reader, const struct dataset *dataset, const bool *used,
                                   struct hwgq_error *error) {
  if (reader->links.count == 0) return HWGQ_OK;
  if (!archive_links_follow(&reader->links))
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the links of '%s'", reader->request->path);
  enum hwgq_status status = read_archive(reader, used, error);
  return status ? status : archive_links_check(&reader->links, reader->request->path, used, dataset->undivided, error);
}

static int compare_slots(const void *a, const void *b) {
  const size_t left = ((const struct damaged *)a)->slot, right = ((const struct damaged *)b)->slot;
  return left < right ? -1 : left > right;
}

/* Of the chosen images, in their order. */
static enum hwgq_status damage_status(const struct reader *reader, struct hwgq_error *error) {
  struct dataset_damage damage = {0};
  struct hwgq_error reason;
  if (reader->damaged_count == 0) return HWGQ_OK;
  qsort(reader->damaged, reader->damaged_count, sizeof *reader->damaged, compare_slots);
  for (size_t i = 0; i < reader->index.count; i++) {
    const struct dataset_entry *entry = &reader->index.entries[i];
    struct damaged key = {.slot = entry->slot};
    const struct damaged *found = bsearch(&key, reader->damaged, reader->damaged_count, sizeof key, compare_slots);
    if (!found) continue;
    snprintf(reason.message, sizeof reason.message, "%s", found->message);
    dataset_note(&damage, entry->path, found->status, &reason);
  }
  return dataset_damage_status(&damage, error);
}

static void reader_release(struct reader *reader) {
  for (size_t i = 0; i < reader->damaged_count; i++) free(reader->damaged[i].message);
  free(reader->damaged);
  archive_links_release(&reader->links);
  dataset_index_release(&reader->index);
  free(reader->bytes);
  free(reader->pixels);
}

enum hwgq_status dataset_open_archive(const struct dataset_request *request, struct dataset **dataset,
                                      struct hwgq_error *error) {
  struct reader reader = {.request = request};
  struct dataset *made = NULL;
  bool *used = NULL;
  enum hwgq_status status = read_archive(&reader, NULL, error);
  const size_t slots = reader.index.count;
  if (!status) status = dataset_index_choose(&reader.index, request, &made, error);
  if (!status && !(used = used_slots(&reader, slots)))
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the images of '%s'", request->path);
  if (!status) status = read_links(&reader, made, used, error);
  if (!status) status = damage_status(&reader, error);
  if (!status) status = order_pixels(&reader, made, error);
  free(used);
  reader_release(&reader);
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
