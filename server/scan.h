/* Reads JSON where it lies, value by value, without building a tree: a request body of 16 MiB of numbers would take half a
 * gigabyte as one, and the memory of a request has a ceiling. The grammar is RFC 8259's.
 *
 * The cursor moves over the text; after a mistake `problem` says what it is, and every function returns false from then on, so
 * that callers look once at the end of a loop. */
#ifndef SCAN_H
#define SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SCAN_MAX_DEPTH = 64 };

struct scan {
  uint8_t *at, *end;
  const uint8_t *start;
  const char *problem; /* static; NULL while all is well */
  bool fresh;          /* an array or object was opened and has not given anything yet */
};

/* A string as it stands between its quotes, escapes and all. */
struct scan_string {
  uint8_t *bytes;
  size_t length;
  bool escaped; /* has backslashes */
};

enum scan_kind { SCAN_NOTHING, SCAN_OBJECT, SCAN_ARRAY, SCAN_STRING, SCAN_NUMBER, SCAN_TRUE, SCAN_FALSE, SCAN_NULL };

void scan_init(struct scan *scan, uint8_t *bytes, size_t length);
/* Of the next value, by its first character; SCAN_NOTHING at the end and before anything that begins no value. */
enum scan_kind scan_peek(struct scan *scan);
/* Enters an array ('[') or object ('{'). Then:  while (scan_more(scan, ']')) read one element; or
 * while (scan_more(scan, '}') && scan_key(scan, &key)) read the member's value. Leaves at the closing bracket. */
bool scan_open(struct scan *scan, char bracket);
bool scan_more(struct scan *scan, char closing);
bool scan_key(struct scan *scan, struct scan_string *key);
bool scan_string(struct scan *scan, struct scan_string *string);
bool scan_number(struct scan *scan, double *value);
/* A number without fraction and exponent, below 2^53 / 10 or so. */
bool scan_integer(struct scan *scan, int64_t *value);
bool scan_bool(struct scan *scan, bool *value);
/* Passes over one value of any kind. */
bool scan_skip(struct scan *scan);
/* Nothing but white space is left. */
bool scan_finish(struct scan *scan);
bool scan_fail(struct scan *scan, const char *problem); /* false */

bool scan_equals(const struct scan_string *string, const char *text);
/* Replaces escapes by what they stand for, where they lie. A surrogate without its other half becomes U+FFFD. */
void scan_unescape(struct scan_string *string);
/* Unescapes and copies, zero-terminated; false when it does not fit or holds a zero. */
bool scan_copy(struct scan_string *string, char *text, size_t size);
/* The bytes for which a base64 text (RFC 4648; padding may be missing) stands, where it lies: *length becomes theirs. False
 * when it is none. */
bool scan_base64(uint8_t *bytes, size_t *length);

#endif
