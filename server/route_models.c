/* GET /v1/models and /v1/models/{name}[/versions/{version}]. */
#include "server/routes.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *order_name(enum hwgq_channel_order order) {
  return order == HWGQ_RGB ? "rgb" : order == HWGQ_BGR ? "bgr" : "gray";
}

/* The members that both replies have, without the closing brace. */
static void write_summary(struct request *request, const struct served_model *served, bool is_default, struct text *text) {
  const struct hwgq_model *model = served->classifier->model;
  const struct hwgq_preprocess *preprocess = &model->preprocess;
  struct hwgq_shape input = served->classifier->input;
  struct hwgq_error reload_error;
  int versions[CONFIG_MAX_VERSIONS], count = registry_versions(request->server->registry, served->name, versions);
  text_printf(text, "{\"name\":\"%s\",\"version\":\"%d\",\"versions\":[", served->name, served->version);
  for (int i = 0; i < count; i++) text_printf(text, "%s\"%d\"", i ? "," : "", versions[i]);
  text_printf(text, "],\"state\":\"ready\",\"default\":%s,\"network\":", is_default ? "true" : "false");
  text_json_string(text, model->network->name);
  text_printf(text,
              ",\"input\":{\"channels\":%d,\"height\":%d,\"width\":%d,\"order\":\"%s\",\"resize\":%d,\"invert\":%s},"
              "\"classes\":%d,\"bytes\":%llu,\"memory_bytes\":%zu,\"path\":",
              input.channels, input.height, input.width, order_name(preprocess->order), served->classifier->shorter_side,
              preprocess->invert ? "true" : "false", model->class_count, (unsigned long long)model->file_bytes,
              classifier_bytes(served->classifier));
  text_json_string(text, served->path);
  text_puts(text, ",\"digest\":");
  text_json_string(text, model->digest);
  registry_reload_error(request->server->registry, served->name, &reload_error);
  if (reload_error.message[0]) {
    text_puts(text, ",\"reload_error\":");
    text_json_string(text, reload_error.message);
  }
}

/* Networks that the configuration names and that are not served. */
static void write_others(struct request *request, bool first, struct text *text) {
  int count;
  struct registry_row *rows = registry_index(request->server->registry, &count);
  text->failed |= !rows;
  for (int i = 0; i < count && rows; i++) {
    if (rows[i].state == REGISTRY_READY) continue;
    text_printf(text, "%s{\"name\":\"%s\",\"version\":null,\"versions\":[],\"state\":\"%s\",\"default\":false",
                first ? "" : ",", rows[i].name, registry_state_name(rows[i].state));
    if (rows[i].reload_error.message[0]) {
      text_puts(text, ",\"reload_error\":");
      text_json_string(text, rows[i].reload_error.message);
    }
    text_puts(text, "}");
    first = false;
  }
  free(rows);
}

void route_models(struct request *request) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct text *text = &request->reply.body;
  int default_index;
  if (route_not_loaded(request)) return;
  int count = registry_acquire_all(request->server->registry, models, CONFIG_MAX_MODELS, &default_index);
  text_puts(text, "{\"models\":[");
  for (int i = 0; i < count; i++) {
    if (i) text_puts(text, ",");
    write_summary(request, models[i], i == default_index, text);
    text_puts(text, "}");
    registry_release(models[i]);
  }
  write_others(request, count == 0, text);
  text_puts(text, "]}\n");
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

static void write_layers(const struct hwgq_network *network, struct text *text) {
  text_puts(text, ",\"layers\":[");
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    text_printf(text, "%s{\"name\":", i ? "," : "");
    text_json_string(text, layer->name);
    text_printf(text, ",\"op\":\"%s\",\"output\":[%d,%d,%d]", hwgq_op_name(layer->op), layer->output.channels,
                layer->output.height, layer->output.width);
    if (layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR) {
      text_printf(text, ",\"binary\":%s,\"macs\":%llu", layer->binary ? "true" : "false",
                  (unsigned long long)hwgq_layer_macs(network, layer));
    }
    text_puts(text, "}");
  }
  text_puts(text, "]");
}

static void write_stages(const struct served_model *served, struct text *text) {
  const struct hwgq_plan *plan = served->classifier->plan;
  text_printf(text, ",\"kernels\":\"%s\",\"stages\":[", hwgq_plan_cpu(plan));
  for (int i = 0; i < hwgq_plan_stage_count(plan); i++) {
    struct hwgq_stage_info stage = hwgq_plan_stage(plan, i);
    text_printf(text, "%s{\"name\":", i ? "," : "");
    text_json_string(text, stage.name);
    text_printf(text, ",\"kernel\":\"%s\",\"macs\":%llu,\"weight_bytes\":%zu,\"time_ns\":%llu}",
                stage.kernel ? stage.kernel : "", (unsigned long long)stage.macs, stage.weight_bytes,
                (unsigned long long)served->stage_ns[i]);
  }
  text_puts(text, "]");
}

/* The provenance is a JSON object of the file's author: it goes through a parser, so that it cannot break the reply. */
static void write_provenance(const char *provenance, struct text *text) {
  json_t *value = provenance ? json_loads(provenance, 0, NULL) : NULL;
  char *compact = value ? json_dumps(value, JSON_COMPACT) : NULL;
  text_puts(text, ",\"provenance\":");
  text_puts(text, compact ? compact : "{}");
  free(compact);
  json_decref(value);
}

void route_model(struct request *request) {
  struct text *text = &request->reply.body;
  struct served_model *served = route_acquire(request);
  if (!served) return;
  struct served_model *standard = registry_acquire(request->server->registry, NULL);
  const struct hwgq_model *model = served->classifier->model;
  write_summary(request, served, standard && strcmp(standard->name, served->name) == 0, text);
  write_layers(model->network, text);
  write_stages(served, text);
  text_puts(text, ",\"labels\":[");
  for (int i = 0; i < model->class_count; i++) {
    if (i) text_puts(text, ",");
    text_json_string(text, model->labels ? model->labels[i] : NULL);
  }
  text_puts(text, "]");
  write_provenance(model->provenance, text);
  text_puts(text, "}\n");
  registry_release(standard);
  registry_release(served);
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}
