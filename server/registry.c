#include "server/registry.h"

#include <stdlib.h>
#include <string.h>

#include "server/registry_entry.h"
#include "server/registry_file.h"

struct registry *registry_create(void) {
  struct registry *registry = calloc(1, sizeof *registry);
  if (!registry) return NULL;
  registry->default_entry = -1;
  if (pthread_mutex_init(&registry->mutex, NULL) == 0) {
    if (pthread_mutex_init(&registry->load_mutex, NULL) == 0) return registry;
    pthread_mutex_destroy(&registry->mutex);
  }
  free(registry);
  return NULL;
}

void registry_release(struct served_model *model) {
  if (!model || atomic_fetch_sub(&model->references, 1) != 1) return;
  classifier_destroy(model->classifier);
  free(model->stage_ns);
  free(model->path);
  free(model);
}

static void release_sources(struct config_model *sources, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    free(sources[i].name);
    free(sources[i].path);
  }
  free(sources);
}

void registry_destroy(struct registry *registry) {
  if (!registry) return;
  for (int i = 0; i < registry->entry_count; i++) {
    struct entry *entry = &registry->entries[i];
    for (int k = 0; k < entry->model_count; k++) registry_release(entry->models[k]);
    stats_destroy(entry->stats);
  }
  release_sources(registry->sources, registry->source_count);
  free(registry->cpu);
  pthread_mutex_destroy(&registry->load_mutex);
  pthread_mutex_destroy(&registry->mutex);
  free(registry);
}

static void release_old(struct served_model *old) {
  while (old) {
    struct served_model *next = old->next_old;
    registry_release(old);
    old = next;
  }
}

/* Items of the list that begin at `start` and have one name. */
static int items_of_name(const struct wanted_list *list, int start) {
  int end = start + 1;
  while (end < list->count && strcmp(list->items[end].name, list->items[start].name) == 0) end++;
  return end - start;
}

/* ---- the whole configuration -------------------------------------------------------------------------------------------- */

struct sources {
  struct config_model *models;
  int64_t count;
  char *cpu;
};

static enum hwgq_status copy_sources(const struct config *config, struct sources *sources, struct hwgq_error *error) {
  bool good = true;
  *sources = (struct sources){.models = calloc((size_t)config->model_count + 1, sizeof *sources->models)};
  if (config->cpu) good = (sources->cpu = strdup(config->cpu)) != NULL;
  for (int64_t i = 0; sources->models && good && i < config->model_count; i++) {
    const struct config_model *from = &config->models[i];
    struct config_model *to = &sources->models[sources->count++];
    to->path = strdup(from->path);
    to->name = from->name ? strdup(from->name) : NULL;
    good = to->path && (to->name || !from->name);
  }
  return sources->models && good ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
}

static enum hwgq_status check_names(const struct wanted_list *list, const char *default_model, struct hwgq_error *error) {
  int names = 0;
  bool found = !default_model;
  for (int i = 0; i < list->count; i += items_of_name(list, i)) {
    names++;
    found |= default_model && strcmp(list->items[i].name, default_model) == 0;
  }
  if (names > CONFIG_MAX_MODELS) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "models: more than %d networks", CONFIG_MAX_MODELS);
  }
  if (found) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "default_model: there is no network '%s' among the %d in models", default_model,
                   names);
}

/* Whether the loaded configuration has the same entry of `models`. The load mutex is held. */
static bool has_source(const struct registry *registry, const struct config_model *wanted) {
  for (int64_t i = 0; i < registry->source_count; i++) {
    const struct config_model *source = &registry->sources[i];
    bool same_name = source->name && wanted->name ? strcmp(source->name, wanted->name) == 0 : source->name == wanted->name;
    if (same_name && strcmp(source->path, wanted->path) == 0) return true;
  }
  return false;
}

/* Marks what was unloaded by request and shall not come back by a reload. */
static void hold(struct registry *registry, const struct config *config, const char *default_model, struct wanted_list *list,
                 const struct log *log) {
  for (int i = 0, count; i < list->count; i += count) {
    struct wanted *items = &list->items[i];
    enum registry_state state;
    count = items_of_name(list, i);
    bool same =
        registry_knows(registry, items->name, &state) && state == REGISTRY_UNLOADED && strcmp(items->name, default_model) != 0;
    for (int k = 0; k < count && same; k++) same = has_source(registry, &config->models[items[k].source]);
    for (int k = 0; k < count && same; k++) items[k].held = true;
    if (same) log_event(log, LOG_INFO, "the network stays unloaded, as was requested", log_string("model", items->name));
  }
}

static enum hwgq_status load_all(struct registry *registry, struct wanted_list *list, const char *cpu, bool keep_old,
                                 const struct log *log, struct hwgq_error *error) {
  for (int i = 0; i < list->skipped_count; i++) {
    log_event(log, LOG_WARNING, "passed over", log_string("reason", list->skipped[i].message));
  }
  for (int i = 0; i < list->count; i++) {
    struct wanted *item = &list->items[i];
    enum hwgq_status failed = item->held ? HWGQ_OK : registry_file_load(item, cpu);
    if (!failed) continue;
    if (!keep_old && !item->unreadable) return hwgq_fail(error, failed, "%s", item->failure.message);
    if (!keep_old) {
      log_event(log, LOG_WARNING, "the network is not served", log_string("model", item->name),
                log_string("error", item->failure.message));
      continue;
    }
    struct served_model *current = registry_acquire(registry, item->name);
    log_event(log, LOG_ERROR,
              current ? "reload failed, the network as it was goes on serving" : "reload failed, the network is not served",
              log_string("model", item->name), log_string("error", item->failure.message));
    registry_release(current);
  }
  return HWGQ_OK;
}

/* Of the first network that is not passed over. */
static const char *first_name(const struct wanted_list *list) {
  for (int i = 0; i < list->count; i++) {
    if (!list->items[i].unreadable) return list->items[i].name;
  }
  return list->items[0].name;
}

/* The default network must be served afterwards: one of its files was loaded, or there is one already. */
static enum hwgq_status check_default(struct registry *registry, const struct wanted_list *list, const char *name,
                                      struct hwgq_error *error) {
  const struct hwgq_error *failure = NULL;
  for (int i = 0; i < list->count; i++) {
    if (strcmp(list->items[i].name, name) != 0) continue;
    if (list->items[i].model) return HWGQ_OK;
    failure = &list->items[i].failure;
  }
  struct served_model *current = registry_acquire(registry, name);
  registry_release(current);
  if (current || !failure) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_IO, "the default network cannot be loaded and none of its name is served: %s",
                   failure->message);
}

static enum hwgq_status make_entries(struct registry *registry, const struct wanted_list *list, struct hwgq_error *error) {
  enum hwgq_status status = HWGQ_OK;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < list->count && !status; i += items_of_name(list, i)) {
    status = registry_make_entry(registry, list->items[i].name, error);
  }
  pthread_mutex_unlock(&registry->mutex);
  return status;
}

/* Makes the list the truth, all at once; nothing can fail here. Returns what is no longer needed. */
static struct served_model *exchange(struct registry *registry, struct wanted_list *list, const char *default_model) {
  bool configured[CONFIG_MAX_MODELS] = {false};
  struct served_model *old = NULL;
  pthread_mutex_lock(&registry->mutex);
  registry->order_count = 0;
  for (int i = 0, count; i < list->count; i += count) {
    struct entry *entry = registry_find_entry(registry, list->items[i].name);
    int index = (int)(entry - registry->entries);
    count = items_of_name(list, i);
    if (!list->items[i].held) old = registry_publish(entry, &list->items[i], count, old);
    if (strcmp(entry->name, default_model) == 0) registry->default_entry = index;
    registry->order[registry->order_count++] = index;
    configured[index] = true;
  }
  for (int i = 0; i < registry->entry_count; i++) {
    if (configured[i]) continue;
    old = registry_withdraw(&registry->entries[i], old);
    registry->entries[i].unloaded = false; /* what comes back later is a new one */
  }
  pthread_mutex_unlock(&registry->mutex);
  return old;
}

enum hwgq_status registry_configure(struct registry *registry, const struct config *config, bool keep_old,
                                    const struct log *log, struct hwgq_error *error) {
  struct wanted_list list = {0};
  struct sources sources;
  pthread_mutex_lock(&registry->load_mutex);
  enum hwgq_status status = copy_sources(config, &sources, error);
  if (!status) status = registry_scan(config->models, config->model_count, config->model_versions, &list, error);
  if (!status) status = check_names(&list, config->default_model, error);
  const char *default_model = config->default_model || status ? config->default_model : first_name(&list);
  if (!status) hold(registry, config, default_model, &list, log);
  if (!status) status = load_all(registry, &list, config->cpu, keep_old, log, error);
  if (!status) status = check_default(registry, &list, default_model, error);
  if (!status) status = make_entries(registry, &list, error);
  if (!status) {
    release_old(exchange(registry, &list, default_model));
    struct sources before = {registry->sources, registry->source_count, registry->cpu};
    registry->sources = sources.models;
    registry->source_count = sources.count;
    registry->cpu = sources.cpu;
    registry->versions = config->model_versions;
    sources = before;
  }
  registry_files_release(&list);
  release_sources(sources.models, sources.count);
  free(sources.cpu);
  pthread_mutex_unlock(&registry->load_mutex);
  return status;
}

/* ---- one network -------------------------------------------------------------------------------------------------------- */

static bool is_configured(struct registry *registry, const char *name, bool *served, bool *is_default) {
  pthread_mutex_lock(&registry->mutex);
  struct entry *entry = registry_find_entry(registry, name);
  bool configured = entry && registry_in_order(registry, entry);
  *served = configured && entry->model_count > 0;
  *is_default = configured && entry - registry->entries == registry->default_entry;
  pthread_mutex_unlock(&registry->mutex);
  return configured;
}

/* Only what these two mean stands for something in registry.h: a file's own troubles become HWGQ_ERROR_FORMAT. */
static enum hwgq_status file_status(enum hwgq_status status) {
  return status == HWGQ_ERROR_INVALID || status == HWGQ_ERROR_UNSUPPORTED ? HWGQ_ERROR_FORMAT : status;
}

static void set_failure(struct registry *registry, const char *name, const struct hwgq_error *failure) {
  pthread_mutex_lock(&registry->mutex);
  struct entry *entry = registry_find_entry(registry, name);
  if (entry) {
    entry->loading = entry->unloaded = false; /* whoever asked wants it */
    entry->reload_error = *failure;
  }
  pthread_mutex_unlock(&registry->mutex);
}

static enum hwgq_status unknown(const char *name, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_INVALID,
                   "there is no network '%.64s': add it to `models` in the configuration, or its file to a folder that is "
                   "listed there",
                   name);
}

/* The items of this name in the list, loaded and put into service. */
static enum hwgq_status load_items(struct registry *registry, struct wanted *items, int count, struct hwgq_error *error) {
  struct hwgq_error failure = {{0}};
  enum hwgq_status status = HWGQ_OK;
  pthread_mutex_lock(&registry->mutex);
  enum hwgq_status made = registry_make_entry(registry, items[0].name, error);
  struct entry *entry = registry_find_entry(registry, items[0].name);
  if (entry) entry->loading = true;
  pthread_mutex_unlock(&registry->mutex);
  if (made) return made;
  for (int i = count - 1; i >= 0; i--) { /* the newest version's failure is told */
    enum hwgq_status failed = registry_file_load(&items[i], registry->cpu);
    if (!failed) continue;
    status = file_status(failed);
    failure = items[i].failure;
  }
  pthread_mutex_lock(&registry->mutex);
  struct served_model *old = registry_publish(entry, items, count, NULL);
  if (!registry_in_order(registry, entry)) registry->order[registry->order_count++] = (int)(entry - registry->entries);
  bool served = entry->model_count > 0;
  pthread_mutex_unlock(&registry->mutex);
  release_old(old);
  if (!status) return HWGQ_OK;
  return hwgq_fail(error, status, "%s (%s)", failure.message,
                   served ? "the network as it was goes on serving" : "the network is not served");
}

static enum hwgq_status load_locked(struct registry *registry, const char *name, struct hwgq_error *error) {
  struct wanted_list list;
  bool served, is_default;
  bool known = is_configured(registry, name, &served, &is_default);
  enum hwgq_status status = registry_scan(registry->sources, registry->source_count, registry->versions, &list, error);
  if (status) {
    if (known) set_failure(registry, name, error);
    return file_status(status);
  }
  int start = 0;
  while (start < list.count && strcmp(list.items[start].name, name) != 0) start++;
  if (start < list.count) {
    status = load_items(registry, &list.items[start], items_of_name(&list, start), error);
  } else if (known) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "network '%s': its file is gone from the folder that is listed in `models`%s",
                       name, served ? " (the network as it was goes on serving)" : "");
    set_failure(registry, name, error);
  } else {
    status = unknown(name, error);
  }
  registry_files_release(&list);
  return status;
}

enum hwgq_status registry_load(struct registry *registry, const char *name, struct hwgq_error *error) {
  pthread_mutex_lock(&registry->load_mutex);
  enum hwgq_status status = load_locked(registry, name, error);
  pthread_mutex_unlock(&registry->load_mutex);
  return status;
}

enum hwgq_status registry_reload(struct registry *registry, const char *name, struct hwgq_error *error) {
  enum hwgq_status status;
  bool served, is_default;
  pthread_mutex_lock(&registry->load_mutex);
  if (!is_configured(registry, name, &served, &is_default)) {
    status = unknown(name, error);
  } else if (!served) {
    status = hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "network '%s' is not loaded: load it instead of reloading it", name);
  } else {
    status = load_locked(registry, name, error);
  }
  pthread_mutex_unlock(&registry->load_mutex);
  return status;
}

enum hwgq_status registry_unload(struct registry *registry, const char *name, struct hwgq_error *error) {
  struct served_model *old = NULL;
  enum hwgq_status status = HWGQ_OK;
  pthread_mutex_lock(&registry->load_mutex);
  pthread_mutex_lock(&registry->mutex);
  struct entry *entry = registry_find_entry(registry, name);
  if (!entry || !registry_in_order(registry, entry)) {
    status = unknown(name, error);
  } else if (entry - registry->entries == registry->default_entry) {
    status = hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                       "network '%s' is the default one, which POST /classify needs: choose another default_model first", name);
  } else {
    old = registry_withdraw(entry, NULL);
    entry->unloaded = true;
    entry->reload_error.message[0] = 0;
  }
  pthread_mutex_unlock(&registry->mutex);
  release_old(old);
  pthread_mutex_unlock(&registry->load_mutex);
  return status;
}
