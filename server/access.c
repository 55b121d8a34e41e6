#include "server/access.h"

#include "server/auth.h"
#include "server/clock.h"
#include "server/framing.h"
#include "server/routes.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), size = strlen(end);
  return length >= size && strcmp(text + length - size, end) == 0;
}

enum access_level access_level(const char *pattern) {
  static const char *const open[] = {"/",        "/docs",   "/openapi.json",   "/page/{name}",
                                     "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"};
  static const char *const admin[] = {"/load", "/unload", "/reload"};
  for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
    if (strcmp(pattern, open[i]) == 0) return ACCESS_OPEN;
  }
  for (size_t i = 0; i < sizeof admin / sizeof admin[0]; i++) {
    if (ends_with(pattern, admin[i])) return ACCESS_ADMIN;
  }
  return strcmp(pattern, "/metrics") == 0 || ends_with(pattern, "/stats") ? ACCESS_METRICS : ACCESS_INFERENCE;
}

/* ---- who it is ---------------------------------------------------------------------------------------------------------- */

/* The text of the key that the request brings, or NULL. */
static const char *presented_key(const struct request *request) {
  const char *authorization = request_header(request, "Authorization"), *key = request_header(request, "X-API-Key");
  if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0) return key;
  authorization += 7;
  return authorization + strspn(authorization, " ");
}

/* The lines of X-Forwarded-For, which are one list (RFC 9110, 5.3). */
struct forwarded {
  const char *lines[FRAMING_MAX_FIELDS];
  int count;
};

static enum MHD_Result keep_forwarded(void *closure, enum MHD_ValueKind kind, const char *name, const char *value) {
  struct forwarded *forwarded = closure;
  (void)kind;
  if (strcasecmp(name, "X-Forwarded-For") == 0 && value && forwarded->count < FRAMING_MAX_FIELDS) {
    forwarded->lines[forwarded->count++] = value;
  }
  return MHD_YES;
}

static uint64_t client_by_address(struct request *request) {
  const struct server *server = request->server;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  struct limits_address address;
  limits_address_of(info ? info->client_addr : NULL, &address);
  if (server->trusted_proxies.count) {
    struct forwarded forwarded = {.count = 0}; /* a proxy that adds a line of its own adds it after the client's */
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, keep_forwarded, &forwarded);
    while (forwarded.count &&
           limits_address_forwarded(&server->trusted_proxies, forwarded.lines[forwarded.count - 1], &address))
      forwarded.count--;
  }
  return limits_address_number(&address, server->request_seed);
}

static uint64_t client_by_key(const struct request *request, const struct auth_key *key) {
  uint64_t number;
  memcpy(&number, key->hash, sizeof number); /* as random as the key */
  return number ^ request->server->request_seed;
}

/* ---- whether it may ----------------------------------------------------------------------------------------------------- */

static bool refuse(struct request *request, int status, const char *code, const char *message) {
  reply_error(&request->reply, status, code, request->id, "%s", message);
  request->reply.authenticate = status == 401;
  return false;
}

static enum auth_rights needed_rights(const struct request *request, enum access_level level) {
  switch (level) {
  case ACCESS_OPEN:
    return AUTH_NONE;
  case ACCESS_METRICS:
    switch ((enum config_metrics)request->server->config->metrics_access) {
    case CONFIG_METRICS_OPEN:
      return AUTH_NONE;
    case CONFIG_METRICS_KEY:
      return AUTH_INFERENCE;
    case CONFIG_METRICS_ADMIN:
      break;
    }
    return AUTH_ADMIN;
  case ACCESS_INFERENCE:
    return AUTH_INFERENCE;
  case ACCESS_ADMIN:
    break;
  }
  return AUTH_ADMIN;
}

/* Fills *key when the request has a good one, else leaves its rights AUTH_NONE. */
static bool check_key(struct request *request, enum access_level level, struct auth_key *key) {
  struct auth *auth = request->server->auth;
  enum auth_rights needed = needed_rights(request, level);
  if (!auth_enabled(auth)) {
    if (level != ACCESS_ADMIN) return true;
    return refuse(request, 403, "admin_disabled",
                  "This needs an admin key, and the server has no keys: make one (hwgqd --add-key NAME --rights admin "
                  "--keys-file FILE) and set keys_file.");
  }
  const char *text = presented_key(request);
  if (text && auth_find(auth, text, key)) memcpy(request->key_name, key->name, sizeof key->name);
  if (key->rights >= needed) return true;
  if (!text) {
    return refuse(request, 401, "key_missing",
                  "This needs an API key. Send it in the header Authorization: Bearer KEY, or X-API-Key: KEY.");
  }
  if (!key->rights) {
    return refuse(request, 401, "key_unknown", "This API key is not known here. Check it, or ask for a new one.");
  }
  return refuse(request, 403, "key_without_rights", "This API key may classify, but not this. Use a key with admin rights.");
}

/* ---- how much ----------------------------------------------------------------------------------------------------------- */

static int seconds_of(uint64_t ns) {
  uint64_t seconds = (ns + CLOCK_SECOND - 1) / CLOCK_SECOND;
  return seconds < 1 ? 1 : seconds > 86400 ? 86400 : (int)seconds;
}

int access_retry_after(struct server *server) {
  uint64_t wait = queue_drain_time(&server->queue, clock_now());
  /* What waits longer is given up: by then there is room. */
  uint64_t most = CLOCK_MS * (uint64_t)server->config->queue_deadline_ms;
  return seconds_of(wait < most ? wait : most);
}

static void choose(int64_t *limit, int64_t standard) {
  if (*limit < 0) *limit = standard;
}

static bool check_limits(struct request *request, const struct auth_key *key) {
  struct server *server = request->server;
  const struct config *config = server->config;
  struct limits_rule rule = key->rule;
  uint64_t wait = 0;
  choose(&rule.per_minute, config->client_requests_per_minute);
  choose(&rule.burst, config->client_burst);
  choose(&rule.concurrency, config->client_concurrency);
  if (limits_rule_empty(&rule)) return true;
  switch (limits_begin(server->limits, request->item.client, &rule, clock_now(), &wait)) {
  case LIMITS_FINE:
    request->limited = true;
    return true;
  case LIMITS_RATE:
    reply_error(&request->reply, 429, "too_many_requests", request->id,
                "One client may send %lld requests per minute. Try again after the time in Retry-After.",
                (long long)rule.per_minute);
    request->reply.retry_after = seconds_of(wait);
    return false;
  case LIMITS_CONCURRENCY:
    break;
  }
  reply_error(&request->reply, 429, "too_many_in_progress", request->id,
              "One client may have %lld requests in progress. Wait for an answer before the next request.",
              (long long)rule.concurrency);
  request->reply.retry_after = access_retry_after(server);
  return false;
}

/* ---- until when --------------------------------------------------------------------------------------------------------- */

uint64_t access_timeout(const char *text) {
  uint64_t value = 0, unit = CLOCK_SECOND, fraction = 0;
  int digits = 0;
  while (*text == ' ') text++;
  for (; *text >= '0' && *text <= '9' && digits < 9; digits++) value = value * 10 + (uint64_t)(*text++ - '0');
  if (digits && *text == '.') {
    uint64_t place = 100000000; /* of 1e-9 units */
    for (text++; *text >= '0' && *text <= '9'; text++, place /= 10) fraction += place * (uint64_t)(*text - '0');
  }
  while (*text == ' ') text++;
  if (strncmp(text, "ms", 2) == 0) {
    unit = CLOCK_MS;
    text += 2;
  } else if (*text == 's') {
    text++;
  }
  while (*text == ' ') text++;
  return digits && !*text ? value * unit + fraction * unit / CLOCK_SECOND : 0;
}

static bool check_timeout(struct request *request) {
  const char *text = request_header(request, "X-Request-Timeout");
  uint64_t timeout = text ? access_timeout(text) : 0;
  if (timeout) request->timeout_ns = timeout;
  if (!text || timeout) return true;
  reply_error(&request->reply, 400, "bad_timeout", request->id,
              "X-Request-Timeout must be a time above zero: 0.5 or 0.5s for half a second, 500ms.");
  return false;
}

bool access_check(struct request *request) {
  enum access_level level = access_level(request->route->pattern);
  struct auth_key key = {.rule = {-1, -1, -1}};
  if (!check_key(request, level, &key)) return false;
  if (!request->route->work && request->route->kind == ROUTE_ANSWER) return true; /* answered at once: costs little */
  request->item.client = key.rights ? client_by_key(request, &key) : client_by_address(request);
  return check_timeout(request) && check_limits(request, &key);
}

void access_end(struct request *request) {
  if (request->limited) limits_end(request->server->limits, request->item.client);
  request->limited = false;
}
