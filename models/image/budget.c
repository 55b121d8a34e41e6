#include "models/image/budget.h"

#include <time.h>

/* On the stack of the thread that waits. */
struct image_budget_waiter {
  uint64_t bytes;
  bool served;
  struct image_budget_waiter *next;
};

enum hwgq_status image_budget_init(struct image_budget *budget, uint64_t total, struct hwgq_error *error) {
  pthread_condattr_t attributes;
  *budget = (struct image_budget){0};
  if (pthread_condattr_init(&attributes)) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the decoding budget");
  int failed = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) || pthread_cond_init(&budget->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  if (failed) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the decoding budget");
  pthread_mutex_init(&budget->lock, NULL);
  budget->total = total;
  return HWGQ_OK;
}

void image_budget_destroy(struct image_budget *budget) {
  pthread_mutex_destroy(&budget->lock);
  pthread_cond_destroy(&budget->changed);
}

static bool fits(const struct image_budget *budget, uint64_t bytes) {
  return bytes <= budget->total - budget->taken;
}

/* Serves the waiters in front as long as they fit. */
static void serve(struct image_budget *budget) {
  bool any = false;
  while (budget->first && fits(budget, budget->first->bytes)) {
    budget->taken += budget->first->bytes;
    budget->first->served = any = true;
    budget->first = budget->first->next;
  }
  if (!budget->first) budget->last = NULL;
  if (any) pthread_cond_broadcast(&budget->changed);
}

static void leave(struct image_budget *budget, struct image_budget_waiter *waiter) {
  struct image_budget_waiter **link = &budget->first, *before = NULL;
  while (*link != waiter) {
    before = *link;
    link = &before->next;
  }
  *link = waiter->next;
  if (budget->last == waiter) budget->last = before;
  serve(budget); /* it may have been the one that did not fit */
}

/* Whether it is one of the first, which wait in any case. */
static bool is_patient(const struct image_budget *budget, const struct image_budget_waiter *waiter) {
  const struct image_budget_waiter *first = budget->first;
  for (int i = 0; i < budget->patient; i++, first = first->next) {
    if (first == waiter) return true;
  }
  return false;
}

bool image_budget_take(struct image_budget *budget, uint64_t bytes, uint64_t deadline_ns) {
  return image_budget_take_unless(budget, bytes, deadline_ns, NULL, NULL);
}

bool image_budget_take_unless(struct image_budget *budget, uint64_t bytes, uint64_t deadline_ns, bool (*needed)(void *context),
                              void *context) {
  const struct timespec until = {(time_t)(deadline_ns / 1000000000u), (long)(deadline_ns % 1000000000u)};
  struct image_budget_waiter waiter = {.bytes = bytes};
  int failed = 0;
  if (bytes > budget->total) return false;
  pthread_mutex_lock(&budget->lock);
  if (budget->last) {
    budget->last->next = &waiter;
  } else {
    budget->first = &waiter;
  }
  budget->last = &waiter;
  if (budget->first == &waiter) serve(budget);
  atomic_fetch_add(&budget->waiting, 1);
  while (!waiter.served && !failed) {
    if (needed && !is_patient(budget, &waiter) && needed(context)) break;
    failed = deadline_ns ? pthread_cond_timedwait(&budget->changed, &budget->lock, &until)
                         : pthread_cond_wait(&budget->changed, &budget->lock);
  }
  atomic_fetch_sub(&budget->waiting, 1);
  if (!waiter.served) leave(budget, &waiter);
  pthread_mutex_unlock(&budget->lock);
  return waiter.served;
}

void image_budget_look(struct image_budget *budget) {
  if (atomic_load(&budget->waiting) <= budget->patient) return;
  pthread_mutex_lock(&budget->lock);
  pthread_cond_broadcast(&budget->changed);
  pthread_mutex_unlock(&budget->lock);
}

void image_budget_give(struct image_budget *budget, uint64_t bytes) {
  pthread_mutex_lock(&budget->lock);
  budget->taken -= bytes;
  serve(budget);
  pthread_mutex_unlock(&budget->lock);
}
