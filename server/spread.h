/* The images of one request on several workers. The worker that took the request runs its images in order; workers that have no
 * request take images of it meanwhile, and ask after each whether a request waits, which goes before. So a request with many
 * images gets what would be idle, and keeps one worker from the others as it would by itself. An image that
 * begins knows what the finished ones took of max_decode_ms, so W workers may take up to W times that in all. */
#ifndef SPREAD_H
#define SPREAD_H

#include "models/classify/classify.h"

#include <pthread.h>
#include <stdatomic.h>

struct queue;

/* One request's images, on the stack of the worker that has the request. */
struct spread {
  /* Image `index`, by any worker, several at once; `helper`: not by the request's own. False: no further ones. */
  bool (*run)(void *context, int index, struct classify_scratch *scratch, bool helper);
  bool (*leave)(void *context); /* asked by the request's worker before each image but the first: whether nobody wants them */
  void *context;
  int count;
  /* spread.c's own; under the mutex of the board */
  int next_index, running; /* the next to be taken; images that helpers have */
  struct spread *next;     /* on the board */
};

/* Where helpers find them. */
struct spread_board {
  pthread_mutex_t mutex;
  pthread_cond_t done; /* a helper has finished an image */
  struct spread *first;
  atomic_int left;     /* images on the board that nobody has taken */
  struct queue *queue; /* whose idle threads are called; NULL: nobody helps */
};

bool spread_board_init(struct spread_board *board, struct queue *queue);
void spread_board_destroy(struct spread_board *board);
/* Runs all images: returns when the last one has ended, wherever it ran. */
void spread_images(struct spread_board *board, struct spread *spread, struct classify_scratch *scratch);
/* Whether there is an image to take; costs next to nothing. */
bool spread_open(const struct spread_board *board);
/* Takes images until there are none, or a request waits. */
void spread_help(struct spread_board *board, struct classify_scratch *scratch);

#endif
