/* The thread that answers what takes long and is not inference: loading and unloading networks. Its requests wait in a short
 * list of their own, with their connection suspended. */
#ifndef MANAGE_H
#define MANAGE_H

#include <stdbool.h>

struct request;
struct manage;

enum { MANAGE_CAPACITY = 16 /* requests that may wait */ };

/* NULL: no memory or no thread. */
struct manage *manage_start(void);
/* What waits is answered first. NULL is allowed. */
void manage_stop(struct manage *manage);
/* False: the list is full. True: the place is taken, and manage_push must follow. */
bool manage_reserve(struct manage *manage);
/* The thread calls request->route->answer and resumes the request, which is its own until then. */
void manage_push(struct manage *manage, struct request *request);

#endif
