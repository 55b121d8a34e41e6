/* A bounded first-in-first-out queue of requests that wait for a worker. A place is reserved first and filled later: the
 * connection is suspended in between, which must not happen for a request that the queue then refuses. */
#ifndef QUEUE_H
#define QUEUE_H

#include <pthread.h>
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
  size_t capacity, depth, reserved; /* depth + reserved <= capacity */
  bool closed;
};

bool queue_init(struct queue *queue, size_t capacity);
void queue_destroy(struct queue *queue);
/* False when the queue is full or closed. A reservation must be followed by queue_push. */
bool queue_reserve(struct queue *queue);
void queue_push(struct queue *queue, struct queue_item *item, uint64_t now, uint64_t deadline);
/* Waits for an item; NULL once the queue is closed and empty. */
struct queue_item *queue_pop(struct queue *queue);
/* Takes the items off the front whose deadline has passed, as a list. All items have the same patience, so the front is the
 * one that expires first. */
struct queue_item *queue_expire(struct queue *queue, uint64_t now);
void queue_close(struct queue *queue);
size_t queue_depth(struct queue *queue);

#endif
