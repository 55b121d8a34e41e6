#include "server/buffered.h"

static _Atomic uint64_t *slot_of(struct buffered *buffered, uint64_t client) {
  return &buffered->of[client % BUFFERED_SLOTS];
}

bool buffered_take(struct buffered *buffered, uint64_t limit, uint64_t client, uint64_t held, uint64_t more) {
  uint64_t total = atomic_fetch_add(&buffered->total, more) + more;
  uint64_t own = atomic_fetch_add(slot_of(buffered, client), more) + more;
  if (total <= limit && (own == held + more || own <= BUFFERED_SHARE * (limit - total))) return true;
  buffered_give(buffered, client, more);
  return false;
}

void buffered_give(struct buffered *buffered, uint64_t client, uint64_t bytes) {
  if (bytes == 0) return;
  atomic_fetch_sub(slot_of(buffered, client), bytes);
  atomic_fetch_sub(&buffered->total, bytes);
}
