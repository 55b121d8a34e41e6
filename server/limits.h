/* How much one client may ask for: a rate, and requests in progress. The table of clients has a fixed size: who has nothing in
 * progress and has not been seen for longest gives up its place. */
#ifndef LIMITS_H
#define LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0: no limit. */
struct limits_rule {
  int64_t per_minute;  /* requests */
  int64_t burst;       /* of them at once; 0: what one second brings, at least 1 */
  int64_t concurrency; /* requests in progress */
};

enum limits_verdict { LIMITS_FINE, LIMITS_RATE, LIMITS_CONCURRENCY };

struct limits;
/* `clients`: that can be remembered. NULL: no memory. */
struct limits *limits_create(size_t clients);
void limits_destroy(struct limits *limits);
/* One more request of this client at `now` (clock_now()). LIMITS_FINE must be followed by limits_end. LIMITS_RATE: *wait gets
 * the nanoseconds until the next one is fine. */
enum limits_verdict limits_begin(struct limits *limits, uint64_t client, const struct limits_rule *rule, uint64_t now,
                                 uint64_t *wait);
void limits_end(struct limits *limits, uint64_t client);
bool limits_rule_empty(const struct limits_rule *rule);

#endif
