/* Deadlines that libmicrohttpd does not keep: a request that drips in or a reply that drips out (its idle timer restarts with
 * every byte), an idle connection, and a request that waits in the queue; and a limit of connections that idle ones do not use
 * up: when nearly all are taken, those that have been idle for longest are closed. One thread looks at all of them while there
 * is anything to look at. What is not watched is the time of a worker: it is bounded by max_pixels and max_images. */
#ifndef WATCHDOG_H
#define WATCHDOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct server;
struct http;
struct io_loop;
struct text;
struct gnutls_session_int;

enum { WATCHDOG_SLOTS = 256 };

enum peer_state {
  PEER_IDLE,      /* no request: closed at its deadline, or to make room */
  PEER_RECEIVING, /* a request arrives: answered 408 and closed at its deadline */
  PEER_BUSY,      /* the server's turn, or already timed out: not linked */
  PEER_SENDING,   /* the client takes its reply: closed at its deadline */
};

/* One connection. Belongs to libmicrohttpd's connection (its socket context); linked in the list of its state, if that has one.
 */
struct peer {
  struct peer *previous, *next;
  struct server *server;
  struct io_loop *loop; /* of its I/O thread */
  int fd;               /* open until watchdog_remove */
  void *request;        /* struct request that has begun and not ended; for the I/O thread */
  enum peer_state state;
  unsigned slot;  /* of the client's address */
  bool timed_out; /* a deadline has passed, or it was in the way, and the socket is shut down: the state does not change any
                     more */
  bool slow;      /* timed out while a request arrived, and watchdog_tls.c has to answer it */
  uint64_t deadline;
  char request_id[129];               /* of the request that is being received, for a 408 */
  bool v2;                            /* its errors have the form of /v2 */
  struct gnutls_session_int *session; /* NULL: no TLS */
};

/* Peers of one state, all with the same patience, so the first has the earliest deadline. */
struct peer_list {
  struct peer *first, *last;
  int count;
};

struct watchdog {
  struct server *server;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  pthread_t thread;
  struct peer_list idle[WATCHDOG_SLOTS]; /* by address: few share a slot, so that one with many connections stands out */
  struct peer_list receiving, sending;
  int peers;          /* of any state */
  int ending;         /* those of them that have timed out */
  uint64_t evicted;   /* idle peers that were closed to make room, so far */
  struct http *http;  /* whose threads must be alive; NULL: none */
  uint64_t next_ping; /* when the service manager is told that the daemon is alive */
  uint64_t next_look; /* when closed connections are looked for */
  bool stop, running;
};

bool watchdog_start(struct watchdog *watchdog, struct server *server);
void watchdog_stop(struct watchdog *watchdog);
/* From here on the service manager is told that the daemon is alive only while the I/O threads are. */
void watchdog_watch_http(struct watchdog *watchdog, struct http *http);
/* A new connection of `loop`: idle. `client`: a number for the address (limits_address_number). NULL: no memory. */
struct peer *watchdog_add(struct watchdog *watchdog, int fd, struct io_loop *loop, uint64_t client);
void watchdog_remove(struct watchdog *watchdog, struct peer *peer);
/* False when the peer has timed out meanwhile: its request must not go on. */
bool watchdog_set(struct watchdog *watchdog, struct peer *peer, enum peer_state state);
/* As above for PEER_RECEIVING, with what a 408 must say. */
bool watchdog_receive(struct watchdog *watchdog, struct peer *peer, const char *request_id, bool v2);
/* Whether the peer's request is to be answered 408 by the caller: once. */
bool watchdog_take_slow(struct watchdog *watchdog, struct peer *peer);
/* That answer as bytes. */
void watchdog_slow_reply(const struct watchdog *watchdog, const struct peer *peer, struct text *raw);
bool watchdog_timed_out(struct watchdog *watchdog, struct peer *peer);
int watchdog_peers(struct watchdog *watchdog);
uint64_t watchdog_evicted(struct watchdog *watchdog);
/* Half-closes every idle connection's socket so that libmicrohttpd closes it. For the end of the drain. */
void watchdog_close_idle(struct watchdog *watchdog);

#endif
