/* What a folder or an archive of images offers: paths first, then the choice of the split, the classes and the order. Internal
 * to models/data. */
#ifndef DATASET_INDEX_H
#define DATASET_INDEX_H

#include "models/data/dataset.h"
#include "models/image/image.h"

enum {
  DATASET_MAX_PATH = 4096,           /* bytes of a path within the source */
  DATASET_MAX_FILES = 1 << 24,       /* files that are looked at */
  DATASET_MAX_FILE_BYTES = 64 << 20, /* of one image or list */
  DATASET_MAX_DEPTH = 8,             /* folders within folders */
};

/* What every source is asked for. */
struct dataset_request {
  const char *path; /* of the source, for messages */
  enum dataset_split split;
  const struct hwgq_preprocess *preprocess;
  struct hwgq_shape shape;
  int limit;
};

/* Where a path puts an image. PART_ALL: under no folder named train, test or val. */
enum dataset_part { PART_NONE, PART_ALL, PART_TRAIN, PART_TEST, PART_VAL };

struct dataset_entry {
  char *path;       /* relative to the source */
  char *class_name; /* owned */
  enum dataset_part part;
  int label;   /* after dataset_index_choose */
  size_t slot; /* position in the order in which entries were added */
};

struct dataset_index {
  struct dataset_entry *entries;
  size_t count, capacity;
  char **other_classes; /* of images that are not kept: they take part in the numbering of labels */
  size_t other_count, other_capacity;
  char *annotations; /* text of val_annotations.txt (Tiny ImageNet): file name, tab, class, ... per line */
};

/* Notes a file of the source. *wanted: the image may belong to the split and was given an entry (the last one). Files that are
 * not images are passed over. */
enum hwgq_status dataset_index_add(struct dataset_index *index, const struct dataset_request *request, const char *path,
                                   bool *wanted, struct hwgq_error *error);
/* A class of images that were not kept. False without memory. */
bool dataset_index_add_class(struct dataset_index *index, const char *name, size_t length);
/* By its name. */
bool dataset_index_is_image(const char *name);
/* Where a path puts an image. PART_NONE: nowhere, it is hidden. */
enum dataset_part dataset_index_part(const char *path);
/* The file's text is worth handing to dataset_index_annotate. */
bool dataset_index_is_annotations(const char *path);
/* Takes ownership of the zero-terminated text. */
void dataset_index_annotate(struct dataset_index *index, char *text);
/* Chooses the entries of the split, sorts them by path, numbers the classes and keeps at most request->limit. Makes *dataset
 * with everything but pixels; index->entries[i] then belongs to image i. */
enum hwgq_status dataset_index_choose(struct dataset_index *index, const struct dataset_request *request,
                                      struct dataset **dataset, struct hwgq_error *error);
void dataset_index_release(struct dataset_index *index);
void dataset_entry_release(struct dataset_entry *entry);
const char *dataset_base_name(const char *path);

/* ---- shared by the sources (dataset.c) ----------------------------------------------------------------------------------- */

size_t dataset_image_bytes(const struct dataset_request *request);
/* An empty data set of `count` images, its arrays allocated but for pixels and names. HWGQ_ERROR_LIMIT when the pixels would
 * not fit in this machine's memory. */
enum hwgq_status dataset_allocate(const struct dataset_request *request, size_t count, int class_count,
                                  struct dataset **dataset, struct hwgq_error *error);
/* Refuses what would not fit in this machine's memory. */
enum hwgq_status dataset_check_memory(const struct dataset_request *request, size_t count, struct hwgq_error *error);
/* Decodes and preprocesses one image file. `where` names it in messages. */
enum hwgq_status dataset_decode(const struct dataset_request *request, const char *where, const uint8_t *bytes, size_t length,
                                uint8_t *pixels, struct hwgq_error *error);
/* Images that cannot be read. All are looked for, so that whoever mends them sees them at once. */
struct dataset_damage {
  int count;
  enum hwgq_status status;
  struct hwgq_error first; /* the message of the first */
  char more[200];          /* names of others, as many as fit */
  int named;               /* there */
};
/* Notes the status of an image, with its message, and gives what is to be done: HWGQ_OK, go on; else, without memory, stop. */
enum hwgq_status dataset_note(struct dataset_damage *damage, const char *name, enum hwgq_status status,
                              const struct hwgq_error *reason);
/* HWGQ_OK where all could be read, else the message of the first one and the names of more. */
enum hwgq_status dataset_damage_status(const struct dataset_damage *damage, struct hwgq_error *error);
/* Sets keep[i] for the `limit` images that come first when every class gives one in turn; for all when limit is 0. Returns how
 * many, or -1 without memory. */
long dataset_spread(const int *labels, size_t count, int class_count, int limit, bool *keep);
/* For sources that are one array: the labels of `count` images, `stride` bytes apart (below class_count), become a data set
 * without pixels and names, cut to request->limit. *original (malloc'ed): each image's position in the source. */
enum hwgq_status dataset_select(const struct dataset_request *request, const uint8_t *labels, size_t stride, size_t count,
                                int class_count, struct dataset **dataset, int **original, struct hwgq_error *error);
/* Names "0", "1", ... and "#0", "#1", ... */
enum hwgq_status dataset_number_names(struct dataset *dataset, const int *original, struct hwgq_error *error);

/* The sources. */
enum hwgq_status dataset_open_folder(const struct dataset_request *request, struct dataset **dataset, struct hwgq_error *error);
enum hwgq_status dataset_open_archive(const struct dataset_request *request, struct dataset **dataset,
                                      struct hwgq_error *error);
/* *found: the folder holds files of this kind; otherwise nothing was done. */
enum hwgq_status dataset_open_idx(const struct dataset_request *request, bool *found, struct dataset **dataset,
                                  struct hwgq_error *error);
enum hwgq_status dataset_open_cifar(const struct dataset_request *request, bool *found, struct dataset **dataset,
                                    struct hwgq_error *error);
/* The first `limit` bytes of what a gzip, xz, bzip2, zstd or unpacked file holds, or all when there are fewer. What follows is
 * not unpacked. malloc'ed. */
enum hwgq_status dataset_read_unpacked(const char *path, size_t limit, uint8_t **bytes, size_t *length,
                                       struct hwgq_error *error);
/* "folder/name", malloc'ed; NULL without memory. */
char *dataset_join(const char *folder, const char *name);

#endif
