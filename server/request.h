/* One request from its first line to its reply: identification, body, and the hand-over between I/O thread and worker.
 *
 * Life: request_create (first line) -> request_begin (headers) -> request_receive (body) -> request_complete (last byte). A
 * classification is then suspended and queued; a worker (or the watchdog, at its deadline) fills reply and resumes it;
 * request_send hands the reply to libmicrohttpd; request_finish (sent, or the client has gone) logs and frees.
 * libmicrohttpd itself answers what it cannot make a request of (a malformed request line, length or chunk; headers beyond its
 * buffer of HTTP_CONNECTION_MEMORY): such replies are its own short HTML, without a request id, and the connection is closed.
 * Exactly one thread owns a request at any time: the connection's I/O thread, except between queue_push and resuming. */
#ifndef REQUEST_H
#define REQUEST_H

#include "models/image/image.h"
#include "server/auth.h"
#include "server/multipart.h"
#include "server/reply.h"
#include "server/server.h"
#include "server/trace.h"

#include <microhttpd.h>

enum request_phase {
  REQUEST_NEW,       /* the request line has arrived */
  REQUEST_RECEIVING, /* the body arrives */
  REQUEST_WAITING,   /* suspended: in the queue or with a worker */
  REQUEST_RESUMED,   /* `reply` is there, or `gone` */
  REQUEST_SENT,      /* handed to libmicrohttpd */
};

enum {
  REQUEST_MAX_ID = 128,
  REQUEST_LOG_PATH = 200,
  REQUEST_MAX_VERSION = 20,
  REQUEST_OTHER_PARTS = 16,       /* fields beside images that one multipart body may have */
  REQUEST_SMALL_REPLY = 64 << 10, /* a larger reply counts in `buffered` until it is sent */
};

struct request_image {
  const uint8_t *bytes; /* in the body */
  size_t length;
};

struct request {
  struct queue_item item; /* first: the queue's items are requests */
  struct server *server;
  struct MHD_Connection *connection;
  struct peer *peer;
  _Atomic int phase; /* enum request_phase */
  char id[REQUEST_MAX_ID + 1];
  struct trace trace;
  char method[16], path[REQUEST_LOG_PATH + 1]; /* for the log, cut to length */
  bool bad_path;                               /* has a zero byte, which would cut it short */
  bool bad_uri;                                /* has spaces or control characters */
  size_t uri_length;                           /* with the query, as it was sent */
  const struct route *route;                   /* NULL: no such path */
  char model_name[CONFIG_MAX_NAME + 2];        /* "": the default one; what is longer than a name can be is cut and is none */
  char model_version[REQUEST_MAX_VERSION + 1]; /* "": any */
  char key_name[AUTH_MAX_NAME + 1];            /* of its API key; "": none */
  uint64_t begun_ns, timeout_ns;               /* clock_now() of its headers; how long the client waits, 0: not told */
  bool limited;                                /* counts among its client's requests in progress */
  int top_k;                                   /* 0: not given yet */
  bool classifies;                             /* counts in hwgqd_requests_total */
  bool gone;                                   /* the client closed the connection while it waited */

  /* body */
  uint8_t *body;
  size_t body_length, body_capacity;
  uint64_t content_length; /* as stated; 0 when not stated */
  uint64_t received;       /* bytes so far, kept or discarded */
  uint64_t reply_bytes;    /* that the reply takes of `buffered` */
  uint64_t discard_limit;  /* when a reply stands already, so much more is read before the connection is cut */

  /* classification */
  struct served_model *model; /* reference */
  struct multipart_part *parts;
  struct request_image *images; /* image_count, in order */
  int image_count;
  bool several;                /* the reply has `results` */
  struct stats_image *timings; /* of the images that were classified */
  int timing_count;
  _Atomic uint64_t spent_ns; /* that its images kept workers so far, also those that failed: every worker adds */

  struct reply reply;
  uint64_t received_ns, queue_ns, total_ns;
  bool queued;
};

struct request *request_create(struct server *server, struct MHD_Connection *connection, const char *uri);
enum MHD_Result request_begin(struct request *request, const char *path, const char *method, const char *version);
enum MHD_Result request_receive(struct request *request, const char *data, size_t length);
enum MHD_Result request_complete(struct request *request);
enum MHD_Result request_send(struct request *request);
void request_finish(struct request *request, enum MHD_RequestTerminationCode why);

/* By the thread that took the request from the queue: `reply` stands, wake the connection. */
void request_resume(struct request *request);
/* As a reply: 504, no work was done. */
void request_expire(struct request *request);
/* Whether the client has closed its connection. A half-closed one counts as closed: HTTP clients do not do that. By the owner,
 * while the connection is suspended: its descriptor stays open. */
bool request_abandoned(const struct request *request);
/* For struct image_limits: whether other clients wait for the worker that waits for memory for this request. */
bool request_is_in_the_way(void *request);
/* Frees the body, and what points into it, as soon as it has been used. */
void request_drop_body(struct request *request);
/* A header of the request, or NULL. */
const char *request_header(const struct request *request, const char *name);
/* The times of all its images together. */
void request_sum_stages(const struct request *request, struct stats_image *sum);
const char *request_query(const struct request *request, const char *name);

#endif
