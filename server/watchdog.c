#include "server/watchdog.h"

#include "server/clock.h"
#include "server/http.h"
#include "server/reply.h"
#include "server/request.h"
#include "server/server.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
  TICK_MS = 20,  /* how late a deadline may be noticed */
  LOOK_MS = 100, /* how late it may be noticed that a client has closed */
  LOOK_PEERS = 64,
  LATE_SHARE = 16, /* a ping that could not be sent is tried again after so much of the service manager's patience */
  /* Of the connections, so many are kept free of idle ones, once half of that is all that is left. */
  ROOM_SHARE = 8,
  LEAST_IDLE_MS = 100, /* whoever has just connected, or been answered, gets so long for its request... */
  LONG_IDLE_MS = 1000, /* ... and so long when it is not of those who have most connections */
};

static struct peer_list *list_of(struct watchdog *watchdog, const struct peer *peer, enum peer_state state) {
  switch (state) {
  case PEER_IDLE:
    return &watchdog->idle[peer->slot];
  case PEER_RECEIVING:
    return &watchdog->receiving;
  case PEER_SENDING:
    return &watchdog->sending;
  case PEER_BUSY:
    break;
  }
  return NULL;
}

static void unlink_peer(struct watchdog *watchdog, struct peer *peer) {
  struct peer_list *list = list_of(watchdog, peer, peer->state);
  if (!list) return;
  list->count--;
  if (peer->previous) {
    peer->previous->next = peer->next;
  } else {
    list->first = peer->next;
  }
  if (peer->next) {
    peer->next->previous = peer->previous;
  } else {
    list->last = peer->previous;
  }
  peer->previous = peer->next = NULL;
}

static void link_peer(struct watchdog *watchdog, struct peer *peer, enum peer_state state) {
  const struct config *config = watchdog->server->config;
  struct peer_list *list = list_of(watchdog, peer, state);
  peer->state = state;
  if (!list) return;
  list->count++;
  peer->deadline =
      clock_now() + CLOCK_MS * (uint64_t)(state == PEER_IDLE ? config->idle_timeout_ms : config->request_timeout_ms);
  peer->previous = list->last;
  peer->next = NULL;
  if (list->last) {
    list->last->next = peer;
  } else {
    list->first = peer;
  }
  list->last = peer;
}

struct peer *watchdog_add(struct watchdog *watchdog, int fd, struct io_loop *loop, uint64_t client) {
  struct peer *peer = calloc(1, sizeof *peer);
  if (!peer) return NULL;
  peer->fd = fd;
  peer->loop = loop;
  peer->slot = (unsigned)(client % WATCHDOG_SLOTS);
  peer->server = watchdog->server;
  pthread_mutex_lock(&watchdog->mutex);
  link_peer(watchdog, peer, PEER_IDLE);
  if (watchdog->peers++ == 0) pthread_cond_signal(&watchdog->changed);
  pthread_mutex_unlock(&watchdog->mutex);
  return peer;
}

void watchdog_remove(struct watchdog *watchdog, struct peer *peer) {
  if (!peer) return;
  pthread_mutex_lock(&watchdog->mutex);
  unlink_peer(watchdog, peer);
  watchdog->peers--;
  if (peer->timed_out) watchdog->ending--;
  pthread_mutex_unlock(&watchdog->mutex);
  free(peer);
}

/* The mutex is held. */
static bool set(struct watchdog *watchdog, struct peer *peer, enum peer_state state) {
  if (peer->timed_out) return false;
  if (peer->state != state) {
    unlink_peer(watchdog, peer);
    link_peer(watchdog, peer, state);
  }
  return true;
}

bool watchdog_set(struct watchdog *watchdog, struct peer *peer, enum peer_state state) {
  pthread_mutex_lock(&watchdog->mutex);
  bool alive = set(watchdog, peer, state);
  pthread_mutex_unlock(&watchdog->mutex);
  return alive;
}

bool watchdog_receive(struct watchdog *watchdog, struct peer *peer, const char *request_id, bool v2) {
  pthread_mutex_lock(&watchdog->mutex);
  bool alive = set(watchdog, peer, PEER_RECEIVING);
  if (alive) {
    strncpy(peer->request_id, request_id, sizeof peer->request_id - 1);
    peer->request_id[sizeof peer->request_id - 1] = 0;
    peer->v2 = v2;
  }
  pthread_mutex_unlock(&watchdog->mutex);
  return alive;
}

bool watchdog_take_slow(struct watchdog *watchdog, struct peer *peer) {
  pthread_mutex_lock(&watchdog->mutex);
  bool slow = peer->slow;
  peer->slow = false;
  pthread_mutex_unlock(&watchdog->mutex);
  return slow;
}

bool watchdog_timed_out(struct watchdog *watchdog, struct peer *peer) {
  pthread_mutex_lock(&watchdog->mutex);
  bool timed_out = peer->timed_out;
  pthread_mutex_unlock(&watchdog->mutex);
  return timed_out;
}

int watchdog_peers(struct watchdog *watchdog) {
  pthread_mutex_lock(&watchdog->mutex);
  int peers = watchdog->peers;
  pthread_mutex_unlock(&watchdog->mutex);
  return peers;
}

uint64_t watchdog_evicted(struct watchdog *watchdog) {
  pthread_mutex_lock(&watchdog->mutex);
  uint64_t evicted = watchdog->evicted;
  pthread_mutex_unlock(&watchdog->mutex);
  return evicted;
}

void watchdog_close_idle(struct watchdog *watchdog) {
  pthread_mutex_lock(&watchdog->mutex);
  for (int i = 0; i < WATCHDOG_SLOTS; i++) {
    for (struct peer *peer = watchdog->idle[i].first; peer; peer = peer->next) shutdown(peer->fd, SHUT_RDWR);
  }
  pthread_mutex_unlock(&watchdog->mutex);
}

void watchdog_slow_reply(const struct watchdog *watchdog, const struct peer *peer, struct text *raw) {
  struct reply reply = {.v2 = peer->v2};
  reply_error(&reply, 408, "slow_request", peer->request_id,
              "The request did not arrive completely within %lld ms. Send it faster, or raise request_timeout_ms.",
              (long long)watchdog->server->config->request_timeout_ms);
  reply_raw(&reply, peer->request_id, raw);
  reply_release(&reply);
}

/* Ends a peer whose deadline has passed or that is in the way. libmicrohttpd cannot answer in the middle of a body, so the
 * bytes go to the socket directly; the mutex keeps the descriptor open and the connection in this state meanwhile. It notices
 * and closes. */
static void end(struct watchdog *watchdog, struct peer *peer) {
  struct text raw = {0};
  bool receiving = peer->state == PEER_RECEIVING;
  peer->slow = receiving && peer->session;
  if (receiving && !peer->session) watchdog_slow_reply(watchdog, peer, &raw);
  if (raw.length && !raw.failed) {
    ssize_t ignored = send(peer->fd, raw.data, raw.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored;
  }
  text_release(&raw);
  shutdown(peer->fd, peer->slow ? SHUT_RD : SHUT_RDWR);
  unlink_peer(watchdog, peer);
  peer->timed_out = true;
  peer->state = PEER_BUSY;
  watchdog->ending++;
}

static void check_list(struct watchdog *watchdog, struct peer_list *list, uint64_t now) {
  while (list->first && list->first->deadline <= now) end(watchdog, list->first);
}

static bool has_unread(const struct peer *peer) {
  int unread = 0;
  return ioctl(peer->fd, FIONREAD, &unread) == 0 && unread > 0;
}

/* Where the first peer has been idle since `since`, the address that has most. */
static struct peer_list *most_idle(struct watchdog *watchdog, uint64_t since) {
  const uint64_t due = since + CLOCK_MS * (uint64_t)watchdog->server->config->idle_timeout_ms;
  struct peer_list *most = NULL;
  for (int i = 0; i < WATCHDOG_SLOTS; i++) {
    struct peer_list *list = &watchdog->idle[i];
    if (!list->count || list->first->deadline > due || (most && list->count < most->count)) continue;
    if (!most || list->count > most->count || list->first->deadline < most->first->deadline) most = list;
  }
  return most;
}

/* The peer whose connection is worth least; NULL: each may be in use. */
static struct peer *longest_idle(struct watchdog *watchdog, uint64_t now) {
  const uint64_t patience = CLOCK_MS * (uint64_t)watchdog->server->config->idle_timeout_ms;
  const struct peer_list *list = most_idle(watchdog, now);
  uint64_t least = CLOCK_MS * LEAST_IDLE_MS;
  if (list && list->first->deadline + least > now + patience) { /* that one's turn comes soon, and others do not pay for it */
    least = CLOCK_MS * LONG_IDLE_MS;
    list = most_idle(watchdog, now - least);
  }
  struct peer *peer = list ? list->first : NULL;
  while (peer && has_unread(peer)) peer = peer->next; /* its request is about to begin */
  return peer && peer->deadline + least <= now + patience ? peer : NULL;
}

/* Closes idle connections before there are so many that no more are accepted. A client may find a kept connection closed at any
 * time (RFC 9112, 9.5) and opens another one. */
static void make_room(struct watchdog *watchdog, uint64_t now) {
  const struct server *server = watchdog->server;
  int most = server->max_connections > server->io_threads ? server->max_connections : server->io_threads; /* as http_start */
  int room = most < ROOM_SHARE ? 1 : most / ROOM_SHARE;
  if (watchdog->peers - watchdog->ending < most - room / 2) return;
  while (watchdog->peers - watchdog->ending > most - room) {
    struct peer *peer = longest_idle(watchdog, now);
    if (!peer) return;
    end(watchdog, peer);
    watchdog->evicted++;
  }
}

/* libmicrohttpd waits for edges of the socket's state, and misses a close that comes together with the last bytes it reads: the
 * request would stay until its deadline. When all that came has been read and the end has too, shutting down makes an edge. */
static void look_for_closed(struct peer **peers, struct pollfd *fds, nfds_t count) {
  if (count == 0 || poll(fds, count, 0) <= 0) return;
  for (nfds_t i = 0; i < count; i++) {
    int unread = 0;
    if (!(fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR))) continue;
    if (ioctl(peers[i]->fd, FIONREAD, &unread) == 0 && unread == 0) shutdown(peers[i]->fd, SHUT_RDWR);
  }
}

static void check_closed(struct watchdog *watchdog, uint64_t now) {
  struct peer *peers[LOOK_PEERS];
  struct pollfd fds[LOOK_PEERS];
  nfds_t count = 0;
  if (now < watchdog->next_look) return;
  watchdog->next_look = now + LOOK_MS * CLOCK_MS;
  for (struct peer *peer = watchdog->receiving.first; peer; peer = peer->next) {
    peers[count] = peer;
    fds[count++] = (struct pollfd){.fd = peer->fd, .events = POLLRDHUP};
    if (count < LOOK_PEERS) continue;
    look_for_closed(peers, fds, count);
    count = 0;
  }
  look_for_closed(peers, fds, count);
}

static void check_peers(struct watchdog *watchdog, uint64_t now) {
  check_list(watchdog, &watchdog->receiving, now);
  check_list(watchdog, &watchdog->sending, now);
  for (int i = 0; i < WATCHDOG_SLOTS; i++) check_list(watchdog, &watchdog->idle[i], now);
  make_room(watchdog, now);
  check_closed(watchdog, now);
}

/* Tells the service manager, twice as often as it wants to hear it, that this thread runs and has just had the mutexes of the
 * connections and of the queue, and that the I/O threads have come around since: a deadlock, or a thread that is held up, ends
 * the pings. This thread writes no log. */
static void ping(struct watchdog *watchdog, uint64_t now) {
  const struct notify *notify = &watchdog->server->notify;
  if (!notify->watchdog_ns || now < watchdog->next_ping) return;
  if (watchdog->http && !http_turned(watchdog->http)) {
    watchdog->next_ping = now + notify->watchdog_ns / LATE_SHARE;
    return;
  }
  notify_send(notify, "WATCHDOG=1");
  watchdog->next_ping = now + notify->watchdog_ns / 2;
}

/* Waits for a change, until `wake` at most (0: without end). The mutex is held. */
static void wait_until(struct watchdog *watchdog, uint64_t wake) {
  if (wake == 0) {
    pthread_cond_wait(&watchdog->changed, &watchdog->mutex);
    return;
  }
  struct timespec until = {.tv_sec = (time_t)(wake / CLOCK_SECOND), .tv_nsec = (long)(wake % CLOCK_SECOND)};
  pthread_cond_timedwait(&watchdog->changed, &watchdog->mutex, &until);
}

static void *watch(void *argument) {
  struct watchdog *watchdog = argument;
  pthread_mutex_lock(&watchdog->mutex);
  while (!watchdog->stop) {
    uint64_t now = clock_now(), wake = now + TICK_MS * CLOCK_MS;
    ping(watchdog, now);
    if (watchdog->peers == 0) {
      wait_until(watchdog, watchdog->next_ping);
      continue;
    }
    check_peers(watchdog, now);
    pthread_mutex_unlock(&watchdog->mutex);
    struct queue_item *item = queue_expire(&watchdog->server->queue, now);
    while (item) {
      struct queue_item *next = item->next;
      request_expire((struct request *)item);
      item = next;
    }
    pthread_mutex_lock(&watchdog->mutex);
    if (!watchdog->stop) wait_until(watchdog, wake);
  }
  pthread_mutex_unlock(&watchdog->mutex);
  return NULL;
}

bool watchdog_start(struct watchdog *watchdog, struct server *server) {
  pthread_condattr_t attributes;
  *watchdog = (struct watchdog){.server = server};
  if (pthread_mutex_init(&watchdog->mutex, NULL)) return false;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&watchdog->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  watchdog->running = pthread_create(&watchdog->thread, NULL, watch, watchdog) == 0;
  return watchdog->running;
}

void watchdog_watch_http(struct watchdog *watchdog, struct http *http) {
  pthread_mutex_lock(&watchdog->mutex);
  watchdog->http = http;
  pthread_mutex_unlock(&watchdog->mutex);
}

void watchdog_stop(struct watchdog *watchdog) {
  if (!watchdog->running) return;
  pthread_mutex_lock(&watchdog->mutex);
  watchdog->stop = true;
  pthread_cond_signal(&watchdog->changed);
  pthread_mutex_unlock(&watchdog->mutex);
  pthread_join(watchdog->thread, NULL);
  pthread_cond_destroy(&watchdog->changed);
  pthread_mutex_destroy(&watchdog->mutex);
  watchdog->running = false;
}
