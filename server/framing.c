#include "server/framing.h"

#include <stdlib.h>
#include <string.h>

struct fields {
  int count, lengths, encodings, hosts, traces; /* how many such headers there are */
  bool bad, bad_length, bad_encoding;
  const char *trace;
  uint64_t length;
};

/* A name is a token (RFC 9110, 5.1), which "Content-Length " is not, and a value has no control characters but tabs. Of a line
 * that goes on in the next one, libmicrohttpd 0.9.75 appends the rest to the name: Content-Length6. */
static bool field_valid(const char *name, const char *value) {
  static const char token[] = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  static const char *const framing_names[] = {"Content-Length", "Transfer-Encoding"};
  size_t length = strspn(name, token);
  if (length == 0 || name[length]) return false;
  for (size_t i = 0; i < sizeof framing_names / sizeof framing_names[0]; i++) {
    size_t size = strlen(framing_names[i]);
    if (length > size && strncasecmp(name, framing_names[i], size) == 0) return false;
  }
  for (const char *c = value ? value : ""; *c; c++) {
    if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f) return false;
  }
  return true;
}

static enum MHD_Result look_at_header(void *closure, enum MHD_ValueKind kind, const char *name, const char *value) {
  struct fields *fields = closure;
  (void)kind;
  fields->count++;
  fields->bad |= !field_valid(name, value);
  if (strcasecmp(name, "Host") == 0) {
    fields->hosts++;
  } else if (strcasecmp(name, "traceparent") == 0) {
    fields->traces++;
    fields->trace = value;
  } else if (strcasecmp(name, "Content-Length") == 0) {
    fields->lengths++;
    size_t digits = value ? strspn(value, "0123456789") : 0;
    fields->bad_length |= digits == 0 || digits > 18 || value[digits];
    fields->length = fields->bad_length ? 0 : strtoull(value, NULL, 10);
  } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
    fields->encodings++;
    fields->bad_encoding |= !value || strcasecmp(value, "chunked") != 0;
  }
  return MHD_YES;
}

/* What is wrong, or NULL. */
static const char *problem_of(const struct fields *fields, const char *version) {
  bool old = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;
  if (fields->bad) {
    return "A header has a name with spaces or signs, a value with control characters, or goes on in the next line.";
  }
  if (fields->hosts > 1 || (fields->hosts == 0 && !old)) return "An HTTP/1.1 request must have one Host header.";
  if (fields->lengths && fields->encodings) {
    return "Content-Length and Transfer-Encoding stand in one request. Send only one of them.";
  }
  if (fields->lengths > 1 || fields->encodings > 1) {
    return "Content-Length or Transfer-Encoding stands twice. Send it once.";
  }
  if (fields->bad_length) return "Content-Length is no number of bytes.";
  if (fields->bad_encoding) return "This Transfer-Encoding is not known here. Use chunked, or Content-Length.";
  if (fields->encodings && old) return "HTTP/1.0 has no Transfer-Encoding. Use Content-Length.";
  return NULL;
}

static bool check_size(struct request *request, int fields) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
  if (request->uri_length > FRAMING_MAX_URI) {
    reply_error(&request->reply, 414, "uri_too_long", request->id, "The path and query are longer than %d bytes. Shorten them.",
                FRAMING_MAX_URI);
  } else if (fields > FRAMING_MAX_FIELDS || (info && info->header_size > FRAMING_MAX_HEADERS)) {
    reply_error(&request->reply, 431, "headers_too_large", request->id,
                "A request may have %d headers and %d bytes of them. Send fewer.", FRAMING_MAX_FIELDS, FRAMING_MAX_HEADERS);
  } else {
    return true;
  }
  request->reply.close = true;
  return false;
}

bool framing_check(struct request *request, const char *version, struct framing *framing) {
  struct fields fields = {0};
  MHD_get_connection_values(request->connection, MHD_HEADER_KIND, look_at_header, &fields);
  framing->has_body = fields.encodings || fields.length;
  framing->trace = fields.traces == 1 ? fields.trace : NULL;
  request->content_length = fields.length;
  const char *problem = request->bad_uri ? "The path has spaces or control characters. Write them as %20 and so on."
                                         : problem_of(&fields, version);
  if (!problem) return check_size(request, fields.count);
  reply_error(&request->reply, 400, "bad_framing", request->id, "%s", problem);
  request->reply.close = true;
  return false;
}
