#include "server/routes.h"

#include <string.h>

static const struct route routes[] = {
    {"/classify", ROUTE_CLASSIFY, NULL, &route_classify},
    {"/v1/models/{name}/classify", ROUTE_CLASSIFY, NULL, &route_classify},
    {"/v1/models", ROUTE_ANSWER, route_models, NULL},
    {"/v1/models/{name}", ROUTE_ANSWER, route_model, NULL},
    {"/v1/models/{name}/stats", ROUTE_ANSWER, route_model_stats, NULL},
    {"/v1/models/{name}/load", ROUTE_POST, route_load, NULL},
    {"/v1/models/{name}/unload", ROUTE_POST, route_unload, NULL},
    {"/v1/models/{name}/reload", ROUTE_POST, route_reload, NULL},
    {"/v1/models/{name}/versions/{version}", ROUTE_ANSWER, route_model, NULL},
    {"/v1/models/{name}/versions/{version}/classify", ROUTE_CLASSIFY, NULL, &route_classify},
    {"/v2", ROUTE_ANSWER, route_v2_server, NULL},
    {"/v2/health/live", ROUTE_ANSWER, route_v2_live, NULL},
    {"/v2/health/ready", ROUTE_ANSWER, route_v2_ready, NULL},
    {"/v2/models/stats", ROUTE_ANSWER, route_v2_stats, NULL},
    {"/v2/models/{name}", ROUTE_ANSWER, route_v2_model, NULL},
    {"/v2/models/{name}/ready", ROUTE_ANSWER, route_v2_model_ready, NULL},
    {"/v2/models/{name}/stats", ROUTE_ANSWER, route_v2_stats, NULL},
    {"/v2/models/{name}/infer", ROUTE_INFER, NULL, &route_v2_infer},
    {"/v2/models/{name}/versions/{version}", ROUTE_ANSWER, route_v2_model, NULL},
    {"/v2/models/{name}/versions/{version}/ready", ROUTE_ANSWER, route_v2_model_ready, NULL},
    {"/v2/models/{name}/versions/{version}/stats", ROUTE_ANSWER, route_v2_stats, NULL},
    {"/v2/models/{name}/versions/{version}/infer", ROUTE_INFER, NULL, &route_v2_infer},
    {"/v2/repository/index", ROUTE_POST, route_v2_index, NULL},
    {"/v2/repository/models/{name}/load", ROUTE_POST, route_v2_load, NULL},
    {"/v2/repository/models/{name}/unload", ROUTE_POST, route_v2_unload, NULL},
    {"/stats", ROUTE_ANSWER, route_stats, NULL},
    {"/metrics", ROUTE_ANSWER, route_metrics, NULL},
    {"/healthz", ROUTE_ANSWER, route_healthz, NULL},
    {"/readyz", ROUTE_ANSWER, route_readyz, NULL},
    {"/", ROUTE_ANSWER, route_page, NULL},
    {"/docs", ROUTE_ANSWER, route_docs, NULL},
    {"/openapi.json", ROUTE_ANSWER, route_openapi, NULL},
    {"/page/{name}", ROUTE_ANSWER, route_page_file, NULL},
};

/* A segment of the path into a buffer, cut to its size. Returns the segment's length. */
static size_t capture(const char *path, char *text, size_t size) {
  size_t length = strcspn(path, "/"), kept = length < size ? length : size - 1;
  memcpy(text, path, kept);
  text[kept] = 0;
  return length;
}

static bool matches(const char *pattern, const char *path, char *name, size_t name_size, char *version, size_t version_size) {
  name[0] = version[0] = 0;
  while (*pattern) {
    if (*pattern != '{') {
      if (*pattern++ != *path++) return false;
      continue;
    }
    size_t length = pattern[1] == 'n' ? capture(path, name, name_size) : capture(path, version, version_size);
    if (length == 0) return false;
    path += length;
    pattern = strchr(pattern, '}') + 1;
  }
  return *path == 0;
}

const struct route *route_find(const char *path, char *name, size_t name_size, char *version, size_t version_size) {
  for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
    if (matches(routes[i].pattern, path, name, name_size, version, version_size)) return &routes[i];
  }
  return NULL;
}

bool route_takes(const struct route *route, const char *method, const char **allow) {
  bool get = route->kind == ROUTE_ANSWER, put = route->kind == ROUTE_CLASSIFY;
  *allow = get ? "GET, HEAD" : put ? "POST, PUT" : "POST";
  if (get) return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
  return strcmp(method, "POST") == 0 || (put && strcmp(method, "PUT") == 0);
}

void route_no_memory(struct request *request) {
  reply_error(&request->reply, 503, "out_of_memory", request->id,
              "The server has no memory for this request. Try again later.");
  request->reply.retry_after = 1;
}

bool route_not_loaded(struct request *request) {
  if (atomic_load(&request->server->state) != SERVER_LOADING) return false;
  reply_error(&request->reply, 503, "loading", request->id, "The networks are being loaded. Try again in a second.");
  request->reply.retry_after = 1;
  return true;
}

void route_draining(struct request *request) {
  reply_error(&request->reply, 503, "draining", request->id, "This server is about to stop. Use another one.");
  request->reply.retry_after = 1;
}

static void no_version(struct request *request, const char *name) {
  int versions[CONFIG_MAX_VERSIONS], count = registry_versions(request->server->registry, name, versions);
  struct text text = {0};
  for (int i = 0; i < count; i++) text_printf(&text, "%s%d", i ? ", " : "", versions[i]);
  reply_error(&request->reply, 404, "unknown_version", request->id,
              "Network '%s' has no version '%s'. There are: %s; a path without /versions takes the first.", name,
              request->model_version, text.data && !text.failed ? text.data : "none");
  text_release(&text);
}

struct served_model *route_acquire(struct request *request) {
  struct registry *registry = request->server->registry;
  const char *name = request->model_name[0] ? request->model_name : NULL;
  int version = registry_version(request->model_version);
  if (route_not_loaded(request)) return NULL;
  struct served_model *newest = registry_acquire(registry, name);
  if (!newest || !request->model_version[0]) {
    if (!newest) route_no_model(request, name ? name : "");
    return newest;
  }
  struct served_model *model = version ? registry_acquire_version(registry, newest->name, version) : NULL;
  if (!model) no_version(request, newest->name);
  registry_release(newest);
  return model;
}

void route_no_model(struct request *request, const char *name) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct text names = {0};
  enum registry_state state;
  int default_index;
  if (registry_knows(request->server->registry, name, &state) && state != REGISTRY_READY) {
    reply_error(&request->reply, 404, "model_not_loaded", request->id,
                "Network '%.100s' is not loaded (%s). Whoever has an admin key can do that: POST /v1/models/%.100s/load.", name,
                registry_state_name(state), name);
    return;
  }
  int count = registry_acquire_all(request->server->registry, models, CONFIG_MAX_MODELS, &default_index);
  for (int i = 0; i < count; i++) {
    if (i < 20) text_printf(&names, "%s%s", i ? ", " : "", models[i]->name);
    if (i == 20) text_puts(&names, ", ...");
    registry_release(models[i]);
  }
  reply_error(&request->reply, 404, "unknown_model", request->id, "There is no network '%.100s'. There are: %s.", name,
              names.data && !names.failed ? names.data : "none");
  text_release(&names);
}

void route_healthz(struct request *request) {
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
  text_puts(&request->reply.body, "{\"status\":\"ok\"}\n");
}

void route_readyz(struct request *request) {
  int state = atomic_load(&request->server->state);
  if (route_not_loaded(request)) return;
  if (state == SERVER_DRAINING) {
    route_draining(request);
    return;
  }
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
  text_puts(&request->reply.body, "{\"status\":\"ready\"}\n");
}
