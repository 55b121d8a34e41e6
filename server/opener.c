#include "server/opener.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ADDRESS = 512 };

/* Only what is safe between fork and exec. */
static void wait_and_open(int fd) {
  char address[MAX_ADDRESS + 1];
  size_t length = 0;
  ssize_t count;
  sigset_t none;
  while ((count = read(fd, address + length, MAX_ADDRESS - length)) > 0) length += (size_t)count;
  if (length == 0) _exit(0);
  address[length] = 0;
  /* A terminal is the daemon's: a browser's messages, or a text browser, do not belong there. */
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int i = 0; i < 3 && null >= 0; i++) dup2(null, i);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  setsid();
  execlp("xdg-open", "xdg-open", address, (char *)NULL);
  _exit(127);
}

enum hwgq_status opener_start(int *fd, struct hwgq_error *error) {
  int ends[2], ignored;
  if (pipe2(ends, O_CLOEXEC)) return hwgq_fail(error, HWGQ_ERROR_IO, "--open: cannot make a pipe: %s", strerror(errno));
  pid_t child = fork();
  if (child == 0) {
    /* Once more, so that it is no child of the daemon, which waits for none. */
    close(ends[1]);
    if (fork() == 0) wait_and_open(ends[0]);
    _exit(0);
  }
  close(ends[0]);
  if (child < 0) {
    close(ends[1]);
    return hwgq_fail(error, HWGQ_ERROR_IO, "--open: cannot start a process: %s", strerror(errno));
  }
  while (waitpid(child, &ignored, 0) < 0 && errno == EINTR) continue;
  *fd = ends[1];
  return HWGQ_OK;
}

void opener_show(int fd, const char *address) {
  size_t length = strlen(address);
  if (length <= MAX_ADDRESS) {
    ssize_t ignored = write(fd, address, length); /* nobody reads: there is no browser to show it in */
    (void)ignored;
  }
  close(fd);
}
