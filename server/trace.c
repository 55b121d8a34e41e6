#include "server/trace.h"

#include <string.h>

enum { TRACE_AT = 3, TRACE_DIGITS = 32, SPAN_AT = 36, SPAN_DIGITS = 16, FLAGS_AT = 53 };

static bool is_hex(const char *text, size_t length) {
  return strspn(text, "0123456789abcdef") >= length;
}

static bool all_zero(const char *text, size_t length) {
  return strspn(text, "0") >= length;
}

static int digit(char c) {
  return c <= '9' ? c - '0' : c - 'a' + 10;
}

void trace_hex(char text[17], uint64_t number) {
  for (int i = 15; i >= 0; i--, number >>= 4) text[i] = "0123456789abcdef"[number & 15];
  text[16] = 0;
}

bool trace_parse(const char *header, struct trace *trace) {
  *trace = (struct trace){0};
  /* Each test stops at the end of the text, so the next one stays within it. */
  if (!is_hex(header, 2) || header[2] != '-' || memcmp(header, "ff", 2) == 0) return false;
  if (!is_hex(header + TRACE_AT, TRACE_DIGITS) || header[SPAN_AT - 1] != '-') return false;
  if (!is_hex(header + SPAN_AT, SPAN_DIGITS) || header[FLAGS_AT - 1] != '-') return false;
  if (!is_hex(header + FLAGS_AT, 2)) return false;
  char end = header[TRACE_HEADER_LENGTH];
  if (end && (memcmp(header, "00", 2) == 0 || end != '-')) return false;
  if (all_zero(header + TRACE_AT, TRACE_DIGITS) || all_zero(header + SPAN_AT, SPAN_DIGITS)) return false;
  memcpy(trace->trace_id, header + TRACE_AT, TRACE_DIGITS);
  memcpy(trace->parent_id, header + SPAN_AT, SPAN_DIGITS);
  trace->flags = (uint8_t)(digit(header[FLAGS_AT]) << 4 | digit(header[FLAGS_AT + 1]));
  return true;
}

void trace_begin(struct trace *trace, const char *header, uint64_t high, uint64_t low, uint64_t span) {
  if (!header || !trace_parse(header, trace)) {
    *trace = (struct trace){0};
    trace_hex(trace->trace_id, high);
    trace_hex(trace->trace_id + SPAN_DIGITS, low ? low : 1);
  }
  trace->flags &= 1; /* what other bits mean is not known here */
  trace_hex(trace->span_id, span ? span : 1);
}

void trace_header(const struct trace *trace, char text[TRACE_HEADER_LENGTH + 1]) {
  memcpy(text, "00-", TRACE_AT);
  memcpy(text + TRACE_AT, trace->trace_id, TRACE_DIGITS);
  text[SPAN_AT - 1] = '-';
  memcpy(text + SPAN_AT, trace->span_id, SPAN_DIGITS);
  memcpy(text + FLAGS_AT - 1, trace->flags ? "-01" : "-00", sizeof "-00");
}
