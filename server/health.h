/* `hwgqd --health`: the probe of a container that has no curl. */
#ifndef HEALTH_H
#define HEALTH_H

#include "server/config.h"

/* Asks GET /healthz of the daemon that runs with this configuration on this machine; HWGQ_OK when it answers 200 within two
 * seconds. */
enum hwgq_status health_probe(const struct config *config, struct hwgq_error *error);

#endif
