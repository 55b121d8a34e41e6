/* What the headers say about where a request ends and how large it is, before anything else looks at them. */
#ifndef FRAMING_H
#define FRAMING_H

#include "server/request.h"

/* A request at all of them fits in half of HTTP_CONNECTION_MEMORY, with libmicrohttpd's records (64 bytes for each header and
 * parameter) and the reply's headers. The other half is for what is refused: libmicrohttpd answers by itself, or not at all,
 * what does not fit. */
enum {
  FRAMING_MAX_URI = 8000,         /* a longer one gets 414; RFC 9112 recommends no less */
  FRAMING_MAX_HEADERS = 10 << 10, /* bytes of request line and headers together: 431 */
  FRAMING_MAX_FIELDS = 64,        /* headers: 431 */
  FRAMING_MAX_ARGUMENTS = 64,     /* parameters of a query: 414 */
};

struct framing {
  bool has_body;
  const char *trace; /* the only traceparent header, or NULL */
};

/* Two parties that disagree on where a request ends can be played against each other (request smuggling): what is ambiguous is
 * refused and the connection closed. False: a reply stands. Sets request->content_length. *framing is set also on failure. */
bool framing_check(struct request *request, const char *version, struct framing *framing);

#endif
