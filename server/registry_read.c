/* What requests ask a registry. */
#include <stdlib.h>
#include <string.h>

#include "server/registry_entry.h"

int registry_version(const char *text) {
  size_t digits = strspn(text, "0123456789");
  return digits > 0 && digits <= REGISTRY_MAX_VERSION_DIGITS && !text[digits] && text[0] != '0' ? atoi(text) : 0;
}

struct served_model *registry_acquire_version(struct registry *registry, const char *name, int version) {
  struct served_model *model = NULL;
  pthread_mutex_lock(&registry->mutex);
  const struct entry *entry = name                          ? registry_find_entry(registry, name)
                              : registry->default_entry < 0 ? NULL
                                                            : &registry->entries[registry->default_entry];
  for (int i = 0; entry && i < entry->model_count && !model; i++) {
    if (!version || entry->models[i]->version == version) model = entry->models[i];
  }
  if (model) atomic_fetch_add(&model->references, 1);
  pthread_mutex_unlock(&registry->mutex);
  return model;
}

struct served_model *registry_acquire(struct registry *registry, const char *name) {
  return registry_acquire_version(registry, name, 0);
}

int registry_acquire_all(struct registry *registry, struct served_model **models, int capacity, int *default_index) {
  int count = 0;
  *default_index = -1;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < registry->order_count && count < capacity; i++) {
    const struct entry *entry = &registry->entries[registry->order[i]];
    if (entry->model_count == 0) continue;
    if (registry->order[i] == registry->default_entry) *default_index = count;
    models[count++] = entry->models[0];
    atomic_fetch_add(&entry->models[0]->references, 1);
  }
  pthread_mutex_unlock(&registry->mutex);
  return count;
}

struct served_model **registry_acquire_every(struct registry *registry, int *count) {
  int all = 0;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < registry->entry_count; i++) all += registry->entries[i].model_count;
  struct served_model **models = calloc((size_t)all + 1, sizeof(struct served_model *));
  *count = models ? all : 0;
  for (int i = 0, next = 0; i < registry->entry_count && models; i++) {
    const struct entry *entry = &registry->entries[i];
    for (int k = 0; k < entry->model_count; k++) {
      models[next++] = entry->models[k];
      atomic_fetch_add(&entry->models[k]->references, 1);
    }
  }
  pthread_mutex_unlock(&registry->mutex);
  return models;
}

int registry_versions(struct registry *registry, const char *name, int *versions) {
  pthread_mutex_lock(&registry->mutex);
  const struct entry *entry = registry_find_entry(registry, name);
  int count = entry ? entry->model_count : 0;
  for (int i = 0; i < count; i++) versions[i] = entry->models[i]->version;
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
  pthread_mutex_lock(&registry->mutex);
  const struct entry *entry = registry_find_entry(registry, name);
  error->message[0] = 0;
  if (entry) *error = entry->reload_error;
  pthread_mutex_unlock(&registry->mutex);
}

const char *registry_state_name(enum registry_state state) {
  static const char *const names[] = {"ready", "loading", "unloaded", "failed"};
  return names[state];
}

static enum registry_state state_of(const struct entry *entry) {
  if (entry->model_count) return REGISTRY_READY;
  return entry->loading ? REGISTRY_LOADING : entry->unloaded ? REGISTRY_UNLOADED : REGISTRY_FAILED;
}

bool registry_knows(struct registry *registry, const char *name, enum registry_state *state) {
  pthread_mutex_lock(&registry->mutex);
  const struct entry *entry = registry_find_entry(registry, name);
  bool known = entry && registry_in_order(registry, entry);
  if (known) *state = state_of(entry);
  pthread_mutex_unlock(&registry->mutex);
  return known;
}

struct registry_row *registry_index(struct registry *registry, int *count) {
  int rows = 0;
  pthread_mutex_lock(&registry->mutex);
  for (int i = 0; i < registry->order_count; i++) {
    int models = registry->entries[registry->order[i]].model_count;
    rows += models ? models : 1;
  }
  struct registry_row *index = calloc((size_t)rows + 1, sizeof *index);
  *count = 0;
  for (int i = 0; i < registry->order_count && index; i++) {
    const struct entry *entry = &registry->entries[registry->order[i]];
    for (int k = 0; k < (entry->model_count ? entry->model_count : 1); k++) {
      struct registry_row *row = &index[(*count)++];
      memcpy(row->name, entry->name, sizeof row->name);
      row->newest = k == 0;
      row->version = entry->model_count ? entry->models[k]->version : 0;
      row->state = state_of(entry);
      row->reload_error = entry->reload_error;
    }
  }
  pthread_mutex_unlock(&registry->mutex);
  return index;
}
