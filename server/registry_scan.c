#include "server/registry_scan.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char suffix[] = ".hwgq";
enum { SUFFIX = sizeof suffix - 1 };

struct scan {
  struct wanted_list *list;
  struct hwgq_error *error;
  const char *root; /* real path of the folder that files must stay in; NULL: any file */
  int source;       /* index of the entry of `models` */
};

static bool is_model_name(const char *file) {
  size_t length = strlen(file);
  return length > SUFFIX && file[0] != '.' && strcmp(file + length - SUFFIX, suffix) == 0;
}

/* A version of `length` digits; 0 when it is none. */
static int version_of(const char *text, size_t length) {
  int version = 0;
  if (length == 0 || length > REGISTRY_MAX_VERSION_DIGITS || text[0] == '0') return 0;
  for (size_t i = 0; i < length; i++) {
    if (text[i] < '0' || text[i] > '9') return 0;
    version = version * 10 + (text[i] - '0');
  }
  return version;
}

static enum hwgq_status no_memory(const struct scan *scan) {
  return hwgq_fail(scan->error, HWGQ_ERROR_MEMORY, "no memory");
}

static void fail_item(struct wanted *item, const char *what) {
  item->failed = true;
  hwgq_fail(&item->failure, HWGQ_ERROR_IO, "network '%s': %s: %s", item->name, item->path, what);
}

static bool is_inside(const struct scan *scan, const char *real) {
  size_t root = scan->root ? strlen(scan->root) : 0;
  return root <= 1 || (strncmp(real, scan->root, root) == 0 && real[root] == '/');
}

/* Replaces the path by the real one and refuses what is no regular file or is outside of the root. A file that is not there is
 * left to the loader, whose message tells more. */
static enum hwgq_status resolve(const struct scan *scan, struct wanted *item) {
  struct stat info;
  char *real = realpath(item->path, NULL);
  if (!real) return errno == ENOMEM ? no_memory(scan) : HWGQ_OK;
  if (!is_inside(scan, real)) {
    fail_item(item, "this link leads out of the folder of networks: move the file into the folder, or list it by itself");
  } else if (stat(real, &info) == 0 && !S_ISREG(info.st_mode)) {
    fail_item(item, "this is no regular file");
  }
  free(item->path);
  item->path = real;
  return HWGQ_OK;
}

/* Adds one file; the list takes the path. */
static enum hwgq_status add(const struct scan *scan, const char *name, int version, char *path) {
  struct wanted_list *list = scan->list;
  if (!path) return no_memory(scan);
  struct wanted *items =
      list->count < REGISTRY_MAX_FILES ? realloc(list->items, (size_t)(list->count + 1) * sizeof *items) : NULL;
  if (!items) {
    free(path);
    if (list->count < REGISTRY_MAX_FILES) return no_memory(scan);
    return hwgq_fail(scan->error, HWGQ_ERROR_LIMIT, "models: more than %d files", REGISTRY_MAX_FILES);
  }
  list->items = items;
  struct wanted *item = &items[list->count++];
  *item = (struct wanted){.version = version, .path = path, .source = scan->source};
  memcpy(item->name, name, strlen(name) + 1);
  return resolve(scan, item);
}

/* A folder that cannot be read, where a network or a version of it should be: `scan->error` says why. */
static enum hwgq_status add_unreadable(const struct scan *scan, const char *name, int version, const char *folder) {
  const struct hwgq_error why = *scan->error;
  enum hwgq_status status = add(scan, name, version, strdup(folder));
  if (status) return status;
  struct wanted *item = &scan->list->items[scan->list->count - 1];
  item->failed = item->unreadable = true;
  item->failure = why;
  return HWGQ_OK;
}

/* Notes why something is passed over. */
static bool skip(struct wanted_list *list, const struct hwgq_error *why) {
  struct hwgq_error *skipped = realloc(list->skipped, (size_t)(list->skipped_count + 1) * sizeof *skipped);
  if (!skipped) return false;
  list->skipped = skipped;
  list->skipped[list->skipped_count++] = *why;
  return true;
}

static char *join(const char *folder, const char *name) {
  struct text text = {0};
  text_printf(&text, "%s/%s", folder, name);
  return text_take(&text);
}

static bool is_folder(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* Names in a folder without those that begin with a dot, in byte order. */
static int visible(const struct dirent *file) {
  return file->d_name[0] != '.';
}
static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static int names_in(const struct scan *scan, const char *folder, struct dirent ***files) {
  int count = scandir(folder, files, visible, by_name);
  if (count < 0) {
    *files = NULL;
    hwgq_fail(scan->error, HWGQ_ERROR_IO, "models: cannot read the folder %s: %s", folder, strerror(errno));
  }
  return count;
}

static void free_names(struct dirent **files, int count) {
  for (int i = 0; i < count; i++) free(files[i]);
  free(files);
}

/* FOLDER/ANY.hwgq, the only one, as a version of the network; failed when there are none or several. */
static enum hwgq_status scan_version(const struct scan *scan, const char *name, int version, const char *folder) {
  struct dirent **files;
  int count = names_in(scan, folder, &files), found = 0, first = 0, last = 0;
  if (count < 0) return add_unreadable(scan, name, version, folder);
  enum hwgq_status status;
  for (int i = 0; i < count; i++) {
    if (!is_model_name(files[i]->d_name)) continue;
    if (found++ == 0) first = i;
    last = i;
  }
  status = add(scan, name, version, found == 1 ? join(folder, files[last]->d_name) : strdup(folder));
  struct wanted *item = !status && found != 1 ? &scan->list->items[scan->list->count - 1] : NULL;
  if (item && found == 0) fail_item(item, "this folder has no .hwgq file: add one, or remove the folder");
  if (item && found > 1 && is_inside(scan, item->path)) {
    hwgq_fail(
        &item->failure, HWGQ_ERROR_INVALID,
        "network '%s' has %d files for version %d, among them %s and %s in %s: one is needed, rename or remove the others",
        name, found, version, files[first]->d_name, files[last]->d_name, folder);
  }
  free_names(files, count);
  return status;
}

/* VERSION.hwgq and VERSION/ANY.hwgq. *found counts them. */
static enum hwgq_status scan_versions(const struct scan *scan, const char *name, const char *folder, int *found) {
  struct dirent **files;
  int count = names_in(scan, folder, &files);
  enum hwgq_status status = count < 0 ? HWGQ_ERROR_IO : HWGQ_OK;
  for (int i = 0; i < count && !status; i++) {
    const char *file = files[i]->d_name;
    size_t length = strlen(file) - (is_model_name(file) ? SUFFIX : 0);
    int version = version_of(file, length);
    if (!version) continue;
    char *path = join(folder, file);
    bool deeper = path && is_folder(path);
    if (deeper != (file[length] == 0)) { /* 3 is a folder and 3.hwgq a file, or it is something else */
      free(path);
      continue;
    }
    ++*found;
    if (!deeper) {
      status = add(scan, name, version, path);
      continue;
    }
    status = scan_version(scan, name, version, path);
    free(path);
  }
  free_names(files, count);
  return status;
}

/* The name and version that a file NAME.hwgq or NAME@VERSION.hwgq has. */
static bool split_name(const char *file, char *name, int *version) {
  size_t length = strlen(file);
  if (length > SUFFIX && strcmp(file + length - SUFFIX, suffix) == 0) length -= SUFFIX;
  const char *at = memchr(file, '@', length);
  *version = at ? version_of(at + 1, length - (size_t)(at + 1 - file)) : 0;
  if (at && !*version) return false;
  if (at) length = (size_t)(at - file);
  if (length > CONFIG_MAX_NAME) return false;
  memcpy(name, file, length);
  name[length] = 0;
  return config_name_valid(name);
}

static enum hwgq_status add_by_name(const struct scan *scan, const char *path, bool *named) {
  const char *slash = strrchr(path, '/');
  char name[CONFIG_MAX_NAME + 1];
  int version;
  *named = split_name(slash ? slash + 1 : path, name, &version);
  if (*named) return add(scan, name, version, strdup(path));
  return hwgq_fail(scan->error, HWGQ_ERROR_INVALID, "models: the file name of %s is no network name: give it one (NAME=PATH)",
                   path);
}

/* What lies in a folder of networks under this name, if it is one. */
static enum hwgq_status scan_file(const struct scan *scan, const char *file, const char *path, int *found) {
  if (is_folder(path)) {
    if (!config_name_valid(file)) return HWGQ_OK;
    enum hwgq_status status = scan_versions(scan, file, path, found);
    return status == HWGQ_ERROR_IO ? add_unreadable(scan, file, 0, path) : status;
  }
  if (!is_model_name(file)) return HWGQ_OK;
  bool named;
  enum hwgq_status status = add_by_name(scan, path, &named);
  *found += named;
  if (named) return status;
  return skip(scan->list, scan->error) ? HWGQ_OK : no_memory(scan);
}

static enum hwgq_status scan_folder(const struct scan *scan, const char *folder) {
  struct dirent **files;
  int count = names_in(scan, folder, &files), found = 0, skipped = scan->list->skipped_count;
  enum hwgq_status status = count < 0 ? HWGQ_ERROR_IO : HWGQ_OK;
  for (int i = 0; i < count && !status; i++) {
    char *path = join(folder, files[i]->d_name);
    status = path ? scan_file(scan, files[i]->d_name, path, &found) : no_memory(scan);
    free(path);
  }
  free_names(files, count);
  if (status || found) return status;
  if (skipped < scan->list->skipped_count) {
    *scan->error = scan->list->skipped[skipped];
    return HWGQ_ERROR_INVALID;
  }
  return hwgq_fail(scan->error, HWGQ_ERROR_INVALID, "models: there is no .hwgq file in the folder %s", folder);
}

static enum hwgq_status scan_model(struct scan *scan, const struct config_model *model) {
  int found = 0;
  scan->root = NULL;
  if (!is_folder(model->path)) {
    bool named;
    return model->name ? add(scan, model->name, 0, strdup(model->path)) : add_by_name(scan, model->path, &named);
  }
  char *root = realpath(model->path, NULL);
  if (!root) {
    return hwgq_fail(scan->error, HWGQ_ERROR_IO, "models: cannot read the folder %s: %s", model->path, strerror(errno));
  }
  scan->root = root;
  enum hwgq_status status = model->name ? scan_versions(scan, model->name, root, &found) : scan_folder(scan, root);
  if (!status && model->name && !found) {
    status = hwgq_fail(scan->error, HWGQ_ERROR_INVALID,
                       "models: '%s' is the folder %s, which has no versions (1.hwgq, 2/ANY.hwgq): name a .hwgq file, or list "
                       "the folder without a name",
                       model->name, model->path);
  }
  free(root);
  return status;
}

/* Two files for one version: nobody can say which is meant. It fails, and nothing else does. `other` is dropped. */
static void merge(struct wanted_list *list, struct wanted *item, struct wanted *other) {
  char which[32] = "";
  if (item->unreadable && !other->unreadable) {
    struct wanted swapped = *item;
    *item = *other;
    *other = swapped;
  }
  if (other->unreadable) { /* what is in there is not known: the other one is there */
    skip(list, &other->failure);
  } else {
    if (item->version) snprintf(which, sizeof which, " for version %d", item->version);
    item->failed = true;
    hwgq_fail(&item->failure, HWGQ_ERROR_INVALID,
              "models: network '%s' has two files%s: %s and %s: rename one of them, or give it another version", item->name,
              which, item->path, other->path);
  }
  free(other->path);
  list->count--;
  memmove(other, other + 1, (size_t)(list->items + list->count - other) * sizeof *other);
}

/* A file without a number is version 1 beside others that have one; afterwards every version is there once. */
static void settle(struct wanted_list *list) {
  for (int i = 0; i < list->count; i++) {
    struct wanted *item = &list->items[i];
    for (int j = 0; j < list->count && !item->version; j++) {
      const struct wanted *other = &list->items[j];
      if (other->version && strcmp(other->name, item->name) == 0) item->version = 1;
    }
  }
  for (int i = 0; i < list->count; i++) {
    for (int j = list->count - 1; j > i; j--) {
      struct wanted *item = &list->items[i], *other = &list->items[j];
      if (other->version == item->version && strcmp(other->name, item->name) == 0) merge(list, item, other);
    }
  }
}

/* Brings the versions of each name together, newest first, where the name came first, and drops the oldest beyond `versions`.
 * Selection by hand: the order of names must stay. */
static void arrange(struct wanted_list *list, int64_t versions) {
  for (int start = 0; start < list->count;) {
    int end = start;
    for (int i = start; i < list->count; i++) {
      struct wanted item = list->items[i];
      if (strcmp(item.name, list->items[start].name) != 0) continue;
      int place = start;
      while (place < end && list->items[place].version > item.version) place++;
      memmove(&list->items[place + 1], &list->items[place], (size_t)(i - place) * sizeof item);
      list->items[place] = item;
      end++;
    }
    int kept = end - start > versions ? start + (int)versions : end;
    for (int i = kept; i < end; i++) free(list->items[i].path);
    memmove(&list->items[kept], &list->items[end], (size_t)(list->count - end) * sizeof *list->items);
    list->count -= end - kept;
    start = kept;
  }
}

enum hwgq_status registry_scan(const struct config_model *models, int64_t model_count, int64_t versions,
                               struct wanted_list *list, struct hwgq_error *error) {
  struct scan scan = {.list = list, .error = error};
  enum hwgq_status status = HWGQ_OK;
  *list = (struct wanted_list){0};
  for (int64_t i = 0; i < model_count && !status; i++) {
    scan.source = (int)i;
    status = scan_model(&scan, &models[i]);
  }
  if (!status && list->count == 0) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "no network to serve: use --config FILE, or --models FILE.hwgq");
  }
  if (status) {
    registry_scan_release(list);
    return status;
  }
  settle(list);
  arrange(list, versions);
  return HWGQ_OK;
}

void registry_scan_release(struct wanted_list *list) {
  for (int i = 0; i < list->count; i++) free(list->items[i].path);
  free(list->items);
  free(list->skipped);
  *list = (struct wanted_list){0};
}
