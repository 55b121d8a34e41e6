/* What a registry consists of, and its entries. Internal to registry*.c. */
#ifndef REGISTRY_ENTRY_H
#define REGISTRY_ENTRY_H

#include <pthread.h>

#include "server/registry.h"
#include "server/registry_scan.h"

/* Everything known under one name. Entries are never removed, only their models are: counts and version go on if they come
 * back. */
struct entry {
  char name[CONFIG_MAX_NAME + 1];
  struct stats *stats;
  struct served_model *models[CONFIG_MAX_VERSIONS]; /* [model_count], newest first */
  int model_count;                                  /* 0: not served now */
  int version;                                      /* of the last model; 0: there was none */
  char digest[40];                                  /* of the last model */
  bool loading, unloaded;                           /* when not served: why */
  struct hwgq_error reload_error;
};

struct registry {
  pthread_mutex_t mutex;      /* for everything but the next three lines; held shortly */
  pthread_mutex_t load_mutex; /* held while networks are loaded, always taken first */
  struct config_model *sources;
  int64_t source_count, versions;
  char *cpu; /* kernel set, or NULL */
  struct entry entries[CONFIG_MAX_MODELS];
  int entry_count;
  int order[CONFIG_MAX_MODELS]; /* indices of the entries that the configuration names, as configured */
  int order_count;
  int default_entry; /* index; -1: nothing has been configured yet */
};

/* All of these are called with the mutex held. */

/* NULL: there is none of that name. */
struct entry *registry_find_entry(struct registry *registry, const char *name);
/* The entry of that name, made when missing. */
enum hwgq_status registry_make_entry(struct registry *registry, const char *name, struct hwgq_error *error);
/* Whether the configuration names it. */
bool registry_in_order(const struct registry *registry, const struct entry *entry);
/* Puts what was loaded of one name (`count` items, newest first) in the place of what is served. Returns `old` with the models
 * that are no longer needed before it. */
struct served_model *registry_publish(struct entry *entry, struct wanted *items, int count, struct served_model *old);
/* Takes all models out of the entry: returns `old` with them before it. */
struct served_model *registry_withdraw(struct entry *entry, struct served_model *old);

#endif
