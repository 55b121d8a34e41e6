/* What the parts of the daemon share. Made by lifecycle.c before any thread starts, and taken apart after the last one ended.
 */
#ifndef SERVER_H
#define SERVER_H

#include "models/image/budget.h"
#include "server/buffered.h"
#include "server/config.h"
#include "server/limits_address.h"
#include "server/log.h"
#include "server/notify.h"
#include "server/queue.h"
#include "server/registry.h"
#include "server/sandbox.h"
#include "server/spread.h"
#include "server/stats.h"
#include "server/watchdog.h"

#include <stdatomic.h>

struct auth;
struct limits;
struct tls;
struct manage;

enum server_state { SERVER_LOADING, SERVER_READY, SERVER_DRAINING };

struct server {
  /* As read at start: a reload changes only the registry, drain_delay_ms, log_level, keys and certificate. */
  const struct config *config;
  struct log log;
  struct notify notify;
  struct sandbox sandbox;
  struct registry *registry;
  struct queue queue;
  struct spread_board spread; /* worker.c's */
  struct auth *auth;
  struct limits *limits;
  struct tls *tls; /* NULL: plain HTTP */
  /* What the last configuration that could be read names; the main thread's. */
  char *keys_file, *tls_certificate, *tls_key;
  struct manage *manage;
  struct limits_networks trusted_proxies;
  struct watchdog watchdog;
  struct image_budget decoding; /* max_decode_bytes, shared by the workers */
  struct stats *unrouted;       /* classification requests that ended before a network was chosen */
  uint64_t started;             /* clock_now() */
  int64_t started_unix;         /* seconds */
  int workers, io_threads, max_connections;
  _Atomic int state;                /* enum server_state */
  atomic_bool stopping;             /* the HTTP daemon is about to stop: nothing may be suspended any more */
  atomic_int in_flight;             /* requests whose first line has arrived and whose reply has not been sent */
  atomic_int classifying;           /* those of them that classify */
  atomic_int busy;                  /* workers that have a request */
  struct buffered buffered;         /* of max_buffered_bytes */
  _Atomic uint64_t request_counter; /* for request ids */
  uint64_t request_seed;
};

#endif
