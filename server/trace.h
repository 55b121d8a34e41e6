/* W3C Trace Context (https://www.w3.org/TR/trace-context/, level 1): one trace id for all that happens for one user's request
 * on its way through several programs, and a span id for each program's part. */
#ifndef TRACE_H
#define TRACE_H

#include <stdbool.h>
#include <stdint.h>

enum { TRACE_HEADER_LENGTH = 55 /* 00-<32 hex>-<16 hex>-<2 hex> */ };

struct trace {
  char trace_id[33], parent_id[17], span_id[17]; /* lower case hexadecimal; parent_id "" when the trace starts here */
  uint8_t flags;                                 /* bit 0: sampled */
};

/* 16 lower case digits and a zero. */
void trace_hex(char text[17], uint64_t number);
/* Reads a traceparent header. False, and *trace is all zero, when it is not exactly as the specification wants it: the trace
 * then starts anew. Of versions that do not exist yet, the part that version 00 has is taken. */
bool trace_parse(const char *header, struct trace *trace);
/* The header that continues `header` (or NULL) here: a new span of its trace, or a new trace that is not sampled. high, low,
 * span: random. */
void trace_begin(struct trace *trace, const char *header, uint64_t high, uint64_t low, uint64_t span);
/* traceparent of this part, version 00. */
void trace_header(const struct trace *trace, char text[TRACE_HEADER_LENGTH + 1]);

#endif
