#include "server/worker.h"

#include "server/clock.h"
#include "server/request.h"
#include "server/routes.h"

#include <stdlib.h>

struct worker {
  struct server *server;
  struct classify_scratch *scratch;
  pthread_t thread;
};

struct worker_pool {
  struct server *server;
  int count; /* threads that run */
  struct worker workers[];
};

static void *work(void *argument) {
  struct worker *worker = argument;
  struct queue_item *item;
  if (!sandbox_enter_worker(&worker->server->sandbox)) {
    log_line(&worker->server->log, LOG_ERROR, "sandbox: a worker cannot be restricted and does not serve");
    return NULL;
  }
  while ((item = queue_pop(&worker->server->queue))) {
    struct request *request = (struct request *)item;
    uint64_t now = clock_now();
    if (now > item->deadline) {
      request_expire(request);
      continue;
    }
    request->queue_ns = now - item->pushed;
    if (request_abandoned(request)) {
      request->gone = true;
    } else {
      atomic_fetch_add(&worker->server->busy, 1);
      request->route->work->run(request, worker->scratch);
      atomic_fetch_sub(&worker->server->busy, 1);
    }
    request_drop_body(request);
    request_resume(request);
  }
  return NULL;
}

enum hwgq_status worker_pool_start(struct server *server, struct worker_pool **pool, struct hwgq_error *error) {
  size_t count = (size_t)server->workers;
  struct worker_pool *made = calloc(1, sizeof *made + count * sizeof made->workers[0]);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %zu workers", count);
  made->server = server;
  for (size_t i = 0; i < count; i++) {
    struct worker *worker = &made->workers[i];
    worker->server = server;
    enum hwgq_status status = classify_scratch_create(NULL, &worker->scratch, error);
    if (!status && pthread_create(&worker->thread, NULL, work, worker)) {
      classify_scratch_destroy(worker->scratch);
      status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot start worker thread %zu of %zu: lower workers", i + 1, count);
    }
    if (status) {
      worker_pool_stop(made);
      return status;
    }
    made->count++;
  }
  *pool = made;
  return HWGQ_OK;
}

void worker_pool_stop(struct worker_pool *pool) {
  if (!pool) return;
  queue_close(&pool->server->queue);
  for (int i = 0; i < pool->count; i++) pthread_join(pool->workers[i].thread, NULL);
  for (int i = 0; i < pool->count; i++) classify_scratch_destroy(pool->workers[i].scratch);
  free(pool);
}
