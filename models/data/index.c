#include "models/data/index.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Kinds of files that users take for images. Those that image_decode does not read give its message instead of vanishing. */
static const char *const image_endings[] = {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"};

bool dataset_index_is_image(const char *name) {
  size_t length = strlen(name);
  for (size_t i = 0; i < sizeof image_endings / sizeof *image_endings; i++) {
    size_t ending = strlen(image_endings[i]);
    if (length > ending && !strcasecmp(name + length - ending, image_endings[i])) return true;
  }
  return false;
}

const char *dataset_base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

bool dataset_index_is_annotations(const char *path) {
  return !strcmp(dataset_base_name(path), "val_annotations.txt");
}

void dataset_index_annotate(struct dataset_index *index, char *text) {
  free(index->annotations);
  index->annotations = text;
}

/* Copies a path without empty and "." components. NULL (with *bad set) when it leaves the source by a "..", is too long, or
 * without memory (*bad not set). Hidden files and folders give an empty string. */
static char *clean_path(const char *path, bool *bad) {
  size_t length = strlen(path), out = 0;
  *bad = length > DATASET_MAX_PATH;
  char *clean = *bad ? NULL : malloc(length + 1);
  if (!clean) return NULL;
  while (*path) {
    size_t part = strcspn(path, "/");
    if (part == 2 && path[0] == '.' && path[1] == '.') {
      *bad = true;
      free(clean);
      return NULL;
    }
    if (part > 1 && (path[0] == '.' || !strncmp(path, "__MACOSX/", 9))) {
      clean[0] = 0;
      return clean;
    }
    if (part > 0 && !(part == 1 && path[0] == '.')) {
      if (out) clean[out++] = '/';
      memcpy(clean + out, path, part);
      out += part;
    }
    path += part;
    if (*path == '/') path++;
  }
  clean[out] = 0;
  return clean;
}

static bool names(const char *component, size_t length, const char *word) {
  return strlen(word) == length && !strncmp(component, word, length);
}

/* The split that a path belongs to and the start of what follows the split's folder. A split folder is the first or second
 * component and has CLASS/IMAGE below it: with train/1.jpg, "train" is a class. */
static enum dataset_part part_of(const char *path, const char **rest) {
  const char *component = path;
  *rest = path;
  for (int i = 0; i < 2; i++) {
    size_t length = strcspn(component, "/");
    if (!component[length]) break;
    const char *next = component + length + 1;
    if (!strchr(next, '/')) break;
    enum dataset_part part = PART_ALL;
    if (names(component, length, "train")) part = PART_TRAIN;
    if (names(component, length, "test")) part = PART_TEST;
    if (names(component, length, "val") || names(component, length, "valid") || names(component, length, "validation"))
      part = PART_VAL;
    if (part != PART_ALL) {
      *rest = next;
      return part;
    }
    component = next;
  }
  return PART_ALL;
}

enum dataset_part dataset_index_part(const char *path) {
  const char *rest;
  bool bad;
  char *clean = clean_path(path, &bad);
  enum dataset_part part = clean && clean[0] ? part_of(clean, &rest) : PART_NONE;
  free(clean);
  return part;
}

static bool grow(void **array, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity) return true;
  size_t wanted = *capacity ? *capacity * 2 : 256;
  void *larger = reallocarray(*array, wanted, size);
  if (!larger) return false;
  *array = larger;
  *capacity = wanted;
  return true;
}

/* Classes come in runs, so comparing with the last one keeps the list short. */
bool dataset_index_add_class(struct dataset_index *index, const char *name, size_t length) {
  if (index->other_count > 0 && names(name, length, index->other_classes[index->other_count - 1])) return true;
  if (!grow((void **)&index->other_classes, &index->other_capacity, index->other_count, sizeof *index->other_classes))
    return false;
  char *copy = strndup(name, length);
  if (copy) index->other_classes[index->other_count++] = copy;
  return copy;
}

/* Takes ownership of `path` when it succeeds. */
static bool add_entry(struct dataset_index *index, char *path, const char *class_name, size_t length, enum dataset_part part) {
  if (!grow((void **)&index->entries, &index->capacity, index->count, sizeof *index->entries)) return false;
  char *copy = strndup(class_name, length);
  if (!copy) return false;
  index->entries[index->count] = (struct dataset_entry){path, copy, part, 0, index->count};
  index->count++;
  return true;
}

enum hwgq_status dataset_index_add(struct dataset_index *index, const struct dataset_request *request, const char *path,
                                   bool *wanted, struct hwgq_error *error) {
  bool bad, ok;
  const char *rest;
  *wanted = false;
  if (!dataset_index_is_image(path)) return HWGQ_OK;
  char *clean = clean_path(path, &bad);
  if (bad) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' holds a path that leaves it or is longer than %d bytes: '%.200s'",
                     request->path, DATASET_MAX_PATH, path);
  }
  if (!clean) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the list of images of '%s'", request->path);
  if (!clean[0]) {
    free(clean);
    return HWGQ_OK;
  }
  enum dataset_part part = part_of(clean, &rest);
  size_t length = strcspn(rest, "/");
  if (!rest[length]) length = 0; /* no folder: refused by dataset_index_choose unless the splits make it irrelevant */
  bool other = request->split == DATASET_TRAIN ? part == PART_TEST || part == PART_VAL : part == PART_TRAIN;
  if (other) {
    ok = dataset_index_add_class(index, rest, length);
    free(clean);
  } else {
    ok = add_entry(index, clean, rest, length, part);
    if (!ok) free(clean);
    *wanted = ok;
  }
  return ok ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the list of images of '%s'", request->path);
}

void dataset_entry_release(struct dataset_entry *entry) {
  free(entry->path);
  free(entry->class_name);
}

void dataset_index_release(struct dataset_index *index) {
  for (size_t i = 0; i < index->count; i++) dataset_entry_release(&index->entries[i]);
  for (size_t i = 0; i < index->other_count; i++) free(index->other_classes[i]);
  free(index->entries);
  free(index->other_classes);
  free(index->annotations);
  *index = (struct dataset_index){0};
}
