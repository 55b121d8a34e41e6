#include "server/http.h"

#include "server/clock.h"
#include "server/io_loop.h"
#include "server/request.h"
#include "server/tls.h"
#include "server/watchdog_tls.h"

#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 1024 };

struct http {
  struct server *server;
  int count;
  struct io_loop *loops[];
};

static int open_socket(const struct addrinfo *address) {
  int on = 1, fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) return fd;
  int saved = errno;
  close(fd);
  errno = saved;
  return -1;
}

int http_port(int fd) {
  struct sockaddr_storage address = {0};
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size)) return 0;
  if (address.ss_family == AF_INET) return ntohs(((struct sockaddr_in *)(void *)&address)->sin_port);
  if (address.ss_family == AF_INET6) return ntohs(((struct sockaddr_in6 *)(void *)&address)->sin6_port);
  return 0;
}

enum hwgq_status http_listen(const char *listen, int *fd, int *port, struct hwgq_error *error) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *addresses;
  char host[256], service[8];
  int number;
  enum hwgq_status status = config_split_listen(listen, host, sizeof host, &number, error);
  if (status) return status;
  snprintf(service, sizeof service, "%d", number);
  int failed = getaddrinfo(host, service, &hints, &addresses);
  if (failed)
    return hwgq_fail(error, HWGQ_ERROR_IO, "listen: '%s' is no address of this machine: %s", host, gai_strerror(failed));
  int made = open_socket(addresses);
  int saved = errno;
  freeaddrinfo(addresses);
  if (made < 0) {
    return hwgq_fail(error, HWGQ_ERROR_IO, "listen: cannot listen on %s: %s%s", listen, strerror(saved),
                     saved == EADDRINUSE ? " (another program does; choose another port with --listen)" : "");
  }
  *fd = made;
  *port = http_port(made);
  return HWGQ_OK;
}

bool http_is_loopback(int fd) {
  struct sockaddr_storage address = {0};
  socklen_t size = sizeof address;
  if (getsockname(fd, (struct sockaddr *)&address, &size)) return false;
  if (address.ss_family == AF_UNIX) return true;
  if (address.ss_family == AF_INET) {
    return ntohl(((struct sockaddr_in *)(void *)&address)->sin_addr.s_addr) >> 24 == 127;
  }
  return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)(void *)&address)->sin6_addr);
}

static void on_message(void *closure, const char *format, va_list arguments) {
  const struct server *server = closure;
  struct text text = {0};
  if (atomic_load(&server->log.level) > LOG_DEBUG) return;
  text_puts(&text, "libmicrohttpd: ");
  text_vprintf(&text, format, arguments);
  if (!text.failed) {
    while (text.length && text.data[text.length - 1] == '\n') text.data[--text.length] = 0;
    log_write(&server->log, LOG_DEBUG, text.data, NULL, 0);
  }
  text_release(&text);
}

static void on_connection(void *closure, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what) {
  struct io_loop *loop = closure;
  struct server *server = io_loop_server(loop);
  io_loop_changed(loop);
  if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
    struct peer *peer = *socket_context;
    /* A request that libmicrohttpd gave up before it had called on_access gets no on_completed. */
    if (peer && peer->request) request_finish(peer->request, MHD_REQUEST_TERMINATED_CLIENT_ABORT);
    watchdog_remove(&server->watchdog, peer);
    *socket_context = NULL;
    return;
  }
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
  const union MHD_ConnectionInfo *from = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  struct limits_address address;
  limits_address_of(from ? from->client_addr : NULL, &address);
  uint64_t client = limits_address_number(&address, server->request_seed);
  struct peer *peer = info ? watchdog_add(&server->watchdog, info->connect_fd, loop, client) : NULL;
  const union MHD_ConnectionInfo *tls = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (peer && tls && tls->tls_session) watchdog_tls_attach(peer, tls->tls_session);
  *socket_context = peer;
}

static void *on_request_line(void *closure, const char *uri, struct MHD_Connection *connection) {
  return request_create(closure, connection, uri);
}

static enum MHD_Result on_access(void *closure, struct MHD_Connection *connection, const char *path, const char *method,
                                 const char *version, const char *data, size_t *size, void **context) {
  struct request *request = *context;
  (void)closure;
  (void)connection;
  if (!request) return MHD_NO;
  if (request->reply.status == 414 && atomic_load(&request->phase) == REQUEST_SENT) return MHD_NO; /* refuse_arguments */
  switch (atomic_load(&request->phase)) {
  case REQUEST_NEW:
    return request_begin(request, path, method, version);
  case REQUEST_RECEIVING:
    if (*size) {
      size_t length = *size;
      *size = 0;
      return request_receive(request, data, length);
    }
    return request_complete(request);
  case REQUEST_RESUMED:
    return request_send(request);
  default:
    return MHD_YES;
  }
}

static void on_completed(void *closure, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode why) {
  (void)closure;
  (void)connection;
  if (*context) request_finish(*context, why);
  *context = NULL;
}

/* libmicrohttpd makes its connection the pointer of the session; the server is found from there. */
static int on_handshake(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **chain,
                        unsigned *chain_length, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_length, gnutls_privkey_t *key,
                        unsigned *flags) {
  struct MHD_Connection *connection = gnutls_session_get_ptr(session);
  const union MHD_ConnectionInfo *context =
      connection ? MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT) : NULL;
  const struct peer *peer = context ? context->socket_context : NULL;
  (void)info;
  *ocsp = NULL;
  *ocsp_length = 0;
  return peer ? tls_retrieve(peer->server->tls, chain, chain_length, key, flags) : -1;
}

/* A daemon without a thread; NULL: errno says why. */
static struct MHD_Daemon *make_daemon(struct io_loop *loop, int fd, unsigned connections) {
  struct server *server = io_loop_server(loop);
  const struct config *config = server->config;
  int64_t patience =
      config->idle_timeout_ms > config->request_timeout_ms ? config->idle_timeout_ms : config->request_timeout_ms;
  struct MHD_OptionItem options[] = {
      {MHD_OPTION_LISTEN_SOCKET, fd, NULL},
      {MHD_OPTION_CONNECTION_LIMIT, (intptr_t)connections, NULL},
      {MHD_OPTION_CONNECTION_MEMORY_LIMIT, HTTP_CONNECTION_MEMORY, NULL},
      /* The watchdog is quicker; this is for the case that its thread is held up. */
      {MHD_OPTION_CONNECTION_TIMEOUT, (intptr_t)(patience / 1000 + 5), NULL},
      {MHD_OPTION_STRICT_FOR_CLIENT, 0, NULL},
      {MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1, NULL},
      {server->tls ? MHD_OPTION_HTTPS_PRIORITIES : MHD_OPTION_END, 0, (void *)(uintptr_t)TLS_PRIORITIES},
      {MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, (void *)(uintptr_t)on_handshake},
      {MHD_OPTION_END, 0, NULL},
  };
  /* MHD_ALLOW_SUSPEND_RESUME without the channel that wakes a thread of libmicrohttpd's: the loop has its own. */
  unsigned flags = MHD_USE_EPOLL | ((unsigned)MHD_ALLOW_SUSPEND_RESUME & ~(unsigned)MHD_USE_ITC) | MHD_USE_ERROR_LOG;
  return MHD_start_daemon(flags | (server->tls ? MHD_USE_TLS : 0), 0, NULL, NULL, on_access, server, MHD_OPTION_EXTERNAL_LOGGER,
                          on_message, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, loop, MHD_OPTION_NOTIFY_COMPLETED,
                          on_completed, server, MHD_OPTION_URI_LOG_CALLBACK, on_request_line, server, MHD_OPTION_ARRAY, options,
                          MHD_OPTION_END);
}

static enum hwgq_status start_loop(struct http *http, int fd, unsigned connections, struct hwgq_error *error) {
  struct io_loop *loop = io_loop_create(http->server);
  if (!loop) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot start I/O thread %d: %s", http->count + 1, strerror(errno));
  struct MHD_Daemon *daemon = make_daemon(loop, fd, connections);
  if (!daemon) {
    io_loop_destroy(loop);
    return hwgq_fail(error, HWGQ_ERROR_IO, "libmicrohttpd could not start with %u connections: %s", connections,
                     strerror(errno));
  }
  http->loops[http->count++] = loop;
  return io_loop_start(loop, daemon)
             ? HWGQ_OK
             : hwgq_fail(error, HWGQ_ERROR_IO, "cannot start I/O thread %d: %s", http->count, strerror(errno));
}

enum hwgq_status http_start(struct server *server, int fd, struct http **http, struct hwgq_error *error) {
  unsigned threads = (unsigned)server->io_threads, connections = (unsigned)server->max_connections;
  struct http *made = calloc(1, sizeof *made + threads * sizeof(struct io_loop *));
  enum hwgq_status status = HWGQ_OK;
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %u I/O threads", threads);
  made->server = server;
  *http = made;
  if (connections < threads) connections = threads;
  for (unsigned i = 0; !status && i < threads; i++) {
    status = start_loop(made, fd, connections / threads + (i < connections % threads), error);
  }
  return status;
}

void http_stop(struct http *http) {
  for (int i = 0; http && i < http->count; i++) io_loop_stop(http->loops[i]);
}

void http_destroy(struct http *http) {
  for (int i = 0; http && i < http->count; i++) io_loop_destroy(http->loops[i]);
  free(http);
}

bool http_turned(struct http *http) {
  for (int i = 0; i < http->count; i++) {
    if (!io_loop_turned(http->loops[i])) return false;
  }
  for (int i = 0; i < http->count; i++) io_loop_ask_turn(http->loops[i]);
  return true;
}

static void quiesce(struct http *http) {
  for (int i = 0; i < http->count; i++) io_loop_quiesce(http->loops[i]);
}

/* Makes the kernel drop packets that would open a new connection, while those in the accept queue, and handshakes that have
 * begun, go on. The client sends them again and then meets a closed port instead of a connection that nobody answers. */
static void refuse_handshakes(int fd) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),          /* the TCP flags */
      BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),       /* SYN and ACK */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1), /* SYN alone: */
      BPF_STMT(BPF_RET | BPF_K, 0),                    /* drop */
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
  };
  const struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

void http_stop_accepting(struct http *http, int fd, bool shared) {
  /* On a loaded machine the I/O threads may take a while: three seconds at most, but no longer than the queue needs. */
  enum { TRIES = 600, QUIET = 4, PAUSE_MS = 5 };
  if (shared) {
    quiesce(http);
    return;
  }
  refuse_handshakes(fd);
  for (int tries = 0, quiet = 0; tries < TRIES && quiet < QUIET; tries++) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    quiet = poll(&poll_fd, 1, 0) > 0 ? 0 : quiet + 1;
    poll(NULL, 0, PAUSE_MS);
  }
  quiesce(http);
  /* Not closed: an I/O thread may be in accept() just now, and the number must not become another file. */
  shutdown(fd, SHUT_RD);
}
