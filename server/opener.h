/* --open: shows the page in a browser once it is served. Programs cannot be started from within the sandbox, nor safely when
 * there are threads, so a process that will become xdg-open is made before, and waits for the address. */
#ifndef OPENER_H
#define OPENER_H

#include "engine/hwgq.h"

/* Makes the process. *fd: where its address goes; when it is closed without one, or the daemon ends, the process ends, too. */
enum hwgq_status opener_start(int *fd, struct hwgq_error *error);
/* Sends the address and closes. Without xdg-open nothing happens. */
void opener_show(int fd, const char *address);

#endif
