#include "server/log.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warning", "error"};

const char *log_level_name(int level) {
  return level >= LOG_DEBUG && level <= LOG_ERROR ? level_names[level] : "";
}

void log_init(struct log *log, int fd, enum log_format format, enum log_level level) {
  if (format == LOG_AUTO) format = isatty(fd) ? LOG_TEXT : LOG_JSON;
  log->fd = fd;
  log->format = format;
  atomic_init(&log->level, level);
}

static void write_json(struct text *text, const char *stamp, enum log_level level, const char *message,
                       const struct log_field *fields, int count) {
  text_puts(text, "{\"time\":\"");
  text_puts(text, stamp);
  text_puts(text, "\",\"level\":\"");
  text_puts(text, level_names[level]);
  text_puts(text, "\",\"message\":");
  text_json_string(text, message);
  for (int i = 0; i < count; i++) {
    const struct log_field *field = &fields[i];
    if (field->kind == LOG_FIELD_STRING && !field->string) continue;
    text_puts(text, ",\"");
    text_puts(text, field->name);
    text_puts(text, "\":");
    switch (field->kind) {
    case LOG_FIELD_STRING:
      text_json_string(text, field->string);
      break;
    case LOG_FIELD_INTEGER:
      text_integer(text, field->integer);
      break;
    case LOG_FIELD_MS:
      text_ms(text, (unsigned long long)field->integer);
      break;
    }
  }
  text_puts(text, "}\n");
}

/* Text from outside must not draw on the terminal or start a new line. */
static void write_plain(struct text *text, const char *string) {
  for (; *string; string++) {
    unsigned char c = (unsigned char)*string;
    text_append(text, c < 0x20 || c == 0x7f ? "?" : string, 1);
  }
}

static void write_text(struct text *text, const char *stamp, enum log_level level, const char *message,
                       const struct log_field *fields, int count) {
  text_printf(text, "%.8s %s%s", stamp + 11, level == LOG_INFO ? "" : level_names[level], level == LOG_INFO ? "" : ": ");
  write_plain(text, message);
  for (int i = 0; i < count; i++) {
    const struct log_field *field = &fields[i];
    if (field->kind == LOG_FIELD_STRING && !field->string) continue;
    text_printf(text, " %s=", field->name);
    switch (field->kind) {
    case LOG_FIELD_STRING:
      write_plain(text, field->string);
      break;
    case LOG_FIELD_INTEGER:
      text_integer(text, field->integer);
      break;
    case LOG_FIELD_MS:
      text_ms(text, (unsigned long long)field->integer);
      break;
    }
  }
  text_puts(text, "\n");
}

/* The lowest `count` decimal digits. */
static void put_digits(char *text, int count, long value) {
  for (int i = count - 1; i >= 0; i--, value /= 10) text[i] = (char)('0' + value % 10);
}

/* 2026-01-31T23:59:59.999Z */
static void put_stamp(char stamp[25]) {
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  memcpy(stamp, "0000-00-00T00:00:00.000Z", 25);
  put_digits(stamp, 4, utc.tm_year + 1900);
  put_digits(stamp + 5, 2, utc.tm_mon + 1);
  put_digits(stamp + 8, 2, utc.tm_mday);
  put_digits(stamp + 11, 2, utc.tm_hour);
  put_digits(stamp + 14, 2, utc.tm_min);
  put_digits(stamp + 17, 2, utc.tm_sec);
  put_digits(stamp + 20, 3, now.tv_nsec / 1000000);
}

static void put_line(const struct log *log, enum log_level level, const char *message, const struct log_field *fields,
                     int count, struct text *text) {
  char stamp[25];
  put_stamp(stamp);
  if (log->format == LOG_JSON) {
    write_json(text, stamp, level, message, fields, count);
  } else {
    write_text(text, stamp, level, message, fields, count);
  }
}

static bool is_dropped(const struct log *log, enum log_level level) {
  return (int)level < atomic_load_explicit(&log->level, memory_order_relaxed);
}

/* A log that cannot be written (full disk, closed pipe) must not stop the service. */
static void write_out(const struct log *log, const char *bytes, size_t length) {
  ssize_t ignored = write(log->fd, bytes, length);
  (void)ignored;
}

void log_write(const struct log *log, enum log_level level, const char *message, const struct log_field *fields, int count) {
  struct text text = {0};
  if (is_dropped(log, level)) return;
  put_line(log, level, message, fields, count, &text);
  if (!text.failed) write_out(log, text.data, text.length);
  text_release(&text);
}

void log_gather(const struct log *log, enum log_level level, const char *message, const struct log_field *fields, int count,
                struct text *lines) {
  size_t before = lines->length;
  if (is_dropped(log, level)) return;
  put_line(log, level, message, fields, count, lines);
  if (lines->failed) { /* what was there before is whole */
    if (before) write_out(log, lines->data, before);
    text_release(lines);
  } else if (before && lines->length > LOG_ATOMIC) {
    write_out(log, lines->data, before);
    memmove(lines->data, lines->data + before, lines->length - before);
    lines->length -= before;
  }
}

void log_flush(const struct log *log, struct text *lines) {
  if (lines->length) write_out(log, lines->data, lines->length);
  lines->length = 0;
}

void log_line(const struct log *log, enum log_level level, const char *format, ...) {
  struct text text = {0};
  va_list arguments;
  if (is_dropped(log, level)) return;
  va_start(arguments, format);
  text_vprintf(&text, format, arguments);
  va_end(arguments);
  if (!text.failed) log_write(log, level, text.data, NULL, 0);
  text_release(&text);
}
