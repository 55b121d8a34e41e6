#include "server/io_loop.h"

#include "server/clock.h"
#include "server/request.h"

#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
  /* While much waits for the workers, the thread looks at its sockets only once in a PAUSE_SHAREth of the time that they need
   * for it, so they cannot run dry meanwhile, but at least once in PAUSE_MOST_US. When the queue is half full or more, so that
   * refusals are near, it is PAUSE_FULL_US: they are to be quick, and what comes in that time is enough to share its cost. */
  PAUSE_SHARE = 8,
  PAUSE_LEAST_US = 100,
  PAUSE_MOST_US = 1000,
  PAUSE_FULL_US = 500,
  SLICE_NS = 100000, /* the shortest that there is */
};

struct io_loop {
  struct server *server;
  struct MHD_Daemon *daemon;
  pthread_t thread;
  int epoll, event; /* where the thread sleeps: at the daemon's descriptor and at `event` */
  bool running;
  bool changed;                          /* io_loop_changed */
  atomic_bool asleep;                    /* or about to be: whoever takes this away must write to `event` */
  _Atomic(struct queue_item *) finished; /* requests to be resumed, the last one first */
  atomic_bool quiesce, stop;             /* what the thread is asked for */
  atomic_bool turned;                    /* io_loop_turned */
  struct text lines;
  sem_t quiet; /* `quiesce` has been done */
};

static bool watch(const struct io_loop *loop, int fd, uint32_t events) {
  struct epoll_event event = {.events = events};
  return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

struct io_loop *io_loop_create(struct server *server) {
  struct io_loop *loop = calloc(1, sizeof *loop);
  if (!loop) return NULL;
  loop->server = server;
  atomic_init(&loop->turned, true);
  loop->epoll = epoll_create1(EPOLL_CLOEXEC);
  loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  sem_init(&loop->quiet, 0, 0);
  /* Each write is an edge: nobody needs to read. */
  if (loop->epoll >= 0 && loop->event >= 0 && watch(loop, loop->event, EPOLLIN | EPOLLET)) return loop;
  io_loop_destroy(loop);
  return NULL;
}

struct server *io_loop_server(const struct io_loop *loop) {
  return loop->server;
}

void io_loop_changed(struct io_loop *loop) {
  loop->changed = true;
}

struct text *io_loop_lines(struct io_loop *loop) {
  return &loop->lines;
}

/* ---- other threads --------------------------------------------------------------------------------------------------------
 */

static void wake(struct io_loop *loop) {
  const uint64_t one = 1;
  if (!atomic_load(&loop->asleep) || !atomic_exchange(&loop->asleep, false)) return;
  ssize_t ignored = write(loop->event, &one, sizeof one); /* fails only when the count is full, which is an edge too */
  (void)ignored;
}

void io_loop_resume(struct io_loop *loop, struct request *request) {
  struct queue_item *item = &request->item;
  item->next = atomic_load(&loop->finished);
  while (!atomic_compare_exchange_weak(&loop->finished, &item->next, item)) continue;
  wake(loop);
}

bool io_loop_turned(struct io_loop *loop) {
  return atomic_load(&loop->turned);
}

void io_loop_ask_turn(struct io_loop *loop) {
  atomic_store(&loop->turned, false);
  wake(loop);
}

void io_loop_quiesce(struct io_loop *loop) {
  atomic_store(&loop->quiesce, true);
  wake(loop);
  while (sem_wait(&loop->quiet)) continue;
}

/* ---- the thread -----------------------------------------------------------------------------------------------------------
 */

static void resume_finished(struct io_loop *loop) {
  struct queue_item *item = atomic_exchange(&loop->finished, NULL), *first = NULL;
  while (item) {
    struct queue_item *next = item->next;
    item->next = first;
    first = item;
    item = next;
  }
  for (; first; first = first->next) MHD_resume_connection(((struct request *)first)->connection);
}

/* Whether it paused. */
static bool pause_while_busy(struct io_loop *loop) {
  struct queue *queue = &loop->server->queue;
  size_t depth = queue_depth(queue);
  if (depth <= (size_t)loop->server->workers) return false;
  uint64_t us = queue_drain_time(queue, clock_now()) / (PAUSE_SHARE * (CLOCK_MS / 1000));
  uint64_t most = depth < queue->capacity / 2 ? PAUSE_MOST_US : PAUSE_FULL_US;
  if (us < PAUSE_LEAST_US) return false;
  const struct timespec pause = {.tv_nsec = 1000L * (long)(us < most ? us : most)};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
  return true;
}

/* How long the thread may sleep, in ms; -1: until something happens, 0: there is more to do. */
static int patience(const struct io_loop *loop) {
  MHD_UNSIGNED_LONG_LONG timeout;
  if (loop->changed) return 0;
  if (MHD_get_timeout(loop->daemon, &timeout) != MHD_YES) return -1;
  return timeout < INT_MAX ? (int)timeout : INT_MAX;
}

static void sleep_until_event(struct io_loop *loop, int ms) {
  struct epoll_event events[2];
  atomic_store(&loop->asleep, true);
  /* Whoever asked before it could be seen that the thread sleeps has not woken it. */
  if (!atomic_load(&loop->finished) && !atomic_load(&loop->quiesce) && !atomic_load(&loop->stop) &&
      atomic_load(&loop->turned)) {
    epoll_wait(loop->epoll, events, 2, ms);
  }
  atomic_store(&loop->asleep, false);
}

/* The thread wakes often and for a moment. A short slice says so to the scheduler (Linux 6.12), which then lets it preempt a
 * worker at once instead of when the worker's slice ends; it gets no larger share of the core for it. Older kernels refuse or
 * ignore it, and a policy that the administrator chose stays. */
static void ask_for_short_slice(void) {
  struct {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
  } attributes = {.size = sizeof attributes, .policy = SCHED_OTHER, .nice = getpriority(PRIO_PROCESS, 0), .runtime = SLICE_NS};
  if (sched_getscheduler(0) == SCHED_OTHER) syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *run(void *argument) {
  struct io_loop *loop = argument;
  prctl(PR_SET_TIMERSLACK, 1000UL); /* ns; by default a pause would take 50 us longer */
  ask_for_short_slice();
  while (!atomic_load(&loop->stop)) {
    atomic_store(&loop->turned, true);
    resume_finished(loop);
    loop->changed = false;
    MHD_run(loop->daemon);
    if (atomic_exchange(&loop->quiesce, false)) {
      MHD_quiesce_daemon(loop->daemon);
      sem_post(&loop->quiet);
    }
    log_flush(&loop->server->log, &loop->lines);
    int ms = patience(loop);
    if (ms && !pause_while_busy(loop)) sleep_until_event(loop, ms);
  }
  return NULL;
}

bool io_loop_start(struct io_loop *loop, struct MHD_Daemon *daemon) {
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);
  loop->daemon = daemon;
  if (!info || !watch(loop, info->epoll_fd, EPOLLIN)) return false;
  loop->running = pthread_create(&loop->thread, NULL, run, loop) == 0;
  return loop->running;
}

void io_loop_stop(struct io_loop *loop) {
  if (loop->running) {
    atomic_store(&loop->stop, true);
    wake(loop);
    pthread_join(loop->thread, NULL);
    loop->running = false;
  }
  if (loop->daemon) {
    MHD_quiesce_daemon(loop->daemon); /* or it would close the socket that listens */
    MHD_stop_daemon(loop->daemon);
    log_flush(&loop->server->log, &loop->lines);
  }
  loop->daemon = NULL;
}

void io_loop_destroy(struct io_loop *loop) {
  if (!loop) return;
  if (loop->epoll >= 0) close(loop->epoll);
  if (loop->event >= 0) close(loop->event);
  sem_destroy(&loop->quiet);
  text_release(&loop->lines);
  free(loop);
}
