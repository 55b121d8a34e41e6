#include "server/lifecycle.h"

#include "engine/cores.h"
#include "server/auth.h"
#include "server/clock.h"
#include "server/http.h"
#include "server/manage.h"
#include "server/opener.h"
#include "server/request.h"
#include "server/security.h"
#include "server/server.h"
#include "server/worker.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
  ADDRESS_SIZE = 300,
  EXIT_NOW = 130, /* by convention 128 + SIGINT */
  GRACE_MS = 500, /* for a connection that was accepted before its request arrived, at the end of the drain */
  POLL_MS = 2,
  RUN_MS = 60000, /* that workers get, at the end of the drain, for the requests that they have */
  MAPPED_BLOCK = 1 << 20,
};

struct daemon {
  struct server server;
  struct worker_pool *workers;
  struct http *http;
  int fd, port;
  int opener;      /* where --open waits for the address; -1: nothing waits */
  bool passed;     /* the service manager has made the socket and keeps it */
  FILE *port_file; /* open for writing before the sandbox is entered */
  int64_t drain_delay_ms;
  int log_level; /* as configured */
  bool terminal; /* standard error was one at the start */
  sigset_t signals;
};

static void block_signals(struct daemon *daemon) {
  sigemptyset(&daemon->signals);
  sigaddset(&daemon->signals, SIGTERM);
  sigaddset(&daemon->signals, SIGINT);
  sigaddset(&daemon->signals, SIGHUP);
  sigaddset(&daemon->signals, SIGUSR1);
  sigaddset(&daemon->signals, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &daemon->signals, NULL); /* threads inherit it: only this one takes signals */
  signal(SIGPIPE, SIG_IGN);
}

/* Descriptors are for connections, except some that a reload, a scrape and the daemon itself need. */
static void raise_descriptor_limit(struct server *server) {
  enum { EACH_THREAD = 3 }; /* two epoll descriptors and an eventfd */
  const int reserved = 32 + EACH_THREAD * server->io_threads;
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit)) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur >= (rlim_t)(server->max_connections + reserved)) return;
  server->max_connections = limit.rlim_cur > 2 * (rlim_t)reserved ? (int)limit.rlim_cur - reserved : reserved;
  log_event(&server->log, LOG_WARNING, "the limit of open files is too low for max_connections: raise it (ulimit -n)",
            log_integer("limit", (int64_t)limit.rlim_cur), log_integer("max_connections", server->config->max_connections),
            log_integer("used", server->max_connections));
}

static enum hwgq_status server_init(struct server *server, const struct config *config, struct hwgq_error *error) {
  struct timespec wall;
  int cores = hwgq_cores_available(INT_MAX);
  /* What large images took goes back to the system when they are done: by itself glibc raises this limit to the largest block
   * that was freed, up to 32 MiB, and keeps them. */
  mallopt(M_MMAP_THRESHOLD, MAPPED_BLOCK);
  server->config = config;
  log_init(&server->log, STDERR_FILENO, (enum log_format)config->log_format, (enum log_level)config->log_level);
  clock_gettime(CLOCK_REALTIME, &wall);
  server->started_unix = wall.tv_sec;
  server->started = clock_now();
  server->max_connections = (int)config->max_connections;
  server->workers = config->workers ? (int)config->workers : cores;
  server->io_threads = config->io_threads ? (int)config->io_threads : (cores + 1) / 2;
  if (getrandom(&server->request_seed, sizeof server->request_seed, GRND_NONBLOCK) < 0) server->request_seed = clock_now();
  server->registry = registry_create();
  server->unrouted = stats_create();
  if (!server->registry || !server->unrouted || !queue_init(&server->queue, (size_t)config->queue_capacity)) {
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to start");
  }
  enum hwgq_status status = image_budget_init(&server->decoding, (uint64_t)config->max_decode_bytes, error);
  /* One decodes, and at least one is there for those who need no part of the budget. */
  server->decoding.patient = (server->workers - 1) / 2;
  return status;
}

/* What the predictions of one image take in a reply at most. */
static uint64_t prediction_bytes(const struct hwgq_model *model) {
  enum { AROUND_LABEL = 96, ESCAPE = 6 /* \\u00xx for one byte */ };
  uint64_t bytes = 0;
  for (int i = 0; i < model->class_count; i++) {
    bytes += AROUND_LABEL + (model->labels && model->labels[i] ? ESCAPE * strlen(model->labels[i]) : 0);
  }
  return bytes;
}

/* The parts of a form while its request waits. */
static uint64_t form_bytes(const struct config *config) {
  uint64_t parts = (uint64_t)config->max_images + REQUEST_OTHER_PARTS;
  return parts * (sizeof(struct multipart_part) + sizeof(struct request_image));
}

/* The ceiling of what requests and networks can make the process take:
 *   models       parameters, plans and statistics
 *   reload       the same again: old and new networks are there together until the last request on an old one ends; and
 *                the scratch of the image that a new network begins with
 *   workers      each: scratch, a small decode, and the reply while it is written (three times: first its parts, and text
 *                grows by copying)
 *   decoding     what larger decodes share: max_decode_bytes
 *   bodies       request bodies, and replies of more than REQUEST_SMALL_REPLY until they are sent: max_buffered_bytes
 *   connections  each: libmicrohttpd's buffers, one request with its timings, a small reply; and the forms that can wait
 * Not in it: program, libraries, thread stacks, the log line being written, and what the allocator keeps. A reload may
 * list larger networks than the current ones: the ceiling is logged again after it. */
static void log_memory(const struct server *server) {
  const struct config *config = server->config;
  uint64_t model_bytes = 0, scratch_bytes = 0, reply_bytes = 0, images = (uint64_t)config->max_images;
  int count;
  struct served_model **models = registry_acquire_every(server->registry, &count);
  for (int i = 0; i < count; i++) {
    uint64_t scratch = classify_scratch_bytes(models[i]->classifier, worker_helpers(config, server->workers));
    model_bytes += classifier_bytes(models[i]->classifier) + stats_bytes();
    if (scratch > scratch_bytes) scratch_bytes = scratch;
    uint64_t reply = 3 * images * prediction_bytes(models[i]->classifier->model);
    if (reply > reply_bytes) reply_bytes = reply;
    registry_release(models[i]);
  }
  free(models);
  uint64_t worker_bytes = (uint64_t)server->workers * (scratch_bytes + IMAGE_SMALL_DECODE + reply_bytes);
  uint64_t connections = (uint64_t)config->max_connections;
  uint64_t forms = (uint64_t)config->queue_capacity + (uint64_t)server->workers + (uint64_t)server->io_threads;
  uint64_t connection_bytes = connections * (HTTP_CONNECTION_MEMORY + REQUEST_SMALL_REPLY + sizeof(struct request) +
                                             sizeof(struct peer) + images * sizeof(struct stats_image));
  connection_bytes += (forms < connections ? forms : connections) * form_bytes(config);
  uint64_t reload_bytes = model_bytes + scratch_bytes;
  uint64_t all = model_bytes + reload_bytes + worker_bytes + connection_bytes;
  all += (uint64_t)config->max_decode_bytes + (uint64_t)config->max_buffered_bytes;
  log_event(&server->log, LOG_INFO, "memory ceiling, MiB", log_integer("all", (int64_t)(all >> 20)),
            log_integer("models", (int64_t)(model_bytes >> 20)), log_integer("reload", (int64_t)(reload_bytes >> 20)),
            log_integer("workers", (int64_t)(worker_bytes >> 20)), log_integer("decoding", config->max_decode_bytes >> 20),
            log_integer("bodies", config->max_buffered_bytes >> 20),
            log_integer("connections", (int64_t)(connection_bytes >> 20)));
}

static void log_networks(const struct server *server) {
  struct served_model *models[CONFIG_MAX_MODELS];
  int default_index, count = registry_acquire_all(server->registry, models, CONFIG_MAX_MODELS, &default_index);
  for (int i = 0; i < count; i++) {
    const struct classifier *classifier = models[i]->classifier;
    struct hwgq_shape input = classifier->input;
    char shape[64];
    snprintf(shape, sizeof shape, "%dx%dx%d", input.channels, input.height, input.width);
    log_event(&server->log, LOG_INFO, i == default_index ? "network (default)" : "network",
              log_string("model", models[i]->name), log_string("network", classifier->model->network->name),
              log_string("input", shape), log_integer("classes", classifier->class_count),
              log_integer("bytes", (int64_t)classifier->model->file_bytes), log_integer("version", models[i]->version),
              log_string("path", models[i]->path));
    registry_release(models[i]);
  }
}

static void log_sandbox(const struct server *server) {
  const struct sandbox *sandbox = &server->sandbox;
  struct text text = {0};
  sandbox_describe(sandbox, &text);
  if (sandbox->missing.message[0]) log_line(&server->log, LOG_WARNING, "%s", sandbox->missing.message);
  log_event(&server->log, LOG_INFO, "sandbox", log_string("in_force", text.failed ? NULL : text.data));
  text_release(&text);
}

/* The page's address as this machine reaches it, without the slash at its end; room for ADDRESS_SIZE bytes. */
static void address_of(const struct daemon *daemon, char *address) {
  const struct server *server = &daemon->server;
  char host[256];
  int port;
  if (config_split_listen(server->config->listen, host, sizeof host, &port, NULL)) host[0] = 0;
  const char *shown = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ? "localhost" : host;
  bool colons = strchr(shown, ':');
  snprintf(address, ADDRESS_SIZE - 1, "http%s://%s%s%s:%d", server->tls ? "s" : "", colons ? "[" : "", shown, colons ? "]" : "",
           daemon->port);
}

static void log_started(const struct daemon *daemon) {
  const struct server *server = &daemon->server;
  char address[ADDRESS_SIZE];
  address_of(daemon, address);
  log_networks(server);
  log_memory(server);
  log_sandbox(server);
  security_warn(server, http_is_loopback(daemon->fd));
  log_event(&server->log, LOG_INFO, "hwgqd " HWGQ_VERSION " serves", log_string("address", address),
            log_string("kernels", registry_kernels(server->registry)), log_integer("workers", server->workers),
            log_integer("io_threads", server->io_threads));
  if (server->log.format == LOG_TEXT) {
    log_line(&server->log, LOG_INFO, "try: curl %s-F image=@cat.jpg %s/classify",
             auth_enabled(server->auth) ? "-H \"X-API-Key: $KEY\" " : "", address);
  }
}

static void show_page(struct daemon *daemon) {
  char address[ADDRESS_SIZE];
  if (daemon->opener < 0) return;
  address_of(daemon, address);
  printf("%s/\n", address);
  fflush(stdout);
  strcat(address, "/");
  opener_show(daemon->opener, address);
  daemon->opener = -1;
}

static enum hwgq_status write_port_file(struct daemon *daemon, struct hwgq_error *error) {
  if (!daemon->port_file) return HWGQ_OK;
  bool written = fprintf(daemon->port_file, "%d\n", daemon->port) > 0;
  if (fclose(daemon->port_file)) written = false;
  daemon->port_file = NULL;
  return written ? HWGQ_OK
                 : hwgq_fail(error, HWGQ_ERROR_IO, "port_file: cannot write %s: %s", daemon->server.config->port_file,
                             strerror(errno));
}

/* All that cannot be opened from within the sandbox. */
static enum hwgq_status open_outside(struct daemon *daemon, const struct config *config, struct hwgq_error *error) {
  struct server *server = &daemon->server;
  struct hwgq_error problem;
  if (notify_open(&server->notify, &problem)) log_line(&server->log, LOG_WARNING, "%s", problem.message);
  enum hwgq_status status = notify_listener(&daemon->fd, error);
  if (status) return status;
  daemon->passed = daemon->fd >= 0;
  if (daemon->passed) {
    daemon->port = http_port(daemon->fd);
  } else {
    status = http_listen(config->listen, &daemon->fd, &daemon->port, error);
    if (status) return status;
  }
  if (!config->port_file) return HWGQ_OK;
  /* One of an earlier run would name a port that nobody serves; this one is empty until the networks are there. */
  unlink(config->port_file);
  daemon->port_file = fopen(config->port_file, "we");
  return daemon->port_file
             ? HWGQ_OK
             : hwgq_fail(error, HWGQ_ERROR_IO, "port_file: cannot write %s: %s", config->port_file, strerror(errno));
}

static enum hwgq_status start(struct daemon *daemon, const struct config *config, struct hwgq_error *error) {
  struct server *server = &daemon->server;
  daemon->fd = daemon->opener = server->notify.fd = -1;
  daemon->drain_delay_ms = config->drain_delay_ms;
  daemon->log_level = (int)config->log_level;
  daemon->terminal = isatty(STDERR_FILENO);
  block_signals(daemon);
  enum hwgq_status status = server_init(server, config, error);
  if (!status) status = security_open(server, config, error);
  if (!status) status = open_outside(daemon, config, error);
  if (!status && config->open) status = opener_start(&daemon->opener, error);
  if (status) return status;
  raise_descriptor_limit(server);
  status = sandbox_enter(&server->sandbox, config, error);
  if (status) return status;
  status = worker_pool_start(server, &daemon->workers, error);
  if (!status && !(server->manage = manage_start())) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot start the management thread");
  }
  if (!status && !watchdog_start(&server->watchdog, server)) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot start the watchdog thread");
  }
  /* The probes answer while the networks are being loaded; but what waits at a socket that others hold, or may still be served
   * by the process before this one, is not to be told that they are. */
  if (!status && !daemon->passed) status = http_start(server, daemon->fd, &daemon->http, error);
  if (!status) status = registry_configure(server->registry, config, false, &server->log, error);
  if (!status) status = write_port_file(daemon, error);
  if (status) return status;
  atomic_store(&server->state, SERVER_READY);
  if (daemon->passed) status = http_start(server, daemon->fd, &daemon->http, error);
  if (status) return status;
  watchdog_watch_http(&server->watchdog, daemon->http);
  notify_send(&server->notify, "READY=1\nSTATUS=serving");
  return HWGQ_OK;
}

/* Takes everything apart; nothing is in flight. */
static void stop(struct daemon *daemon) {
  struct server *server = &daemon->server;
  if (daemon->http) {
    watchdog_close_idle(&server->watchdog);
    http_stop(daemon->http);
  }
  worker_pool_stop(daemon->workers);
  manage_stop(server->manage);
  watchdog_stop(&server->watchdog);
  http_destroy(daemon->http);
  if (daemon->fd >= 0) close(daemon->fd);
  if (daemon->port_file) fclose(daemon->port_file);
  if (daemon->opener >= 0) close(daemon->opener);
  notify_close(&server->notify);
  sandbox_release(&server->sandbox);
  if (server->queue.capacity) queue_destroy(&server->queue);
  if (server->decoding.total) image_budget_destroy(&server->decoding);
  registry_destroy(server->registry);
  security_close(server);
  stats_destroy(server->unrouted);
  log_release(&server->log);
}

/* "Permission denied" alone would not tell why. */
static void log_hidden(const struct server *server, const struct config *config) {
  for (int64_t i = 0; i < config->model_count; i++) {
    const char *path = config->models[i].path;
    if (!sandbox_hides(&server->sandbox, path)) continue;
    log_event(&server->log, LOG_ERROR, "sandbox: this lies in no folder that was configured at the start; restart to serve it",
              log_string("path", path));
  }
}

static void reload(struct daemon *daemon, int argc, char *const *argv) {
  struct server *server = &daemon->server;
  struct config config;
  struct hwgq_error error;
  enum config_command command;
  struct text differences = {0};
  notify_send(&server->notify, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=reloading", (unsigned long long)(clock_now() / 1000));
  enum hwgq_status status = config_load(argc, argv, &config, &command, &error);
  bool keys = auth_enabled(server->auth);
  /* First, and whatever becomes of the rest: a key that was revoked must not work any longer. */
  security_reload(server, status ? NULL : &config);
  if (keys && !auth_enabled(server->auth)) security_warn(server, http_is_loopback(daemon->fd));
  if (!status) status = registry_configure(server->registry, &config, true, &server->log, &error);
  log_hidden(server, &config);
  if (status) {
    log_event(&server->log, LOG_ERROR, "reload failed, networks and settings stay as they were",
              log_string("error", error.message));
  } else {
    daemon->drain_delay_ms = config.drain_delay_ms;
    daemon->log_level = (int)config.log_level;
    atomic_store(&server->log.level, daemon->log_level);
    config_differences(server->config, &config, &differences);
    log_event(&server->log, LOG_INFO, "reloaded",
              log_string("needs_restart", differences.length && !differences.failed ? differences.data : NULL));
    log_networks(server);
    log_memory(server);
  }
  notify_send(&server->notify, "READY=1\nSTATUS=serving%s", status ? "; the last reload failed" : "");
  text_release(&differences);
  config_release(&config);
}

static void set_log_level(struct daemon *daemon, int signal_number) {
  struct log *log = &daemon->server.log;
  int level = signal_number == SIGUSR1 ? LOG_DEBUG : daemon->log_level;
  atomic_store(&log->level, level);
  log_event(log, LOG_WARNING, "log level", log_string("now", log_level_name(level)));
}

/* Sleeps, unless a second SIGINT comes: that ends the process. */
static void pause_ms(struct daemon *daemon, int64_t ms) {
  uint64_t end = clock_now() + (uint64_t)ms * CLOCK_MS;
  for (;;) {
    uint64_t now = clock_now();
    if (now >= end) return;
    struct timespec left = {.tv_sec = (time_t)((end - now) / CLOCK_SECOND), .tv_nsec = (long)((end - now) % CLOCK_SECOND)};
    if (sigtimedwait(&daemon->signals, NULL, &left) != SIGINT) continue;
    log_line(&daemon->server.log, LOG_WARNING, "ended by a second interrupt: requests in progress are lost");
    _exit(EXIT_NOW);
  }
}

static void drain(struct daemon *daemon, int signal_number) {
  struct server *server = &daemon->server;
  int64_t delay = signal_number == SIGTERM ? daemon->drain_delay_ms : 0;
  atomic_store(&server->state, SERVER_DRAINING);
  notify_send(&server->notify, "STOPPING=1\nSTATUS=finishing what was accepted");
  log_event(&server->log, LOG_INFO, "draining", log_string("signal", signal_number == SIGTERM ? "SIGTERM" : "SIGINT"),
            log_integer("delay_ms", delay), log_integer("in_flight", atomic_load(&server->in_flight)));
  pause_ms(daemon, delay);
  http_stop_accepting(daemon->http, daemon->fd, daemon->passed);
  /* A request arrives, waits, runs and is sent: each has its bound, so this ends before `end`. If it does not, a worker hangs
   * or is far too slow, and a drain that never ends would only be killed from outside. */
  const struct config *config = server->config;
  uint64_t grace = clock_now() + GRACE_MS * CLOCK_MS;
  uint64_t end = clock_now() + CLOCK_MS * (uint64_t)(2 * config->request_timeout_ms + config->queue_deadline_ms + RUN_MS);
  for (;;) {
    if (clock_now() > end) {
      log_event(&server->log, LOG_ERROR, "ended although requests are in progress: the drain took too long",
                log_integer("lost", atomic_load(&server->in_flight)));
      _exit(EXIT_FAILURE); /* libmicrohttpd cannot be stopped while a request waits for its worker */
    }
    bool quiet = watchdog_peers(&server->watchdog) == 0 || clock_now() > grace;
    if (quiet && atomic_load(&server->in_flight) == 0) {
      /* A request that begins from here on is refused without being suspended; one that began before is seen by the second
       * look. */
      atomic_store(&server->stopping, true);
      if (atomic_load(&server->in_flight) == 0) return;
    }
    pause_ms(daemon, POLL_MS);
  }
}

int lifecycle_run(const struct config *config, int argc, char *const *argv) {
  struct daemon *daemon = calloc(1, sizeof *daemon);
  struct hwgq_error error;
  int number = 0;
  if (!daemon) return EXIT_FAILURE;
  enum hwgq_status status = start(daemon, config, &error);
  if (status) {
    log_event(&daemon->server.log, LOG_ERROR, "hwgqd does not start", log_string("error", error.message));
  } else {
    log_started(daemon);
    show_page(daemon);
    while (number != SIGTERM && number != SIGINT) {
      number = sigwaitinfo(&daemon->signals, NULL);
      /* The terminal it was started from has been closed: whoever watched it is gone. */
      if (number == SIGHUP && daemon->terminal && !isatty(STDERR_FILENO)) number = SIGINT;
      if (number == SIGHUP) reload(daemon, argc, argv);
      if (number == SIGUSR1 || number == SIGUSR2) set_log_level(daemon, number);
    }
    drain(daemon, number);
    log_line(&daemon->server.log, LOG_INFO, "stopped, nothing accepted was lost");
  }
  stop(daemon);
  free(daemon);
  return status ? EXIT_FAILURE : EXIT_SUCCESS;
}

enum hwgq_status lifecycle_check(const struct config *config, struct text *report, struct hwgq_error *error) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct registry *registry = registry_create();
  struct log log;
  int default_index;
  if (!registry) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  log_init(&log, STDERR_FILENO, LOG_TEXT, LOG_WARNING);
  enum hwgq_status status = registry_configure(registry, config, false, &log, error);
  if (!status) {
    int count = registry_acquire_all(registry, models, CONFIG_MAX_MODELS, &default_index);
    for (int i = 0; i < count; i++) {
      text_printf(report, "%s%s: %s, %d classes, %s\n", models[i]->name, i == default_index ? " (default)" : "",
                  models[i]->classifier->model->network->name, models[i]->classifier->class_count, models[i]->path);
      registry_release(models[i]);
    }
  }
  registry_destroy(registry);
  log_release(&log);
  if (!status) status = security_check(config, report, error);
  return status ? status : sandbox_probe((enum sandbox_mode)config->sandbox, report, error);
}
