/* Paths and methods. */
#ifndef ROUTES_H
#define ROUTES_H

#include "server/request.h"

/* ROUTE_ANSWER: GET, answered when the headers are there; ROUTE_POST: answered by the management thread when the body is, so it
 * may take its time; ROUTE_CLASSIFY and ROUTE_INFER: POST for a worker (the first also PUT). */
enum route_kind { ROUTE_ANSWER, ROUTE_POST, ROUTE_CLASSIFY, ROUTE_INFER };

struct classify_scratch;

/* What becomes of a request that a worker serves. */
struct route_work {
  void (*headers)(struct request *request); /* checks what the headers tell: a reply stands when they are wrong */
  bool (*body)(struct request *request);    /* true when the request may be queued, false when a reply stands */
  void (*run)(struct request *request, struct classify_scratch *scratch); /* by a worker: fills request->reply */
  void (*end)(struct request *request); /* on the I/O thread, just before a reply of 200 is sent; NULL: nothing to do */
};

struct route {
  const char *pattern; /* {name} stands for one network name, {version} for a version after it */
  enum route_kind kind;
  void (*answer)(struct request *request); /* ROUTE_ANSWER, ROUTE_POST: fills request->reply */
  const struct route_work *work;           /* the others */
};

/* Matches a path and keeps {name} and {version}, "" when it has none (zero-terminated, cut to their sizes); NULL when there is
 * no such path. */
const struct route *route_find(const char *path, char *name, size_t name_size, char *version, size_t version_size);
/* Whether the route takes this method; *allow gets the Allow header. */
bool route_takes(const struct route *route, const char *method, const char **allow);

extern const struct route_work route_classify, route_v2_infer;

/* route_models.c, route_stats.c, metrics.c, routes.c */
void route_models(struct request *request);
void route_model(struct request *request);
void route_stats(struct request *request);
void route_model_stats(struct request *request);
void route_metrics(struct request *request);
void route_healthz(struct request *request);
void route_readyz(struct request *request);

/* route_page.c */
void route_page(struct request *request);
void route_docs(struct request *request);
void route_openapi(struct request *request);
void route_page_file(struct request *request);
/* What a reply with a file of the page says beside its type: how long it is good, and what it may load. */
void route_page_headers(const struct reply *reply, struct MHD_Response *response);

/* route_v2.c: the Open Inference Protocol. */
void route_v2_server(struct request *request);
void route_v2_live(struct request *request);
void route_v2_ready(struct request *request);
void route_v2_model(struct request *request);
void route_v2_model_ready(struct request *request);
void route_v2_stats(struct request *request);
void route_v2_index(struct request *request);
void route_v2_load(struct request *request);
void route_v2_unload(struct request *request);

/* route_manage.c */
void route_load(struct request *request);
void route_unload(struct request *request);
void route_reload(struct request *request);
/* Does it ("load", "unload" or "reload" of the network that the path names) and logs it. False: a reply stands. */
bool route_manage(struct request *request, const char *action);
/* The reply for what registry_load and its like return. */
void route_manage_error(struct request *request, enum hwgq_status status, const struct hwgq_error *error);

/* The network that the path names, in its version if that is named too (no name: the default one), to be released; NULL: a
 * reply stands. */
struct served_model *route_acquire(struct request *request);
/* 503 while loading (true: the reply stands). */
bool route_not_loaded(struct request *request);
/* 503: no memory. */
void route_no_memory(struct request *request);
/* 503: about to stop. */
void route_draining(struct request *request);
/* 404: no network `name`; lists those that are there. */
void route_no_model(struct request *request, const char *name);

#endif
