/* Folders of images: listed in byte order, then the chosen ones are read. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/storage.h"
#include "models/data/index.h"

static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

struct names {
  char **list;
  size_t count, capacity;
};

static void names_release(struct names *names) {
  for (size_t i = 0; i < names->count; i++) free(names->list[i]);
  free(names->list);
}

/* The folder's entries in byte order, without hidden ones. */
static enum hwgq_status list_folder(const char *folder, struct names *names, struct hwgq_error *error) {
  DIR *directory = opendir(folder);
  struct dirent *entry;
  if (!directory) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot list '%s': %s", folder, strerror(errno));
  enum hwgq_status status = HWGQ_OK;
  while (!status && (errno = 0, entry = readdir(directory))) {
    if (entry->d_name[0] == '.') continue;
    if (names->count == DATASET_MAX_FILES) {
      status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' has more than %d files", folder, DATASET_MAX_FILES);
      break;
    }
    if (names->count == names->capacity) {
      size_t capacity = names->capacity ? names->capacity * 2 : 64;
      char **list = reallocarray(names->list, capacity, sizeof *list);
      if (!list) break;
      names->list = list;
      names->capacity = capacity;
    }
    char *copy = strdup(entry->d_name);
    if (!copy) break;
    names->list[names->count++] = copy;
  }
  if (!status && entry) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the list of files in '%s'", folder);
  if (!status && errno) status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot list '%s': %s", folder, strerror(errno));
  closedir(directory);
  if (names->count > 0) qsort(names->list, names->count, sizeof *names->list, compare_names);
  return status;
}

static enum hwgq_status add_folder(struct dataset_index *index, const struct dataset_request *request, const char *relative,
                                   int depth, struct hwgq_error *error);

static enum hwgq_status add_path(struct dataset_index *index, const struct dataset_request *request, const char *relative,
                                 int depth, struct hwgq_error *error) {
  struct stat about;
  bool wanted;
  size_t length;
  uint8_t *text;
  char *path = dataset_join(request->path, relative);
  if (!path) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", relative);
  enum hwgq_status status = HWGQ_OK;
  if (stat(path, &about)) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot open '%s': %s", path, strerror(errno));
  } else if (S_ISDIR(about.st_mode)) {
    status = depth < DATASET_MAX_DEPTH
                 ? add_folder(index, request, relative, depth + 1, error)
                 : hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' lies deeper than %d folders", path, DATASET_MAX_DEPTH);
  } else if (dataset_index_is_annotations(relative)) {
    status = hwgq_storage_read(path, DATASET_MAX_FILE_BYTES, &text, &length, error);
    if (!status) dataset_index_annotate(index, (char *)text);
  } else if (S_ISREG(about.st_mode)) {
    status = dataset_index_add(index, request, relative, &wanted, error);
  }
  free(path);
  return status;
}

static enum hwgq_status add_folder(struct dataset_index *index, const struct dataset_request *request, const char *relative,
                                   int depth, struct hwgq_error *error) {
  struct names names = {0};
  char *folder = dataset_join(request->path, relative);
  if (!folder) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", relative);
  enum hwgq_status status = list_folder(folder, &names, error);
  for (size_t i = 0; i < names.count && !status; i++) {
    char *path = relative[0] ? dataset_join(relative, names.list[i]) : strdup(names.list[i]);
    status = path ? add_path(index, request, path, depth, error)
                  : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", names.list[i]);
    free(path);
  }
  names_release(&names);
  free(folder);
  return status;
}

static enum hwgq_status read_image(const struct dataset_request *request, const char *relative, uint8_t *pixels,
                                   struct hwgq_error *error) {
  uint8_t *bytes;
  size_t length;
  char *path = dataset_join(request->path, relative);
  if (!path) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", relative);
  enum hwgq_status status = hwgq_storage_read(path, DATASET_MAX_FILE_BYTES, &bytes, &length, error);
  if (!status) {
    status = dataset_decode(request, path, bytes, length, pixels, error);
    free(bytes);
  }
  free(path);
  return status;
}

enum hwgq_status dataset_open_folder(const struct dataset_request *request, struct dataset **dataset,
                                     struct hwgq_error *error) {
  struct dataset_index index = {0};
  struct dataset_damage damage = {0};
  struct dataset *made = NULL;
  enum hwgq_status status = add_folder(&index, request, "", 0, error);
  if (!status) status = dataset_index_choose(&index, request, &made, error);
  if (!status) {
    size_t image = dataset_image_bytes(request);
    made->pixels = malloc(index.count * image + 1);
    if (!made->pixels) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of '%s'", request->path);
    for (size_t i = 0; i < index.count && !status; i++) {
      status = read_image(request, index.entries[i].path, made->pixels + i * image, error);
      status = dataset_note(&damage, index.entries[i].path, status, error);
    }
    if (!status) status = dataset_damage_status(&damage, error);
  }
  dataset_index_release(&index);
  if (status) {
    dataset_destroy(made);
  } else {
    *dataset = made;
  }
  return status;
}
