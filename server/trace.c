#include "server/trace.h"

#include <stdio.h>
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
    snprintf(trace->trace_id, sizeof trace->trace_id, "%016llx%016llx", (unsigned long long)high,
             (unsigned long long)(low ? low : 1));
  }
  trace->flags &= 1; /* what other bits mean is not known here */
  snprintf(trace->span_id, sizeof trace->span_id, "%016llx", (unsigned long long)(span ? span : 1));
}

void trace_header(const struct trace *trace, char text[TRACE_HEADER_LENGTH + 1]) {
  snprintf(text, TRACE_HEADER_LENGTH + 1, "00-%s-%s-%02x", trace->trace_id, trace->span_id, trace->flags);
}
