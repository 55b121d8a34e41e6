#include "server/watchdog_tls.h"

#include "server/server.h"

#include <poll.h>
#include <sys/socket.h>

static void answer(struct peer *peer) {
  struct text raw = {0};
  watchdog_slow_reply(&peer->server->watchdog, peer, &raw);
  if (!raw.failed && raw.length) {
    ssize_t ignored = gnutls_record_send(peer->session, raw.data, raw.length);
    (void)ignored;
  }
  text_release(&raw);
}

/* Reads for GnuTLS, as it would by itself. Writing to a session from within one of its reads is fine: the two directions have
 * nothing in common, which is what lets two threads use them. */
static ssize_t pull(gnutls_transport_ptr_t pointer, void *bytes, size_t size) {
  struct peer *peer = pointer;
  ssize_t count = recv(peer->fd, bytes, size, 0);
  if (count == 0 && watchdog_take_slow(&peer->server->watchdog, peer)) answer(peer);
  return count;
}

static int pull_timeout(gnutls_transport_ptr_t pointer, unsigned ms) {
  const struct peer *peer = pointer;
  struct pollfd poll_fd = {.fd = peer->fd, .events = POLLIN};
  return poll(&poll_fd, 1, ms == GNUTLS_INDEFINITE_TIMEOUT ? -1 : (int)ms);
}

void watchdog_tls_attach(struct peer *peer, gnutls_session_t session) {
  peer->session = session;
  gnutls_transport_set_ptr2(session, peer, (gnutls_transport_ptr_t)(intptr_t)peer->fd);
  gnutls_transport_set_pull_function(session, pull);
  gnutls_transport_set_pull_timeout_function(session, pull_timeout);
}
