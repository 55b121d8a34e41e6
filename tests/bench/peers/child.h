/* An engine under comparison is a child process. It loads its network, writes one line of JSON, and then answers lines from
 * standard input:
 *   check N   runs image N, answers {"scores":[...]} (before the softmax where the engine leaves it out)
 *   go N      runs N images in turn, answers {"us":[...]}: microseconds of each run
 * End of file ends it. */
#ifndef PEERS_CHILD_H
#define PEERS_CHILD_H

#include "engine/hwgq.h"

struct child_engine {
  char description[256]; /* for the ready line: library, version, what it chose */
  bool softmax;          /* scores are probabilities already */
  int classes;
  /* Makes image `number` the one that run() takes. Not timed. */
  void (*select)(void *state, int number);
  /* One inference; *scores stays valid until the next. */
  const float *(*run)(void *state);
  void *state;
};

struct child_inputs {
  size_t count; /* values of one image */
  uint8_t *pixels;
  float *values;
};

/* Reads PREFIX.pixels and PREFIX.input. Exits with a message when that fails, as these programs do. */
struct child_inputs child_read_inputs(const char *prefix, struct hwgq_shape shape);
_Noreturn void child_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Answers lines until the end; returns the exit status. */
int child_serve(const struct child_engine *engine);

#endif
