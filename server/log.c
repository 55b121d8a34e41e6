#include "server/log.h"

#include "models/classify/text.h"

#include <stdarg.h>
#include <stdio.h>
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
  text_printf(text, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", stamp, level_names[level]);
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

void log_write(const struct log *log, enum log_level level, const char *message, const struct log_field *fields, int count) {
  struct timespec now;
  struct tm utc;
  char stamp[40], seconds[24];
  struct text text = {0};
  if ((int)level < atomic_load_explicit(&log->level, memory_order_relaxed)) return;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  strftime(seconds, sizeof seconds, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(stamp, sizeof stamp, "%s.%03ldZ", seconds, now.tv_nsec / 1000000);
  if (log->format == LOG_JSON) {
    write_json(&text, stamp, level, message, fields, count);
  } else {
    write_text(&text, stamp, level, message, fields, count);
  }
  if (!text.failed) {
    /* A log that cannot be written (full disk, closed pipe) must not stop the service. */
    ssize_t ignored = write(log->fd, text.data, text.length);
    (void)ignored;
  }
  text_release(&text);
}

void log_line(const struct log *log, enum log_level level, const char *format, ...) {
  struct text text = {0};
  va_list arguments;
  if ((int)level < atomic_load_explicit(&log->level, memory_order_relaxed)) return;
  va_start(arguments, format);
  text_vprintf(&text, format, arguments);
  va_end(arguments);
  if (!text.failed) log_write(log, level, text.data, NULL, 0);
  text_release(&text);
}
