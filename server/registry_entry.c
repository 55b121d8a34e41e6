#include "server/registry_entry.h"

#include <string.h>

struct entry *registry_find_entry(struct registry *registry, const char *name) {
  for (int i = 0; i < registry->entry_count; i++) {
    if (strcmp(registry->entries[i].name, name) == 0) return &registry->entries[i];
  }
  return NULL;
}

enum hwgq_status registry_make_entry(struct registry *registry, const char *name, struct hwgq_error *error) {
  if (registry_find_entry(registry, name)) return HWGQ_OK;
  if (registry->entry_count == CONFIG_MAX_MODELS) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT,
                     "models: with '%s' there were more than %d network names since the start, and the counts of each are "
                     "kept: restart to forget the old ones",
                     name, CONFIG_MAX_MODELS);
  }
  struct entry *entry = &registry->entries[registry->entry_count];
  entry->stats = stats_create();
  if (!entry->stats) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the statistics of network '%s'", name);
  memcpy(entry->name, name, strlen(name) + 1);
  registry->entry_count++;
  return HWGQ_OK;
}

bool registry_in_order(const struct registry *registry, const struct entry *entry) {
  for (int i = 0; i < registry->order_count; i++) {
    if (&registry->entries[registry->order[i]] == entry) return true;
  }
  return false;
}

static void number(struct entry *entry, struct served_model *model, int version) {
  const char *digest = model->classifier->model->digest;
  model->stats = entry->stats;
  stats_expect(entry->stats, model->first_ns);
  model->numbered = version != 0;
  if (version) {
    entry->version = version;
  } else if (strcmp(entry->digest, digest) != 0) {
    entry->version++;
  }
  model->version = entry->version;
  memcpy(entry->digest, digest, sizeof entry->digest);
}

/* The served model that a file which could not be loaded leaves as it is, taken out of the entry; NULL when there is none. One
 * without a number counts as version 1 when numbered ones have come to be beside it. */
static struct served_model *keep(struct entry *entry, const struct wanted *item) {
  for (int i = 0; i < entry->model_count; i++) {
    struct served_model *model = entry->models[i];
    if (!model || (item->version ? model->version != item->version : model->numbered)) continue;
    if (item->version && !model->numbered && strcmp(model->path, item->path) != 0) continue;
    entry->models[i] = NULL;
    return model;
  }
  return NULL;
}

struct served_model *registry_publish(struct entry *entry, struct wanted *items, int count, struct served_model *old) {
  struct served_model *models[CONFIG_MAX_VERSIONS];
  int model_count = 0;
  entry->reload_error.message[0] = 0;
  entry->unloaded = entry->loading = false;
  for (int i = count - 1; i >= 0; i--) { /* oldest first: the entry remembers the newest as the last */
    if (items[i].failed) entry->reload_error = items[i].failure;
    if (items[i].model) number(entry, items[i].model, items[i].version);
  }
  for (int i = 0; i < count; i++) {
    struct served_model *model = items[i].model ? items[i].model : keep(entry, &items[i]);
    items[i].model = NULL;
    if (model) models[model_count++] = model;
  }
  if (model_count == 0) return old; /* nothing works: all of the old ones stay, if there are any */
  for (int i = 0; i < entry->model_count; i++) {
    if (!entry->models[i]) continue;
    entry->models[i]->next_old = old;
    old = entry->models[i];
  }
  memcpy(entry->models, models, (size_t)model_count * sizeof models[0]);
  entry->model_count = model_count;
  return old;
}

struct served_model *registry_withdraw(struct entry *entry, struct served_model *old) {
  for (int i = 0; i < entry->model_count; i++) {
    entry->models[i]->next_old = old;
    old = entry->models[i];
  }
  entry->model_count = 0;
  return old;
}
