#include "server/multipart.h"

#include <string.h>
#include <strings.h>

/* A position in bytes that are not zero-terminated. */
struct cursor {
  const char *at, *end;
};

static bool is_token(char c) {
  return c > 0x20 && c < 0x7f && !strchr("()<>@,;:\\\"/[]?=", c);
}

static void skip_blanks(struct cursor *cursor) {
  while (cursor->at < cursor->end && (*cursor->at == ' ' || *cursor->at == '\t')) cursor->at++;
}

/* One `name=value` or `name="value"` of a header. A value that does not fit `size` fails; value NULL skips it. */
static bool read_value(struct cursor *cursor, char *value, size_t size) {
  size_t length = 0;
  bool quoted = cursor->at < cursor->end && *cursor->at == '"';
  if (quoted) cursor->at++;
  while (cursor->at < cursor->end && (quoted ? *cursor->at != '"' : is_token(*cursor->at))) {
    char c = *cursor->at++;
    /* Only \" and \\ are escapes: some clients send Windows paths in file names as they are. */
    if (quoted && c == '\\' && cursor->at < cursor->end && (*cursor->at == '"' || *cursor->at == '\\')) c = *cursor->at++;
    if (!value) continue;
    if (length + 1 >= size || !c) return false;
    value[length++] = c;
  }
  if (quoted) {
    if (cursor->at >= cursor->end) return false;
    cursor->at++;
  }
  if (value) value[length] = 0;
  return true;
}

/* Reads `; name=value` pairs to the end of the header and keeps the value of `wanted`. *found tells whether it was there.
 * False when they are malformed or `wanted` stands there twice. */
static bool read_parameters(struct cursor cursor, const char *wanted, char *value, size_t size, bool *found) {
  *found = false;
  for (;;) {
    skip_blanks(&cursor);
    if (cursor.at == cursor.end) return true;
    if (*cursor.at != ';') return false;
    cursor.at++;
    skip_blanks(&cursor);
    if (cursor.at == cursor.end) return true;
    const char *name = cursor.at;
    while (cursor.at < cursor.end && is_token(*cursor.at)) cursor.at++;
    size_t length = (size_t)(cursor.at - name);
    skip_blanks(&cursor);
    if (length == 0 || cursor.at == cursor.end || *cursor.at != '=') return false;
    cursor.at++;
    skip_blanks(&cursor);
    bool match = length == strlen(wanted) && strncasecmp(name, wanted, length) == 0;
    if (match && *found) return false;
    if (!read_value(&cursor, match ? value : NULL, size)) return false;
    *found |= match;
  }
}

enum hwgq_status multipart_boundary(const char *content_type, char boundary[MULTIPART_MAX_BOUNDARY + 1],
                                    struct hwgq_error *error) {
  const char *semicolon = strchr(content_type, ';');
  bool found = false;
  if (semicolon) {
    struct cursor cursor = {.at = semicolon, .end = content_type + strlen(content_type)};
    if (!read_parameters(cursor, "boundary", boundary, MULTIPART_MAX_BOUNDARY + 1, &found)) found = false;
  }
  if (!found || !boundary[0] || boundary[strlen(boundary) - 1] == ' ') {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                     "the multipart Content-Type has no usable boundary of 1 to %d characters: let the client set this header",
                     MULTIPART_MAX_BOUNDARY);
  }
  for (const char *c = boundary; *c; c++) {
    if (*c < 0x20 || *c > 0x7e) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the multipart boundary has a control character");
  }
  return HWGQ_OK;
}

/* One header line of a part. */
static enum hwgq_status read_header(const char *line, const char *end, struct multipart_part *part, struct hwgq_error *error) {
  const char *colon = memchr(line, ':', (size_t)(end - line));
  if (!colon || colon == line)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a header line of a multipart part has no name and colon");
  size_t length = (size_t)(colon - line);
  struct cursor value = {.at = colon + 1, .end = end};
  skip_blanks(&value);
  if (length == 19 && strncasecmp(line, "Content-Disposition", length) == 0) {
    bool found;
    size_t size = (size_t)(value.end - value.at);
    if (size < 9 || strncasecmp(value.at, "form-data", 9) != 0) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a part's Content-Disposition is not form-data");
    }
    value.at += 9;
    if (!read_parameters(value, "name", part->name, sizeof part->name, &found)) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a part's Content-Disposition is malformed or its name is longer than %d",
                       MULTIPART_MAX_NAME);
    }
    if (!found) part->name[0] = 0;
  } else if (length == 25 && strncasecmp(line, "Content-Transfer-Encoding", length) == 0) {
    size_t size = (size_t)(value.end - value.at);
    if (!(size >= 6 && strncasecmp(value.at, "binary", 6) == 0) && !(size >= 4 && strncasecmp(value.at, "8bit", 4) == 0) &&
        !(size >= 4 && strncasecmp(value.at, "7bit", 4) == 0)) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                       "a part's Content-Transfer-Encoding is not binary: send the bytes as they are");
    }
  }
  return HWGQ_OK;
}

/* The header block of a part that begins at *at; leaves *at behind the empty line. */
static enum hwgq_status read_headers(const char **at, const char *end, struct multipart_part *part, struct hwgq_error *error) {
  const char *start = *at, *line = *at;
  part->name[0] = 0;
  for (;;) {
    const char *newline = memmem(line, (size_t)(end - line), "\r\n", 2);
    if (!newline || newline - start > MULTIPART_MAX_HEADER_BYTES) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a multipart part's headers do not end within the body or %d bytes",
                       MULTIPART_MAX_HEADER_BYTES);
    }
    if (newline == line) {
      *at = newline + 2;
      return HWGQ_OK;
    }
    enum hwgq_status status = read_header(line, newline, part, error);
    if (status) return status;
    line = newline + 2;
  }
}

/* What follows a delimiter: *last for "--", else blanks and a line end, which are skipped. */
static bool after_delimiter(const char **at, const char *end, bool *last) {
  const char *s = *at;
  *last = end - s >= 2 && s[0] == '-' && s[1] == '-';
  if (*last) return true;
  while (s < end && (*s == ' ' || *s == '\t')) s++;
  if (end - s < 2 || s[0] != '\r' || s[1] != '\n') return false;
  *at = s + 2;
  return true;
}

enum hwgq_status multipart_parse(const uint8_t *body, size_t length, const char *boundary, struct multipart_part *parts,
                                 int capacity, int *count, struct hwgq_error *error) {
  char delimiter[MULTIPART_MAX_BOUNDARY + 5] = "\r\n--";
  size_t size = strlen(boundary) + 4;
  const char *at = (const char *)body, *end = at + length;
  bool last;
  int used = 0;
  memcpy(delimiter + 4, boundary, size - 4);
  /* The first delimiter may stand at the very start, without a line end before it. */
  if (length >= size - 2 && memcmp(at, delimiter + 2, size - 2) == 0) {
    at += size - 2;
  } else {
    at = length ? memmem(at, length, delimiter, size) : NULL;
    if (!at) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the multipart body does not contain its boundary");
    at += size;
  }
  for (;;) {
    if (!after_delimiter(&at, end, &last)) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "a multipart boundary is not followed by a line end");
    }
    if (last) break;
    if (used == capacity)
      return hwgq_fail(error, HWGQ_ERROR_LIMIT, "the form has more than %d fields: send several requests", capacity);
    struct multipart_part *part = &parts[used];
    enum hwgq_status status = read_headers(&at, end, part, error);
    if (status) return status;
    /* An empty part: its closing delimiter begins with the line end that closed the headers. */
    const char *from = end - at >= (ptrdiff_t)size - 2 && memcmp(at, delimiter + 2, size - 2) == 0 ? at - 2 : at;
    const char *next = memmem(from, (size_t)(end - from), delimiter, size);
    if (!next) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the multipart body ends before its last boundary: it was cut off");
    part->data = (const uint8_t *)at;
    part->length = next > at ? (size_t)(next - at) : 0;
    at = next + size;
    used++;
  }
  *count = used;
  return HWGQ_OK;
}
