/* A bounded queue of requests that wait for a worker, and where workers wait for them, shared fairly: clients take turns, and
 * within a client the networks it asks for take turns, so that neither a client nor a network with many requests makes the
 * others wait behind all of them. A turn is an amount of work, about the geometric mean of what waits, which a few large
 * requests hardly move (deficit round robin: M. Shreedhar and G. Varghese, 1995): who asks for more at once waits for as many
 * turns as that is worth, also when nothing else of his waits meanwhile, as long as others wait. Within one client and network
 * the order is that of arrival. Every operation takes constant time on average, except that queue_expire looks at what comes
 * due.
 *
 * A place is reserved first and filled later: the connection is suspended in between, which must not happen for a request that
 * the queue then refuses. */
#ifndef QUEUE_H
#define QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  QUEUE_SHARE = 4, /* a client may have this many times as many places as are free, so one alone gets at most 4/5 of all */
  QUEUE_SLOTS = 256,
  QUEUE_MOST_TURNS = 256, /* that one can owe */
};

struct queue_client;
struct queue_line;

/* Part of whatever waits. */
struct queue_item {
  struct queue_item *next;
  uint64_t pushed;        /* clock_now() */
  uint64_t deadline;      /* clock_now() after which nobody waits for it any more */
  uint64_t client, model; /* who asks and for which network, as numbers: set before queue_reserve */
  uint64_t cost;          /* nanoseconds of work that it is expected to be: likewise; 0 counts as 1 */
  /* the queue's own */
  struct queue_item *previous, *later, *earlier; /* in its line; among those that come due in the same slot */
  uint64_t slot;                                 /* number of that slot */
  struct queue_client *owner;
  struct queue_line *line;
};

/* A circle of clients, or of the lines of one client: whose turn it is. */
struct queue_link {
  struct queue_link *next, *previous; /* NULL: not in it */
  size_t waiting;                     /* items; 0: only here to pay */
  int64_t credit;                     /* nanoseconds of its turn that are left; below zero: it owes them */
};
struct queue_ring {
  struct queue_link *turn; /* NULL: empty */
};

struct queue {
  pthread_mutex_t mutex;
  pthread_cond_t filled;
  size_t capacity, reserved; /* depth + reserved <= capacity */
  _Atomic size_t depth;      /* these two change under the mutex, and may be read without it */
  atomic_int idle;           /* threads that sleep in queue_wait and that queue_call has not called */
  int called;                /* those that it has, until they notice */
  bool closed;
  int64_t quantum;                    /* nanoseconds of a turn: 2^(magnitudes / depth), as it was last with anything waiting */
  size_t magnitudes;                  /* sum of floor(log2(cost)) of what waits */
  size_t clients_waiting;             /* that have waiting items */
  size_t debtors;                     /* clients in the ring without waiting items, at most `capacity` */
  struct queue_ring ring;             /* clients that have waiting items, and debtors while anything waits */
  struct queue_client *clients;       /* [2 * capacity + 1], those in use are found by `client_table` */
  struct queue_line *lines;           /* [capacity], those in use are found by `line_table` */
  struct queue_client **client_table; /* [table_mask + 1] heads of chains */
  struct queue_line **line_table;
  size_t table_mask, clients_made, lines_made;
  struct queue_client *free_clients;
  struct queue_line *free_lines;
  struct queue_item *due[QUEUE_SLOTS]; /* items by the time slot of their deadline */
  uint64_t swept;                      /* number of the slot that queue_expire has come to */
  /* How quickly the queue drains: mean time between two pops while something waited all along, over the last 16 or so. */
  uint64_t last_pop, interval;
  bool waited; /* something was left at the last pop, and has been there since */
};

enum queue_event { QUEUE_ITEM, QUEUE_CALL, QUEUE_CLOSED };

bool queue_init(struct queue *queue, size_t capacity);
void queue_destroy(struct queue *queue);
/* Whether queue_reserve would do for this client now, or nearly so: for refusing early. */
bool queue_has_room(struct queue *queue, uint64_t client);
/* False when the queue is closed or full, or when the item's client has its share of it. A reservation must be followed by
 * queue_push. */
bool queue_reserve(struct queue *queue, struct queue_item *item);
void queue_push(struct queue *queue, struct queue_item *item, uint64_t now, uint64_t deadline);
/* Waits for an item, which comes first, a call, or the end of a queue that is closed and empty. The thread counts as idle, and
 * can be called, from `idle_at` (clock_now()) on. `other_work`, when not NULL, is then asked before the thread sleeps; if it
 * says true, that is a call. */
enum queue_event queue_wait(struct queue *queue, uint64_t idle_at, bool (*other_work)(void *context), void *context,
                            struct queue_item **item);
/* Calls one thread that sleeps in queue_wait. Returns false, at next to no cost, when there is none. */
bool queue_call(struct queue *queue);
/* Whether anything of other clients waits. */
bool queue_others_wait(struct queue *queue, uint64_t client);
/* When an item that was taken has turned out to be `more` nanoseconds of work above its cost. */
void queue_charge(struct queue *queue, const struct queue_item *item, uint64_t more);
/* Takes the items out whose deadline has passed, as a list. */
struct queue_item *queue_expire(struct queue *queue, uint64_t now);
void queue_close(struct queue *queue);
size_t queue_depth(struct queue *queue);
/* Nanoseconds until what waits now has been taken by workers, as measured so far; 0 when there is no measurement yet. */
uint64_t queue_drain_time(struct queue *queue, uint64_t now);

#endif
