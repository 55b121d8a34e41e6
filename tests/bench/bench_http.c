/* A load generator: POST /classify to a daemon on this machine.
 *
 *   bench_http PORT RATE SECONDS CONNECTIONS IMAGE...
 *   bench_http PORT ~RATE SECONDS CONNECTIONS IMAGE...
 *
 * It is an open loop: request k is due at start + k / RATE whatever became of the ones before, and its latency counts from
 * then, also when it had to wait for a free connection (no coordinated omission). RATE 0 is a closed loop: every connection
 * sends as soon as it has its answer, which finds the capacity. ~RATE: requests come at random, that many a second on average
 * (a Poisson process, the same in every run). One thread; connections are kept. Prints one line of NAME=VALUE; times in ms. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_BYTES = 16 << 10, EVENTS = 256, PATIENCE_S = 10 };

struct bytes {
  uint8_t *data;
  size_t length;
};

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void stop(const char *what) {
  fprintf(stderr, "bench_http: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void *need(void *memory) {
  if (!memory) stop("memory");
  return memory;
}

static struct bytes read_file(const char *path) {
  FILE *stream = fopen(path, "rb");
  struct bytes bytes = {need(malloc(1 << 20)), 0};
  if (!stream) stop(path);
  bytes.length = fread(bytes.data, 1, 1 << 20, stream);
  fclose(stream);
  return bytes;
}

static struct bytes *read_files(char **paths, int count) {
  struct bytes *files = need(calloc((size_t)count, sizeof *files));
  for (int i = 0; i < count; i++) files[i] = read_file(paths[i]);
  return files;
}

/* ---- load -----------------------------------------------------------------------------------------------------------------
 */

struct connection {
  int fd;
  uint64_t due; /* of the request that it carries; 0: idle */
  size_t received;
  struct connection *next_idle;
  char reply[REPLY_BYTES];
};

/* Latencies of one outcome, nanoseconds. */
struct samples {
  uint64_t *values;
  size_t count, capacity;
};

struct load {
  int port, epoll, timer;
  double rate;                                 /* per second; 0: closed loop */
  bool random;                                 /* gaps between requests are exponentially distributed */
  uint64_t start, end, random_state, next_due; /* the last two of random ones */
  struct bytes *requests;
  int request_count;
  uint64_t sent, late, lost; /* late: had to wait for a connection; lost: the connection broke */
  uint64_t other;            /* answers that are neither 200 nor 503 */
  uint64_t in_flight;
  struct connection *connections, *idle;
  int connection_count;
  struct samples accepted, refused;
};

static void add(struct samples *samples, uint64_t value) {
  if (samples->count == samples->capacity) {
    samples->capacity = samples->capacity ? 2 * samples->capacity : 1 << 16;
    samples->values = need(realloc(samples->values, samples->capacity * sizeof *samples->values));
  }
  samples->values[samples->count++] = value;
}

static void open_connection(struct load *load, struct connection *connection) {
  const struct sockaddr_in address = {
      .sin_family = AF_INET, .sin_port = htons((uint16_t)load->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
  int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address)) stop("connect");
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, fd, &event)) stop("epoll");
  connection->fd = fd;
  connection->due = 0;
  connection->received = 0;
  connection->next_idle = load->idle;
  load->idle = connection;
}

/* When the next request is due. */
static uint64_t due(const struct load *load) {
  return load->random ? load->next_due : load->start + (uint64_t)((double)load->sent * 1e9 / load->rate);
}

/* A gap between two events of a Poisson process, nanoseconds; xorshift64* by Marsaglia and Vigna. */
static uint64_t random_gap(struct load *load) {
  uint64_t x = load->random_state;
  x ^= x >> 12;
  x ^= x << 25;
  x ^= x >> 27;
  load->random_state = x;
  return (uint64_t)(-log(((double)(x * 0x2545F4914F6CDD1Du >> 11) + 1) * 0x1p-53) * 1e9 / load->rate);
}

static void send_request(struct load *load, uint64_t due) {
  struct connection *connection = load->idle;
  const struct bytes *request = &load->requests[load->sent++ % (uint64_t)load->request_count];
  load->idle = connection->next_idle;
  connection->due = due;
  connection->received = 0;
  load->in_flight++;
  /* A request fits the socket's buffer, which is empty: whatever was sent before has been answered. */
  if (send(connection->fd, request->data, request->length, MSG_NOSIGNAL) != (ssize_t)request->length) {
    shutdown(connection->fd, SHUT_RDWR); /* seen as lost when its end is read */
  }
}

/* Sends what is due and can be sent. */
static void send_due(struct load *load, uint64_t now) {
  while (load->idle && now < load->end) {
    uint64_t then = load->rate > 0 ? due(load) : now;
    if (then > now || then >= load->end) return;
    if (now - then > 1000000) load->late++;
    if (load->random) load->next_due += random_gap(load);
    send_request(load, then);
  }
}

/* Bytes of the whole answer, once its headers are there; 0 before. */
static size_t answer_length(const struct connection *connection) {
  const char *end = memmem(connection->reply, connection->received, "\r\n\r\n", 4);
  if (!end) return 0;
  const char *length = memmem(connection->reply, (size_t)(end - connection->reply), "Content-Length: ", 16);
  return (size_t)(end - connection->reply) + 4 + (length ? strtoul(length + 16, NULL, 10) : 0);
}

static void finish(struct load *load, struct connection *connection, uint64_t now) {
  int status = atoi(connection->reply + 9);
  uint64_t latency = now - connection->due;
  load->in_flight--;
  if (status == 200) {
    add(&load->accepted, latency);
  } else if (status == 503) {
    add(&load->refused, latency);
  } else {
    load->other++;
  }
  connection->due = 0;
  connection->next_idle = load->idle;
  load->idle = connection;
}

static void receive(struct load *load, struct connection *connection) {
  ssize_t count = recv(connection->fd, connection->reply + connection->received, REPLY_BYTES - 1 - connection->received, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    if (connection->due == 0) stop("the daemon closed an idle connection");
    load->lost++;
    load->in_flight--;
    close(connection->fd);
    open_connection(load, connection);
    return;
  }
  connection->received += (size_t)count;
  connection->reply[connection->received] = 0;
  size_t length = answer_length(connection);
  if (length && connection->received >= length) finish(load, connection, now_ns());
}

/* Wakes at each time that is due, a moment after it; at random ones, once a time. */
static void set_timer(struct load *load) {
  const uint64_t second = UINT64_C(1000000000), first = (load->random ? load->next_due : load->start) + 2000;
  const uint64_t interval = load->random ? 0 : load->rate > 0 ? (uint64_t)(1e9 / load->rate) : 1000000;
  const struct itimerspec timer = {.it_interval = {.tv_sec = (time_t)(interval / second), .tv_nsec = (long)(interval % second)},
                                   .it_value = {.tv_sec = (time_t)(first / second), .tv_nsec = (long)(first % second)}};
  if (timerfd_settime(load->timer, TFD_TIMER_ABSTIME, &timer, NULL)) stop("timer");
}

static void start_timer(struct load *load) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
  load->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (load->timer < 0 || epoll_ctl(load->epoll, EPOLL_CTL_ADD, load->timer, &event)) stop("timer");
  set_timer(load);
}

static void run_loop(struct load *load) {
  struct epoll_event events[EVENTS];
  uint64_t ticks, now = now_ns();
  while (now < load->end || (load->in_flight && now < load->end + PATIENCE_S * UINT64_C(1000000000))) {
    int count = epoll_wait(load->epoll, events, EVENTS, 100);
    for (int i = 0; i < count; i++) {
      if (events[i].data.ptr) {
        receive(load, events[i].data.ptr);
      } else if (read(load->timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) {
        stop("timer");
      }
    }
    now = now_ns();
    send_due(load, now);
    if (load->random) set_timer(load);
  }
}

static int ascending(const void *a, const void *b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static double quantile_ms(const struct samples *samples, double quantile) {
  if (samples->count == 0) return 0;
  size_t rank = (size_t)ceil(quantile * (double)samples->count);
  return (double)samples->values[rank ? rank - 1 : 0] * 1e-6;
}

static void print(struct load *load, double seconds, double cpu) {
  qsort(load->accepted.values, load->accepted.count, sizeof *load->accepted.values, ascending);
  qsort(load->refused.values, load->refused.count, sizeof *load->refused.values, ascending);
  printf(
      "offered=%.0f accepted=%.0f refused=%.0f ok=%zu full=%zu other=%llu lost=%llu unanswered=%llu late=%llu "
      "p50=%.3f p90=%.3f p99=%.3f p999=%.3f max=%.3f refused_p50=%.3f refused_p99=%.3f refused_max=%.3f generator_cpu=%.4f\n",
      (double)load->sent / seconds, (double)load->accepted.count / seconds, (double)load->refused.count / seconds,
      load->accepted.count, load->refused.count, (unsigned long long)load->other, (unsigned long long)load->lost,
      (unsigned long long)load->in_flight, (unsigned long long)load->late, quantile_ms(&load->accepted, 0.5),
      quantile_ms(&load->accepted, 0.9), quantile_ms(&load->accepted, 0.99), quantile_ms(&load->accepted, 0.999),
      quantile_ms(&load->accepted, 1), quantile_ms(&load->refused, 0.5), quantile_ms(&load->refused, 0.99),
      quantile_ms(&load->refused, 1), cpu);
}

static int run_load(int port, const char *rate, double seconds, int connections, const struct bytes *files, int file_count) {
  struct load load = {.port = port, .random = *rate == '~', .connection_count = connections, .request_count = file_count};
  load.rate = atof(rate + load.random);
  load.random_state = 88172645463325252u; /* any but 0 */
  load.requests = need(calloc((size_t)file_count, sizeof *load.requests));
  for (int i = 0; i < file_count; i++) {
    char *text = need(malloc(files[i].length + 200));
    int head =
        sprintf(text, "POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %zu\r\n\r\n",
                files[i].length);
    memcpy(text + head, files[i].data, files[i].length);
    load.requests[i] = (struct bytes){(uint8_t *)text, (size_t)head + files[i].length};
  }
  load.connections = need(calloc((size_t)connections, sizeof *load.connections));
  load.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (load.epoll < 0) stop("epoll");
  for (int i = 0; i < connections; i++) open_connection(&load, &load.connections[i]);
  double cpu = cpu_seconds();
  load.start = load.next_due = now_ns() + 1000000;
  start_timer(&load);
  load.end = load.start + (uint64_t)(seconds * 1e9);
  run_loop(&load);
  print(&load, seconds, (cpu_seconds() - cpu) / seconds);
  return load.in_flight || load.lost ? 1 : 0;
}

int main(int argc, char **argv) {
  if (argc >= 6) {
    return run_load(atoi(argv[1]), argv[2], atof(argv[3]), atoi(argv[4]), read_files(argv + 5, argc - 5), argc - 5);
  }
  fprintf(stderr, "usage: bench_http PORT [~]RATE SECONDS CONNECTIONS IMAGE...\n");
  return 2;
}
