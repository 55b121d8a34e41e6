#include "server/worker.h"

#include "server/clock.h"
#include "server/request.h"
#include "server/routes.h"

#include <stdlib.h>

enum {
  MOST_HELPERS = 7, /* each costs every worker some memory, and gains less than the one before */
  /* Between the requests of a busy connection a worker's core is not idle: it sends the reply and receives what comes next. A
   * helper would lose it in the middle of a unit, and the other worker would wait. */
  SETTLE_US = 500
};

struct worker {
  struct worker_pool *pool;
  struct classify_scratch *scratch;
  struct hwgq_team *team; /* that helps with its images; NULL for none */
  pthread_t thread;
};

struct worker_pool {
  struct server *server;
  int count; /* threads that run */
  int size;  /* workers that are prepared */
  struct worker workers[];
};

/* ---- helping ---------------------------------------------------------------------------------------------------------------
 */

int worker_helpers(const struct config *config, int workers) {
  if (config->idle_workers != CONFIG_IDLE_HELP) return 0;
  return workers - 1 < MOST_HELPERS ? workers - 1 : MOST_HELPERS;
}

static bool call_helper(void *context) {
  return queue_call(context);
}

static bool request_waits(void *context) {
  return queue_depth(context) > 0;
}

static bool can_help(void *context) {
  struct worker_pool *pool = context;
  if (spread_open(&pool->server->spread)) return true;
  for (int i = 0; i < pool->size; i++) {
    if (pool->workers[i].team && hwgq_team_open(pool->workers[i].team)) return true;
  }
  return false;
}

/* A whole image is worth more than a part of one. */
static void help(const struct worker *worker) {
  struct worker_pool *pool = worker->pool;
  struct queue *queue = &pool->server->queue;
  spread_help(&pool->server->spread, worker->scratch);
  for (int i = 0; i < pool->size; i++) {
    if (pool->workers[i].team) hwgq_team_help(pool->workers[i].team, request_waits, queue);
  }
}

/* ---- requests --------------------------------------------------------------------------------------------------------------
 */

/* How long a request kept workers is known now, at work or waiting for memory: who gave it waits accordingly. */
static void charge(struct queue *queue, const struct request *request) {
  uint64_t spent = atomic_load(&request->spent_ns);
  if (spent > 2 * request->item.cost) queue_charge(queue, &request->item, spent - request->item.cost);
}

static void serve(struct worker *worker, struct queue_item *item) {
  struct server *server = worker->pool->server;
  struct request *request = (struct request *)item;
  uint64_t now = clock_now();
  if (now > item->deadline) {
    request_expire(request);
    return;
  }
  request->queue_ns = now - item->pushed;
  if (request_abandoned(request)) {
    request->gone = true;
  } else {
    atomic_fetch_add(&server->busy, 1);
    request->route->work->run(request, worker->scratch);
    atomic_fetch_sub(&server->busy, 1);
    charge(&server->queue, request);
  }
  request_drop_body(request);
  request_resume(request);
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct worker_pool *pool = worker->pool;
  uint64_t idle_at = 0;
  if (!sandbox_enter_worker(&pool->server->sandbox)) {
    log_line(&pool->server->log, LOG_ERROR, "sandbox: a worker cannot be restricted and does not serve");
    return NULL;
  }
  for (;;) {
    struct queue_item *item;
    switch (queue_wait(&pool->server->queue, idle_at, can_help, pool, &item)) {
    case QUEUE_ITEM:
      serve(worker, item);
      idle_at = clock_now() + SETTLE_US * (CLOCK_MS / 1000);
      break;
    case QUEUE_CALL:
      help(worker);
      idle_at = 0;
      break;
    case QUEUE_CLOSED:
      return NULL;
    }
  }
}

/* ---- the pool --------------------------------------------------------------------------------------------------------------
 */

static enum hwgq_status prepare(struct worker_pool *pool, int helpers, struct hwgq_error *error) {
  struct worker *worker = &pool->workers[pool->size];
  worker->pool = pool;
  enum hwgq_status status = classify_scratch_create(NULL, &worker->scratch, error);
  if (!status && helpers > 0) {
    status = hwgq_team_create(helpers, call_helper, &pool->server->queue, &worker->team, error);
    classify_scratch_set_team(worker->scratch, worker->team, helpers);
  }
  pool->size++;
  return status;
}

enum hwgq_status worker_pool_start(struct server *server, struct worker_pool **pool, struct hwgq_error *error) {
  const int count = server->workers, helpers = worker_helpers(server->config, count);
  struct worker_pool *made = calloc(1, sizeof *made + (size_t)count * sizeof made->workers[0]);
  enum hwgq_status status = HWGQ_OK;
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %d workers", count);
  made->server = server;
  if (!spread_board_init(&server->spread, helpers > 0 ? &server->queue : NULL)) {
    free(made);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the workers");
  }
  /* All teams are there before any thread looks at them. */
  while (!status && made->size < count) status = prepare(made, helpers, error);
  while (!status && made->count < count) {
    struct worker *worker = &made->workers[made->count];
    if (pthread_create(&worker->thread, NULL, work, worker)) {
      status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot start worker thread %d of %d: lower workers", made->count + 1, count);
    } else {
      made->count++;
    }
  }
  if (status) {
    worker_pool_stop(made);
    return status;
  }
  *pool = made;
  return HWGQ_OK;
}

void worker_pool_stop(struct worker_pool *pool) {
  if (!pool) return;
  queue_close(&pool->server->queue);
  for (int i = 0; i < pool->count; i++) pthread_join(pool->workers[i].thread, NULL);
  for (int i = 0; i < pool->size; i++) {
    classify_scratch_destroy(pool->workers[i].scratch);
    hwgq_team_destroy(pool->workers[i].team);
  }
  spread_board_destroy(&pool->server->spread);
  free(pool);
}
