#include "models/train/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct pool_worker {
  struct pool *pool;
  int index;
  pthread_t thread;
};

struct pool {
  int threads;
  pthread_mutex_t mutex;
  pthread_cond_t start, done;
  /* Guarded by the mutex. `generation` counts the calls of pool_run; `busy` the helpers still in the current one. */
  unsigned generation;
  int busy;
  bool stop;
  void (*task)(void *context, int index, int worker);
  void *context;
  int task_count;
  atomic_int next;
  struct pool_worker workers[];
};

static void work(struct pool *pool, int worker) {
  for (;;) {
    int index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
    if (index >= pool->task_count) return;
    pool->task(pool->context, index, worker);
  }
}

static void *worker_main(void *argument) {
  struct pool_worker *worker = argument;
  struct pool *pool = worker->pool;
  unsigned seen = 0;
  pthread_mutex_lock(&pool->mutex);
  for (;;) {
    while (!pool->stop && pool->generation == seen) pthread_cond_wait(&pool->start, &pool->mutex);
    if (pool->stop) break;
    seen = pool->generation;
    pthread_mutex_unlock(&pool->mutex);
    work(pool, worker->index);
    pthread_mutex_lock(&pool->mutex);
    if (--pool->busy == 0) pthread_cond_signal(&pool->done);
  }
  pthread_mutex_unlock(&pool->mutex);
  return NULL;
}

enum hwgq_status pool_create(int threads, struct pool **result, struct hwgq_error *error) {
  if (threads < 1 || threads > POOL_MAX_THREADS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%d threads: give 1 to %d", threads, POOL_MAX_THREADS);
  struct pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->workers[0]);
  if (pool == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a pool of %d threads", threads);
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->start, NULL);
  pthread_cond_init(&pool->done, NULL);
  pool->threads = 1;
  for (int i = 1; i < threads; i++) {
    pool->workers[i] = (struct pool_worker){.pool = pool, .index = i};
    if (pthread_create(&pool->workers[i].thread, NULL, worker_main, &pool->workers[i]) != 0) {
      pool_destroy(pool);
      return hwgq_fail(error, HWGQ_ERROR_IO, "cannot start thread %d of %d: ask for fewer threads", i + 1, threads);
    }
    pool->threads = i + 1;
  }
  *result = pool;
  return HWGQ_OK;
}

void pool_destroy(struct pool *pool) {
  if (pool == NULL) return;
  pthread_mutex_lock(&pool->mutex);
  pool->stop = true;
  pthread_cond_broadcast(&pool->start);
  pthread_mutex_unlock(&pool->mutex);
  for (int i = 1; i < pool->threads; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->start);
  pthread_cond_destroy(&pool->done);
  pthread_mutex_destroy(&pool->mutex);
  free(pool);
}

int pool_threads(const struct pool *pool) {
  return pool->threads;
}

void pool_run(struct pool *pool, int task_count, void (*task)(void *context, int index, int worker), void *context) {
  pthread_mutex_lock(&pool->mutex);
  pool->task = task;
  pool->context = context;
  pool->task_count = task_count;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  pool->generation++;
  pool->busy = pool->threads - 1;
  if (pool->busy > 0) pthread_cond_broadcast(&pool->start);
  pthread_mutex_unlock(&pool->mutex);
  work(pool, 0);
  pthread_mutex_lock(&pool->mutex);
  while (pool->busy > 0) pthread_cond_wait(&pool->done, &pool->mutex);
  pthread_mutex_unlock(&pool->mutex);
}
