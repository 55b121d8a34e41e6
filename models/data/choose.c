#include <stdlib.h>
#include <string.h>

#include "models/data/index.h"

/* Tiny ImageNet's test/images has no classes. */
static bool is_unlabelled(const struct dataset_index *index, const struct dataset_entry *entry) {
  return index->annotations && entry->part == PART_TEST && !strcmp(entry->class_name, "images");
}

/* The classes of what is dropped stay, but for images beside the splits: those are in no split. False without memory. */
static bool keep_part(struct dataset_index *index, enum dataset_part part) {
  size_t kept = 0;
  for (size_t i = 0; i < index->count; i++) {
    const struct dataset_entry *entry = &index->entries[i];
    if (entry->part == part || entry->part == PART_ALL || is_unlabelled(index, entry)) continue;
    if (!dataset_index_add_class(index, entry->class_name, strlen(entry->class_name))) return false;
  }
  for (size_t i = 0; i < index->count; i++) {
    if (index->entries[i].part == part && !is_unlabelled(index, &index->entries[i])) {
      index->entries[kept++] = index->entries[i];
    } else {
      dataset_entry_release(&index->entries[i]);
    }
  }
  index->count = kept;
  return true;
}

/* Drops every entry that is not of the split. */
static enum hwgq_status choose_part(struct dataset_index *index, const struct dataset_request *request,
                                    struct hwgq_error *error) {
  size_t counts[PART_VAL + 1] = {0};
  for (size_t i = 0; i < index->count; i++) counts[index->entries[i].part] += !is_unlabelled(index, &index->entries[i]);
  bool train = request->split == DATASET_TRAIN, val = request->split == DATASET_VAL;
  enum dataset_part part = train ? PART_TRAIN : val ? PART_VAL : PART_TEST;
  if (!train && !counts[part]) part = val ? PART_TEST : PART_VAL;
  if (!counts[part] && index->other_count > 0) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%s' has images in %s but none in %s", request->path,
                     train ? "test/ or val/" : "train/", train ? "train/CLASS/" : "test/CLASS/ or val/CLASS/");
  }
  if (!counts[part]) part = PART_ALL;
  if (!counts[part]) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "'%s' holds no images: expected train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE", request->path);
  }
  if (keep_part(index, part)) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the classes of '%s'", request->path);
}

/* Without splits the class is the first folder, after folders that all images share. */
static enum hwgq_status name_unsplit_classes(struct dataset_index *index, const struct dataset_request *request,
                                             struct hwgq_error *error) {
  size_t skip = 0;
  if (index->count == 0 || index->entries[0].part != PART_ALL) return HWGQ_OK;
  for (;;) {
    const char *first = index->entries[0].path;
    size_t length = strcspn(first + skip, "/") + 1;
    bool shared = true;
    for (size_t i = 0; i < index->count && shared; i++) {
      const char *path = index->entries[i].path;
      shared = !strncmp(path, first, skip + length) && strchr(path + skip, '/') && strchr(path + skip + length, '/');
    }
    if (!shared) break;
    skip += length;
  }
  for (size_t i = 0; i < index->count; i++) {
    struct dataset_entry *entry = &index->entries[i];
    size_t length = strcspn(entry->path + skip, "/");
    if (!entry->path[skip + length]) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%s' in '%s' is in no folder that names its class: expected CLASS/IMAGE",
                       entry->path, request->path);
    }
    free(entry->class_name);
    entry->class_name = strndup(entry->path + skip, length);
    if (!entry->class_name) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the classes of '%s'", request->path);
  }
  return HWGQ_OK;
}

/* ---- Tiny ImageNet's val/images with val_annotations.txt ----------------------------------------------------------------- */

struct annotation {
  const char *file, *class_name;
};

static int compare_annotations(const void *a, const void *b) {
  return strcmp(((const struct annotation *)a)->file, ((const struct annotation *)b)->file);
}

/* Cuts the text into (file, class) pairs, in place, sorted by file. */
static struct annotation *parse_annotations(char *text, size_t *count) {
  size_t lines = 1;
  for (const char *c = text; *c; c++) lines += *c == '\n';
  struct annotation *list = calloc(lines, sizeof *list);
  *count = 0;
  for (char *line = text; list && line;) {
    char *end = strchr(line, '\n');
    if (end) *end++ = 0;
    char *class_name = strchr(line, '\t');
    if (class_name) {
      *class_name++ = 0;
      class_name[strcspn(class_name, "\t\r")] = 0;
      list[(*count)++] = (struct annotation){line, class_name};
    }
    line = end;
  }
  if (list) qsort(list, *count, sizeof *list, compare_annotations);
  return list;
}

static enum hwgq_status apply_annotations(struct dataset_index *index, const struct dataset_request *request,
                                          struct hwgq_error *error) {
  size_t count, others = 0;
  if (!index->annotations) return HWGQ_OK;
  struct annotation *list = parse_annotations(index->annotations, &count);
  enum hwgq_status status = list ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for val_annotations.txt");
  for (size_t i = 0; i < index->count && !status; i++) {
    struct dataset_entry *entry = &index->entries[i];
    if (entry->part != PART_VAL || strcmp(entry->class_name, "images") != 0) continue;
    struct annotation key = {dataset_base_name(entry->path), NULL};
    const struct annotation *found = bsearch(&key, list, count, sizeof *list, compare_annotations);
    char *class_name = found && found->class_name[0] ? strdup(found->class_name) : NULL;
    if (class_name) {
      free(entry->class_name);
      entry->class_name = class_name;
    } else {
      status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "val_annotations.txt of '%s' does not name the class of '%s'", request->path,
                         entry->path);
    }
  }
  for (size_t i = 0; i < index->other_count; i++) {
    if (strcmp(index->other_classes[i], "images") != 0) {
      index->other_classes[others++] = index->other_classes[i];
    } else {
      free(index->other_classes[i]);
    }
  }
  index->other_count = others;
  for (size_t i = 0; i < count && !status; i++) {
    if (list[i].class_name[0] && !dataset_index_add_class(index, list[i].class_name, strlen(list[i].class_name)))
      status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for val_annotations.txt");
  }
  free(list);
  return status;
}

/* ---- classes, order, limit ----------------------------------------------------------------------------------------------- */

struct class_list {
  char **names; /* owned, in byte order, each once */
  size_t count;
};

static int compare_names(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_entries(const void *a, const void *b) {
  return strcmp(((const struct dataset_entry *)a)->path, ((const struct dataset_entry *)b)->path);
}

static void class_list_release(struct class_list *classes) {
  for (size_t i = 0; i < classes->count; i++) free(classes->names[i]);
  free(classes->names);
}

/* Classes of all splits, so that a class that one split lacks does not shift the labels. */
static bool class_list_make(const struct dataset_index *index, struct class_list *classes) {
  size_t total = 0;
  const char **all = calloc(index->count + index->other_count + 1, sizeof *all);
  *classes = (struct class_list){calloc(index->count + index->other_count + 1, sizeof *classes->names), 0};
  bool ok = all && classes->names;
  for (size_t i = 0; ok && i < index->count; i++) {
    if (total == 0 || strcmp(all[total - 1], index->entries[i].class_name) != 0) all[total++] = index->entries[i].class_name;
  }
  for (size_t i = 0; ok && i < index->other_count; i++) all[total++] = index->other_classes[i];
  if (ok) qsort(all, total, sizeof *all, compare_names);
  for (size_t i = 0; ok && i < total; i++) {
    if (classes->count > 0 && !strcmp(classes->names[classes->count - 1], all[i])) continue;
    char *copy = strdup(all[i]);
    ok = copy;
    if (copy) classes->names[classes->count++] = copy;
  }
  free(all);
  return ok;
}

/* Keeps the first `limit` images, evenly over the classes. */
static bool apply_limit(struct dataset_index *index, size_t class_count, int limit) {
  int *labels = calloc(index->count + 1, sizeof *labels);
  bool *keep = calloc(index->count + 1, sizeof *keep);
  size_t kept = 0;
  bool ok = labels && keep;
  for (size_t i = 0; ok && i < index->count; i++) labels[i] = index->entries[i].label;
  ok = ok && dataset_spread(labels, index->count, (int)class_count, limit, keep) >= 0;
  for (size_t i = 0; ok && i < index->count; i++) {
    if (keep[i]) {
      index->entries[kept++] = index->entries[i];
    } else {
      dataset_entry_release(&index->entries[i]);
    }
  }
  if (ok) index->count = kept;
  free(labels);
  free(keep);
  return ok;
}

static enum hwgq_status build(const struct dataset_index *index, const struct dataset_request *request,
                              const struct class_list *classes, struct dataset **dataset, struct hwgq_error *error) {
  struct dataset *made;
  bool ok = true;
  enum hwgq_status status = dataset_allocate(request, index->count, (int)classes->count, &made, error);
  if (status) return status;
  enum dataset_part part = index->count > 0 ? index->entries[0].part : PART_NONE;
  made->undivided = part == PART_ALL;
  made->split = part == PART_TRAIN  ? DATASET_TRAIN
                : part == PART_TEST ? DATASET_TEST
                : part == PART_VAL  ? DATASET_VAL
                                    : request->split;
  for (size_t i = 0; i < classes->count && ok; i++) ok = (made->class_names[i] = strdup(classes->names[i]));
  for (size_t i = 0; i < index->count && ok; i++) {
    made->labels[i] = index->entries[i].label;
    ok = (made->file_names[i] = strdup(index->entries[i].path));
  }
  if (!ok) {
    dataset_destroy(made);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the names of '%s'", request->path);
  }
  *dataset = made;
  return HWGQ_OK;
}

enum hwgq_status dataset_index_choose(struct dataset_index *index, const struct dataset_request *request,
                                      struct dataset **dataset, struct hwgq_error *error) {
  struct class_list classes;
  enum hwgq_status status = choose_part(index, request, error);
  if (!status) status = name_unsplit_classes(index, request, error);
  if (!status) status = apply_annotations(index, request, error);
  if (status) return status;
  qsort(index->entries, index->count, sizeof *index->entries, compare_entries);
  if (!class_list_make(index, &classes)) {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the classes of '%s'", request->path);
  } else if (classes.count > HWGQ_MAX_CLASSES) {
    status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "'%s' has %zu classes, more than the %d that a model may have", request->path,
                       classes.count, HWGQ_MAX_CLASSES);
  } else {
    for (size_t i = 0; i < index->count; i++) {
      char **found = bsearch(&index->entries[i].class_name, classes.names, classes.count, sizeof *classes.names, compare_names);
      index->entries[i].label = (int)(found - classes.names);
    }
    status = apply_limit(index, classes.count, request->limit)
                 ? build(index, request, &classes, dataset, error)
                 : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to choose among the images of '%s'", request->path);
  }
  class_list_release(&classes);
  return status;
}
