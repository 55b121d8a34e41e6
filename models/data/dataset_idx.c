/* IDX files as MNIST and Fashion-MNIST have them (http://yann.lecun.com/exdb/mnist): big-endian 32-bit words, then bytes.
 * Images: 0x00000803, count, rows, columns, pixels. Labels: 0x00000801, count, labels. Either may be compressed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "models/data/index.h"

enum { IDX_IMAGES = 0x803, IDX_LABELS = 0x801, IMAGES_HEADER = 16, LABELS_HEADER = 8 };
static const size_t max_idx_bytes = (size_t)1 << 31;

struct idx {
  uint8_t *bytes; /* owned; data points into it */
  const uint8_t *data;
  uint32_t count, rows, columns; /* rows and columns 1 for labels */
};

/* "FOLDER/STEM-images-idx3-ubyte" in one of its spellings; NULL when there is none (or no memory). */
static char *find_file(const char *folder, const char *stem, const char *kind) {
  static const char separators[] = "-.";
  static const char *const endings[] = {"", ".gz"};
  for (size_t s = 0; s < 2; s++) {
    for (size_t e = 0; e < 2; e++) {
      char name[64];
      snprintf(name, sizeof name, "%s-%.6s%c%s%s", stem, kind, separators[s], kind + 7, endings[e]);
      char *path = dataset_join(folder, name);
      if (path && access(path, F_OK) == 0) return path;
      free(path);
    }
  }
  return NULL;
}

static char *find_split(const char *folder, enum dataset_split split, const char *kind) {
  if (split == DATASET_TRAIN) return find_file(folder, "train", kind);
  char *path = find_file(folder, "t10k", kind);
  return path ? path : find_file(folder, "test", kind);
}

static uint32_t word(const uint8_t *bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* The header alone. *size: bytes of data behind it. */
static enum hwgq_status read_header(const char *path, uint32_t magic, struct idx *idx, uint64_t *size,
                                    struct hwgq_error *error) {
  uint8_t *bytes;
  size_t length;
  bool images = magic == IDX_IMAGES;
  enum hwgq_status status = dataset_read_unpacked(path, IMAGES_HEADER, &bytes, &length, error);
  if (status) return status;
  if (length < (images ? IMAGES_HEADER : LABELS_HEADER) || word(bytes) != magic) {
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' is not an IDX file of %s: it must start with 0x%08x", path,
                       images ? "images" : "labels", magic);
  } else {
    idx->count = word(bytes + 4);
    idx->rows = images ? word(bytes + 8) : 1;
    idx->columns = images ? word(bytes + 12) : 1;
  }
  free(bytes);
  if (status) return status;
  bool possible = idx->count >= 1 && idx->count <= DATASET_MAX_FILES && idx->rows >= 1 && idx->columns >= 1 &&
                  idx->rows <= 4096 && idx->columns <= 4096;
  *size = possible ? (uint64_t)idx->rows * idx->columns * idx->count : 0;
  if (possible && *size <= max_idx_bytes) return HWGQ_OK;
  if (!images) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' states %u labels, which cannot be", path, idx->count);
  return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' states %u images of %ux%u, which cannot be", path, idx->count, idx->columns,
                   idx->rows);
}

static enum hwgq_status read_idx(const char *path, uint32_t magic, struct idx *idx, struct hwgq_error *error) {
  size_t length, header = magic == IDX_IMAGES ? IMAGES_HEADER : LABELS_HEADER;
  uint64_t size;
  enum hwgq_status status = read_header(path, magic, idx, &size, error);
  /* one byte more than there should be tells that there are more */
  if (!status) status = dataset_read_unpacked(path, header + size + 1, &idx->bytes, &length, error);
  if (!status && length != header + size) {
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' is damaged: %llu bytes of data expected for %u entries, %s found", path,
                       (unsigned long long)size, idx->count, length < header + size ? "fewer" : "more");
  }
  if (status) {
    free(idx->bytes);
    *idx = (struct idx){0};
  } else {
    idx->data = idx->bytes + header;
  }
  return status;
}

static enum hwgq_status read_labels(const struct dataset_request *request, enum dataset_split split, struct idx *labels,
                                    struct hwgq_error *error) {
  char *path = find_split(request->path, split, "labels-idx1-ubyte");
  if (!path) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%s' has no %s-labels-idx1-ubyte[.gz]", request->path,
                     split == DATASET_TRAIN ? "train" : "t10k");
  }
  enum hwgq_status status = read_idx(path, IDX_LABELS, labels, error);
  free(path);
  return status;
}

/* Labels of both splits count, so that training and test sets have the same classes. */
static enum hwgq_status count_classes(const struct dataset_request *request, const struct idx *labels, int *class_count,
                                      struct hwgq_error *error) {
  enum dataset_split other_split = request->split == DATASET_TRAIN ? DATASET_TEST : DATASET_TRAIN;
  struct idx other = {0};
  char *path = find_split(request->path, other_split, "labels-idx1-ubyte");
  enum hwgq_status status = path ? read_labels(request, other_split, &other, error) : HWGQ_OK;
  free(path);
  *class_count = 0;
  for (uint32_t i = 0; i < labels->count; i++) {
    if (labels->data[i] >= *class_count) *class_count = labels->data[i] + 1;
  }
  for (uint32_t i = 0; i < other.count; i++) {
    if (other.data[i] >= *class_count) *class_count = other.data[i] + 1;
  }
  free(other.bytes);
  return status;
}

static enum hwgq_status convert(const struct dataset_request *request, const struct idx *images, struct dataset *dataset,
                                const int *original, struct hwgq_error *error) {
  size_t image_bytes = dataset_image_bytes(request), source_bytes = (size_t)images->rows * images->columns;
  dataset->pixels = malloc((size_t)dataset->count * image_bytes + 1);
  if (!dataset->pixels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of '%s'", request->path);
  for (int i = 0; i < dataset->count; i++) {
    const uint8_t *source = images->data + (size_t)original[i] * source_bytes;
    /* the image only borrows the bytes: nothing writes to them */
    const struct image image = {(int)images->columns, (int)images->rows, 1, (uint8_t *)(uintptr_t)source};
    enum hwgq_status status =
        image_preprocess(&image, request->preprocess, request->shape, dataset->pixels + (size_t)i * image_bytes, error);
    if (status) return status;
  }
  return dataset_number_names(dataset, original, error);
}

static enum hwgq_status make_dataset(const struct dataset_request *request, const struct idx *images, const struct idx *labels,
                                     struct dataset **dataset, struct hwgq_error *error) {
  int class_count, *original;
  struct dataset *made;
  if (images->count != labels->count) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "'%s' has %u images but %u labels", request->path, images->count, labels->count);
  }
  enum hwgq_status status = count_classes(request, labels, &class_count, error);
  if (!status) status = dataset_select(request, labels->data, 1, labels->count, class_count, &made, &original, error);
  if (status) return status;
  status = convert(request, images, made, original, error);
  free(original);
  if (status) {
    dataset_destroy(made);
  } else {
    *dataset = made;
  }
  return status;
}

enum hwgq_status dataset_open_idx(const struct dataset_request *request, bool *found, struct dataset **dataset,
                                  struct hwgq_error *error) {
  struct idx images = {0}, labels = {0};
  static const char kind[] = "images-idx3-ubyte";
  char *train = find_split(request->path, DATASET_TRAIN, kind), *test = find_split(request->path, DATASET_TEST, kind);
  const char *path = request->split == DATASET_TRAIN ? train : test;
  enum hwgq_status status = HWGQ_OK;
  *found = train || test;
  if (*found && !path) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "'%s' has no %s-%s[.gz]", request->path,
                       request->split == DATASET_TRAIN ? "train" : "t10k", kind);
  }
  if (path) {
    status = read_idx(path, IDX_IMAGES, &images, error);
    if (!status) status = read_labels(request, request->split, &labels, error);
    if (!status) status = make_dataset(request, &images, &labels, dataset, error);
  }
  free(images.bytes);
  free(labels.bytes);
  free(train);
  free(test);
  return status;
}
