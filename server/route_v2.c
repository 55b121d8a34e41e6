/* The Open Inference Protocol v2 without inference: server and model metadata, health, the statistics extension, the model
 * repository extension. */
#include "server/clock.h"
#include "server/routes.h"
#include "server/v2_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void answer(struct request *request) {
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

void route_v2_server(struct request *request) {
  text_puts(&request->reply.body,
            "{\"name\":\"hwgqd\",\"version\":\"" HWGQ_VERSION "\",\"extensions\":[\"classification\",\"statistics\","
            "\"model_repository\",\"binary_tensor_data\"]}\n");
  answer(request);
}

void route_v2_live(struct request *request) {
  text_puts(&request->reply.body, "{\"live\":true}\n");
  answer(request);
}

void route_v2_ready(struct request *request) {
  if (route_not_loaded(request)) return;
  if (atomic_load(&request->server->state) == SERVER_DRAINING) {
    route_draining(request);
    return;
  }
  text_puts(&request->reply.body, "{\"ready\":true}\n");
  answer(request);
}

/* `inputs` names one input, because clients send whatever stands there; what else is taken instead of it stands among the
 * parameters. */
void route_v2_model(struct request *request) {
  struct text *text = &request->reply.body;
  struct served_model *model = route_acquire(request);
  if (!model) return;
  struct hwgq_shape input = model->classifier->input;
  int versions[CONFIG_MAX_VERSIONS], count = registry_versions(request->server->registry, model->name, versions);
  text_printf(text, "{\"name\":\"%s\",\"versions\":[", model->name);
  for (int i = 0; i < count; i++) text_printf(text, "%s\"%d\"", i ? "," : "", versions[i]);
  text_printf(
      text,
      "],\"platform\":\"hwgq\",\"inputs\":[{\"name\":\"%s\",\"datatype\":\"BYTES\","
      "\"shape\":[-1]}],\"outputs\":[{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[-1,%d]},{\"name\":\"%s\",\"datatype\":"
      "\"INT32\",\"shape\":[-1]},{\"name\":\"%s\",\"datatype\":\"BYTES\",\"shape\":[-1]}],",
      v2_input_name(V2_BYTES), v2_output_name(V2_PROBABILITIES), model->classifier->class_count, v2_output_name(V2_CLASS),
      v2_output_name(V2_LABEL));
  text_printf(text,
              "\"parameters\":{\"instead_of_image\":[{\"name\":\"%s\",\"datatype\":\"UINT8\",\"shape\":[-1,-1,-1,3]},"
              "{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[-1,%d,%d,%d]}]}}\n",
              v2_input_name(V2_UINT8), v2_input_name(V2_FP32), input.channels, input.height, input.width);
  registry_release(model);
  answer(request);
}

void route_v2_model_ready(struct request *request) {
  struct served_model *model = route_acquire(request);
  if (!model) return;
  text_printf(&request->reply.body, "{\"name\":\"%s\",\"ready\":true}\n", model->name);
  registry_release(model);
  answer(request);
}

static void write_sum(struct text *text, const char *name, struct stats_sum sum) {
  text_printf(text, "\"%s\":{\"count\":%llu,\"ns\":%llu}", name, (unsigned long long)sum.count, (unsigned long long)sum.ns);
}

/* Output is written while the reply is: it has no stage of its own, so its sum stays 0. */
static void write_compute(struct text *text, const struct stats_totals *totals) {
  write_sum(text, "compute_input", totals->input);
  text_puts(text, ",");
  write_sum(text, "compute_infer", totals->inference);
  text_puts(text, ",");
  write_sum(text, "compute_output", (struct stats_sum){totals->inference.count, 0});
}

static void write_statistics(const struct server *server, const struct served_model *model, struct text *text) {
  struct stats_totals totals;
  stats_read_totals(model->stats, &totals);
  uint64_t last_ms = totals.last ? (uint64_t)server->started_unix * 1000 + (totals.last - server->started) / CLOCK_MS : 0;
  unsigned long long images = (unsigned long long)totals.inference.count;
  text_printf(text,
              "{\"name\":\"%s\",\"version\":\"%d\",\"last_inference\":%llu,\"inference_count\":%llu,\"execution_count\":%llu,"
              "\"inference_stats\":{",
              model->name, model->version, (unsigned long long)last_ms, images, images);
  write_sum(text, "success", totals.success);
  text_puts(text, ",");
  write_sum(text, "fail", totals.failure);
  text_puts(text, ",");
  write_sum(text, "queue", totals.queue);
  text_puts(text, ",");
  write_compute(text, &totals);
  text_puts(text, ",\"cache_hit\":{\"count\":0,\"ns\":0},\"cache_miss\":{\"count\":0,\"ns\":0}},\"batch_stats\":[");
  if (images) {
    text_puts(text, "{\"batch_size\":1,");
    write_compute(text, &totals);
    text_puts(text, "}");
  }
  text_puts(text, "]}");
}

void route_v2_stats(struct request *request) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct text *text = &request->reply.body;
  int count = 1, default_index;
  if (request->model_name[0]) {
    models[0] = route_acquire(request);
    if (!models[0]) return;
  } else {
    if (route_not_loaded(request)) return;
    count = registry_acquire_all(request->server->registry, models, CONFIG_MAX_MODELS, &default_index);
  }
  text_puts(text, "{\"model_stats\":[");
  for (int i = 0; i < count; i++) {
    if (i) text_puts(text, ",");
    write_statistics(request->server, models[i], text);
    registry_release(models[i]);
  }
  text_puts(text, "]}\n");
  answer(request);
}

/* The body may be {"ready": true}: only networks that are ready. */
static bool index_body(struct request *request, bool *ready) {
  struct scan scan;
  struct scan_string key;
  if (!request->body_length) return true;
  scan_init(&scan, request->body, request->body_length);
  if (scan_open(&scan, '{')) {
    while (scan_more(&scan, '}') && scan_key(&scan, &key)) {
      if (!(scan_equals(&key, "ready") ? scan_bool(&scan, ready) : scan_skip(&scan))) break;
    }
  }
  if (scan_finish(&scan)) return true;
  reply_error(&request->reply, 400, "bad_body", request->id, "The body is no index request: %s.", scan.problem);
  return false;
}

static const char *reason_of(const struct registry_row *row) {
  if (row->reload_error.message[0]) return row->reload_error.message;
  return row->state == REGISTRY_UNLOADED ? "unloaded" : "";
}

void route_v2_index(struct request *request) {
  struct text *text = &request->reply.body;
  bool ready = false, first = true;
  int count;
  if (!index_body(request, &ready) || route_not_loaded(request)) return;
  struct registry_row *rows = registry_index(request->server->registry, &count);
  if (!rows) {
    route_no_memory(request);
    return;
  }
  text_puts(text, "[");
  for (int i = 0; i < count; i++) {
    static const char *const states[] = {"READY", "LOADING", "UNAVAILABLE", "UNAVAILABLE"};
    char version[16] = "";
    if (ready && rows[i].state != REGISTRY_READY) continue;
    if (rows[i].version) snprintf(version, sizeof version, "%d", rows[i].version);
    text_printf(text, "%s{\"name\":\"%s\",\"version\":\"%s\",\"state\":\"%s\",\"reason\":", first ? "" : ",", rows[i].name,
                version, states[rows[i].state]);
    text_json_string(text, reason_of(&rows[i]));
    text_puts(text, "}");
    first = false;
  }
  text_puts(text, "]\n");
  free(rows);
  answer(request);
}

void route_v2_load(struct request *request) {
  if (!route_manage(request, "load")) return;
  text_puts(&request->reply.body, "{}\n");
  answer(request);
}

void route_v2_unload(struct request *request) {
  if (!route_manage(request, "unload")) return;
  text_puts(&request->reply.body, "{}\n");
  answer(request);
}
