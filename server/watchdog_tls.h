/* A request on a TLS connection that did not arrive in time. Only the I/O thread may write to the session, and libmicrohttpd
 * calls nobody while nothing arrives: so the watchdog shuts the reading side down, and the answer is written where the I/O
 * thread's next read finds that out, before libmicrohttpd learns of it and closes. */
#ifndef WATCHDOG_TLS_H
#define WATCHDOG_TLS_H

#include "server/watchdog.h"

#include <gnutls/gnutls.h>

/* Once for a new connection, before its handshake. The peer must live until the last read. */
void watchdog_tls_attach(struct peer *peer, gnutls_session_t session);

#endif
