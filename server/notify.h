/* What a service manager that speaks systemd's protocols passes and hears: sd_notify(3), sd_watchdog_enabled(3) and
 * sd_listen_fds(3). The protocol is text in datagrams and a few environment variables, so no library is needed. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include "engine/hwgq.h"

struct notify {
  int fd;               /* connected datagram socket; -1: nobody listens */
  uint64_t watchdog_ns; /* the manager ends the daemon when it hears nothing for so long; 0: it does not */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. Without NOTIFY_SOCKET, notify_send does nothing. On failure too. */
enum hwgq_status notify_open(struct notify *notify, struct hwgq_error *error);
void notify_close(struct notify *notify);
/* One datagram of NAME=VALUE lines, printf-formatted. A manager that does not take it within a second misses it. */
void notify_send(const struct notify *notify, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The listening stream socket that the manager passes (LISTEN_PID, LISTEN_FDS), which becomes the caller's; *fd -1: none. */
enum hwgq_status notify_listener(int *fd, struct hwgq_error *error);

#endif
