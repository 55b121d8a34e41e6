#include "server/registry.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Everything known under one name. Entries are never removed, only their model is: counts and version go on if it comes back.
 */
struct entry {
  char name[CONFIG_MAX_NAME + 1];
  struct stats *stats;
  struct served_model *model; /* NULL: not served now */
  int version;                /* of the last model; 0: there was none */
  char digest[40];            /* of the last model */
  struct hwgq_error reload_error;
};

struct registry {
  pthread_mutex_t mutex;
  struct entry entries[CONFIG_MAX_MODELS];
  int entry_count;
  int order[CONFIG_MAX_MODELS];   /* indices of the served entries, as configured */
  int order_count, default_index; /* default_index: into order */
};

/* What the configuration asks for, folders expanded. */
struct wanted {
  char name[CONFIG_MAX_NAME + 1];
  char *path;
  struct served_model *model; /* loaded anew; NULL: keep what is there */
  struct hwgq_error failure;
};

struct wanted_list {
  struct wanted *items;
  int count;
};

struct registry *registry_create(void) {
  struct registry *registry = calloc(1, sizeof *registry);
  if (registry && pthread_mutex_init(&registry->mutex, NULL)) {
    free(registry);
    registry = NULL;
  }
  return registry;
}

void registry_release(struct served_model *model) {
  if (!model || atomic_fetch_sub(&model->references, 1) != 1) return;
  classifier_destroy(model->classifier);
  free(model->path);
  free(model);
}

void registry_destroy(struct registry *registry) {
  if (!registry) return;
  for (int i = 0; i < registry->entry_count; i++) {
    registry_release(registry->entries[i].model);
    stats_destroy(registry->entries[i].stats);
  }
  pthread_mutex_destroy(&registry->mutex);
  free(registry);
}

static void wanted_release(struct wanted_list *list) {
  for (int i = 0; i < list->count; i++) {
    registry_release(list->items[i].model);
    free(list->items[i].path);
  }
  free(list->items);
}

static enum hwgq_status want(struct wanted_list *list, const char *name, const char *path, struct hwgq_error *error) {
  char stem[CONFIG_MAX_NAME + 1];
  if (!name) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    size_t length = strlen(base);
    if (length > 5 && strcmp(base + length - 5, ".hwgq") == 0) length -= 5;
    if (length > CONFIG_MAX_NAME) length = CONFIG_MAX_NAME;
    memcpy(stem, base, length);
    stem[length] = 0;
    if (!config_name_valid(stem)) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "models: the file name of %s is no network name: give it one (NAME=PATH)",
                       path);
    }
    name = stem;
  }
  for (int i = 0; i < list->count; i++) {
    if (strcmp(list->items[i].name, name) == 0) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "models: two networks are called '%s': %s and %s", name, list->items[i].path,
                       path);
    }
  }
  if (list->count == CONFIG_MAX_MODELS) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "models: more than %d networks", CONFIG_MAX_MODELS);
  }
  struct wanted *items = realloc(list->items, (size_t)(list->count + 1) * sizeof *items);
  if (!items) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  list->items = items;
  struct wanted *item = &items[list->count++];
  *item = (struct wanted){.path = strdup(path)};
  memcpy(item->name, name, strlen(name) + 1);
  return item->path ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
}

static int is_model_file(const struct dirent *file) {
  size_t length = strlen(file->d_name);
  return length > 5 && file->d_name[0] != '.' && strcmp(file->d_name + length - 5, ".hwgq") == 0;
}

static enum hwgq_status want_folder(struct wanted_list *list, const char *folder, struct hwgq_error *error) {
  struct dirent **files;
  enum hwgq_status status = HWGQ_OK;
  int count = scandir(folder, &files, is_model_file, alphasort);
  if (count < 0) return hwgq_fail(error, HWGQ_ERROR_IO, "models: cannot read the folder %s: %s", folder, strerror(errno));
  if (count == 0) status = hwgq_fail(error, HWGQ_ERROR_INVALID, "models: there is no .hwgq file in the folder %s", folder);
  for (int i = 0; i < count; i++) {
    struct text path = {0};
    text_printf(&path, "%s/%s", folder, files[i]->d_name);
    if (!status) status = path.failed ? hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory") : want(list, NULL, path.data, error);
    text_release(&path);
    free(files[i]);
  }
  free(files);
  return status;
}

static enum hwgq_status want_all(struct wanted_list *list, const struct config *config, int *default_index,
                                 struct hwgq_error *error) {
  for (int64_t i = 0; i < config->model_count; i++) {
    const struct config_model *model = &config->models[i];
    struct stat info;
    bool folder = stat(model->path, &info) == 0 && S_ISDIR(info.st_mode);
    if (folder && model->name) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID,
                       "models: '%s' is the folder %s: name a .hwgq file, or list the folder without a name", model->name,
                       model->path);
    }
    enum hwgq_status status = folder ? want_folder(list, model->path, error) : want(list, model->name, model->path, error);
    if (status) return status;
  }
  if (list->count == 0) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "no network to serve: use --config FILE, or --models FILE.hwgq");
  }
  *default_index = 0;
  if (!config->default_model) return HWGQ_OK;
  for (int i = 0; i < list->count; i++) {
    if (strcmp(list->items[i].name, config->default_model) == 0) {
      *default_index = i;
      return HWGQ_OK;
    }
  }
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "default_model: there is no network '%s' among the %d in models",
                   config->default_model, list->count);
}

static enum hwgq_status load(struct wanted *wanted, const char *cpu, struct hwgq_error *error) {
  struct served_model *model = calloc(1, sizeof *model);
  struct hwgq_error why = {{0}};
  enum hwgq_status status = HWGQ_ERROR_MEMORY;
  if (model && (model->path = strdup(wanted->path))) {
    memcpy(model->name, wanted->name, sizeof model->name);
    atomic_init(&model->references, 1);
    status = classifier_open(wanted->path, cpu, &model->classifier, &why);
    /* The plan has its own copy of the weights; the description is kept for GET /v1/models/{name}. */
    if (!status) hwgq_network_release_parameters(model->classifier->model->network);
  }
  if (status) {
    if (model) free(model->path);
    free(model);
    const char *prefix = strstr(why.message, wanted->path) ? "" : wanted->path;
    const bool file = status == HWGQ_ERROR_IO || status == HWGQ_ERROR_FORMAT; /* not for an unknown kernel set */
    return hwgq_fail(error, status, "network '%s': %s%s%s%s", wanted->name, prefix, *prefix ? ": " : "",
                     why.message[0] ? why.message : "no memory",
                     file ? "; correct `models`, or make the file (hwgq train, hwgq import)" : "");
  }
  wanted->model = model;
  return HWGQ_OK;
}

/* The entry of that name, made when missing; NULL when there is no room or memory. The mutex is held. */
static struct entry *entry_of(struct registry *registry, const char *name) {
  for (int i = 0; i < registry->entry_count; i++) {
    if (strcmp(registry->entries[i].name, name) == 0) return &registry->entries[i];
  }
  if (registry->entry_count == CONFIG_MAX_MODELS) return NULL;
  struct entry *entry = &registry->entries[registry->entry_count];
  entry->stats = stats_create();
  if (!entry->stats) return NULL;
  memcpy(entry->name, name, strlen(name) + 1);
  registry->entry_count++;
  return entry;
}

/* Makes the entries that are missing, so that nothing can fail once the exchange has begun. */
static enum hwgq_status make_entries(struct registry *registry, const struct wanted_list *list, struct hwgq_error *error) {
  enum hwgq_status status = HWGQ_OK;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < list->count && !status; i++) {
    if (entry_of(registry, list->items[i].name)) continue;
    status = registry->entry_count < CONFIG_MAX_MODELS
                 ? hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the statistics of network '%s'", list->items[i].name)
                 : hwgq_fail(error, HWGQ_ERROR_LIMIT,
                             "models: with '%s' there were more than %d network names since the start, and the counts of each "
                             "are kept: restart to forget the old ones",
                             list->items[i].name, CONFIG_MAX_MODELS);
  }
  pthread_mutex_unlock(&registry->mutex);
  return status;
}

/* Puts the loaded model in its entry's place. Returns the one that is no longer needed. */
static struct served_model *replace(struct entry *entry, struct wanted *wanted) {
  struct served_model *old = entry->model, *new = wanted->model;
  const char *digest = new->classifier->model->digest;
  wanted->model = NULL;
  new->stats = entry->stats;
  if (strcmp(entry->digest, digest) != 0) entry->version++;
  memcpy(entry->digest, digest, sizeof entry->digest);
  new->version = entry->version;
  entry->model = new;
  return old;
}

/* Makes the list the truth, under the lock; what is replaced is put in `old` for release after it. */
static int exchange(struct registry *registry, struct wanted_list *list, int default_index, struct served_model **old) {
  bool served[CONFIG_MAX_MODELS] = {false};
  int old_count = 0, order_count = 0, new_default = 0;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < list->count; i++) {
    struct entry *entry = entry_of(registry, list->items[i].name);
    entry->reload_error = list->items[i].failure;
    if (list->items[i].model) {
      old[old_count] = replace(entry, &list->items[i]);
      if (old[old_count]) old_count++;
    }
    if (!entry->model) continue;
    if (i == default_index) new_default = order_count;
    registry->order[order_count++] = (int)(entry - registry->entries);
    served[entry - registry->entries] = true;
  }
  registry->order_count = order_count;
  registry->default_index = new_default;
  for (int i = 0; i < registry->entry_count; i++) {
    struct entry *entry = &registry->entries[i];
    if (served[i] || !entry->model) continue;
    old[old_count++] = entry->model;
    entry->model = NULL;
  }
  pthread_mutex_unlock(&registry->mutex);
  return old_count;
}

enum hwgq_status registry_load(struct registry *registry, const struct config *config, bool keep_old, const struct log *log,
                               struct hwgq_error *error) {
  struct wanted_list list = {0};
  struct served_model *old[2 * CONFIG_MAX_MODELS];
  int default_index = 0;
  enum hwgq_status status = want_all(&list, config, &default_index, error);
  for (int i = 0; i < list.count && !status; i++) {
    struct hwgq_error why;
    enum hwgq_status failed = load(&list.items[i], config->cpu, &why);
    if (!failed) continue;
    if (!keep_old) {
      status = hwgq_fail(error, failed, "%s", why.message);
      break;
    }
    list.items[i].failure = why;
    struct served_model *current = registry_acquire(registry, list.items[i].name);
    if (!current && i == default_index) {
      status = hwgq_fail(error, failed, "the default network cannot be loaded and none of its name is served: %s", why.message);
      break;
    }
    log_event(log, LOG_ERROR,
              current ? "reload failed, the network as it was goes on serving" : "reload failed, the network is not served",
              log_string("model", list.items[i].name), log_string("error", why.message));
    registry_release(current);
  }
  if (!status) status = make_entries(registry, &list, error);
  if (!status) {
    int old_count = exchange(registry, &list, default_index, old);
    for (int i = 0; i < old_count; i++) registry_release(old[i]);
  }
  wanted_release(&list);
  return status;
}

struct served_model *registry_acquire(struct registry *registry, const char *name) {
  struct served_model *model = NULL;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < registry->order_count && !model; i++) {
    struct entry *entry = &registry->entries[registry->order[i]];
    if (name ? strcmp(entry->name, name) == 0 : i == registry->default_index) model = entry->model;
  }
  if (model) atomic_fetch_add(&model->references, 1);
  pthread_mutex_unlock(&registry->mutex);
  return model;
}

int registry_acquire_all(struct registry *registry, struct served_model **models, int capacity, int *default_index) {
  pthread_mutex_lock(&registry->mutex);
  int count = registry->order_count < capacity ? registry->order_count : capacity;
  for (int i = 0; i < count; i++) {
    models[i] = registry->entries[registry->order[i]].model;
    atomic_fetch_add(&models[i]->references, 1);
  }
  *default_index = registry->default_index;
  pthread_mutex_unlock(&registry->mutex);
  return count;
}

const char *registry_kernels(struct registry *registry) {
  struct served_model *model = registry_acquire(registry, NULL);
  const char *kernels = model ? hwgq_plan_cpu(model->classifier->plan) : hwgq_cpu_best();
  registry_release(model);
  return kernels;
}

void registry_reload_error(struct registry *registry, const char *name, struct hwgq_error *error) {
  error->message[0] = 0;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < registry->entry_count; i++) {
    if (strcmp(registry->entries[i].name, name) == 0) *error = registry->entries[i].reload_error;
  }
  pthread_mutex_unlock(&registry->mutex);
}
