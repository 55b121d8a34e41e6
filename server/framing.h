/* What the headers say about where a request ends and how large it is, before anything else looks at them. */
#ifndef FRAMING_H
#define FRAMING_H

#include "server/request.h"

enum {
  FRAMING_MAX_URI = 8 << 10,      /* a longer one gets 414 */
  FRAMING_MAX_HEADERS = 32 << 10, /* bytes of request line and headers together: 431 */
  FRAMING_MAX_FIELDS = 128,       /* headers: 431 */
  FRAMING_MAX_ARGUMENTS = 128,    /* parameters of a query: 414 */
};

struct framing {
  bool has_body;
  const char *trace; /* the only traceparent header, or NULL */
};

/* Two parties that disagree on where a request ends can be played against each other (request smuggling): what is ambiguous is
 * refused and the connection closed. False: a reply stands. Sets request->content_length. *framing is set also on failure. */
bool framing_check(struct request *request, const char *version, struct framing *framing);

#endif
