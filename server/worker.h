/* The threads that decode images and run networks. One that has no request helps another with its image, until a request comes
 * or the image is done. */
#ifndef WORKER_H
#define WORKER_H

#include "server/server.h"

struct worker_pool;

/* Threads that may help with one image, at most, in a pool of so many. */
int worker_helpers(const struct config *config, int workers);

/* Starts server->workers threads that serve server->queue. */
enum hwgq_status worker_pool_start(struct server *server, struct worker_pool **pool, struct hwgq_error *error);
/* Closes the queue, waits until it is empty and the threads have ended, and frees the pool. NULL is allowed. */
void worker_pool_stop(struct worker_pool *pool);

#endif
