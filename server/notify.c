#include "server/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FIRST_FD = 3 /* SD_LISTEN_FDS_START */, MAX_MESSAGE = 512 };

/* A number in an environment variable; 0 when there is none. */
static unsigned long long number(const char *name) {
  const char *text = getenv(name);
  char *rest = NULL;
  if (!text || *text < '0' || *text > '9') return 0;
  errno = 0;
  unsigned long long value = strtoull(text, &rest, 10);
  return errno || *rest ? 0 : value;
}

enum hwgq_status notify_open(struct notify *notify, struct hwgq_error *error) {
  const char *path = getenv("NOTIFY_SOCKET");
  const struct timeval patience = {.tv_sec = 1};
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  *notify = (struct notify){.fd = -1};
  if (!path || !*path) return HWGQ_OK;
  size_t length = strlen(path);
  if ((path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof address.sun_path) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "NOTIFY_SOCKET is no path and no abstract name of a socket: '%.60s'", path);
  }
  memcpy(address.sun_path, path, length);
  if (path[0] == '@') address.sun_path[0] = 0;
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (path[0] == '/'));
  if (fd < 0 || connect(fd, (const struct sockaddr *)&address, size)) {
    int saved = errno;
    if (fd >= 0) close(fd);
    return hwgq_fail(error, HWGQ_ERROR_IO, "NOTIFY_SOCKET %.80s cannot be reached: %s", path, strerror(saved));
  }
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  notify->fd = fd;
  unsigned long long pid = number("WATCHDOG_PID"), usec = number("WATCHDOG_USEC");
  if ((!getenv("WATCHDOG_PID") || pid == (unsigned long long)getpid()) && usec < UINT64_MAX / 1000) {
    notify->watchdog_ns = usec * 1000;
  }
  return HWGQ_OK;
}

void notify_close(struct notify *notify) {
  if (notify->fd >= 0) close(notify->fd);
  notify->fd = -1;
}

void notify_send(const struct notify *notify, const char *format, ...) {
  char message[MAX_MESSAGE];
  va_list arguments;
  if (notify->fd < 0) return;
  va_start(arguments, format);
  int length = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (length <= 0) return;
  if ((size_t)length >= sizeof message) length = sizeof message - 1;
  ssize_t ignored = send(notify->fd, message, (size_t)length, MSG_NOSIGNAL);
  (void)ignored;
}

enum hwgq_status notify_listener(int *fd, struct hwgq_error *error) {
  int type = 0, listens = 0;
  socklen_t size = sizeof type, listens_size = sizeof listens;
  *fd = -1;
  unsigned long long count = number("LISTEN_FDS");
  if (count == 0 || number("LISTEN_PID") != (unsigned long long)getpid()) return HWGQ_OK;
  if (count != 1) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "LISTEN_FDS: %llu sockets were passed, hwgqd takes one (one ListenStream=)",
                     count);
  }
  if (getsockopt(FIRST_FD, SOL_SOCKET, SO_TYPE, &type, &size) || type != SOCK_STREAM ||
      getsockopt(FIRST_FD, SOL_SOCKET, SO_ACCEPTCONN, &listens, &listens_size) || !listens) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "LISTEN_FDS: descriptor %d is no listening stream socket (ListenStream=, Accept=no)", FIRST_FD);
  }
  int flags = fcntl(FIRST_FD, F_GETFL);
  if (flags < 0 || fcntl(FIRST_FD, F_SETFL, flags | O_NONBLOCK) || fcntl(FIRST_FD, F_SETFD, FD_CLOEXEC)) {
    return hwgq_fail(error, HWGQ_ERROR_IO, "LISTEN_FDS: descriptor %d: %s", FIRST_FD, strerror(errno));
  }
  *fd = FIRST_FD;
  return HWGQ_OK;
}
