/* A load generator: POST /classify to a daemon on this machine.
 *
 *   bench_http PORT RATE SECONDS CONNECTIONS IMAGE...
 *   bench_http PORT ~RATE SECONDS CONNECTIONS IMAGE...     at random, RATE a second on average (a Poisson process)
 *
 * It is an open loop: request k is due at start + k / RATE whatever became of the ones before, and its latency counts from
 * then, also when it had to wait for a free connection (no coordinated omission). RATE 0 is a closed loop: every connection
 * sends as soon as it has its answer, which finds the capacity. One thread; connections are kept.
 *
 * It runs beside the daemon, so it must neither wait behind the daemon's threads nor take more of the cores than it needs: it
 * raises its own priority where it may (root), and where no microsecond counts, in a closed loop and from GATHER_RATE on, it
 * looks at its sockets once in GATHER_US only, which latencies then include.
 *
 * Prints one line of NAME=VALUE; times in ms. generator_cpu: cores that it took; generator_us: of them for each answer; late:
 * requests that left more than 1 ms after they were due, for want of a connection or of a core. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REPLY_BYTES = 16 << 10, EVENTS = 256, PATIENCE_S = 10, PRIORITY = -10, GATHER_RATE = 10000, GATHER_US = 100 };

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

/* A Poisson process, the same in every run: when request `number` is due, and the state of the random numbers. */
struct arrivals {
  uint64_t number, due, state;
};

struct load {
  int port, epoll;
  double rate; /* per second; 0: closed loop */
  uint64_t start, end;
  struct arrivals *random; /* NULL: requests are due at equal distances */
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

/* A gap between two requests, nanoseconds; xorshift64* by Marsaglia and Vigna. */
static uint64_t random_gap(struct arrivals *arrivals, double rate) {
  arrivals->state ^= arrivals->state >> 12;
  arrivals->state ^= arrivals->state << 25;
  arrivals->state ^= arrivals->state >> 27;
  return (uint64_t)(-log(((double)(arrivals->state * 0x2545F4914F6CDD1Du >> 11) + 1) * 0x1p-53) * 1e9 / rate);
}

/* When a request is due; where that is random, numbers may only rise. */
static uint64_t due_of(const struct load *load, uint64_t number) {
  struct arrivals *random = load->random;
  if (!random) return load->start + (uint64_t)((double)number * 1e9 / load->rate);
  for (; random->number < number; random->number++) random->due += random_gap(random, load->rate);
  return load->start + random->due;
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
    uint64_t due = load->rate > 0 ? due_of(load, load->sent) : now;
    if (due > now || due >= load->end) return;
    if (now - due > 1000000) load->late++;
    send_request(load, due);
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

/* Waits for an answer, until the next request is due or for 0.1 s. */
static int wait_for_events(const struct load *load, struct epoll_event *events, uint64_t now) {
  uint64_t wake = now + 100000000;
  if (load->rate > 0 && load->idle) {
    uint64_t due = due_of(load, load->sent);
    if (due < load->end && due < wake) wake = due;
  }
  const struct timespec timeout = {.tv_nsec = wake > now ? (long)(wake - now) : 0};
  return epoll_pwait2(load->epoll, events, EVENTS, &timeout, NULL);
}

static void run_loop(struct load *load) {
  const struct timespec gather = {.tv_nsec = GATHER_US * 1000};
  const int often = load->rate <= 0 || load->rate >= GATHER_RATE;
  struct epoll_event events[EVENTS];
  uint64_t now = now_ns();
  while (now < load->end || (load->in_flight && now < load->end + PATIENCE_S * UINT64_C(1000000000))) {
    int count = wait_for_events(load, events, now);
    for (int i = 0; i < count; i++) receive(load, events[i].data.ptr);
    now = now_ns();
    send_due(load, now);
    if (!often) continue;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &gather, NULL);
    now = now_ns();
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
  size_t answers = load->accepted.count + load->refused.count + load->other;
  printf("offered=%.0f accepted=%.0f refused=%.0f ok=%zu full=%zu other=%llu lost=%llu unanswered=%llu late=%llu "
         "p50=%.3f p90=%.3f p99=%.3f p999=%.3f max=%.3f refused_p50=%.3f refused_p99=%.3f refused_max=%.3f generator_cpu=%.2f "
         "generator_us=%.1f\n",
         (double)load->sent / seconds, (double)load->accepted.count / seconds, (double)load->refused.count / seconds,
         load->accepted.count, load->refused.count, (unsigned long long)load->other, (unsigned long long)load->lost,
         (unsigned long long)load->in_flight, (unsigned long long)load->late, quantile_ms(&load->accepted, 0.5),
         quantile_ms(&load->accepted, 0.9), quantile_ms(&load->accepted, 0.99), quantile_ms(&load->accepted, 0.999),
         quantile_ms(&load->accepted, 1), quantile_ms(&load->refused, 0.5), quantile_ms(&load->refused, 0.99),
         quantile_ms(&load->refused, 1), cpu, answers ? cpu * seconds * 1e6 / (double)answers : 0);
}

static int run_load(int port, const char *rate, double seconds, int connections, const struct bytes *files, int file_count) {
  struct load load = {.port = port, .connection_count = connections, .request_count = file_count};
  struct arrivals random = {.state = 88172645463325252u}; /* any but 0 */
  if (*rate == '~') load.random = &random;
  load.rate = atof(rate + (*rate == '~'));
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
  setpriority(PRIO_PROCESS, 0, PRIORITY); /* refused to others than root */
  prctl(PR_SET_TIMERSLACK, 1000UL);
  double cpu = cpu_seconds();
  load.start = now_ns() + 1000000;
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
