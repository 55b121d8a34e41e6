/* The log: one line per event on standard error, as text or as JSON. A write has whole lines and, when it has several, at most
 * LOG_ATOMIC bytes, so lines of different threads never mix. */
#ifndef LOG_H
#define LOG_H

#include "models/classify/text.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON }; /* auto: text on a terminal, JSON otherwise */

enum { LOG_ATOMIC = 4096 }; /* what a pipe takes in one piece: PIPE_BUF */

struct log {
  int fd;
  enum log_format format; /* LOG_TEXT or LOG_JSON */
  _Atomic int level;      /* enum log_level: lines below it are dropped. May be changed at any time. */
};

/* A value beside the message. Made by the log_* functions below; the strings are borrowed for the call. */
struct log_field {
  enum { LOG_FIELD_STRING, LOG_FIELD_INTEGER, LOG_FIELD_MS } kind;
  const char *name;
  const char *string;
  int64_t integer; /* for LOG_FIELD_MS: nanoseconds, written as milliseconds */
};

const char *log_level_name(int level);
void log_init(struct log *log, int fd, enum log_format format, enum log_level level);

static inline struct log_field log_string(const char *name, const char *value) {
  return (struct log_field){.kind = LOG_FIELD_STRING, .name = name, .string = value};
}
static inline struct log_field log_integer(const char *name, int64_t value) {
  return (struct log_field){.kind = LOG_FIELD_INTEGER, .name = name, .integer = value};
}
static inline struct log_field log_ms(const char *name, uint64_t ns) {
  return (struct log_field){.kind = LOG_FIELD_MS, .name = name, .integer = (int64_t)ns};
}

/* Writes one line. A field whose string is NULL is left out. */
void log_write(const struct log *log, enum log_level level, const char *message, const struct log_field *fields, int count);
/* Keeps the line in `lines` and writes what is there when it would get too long. The rest is written by log_flush. */
void log_gather(const struct log *log, enum log_level level, const char *message, const struct log_field *fields, int count,
                struct text *lines);
void log_flush(const struct log *log, struct text *lines);
#define log_event(log, level, message, ...)                                                                                    \
  log_write((log), (level), (message), (const struct log_field[]){__VA_ARGS__},                                                \
            (int)(sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field)))
/* A line without fields, printf-formatted. */
void log_line(const struct log *log, enum log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
