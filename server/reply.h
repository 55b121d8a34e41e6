/* The answer to one request, before it goes to libmicrohttpd. */
#ifndef REPLY_H
#define REPLY_H

#include "models/classify/text.h"

#define REPLY_JSON "application/json"

struct reply {
  int status;        /* HTTP status; 0: no reply yet */
  struct text body;  /* owned */
  const char *fixed; /* instead of body: bytes that live as long as the program */
  size_t fixed_length;
  const char *content_type; /* static */
  const char *allow;        /* static: Allow header of a 405 */
  int retry_after;          /* seconds; 0: no such header */
  bool close;               /* the connection ends after this reply */
  bool authenticate;        /* WWW-Authenticate: Bearer */
  bool v2;                  /* errors are {"error":"..."}, as the Open Inference Protocol has them */
  bool page, packed;        /* a file of the page, in gzip form: route_page_headers has more to say */
  char etag[24];            /* of such a file, with its quotes */
  size_t header_length;     /* of the JSON before binary tensors: Inference-Header-Content-Length; 0: no such header */
};

/* {"error":{"code":...,"message":...},"request_id":...}, or as `v2` says, replacing what was there. `code` is snake_case and
 * static; the message is a sentence that says what to do. */
void reply_error(struct reply *reply, int status, const char *code, const char *request_id, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
void reply_release(struct reply *reply);
/* A whole HTTP/1.1 answer as bytes, for connections on which libmicrohttpd cannot answer any more. */
void reply_raw(const struct reply *reply, const char *request_id, struct text *text);

#endif
