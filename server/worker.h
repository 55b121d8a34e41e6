/* The threads that decode images and run networks. */
#ifndef WORKER_H
#define WORKER_H

#include "server/server.h"

struct worker_pool;

/* Starts server->workers threads that serve server->queue. */
enum hwgq_status worker_pool_start(struct server *server, struct worker_pool **pool, struct hwgq_error *error);
/* Closes the queue, waits until it is empty and the threads have ended, and frees the pool. NULL is allowed. */
void worker_pool_stop(struct worker_pool *pool);

#endif
