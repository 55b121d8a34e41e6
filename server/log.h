/* The log: one line per event on standard error, as text or as JSON. A write has whole lines and, when it has several, at most
 * LOG_ATOMIC bytes, so lines of different threads never mix. Writing never waits: what a full pipe or a terminal that stands
 * still does not take is lost, and the log says how much when it goes on. */
#ifndef LOG_H
#define LOG_H

#include "models/classify/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };
enum log_format { LOG_AUTO, LOG_TEXT, LOG_JSON }; /* auto: text on a terminal, JSON otherwise */

enum { LOG_ATOMIC = 4096 }; /* what a pipe takes in one piece: PIPE_BUF */

/* What changes while lines are written. */
struct log_output {
  pthread_mutex_t mutex;
  uint64_t unreported; /* lines that were lost and of which the log does not tell yet */
  bool torn;           /* the last line has no end */
  _Atomic uint64_t lost;
};

struct log {
  int fd;
  bool is_own;                                     /* opened by log_init, not the caller's */
  enum { LOG_FILE, LOG_PACKETS, LOG_STREAM } kind; /* a regular one; a socket; a pipe or a terminal */
  struct log_output own, *output;                  /* a pointer to it: writing a line does not change the log for who writes */
  enum log_format format;                          /* LOG_TEXT or LOG_JSON */
  _Atomic int level;                               /* enum log_level: lines below it are dropped. May be changed at any time. */
};

/* A value beside the message. Made by the log_* functions below; the strings are borrowed for the call. */
struct log_field {
  enum { LOG_FIELD_STRING, LOG_FIELD_INTEGER, LOG_FIELD_MS } kind;
  const char *name;
  const char *string;
  int64_t integer; /* for LOG_FIELD_MS: nanoseconds, written as milliseconds */
};

const char *log_level_name(int level);
/* A pipe or a terminal is opened once more where that is possible: O_NONBLOCK is then for this process alone, and not for
 * others that have it as their standard error, too. A pipe is made larger, for readers that are late for a moment. `log` must
 * stay where it is. */
void log_init(struct log *log, int fd, enum log_format format, enum log_level level);
/* `fd` stays open. */
void log_release(struct log *log);
/* Lines that were lost so far. */
uint64_t log_lost(const struct log *log);

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
