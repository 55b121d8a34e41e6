/* The networks that are served, by name. Readers take a counted reference, so a reload may replace a network while requests
 * still run on the old one. */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "models/classify/classify.h"
#include "server/config.h"
#include "server/stats.h"

#include <stdatomic.h>

struct served_model {
  char name[CONFIG_MAX_NAME + 1];
  char *path;
  int version; /* 1, and one more whenever the weights under this name differ from the last ones, also after a pause */
  struct classifier *classifier;
  struct stats *stats; /* lives as long as the registry: counts survive a reload */
  atomic_int references;
};

struct registry;

struct registry *registry_create(void); /* NULL: no memory */
void registry_destroy(struct registry *registry);
/* Loads what the configuration lists and replaces everything at once. When `keep_old`, a file that cannot be loaded leaves the
 * network of that name as it was (logged as an error) and the rest is replaced; otherwise, and when the list itself makes no
 * sense, would leave no default network, or brings more than CONFIG_MAX_MODELS names since the start, nothing changes and the
 * error is returned. */
enum hwgq_status registry_load(struct registry *registry, const struct config *config, bool keep_old, const struct log *log,
                               struct hwgq_error *error);
/* A reference to the named network (NULL: the default one), to be released; NULL when there is none. */
struct served_model *registry_acquire(struct registry *registry, const char *name);
/* References to all networks, in the order of the configuration, up to `capacity`. Returns their number. *default_index: of the
 * default network. */
int registry_acquire_all(struct registry *registry, struct served_model **models, int capacity, int *default_index);
void registry_release(struct served_model *model);
/* The kernel set that the networks run on: a static name. */
const char *registry_kernels(struct registry *registry);
/* The message of the last reload that failed for this network, copied; empty when the last one worked. */
void registry_reload_error(struct registry *registry, const char *name, struct hwgq_error *error);

#endif
