#include "models/data/archive_links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* `path`, beside the last component of `base` (NULL: from the top), without empty, "." and ".." components. malloc'ed. *leaves:
 * it is NULL because the path is absolute or leads above the top, not for want of memory. */
static char *resolve(const char *base, const char *path, bool *leaves) {
  const char *slash = base ? strrchr(base, '/') : NULL;
  size_t length = slash ? (size_t)(slash - base) : 0;
  char *result = malloc(length + strlen(path) + 2);
  *leaves = false;
  if (!result) return NULL;
  if (length) memcpy(result, base, length);
  result[length] = 0;
  *leaves = base && path[0] == '/';
  while (*path && !*leaves) {
    size_t part = strcspn(path, "/");
    if (part == 2 && path[0] == '.' && path[1] == '.') {
      *leaves = length == 0;
      while (length > 0 && result[--length] != '/') continue;
    } else if (part > 0 && !(part == 1 && path[0] == '.')) {
      if (length) result[length++] = '/';
      memcpy(result + length, path, part);
      length += part;
    }
    result[length] = 0;
    path += part;
    if (*path) path++;
  }
  if (!*leaves) return result;
  free(result);
  return NULL;
}

bool archive_links_add(struct archive_links *links, const char *path, const char *stated, bool hard, bool image, size_t slot) {
  bool leaves = false, ignored;
  if (links->count == links->capacity) {
    size_t capacity = links->capacity ? links->capacity * 2 : 64;
    struct archive_link *list = reallocarray(links->list, capacity, sizeof *list);
    if (!list) return false;
    links->list = list;
    links->capacity = capacity;
  }
  struct archive_link link = {.path = resolve(NULL, path, &ignored), .stated = strdup(stated), .image = image, .slot = slot};
  if (!link.path && ignored) { /* ".../../x": such an image has been refused */
    free(link.stated);
    return true;
  }
  link.target = link.path ? resolve(hard ? NULL : link.path, stated, &leaves) : NULL;
  if (link.path && link.stated && (link.target || leaves)) {
    links->list[links->count++] = link;
    return true;
  }
  free(link.path);
  free(link.stated);
  free(link.target);
  return false;
}

static int compare_paths(const void *a, const void *b) {
  return strcmp(((const struct archive_link *)a)->path, ((const struct archive_link *)b)->path);
}

static int compare_finals(const void *a, const void *b) {
  return strcmp((*(struct archive_link *const *)a)->final, (*(struct archive_link *const *)b)->final);
}

bool archive_links_follow(struct archive_links *links) {
  links->by_final = calloc(links->count + 1, sizeof *links->by_final);
  if (!links->by_final) return false;
  qsort(links->list, links->count, sizeof *links->list, compare_paths);
  for (size_t i = 0; i < links->count; i++) {
    struct archive_link key = {.path = links->list[i].target}, *next = &key;
    for (int hops = 0; next && key.path && hops < DATASET_MAX_DEPTH; hops++) {
      next = bsearch(&key, links->list, links->count, sizeof key, compare_paths);
      if (next) key.path = next->target;
    }
    if (next || !key.path) continue; /* in a circle, or out of the archive */
    links->list[i].final = key.path;
    links->by_final[links->final_count++] = &links->list[i];
  }
  qsort(links->by_final, links->final_count, sizeof *links->by_final, compare_finals);
  return true;
}

/* Those that end at the path's first `length` bytes. */
static struct archive_link **find_final(const struct archive_links *links, const char *path, size_t length, size_t *count) {
  size_t low = 0, high = links->final_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    const char *final = links->by_final[middle]->final;
    int order = strncmp(final, path, length);
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  size_t end = low;
  while (end < links->final_count && !strncmp(links->by_final[end]->final, path, length) &&
         !links->by_final[end]->final[length])
    end++;
  *count = end - low;
  return links->by_final + low;
}

struct archive_link **archive_links_note(struct archive_links *links, const char *path, size_t *count) {
  bool leaves;
  char *clean = resolve(NULL, path, &leaves);
  *count = 0;
  if (!clean) return links->by_final; /* leads above the top: no link leads there */
  for (const char *slash = strchr(clean, '/'); slash; slash = strchr(slash + 1, '/')) {
    struct archive_link **folder = find_final(links, clean, (size_t)(slash - clean), count);
    for (size_t i = 0; i < *count; i++) {
      folder[i]->beneath = true;
      folder[i]->images = folder[i]->images || dataset_index_is_image(clean);
    }
  }
  struct archive_link **same = find_final(links, clean, strlen(clean), count);
  for (size_t i = 0; i < *count; i++) same[i]->found = true;
  free(clean);
  return same;
}

/* A link that is no image matters where it may stand for a folder of them, or is the list of classes. */
static bool is_harmless(const struct archive_link *link, bool undivided) {
  char below[DATASET_MAX_PATH + 16];
  if (dataset_index_is_annotations(link->path)) return false;
  if (link->found || (link->beneath && !link->images) || dataset_index_is_image(link->path)) return true;
  snprintf(below, sizeof below, "%.*s/class/image", DATASET_MAX_PATH, link->path);
  enum dataset_part part = dataset_index_part(below);
  return part == PART_NONE || (part == PART_ALL && !undivided);
}

enum hwgq_status archive_links_check(const struct archive_links *links, const char *archive, const bool *used, bool undivided,
                                     struct hwgq_error *error) {
  for (size_t i = 0; i < links->count; i++) {
    const struct archive_link *link = &links->list[i];
    if (link->image ? link->found || !used[link->slot] : is_harmless(link, undivided)) continue;
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "'%.150s' in '%.100s' is a link to '%.100s', %s: put the files themselves into the archive (tar "
                     "--dereference; zip follows links by itself)",
                     link->path, archive, link->stated,
                     link->beneath ? "a folder, and links to folders are not followed in archives"
                     : link->found ? "and links to lists of classes are not followed"
                                   : "which is no file of the archive");
  }
  return HWGQ_OK;
}

void archive_links_release(struct archive_links *links) {
  for (size_t i = 0; i < links->count; i++) {
    free(links->list[i].path);
    free(links->list[i].stated);
    free(links->list[i].target);
  }
  free(links->list);
  free(links->by_final);
  *links = (struct archive_links){0};
}
