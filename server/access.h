/* Who may do what, and how much of it: keys, rights and per-client limits of one request, and the deadline that it brings. */
#ifndef ACCESS_H
#define ACCESS_H

#include "server/limits_address.h"
#include "server/request.h"

enum access_level {
  ACCESS_OPEN,      /* probes and the web page */
  ACCESS_METRICS,   /* as metrics_access says */
  ACCESS_INFERENCE, /* any key, when there is a keys file */
  ACCESS_ADMIN,     /* a key with admin rights, always */
};

/* By the pattern of the route. What is not known here needs a key. */
enum access_level access_level(const char *pattern);
/* Once the route is known: who it is, whether the key is good enough, whether the client has not asked for too much, when it
 * wants its answer. False: a reply stands (400, 401, 403, 429). */
bool access_check(struct request *request);
/* Gives back what access_check took. */
void access_end(struct request *request);
/* Seconds for Retry-After of a full queue: until what waits now has been served, as measured; at least 1. */
int access_retry_after(struct server *server);
/* "100 ms", "1.5s", "2": a time span of the header X-Request-Timeout; a bare number is seconds. 0: it is none. */
uint64_t access_timeout(const char *text);

#endif
