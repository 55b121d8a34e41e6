/* multipart/form-data (RFC 7578, RFC 2046) over a body that is in memory: parts are slices of it, nothing is copied. Strict:
 * what is not well-formed is refused with a sentence, and never read past its end. */
#ifndef MULTIPART_H
#define MULTIPART_H

#include "engine/hwgq.h"

enum {
  MULTIPART_MAX_BOUNDARY = 70, /* RFC 2046 */
  MULTIPART_MAX_NAME = 63,
  MULTIPART_MAX_HEADER_BYTES = 8192, /* of one part */
};

struct multipart_part {
  char name[MULTIPART_MAX_NAME + 1]; /* the form field; "" when the part has no name */
  const uint8_t *data;
  size_t length;
};

/* The boundary parameter of a Content-Type header, zero-terminated. */
enum hwgq_status multipart_boundary(const char *content_type, char boundary[MULTIPART_MAX_BOUNDARY + 1],
                                    struct hwgq_error *error);
/* Fills parts[0..*count). More than `capacity` parts are HWGQ_ERROR_LIMIT, everything else wrong is HWGQ_ERROR_FORMAT. */
enum hwgq_status multipart_parse(const uint8_t *body, size_t length, const char *boundary, struct multipart_part *parts,
                                 int capacity, int *count, struct hwgq_error *error);

#endif
