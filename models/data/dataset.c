#include "models/data/dataset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/data/index.h"

size_t dataset_image_bytes(const struct dataset_request *request) {
  return (size_t)request->shape.height * (size_t)request->shape.width * (size_t)request->shape.channels;
}

enum hwgq_status dataset_check_memory(const struct dataset_request *request, size_t count, struct hwgq_error *error) {
  size_t bytes;
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  bool fits = !__builtin_mul_overflow(count, dataset_image_bytes(request), &bytes);
  if (fits && pages > 0 && page > 0) fits = bytes / (size_t)page < (size_t)pages;
  if (fits && count <= DATASET_MAX_FILES) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_LIMIT,
                   "'%s' has at least %zu images of %dx%d, which do not fit in this machine's memory: use fewer (a limit)",
                   request->path, count, request->shape.width, request->shape.height);
}

enum hwgq_status dataset_allocate(const struct dataset_request *request, size_t count, int class_count,
                                  struct dataset **dataset, struct hwgq_error *error) {
  enum hwgq_status status = dataset_check_memory(request, count, error);
  if (status) return status;
  struct dataset *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for '%s'", request->path);
  made->count = (int)count;
  made->class_count = class_count;
  made->split = request->split == DATASET_TRAIN ? DATASET_TRAIN : DATASET_TEST;
  made->height = request->shape.height;
  made->width = request->shape.width;
  made->channels = request->shape.channels;
  made->labels = calloc(count + 1, sizeof *made->labels);
  made->file_names = calloc(count + 1, sizeof *made->file_names);
  made->class_names = calloc((size_t)class_count + 1, sizeof *made->class_names);
  if (!made->labels || !made->file_names || !made->class_names) {
    dataset_destroy(made);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the %zu images of '%s'", count, request->path);
  }
  *dataset = made;
  return HWGQ_OK;
}

void dataset_destroy(struct dataset *dataset) {
  if (!dataset) return;
  if (dataset->file_names) {
    for (int i = 0; i < dataset->count; i++) free(dataset->file_names[i]);
  }
  if (dataset->class_names) {
    for (int i = 0; i < dataset->class_count; i++) free(dataset->class_names[i]);
  }
  free(dataset->file_names);
  free(dataset->class_names);
  free(dataset->labels);
  free(dataset->pixels);
  free(dataset);
}

enum hwgq_status dataset_decode(const struct dataset_request *request, const char *where, const uint8_t *bytes, size_t length,
                                uint8_t *pixels, struct hwgq_error *error) {
  const struct image_limits limits = IMAGE_LIMITS_DEFAULT;
  struct image_info info;
  struct hwgq_error reason = {""};
  enum hwgq_status status =
      image_prepare(bytes, length, &limits, request->preprocess, request->shape, pixels, &info, NULL, &reason);
  if (!status) return HWGQ_OK;
  return hwgq_fail(error, status, "'%s': %s", where, reason.message);
}

enum hwgq_status dataset_note(struct dataset_damage *damage, const char *name, enum hwgq_status status,
                              const struct hwgq_error *reason) {
  if (status == HWGQ_OK || status == HWGQ_ERROR_MEMORY) return status;
  if (++damage->count == 1) {
    damage->status = status;
    if (reason != NULL) damage->first = *reason;
    return HWGQ_OK;
  }
  size_t used = strlen(damage->more), room = sizeof damage->more - used;
  int length = snprintf(damage->more + used, room, "%s'%s'", used > 0 ? ", " : "", name);
  if (length < 0 || (size_t)length >= room)
    damage->more[used] = '\0';
  else
    damage->named++;
  return HWGQ_OK;
}

enum hwgq_status dataset_damage_status(const struct dataset_damage *damage, struct hwgq_error *error) {
  const int others = damage->count - 1, unnamed = others - damage->named;
  if (damage->count == 0) return HWGQ_OK;
  if (others == 0) return hwgq_fail(error, damage->status, "%s", damage->first.message);
  char rest[40] = "";
  if (unnamed > 0) snprintf(rest, sizeof rest, "%s%d more", damage->named > 0 ? " and " : "", unnamed);
  return hwgq_fail(error, damage->status, "%.240s; neither can %d %s be read: %s%s", damage->first.message, others,
                   others == 1 ? "other image" : "other images", damage->more, rest);
}

long dataset_spread(const int *labels, size_t count, int class_count, int limit, bool *keep) {
  if (limit <= 0 || (size_t)limit >= count) {
    memset(keep, 1, count * sizeof *keep);
    return (long)count;
  }
  /* An image's turn is the number of earlier images of its class. Turns 0 .. full - 1 are kept whole; of turn `full` the first
   * `rest` images by class index. */
  size_t *seen = calloc((size_t)class_count, sizeof *seen), *turn = calloc(count, sizeof *turn);
  size_t *size = calloc(count + 1, sizeof *size);
  long kept = -1;
  if (seen && turn && size) {
    size_t full = 0, rest = (size_t)limit;
    for (size_t i = 0; i < count; i++) {
      turn[i] = seen[labels[i]]++;
      size[turn[i]]++;
    }
    while (rest >= size[full]) rest -= size[full++];
    /* the last class that takes part in the turn that is not kept whole */
    int last = 0;
    for (size_t left = rest; left > 0; last++) {
      if (seen[last] > full) left--;
    }
    kept = 0;
    for (size_t i = 0; i < count; i++) {
      keep[i] = turn[i] < full || (turn[i] == full && labels[i] < last);
      kept += keep[i];
    }
  }
  free(seen);
  free(turn);
  free(size);
  return kept;
}

enum hwgq_status dataset_number_names(struct dataset *dataset, const int *original, struct hwgq_error *error) {
  char name[32];
  bool ok = true;
  for (int i = 0; i < dataset->class_count; i++) {
    if (dataset->class_names[i]) continue;
    snprintf(name, sizeof name, "%d", i);
    dataset->class_names[i] = strdup(name);
    ok = ok && dataset->class_names[i];
  }
  for (int i = 0; i < dataset->count; i++) {
    snprintf(name, sizeof name, "#%d", original[i]);
    dataset->file_names[i] = strdup(name);
    ok = ok && dataset->file_names[i];
  }
  return ok ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the names of %d images", dataset->count);
}

enum hwgq_status dataset_select(const struct dataset_request *request, const uint8_t *labels, size_t stride, size_t count,
                                int class_count, struct dataset **dataset, int **original, struct hwgq_error *error) {
  int *all = calloc(count, sizeof *all), *chosen = calloc(count, sizeof *chosen);
  bool *keep = calloc(count, sizeof *keep);
  struct dataset *made = NULL;
  long kept = -1;
  for (size_t i = 0; all && i < count; i++) all[i] = labels[i * stride];
  if (all && chosen && keep) kept = dataset_spread(all, count, class_count, request->limit, keep);
  enum hwgq_status status = kept >= 0 ? dataset_allocate(request, (size_t)kept, class_count, &made, error)
                                      : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the labels of '%s'", request->path);
  for (size_t i = 0, next = 0; i < count && !status; i++) {
    if (!keep[i]) continue;
    chosen[next] = (int)i;
    made->labels[next++] = all[i];
  }
  free(all);
  free(keep);
  if (status) {
    free(chosen);
    return status;
  }
  *dataset = made;
  *original = chosen;
  return HWGQ_OK;
}

char *dataset_join(const char *folder, const char *name) {
  size_t folder_length = strlen(folder), name_length = strlen(name);
  bool slash = folder_length > 0 && folder[folder_length - 1] != '/';
  char *joined = malloc(folder_length + name_length + 2);
  if (!joined) return NULL;
  memcpy(joined, folder, folder_length);
  if (slash) joined[folder_length++] = '/';
  memcpy(joined + folder_length, name, name_length + 1);
  return joined;
}

enum hwgq_status dataset_open(const char *path, enum dataset_split split, const struct hwgq_preprocess *preprocess,
                              struct hwgq_shape shape, int limit, struct dataset **dataset, struct hwgq_error *error) {
  const struct dataset_request request = {path, split, preprocess, shape, limit};
  struct stat about;
  bool found;
  if ((shape.channels != 1 && shape.channels != 3) || shape.height < 1 || shape.width < 1 ||
      shape.height > HWGQ_MAX_DIMENSION || shape.width > HWGQ_MAX_DIMENSION) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "images of %dx%d with %d channels cannot be made: 1 or 3 channels are possible",
                     shape.width, shape.height, shape.channels);
  }
  if (stat(path, &about)) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot open '%s': %s", path, strerror(errno));
  if (!S_ISDIR(about.st_mode)) return dataset_open_archive(&request, dataset, error);
  enum hwgq_status status = dataset_open_idx(&request, &found, dataset, error);
  if (status || found) return status;
  status = dataset_open_cifar(&request, &found, dataset, error);
  if (status || found) return status;
  return dataset_open_folder(&request, dataset, error);
}
