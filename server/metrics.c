/* GET /metrics: the Prometheus text format 0.0.4, or OpenMetrics 1.0.0 for whoever prefers it. */
#include "server/routes.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void head(struct text *text, const char *name, const char *type, const char *help) {
  text_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* OpenMetrics calls the family of a counter as its sample without _total. */
static void head_counter(struct text *text, const char *name, const char *help, bool openmetrics) {
  char family[64];
  size_t length = strlen(name) - (openmetrics ? strlen("_total") : 0);
  snprintf(family, sizeof family, "%.*s", (int)length, name);
  head(text, family, "counter", help);
}

/* A label value: backslash, quote and line end are escaped. */
static void label(struct text *text, const char *value) {
  for (; *value; value++) {
    if (*value == '\\' || *value == '"') text_puts(text, "\\");
    if (*value == '\n') {
      text_puts(text, "\\n");
    } else {
      text_append(text, value, 1);
    }
  }
}

/* What one network has, read once so that all series of a scrape agree. */
struct snapshot {
  struct stats_code codes[STATS_CODES];
  struct stats_stage_metrics stages[STATS_STAGES];
  struct stats_counts counts;
};

static void write_requests(struct text *text, const char *model, const struct stats_code *codes) {
  for (int i = 0; i < STATS_CODES && codes[i].code; i++) {
    text_printf(text, "hwgqd_requests_total{model=\"%s\",code=\"%d\"} %llu\n", model, codes[i].code,
                (unsigned long long)codes[i].count);
  }
}

static void write_stages(struct text *text, const char *model, const struct stats_stage_metrics *stages) {
  for (int s = 0; s < STATS_STAGES; s++) {
    const char *stage = stats_stage_name((enum stats_stage)s);
    uint64_t below = 0;
    for (int i = 0; i < STATS_BOUNDS; i++) {
      below += stages[s].bounds[i];
      text_printf(text, "hwgqd_stage_duration_seconds_bucket{model=\"%s\",stage=\"%s\",le=\"%g\"} %llu\n", model, stage,
                  (double)stats_bounds[i] / 1e9, (unsigned long long)below);
    }
    text_printf(text,
                "hwgqd_stage_duration_seconds_bucket{model=\"%s\",stage=\"%s\",le=\"+Inf\"} %llu\n"
                "hwgqd_stage_duration_seconds_sum{model=\"%s\",stage=\"%s\"} %.9f\n"
                "hwgqd_stage_duration_seconds_count{model=\"%s\",stage=\"%s\"} %llu\n",
                model, stage, (unsigned long long)stages[s].count, model, stage, (double)stages[s].sum / 1e9, model, stage,
                (unsigned long long)stages[s].count);
  }
}

static void write_models(struct text *text, struct served_model **models, const struct snapshot *snapshots, int count,
                         const struct snapshot *unrouted, bool openmetrics) {
  head_counter(
      text, "hwgqd_requests_total",
      "Classification requests by network and status code; 499: the client went away; without a network: model is empty.",
      openmetrics);
  write_requests(text, "", unrouted->codes);
  for (int i = 0; i < count; i++) write_requests(text, models[i]->name, snapshots[i].codes);
  head_counter(text, "hwgqd_images_total", "Images classified.", openmetrics);
  for (int i = 0; i < count; i++) {
    text_printf(text, "hwgqd_images_total{model=\"%s\"} %llu\n", models[i]->name,
                (unsigned long long)snapshots[i].counts.images);
  }
  head_counter(text, "hwgqd_shared_images_total", "Images that idle workers helped to classify.", openmetrics);
  for (int i = 0; i < count; i++) {
    text_printf(text, "hwgqd_shared_images_total{model=\"%s\"} %llu\n", models[i]->name,
                (unsigned long long)snapshots[i].counts.shared);
  }
  head(text, "hwgqd_stage_duration_seconds", "histogram",
       "Time by stage: queue and total once per queued request, decode, preprocess and inference once per image.");
  for (int i = 0; i < count; i++) write_stages(text, models[i]->name, snapshots[i].stages);
  head(text, "hwgqd_model_info", "gauge", "The networks that are served.");
  for (int i = 0; i < count; i++) {
    const struct hwgq_model *model = models[i]->classifier->model;
    text_printf(text, "hwgqd_model_info{model=\"%s\",version=\"%d\",network=\"", models[i]->name, models[i]->version);
    label(text, model->network->name);
    text_printf(text, "\",digest=\"%s\"} 1\n", model->digest);
  }
}

static void write_gauge(struct text *text, const char *name, const char *help, double value) {
  head(text, name, "gauge", help);
  text_printf(text, "%s %.17g\n", name, value);
}

static void write_counter(struct text *text, const char *name, const char *help, uint64_t value, bool openmetrics) {
  head_counter(text, name, help, openmetrics);
  text_printf(text, "%s %llu\n", name, (unsigned long long)value);
}

/* Open descriptors of this process, or -1. */
static int open_descriptors(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = -3; /* ".", ".." and the folder itself */
  if (!folder) return -1;
  while (readdir(folder)) count++;
  closedir(folder);
  return count;
}

static void write_process(struct text *text, const struct server *server, bool openmetrics) {
  struct rusage usage;
  struct rlimit limit;
  unsigned long long pages = 0, resident = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  if (statm) {
    if (fscanf(statm, "%llu %llu", &pages, &resident) != 2) pages = resident = 0;
    fclose(statm);
  }
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    head_counter(text, "process_cpu_seconds_total", "User and system CPU time, in seconds.", openmetrics);
    text_printf(text, "process_cpu_seconds_total %.6f\n",
                (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
  }
  double page = (double)sysconf(_SC_PAGESIZE);
  write_gauge(text, "process_resident_memory_bytes", "Resident memory size in bytes.", (double)resident * page);
  write_gauge(text, "process_virtual_memory_bytes", "Virtual memory size in bytes.", (double)pages * page);
  write_gauge(text, "process_start_time_seconds", "Start time of the process since the Unix epoch, in seconds.",
              (double)server->started_unix);
  int open = open_descriptors();
  if (open >= 0) write_gauge(text, "process_open_fds", "Number of open file descriptors.", open);
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    write_gauge(text, "process_max_fds", "Maximum number of open file descriptors.", (double)limit.rlim_cur);
  }
}

/* Prometheus says what it understands in Accept, best first; it understands both. */
static bool wants_openmetrics(const struct request *request) {
  const char *accept = request_header(request, "Accept");
  return accept && strstr(accept, "application/openmetrics-text");
}

void route_metrics(struct request *request) {
  const bool openmetrics = wants_openmetrics(request);
  struct served_model *models[CONFIG_MAX_MODELS];
  struct server *server = request->server;
  struct text *text = &request->reply.body;
  int default_index;
  int count = registry_acquire_all(server->registry, models, CONFIG_MAX_MODELS, &default_index);
  struct snapshot *snapshots = malloc((size_t)(count + 1) * sizeof *snapshots);
  if (snapshots) {
    struct snapshot *unrouted = &snapshots[count];
    for (int i = 0; i < count; i++) {
      stats_read_metrics(models[i]->stats, snapshots[i].codes, snapshots[i].stages, &snapshots[i].counts);
    }
    stats_read_metrics(server->unrouted, unrouted->codes, unrouted->stages, &unrouted->counts);
    write_models(text, models, snapshots, count, unrouted, openmetrics);
    write_gauge(text, "hwgqd_queue_depth", "Requests that wait for a worker.", (double)queue_depth(&server->queue));
    write_gauge(text, "hwgqd_queue_capacity", "Requests that may wait.", (double)server->queue.capacity);
    write_gauge(text, "hwgqd_requests_in_flight", "Classification requests that have arrived and are not answered yet.",
                atomic_load(&server->classifying));
    write_gauge(text, "hwgqd_buffered_bytes", "Memory of request bodies and of large replies; at most max_buffered_bytes.",
                (double)atomic_load(&server->buffered.total));
    write_gauge(text, "hwgqd_connections", "Open connections.", watchdog_peers(&server->watchdog));
    write_counter(text, "hwgqd_evicted_connections_total", "Idle connections that were closed to make room for new ones.",
                  watchdog_evicted(&server->watchdog), openmetrics);
    write_counter(text, "hwgqd_lost_log_lines_total", "Lines of the log that could not be written without waiting.",
                  log_lost(&server->log), openmetrics);
    write_gauge(text, "hwgqd_workers", "Worker threads.", server->workers);
    write_gauge(text, "hwgqd_workers_busy", "Worker threads that have a request.", atomic_load(&server->busy));
    head(text, "hwgqd_build_info", "gauge", "Version and the kernel set in use.");
    text_printf(text, "hwgqd_build_info{version=\"%s\",kernels=\"%s\"} 1\n", HWGQ_VERSION, registry_kernels(server->registry));
    write_process(text, server, openmetrics);
    if (openmetrics) text_puts(text, "# EOF\n");
    request->reply.status = 200;
    request->reply.content_type =
        openmetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8" : "text/plain; version=0.0.4; charset=utf-8";
  } else {
    reply_error(&request->reply, 503, "out_of_memory", request->id,
                "The server has no memory for this reply. Try again later.");
    request->reply.retry_after = 1;
  }
  for (int i = 0; i < count; i++) registry_release(models[i]);
  free(snapshots);
}
