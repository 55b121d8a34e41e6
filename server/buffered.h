/* Memory of request bodies and large replies, counted: all together have a limit, and one client gets a share of it, so that
 * clients with many large bodies leave some to the others. */
#ifndef BUFFERED_H
#define BUFFERED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
  /* A client may have this many times as much as is free, so one alone gets at most 4/5 of all; but the first body of a client
   * may take whatever is free. */
  BUFFERED_SHARE = 4,
  BUFFERED_SLOTS = 1024 /* clients by their number; those few that meet in a slot have one share */
};

/* All zero: nothing is held. */
struct buffered {
  _Atomic uint64_t total, of[BUFFERED_SLOTS]; /* bytes */
};

/* `more` bytes for a request of `client` that holds `held` already; false: there is no room for them. By any thread. */
bool buffered_take(struct buffered *buffered, uint64_t limit, uint64_t client, uint64_t held, uint64_t more);
void buffered_give(struct buffered *buffered, uint64_t client, uint64_t bytes);

#endif
