/* Memory that concurrent decodes share. Whoever needs a part that is not free waits, first come first served, so that a large
 * picture gets its turn between many smaller ones; or gives up when its thread is needed for something else. */
#ifndef IMAGE_BUDGET_H
#define IMAGE_BUDGET_H

#include "engine/hwgq.h"

#include <pthread.h>
#include <stdatomic.h>

struct image_budget_waiter;

struct image_budget {
  pthread_mutex_t lock;
  pthread_cond_t changed; /* CLOCK_MONOTONIC */
  uint64_t total, taken;  /* bytes */
  int patient;            /* so many, the first ones, wait whatever their threads are needed for; set before threads start */
  atomic_int waiting;
  struct image_budget_waiter *first, *last;
};

enum hwgq_status image_budget_init(struct image_budget *budget, uint64_t total, struct hwgq_error *error);
/* When nobody waits or holds a part any more. */
void image_budget_destroy(struct image_budget *budget);
/* Takes `bytes`, at most the total, waiting until deadline_ns (CLOCK_MONOTONIC; 0: as long as it takes). False: not in time. */
bool image_budget_take(struct image_budget *budget, uint64_t bytes, uint64_t deadline_ns);
/* As above, but false also as soon as needed(context) says that the thread is needed elsewhere; NULL: it never is. `needed` is
 * called with the lock held. */
bool image_budget_take_unless(struct image_budget *budget, uint64_t bytes, uint64_t deadline_ns, bool (*needed)(void *context),
                              void *context);
/* `needed` may be true for somebody from now on. Costs next to nothing while nobody waits. */
void image_budget_look(struct image_budget *budget);
void image_budget_give(struct image_budget *budget, uint64_t bytes);

#endif
