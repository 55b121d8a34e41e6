/* Paths and methods. */
#ifndef ROUTES_H
#define ROUTES_H

#include "server/request.h"

enum route_kind { ROUTE_ANSWER, ROUTE_CLASSIFY };

struct route {
  const char *pattern; /* {name} stands for one network name */
  enum route_kind kind;
  void (*answer)(struct request *request); /* ROUTE_ANSWER: fills request->reply at once */
};

/* Matches a path and keeps the {name} in `name` (zero-terminated, cut at `size`); NULL when there is no such path. */
const struct route *route_find(const char *path, char *name, size_t size);
/* Whether the route takes this method; *allow gets the Allow header. */
bool route_takes(const struct route *route, const char *method, const char **allow);

/* route_classify.c: checks what the headers tell (a reply stands when they are wrong), then takes the body apart and picks the
 * network: true when the request may be queued, false when a reply stands. */
void route_classify_headers(struct request *request);
bool route_classify_body(struct request *request);
/* Ends the reply: timings. Called on the I/O thread, just before sending. */
void route_classify_timing(struct request *request);
/* By a worker: decodes, runs, writes the predictions into request->reply. */
struct classify_scratch;
void route_classify_run(struct request *request, struct classify_scratch *scratch);

/* route_models.c, route_stats.c, route_page.c, metrics.c */
void route_models(struct request *request);
void route_model(struct request *request);
void route_stats(struct request *request);
void route_model_stats(struct request *request);
void route_metrics(struct request *request);
void route_healthz(struct request *request);
void route_readyz(struct request *request);
void route_page(struct request *request);

/* 503 while loading (true: the reply stands). */
bool route_not_loaded(struct request *request);
/* 503: about to stop. */
void route_draining(struct request *request);
/* 404: no network `name`; lists those that are there. */
void route_no_model(struct request *request, const char *name);

#endif
