/* The queue: bounded, fair between clients and networks, deadlines, and how long it says that it takes. */
#include "server/clock.h"
#include "server/queue.h"

#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

enum { THREADS = 4 };

static struct queue_item *make_item(uint64_t client, uint64_t model) {
  struct queue_item *made = calloc(1, sizeof *made);
  ck_assert_ptr_nonnull(made);
  made->client = client;
  made->model = model;
  return made;
}

static struct queue_item *put(struct queue *queue, uint64_t client, uint64_t model) {
  struct queue_item *made = make_item(client, model);
  ck_assert(queue_reserve(queue, made));
  queue_push(queue, made, 0, UINT64_MAX);
  return made;
}

static struct queue_item *pop(struct queue *queue) {
  struct queue_item *taken;
  return queue_wait(queue, 0, NULL, NULL, &taken) == QUEUE_ITEM ? taken : NULL;
}

START_TEST(it_is_bounded_and_in_order) {
  struct queue queue;
  struct queue_item items[3] = {{0}};
  ck_assert(queue_init(&queue, 2));
  ck_assert(queue_reserve(&queue, &items[0]));
  ck_assert(queue_reserve(&queue, &items[1]));
  ck_assert(!queue_reserve(&queue, &items[2])); /* a reservation takes a place */
  queue_push(&queue, &items[0], 1, 100);
  queue_push(&queue, &items[1], 2, 101);
  ck_assert_uint_eq(queue_depth(&queue), 2);
  ck_assert(!queue_reserve(&queue, &items[2]));
  ck_assert_ptr_eq(pop(&queue), &items[0]);
  ck_assert(queue_reserve(&queue, &items[2]));
  queue_push(&queue, &items[2], 3, 102);
  ck_assert_ptr_eq(pop(&queue), &items[1]);
  ck_assert_ptr_eq(pop(&queue), &items[2]);
  queue_close(&queue);
  ck_assert(!queue_reserve(&queue, &items[0]));
  ck_assert_ptr_null(pop(&queue));
  queue_destroy(&queue);
}
END_TEST

START_TEST(room_is_told_without_taking_it) {
  struct queue queue;
  ck_assert(queue_init(&queue, 5));
  for (int i = 0; i < 4; i++) {
    ck_assert(queue_has_room(&queue, 1));
    put(&queue, 1, 0);
  }
  /* as queue_reserve: client 1 has its share, and the last place is for others */
  ck_assert(!queue_has_room(&queue, 1));
  ck_assert(queue_has_room(&queue, 2));
  ck_assert(queue_has_room(&queue, 2)); /* asking takes nothing */
  put(&queue, 2, 0);
  ck_assert(!queue_has_room(&queue, 3));
  free(pop(&queue));
  ck_assert(queue_has_room(&queue, 3));
  queue_close(&queue);
  ck_assert(!queue_has_room(&queue, 3));
  while (queue_depth(&queue)) free(pop(&queue));
  queue_destroy(&queue);
}
END_TEST

START_TEST(what_waited_too_long_leaves_it) {
  struct queue queue;
  struct queue_item items[4] = {{0}};
  /* not in the order of their deadlines, and one a whole turn of the slots later */
  const uint64_t deadlines[4] = {300, 100, CLOCK_SECOND * 100, 200};
  ck_assert(queue_init(&queue, 5));
  for (uint64_t i = 0; i < 4; i++) {
    items[i].client = i % 2;
    ck_assert(queue_reserve(&queue, &items[i]));
    queue_push(&queue, &items[i], i, deadlines[i]);
  }
  ck_assert_ptr_null(queue_expire(&queue, 99));
  struct queue_item *expired = queue_expire(&queue, 200);
  ck_assert_ptr_nonnull(expired);
  ck_assert(expired == &items[1] || expired == &items[3]);
  ck_assert(expired->next == &items[1] || expired->next == &items[3]);
  ck_assert_ptr_ne(expired, expired->next);
  ck_assert_ptr_null(expired->next->next);
  ck_assert_uint_eq(queue_depth(&queue), 2);
  for (uint64_t now = 300; now < 90 * CLOCK_SECOND; now += CLOCK_SECOND) {
    expired = queue_expire(&queue, now);
    ck_assert_ptr_eq(expired, now == 300 ? &items[0] : NULL);
  }
  ck_assert_ptr_eq(queue_expire(&queue, 101 * CLOCK_SECOND), &items[2]); /* eleven seconds late */
  ck_assert(queue_reserve(&queue, &items[0])); /* due when it comes, in a slot that has been looked at */
  queue_push(&queue, &items[0], 101 * CLOCK_SECOND, 100 * CLOCK_SECOND);
  ck_assert_ptr_eq(queue_expire(&queue, 101 * CLOCK_SECOND), &items[0]);
  ck_assert_uint_eq(queue_depth(&queue), 0);
  queue_destroy(&queue);
}
END_TEST

/* Many requests of one client, then one of another: it is served second. Within a client the networks alternate. */
START_TEST(clients_and_networks_take_turns) {
  struct queue queue;
  const uint64_t expected[][2] = {{1, 7}, {2, 7}, {3, 9}, {1, 8}, {3, 8}, {1, 7}, {1, 8}, {1, 7}, {1, 7}};
  ck_assert(queue_init(&queue, 20));
  for (int i = 0; i < 4; i++) put(&queue, 1, 7);
  for (int i = 0; i < 2; i++) put(&queue, 1, 8);
  put(&queue, 2, 7);
  put(&queue, 3, 9);
  put(&queue, 3, 8);
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    struct queue_item *taken = pop(&queue);
    ck_assert_msg(taken->client == expected[i][0] && taken->model == expected[i][1], "%zu: client %d, network %d", i,
                  (int)taken->client, (int)taken->model);
    free(taken);
  }
  ck_assert_uint_eq(queue_depth(&queue), 0);
  queue_destroy(&queue);
}
END_TEST

static void put_work(struct queue *queue, uint64_t client, uint64_t model, uint64_t cost) {
  struct queue_item *made = make_item(client, model);
  made->cost = cost;
  ck_assert(queue_reserve(queue, made));
  queue_push(queue, made, 0, UINT64_MAX);
}

/* Clients with always something waiting get the same amount of work, whatever their requests cost. */
START_TEST(turns_are_of_work) {
  enum { CLIENTS = 5, POPS = 20000, LARGEST = 64000 };
  const uint64_t costs[CLIENTS] = {64000, 1000, 20000, 1000, 7000};
  uint64_t work[CLIENTS] = {0};
  struct queue queue;
  ck_assert(queue_init(&queue, 100));
  for (uint64_t i = 0; i < CLIENTS; i++) {
    for (int k = 0; k < 3; k++) put_work(&queue, i, 0, costs[i]);
  }
  for (int i = 0; i < POPS; i++) {
    struct queue_item *taken = pop(&queue);
    work[taken->client] += taken->cost;
    put_work(&queue, taken->client, 0, costs[taken->client]);
    free(taken);
    for (int k = 1; k < CLIENTS; k++) {
      uint64_t more = work[k] > work[0] ? work[k] - work[0] : work[0] - work[k];
      ck_assert_msg(more <= 4 * LARGEST, "after %d: %d has %llu, 0 has %llu", i, k, (unsigned long long)work[k],
                    (unsigned long long)work[0]);
    }
  }
  ck_assert_uint_gt(work[0], 100 * LARGEST);
  queue_close(&queue);
  for (struct queue_item *rest; (rest = pop(&queue));) free(rest);
  queue_destroy(&queue);
}
END_TEST

/* So do the networks that one client asks for. */
START_TEST(networks_share_the_work_of_a_client) {
  uint64_t work[2] = {0};
  struct queue queue;
  ck_assert(queue_init(&queue, 100));
  for (int i = 0; i < 5; i++) {
    put_work(&queue, 1, 0, 30000);
    put_work(&queue, 1, 1, 1000);
  }
  for (int i = 0; i < 5000; i++) {
    struct queue_item *taken = pop(&queue);
    work[taken->model] += taken->cost;
    put_work(&queue, 1, taken->model, taken->cost);
    free(taken);
    ck_assert_uint_le(work[0] > work[1] ? work[0] - work[1] : work[1] - work[0], 120000);
  }
  queue_close(&queue);
  for (struct queue_item *rest; (rest = pop(&queue));) free(rest);
  queue_destroy(&queue);
}
END_TEST

/* One large request at a time, and nothing waiting while it runs, pays as well; what turned out larger does, too. Nobody owes
 * anything once nobody waits. */
START_TEST(who_had_much_waits) {
  struct queue queue;
  for (int late = 0; late < 2; late++) {
    uint64_t work[2] = {0}, cost = late ? 1000 : 20000;
    ck_assert(queue_init(&queue, 100));
    put_work(&queue, 0, 0, cost);
    for (int i = 0; i < 5; i++) put_work(&queue, 1, 0, 1000);
    for (int i = 0; i < 5000; i++) {
      struct queue_item *taken = pop(&queue);
      uint64_t client = taken->client;
      if (client == 0 && late) queue_charge(&queue, taken, 19000);
      work[client] += client ? 1000 : 20000;
      free(taken);
      put_work(&queue, client, 0, client ? 1000 : cost); /* the next one comes when this one has been served */
      ck_assert_uint_le(work[0] > work[1] ? work[0] - work[1] : work[1] - work[0], 80000);
    }
    queue_close(&queue);
    for (struct queue_item *rest; (rest = pop(&queue));) free(rest);
    ck_assert_uint_eq(queue.debtors, 0);
    ck_assert_ptr_null(queue.ring.turn);
    queue_destroy(&queue);
  }
  ck_assert(queue_init(&queue, 100));
  put_work(&queue, 1, 0, 1000);
  put_work(&queue, 0, 0, 60000);
  put_work(&queue, 1, 0, 1000);
  free(pop(&queue));
  free(pop(&queue));
  ck_assert_uint_eq(queue.debtors, 1); /* the last one waits, and goes before whatever the debtor sends */
  put_work(&queue, 0, 0, 1000);
  struct queue_item *last = pop(&queue);
  ck_assert_uint_eq(last->client, 1);
  free(last);
  free(pop(&queue));
  ck_assert_uint_eq(queue.debtors, 0);
  ck_assert_ptr_null(queue.ring.turn);
  queue_destroy(&queue);
}
END_TEST

/* What was owed in long turns is at most QUEUE_MOST_TURNS short ones: going round would take as many steps otherwise. */
START_TEST(debts_shrink_with_the_turns) {
  enum { CLIENTS = 50 };
  struct queue queue;
  ck_assert(queue_init(&queue, 4 * CLIENTS));
  for (uint64_t client = 0; client < CLIENTS; client++) put_work(&queue, client, 0, UINT64_C(1) << 40);
  put_work(&queue, CLIENTS, 0, UINT64_C(1) << 40);
  for (int i = 0; i < CLIENTS; i++) {
    struct queue_item *taken = pop(&queue);
    queue_charge(&queue, taken, UINT64_C(1) << 40);
    free(taken);
  }
  for (uint64_t client = 0; client < CLIENTS; client++) {
    for (int i = 0; i < 2; i++) put_work(&queue, client, 0, 16);
  }
  for (int i = 0; i < 2 * CLIENTS; i++) free(pop(&queue));
  const struct queue_link *link = queue.ring.turn;
  do {
    ck_assert_int_ge(link->credit, -2 * QUEUE_MOST_TURNS * queue.quantum);
    link = link->next;
  } while (link != queue.ring.turn);
  free(pop(&queue));
  queue_destroy(&queue);
}
END_TEST

START_TEST(one_client_cannot_take_all_places) {
  struct queue queue;
  struct queue_item *refused = make_item(1, 0), *other = make_item(2, 0);
  size_t taken = 0;
  ck_assert(queue_init(&queue, 100));
  while (queue_reserve(&queue, refused)) {
    queue_push(&queue, refused, 0, UINT64_MAX);
    refused = make_item(1, 0);
    taken++;
  }
  ck_assert_uint_eq(taken, 80);
  ck_assert(queue_reserve(&queue, other));
  queue_push(&queue, other, 0, UINT64_MAX);
  ck_assert(!queue_reserve(&queue, refused));
  for (size_t i = 0; i <= taken; i++) free(pop(&queue));
  ck_assert(queue_reserve(&queue, refused)); /* all places are free again */
  queue_push(&queue, refused, 0, UINT64_MAX);
  free(pop(&queue));
  queue_destroy(&queue);
}
END_TEST

/* Random pushes, pops and expirations of many clients against a count of each; every order of removal is met. */
START_TEST(nothing_gets_lost_or_mixed_up) {
  enum { CAPACITY = 50, STEPS = 200000, CLIENTS = 7, MODELS = 3 };
  struct queue queue;
  size_t waiting[CLIENTS] = {0}, all = 0, refused = 0;
  uint64_t now = 1;
  ck_assert(queue_init(&queue, CAPACITY));
  srand(5);
  for (int step = 0; step < STEPS; step++) {
    int what = rand() % 20;
    now += (uint64_t)(rand() % 1000) * 1000;
    if (what < 11) {
      struct queue_item *made = make_item((uint64_t)(rand() % CLIENTS), (uint64_t)(rand() % MODELS));
      made->cost = rand() % 50 ? (uint64_t)(rand() % 1000) * 1000 : UINT64_MAX >> rand() % 64;
      bool room = queue_reserve(&queue, made);
      ck_assert_int_eq(room, waiting[made->client] < QUEUE_SHARE * (CAPACITY - all));
      if (room) {
        waiting[made->client]++;
        all++;
        queue_push(&queue, made, now, now + (uint64_t)(rand() % 100000) * 1000);
      } else {
        refused++;
        free(made);
      }
    } else if (what < 19 && all) {
      struct queue_item *taken = pop(&queue);
      ck_assert_ptr_null(taken->next);
      waiting[taken->client]--;
      all--;
      if (rand() % 4 == 0) queue_charge(&queue, taken, (uint64_t)(rand() % 5000) * 1000);
      free(taken);
    } else {
      struct queue_item *expired = queue_expire(&queue, now);
      while (expired) {
        struct queue_item *next = expired->next;
        ck_assert_uint_le(expired->deadline, now);
        waiting[expired->client]--;
        all--;
        free(expired);
        expired = next;
      }
    }
    ck_assert_uint_eq(queue_depth(&queue), all);
  }
  ck_assert_uint_gt(refused, 100);
  queue_close(&queue);
  for (struct queue_item *rest; (rest = pop(&queue)); all--) free(rest);
  ck_assert_uint_eq(all, 0);
  queue_destroy(&queue);
}
END_TEST

START_TEST(it_tells_how_long_it_takes) {
  enum { ITEMS = 40 };
  struct queue queue;
  const uint64_t between = 1000 * CLOCK_SECOND; /* so long that nothing which stops this thread counts beside it */
  ck_assert(queue_init(&queue, 100));
  ck_assert_uint_eq(queue_drain_time(&queue, clock_now()), 0);
  for (int i = 0; i < ITEMS; i++) put(&queue, 1, 1);
  ck_assert_uint_eq(queue_drain_time(&queue, clock_now()), 0); /* nothing has been measured */
  for (int i = 0; i < ITEMS / 2; i++) {
    free(pop(&queue));
    if (i < ITEMS / 2 - 1) queue.last_pop -= between;
  }
  uint64_t wait = queue_drain_time(&queue, clock_now()), wanted = ITEMS / 2 * between;
  ck_assert_msg(wait > wanted - wanted / 10 && wait < wanted + wanted / 3, "%.1f s instead of %.1f s", (double)wait / 1e9,
                (double)wanted / 1e9);
  queue.last_pop -= 10 * between; /* nobody has come for long: the workers have become slower */
  wait = queue_drain_time(&queue, clock_now());
  ck_assert_uint_gt(wait, 9 * wanted);
  queue.last_pop += 10 * between;
  while (queue_depth(&queue)) free(pop(&queue));
  ck_assert_uint_eq(queue_drain_time(&queue, clock_now()), 0);
  queue_destroy(&queue);
}
END_TEST

static void *pop_all(void *argument) {
  uintptr_t count = 0;
  while (pop(argument)) count++;
  return (void *)count;
}

START_TEST(nothing_is_lost_between_threads) {
  enum { ITEMS = 50000, CAPACITY = 7 };
  struct queue queue;
  pthread_t threads[THREADS];
  static struct queue_item items[ITEMS];
  uintptr_t popped = 0;
  ck_assert(queue_init(&queue, CAPACITY));
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, pop_all, &queue), 0);
  for (int i = 0; i < ITEMS; i++) {
    items[i].client = (uint64_t)i % 5;
    items[i].model = (uint64_t)i % 3;
    while (!queue_reserve(&queue, &items[i])) sched_yield();
    queue_push(&queue, &items[i], 0, UINT64_MAX);
    ck_assert_uint_le(queue_depth(&queue), CAPACITY);
  }
  queue_close(&queue); /* what waits is still handed out */
  for (int i = 0; i < THREADS; i++) {
    void *count;
    pthread_join(threads[i], &count);
    popped += (uintptr_t)count;
  }
  ck_assert_uint_eq(popped, ITEMS);
  queue_destroy(&queue);
}
END_TEST

struct caller {
  struct queue queue;
  atomic_int calls, items;
};

static void *count_events(void *argument) {
  struct caller *caller = argument;
  struct queue_item *item;
  for (;;) {
    switch (queue_wait(&caller->queue, 0, NULL, NULL, &item)) {
    case QUEUE_ITEM:
      atomic_fetch_add(&caller->items, 1);
      break;
    case QUEUE_CALL:
      atomic_fetch_add(&caller->calls, 1);
      break;
    case QUEUE_CLOSED:
      return NULL;
    }
  }
}

static bool say_yes(void *context) {
  ++*(int *)context;
  return true;
}

static void until_idle(const struct caller *caller, int count) {
  while (atomic_load(&caller->queue.idle) < count) sched_yield();
}

/* A call reaches one thread that sleeps, never one that does not, and none is lost. */
START_TEST(calls_wake_sleepers) {
  enum { CALLS = 2000 };
  static struct caller caller;
  static struct queue_item items[CALLS];
  struct queue_item *item;
  pthread_t threads[THREADS];
  int asked = 0;
  ck_assert(queue_init(&caller.queue, CALLS));
  ck_assert(!queue_call(&caller.queue)); /* nobody sleeps */
  ck_assert_int_eq(queue_wait(&caller.queue, 0, say_yes, &asked, &item), QUEUE_CALL);
  ck_assert_int_eq(asked, 1);
  ck_assert_int_eq(atomic_load(&caller.queue.idle), 0);
  const uint64_t idle_at = clock_now() + 20 * CLOCK_MS; /* not before */
  ck_assert_int_eq(queue_wait(&caller.queue, idle_at, say_yes, &asked, &item), QUEUE_CALL);
  ck_assert_uint_ge(clock_now(), idle_at);
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, count_events, &caller), 0);
  for (int i = 0; i < CALLS; i++) {
    until_idle(&caller, THREADS);
    const int before = atomic_load(&caller.calls);
    ck_assert(queue_call(&caller.queue));
    while (atomic_load(&caller.calls) == before) sched_yield();
  }
  until_idle(&caller, THREADS);
  ck_assert_int_eq(atomic_load(&caller.calls), CALLS);
  ck_assert_int_eq(atomic_load(&caller.items), 0);
  for (int i = 0; i < CALLS; i++) { /* calls and items at the same time */
    items[i].client = (uint64_t)i;
    ck_assert(queue_reserve(&caller.queue, &items[i]));
    queue_push(&caller.queue, &items[i], 0, UINT64_MAX);
    queue_call(&caller.queue);
  }
  until_idle(&caller, THREADS);
  ck_assert_int_eq(atomic_load(&caller.items), CALLS);
  ck_assert_int_eq(caller.queue.called, 0);
  queue_close(&caller.queue);
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  queue_destroy(&caller.queue);
}
END_TEST

static void *wait_for_a_while(void *argument) {
  struct queue_item *item;
  return (void *)(intptr_t)queue_wait(argument, clock_now() + 3600 * CLOCK_SECOND, NULL, NULL, &item);
}

static void *sleep_until_called(void *argument) {
  struct queue_item *item;
  return (void *)(intptr_t)queue_wait(argument, 0, NULL, NULL, &item);
}

/* One that cannot be called yet does not take the call of one that can. */
START_TEST(calls_pass_by_who_is_not_idle) {
  struct queue queue;
  pthread_t threads[2];
  void *event;
  ck_assert(queue_init(&queue, 1));
  ck_assert_int_eq(pthread_create(&threads[0], NULL, wait_for_a_while, &queue), 0);
  poll(NULL, 0, 50); /* nothing tells that it waits: without this, the test could only pass more easily */
  ck_assert_int_eq(pthread_create(&threads[1], NULL, sleep_until_called, &queue), 0);
  while (!queue_call(&queue)) sched_yield();
  pthread_join(threads[1], &event);
  ck_assert_int_eq((int)(intptr_t)event, QUEUE_CALL);
  queue_close(&queue);
  pthread_join(threads[0], &event);
  ck_assert_int_eq((int)(intptr_t)event, QUEUE_CLOSED);
  queue_destroy(&queue);
}
END_TEST

START_TEST(who_else_waits_is_told) {
  struct queue queue;
  ck_assert(queue_init(&queue, 8));
  ck_assert(!queue_others_wait(&queue, 1));
  put(&queue, 1, 0);
  put(&queue, 1, 1);
  ck_assert(!queue_others_wait(&queue, 1));
  ck_assert(queue_others_wait(&queue, 2));
  put(&queue, 2, 0);
  put(&queue, 2, 0);
  ck_assert(queue_others_wait(&queue, 1));
  ck_assert(queue_others_wait(&queue, 2));
  ck_assert(queue_others_wait(&queue, 3));
  while (queue_depth(&queue) > 1) free(pop(&queue));
  struct queue_item *last = pop(&queue);
  ck_assert(!queue_others_wait(&queue, 3));
  ck_assert(queue_reserve(&queue, last));
  queue_push(&queue, last, 1, 2);
  ck_assert(!queue_others_wait(&queue, last->client));
  ck_assert_ptr_eq(queue_expire(&queue, CLOCK_SECOND), last);
  ck_assert(!queue_others_wait(&queue, 3));
  free(last);
  queue_destroy(&queue);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_queue");
  TCase *tests = tcase_create("queue");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, it_is_bounded_and_in_order);
  tcase_add_test(tests, room_is_told_without_taking_it);
  tcase_add_test(tests, what_waited_too_long_leaves_it);
  tcase_add_test(tests, clients_and_networks_take_turns);
  tcase_add_test(tests, turns_are_of_work);
  tcase_add_test(tests, networks_share_the_work_of_a_client);
  tcase_add_test(tests, who_had_much_waits);
  tcase_add_test(tests, one_client_cannot_take_all_places);
  tcase_add_test(tests, nothing_gets_lost_or_mixed_up);
  tcase_add_test(tests, it_tells_how_long_it_takes);
  tcase_add_test(tests, nothing_is_lost_between_threads);
  tcase_add_test(tests, calls_wake_sleepers);
  tcase_add_test(tests, calls_pass_by_who_is_not_idle);
  tcase_add_test(tests, debts_shrink_with_the_turns);
  tcase_add_test(tests, who_else_waits_is_told);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
