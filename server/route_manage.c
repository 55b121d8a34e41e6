/* POST /v1/models/{name}/load, /unload and /reload; by the management thread. */
#include "server/routes.h"

#include <string.h>

static void answer(struct request *request, const char *state, const struct served_model *model) {
  struct text *text = &request->reply.body;
  text_printf(text, "{\"request_id\":\"%s\",\"model\":\"%s\",\"state\":\"%s\",\"version\":", request->id, request->model_name,
              state);
  if (model) {
    text_printf(text, "\"%d\",\"digest\":\"%s\"}\n", model->version, model->classifier->model->digest);
  } else {
    text_puts(text, "null}\n");
  }
  request->reply.status = 200;
  request->reply.content_type = REPLY_JSON;
}

void route_manage_error(struct request *request, enum hwgq_status status, const struct hwgq_error *error) {
  int code = 422;
  const char *name = "unusable_model";
  switch (status) {
  case HWGQ_ERROR_INVALID:
    code = 404;
    name = "unknown_model";
    break;
  case HWGQ_ERROR_UNSUPPORTED:
    code = 409;
    name = "not_possible_now";
    break;
  case HWGQ_ERROR_LIMIT:
    code = 409;
    name = "too_many_models";
    break;
  case HWGQ_ERROR_MEMORY:
    code = 503;
    name = "out_of_memory";
    break;
  default:
    break;
  }
  char first = error->message[0]; /* of a sentence */
  if (first >= 'a' && first <= 'z') first = (char)(first - 'a' + 'A');
  reply_error(&request->reply, code, name, request->id, "%c%s.", first ? first : '?', first ? error->message + 1 : "");
  if (code == 503) request->reply.retry_after = 1;
}

static void log_change(const struct request *request, const char *action, const struct hwgq_error *error) {
  log_event(&request->server->log, error ? LOG_ERROR : LOG_INFO, "networks changed by request",
            log_string("request_id", request->id), log_string("key", request->key_name), log_string("action", action),
            log_string("model", request->model_name), log_string("error", error ? error->message : NULL));
}

bool route_manage(struct request *request, const char *action) {
  struct registry *registry = request->server->registry;
  const char *name = request->model_name;
  struct hwgq_error error = {{0}};
  if (route_not_loaded(request)) return false;
  if (atomic_load(&request->server->state) == SERVER_DRAINING) {
    route_draining(request);
    return false;
  }
  enum hwgq_status status = strcmp(action, "unload") == 0   ? registry_unload(registry, name, &error)
                            : strcmp(action, "reload") == 0 ? registry_reload(registry, name, &error)
                                                            : registry_load(registry, name, &error);
  log_change(request, action, status ? &error : NULL);
  if (status) route_manage_error(request, status, &error);
  return !status;
}

static void act(struct request *request, const char *action) {
  if (!route_manage(request, action)) return;
  struct served_model *model = registry_acquire(request->server->registry, request->model_name);
  answer(request, registry_state_name(model ? REGISTRY_READY : REGISTRY_UNLOADED), model);
  registry_release(model);
}

void route_load(struct request *request) {
  act(request, "load");
}

void route_unload(struct request *request) {
  act(request, "unload");
}

void route_reload(struct request *request) {
  act(request, "reload");
}
