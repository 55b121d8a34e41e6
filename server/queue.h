/* A bounded first-in-first-out queue of requests that wait for a worker, and where workers wait for them. A place is reserved
 * first and filled later: the connection is suspended in between, which must not happen for a request that the queue then
 * refuses. */
#ifndef QUEUE_H
#define QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Part of whatever waits. */
struct queue_item {
  struct queue_item *next;
  uint64_t pushed;   /* clock_now() */
  uint64_t deadline; /* clock_now() after which nobody waits for it any more */
};

struct queue {
  pthread_mutex_t mutex;
  pthread_cond_t filled;
  struct queue_item *head, *tail;
  size_t capacity, reserved; /* depth + reserved <= capacity */
  _Atomic size_t depth;      /* these two change under the mutex, and may be read without it */
  atomic_int idle;           /* threads that sleep in queue_wait and that queue_call has not called */
  int called;                /* those that it has, until they notice */
  bool closed;
};

enum queue_event { QUEUE_ITEM, QUEUE_CALL, QUEUE_CLOSED };

bool queue_init(struct queue *queue, size_t capacity);
void queue_destroy(struct queue *queue);
/* False when the queue is full or closed. A reservation must be followed by queue_push. */
bool queue_reserve(struct queue *queue);
void queue_push(struct queue *queue, struct queue_item *item, uint64_t now, uint64_t deadline);
/* Waits for an item, which comes first, a call, or the end of a queue that is closed and empty. The thread counts as idle, and
 * can be called, from `idle_at` (clock_now()) on. `other_work`, when not NULL, is then asked before the thread sleeps; if it
 * says true, that is a call. */
enum queue_event queue_wait(struct queue *queue, uint64_t idle_at, bool (*other_work)(void *context), void *context,
                            struct queue_item **item);
/* Calls one thread that sleeps in queue_wait. Costs next to nothing when there is none. */
void queue_call(struct queue *queue);
/* Takes the items off the front whose deadline has passed, as a list. All items have the same patience, so the front is the
 * one that expires first. */
struct queue_item *queue_expire(struct queue *queue, uint64_t now);
void queue_close(struct queue *queue);
size_t queue_depth(struct queue *queue);

#endif
