/* A pool of threads that works off numbered tasks. */
#ifndef TRAIN_POOL_H
#define TRAIN_POOL_H

#include "engine/hwgq.h"

enum { POOL_MAX_THREADS = 256 };

struct pool;

/* threads: 1 to POOL_MAX_THREADS, the calling thread included. */
enum hwgq_status pool_create(int threads, struct pool **pool, struct hwgq_error *error);
void pool_destroy(struct pool *pool);
int pool_threads(const struct pool *pool);

/* Calls task(context, i, worker) once for every i in [0, task_count) and returns when all are done. Idle threads take the next
 * number, so which worker (0 to threads - 1) gets a task is not fixed: a task's result must not depend on its worker. */
void pool_run(struct pool *pool, int task_count, void (*task)(void *context, int index, int worker), void *context);

#endif
