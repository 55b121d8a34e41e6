/* What the parts of the daemon share. Made by lifecycle.c before any thread starts, and taken apart after the last one ended.
 */
#ifndef SERVER_H
#define SERVER_H

#include "server/config.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/queue.h"
#include "server/registry.h"
#include "server/sandbox.h"
#include "server/stats.h"
#include "server/watchdog.h"

#include <stdatomic.h>

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

struct server {
  const struct config *config; /* as read at start: a reload changes only the registry, drain_delay_ms and log_level */
  struct log log;
  struct notify notify;
  struct sandbox sandbox;
  struct registry *registry;
  struct queue queue;
  struct watchdog watchdog;
  struct stats *unrouted; /* classification requests that ended before a network was chosen */
  uint64_t started;       /* clock_now() */
  int64_t started_unix;   /* seconds */
  int workers, io_threads, max_connections;
  _Atomic int state;                /* enum server_state */
  atomic_bool stopping;             /* the HTTP daemon is about to stop: nothing may be suspended any more */
  atomic_int in_flight;             /* requests whose first line has arrived and whose reply has not been sent */
  atomic_int classifying;           /* those of them that classify */
  atomic_int busy;                  /* workers that have a request */
  _Atomic uint64_t buffered_bytes;  /* memory of all request bodies and of large replies */
  _Atomic uint64_t request_counter; /* for request ids */
  uint64_t request_seed;
};

#endif
