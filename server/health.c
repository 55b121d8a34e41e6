#include "server/health.h"

#include "server/tls.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* The port in the port file, or 0. */
static int port_in_file(const char *path) {
  FILE *stream = path ? fopen(path, "r") : NULL;
  int port = 0;
  if (!stream) return 0;
  if (fscanf(stream, "%d", &port) != 1) port = 0;
  fclose(stream);
  return port;
}

static int connect_to(const char *host, int port, int *failure) {
  const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
  const struct timeval patience = {.tv_sec = 2};
  struct addrinfo *addresses;
  char service[8];
  snprintf(service, sizeof service, "%d", port);
  *failure = EHOSTUNREACH;
  if (getaddrinfo(host, service, &hints, &addresses)) return -1;
  int fd = socket(addresses->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, addresses->ai_addr, addresses->ai_addrlen)) {
      *failure = errno;
      close(fd);
      fd = -1;
    }
  }
  freeaddrinfo(addresses);
  return fd;
}

enum hwgq_status health_probe(const struct config *config, struct hwgq_error *error) {
  static const char question[] = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
  char host[256], answer[64] = "";
  int port, failure;
  enum hwgq_status status = config_split_listen(config->listen, host, sizeof host, &port, error);
  if (status) return status;
  if (port == 0) port = port_in_file(config->port_file);
  if (port == 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "listen has port 0: give --port-file, which the daemon writes");
  /* An address that means "all" is reached by the local one. */
  if (strcmp(host, "0.0.0.0") == 0) strcpy(host, "127.0.0.1");
  if (strcmp(host, "::") == 0) strcpy(host, "::1");
  int fd = connect_to(host, port, &failure);
  if (fd < 0) return hwgq_fail(error, HWGQ_ERROR_IO, "no daemon answers on %s port %d: %s", host, port, strerror(failure));
  size_t length = 0;
  if (config->tls_certificate) {
    length = tls_ask(fd, question, answer, sizeof answer);
  } else if (send(fd, question, sizeof question - 1, MSG_NOSIGNAL) == (ssize_t)(sizeof question - 1)) {
    ssize_t count;
    while (length < 12 && (count = recv(fd, answer + length, sizeof answer - 1 - length, 0)) > 0) length += (size_t)count;
  }
  close(fd);
  if (length >= 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0) return HWGQ_OK;
  return hwgq_fail(
      error, HWGQ_ERROR_IO, "the daemon on %s port %d did not say within 2 seconds that it is healthy%s", host, port,
      length || config->tls_certificate ? "" : "; where it serves HTTPS, give its --tls-certificate and --tls-key");
}
