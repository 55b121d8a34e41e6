/* The Open Inference Protocol v2 without inference: server and model metadata, health, the statistics extension, the model
 * repository extension. */
#include "server/clock.h"
#include "server/routes.h"
#include "server/v2_request.h"

#include <stdio.h>
#include <string.h>

static void answer(struct request *request) {
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

static bool version_is(const struct served_model *model, const char *version) {
  char text[REQUEST_MAX_VERSION];
  snprintf(text, sizeof text, "%d", model->version);
  return strcmp(text, version) == 0;
}

struct served_model *route_v2_acquire(struct request *request) {
  if (route_not_loaded(request)) return NULL;
  struct served_model *model = registry_acquire(request->server->registry, request->model_name);
  if (!model) {
    route_no_model(request, request->model_name);
    return NULL;
  }
  if (!request->model_version[0] || version_is(model, request->model_version)) return model;
  reply_error(&request->reply, 404, "unknown_version", request->id,
              "Network '%s' has no version '%s'. Its version is '%d'; a path without /versions takes it.", model->name,
              request->model_version, model->version);
  registry_release(model);
  return NULL;
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
  struct served_model *model = route_v2_acquire(request);
  if (!model) return;
  struct hwgq_shape input = model->classifier->input;
  text_printf(
      text,
      "{\"name\":\"%s\",\"versions\":[\"%d\"],\"platform\":\"hwgq\",\"inputs\":[{\"name\":\"%s\",\"datatype\":\"BYTES\","
      "\"shape\":[-1]}],\"outputs\":[{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[-1,%d]},{\"name\":\"%s\",\"datatype\":"
      "\"INT32\",\"shape\":[-1]},{\"name\":\"%s\",\"datatype\":\"BYTES\",\"shape\":[-1]}],",
      model->name, model->version, v2_input_name(V2_BYTES), v2_output_name(V2_PROBABILITIES), model->classifier->class_count,
      v2_output_name(V2_CLASS), v2_output_name(V2_LABEL));
  text_printf(text,
              "\"parameters\":{\"instead_of_image\":[{\"name\":\"%s\",\"datatype\":\"UINT8\",\"shape\":[-1,-1,-1,3]},"
              "{\"name\":\"%s\",\"datatype\":\"FP32\",\"shape\":[-1,%d,%d,%d]}]}}\n",
              v2_input_name(V2_UINT8), v2_input_name(V2_FP32), input.channels, input.height, input.width);
  registry_release(model);
  answer(request);
}

void route_v2_model_ready(struct request *request) {
  struct served_model *model = route_v2_acquire(request);
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
    models[0] = route_v2_acquire(request);
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

/* The body may be {"ready": true}: only networks that are ready. Those that are not are not known by name here, so the answer
 * is the same; but a body that is none of the protocol's is refused. */
static bool index_body(struct request *request) {
  struct scan scan;
  struct scan_string key;
  bool ready;
  if (!request->body_length) return true;
  scan_init(&scan, request->body, request->body_length);
  if (scan_open(&scan, '{')) {
    while (scan_more(&scan, '}') && scan_key(&scan, &key)) {
      if (!(scan_equals(&key, "ready") ? scan_bool(&scan, &ready) : scan_skip(&scan))) break;
    }
  }
  if (scan_finish(&scan)) return true;
  reply_error(&request->reply, 400, "bad_body", request->id, "The body is no index request: %s.", scan.problem);
  return false;
}

void route_v2_index(struct request *request) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct text *text = &request->reply.body;
  struct hwgq_error reason;
  int default_index;
  if (!index_body(request) || route_not_loaded(request)) return;
  int count = registry_acquire_all(request->server->registry, models, CONFIG_MAX_MODELS, &default_index);
  text_puts(text, "[");
  for (int i = 0; i < count; i++) {
    registry_reload_error(request->server->registry, models[i]->name, &reason);
    text_printf(text, "%s{\"name\":\"%s\",\"version\":\"%d\",\"state\":\"READY\",\"reason\":", i ? "," : "", models[i]->name,
                models[i]->version);
    text_json_string(text, reason.message);
    text_puts(text, "}");
    registry_release(models[i]);
  }
  text_puts(text, "]\n");
  answer(request);
}

/* Loading and unloading change what everybody is served, so they are for whoever has an admin key, and none is configured. */
static void refuse_admin(struct request *request) {
  reply_error(&request->reply, 403, "forbidden", request->id,
              "Loading and unloading networks needs an admin key, and this server has none configured.");
}

void route_v2_load(struct request *request) {
  refuse_admin(request);
}

void route_v2_unload(struct request *request) {
  refuse_admin(request);
}
