#include "server/log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20 }; /* the most that Linux gives to everyone */

static const char *const level_names[] = {"debug", "info", "warning", "error"};

const char *log_level_name(int level) {
  return level >= LOG_DEBUG && level <= LOG_ERROR ? level_names[level] : "";
}

/* The pipe or terminal once more; or `fd`. */
static int open_again(int fd) {
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  return own >= 0 ? own : fd;
}

void log_init(struct log *log, int fd, enum log_format format, enum log_level level) {
  struct stat file;
  bool known = fstat(fd, &file) == 0, is_pipe = known && S_ISFIFO(file.st_mode), terminal = isatty(fd);
  if (format == LOG_AUTO) format = terminal ? LOG_TEXT : LOG_JSON;
  log->kind = is_pipe || terminal ? LOG_STREAM : known && S_ISREG(file.st_mode) ? LOG_FILE : LOG_PACKETS;
  log->fd = log->kind == LOG_STREAM ? open_again(fd) : fd;
  log->is_own = log->fd != fd;
  if (is_pipe && fcntl(fd, F_GETPIPE_SZ) < PIPE_BYTES) fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
  log->own = (struct log_output){.mutex = PTHREAD_MUTEX_INITIALIZER};
  log->output = &log->own;
  log->format = format;
  atomic_init(&log->level, level);
}

void log_release(struct log *log) {
  if (log->is_own) close(log->fd);
  log->is_own = false;
  log->fd = -1;
}

uint64_t log_lost(const struct log *log) {
  return atomic_load(&log->output->lost);
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

/* Whether a piece, of at most LOG_ATOMIC bytes if it goes to a pipe, can be written without waiting; where the pipe or terminal
 * could not be opened again, this and the mutex are all that there is. */
static bool is_writable(const struct log *log) {
  struct pollfd poll_fd = {.fd = log->fd, .events = POLLOUT};
  return log->kind == LOG_FILE || (poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & POLLOUT));
}

/* As much as can be written now. The mutex is held. */
static size_t write_now(const struct log *log, const char *bytes, size_t length) {
  size_t done = 0;
  while (done < length && is_writable(log)) {
    size_t piece = length - done;
    if (log->kind == LOG_STREAM && piece > LOG_ATOMIC) piece = LOG_ATOMIC;
    ssize_t written = write(log->fd, bytes + done, piece);
    if (written <= 0) break;
    done += (size_t)written;
  }
  if (done) log->output->torn = bytes[done - 1] != '\n';
  return done;
}

static uint64_t count_lines(const char *bytes, size_t length) {
  uint64_t count = 0;
  for (size_t i = 0; i < length; i++) count += bytes[i] == '\n';
  return count;
}

/* False: nothing can be written yet. The mutex is held. */
static bool report_lost(const struct log *log) {
  struct log_output *output = log->output;
  const struct log_field lost = log_integer("lost", (int64_t)output->unreported);
  struct text text = {0};
  if (output->torn && write_now(log, "\n", 1) == 0) return false;
  put_line(log, LOG_WARNING, "log lines were lost: nobody read them in time, or they could not be written", &lost, 1, &text);
  bool written = !text.failed && write_now(log, text.data, text.length) == text.length;
  if (written) output->unreported = 0;
  text_release(&text);
  return written;
}

/* A log that cannot be written (full disk, closed pipe, a reader that has stopped) must not stop the service. */
static void write_out(const struct log *log, const char *bytes, size_t length) {
  struct log_output *output = log->output;
  pthread_mutex_lock(&output->mutex);
  size_t done = output->unreported && !report_lost(log) ? 0 : write_now(log, bytes, length);
  uint64_t lost = count_lines(bytes + done, length - done);
  output->unreported += lost;
  pthread_mutex_unlock(&output->mutex);
  atomic_fetch_add(&output->lost, lost);
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
