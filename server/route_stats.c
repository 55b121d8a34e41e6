/* GET /stats and /v1/models/{name}/stats. */
#include "server/clock.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>

static void write_counts(const struct stats_counts *counts, struct text *text) {
  text_printf(text, "{\"ok\":%llu,\"failed\":%llu,\"rejected\":%llu,\"expired\":%llu}", (unsigned long long)counts->ok,
              (unsigned long long)counts->failed, (unsigned long long)counts->rejected, (unsigned long long)counts->expired);
}

static void write_stage(enum stats_stage stage, const struct histogram *histogram, struct text *text) {
  static const struct {
    const char *name;
    double quantile;
  } quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}};
  double mean = histogram->count ? (double)histogram->sum / (double)histogram->count : 0;
  text_printf(text, "\"%s\":{\"count\":%llu,\"mean\":%.4f,\"min\":%.4f,\"max\":%.4f", stats_stage_name(stage),
              (unsigned long long)histogram->count, mean / 1e6, (double)histogram->min / 1e6, (double)histogram->max / 1e6);
  for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
    text_printf(text, ",\"%s\":%.4f", quantiles[i].name, (double)histogram_quantile(histogram, quantiles[i].quantile) / 1e6);
  }
  text_puts(text, "}");
}

/* `stages`: room for STATS_STAGES histograms. */
static void write_model(const struct served_model *model, int window, uint64_t now, struct histogram *stages,
                        struct text *text) {
  struct stats_counts counts;
  stats_read(model->stats, window, now, &counts, stages);
  text_puts(text, "{\"requests\":");
  write_counts(&counts, text);
  text_printf(text, ",\"images\":%llu,\"shared_images\":%llu,\"latency_ms\":{", (unsigned long long)counts.images,
              (unsigned long long)counts.shared);
  for (int s = 0; s < STATS_STAGES; s++) {
    if (s) text_puts(text, ",");
    write_stage((enum stats_stage)s, &stages[s], text);
  }
  text_puts(text, "}}");
}

/* ?window=SECONDS: 0 when it is not given, -1 when it makes no sense (a reply stands). */
static int window_of(struct request *request) {
  const char *text = request_query(request, "window");
  size_t digits = text ? strspn(text, "0123456789") : 0;
  if (!text) return 0;
  int window = digits && digits <= 3 && !text[digits] ? atoi(text) : 0;
  if (window >= 1 && window <= STATS_MAX_WINDOW) return window;
  reply_error(&request->reply, 400, "bad_window", request->id, "window must be a whole number of seconds from 1 to %d.",
              STATS_MAX_WINDOW);
  return -1;
}

static struct histogram *stages_create(struct request *request) {
  struct histogram *stages = malloc(STATS_STAGES * sizeof *stages);
  if (!stages) {
    reply_error(&request->reply, 503, "out_of_memory", request->id,
                "The server has no memory for this reply. Try again later.");
    request->reply.retry_after = 1;
  }
  return stages;
}

static void write_server(struct server *server, struct text *text) {
  text_printf(text, "\"uptime_s\":%.3f,\"kernels\":\"%s\",\"workers\":%d,\"queue\":{\"depth\":%zu,\"capacity\":%zu},",
              (double)(clock_now() - server->started) / 1e9, registry_kernels(server->registry), server->workers,
              queue_depth(&server->queue), server->queue.capacity);
}

void route_stats(struct request *request) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct server *server = request->server;
  struct text *text = &request->reply.body;
  struct stats_counts unrouted;
  uint64_t now = clock_now();
  int window = window_of(request), default_index;
  if (window < 0) return;
  struct histogram *stages = stages_create(request);
  if (!stages) return;
  stats_read(server->unrouted, window, now, &unrouted, stages);
  int count = registry_acquire_all(server->registry, models, CONFIG_MAX_MODELS, &default_index);
  text_puts(text, "{");
  write_server(server, text);
  if (window) text_printf(text, "\"window_s\":%.3f,", stats_window(window, server->started, now));
  text_puts(text, "\"models\":{");
  for (int i = 0; i < count; i++) {
    text_printf(text, "%s\"%s\":", i ? "," : "", models[i]->name);
    write_model(models[i], window, now, stages, text);
    registry_release(models[i]);
  }
  text_puts(text, "},\"without_model\":{\"requests\":");
  write_counts(&unrouted, text);
  text_puts(text, "}}\n");
  free(stages);
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

void route_model_stats(struct request *request) {
  struct text *text = &request->reply.body;
  int window = window_of(request);
  uint64_t now = clock_now();
  if (window < 0 || route_not_loaded(request)) return;
  struct served_model *model = registry_acquire(request->server->registry, request->model_name);
  if (!model) {
    route_no_model(request, request->model_name);
    return;
  }
  struct histogram *stages = stages_create(request);
  if (stages) {
    text_puts(text, "{");
    write_server(request->server, text);
    if (window) text_printf(text, "\"window_s\":%.3f,", stats_window(window, request->server->started, now));
    text_printf(text, "\"models\":{\"%s\":", model->name);
    write_model(model, window, now, stages, text);
    text_puts(text, "}}\n");
    request->reply.status = 200;
    request->reply.content_type = REPLY_JSON;
  }
  free(stages);
  registry_release(model);
}
