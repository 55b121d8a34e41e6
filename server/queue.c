#include "server/queue.h"

#include "server/clock.h"

#include <stdlib.h>
#include <time.h>

enum { SLOT_SHIFT = 24, SMOOTHING = 16 }; /* a slot is 2^24 ns, 17 ms: QUEUE_SLOTS of them go round in 4.3 s */

/* Requests of one client for one network, oldest first. */
struct queue_line {
  struct queue_link link; /* first: in the ring of its client */
  struct queue_line *chain;
  struct queue_client *owner;
  uint64_t model;
  struct queue_item *head, *tail;
};

struct queue_client {
  struct queue_link link; /* first: in the ring of the queue */
  struct queue_client *chain;
  uint64_t client;
  size_t places;          /* reserved and waiting */
  struct queue_ring ring; /* its lines, none of them empty */
};

static int64_t cost_of(const struct queue_item *item) {
  const uint64_t most = 1000 * CLOCK_SECOND;
  return item->cost == 0 ? 1 : (int64_t)(item->cost < most ? item->cost : most);
}

static size_t magnitude(const struct queue_item *item) {
  return 63 - (size_t)__builtin_clzll((unsigned long long)cost_of(item));
}

/* After queue->depth and queue->magnitudes have changed. */
static void set_quantum(struct queue *queue) {
  if (queue->depth) queue->quantum = (int64_t)1 << (queue->magnitudes / queue->depth);
}

/* A turn adds to what is left of the one before only where that was too little. */
static void pass_turn(const struct queue *queue, struct queue_ring *ring) {
  struct queue_link *link = ring->turn->next;
  ring->turn = link;
  const int64_t most = QUEUE_MOST_TURNS * queue->quantum; /* the debt may be from when turns were longer */
  if (link->credit < -most) link->credit = -most;
  link->credit += queue->quantum;
  if (link->credit > queue->quantum) link->credit = queue->quantum;
}

/* Behind all others: just before the one whose turn it is. */
static void ring_add(struct queue_ring *ring, struct queue_link *link) {
  if (!ring->turn) {
    ring->turn = link->next = link->previous = link;
    return;
  }
  link->next = ring->turn;
  link->previous = ring->turn->previous;
  link->previous->next = link;
  link->next->previous = link;
}

static void ring_remove(const struct queue *queue, struct queue_ring *ring, struct queue_link *link) {
  if (link->next == link) {
    ring->turn = NULL;
  } else {
    if (ring->turn == link) pass_turn(queue, ring);
    link->previous->next = link->next;
    link->next->previous = link->previous;
  }
  link->next = link->previous = NULL;
}

static size_t hash(const struct queue *queue, uint64_t client, uint64_t model) {
  uint64_t x = (client ^ (model * UINT64_C(0x9e3779b97f4a7c15))) * UINT64_C(0xbf58476d1ce4e5b9);
  return (size_t)(x ^ (x >> 31)) & queue->table_mask;
}

/* Waits on it are until a clock_now(). */
static bool condition_init(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  if (pthread_condattr_init(&attributes)) return false;
  bool made = !pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) && !pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
  return made;
}

bool queue_init(struct queue *queue, size_t capacity) {
  size_t table = 16;
  *queue = (struct queue){.capacity = capacity, .quantum = 1};
  while (table < capacity) table *= 2;
  queue->table_mask = table - 1;
  queue->clients = calloc(2 * capacity + 1, sizeof *queue->clients);
  queue->lines = calloc(capacity, sizeof *queue->lines);
  queue->client_table = calloc(table, sizeof(struct queue_client *));
  queue->line_table = calloc(table, sizeof(struct queue_line *));
  bool good = queue->clients && queue->lines && queue->client_table && queue->line_table;
  if (good && pthread_mutex_init(&queue->mutex, NULL) == 0) {
    if (condition_init(&queue->filled)) return true;
    pthread_mutex_destroy(&queue->mutex);
  }
  free(queue->clients);
  free(queue->lines);
  free(queue->client_table);
  free(queue->line_table);
  *queue = (struct queue){0};
  return false;
}

void queue_destroy(struct queue *queue) {
  pthread_cond_destroy(&queue->filled);
  pthread_mutex_destroy(&queue->mutex);
  free(queue->clients);
  free(queue->lines);
  free(queue->client_table);
  free(queue->line_table);
}

/* The client, or a new one: there are never more than places and debtors, and one. */
static struct queue_client *client_of(struct queue *queue, uint64_t number) {
  struct queue_client **chain = &queue->client_table[hash(queue, number, 0)], *client = *chain;
  while (client && client->client != number) client = client->chain;
  if (client) return client;
  client = queue->free_clients;
  if (client) {
    queue->free_clients = client->chain;
  } else {
    client = &queue->clients[queue->clients_made++];
  }
  *client = (struct queue_client){.client = number, .chain = *chain, .link.credit = queue->quantum};
  *chain = client;
  return client;
}

static const struct queue_client *find_client(const struct queue *queue, uint64_t number) {
  const struct queue_client *client = queue->client_table[hash(queue, number, 0)];
  while (client && client->client != number) client = client->chain;
  return client;
}

static size_t places_of(const struct queue *queue, uint64_t number) {
  const struct queue_client *client = find_client(queue, number);
  return client ? client->places : 0;
}

static void drop_client(struct queue *queue, struct queue_client *client) {
  struct queue_client **chain = &queue->client_table[hash(queue, client->client, 0)];
  while (*chain != client) chain = &(*chain)->chain;
  *chain = client->chain;
  client->chain = queue->free_clients;
  queue->free_clients = client;
}

/* A client without waiting items: it stays in the ring when it owes something, as long as anybody waits for that. */
static void settle(struct queue *queue, struct queue_client *client, bool was_debtor) {
  bool debtor = client->link.credit < 0 && queue->depth && (was_debtor || queue->debtors < queue->capacity);
  if (was_debtor && !debtor) queue->debtors--;
  if (!was_debtor && debtor) queue->debtors++;
  if (debtor && !client->link.next) ring_add(&queue->ring, &client->link);
  if (!debtor && client->link.next) ring_remove(queue, &queue->ring, &client->link);
  if (!queue->depth) client->link.credit = queue->quantum;
  if (!debtor && !client->places) drop_client(queue, client);
}

static struct queue_line *line_of(struct queue *queue, struct queue_client *client, uint64_t model) {
  struct queue_line **chain = &queue->line_table[hash(queue, client->client, model)], *line = *chain;
  while (line && (line->owner != client || line->model != model)) line = line->chain;
  if (line) return line;
  line = queue->free_lines;
  if (line) {
    queue->free_lines = line->chain;
  } else {
    line = &queue->lines[queue->lines_made++];
  }
  *line = (struct queue_line){.owner = client, .model = model, .chain = *chain, .link.credit = queue->quantum};
  *chain = line;
  ring_add(&client->ring, &line->link);
  return line;
}

static void drop_line(struct queue *queue, struct queue_line *line) {
  struct queue_line **chain = &queue->line_table[hash(queue, line->owner->client, line->model)];
  ring_remove(queue, &line->owner->ring, &line->link);
  while (*chain != line) chain = &(*chain)->chain;
  *chain = line->chain;
  line->chain = queue->free_lines;
  queue->free_lines = line;
}

bool queue_has_room(struct queue *queue, uint64_t client) {
  pthread_mutex_lock(&queue->mutex);
  size_t taken = queue->depth + queue->reserved;
  bool room = !queue->closed && taken < queue->capacity && places_of(queue, client) < QUEUE_SHARE * (queue->capacity - taken);
  pthread_mutex_unlock(&queue->mutex);
  return room;
}

bool queue_reserve(struct queue *queue, struct queue_item *item) {
  pthread_mutex_lock(&queue->mutex);
  size_t taken = queue->depth + queue->reserved;
  bool room = !queue->closed && taken < queue->capacity;
  if (room) {
    struct queue_client *client = client_of(queue, item->client);
    room = client->places < QUEUE_SHARE * (queue->capacity - taken);
    if (room) {
      client->places++;
      queue->reserved++;
      item->owner = client;
    }
  }
  pthread_mutex_unlock(&queue->mutex);
  return room;
}

static struct queue_item **slot_of(struct queue *queue, const struct queue_item *item) {
  return &queue->due[item->slot % QUEUE_SLOTS];
}

void queue_push(struct queue *queue, struct queue_item *item, uint64_t now, uint64_t deadline) {
  struct queue_client *client = item->owner;
  item->pushed = now;
  item->deadline = deadline;
  pthread_mutex_lock(&queue->mutex);
  struct queue_line *line = line_of(queue, client, item->model);
  item->line = line;
  item->next = NULL;
  item->previous = line->tail;
  if (line->tail) {
    line->tail->next = item;
  } else {
    line->head = item;
  }
  line->tail = item;
  item->slot = deadline >> SLOT_SHIFT;
  if (item->slot < queue->swept) item->slot = queue->swept; /* due already: queue_expire comes there next */
  struct queue_item **slot = slot_of(queue, item);
  item->earlier = NULL;
  item->later = *slot;
  if (*slot) (*slot)->earlier = item;
  *slot = item;
  line->link.waiting++;
  if (client->link.waiting++ == 0) {
    queue->clients_waiting++;
    if (client->link.next) queue->debtors--;
    if (!client->link.next) ring_add(&queue->ring, &client->link);
  }
  queue->reserved--;
  queue->depth++;
  queue->magnitudes += magnitude(item);
  set_quantum(queue);
  pthread_mutex_unlock(&queue->mutex);
  pthread_cond_signal(&queue->filled); /* now: whoever wakes needs the mutex */
}

/* Takes one item out, wherever it stands. The mutex is held. */
static void take(struct queue *queue, struct queue_item *item) {
  struct queue_line *line = item->line;
  struct queue_client *client = item->owner;
  *(item->previous ? &item->previous->next : &line->head) = item->next;
  *(item->next ? &item->next->previous : &line->tail) = item->previous;
  *(item->earlier ? &item->earlier->later : slot_of(queue, item)) = item->later;
  if (item->later) item->later->earlier = item->earlier;
  item->next = NULL;
  queue->depth--;
  queue->magnitudes -= magnitude(item);
  set_quantum(queue);
  client->places--;
  if (--line->link.waiting == 0) drop_line(queue, line);
  if (--client->link.waiting == 0) {
    queue->clients_waiting--;
    settle(queue, client, false);
  }
  if (queue->depth) return;
  queue->waited = false;
  while (queue->ring.turn) settle(queue, (struct queue_client *)queue->ring.turn, true);
}

/* Whose turn it is among those with waiting items: it goes round until it comes to one that owes nothing any more. Each debt
 * is worth QUEUE_MOST_TURNS rounds at most. */
static struct queue_link *whose_turn(struct queue *queue, struct queue_ring *ring) {
  if (ring->turn->credit > queue->quantum) ring->turn->credit = queue->quantum; /* from when turns were longer */
  while (!ring->turn->waiting || ring->turn->credit <= 0) {
    struct queue_link *link = ring->turn;
    pass_turn(queue, ring);
    /* only clients are in a ring without waiting items */
    if (!link->waiting && link->credit >= 0) settle(queue, (struct queue_client *)link, true);
  }
  return ring->turn;
}

static void charge(const struct queue *queue, struct queue_link *link, uint64_t cost) {
  const int64_t most = QUEUE_MOST_TURNS * queue->quantum;
  link->credit -= cost < (uint64_t)most ? (int64_t)cost : most;
  if (link->credit < -most) link->credit = -most;
}

/* The mutex is held and something waits. */
static struct queue_item *take_next(struct queue *queue) {
  struct queue_client *client = (struct queue_client *)whose_turn(queue, &queue->ring);
  struct queue_line *line = (struct queue_line *)whose_turn(queue, &client->ring);
  struct queue_item *item = line->head;
  const uint64_t cost = (uint64_t)cost_of(item), now = clock_now();
  charge(queue, &client->link, cost);
  charge(queue, &line->link, cost);
  if (queue->waited) {
    uint64_t passed = now - queue->last_pop;
    queue->interval = queue->interval ? queue->interval - queue->interval / SMOOTHING + passed / SMOOTHING : passed;
  }
  queue->waited = true;
  queue->last_pop = now;
  take(queue, item);
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
  while (!queue->depth && !queue->closed && pthread_cond_timedwait(&queue->filled, &queue->mutex, &time) == 0) continue;
}

enum queue_event queue_wait(struct queue *queue, uint64_t idle_at, bool (*other_work)(void *context), void *context,
                            struct queue_item **item) {
  enum queue_event event = QUEUE_CALL;
  pthread_mutex_lock(&queue->mutex);
  if (idle_at) wait_until(queue, idle_at);
  while (!queue->depth && !queue->closed) {
    atomic_fetch_add(&queue->idle, 1);
    if (other_work && other_work(context)) {
      leave_sleep(queue);
      break;
    }
    pthread_cond_wait(&queue->filled, &queue->mutex);
    if (!queue->depth && queue->called > 0) {
      queue->called--;
      break;
    }
    leave_sleep(queue);
  }
  if (queue->depth) {
    *item = take_next(queue);
    event = QUEUE_ITEM;
  } else if (queue->closed) {
    event = QUEUE_CLOSED;
  }
  pthread_mutex_unlock(&queue->mutex);
  return event;
}

bool queue_call(struct queue *queue) {
  if (atomic_load(&queue->idle) == 0) return false;
  pthread_mutex_lock(&queue->mutex);
  bool sleeper = atomic_load(&queue->idle) > 0;
  if (sleeper) {
    atomic_fetch_sub(&queue->idle, 1);
    queue->called++;
  }
  pthread_mutex_unlock(&queue->mutex);
  if (sleeper) pthread_cond_broadcast(&queue->filled); /* one that only waits a while (wait_until) does not take the call */
  return sleeper;
}

bool queue_others_wait(struct queue *queue, uint64_t client) {
  if (queue_depth(queue) == 0) return false;
  pthread_mutex_lock(&queue->mutex);
  const struct queue_client *own = find_client(queue, client);
  bool others = queue->clients_waiting > (own && own->link.waiting ? 1 : 0);
  pthread_mutex_unlock(&queue->mutex);
  return others;
}

void queue_charge(struct queue *queue, const struct queue_item *item, uint64_t more) {
  pthread_mutex_lock(&queue->mutex);
  if (queue->depth) {
    struct queue_client *client = client_of(queue, item->client);
    bool was_debtor = client->link.next && !client->link.waiting;
    charge(queue, &client->link, more);
    if (!client->link.waiting) settle(queue, client, was_debtor);
  }
  pthread_mutex_unlock(&queue->mutex);
}

struct queue_item *queue_expire(struct queue *queue, uint64_t now) {
  struct queue_item *first = NULL, **end = &first;
  uint64_t current = now >> SLOT_SHIFT;
  pthread_mutex_lock(&queue->mutex);
  if (current > queue->swept && current - queue->swept >= QUEUE_SLOTS) queue->swept = current - QUEUE_SLOTS + 1;
  for (; queue->swept <= current; queue->swept++) {
    struct queue_item *item = queue->due[queue->swept % QUEUE_SLOTS];
    while (item) {
      struct queue_item *later = item->later;
      if (item->deadline <= now) {
        take(queue, item);
        *end = item;
        end = &item->next;
      }
      item = later;
    }
    if (queue->swept == current) break; /* more of this slot may come due */
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

uint64_t queue_drain_time(struct queue *queue, uint64_t now) {
  pthread_mutex_lock(&queue->mutex);
  uint64_t interval = queue->interval, since = now > queue->last_pop ? now - queue->last_pop : 0;
  /* Workers that are slower now than they were show by how long nobody has come. */
  if (queue->waited && since > interval) interval = since;
  uint64_t wait = interval * queue->depth;
  pthread_mutex_unlock(&queue->mutex);
  return wait;
}
