/* From a file that was found to a network that is ready to serve. */
#ifndef REGISTRY_FILE_H
#define REGISTRY_FILE_H

#include "server/registry.h"
#include "server/registry_scan.h"

/* Loads the file and lets the network classify one gray image. Afterwards either wanted->model (one reference; without version
 * and statistics yet) or wanted->failed is set. cpu: kernel set, as in struct hwgq_plan_options. */
enum hwgq_status registry_file_load(struct wanted *wanted, const char *cpu);
/* Frees the list with the models that are still in it. */
void registry_files_release(struct wanted_list *list);

#endif
