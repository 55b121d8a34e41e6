/* What the `models` of a configuration stand for on disk at this moment: files, folders of files, numbered versions. Names
 * from requests are only compared with what is found here; they never become part of a path. */
#ifndef REGISTRY_SCAN_H
#define REGISTRY_SCAN_H

#include "server/config.h"

enum {
  REGISTRY_MAX_VERSION_DIGITS = 9,
  REGISTRY_MAX_FILES = 4 * CONFIG_MAX_MODELS, /* of all networks and versions together */
};

struct served_model;

/* One file that is to be served. */
struct wanted {
  char name[CONFIG_MAX_NAME + 1];
  int version;     /* 0: no file of this name has a number */
  char *path;      /* without links and dots when the file is there, else as configured */
  int source;      /* index of the entry of `models` that it comes from */
  bool failed;     /* `failure` says why it cannot be served */
  bool unreadable; /* failed because its folder cannot be read: no reason not to start with the others */
  struct hwgq_error failure;
  bool held;                  /* by the registry: unloaded by request, not to be loaded now */
  struct served_model *model; /* once it has been loaded */
};

struct wanted_list {
  struct wanted *items; /* those of one name follow each other, newest version first */
  int count;
  struct hwgq_error *skipped; /* why files were passed over that have no name of a network */
  int skipped_count;
};

/* Names and files:
 *   FILE.hwgq             one network, called FILE or as the configuration says
 *   FOLDER                NAME.hwgq, NAME@VERSION.hwgq, NAME/VERSION.hwgq and NAME/VERSION/ANY.hwgq in it
 *   NAME=FOLDER           VERSION.hwgq and VERSION/ANY.hwgq in it
 * A version is a whole number from 1; a file without one is version 1 beside others that have one. The newest `versions` of
 * each network are kept. Listed as failed are a version with two files, a file in a folder that is no regular file or leads
 * out of the folder through a link, and a folder in a folder that cannot be read. A .hwgq file in a folder whose name is none
 * of these is passed over. On failure the list is empty. */
enum hwgq_status registry_scan(const struct config_model *models, int64_t model_count, int64_t versions,
                               struct wanted_list *list, struct hwgq_error *error);
/* Frees names and paths; the models must have been taken. */
void registry_scan_release(struct wanted_list *list);

#endif
