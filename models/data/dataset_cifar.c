/* The binary version of CIFAR-10 (https://www.cs.toronto.edu/~kriz/cifar.html): per image one label byte, then 1024 bytes each
 * of red, green and blue, rows from the top. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/storage.h"
#include "models/data/index.h"

enum { SIDE = 32, PLANE = SIDE * SIDE, RECORD = 1 + 3 * PLANE, CLASSES = 10, TRAIN_BATCHES = 5 };

static const size_t max_batch_bytes = (size_t)RECORD * 100000;

/* All batches of the split behind each other. */
static enum hwgq_status append_batch(const char *folder, const char *name, uint8_t **records, size_t *count,
                                     struct hwgq_error *error) {
  uint8_t *bytes = NULL, *joined;
  size_t length;
  char *path = dataset_join(folder, name);
  if (!path) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", name);
  enum hwgq_status status = hwgq_storage_read(path, max_batch_bytes, &bytes, &length, error);
  if (!status && (length == 0 || length % RECORD != 0)) {
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' is damaged: %zu bytes are not a whole number of %d-byte records", path,
                       length, RECORD);
  }
  for (size_t i = 0; !status && i < length; i += RECORD) {
    if (bytes[i] >= CLASSES) {
      status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' is damaged: record %zu has label %d, not 0 to %d", path, i / RECORD,
                         bytes[i], CLASSES - 1);
    }
  }
  if (!status) {
    joined = realloc(*records, *count * RECORD + length);
    if (joined) {
      memcpy(joined + *count * RECORD, bytes, length);
      *records = joined;
      *count += length / RECORD;
    } else {
      status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for '%s'", path);
    }
  }
  free(bytes);
  free(path);
  return status;
}

static enum hwgq_status read_records(const char *folder, enum dataset_split split, uint8_t **records, size_t *count,
                                     struct hwgq_error *error) {
  if (split != DATASET_TRAIN) return append_batch(folder, "test_batch.bin", records, count, error);
  enum hwgq_status status = HWGQ_OK;
  for (int i = 1; i <= TRAIN_BATCHES && !status; i++) {
    char name[32];
    snprintf(name, sizeof name, "data_batch_%d.bin", i);
    status = append_batch(folder, name, records, count, error);
  }
  return status;
}

/* batches.meta.txt: one class name per line. Without it the names stay empty, to become numbers. */
static enum hwgq_status read_names(const char *folder, struct dataset *dataset, struct hwgq_error *error) {
  uint8_t *bytes;
  size_t length;
  char *path = dataset_join(folder, "batches.meta.txt");
  if (!path) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of batches.meta.txt");
  enum hwgq_status status = HWGQ_OK;
  if (access(path, F_OK) == 0) {
    status = hwgq_storage_read(path, 64 << 10, &bytes, &length, error);
    if (!status) {
      char *rest = NULL, *name = strtok_r((char *)bytes, "\r\n", &rest);
      for (int i = 0; i < dataset->class_count && name; i++, name = strtok_r(NULL, "\r\n", &rest))
        dataset->class_names[i] = strdup(name);
      free(bytes);
    }
  }
  free(path);
  return status;
}

static enum hwgq_status convert(const struct dataset_request *request, const uint8_t *records, const int *original,
                                struct dataset *dataset, struct hwgq_error *error) {
  size_t image_bytes = dataset_image_bytes(request);
  uint8_t pixels[3 * PLANE];
  const struct image image = {SIDE, SIDE, 3, pixels};
  dataset->pixels = malloc((size_t)dataset->count * image_bytes + 1);
  if (!dataset->pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of '%s'", request->path);
  for (int i = 0; i < dataset->count; i++) {
    const uint8_t *planes = records + (size_t)original[i] * RECORD + 1;
    for (int p = 0; p < PLANE; p++) {
      for (int c = 0; c < 3; c++) pixels[3 * p + c] = planes[c * PLANE + p];
    }
    enum hwgq_status status =
        image_preprocess(&image, request->preprocess, request->shape, dataset->pixels + (size_t)i * image_bytes, error);
    if (status) return status;
  }
  return HWGQ_OK;
}

static bool is_cifar_folder(const char *folder) {
  static const char *const marks[] = {"test_batch.bin", "data_batch_1.bin"};
  bool found = false;
  for (size_t i = 0; i < 2 && !found; i++) {
    char *path = dataset_join(folder, marks[i]);
    found = path && access(path, F_OK) == 0;
    free(path);
  }
  return found;
}

enum hwgq_status dataset_open_cifar(const struct dataset_request *request, bool *found, struct dataset **dataset,
                                    struct hwgq_error *error) {
  uint8_t *records = NULL;
  size_t count = 0;
  int *original = NULL;
  struct dataset *made = NULL;
  /* the official archive unpacks to a folder of this name */
  char *inner = dataset_join(request->path, "cifar-10-batches-bin");
  if (!inner) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the path of '%s'", request->path);
  const char *folder = is_cifar_folder(inner) ? inner : request->path;
  enum hwgq_status status = HWGQ_OK;
  *found = is_cifar_folder(folder);
  if (*found) {
    status = read_records(folder, request->split, &records, &count, error);
    if (!status) status = dataset_select(request, records, RECORD, count, CLASSES, &made, &original, error);
    if (!status) status = convert(request, records, original, made, error);
    if (!status) status = read_names(folder, made, error);
    if (!status) status = dataset_number_names(made, original, error);
  }
  free(records);
  free(original);
  free(inner);
  if (status) {
    dataset_destroy(made);
  } else if (*found) {
    *dataset = made;
  }
  return status;
}
