/* The networks that are served, by name and version. Readers take a counted reference, so a network may be replaced while
 * requests still run on the old one. Readers never wait for a load; loads wait for each other. */
#ifndef REGISTRY_H
#define REGISTRY_H

#include "models/classify/classify.h"
#include "server/config.h"
#include "server/stats.h"

#include <stdatomic.h>

struct served_model {
  char name[CONFIG_MAX_NAME + 1];
  char *path;
  /* As its file says (registry_scan.h); of a file without a number: 1, and one more whenever the weights under this name differ
   * from the last ones, also after a pause. */
  int version;
  bool numbered; /* the version is the file's own */
  struct classifier *classifier;
  uint64_t *stage_ns;  /* of each stage of the plan: one image on one core, the shortest of a few runs at load */
  uint64_t first_ns;   /* their sum */
  struct stats *stats; /* of the name: lives as long as the registry, so counts survive a reload */
  atomic_int references;
  struct served_model *next_old; /* the registry's own */
};

struct registry;

struct registry *registry_create(void); /* NULL: no memory */
void registry_destroy(struct registry *registry);

/* Loads what the configuration lists and replaces everything at once, except that a network which was unloaded by request stays
 * so while its entry of `models` is what it was and it is not the default one. Every network classifies one gray image before
 * it is served. What cannot be read inside of a folder is logged and passed over. When `keep_old`, a file that cannot be loaded
 * leaves the network of that name as it was (logged as an error) and the rest is replaced; otherwise, and when the list itself
 * makes no sense, would leave no default network, or brings more than CONFIG_MAX_MODELS names since the start, nothing changes
 * and the error is returned. */
enum hwgq_status registry_configure(struct registry *registry, const struct config *config, bool keep_old,
                                    const struct log *log, struct hwgq_error *error);

/* One network of those that the configuration lists, or that lie in its folders by now. Each may take as long as reading the
 * file and making the plan takes: not for I/O threads (ROUTE_MANAGE, see routes.h). Until the new one is ready the old one is
 * served, and it stays when that fails. Returns
 *   HWGQ_ERROR_INVALID      there is no such network
 *   HWGQ_ERROR_UNSUPPORTED  it is not possible now: unloading the default network, reloading one that is not loaded
 *   HWGQ_ERROR_MEMORY, HWGQ_ERROR_LIMIT
 *   others                  its files cannot be served: the message is also kept as its reload error */
enum hwgq_status registry_load(struct registry *registry, const char *name, struct hwgq_error *error); /* or reads it again */
enum hwgq_status registry_reload(struct registry *registry, const char *name, struct hwgq_error *error);
/* Not served any more until registry_load, or registry_configure as said there; requests that have it finish. Fine when it was
 * not loaded. */
enum hwgq_status registry_unload(struct registry *registry, const char *name, struct hwgq_error *error);

/* A reference to the named network (NULL: the default one), its newest version, to be released; NULL when there is none. */
struct served_model *registry_acquire(struct registry *registry, const char *name);
/* As above, one version of it (0: the newest). */
struct served_model *registry_acquire_version(struct registry *registry, const char *name, int version);
/* "3" as a version: a whole number from 1 without leading zeros; 0 when it is none. */
int registry_version(const char *text);
/* References to all networks, their newest versions, in the order of the configuration, up to `capacity`. Returns their number.
 * *default_index: of the default network. */
int registry_acquire_all(struct registry *registry, struct served_model **models, int capacity, int *default_index);
/* References to all versions of all networks, in an array to be freed; NULL: no memory. */
struct served_model **registry_acquire_every(struct registry *registry, int *count);
void registry_release(struct served_model *model);
/* The numbers of the versions that are served, newest first, at most CONFIG_MAX_VERSIONS. Returns how many. */
int registry_versions(struct registry *registry, const char *name, int *versions);
/* The kernel set that the networks run on: a static name. */
const char *registry_kernels(struct registry *registry);
/* The message of the last load that failed for this network, copied; empty when the last one worked. */
void registry_reload_error(struct registry *registry, const char *name, struct hwgq_error *error);

enum registry_state { REGISTRY_READY, REGISTRY_LOADING, REGISTRY_UNLOADED, REGISTRY_FAILED };
const char *registry_state_name(enum registry_state state); /* "ready", ... */

/* Whether the configuration names this network, and its state. */
bool registry_knows(struct registry *registry, const char *name, enum registry_state *state);

/* One version of one network, or (version 0) a network of which none is served. */
struct registry_row {
  char name[CONFIG_MAX_NAME + 1];
  int version;
  bool newest;
  enum registry_state state;
  struct hwgq_error reload_error; /* empty: none */
};

/* Every network that the configuration names, in its order, versions newest first; to be freed. NULL: no memory. */
struct registry_row *registry_index(struct registry *registry, int *count);

#endif
