#include "server/queue.h"

#include "server/clock.h"

#include <time.h>

bool queue_init(struct queue *queue, size_t capacity) {
  pthread_condattr_t attributes;
  *queue = (struct queue){.capacity = capacity};
  if (pthread_condattr_init(&attributes)) return false;
  bool made = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) && !pthread_cond_init(&queue->filled, &attributes);
  pthread_condattr_destroy(&attributes);
  if (made && pthread_mutex_init(&queue->mutex, NULL)) {
    pthread_cond_destroy(&queue->filled);
    made = false;
  }
  return made;
}

void queue_destroy(struct queue *queue) {
  pthread_cond_destroy(&queue->filled);
  pthread_mutex_destroy(&queue->mutex);
}

bool queue_reserve(struct queue *queue) {
  pthread_mutex_lock(&queue->mutex);
  bool room = !queue->closed && queue->depth + queue->reserved < queue->capacity;
  if (room) queue->reserved++;
  pthread_mutex_unlock(&queue->mutex);
  return room;
}

void queue_push(struct queue *queue, struct queue_item *item, uint64_t now, uint64_t deadline) {
  item->next = NULL;
  item->pushed = now;
  item->deadline = deadline;
  pthread_mutex_lock(&queue->mutex);
  queue->reserved--;
  queue->depth++;
  if (queue->tail) {
    queue->tail->next = item;
  } else {
    queue->head = item;
  }
  queue->tail = item;
  pthread_cond_signal(&queue->filled);
  pthread_mutex_unlock(&queue->mutex);
}

/* The mutex is held and the queue is not empty. */
static struct queue_item *take(struct queue *queue) {
  struct queue_item *item = queue->head;
  queue->head = item->next;
  if (!queue->head) queue->tail = NULL;
  queue->depth--;
  item->next = NULL;
  return item;
}

/* The mutex is held. `sleepers` counts those that are idle and those that were called; one that wakes for an item leaves the
 * call, when there is one for another sleeper, to that one. */
static void leave_sleep(struct queue *queue) {
  if (atomic_load(&queue->idle) > 0) {
    atomic_fetch_sub(&queue->idle, 1);
  } else {
    queue->called--;
  }
}

/* The mutex is held. */
static void wait_until(struct queue *queue, uint64_t end) {
  const struct timespec time = {.tv_sec = (time_t)(end / CLOCK_SECOND), .tv_nsec = (long)(end % CLOCK_SECOND)};
  while (!queue->head && !queue->closed && pthread_cond_timedwait(&queue->filled, &queue->mutex, &time) == 0) continue;
}

enum queue_event queue_wait(struct queue *queue, uint64_t idle_at, bool (*other_work)(void *context), void *context,
                            struct queue_item **item) {
  enum queue_event event = QUEUE_CALL;
  pthread_mutex_lock(&queue->mutex);
  if (idle_at) wait_until(queue, idle_at);
  while (!queue->head && !queue->closed) {
    atomic_fetch_add(&queue->idle, 1);
    if (other_work && other_work(context)) {
      leave_sleep(queue);
      break;
    }
    pthread_cond_wait(&queue->filled, &queue->mutex);
    if (!queue->head && queue->called > 0) {
      queue->called--;
      break;
    }
    leave_sleep(queue);
  }
  if (queue->head) {
    *item = take(queue);
    event = QUEUE_ITEM;
  } else if (queue->closed) {
    event = QUEUE_CLOSED;
  }
  pthread_mutex_unlock(&queue->mutex);
  return event;
}

void queue_call(struct queue *queue) {
  if (atomic_load(&queue->idle) == 0) return;
  pthread_mutex_lock(&queue->mutex);
  if (atomic_load(&queue->idle) > 0) {
    atomic_fetch_sub(&queue->idle, 1);
    queue->called++;
    pthread_cond_signal(&queue->filled);
  }
  pthread_mutex_unlock(&queue->mutex);
}

struct queue_item *queue_expire(struct queue *queue, uint64_t now) {
  struct queue_item *first = NULL, **end = &first;
  pthread_mutex_lock(&queue->mutex);
  while (queue->head && queue->head->deadline <= now) {
    *end = take(queue);
    end = &(*end)->next;
  }
  pthread_mutex_unlock(&queue->mutex);
  return first;
}

void queue_close(struct queue *queue) {
  pthread_mutex_lock(&queue->mutex);
  queue->closed = true;
  pthread_cond_broadcast(&queue->filled);
  pthread_mutex_unlock(&queue->mutex);
}

size_t queue_depth(struct queue *queue) {
  return atomic_load(&queue->depth);
}
