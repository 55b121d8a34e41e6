#include "tests/support/fuzz_daemon.h"

#include "server/lifecycle.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of the one daemon of the program: the target's check gets no context. */
static int port;

struct run {
  struct config config;
  int code;
};

static int connect_to_daemon(void) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address)) {
    close(fd);
    fd = -1;
  }
  return fd;
}

static size_t exchange(int fd, const uint8_t *bytes, size_t length, int patience_ms, char *reply) {
  size_t received = 0;
  bool open = true;
  if (length && send(fd, bytes, length, MSG_NOSIGNAL) < 0) open = false;
  while (received < FUZZ_REPLY_BYTES - 1) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (poll(&poll_fd, 1, open ? patience_ms : 5000) == 0) {
      if (!open) break;
      shutdown(fd, SHUT_WR);
      open = false;
      continue;
    }
    ssize_t count = recv(fd, reply + received, FUZZ_REPLY_BYTES - 1 - received, 0);
    if (count <= 0) break;
    received += (size_t)count;
  }
  reply[received] = 0;
  return received;
}

const char *fuzz_daemon_ask(const uint8_t *bytes, size_t length, int patience_ms, char *reply, size_t *received) {
  int fd = connect_to_daemon();
  if (fd < 0) return "the daemon does not accept connections";
  *received = exchange(fd, bytes, length, patience_ms, reply);
  close(fd);
  if (*received && strncmp(reply, "HTTP/1.", 7) != 0) return "a reply that is no HTTP";
  return NULL;
}

static void *serve(void *argument) {
  struct run *run = argument;
  char *const no_arguments[] = {NULL};
  run->code = lifecycle_run(&run->config, 0, no_arguments);
  return NULL;
}

/* The port, once the daemon serves. */
static int wait_for_port(const char *path) {
  for (int tries = 0; tries < 12000; tries++) {
    FILE *stream = fopen(path, "r");
    int number = 0;
    if (stream) {
      if (fscanf(stream, "%d", &number) != 1) number = 0;
      fclose(stream);
    }
    if (number) return number;
    poll(NULL, 0, 10);
  }
  return 0;
}

static bool set_up(struct run *run, const char *folder) {
  struct support_random random = {11};
  struct hwgq_model *model = support_random_model(&random);
  struct hwgq_error error;
  char *path = support_path(folder, "random.hwgq"), *port_file = support_path(folder, "port");
  const char *arguments[] = {"hwgqd",   "--listen",    "127.0.0.1:0", "--models",         path,   "--port-file",
                             port_file, "--log-level", "error",       "--max-body-bytes", "5000", "--request-timeout-ms",
                             "2000"};
  enum config_command command;
  enum hwgq_status status = hwgq_model_write(model, path, &error);
  if (!status) {
    status = config_load(sizeof arguments / sizeof arguments[0], (char *const *)(uintptr_t)arguments, &run->config, &command,
                         &error);
  }
  if (status) fprintf(stderr, "fuzz_daemon: %s\n", error.message);
  hwgq_model_destroy(model);
  free(path);
  free(port_file);
  return !status;
}

int fuzz_daemon_main(int argc, char **argv, const struct fuzz_target *target) {
  char *folder = support_make_directory();
  struct run run = {.code = -1};
  pthread_t thread;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL); /* the daemon's thread takes it */
  if (!set_up(&run, folder) || pthread_create(&thread, NULL, serve, &run)) return 1;
  port = wait_for_port(run.config.port_file);
  int failed = port ? fuzz_main(argc, argv, target) : 1;
  kill(getpid(), SIGTERM);
  pthread_join(thread, NULL);
  if (run.code != 0) fprintf(stderr, "fuzz_daemon: the daemon ended with %d\n", run.code);
  config_release(&run.config);
  support_remove_directory(folder);
  return failed || run.code != 0;
}
