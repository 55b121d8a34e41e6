#include "server/scan.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NUMBER = 128 }; /* characters; a double has no more than 25 that matter */

void scan_init(struct scan *scan, uint8_t *bytes, size_t length) {
  *scan = (struct scan){.at = bytes, .end = bytes + length, .start = bytes};
}

bool scan_fail(struct scan *scan, const char *problem) {
  if (!scan->problem) scan->problem = problem;
  return false;
}

static void skip_space(struct scan *scan) {
  while (scan->at < scan->end && (*scan->at == ' ' || *scan->at == '\n' || *scan->at == '\r' || *scan->at == '\t')) scan->at++;
}

/* The next character after white space; 0 at the end. */
static int next(struct scan *scan) {
  skip_space(scan);
  return scan->at < scan->end ? *scan->at : 0;
}

enum scan_kind scan_peek(struct scan *scan) {
  if (scan->problem) return SCAN_NOTHING;
  int c = next(scan);
  switch (c) {
  case '{':
    return SCAN_OBJECT;
  case '[':
    return SCAN_ARRAY;
  case '"':
    return SCAN_STRING;
  case 't':
    return SCAN_TRUE;
  case 'f':
    return SCAN_FALSE;
  case 'n':
    return SCAN_NULL;
  default:
    return c == '-' || (c >= '0' && c <= '9') ? SCAN_NUMBER : SCAN_NOTHING;
  }
}

bool scan_open(struct scan *scan, char bracket) {
  if (scan->problem) return false;
  if (next(scan) != bracket) return scan_fail(scan, bracket == '{' ? "an object was expected" : "an array was expected");
  scan->at++;
  scan->fresh = true;
  return true;
}

bool scan_more(struct scan *scan, char closing) {
  if (scan->problem) return false;
  int c = next(scan);
  bool fresh = scan->fresh;
  scan->fresh = false;
  if (c == closing) {
    scan->at++;
    return false;
  }
  if (fresh) return true;
  if (c != ',') return scan_fail(scan, closing == '}' ? "a comma or } was expected" : "a comma or ] was expected");
  scan->at++;
  return true;
}

static bool is_hex(int c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* The escape at `at`, whose backslash has been seen: its length after the backslash, or 0. */
static size_t escape_length(const uint8_t *at, const uint8_t *end) {
  if (at >= end) return 0;
  if (*at != 'u') return memchr("\"\\/bfnrt", *at, 8) ? 1 : 0;
  if (end - at < 5) return 0;
  for (int i = 1; i < 5; i++) {
    if (!is_hex(at[i])) return 0;
  }
  return 5;
}

bool scan_string(struct scan *scan, struct scan_string *string) {
  if (scan->problem) return false;
  if (next(scan) != '"') return scan_fail(scan, "a string was expected");
  uint8_t *at = scan->at + 1;
  *string = (struct scan_string){.bytes = at};
  while (at < scan->end && *at != '"') {
    if (*at < ' ') return scan_fail(scan, "a control character in a string must be escaped");
    if (*at++ != '\\') continue;
    size_t length = escape_length(at, scan->end);
    if (!length) return scan_fail(scan, "an escape in a string is none of JSON's");
    string->escaped = true;
    at += length;
  }
  if (at >= scan->end) return scan_fail(scan, "a string does not end");
  string->length = (size_t)(at - string->bytes);
  scan->at = at + 1;
  return true;
}

bool scan_key(struct scan *scan, struct scan_string *key) {
  if (!scan_string(scan, key)) return false;
  if (next(scan) != ':') return scan_fail(scan, "a colon was expected");
  scan->at++;
  return true;
}

static const uint8_t *digits(const uint8_t *at, const uint8_t *end) {
  while (at < end && *at >= '0' && *at <= '9') at++;
  return at;
}

/* A number by its parts; `exponent` is that of ten for `mantissa`, the digits without their point. */
struct number {
  bool negative, whole, exact; /* exact: mantissa holds every digit */
  uint64_t mantissa;
  int exponent;
};

static void take_digits(struct number *number, const uint8_t *at, const uint8_t *end) {
  for (; at < end; at++) {
    if (number->mantissa > (UINT64_C(1) << 53) / 10 - 1) number->exact = false;
    if (number->exact) number->mantissa = number->mantissa * 10 + (uint64_t)(*at - '0');
  }
}

/* The end of the number at the cursor, or NULL. */
static const uint8_t *number_end(const struct scan *scan, struct number *number) {
  const uint8_t *at = scan->at, *end = scan->end, *start;
  *number = (struct number){.whole = true, .exact = true};
  if (at < end && *at == '-') number->negative = true, at++;
  start = at;
  at = digits(at, end);
  if (at == start || (*start == '0' && at - start > 1)) return NULL;
  take_digits(number, start, at);
  if (at < end && *at == '.') {
    start = ++at;
    at = digits(at, end);
    if (at == start) return NULL;
    take_digits(number, start, at);
    number->exponent = -(int)(at - start < 1000 ? at - start : 1000);
    number->whole = false;
  }
  if (at < end && (*at == 'e' || *at == 'E')) {
    int exponent = 0, sign = 1;
    if (++at < end && (*at == '+' || *at == '-')) sign = *at++ == '-' ? -1 : 1;
    start = at;
    for (; at < end && *at >= '0' && *at <= '9'; at++) exponent = exponent < 10000 ? exponent * 10 + (*at - '0') : exponent;
    if (at == start) return NULL;
    number->exponent += sign * exponent;
    number->whole = false;
  }
  return at;
}

/* What strtod makes of it, which looks at the locale for its decimal point: the program never sets one, so it is the point. */
static bool slow_number(struct scan *scan, const uint8_t *end, double *value) {
  char text[MAX_NUMBER + 1];
  size_t length = (size_t)(end - scan->at);
  if (length > MAX_NUMBER) return scan_fail(scan, "a number has too many digits");
  memcpy(text, scan->at, length);
  text[length] = 0;
  *value = strtod(text, NULL);
  return true;
}

bool scan_number(struct scan *scan, double *value) {
  /* Powers of ten that a double holds exactly: one multiplication or division then rounds once, as it should. */
  static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
  struct number number;
  if (scan->problem) return false;
  skip_space(scan);
  const uint8_t *end = number_end(scan, &number);
  if (!end) return scan_fail(scan, "a number was expected");
  if (!number.exact || number.exponent < -22 || number.exponent > 22) {
    if (!slow_number(scan, end, value)) return false;
  } else {
    double magnitude = (double)number.mantissa;
    magnitude = number.exponent < 0 ? magnitude / powers[-number.exponent] : magnitude * powers[number.exponent];
    *value = number.negative ? -magnitude : magnitude;
  }
  scan->at += end - scan->at;
  return true;
}

bool scan_integer(struct scan *scan, int64_t *value) {
  struct number number;
  if (scan->problem) return false;
  skip_space(scan);
  const uint8_t *end = number_end(scan, &number);
  if (!end || !number.whole || !number.exact) return scan_fail(scan, "a whole number was expected");
  *value = number.negative ? -(int64_t)number.mantissa : (int64_t)number.mantissa;
  scan->at += end - scan->at;
  return true;
}

static bool literal(struct scan *scan, const char *text) {
  size_t length = strlen(text);
  if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, text, length) != 0) {
    return scan_fail(scan, "there is something that is no JSON value");
  }
  scan->at += length;
  return true;
}

bool scan_bool(struct scan *scan, bool *value) {
  enum scan_kind kind = scan_peek(scan);
  if (kind != SCAN_TRUE && kind != SCAN_FALSE) return scan_fail(scan, "true or false was expected");
  *value = kind == SCAN_TRUE;
  return literal(scan, *value ? "true" : "false");
}

static bool skip_scalar(struct scan *scan) {
  struct scan_string string;
  double number;
  switch (scan_peek(scan)) {
  case SCAN_STRING:
    return scan_string(scan, &string);
  case SCAN_NUMBER:
    return scan_number(scan, &number);
  case SCAN_TRUE:
    return literal(scan, "true");
  case SCAN_FALSE:
    return literal(scan, "false");
  case SCAN_NULL:
    return literal(scan, "null");
  default:
    return scan_fail(scan, "a value was expected");
  }
}

bool scan_skip(struct scan *scan) {
  char closing[SCAN_MAX_DEPTH];
  int depth = 0;
  struct scan_string key;
  for (;;) {
    enum scan_kind kind = scan_peek(scan);
    if (kind == SCAN_OBJECT || kind == SCAN_ARRAY) {
      if (depth == SCAN_MAX_DEPTH) return scan_fail(scan, "arrays and objects are nested too deeply");
      closing[depth++] = kind == SCAN_OBJECT ? '}' : ']';
      scan_open(scan, kind == SCAN_OBJECT ? '{' : '[');
    } else if (!skip_scalar(scan)) {
      return false;
    }
    while (depth && !scan_more(scan, closing[depth - 1])) {
      if (scan->problem) return false;
      depth--;
    }
    if (depth == 0) return !scan->problem;
    if (closing[depth - 1] == '}' && !scan_key(scan, &key)) return false;
  }
}

bool scan_finish(struct scan *scan) {
  if (scan->problem) return false;
  return next(scan) == 0 && scan->at == scan->end ? true : scan_fail(scan, "there is something after the end");
}

bool scan_equals(const struct scan_string *string, const char *text) {
  return string->length == strlen(text) && memcmp(string->bytes, text, string->length) == 0;
}

static uint32_t hex4(const uint8_t *at) {
  uint32_t value = 0;
  for (int i = 0; i < 4; i++) {
    value = value * 16 + (uint32_t)(at[i] <= '9' ? at[i] - '0' : (at[i] | 32) - 'a' + 10);
  }
  return value;
}

static uint8_t *put_utf8(uint8_t *to, uint32_t c) {
  if (c < 0x80) {
    *to++ = (uint8_t)c;
  } else if (c < 0x800) {
    *to++ = (uint8_t)(0xc0 | c >> 6);
    *to++ = (uint8_t)(0x80 | (c & 63));
  } else if (c < 0x10000) {
    *to++ = (uint8_t)(0xe0 | c >> 12);
    *to++ = (uint8_t)(0x80 | (c >> 6 & 63));
    *to++ = (uint8_t)(0x80 | (c & 63));
  } else {
    *to++ = (uint8_t)(0xf0 | c >> 18);
    *to++ = (uint8_t)(0x80 | (c >> 12 & 63));
    *to++ = (uint8_t)(0x80 | (c >> 6 & 63));
    *to++ = (uint8_t)(0x80 | (c & 63));
  }
  return to;
}

/* The character of the \u escape whose digits begin at *at, which moves behind it (and behind its low surrogate). */
static uint32_t escaped_character(const uint8_t **at, const uint8_t *end) {
  uint32_t c = hex4(*at);
  *at += 4;
  if (c < 0xd800 || c > 0xdfff) return c;
  if (c < 0xdc00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
    uint32_t low = hex4(*at + 2);
    if (low >= 0xdc00 && low <= 0xdfff) {
      *at += 6;
      return 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    }
  }
  return 0xfffd;
}

void scan_unescape(struct scan_string *string) {
  if (!string->escaped) return;
  const uint8_t *at = string->bytes, *end = at + string->length;
  uint8_t *to = string->bytes; /* never ahead of `at`: an escape is longer than what it stands for */
  while (at < end) {
    if (*at != '\\') {
      *to++ = *at++;
      continue;
    }
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    const uint8_t c = at[1];
    at += 2;
    if (c == 'u') {
      to = put_utf8(to, escaped_character(&at, end));
    } else {
      const char *name = strchr(names, c);
      *to++ = name ? (uint8_t)values[name - names] : c;
    }
  }
  string->length = (size_t)(to - string->bytes);
  string->escaped = false;
}

bool scan_copy(struct scan_string *string, char *text, size_t size) {
  scan_unescape(string);
  if (string->length >= size || memchr(string->bytes, 0, string->length)) return false;
  memcpy(text, string->bytes, string->length);
  text[string->length] = 0;
  return true;
}

static int base64_value(int c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool scan_base64(uint8_t *bytes, size_t *length) {
  size_t count = *length, written = 0;
  uint32_t bits = 0;
  for (int i = 0; i < 2 && count && count % 4 == (i ? 3u : 0u) && bytes[count - 1] == '='; i++) count--;
  if (count % 4 == 1) return false;
  for (size_t i = 0; i < count; i++) {
    int value = base64_value(bytes[i]);
    if (value < 0) return false;
    bits = bits << 6 | (uint32_t)value;
    /* after 2, 3 and 4 characters of a group there is one more byte */
    if (i % 4) bytes[written++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
  }
  if (bits & ((1u << (count % 4 == 2 ? 4 : count % 4 == 3 ? 2 : 0)) - 1)) return false; /* bits that no byte has */
  *length = written;
  return true;
}
