/* The listening socket and libmicrohttpd. */
#ifndef HTTP_H
#define HTTP_H

#include "server/server.h"

#include <microhttpd.h>

enum { HTTP_CONNECTION_MEMORY = 16 << 10 }; /* libmicrohttpd's buffers for one connection */

/* Binds and listens on config->listen. *port: the one in use. */
enum hwgq_status http_listen(const char *listen, int *fd, int *port, struct hwgq_error *error);
/* Whether everything that can reach this address runs on the same machine. */
bool http_is_loopback(int fd);
/* Serves on `fd`, which stays the caller's. */
enum hwgq_status http_start(struct server *server, int fd, struct MHD_Daemon **daemon, struct hwgq_error *error);
/* Stops accepting: what the kernel has accepted already is still taken (for up to three seconds, until its queue was empty four
 * times in a row), new connections are refused. */
void http_stop_accepting(struct MHD_Daemon *daemon, int fd);

#endif
