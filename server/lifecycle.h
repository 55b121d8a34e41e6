/* The daemon from start to end. */
#ifndef LIFECYCLE_H
#define LIFECYCLE_H

#include "server/config.h"

/* Serves until a signal ends it, and returns the exit code. SIGTERM: not ready, keep serving for drain_delay_ms, stop
 * accepting, finish everything accepted, 0; 1 when that is not done twice request_timeout_ms, queue_deadline_ms and a minute
 * later. SIGINT: the same without the delay; a second one ends the process at once (130).
 * SIGHUP: reads the command line's configuration and the networks again. */
int lifecycle_run(const struct config *config, int argc, char *const *argv);
/* Loads what the configuration lists and lets it go again: for --check. */
enum hwgq_status lifecycle_check(const struct config *config, struct text *report, struct hwgq_error *error);

#endif
