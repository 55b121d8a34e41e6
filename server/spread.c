#include "server/spread.h"

#include "server/queue.h"

bool spread_board_init(struct spread_board *board, struct queue *queue) {
  *board = (struct spread_board){.queue = queue};
  if (pthread_mutex_init(&board->mutex, NULL)) return false;
  if (pthread_cond_init(&board->done, NULL) == 0) return true;
  pthread_mutex_destroy(&board->mutex);
  return false;
}

void spread_board_destroy(struct spread_board *board) {
  pthread_cond_destroy(&board->done);
  pthread_mutex_destroy(&board->mutex);
}

/* ---- with the mutex held ------------------------------------------------------------------------------------------------ */

static void put(struct spread_board *board, struct spread *spread) {
  struct spread **end = &board->first;
  while (*end) end = &(*end)->next;
  *end = spread;
  spread->next = NULL;
  atomic_fetch_add(&board->left, spread->count - spread->next_index);
}

/* Off the board: no helper takes more of it. */
static void withdraw(struct spread_board *board, struct spread *spread) {
  struct spread **place = &board->first;
  while (*place && *place != spread) place = &(*place)->next;
  if (!*place) return;
  *place = spread->next;
  atomic_fetch_sub(&board->left, spread->count - spread->next_index);
}

/* The next image; -1: there is none. The last one takes the request off the board. */
static int take(struct spread_board *board, struct spread *spread) {
  if (spread->next_index == spread->count) return -1;
  int index = spread->next_index++;
  atomic_fetch_sub(&board->left, 1);
  if (spread->next_index == spread->count) withdraw(board, spread);
  return index;
}

static void stop(struct spread_board *board, struct spread *spread) {
  withdraw(board, spread);
  spread->next_index = spread->count;
}

/* ------------------------------------------------------------------------------------------------------------------------- */

static void run_alone(struct spread *spread, struct classify_scratch *scratch) {
  for (int i = 0; i < spread->count; i++) {
    if (i && spread->leave(spread->context)) return;
    if (!spread->run(spread->context, i, scratch, false)) return;
  }
}

void spread_images(struct spread_board *board, struct spread *spread, struct classify_scratch *scratch) {
  if (!board->queue || spread->count < 2) {
    run_alone(spread, scratch);
    return;
  }
  spread->next_index = spread->running = 0;
  pthread_mutex_lock(&board->mutex);
  put(board, spread);
  int index = take(board, spread);
  pthread_mutex_unlock(&board->mutex);
  for (int i = 1; i < spread->count && queue_call(board->queue); i++) continue;
  for (bool first = true; index >= 0; first = false) {
    bool more = (first || !spread->leave(spread->context)) && spread->run(spread->context, index, scratch, false);
    pthread_mutex_lock(&board->mutex);
    if (!more) stop(board, spread);
    index = take(board, spread);
    pthread_mutex_unlock(&board->mutex);
  }
  pthread_mutex_lock(&board->mutex);
  while (spread->running) pthread_cond_wait(&board->done, &board->mutex);
  pthread_mutex_unlock(&board->mutex);
}

bool spread_open(const struct spread_board *board) {
  return atomic_load(&board->left) > 0;
}

void spread_help(struct spread_board *board, struct classify_scratch *scratch) {
  pthread_mutex_lock(&board->mutex);
  while (board->first && queue_depth(board->queue) == 0) {
    struct spread *spread = board->first;
    int index = take(board, spread);
    spread->running++;
    pthread_mutex_unlock(&board->mutex);
    bool more = spread->run(spread->context, index, scratch, true);
    pthread_mutex_lock(&board->mutex);
    if (!more) stop(board, spread);
    /* The next image is another request's, when there is one. */
    if (board->first == spread && spread->next) {
      withdraw(board, spread);
      put(board, spread);
    }
    if (--spread->running == 0) pthread_cond_broadcast(&board->done);
  }
  pthread_mutex_unlock(&board->mutex);
}
