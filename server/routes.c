#include "server/routes.h"

#include <string.h>

static const struct route routes[] = {
    {"/classify", ROUTE_CLASSIFY, NULL},
    {"/v1/models/{name}/classify", ROUTE_CLASSIFY, NULL},
    {"/v1/models", ROUTE_ANSWER, route_models},
    {"/v1/models/{name}", ROUTE_ANSWER, route_model},
    {"/v1/models/{name}/stats", ROUTE_ANSWER, route_model_stats},
    {"/stats", ROUTE_ANSWER, route_stats},
    {"/metrics", ROUTE_ANSWER, route_metrics},
    {"/healthz", ROUTE_ANSWER, route_healthz},
    {"/readyz", ROUTE_ANSWER, route_readyz},
    {"/", ROUTE_ANSWER, route_page},
};

static bool matches(const char *pattern, const char *path, char *name, size_t size) {
  const char *hole = strchr(pattern, '{');
  size_t before = hole ? (size_t)(hole - pattern) : 0;
  name[0] = 0;
  if (!hole) return strcmp(pattern, path) == 0;
  if (strncmp(pattern, path, before) != 0) return false;
  const char *start = path + before, *after = hole + strlen("{name}");
  size_t length = strcspn(start, "/");
  if (length == 0 || strcmp(start + length, after) != 0) return false;
  if (length >= size) length = size - 1;
  memcpy(name, start, length);
  name[length] = 0;
  return true;
}

const struct route *route_find(const char *path, char *name, size_t size) {
  for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
    if (matches(routes[i].pattern, path, name, size)) return &routes[i];
  }
  return NULL;
}

bool route_takes(const struct route *route, const char *method, const char **allow) {
  if (route->kind == ROUTE_CLASSIFY) {
    *allow = "POST, PUT";
    return strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
  }
  *allow = "GET, HEAD";
  return strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
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

void route_no_model(struct request *request, const char *name) {
  struct served_model *models[CONFIG_MAX_MODELS];
  struct text names = {0};
  int default_index;
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
