#include "server/request.h"

#include "server/access.h"
#include "server/clock.h"
#include "server/framing.h"
#include "server/io_loop.h"
#include "server/manage.h"
#include "server/request_log.h"
#include "server/routes.h"

#include <gnutls/gnutls.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { FIRST_BODY_BYTES = 64 << 10 };

static uint64_t mix(uint64_t x) {
  x += UINT64_C(0x9e3779b97f4a7c15);
  x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static bool id_valid(const char *id) {
  size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  return length > 0 && length <= REQUEST_MAX_ID && !id[length];
}

const char *request_header(const struct request *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

const char *request_query(const struct request *request, const char *name) {
  return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

static uint64_t random_number(struct server *server) {
  return mix(server->request_seed + atomic_fetch_add(&server->request_counter, 1));
}

/* The route is not for this method: what it is for, as the answer to OPTIONS, or as an error. */
static void answer_allowed(struct request *request, const char *allow) {
  if (strcmp(request->method, "OPTIONS") == 0) {
    request->reply.status = 204;
  } else {
    reply_error(&request->reply, 405, "method_not_allowed", request->id, "%s is not possible here. Use %s.", request->method,
                allow);
  }
  request->reply.allow = allow;
}

static void refuse_full(struct request *request) {
  struct server *server = request->server;
  reply_error(&request->reply, 503, "queue_full", request->id,
              "%zu requests are waiting already, and the queue has room for %lld, of which one client gets at most four "
              "fifths. Try again after the time in Retry-After.",
              queue_depth(&server->queue), (long long)server->config->queue_capacity);
  request->reply.retry_after = access_retry_after(server);
}

/* What can be said by path, method and headers alone. */
static void answer_headers(struct request *request, const char *path) {
  const char *allow = NULL;
  if (strcmp(path, "*") == 0) { /* the whole server */
    answer_allowed(request, "GET, HEAD, POST, PUT");
    return;
  }
  request->route = request->bad_path ? NULL
                                     : route_find(path, request->model_name, sizeof request->model_name, request->model_version,
                                                  sizeof request->model_version);
  if (!request->route) {
    reply_error(&request->reply, 404, "not_found", request->id,
                "There is nothing at this path. Images go to POST /classify; GET / shows how.");
  } else if (!route_takes(request->route, request->method, &allow)) {
    answer_allowed(request, allow);
  } else {
    request->classifies = request->route->work != NULL;
    if (request->classifies) atomic_fetch_add(&request->server->classifying, 1);
    if (!access_check(request)) return;
    if (request->route->kind == ROUTE_ANSWER) request->route->answer(request);
    if (!request->route->work) return;
    request->route->work->headers(request);
    /* The body of what will be refused need not be kept, nor be sent by a client that waits for 100 Continue. */
    if (!request->reply.status && !queue_has_room(&request->server->queue, request->item.client)) refuse_full(request);
  }
}

/* The path of http://host/path, which servers must take as well. */
static const char *without_host(const char *uri) {
  if (strncasecmp(uri, "http://", 7) != 0 && strncasecmp(uri, "https://", 8) != 0) return uri;
  const char *host = strchr(uri, ':') + 3;
  return host[strcspn(host, "/")] ? host + strcspn(host, "/") : "/";
}

enum MHD_Result request_begin(struct request *request, const char *path, const char *method, const char *version) {
  const char *id = request_header(request, "X-Request-Id"), *expect = request_header(request, "Expect");
  struct framing framing;
  if (id && id_valid(id)) strcpy(request->id, id);
  snprintf(request->method, sizeof request->method, "%s", method);
  if (!watchdog_receive(&request->server->watchdog, request->peer, request->id, request->reply.v2)) return MHD_NO;
  request->begun_ns = request->received_ns = clock_now();
  atomic_store(&request->phase, REQUEST_RECEIVING);
  bool good = framing_check(request, version, &framing);
  trace_begin(&request->trace, framing.trace, random_number(request->server), random_number(request->server),
              random_number(request->server));
  if (!good) return request_send(request);
  answer_headers(request, without_host(path));
  /* Without a body the reply waits for the next call: libmicrohttpd closes a connection that is answered in this one. */
  if (request->reply.status == 0 || !framing.has_body) return MHD_YES;
  /* A client that has not begun to send its body is answered now. One that sends it unasked must be read to the end, or it
   * would meet a reset connection instead of the answer; up to a limit. */
  request->discard_limit = 4 * (uint64_t)request->server->config->max_body_bytes + (1 << 20);
  if (expect || request->content_length > request->discard_limit) {
    request->reply.close = true;
    return request_send(request);
  }
  return MHD_YES;
}

bool request_abandoned(const struct request *request) {
  struct pollfd poll_fd = {.fd = request->peer->fd, .events = POLLRDHUP};
  return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

bool request_is_in_the_way(void *request) {
  const struct request *waiting = request;
  return queue_others_wait(&waiting->server->queue, waiting->item.client);
}

void request_drop_body(struct request *request) {
  buffered_give(&request->server->buffered, request->item.client, request->body_capacity);
  free(request->body);
  free(request->parts);
  free(request->images);
  request->body = NULL;
  request->parts = NULL;
  request->images = NULL;
  request->body_length = request->body_capacity = 0;
}

/* Of max_buffered_bytes, for a request that holds `held` of it. */
static bool take_buffered(struct request *request, uint64_t held, uint64_t more) {
  struct server *server = request->server;
  return buffered_take(&server->buffered, (uint64_t)server->config->max_buffered_bytes, request->item.client, held, more);
}

/* Room for `length` bytes in all, which is at most max_body_bytes. False: a reply stands. */
static bool reserve_body(struct request *request, size_t length) {
  struct server *server = request->server;
  size_t limit = (size_t)server->config->max_body_bytes, capacity = request->body_capacity;
  if (length <= capacity) return true;
  if (capacity == 0) capacity = FIRST_BODY_BYTES;
  while (capacity < length) capacity *= 2;
  if (request->content_length && capacity > request->content_length) capacity = (size_t)request->content_length;
  if (capacity > limit) capacity = limit;
  if (capacity < length) capacity = length;
  uint64_t more = capacity - request->body_capacity;
  uint8_t *body = NULL;
  if (take_buffered(request, request->body_capacity, more)) {
    body = realloc(request->body, capacity);
    if (!body) buffered_give(&server->buffered, request->item.client, more);
  }
  if (!body) {
    reply_error(
        &request->reply, 503, "overloaded", request->id,
        "The memory for request bodies is used up, or your share of it, which is at most four fifths. Try again, or raise "
        "max_buffered_bytes.");
    request->reply.retry_after = 1;
    return false;
  }
  request->body = body;
  request->body_capacity = capacity;
  return true;
}

static void record(struct request *request) {
  if (!request->classifies) return;
  struct stats_request event = {
      .code = request->gone ? STATS_CODE_GONE : request->reply.status,
      .has_queue = request->queued,
      .has_total = request->queued && !request->gone,
      .queue_ns = request->queue_ns,
      .total_ns = request->total_ns,
  };
  struct stats *stats = request->model ? request->model->stats : request->server->unrouted;
  stats_record(stats, &event, request->timings, request->timing_count, clock_now());
}

/* Answers on the socket itself and closes: libmicrohttpd takes no response in the middle of a body. */
static enum MHD_Result cut(struct request *request) {
  const union MHD_ConnectionInfo *tls = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  struct text raw = {0};
  reply_raw(&request->reply, request->id, &raw);
  if (!raw.failed) {
    ssize_t ignored = tls && tls->tls_session ? gnutls_record_send(tls->tls_session, raw.data, raw.length)
                                              : send(request->peer->fd, raw.data, raw.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)ignored;
  }
  text_release(&raw);
  record(request);
  atomic_store(&request->phase, REQUEST_SENT);
  return MHD_NO;
}

/* How many parameters libmicrohttpd will find in a query. */
static int arguments_of(const char *uri) {
  int count = 0;
  for (const char *c = strchr(uri, '?'); c; c = strchr(c + 1, '&')) count++;
  return count;
}

/* Before libmicrohttpd looks at them: when its memory does not suffice for the parameters, 0.9.75 neither answers nor closes.
 */
static void refuse_arguments(struct request *request) {
  reply_error(&request->reply, 414, "uri_too_long", request->id, "A query may have %d parameters. Send fewer.",
              FRAMING_MAX_ARGUMENTS);
  cut(request);
  shutdown(request->peer->fd, SHUT_RDWR);
}

struct request *request_create(struct server *server, struct MHD_Connection *connection, const char *uri) {
  struct request *request = calloc(1, sizeof *request);
  if (!request) return NULL;
  request->server = server;
  request->connection = connection;
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  request->peer = info ? info->socket_context : NULL;
  if (!request->peer) {
    free(request);
    return NULL;
  }
  trace_hex(request->id, random_number(server));
  const char *asked = without_host(uri);
  request->reply.v2 = strncmp(asked, "/v2", 3) == 0 && (asked[3] == 0 || strchr("/?", asked[3]));
  request->uri_length = strlen(uri);
  for (const char *c = uri; *c; c++) request->bad_uri |= (unsigned char)*c <= 0x20 || *c == 0x7f;
  size_t length = strcspn(uri, "?");
  if (length > REQUEST_LOG_PATH) length = REQUEST_LOG_PATH;
  memcpy(request->path, uri, length);
  request->bad_path = memmem(uri, strcspn(uri, "?"), "%00", 3) != NULL;
  atomic_init(&request->phase, REQUEST_NEW);
  atomic_fetch_add(&server->in_flight, 1);
  watchdog_receive(&server->watchdog, request->peer, request->id, request->reply.v2);
  request->peer->request = request;
  if (arguments_of(uri) > FRAMING_MAX_ARGUMENTS) refuse_arguments(request);
  return request;
}

enum MHD_Result request_receive(struct request *request, const char *data, size_t length) {
  uint64_t limit = (uint64_t)request->server->config->max_body_bytes;
  request->received += length;
  request->received_ns = clock_now();
  if (request->reply.status == 0 && request->received > limit) {
    request_drop_body(request);
    request->discard_limit = 4 * limit + (1 << 20);
    reply_error(&request->reply, 413, "body_too_large", request->id,
                "The request body is larger than %llu bytes. Send a smaller image, or raise max_body_bytes.",
                (unsigned long long)limit);
  }
  if (request->reply.status == 0 && !reserve_body(request, request->body_length + length)) {
    request_drop_body(request);
    request->discard_limit = 4 * limit + (1 << 20);
  }
  if (request->reply.status) return request->received > request->discard_limit ? cut(request) : MHD_YES;
  memcpy(request->body + request->body_length, data, length);
  request->body_length += length;
  return MHD_YES;
}

/* Hands the request to the management thread. */
static enum MHD_Result manage(struct request *request) {
  struct server *server = request->server;
  if (!manage_reserve(server->manage)) {
    reply_error(&request->reply, 503, "busy", request->id, "%d requests of this kind are waiting already. Try again later.",
                MANAGE_CAPACITY);
    request->reply.retry_after = 1;
    return request_send(request);
  }
  atomic_store(&request->phase, REQUEST_WAITING);
  MHD_suspend_connection(request->connection);
  manage_push(server->manage, request);
  return MHD_YES;
}

/* Until when a worker must have taken it: the server's patience, or the client's where that is shorter. */
static uint64_t deadline_of(const struct request *request, uint64_t now) {
  uint64_t deadline = now + CLOCK_MS * (uint64_t)request->server->config->queue_deadline_ms;
  uint64_t wanted = request->begun_ns + request->timeout_ns;
  return request->timeout_ns && wanted < deadline ? wanted : deadline;
}

static void refuse_late(struct request *request) {
  if (request->timeout_ns && request->item.deadline == request->begun_ns + request->timeout_ns) {
    reply_error(&request->reply, 504, "deadline_exceeded", request->id,
                "The time in X-Request-Timeout passed before a worker was free. Try again when there is less load, or wait "
                "longer.");
  } else {
    reply_error(&request->reply, 504, "deadline_exceeded", request->id,
                "The request waited %lld ms for a worker and was given up. Try again when there is less load, or raise "
                "queue_deadline_ms.",
                (long long)request->server->config->queue_deadline_ms);
  }
}

enum MHD_Result request_complete(struct request *request) {
  struct server *server = request->server;
  if (!watchdog_set(&server->watchdog, request->peer, PEER_BUSY)) return MHD_NO;
  if (request->reply.status) return request_send(request);
  if (request->route->work && !request->route->work->body(request)) return request_send(request);
  if (atomic_load(&server->stopping)) {
    route_draining(request);
    return request_send(request);
  }
  if (!request->route->work) return manage(request);
  uint64_t now = clock_now(), deadline = deadline_of(request, now);
  if (deadline <= now) { /* the upload took all of it */
    request->item.deadline = deadline;
    refuse_late(request);
    return request_send(request);
  }
  request->item.model = (uint64_t)(uintptr_t)request->model->stats; /* one for each name, whatever the version */
  /* How many images a request of /v2 has is not known yet: the worker corrects it. */
  request->item.cost = stats_image_ns(request->model->stats) * (uint64_t)(request->image_count ? request->image_count : 1);
  if (!queue_reserve(&server->queue, &request->item)) {
    refuse_full(request);
    return request_send(request);
  }
  request->queued = true;
  atomic_store(&request->phase, REQUEST_WAITING);
  /* From here on the request belongs to whoever takes it from the queue, maybe before queue_push returns. */
  MHD_suspend_connection(request->connection);
  queue_push(&server->queue, &request->item, now, deadline);
  image_budget_look(&server->decoding);
  return MHD_YES;
}

void request_resume(struct request *request) {
  struct io_loop *loop = request->peer->loop;
  atomic_store(&request->phase, REQUEST_RESUMED);
  io_loop_resume(loop, request);
}

void request_expire(struct request *request) {
  request->queue_ns = clock_now() - request->item.pushed;
  refuse_late(request);
  request_drop_body(request);
  request_resume(request);
}

/* A reply that is larger than a connection's share waits for its client in memory that counts as that of the bodies does. */
static void charge_reply(struct request *request) {
  const struct text *body = &request->reply.body;
  if (body->failed || body->capacity <= REQUEST_SMALL_REPLY) return;
  if (take_buffered(request, 0, body->capacity)) {
    request->reply_bytes = body->capacity;
    return;
  }
  reply_error(&request->reply, 503, "overloaded", request->id,
              "The memory for replies is used up, or your share of it. Try again, ask for fewer images or classes, or raise "
              "max_buffered_bytes.");
  request->reply.retry_after = 1;
}

/* The one reply that needs no memory of its own to be written. The id's characters need no escapes. */
static struct MHD_Response *no_memory_response(struct request *request) {
  static const char message[] = "The server has no memory for this reply. Try again later.";
  char text[REQUEST_MAX_ID + 160];
  int length =
      request->reply.v2
          ? snprintf(text, sizeof text, "{\"error\":\"%s\"}\n", message)
          : snprintf(text, sizeof text, "{\"error\":{\"code\":\"out_of_memory\",\"message\":\"%s\"},\"request_id\":\"%s\"}\n",
                     message, request->id);
  request->reply.status = 503;
  request->reply.content_type = REPLY_JSON;
  request->reply.retry_after = 1;
  request->reply.header_length = 0;
  return MHD_create_response_from_buffer((size_t)length, text, MHD_RESPMEM_MUST_COPY);
}

static struct MHD_Response *response_of(struct request *request) {
  struct reply *reply = &request->reply;
  if (!reply->fixed && reply->body.failed) return no_memory_response(request);
  if (reply->fixed) {
    return MHD_create_response_from_buffer(reply->fixed_length, (void *)(uintptr_t)reply->fixed, MHD_RESPMEM_PERSISTENT);
  }
  size_t length = reply->body.length;
  if (length == 0) return MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
  char *bytes = text_take(&reply->body);
  struct MHD_Response *response = bytes ? MHD_create_response_from_buffer(length, bytes, MHD_RESPMEM_MUST_FREE) : NULL;
  if (!response) free(bytes);
  return response;
}

void request_sum_stages(const struct request *request, struct stats_image *sum) {
  *sum = (struct stats_image){0};
  for (int i = 0; i < request->timing_count; i++) {
    sum->decode_ns += request->timings[i].decode_ns;
    sum->preprocess_ns += request->timings[i].preprocess_ns;
    sum->inference_ns += request->timings[i].inference_ns;
  }
}

static void add_server_timing(const struct request *request, struct MHD_Response *response) {
  static const char *const names[] = {"queue;dur=", ", decode;dur=", ", preprocess;dur=", ", inference;dur=", ", total;dur="};
  struct stats_image sum;
  struct text text = {0};
  request_sum_stages(request, &sum);
  const uint64_t times[] = {request->queue_ns, sum.decode_ns, sum.preprocess_ns, sum.inference_ns, request->total_ns};
  for (int i = 0; i < 5; i++) {
    text_puts(&text, names[i]);
    text_ms(&text, times[i]);
  }
  if (!text.failed) MHD_add_response_header(response, "Server-Timing", text.data);
  text_release(&text);
}

/* What every reply says of its request. */
static void add_headers(const struct request *request, struct MHD_Response *response) {
  char text[TRACE_HEADER_LENGTH + 1];
  if (request->reply.content_type) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, request->reply.content_type);
  }
  MHD_add_response_header(response, "X-Request-Id", request->id);
  if (request->reply.header_length) {
    snprintf(text, sizeof text, "%zu", request->reply.header_length);
    MHD_add_response_header(response, "Inference-Header-Content-Length", text);
  }
  if (request->reply.authenticate)
    MHD_add_response_header(response, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer realm=\"hwgqd\"");
  if (request->reply.page) route_page_headers(&request->reply, response);
  trace_header(&request->trace, text);
  MHD_add_response_header(response, "traceparent", text);
  if (request->queued) add_server_timing(request, response);
}

static void add_allow(struct MHD_Response *response, const char *allow, bool options) {
  char text[64];
  snprintf(text, sizeof text, "%s%s", allow, options ? ", OPTIONS" : "");
  MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, text);
}

enum MHD_Result request_send(struct request *request) {
  struct reply *reply = &request->reply;
  request_drop_body(request);
  if (request->gone) {
    record(request);
    atomic_store(&request->phase, REQUEST_SENT);
    return MHD_NO;
  }
  if (request->queued) {
    request->total_ns = clock_now() - request->received_ns;
    if (reply->status == 200 && request->route->work->end) request->route->work->end(request);
  }
  watchdog_set(&request->server->watchdog, request->peer, PEER_SENDING);
  charge_reply(request);
  struct MHD_Response *response = response_of(request);
  record(request);
  atomic_store(&request->phase, REQUEST_SENT);
  if (!response) return MHD_NO;
  add_headers(request, response);
  if (reply->allow) add_allow(response, reply->allow, reply->status == 204);
  if (reply->retry_after) {
    char seconds[16];
    snprintf(seconds, sizeof seconds, "%d", reply->retry_after);
    MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, seconds);
  }
  if (reply->close || atomic_load(&request->server->state) == SERVER_DRAINING) {
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
  }
  enum MHD_Result result = MHD_queue_response(request->connection, (unsigned)reply->status, response);
  MHD_destroy_response(response);
  return result;
}

void request_finish(struct request *request, enum MHD_RequestTerminationCode why) {
  struct server *server = request->server;
  int code = request->gone ? STATS_CODE_GONE : request->reply.status;
  bool answered = why == MHD_REQUEST_TERMINATED_COMPLETED_OK || why == MHD_REQUEST_TERMINATED_WITH_ERROR;
  if (atomic_load(&request->phase) == REQUEST_NEW && answered) {
    request->reply.status = code = 400; /* libmicrohttpd has answered what it could not understand, some with 413 or 431 */
  } else if (atomic_load(&request->phase) != REQUEST_SENT) {
    /* It ended before there was a reply: the watchdog answered, or the client went away. */
    bool slow = watchdog_timed_out(&server->watchdog, request->peer);
    request->gone = !slow;
    request->reply.status = code = slow ? 408 : STATS_CODE_GONE;
    record(request);
  }
  request_log(request, code, io_loop_lines(request->peer->loop));
  access_end(request);
  request->peer->request = NULL;
  request_drop_body(request);
  registry_release(request->model);
  reply_release(&request->reply);
  free(request->timings);
  buffered_give(&server->buffered, request->item.client, request->reply_bytes);
  watchdog_set(&server->watchdog, request->peer, PEER_IDLE);
  if (request->classifies) atomic_fetch_sub(&server->classifying, 1);
  atomic_fetch_sub(&server->in_flight, 1);
  free(request);
}
