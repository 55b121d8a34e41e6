/* Damaged HTTP on a real socket: the whole daemon runs inside this program, so that a sanitizer sees all of it. Whatever a
 * client sends, there is no 500, no reply without a request id of ours where we answer, and the daemon still works and ends
 * cleanly. */
#include "server/lifecycle.h"
#include "tests/support/fuzz.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REPLY_BYTES = 1 << 16, PATIENCE_MS = 3 };

static int port;

static const char *const seeds[] = {
    "POST /classify?top_k=3 HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nX-Request-Id: abc\r\nContent-Length: 20\r\n\r\n"
    "\xff\xd8\xff\xe0 not an image   ",
    "POST /v1/models/random/classify HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: "
    "94\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n\r\n\xff\xd8\xff\xd9 "
    "abc\r\n--XX--\r\n",
    "PUT /classify?model=random HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
    "chunked\r\n\r\n5\r\n\xff\xd8\xff\xe0z\r\n3;x=y\r\nabc\r\n0\r\n"
    "\r\n",
    "POST /classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /stats?window=60 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "DELETE /v1/models/random/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /%00%2f%zz/../v2?a=b&&=%26 HTTP/1.1\r\nHost: x\r\nX-Request-Id: <script>\r\n\r\n",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

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

/* Reads until the daemon closes or is silent: then this side closes its half, at which the daemon gives up waiting for more. */
static size_t exchange(int fd, const uint8_t *bytes, size_t length, char *reply) {
  size_t received = 0;
  bool open = true;
  if (length && send(fd, bytes, length, MSG_NOSIGNAL) < 0) open = false;
  while (received < REPLY_BYTES - 1) {
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    if (poll(&poll_fd, 1, open ? PATIENCE_MS : 5000) == 0) {
      if (!open) break;
      shutdown(fd, SHUT_WR);
      open = false;
      continue;
    }
    ssize_t count = recv(fd, reply + received, REPLY_BYTES - 1 - received, 0);
    if (count <= 0) break;
    received += (size_t)count;
  }
  reply[received] = 0;
  return received;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  static char reply[REPLY_BYTES];
  int fd = connect_to_daemon();
  if (fd < 0) return "the daemon does not accept connections";
  size_t received = exchange(fd, bytes, length, reply);
  close(fd);
  *accepted = strstr(reply, "HTTP/1.1 200") != NULL;
  if (received == 0) return NULL;
  if (strncmp(reply, "HTTP/1.", 7) != 0) return "a reply that is no HTTP";
  for (const char *status = reply; (status = strstr(status, "HTTP/1.1 5")); status++) {
    /* Bodies, which end with a line feed, may quote the request, but no line feeds of it. */
    if (status > reply && status[-1] != '\n') continue;
    /* 503 queue, 504 deadline; 505 is libmicrohttpd's answer to another HTTP version */
    if (status[11] != '3' && status[11] != '4' && status[11] != '5') return "a status of 500";
  }
  return NULL;
}

struct run {
  struct config config;
  int code;
};

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

static void set_up(struct run *run, const char *folder) {
  struct support_random random = {11};
  struct hwgq_model *model = support_random_model(&random);
  struct hwgq_error error;
  char *path = support_path(folder, "random.hwgq"), *port_file = support_path(folder, "port");
  if (hwgq_model_write(model, path, &error)) {
    fprintf(stderr, "fuzz_http: %s\n", error.message);
    exit(1);
  }
  const char *arguments[] = {"hwgqd",   "--listen",    "127.0.0.1:0", "--models",         path,   "--port-file",
                             port_file, "--log-level", "error",       "--max-body-bytes", "5000", "--request-timeout-ms",
                             "2000"};
  enum config_command command;
  if (config_load(13, (char *const *)(uintptr_t)arguments, &run->config, &command, &error)) {
    fprintf(stderr, "fuzz_http: %s\n", error.message);
    exit(1);
  }
  hwgq_model_destroy(model);
  free(path);
  free(port_file);
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "http", .runs = 500, .make_seed = make_seed, .check = check};
  char *folder = support_make_directory();
  struct run run = {.code = -1};
  pthread_t thread;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, NULL); /* the daemon's thread takes it */
  set_up(&run, folder);
  if (pthread_create(&thread, NULL, serve, &run)) return 1;
  port = wait_for_port(run.config.port_file);
  int failed = port ? fuzz_main(argc, argv, &target) : 1;
  kill(getpid(), SIGTERM);
  pthread_join(thread, NULL);
  if (run.code != 0) fprintf(stderr, "fuzz_http: the daemon ended with %d\n", run.code);
  config_release(&run.config);
  support_remove_directory(folder);
  return failed || run.code != 0;
}
