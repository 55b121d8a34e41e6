#include "server/queue.h"

bool queue_init(struct queue *queue, size_t capacity) {
  *queue = (struct queue){.capacity = capacity};
  if (pthread_mutex_init(&queue->mutex, NULL)) return false;
  if (pthread_cond_init(&queue->filled, NULL)) {
    pthread_mutex_destroy(&queue->mutex);
    return false;
  }
  return true;
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

struct queue_item *queue_pop(struct queue *queue) {
  struct queue_item *item = NULL;
  pthread_mutex_lock(&queue->mutex);
  while (!queue->head && !queue->closed) pthread_cond_wait(&queue->filled, &queue->mutex);
  if (queue->head) item = take(queue);
  pthread_mutex_unlock(&queue->mutex);
  return item;
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
  pthread_mutex_lock(&queue->mutex);
  size_t depth = queue->depth;
  pthread_mutex_unlock(&queue->mutex);
  return depth;
}
