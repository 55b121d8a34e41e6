/* The listening socket and libmicrohttpd. */
#ifndef HTTP_H
#define HTTP_H

#include "server/server.h"

enum { HTTP_CONNECTION_MEMORY = 32 << 10 }; /* libmicrohttpd's buffers for one connection */

struct http;

/* Binds and listens on config->listen. *port: the one in use. */
enum hwgq_status http_listen(const char *listen, int *fd, int *port, struct hwgq_error *error);
/* The port of a listening socket that was passed to the process, 0 when it is a local (AF_UNIX) one. */
int http_port(int fd);
/* Whether everything that can reach this address runs on the same machine. */
bool http_is_loopback(int fd);
/* Serves on `fd`, which stays the caller's. *http must be stopped and destroyed also on failure. */
enum hwgq_status http_start(struct server *server, int fd, struct http **http, struct hwgq_error *error);
/* Whether all I/O threads have come around since this was last true; it then asks them to. */
bool http_turned(struct http *http);
/* Stops accepting. A socket of our own: what the kernel has accepted already is still taken (for up to three seconds, until its
 * queue was empty four times in a row), new connections are refused. A `shared` one, which others hold too: what waits there is
 * for the next process that serves it. */
void http_stop_accepting(struct http *http, int fd, bool shared);
/* Ends the I/O threads and closes all connections; nothing may be suspended. NULL is fine, as for http_destroy. */
void http_stop(struct http *http);
/* When all threads that resume requests have ended. */
void http_destroy(struct http *http);

#endif
