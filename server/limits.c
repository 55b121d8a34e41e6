#include "server/limits.h"

#include "server/clock.h"

#include <pthread.h>
#include <stdlib.h>

struct client {
  uint64_t number;
  /* The rate, as one time (the generic cell rate algorithm): when the client would be at rest if every request so far had
   * cost its share of a minute. A request is fine while this is not further ahead than the burst. */
  uint64_t rest;
  int64_t in_progress;
  struct client *chain;
  struct client *older, *newer; /* among those with nothing in progress */
};

struct limits {
  pthread_mutex_t mutex;
  struct client *clients; /* [capacity] */
  struct client **table;  /* [mask + 1] heads of chains */
  size_t capacity, made, mask;
  struct client *oldest, *newest;
};

struct limits *limits_create(size_t clients) {
  struct limits *limits = calloc(1, sizeof *limits);
  if (!limits) return NULL;
  size_t table = 16;
  while (table < clients) table *= 2;
  limits->capacity = clients;
  limits->mask = table - 1;
  limits->clients = calloc(clients, sizeof *limits->clients);
  limits->table = calloc(table, sizeof(struct client *));
  if (limits->clients && limits->table && pthread_mutex_init(&limits->mutex, NULL) == 0) return limits;
  free(limits->clients);
  free(limits->table);
  free(limits);
  return NULL;
}

void limits_destroy(struct limits *limits) {
  if (!limits) return;
  pthread_mutex_destroy(&limits->mutex);
  free(limits->clients);
  free(limits->table);
  free(limits);
}

bool limits_rule_empty(const struct limits_rule *rule) {
  return rule->per_minute == 0 && rule->concurrency == 0;
}

static struct client **chain_of(struct limits *limits, uint64_t number) {
  return &limits->table[(size_t)(number ^ (number >> 32)) & limits->mask];
}

static struct client *find(struct limits *limits, uint64_t number) {
  struct client *client = *chain_of(limits, number);
  while (client && client->number != number) client = client->chain;
  return client;
}

static void unlink_idle(struct limits *limits, struct client *client) {
  *(client->older ? &client->older->newer : &limits->oldest) = client->newer;
  *(client->newer ? &client->newer->older : &limits->newest) = client->older;
}

static void link_idle(struct limits *limits, struct client *client) {
  client->newer = NULL;
  client->older = limits->newest;
  *(limits->newest ? &limits->newest->newer : &limits->oldest) = client;
  limits->newest = client;
}

/* A client that has just come, linked as idle; NULL when everyone has something in progress. */
static struct client *add(struct limits *limits, uint64_t number) {
  struct client *client = limits->made < limits->capacity ? &limits->clients[limits->made++] : limits->oldest;
  if (!client) return NULL;
  if (client == limits->oldest) {
    struct client **chain = chain_of(limits, client->number);
    while (*chain != client) chain = &(*chain)->chain;
    *chain = client->chain;
    unlink_idle(limits, client);
  }
  *client = (struct client){.number = number, .chain = *chain_of(limits, number)};
  *chain_of(limits, number) = client;
  link_idle(limits, client);
  return client;
}

/* False: too early, *wait says by how much. */
static bool take_rate(struct client *client, const struct limits_rule *rule, uint64_t now, uint64_t *wait) {
  if (!rule->per_minute) return true;
  uint64_t cost = 60 * CLOCK_SECOND / (uint64_t)rule->per_minute;
  uint64_t burst = rule->burst ? (uint64_t)rule->burst : (uint64_t)rule->per_minute / 60;
  uint64_t ahead = cost * (burst > 1 ? burst - 1 : 0);
  if (client->rest > now + ahead) {
    *wait = client->rest - now - ahead;
    return false;
  }
  client->rest = (client->rest > now ? client->rest : now) + cost;
  return true;
}

enum limits_verdict limits_begin(struct limits *limits, uint64_t number, const struct limits_rule *rule, uint64_t now,
                                 uint64_t *wait) {
  enum limits_verdict verdict = LIMITS_FINE;
  pthread_mutex_lock(&limits->mutex);
  struct client *client = find(limits, number);
  if (!client) client = add(limits, number);
  if (client && rule->concurrency && client->in_progress >= rule->concurrency) {
    verdict = LIMITS_CONCURRENCY;
  } else if (client && !take_rate(client, rule, now, wait)) {
    verdict = LIMITS_RATE;
  } else if (client && client->in_progress++ == 0) {
    unlink_idle(limits, client);
  }
  pthread_mutex_unlock(&limits->mutex);
  return verdict;
}

void limits_end(struct limits *limits, uint64_t number) {
  pthread_mutex_lock(&limits->mutex);
  struct client *client = find(limits, number);
  if (client && client->in_progress > 0 && --client->in_progress == 0) link_idle(limits, client);
  pthread_mutex_unlock(&limits->mutex);
}
