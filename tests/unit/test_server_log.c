/* The log: lines that are gathered come out whole, in order, and in writes that a pipe does not tear; nobody waits for a
 * reader. */
#include "server/log.h"

#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINES = 40, LONG = 300 };

/* Each write to the first end is one message at the second. */
static void open_log(struct log *log, enum log_format format, int *end) {
  int ends[2];
  ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
  ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
  log_init(log, ends[0], format, LOG_INFO);
  *end = ends[1];
}

static void gather(const struct log *log, enum log_level level, const char *message, int number, struct text *lines) {
  const struct log_field field = log_integer("number", number);
  log_gather(log, level, message, &field, 1, lines);
}

START_TEST(gathered_lines_are_written_in_order) {
  char message[LONG + 1] = "", write[2 * LOG_ATOMIC];
  struct text lines = {0};
  struct log log;
  int end, next = 0, writes = 0;
  ssize_t length;
  memset(message, 'x', LONG);
  open_log(&log, LOG_JSON, &end);
  for (int i = 0; i < LINES; i++) {
    gather(&log, LOG_INFO, message, i, &lines);
    gather(&log, LOG_DEBUG, message, i, &lines); /* below the level: dropped */
  }
  log_flush(&log, &lines);
  log_flush(&log, &lines); /* nothing is left */
  while ((length = recv(end, write, sizeof write - 1, 0)) > 0) {
    ck_assert_int_le(length, LOG_ATOMIC);
    ck_assert_int_eq(write[length - 1], '\n');
    write[length] = 0;
    writes++;
    for (char *line = strtok(write, "\n"); line; line = strtok(NULL, "\n")) {
      char number[32];
      snprintf(number, sizeof number, "\"number\":%d}", next++);
      ck_assert_ptr_nonnull(strstr(line, number));
      ck_assert_int_eq(strncmp(line, "{\"time\":\"20", 11), 0);
    }
  }
  ck_assert_int_eq(next, LINES);
  ck_assert_int_lt(writes, LINES);
  text_release(&lines);
  close(log.fd);
  close(end);
}
END_TEST

START_TEST(a_line_that_is_longer_than_a_write_comes_whole) {
  static char message[3 * LOG_ATOMIC], write[6 * LOG_ATOMIC];
  struct text lines = {0};
  struct log log;
  int end;
  memset(message, 'x', sizeof message - 1);
  open_log(&log, LOG_JSON, &end);
  gather(&log, LOG_INFO, "short", 1, &lines);
  gather(&log, LOG_INFO, message, 2, &lines);
  gather(&log, LOG_INFO, "short", 3, &lines);
  log_flush(&log, &lines);
  for (int i = 1; i <= 3; i++) {
    ssize_t length = recv(end, write, sizeof write - 1, 0);
    ck_assert_int_gt(length, i == 2 ? 3 * LOG_ATOMIC : 0);
    ck_assert_ptr_eq(memchr(write, '\n', (size_t)length), write + length - 1);
    ck_assert_int_eq(write[length - 3], '0' + i);
  }
  text_release(&lines);
  close(log.fd);
  close(end);
}
END_TEST

START_TEST(a_line_has_the_time) {
  char write[256] = "";
  struct text lines = {0};
  struct log log;
  int end, parts[7];
  open_log(&log, LOG_JSON, &end);
  gather(&log, LOG_WARNING, "message", 7, &lines);
  log_flush(&log, &lines);
  ck_assert_int_gt(recv(end, write, sizeof write - 1, 0), 0);
  ck_assert_int_eq(sscanf(write, "{\"time\":\"%4d-%2d-%2dT%2d:%2d:%2d.%3dZ\"", parts, parts + 1, parts + 2, parts + 3,
                          parts + 4, parts + 5, parts + 6),
                   7);
  ck_assert_int_ge(parts[0], 2024);
  ck_assert(parts[1] >= 1 && parts[1] <= 12 && parts[2] >= 1 && parts[2] <= 31);
  ck_assert_str_eq(write + strlen("{\"time\":\"2026-01-31T23:59:59.999Z\""),
                   ",\"level\":\"warning\",\"message\":\"message\",\"number\":7}\n");
  text_release(&lines);
  close(log.fd);
  close(end);
}
END_TEST

/* Reads lines until nothing comes any more; each must be whole. Returns how many have a number, which must go up, and adds to
 * *lost what the others, *reports of them, say was lost. */
static uint64_t read_lines(int end, int *last, uint64_t *lost, int *reports) {
  static char bytes[4 << 20];
  struct pollfd poll_fd = {.fd = end, .events = POLLIN};
  size_t length = 0;
  uint64_t count = 0;
  while (poll(&poll_fd, 1, 100) > 0 && (poll_fd.revents & POLLIN)) {
    ssize_t more = read(end, bytes + length, sizeof bytes - 1 - length);
    if (more <= 0) break;
    length += (size_t)more;
  }
  bytes[length] = 0;
  for (char *line = strtok(bytes, "\r\n"); line; line = strtok(NULL, "\r\n")) {
    const char *number = strstr(line, "\"number\":"), *gone = strstr(line, "\"lost\":");
    if (line[strlen(line) - 1] != '}') continue; /* torn: not written as far as the log can tell */
    ck_assert_int_eq(strncmp(line, "{\"time\":\"20", 11), 0);
    ck_assert(number || gone);
    if (gone) *lost += strtoull(gone + strlen("\"lost\":"), NULL, 10);
    *reports += gone != NULL;
    if (!number) continue;
    ck_assert_int_gt(atoi(number + strlen("\"number\":")), *last);
    *last = atoi(number + strlen("\"number\":"));
    count++;
  }
  return count;
}

/* Twice: writes until nothing goes any more and reads. The log goes on then, and knows what is missing. may_tear: 1 when a line
 * may be written except for its end, and counts as lost: one whenever nothing goes any more, which happens more than twice
 * where a terminal's buffer moves on by itself; the log reports it each time. */
static void stall(const struct log *log, int end, int may_tear) {
  enum { MORE = 500 };
  char message[LONG + 1] = "";
  uint64_t lost = 0, count = 0;
  int last = -1, number = 0, reports = 0;
  memset(message, 'x', LONG);
  for (int round = 0; round < 2; round++) {
    const uint64_t before = log_lost(log);
    struct text lines = {0};
    while (log_lost(log) < before + MORE) {
      gather(log, LOG_INFO, message, number++, &lines);
      if (number % 7 == 0) log_flush(log, &lines);
    }
    log_flush(log, &lines);
    text_release(&lines);
    count += read_lines(end, &last, &lost, &reports);
    const struct log_field field = log_integer("number", number++);
    log_write(log, LOG_INFO, "again", &field, 1);
    count += read_lines(end, &last, &lost, &reports);
    ck_assert_int_eq(last, number - 1);
    ck_assert_uint_eq(lost, log_lost(log));
    ck_assert_uint_ge(count + lost, (uint64_t)number);
    ck_assert_int_gt(reports, round);
    ck_assert_uint_le(count + lost, (uint64_t)(number + may_tear * reports));
  }
}

START_TEST(a_pipe_that_is_full_is_not_waited_for) {
  struct log log;
  int ends[2];
  ck_assert_int_eq(pipe(ends), 0);
  log_init(&log, ends[1], LOG_JSON, LOG_INFO);
  ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0); /* it may be others', too */
  if (_i) {                                                  /* as where it cannot be opened again */
    log_release(&log);
    log.fd = ends[1];
  }
  stall(&log, ends[0], 0);
  log_release(&log);
  close(ends[0]);
  ck_assert_int_eq(fcntl(ends[1], F_GETFL) & O_NONBLOCK, 0);
  close(ends[1]);
}
END_TEST

START_TEST(a_terminal_that_stands_still_is_not_waited_for) {
  struct log log;
  int end = posix_openpt(O_RDWR | O_NOCTTY), terminal;
  ck_assert_int_ge(end, 0);
  ck_assert_int_eq(grantpt(end) || unlockpt(end), 0);
  terminal = open(ptsname(end), O_RDWR | O_NOCTTY);
  ck_assert_int_ge(terminal, 0);
  log_init(&log, terminal, LOG_JSON, LOG_INFO);
  stall(&log, end, 1);
  ck_assert_int_eq(fcntl(terminal, F_GETFL) & O_NONBLOCK, 0);
  log_release(&log);
  close(terminal);
  close(end);
}
END_TEST

START_TEST(a_pipe_that_nobody_reads_any_more_loses_lines) {
  struct log log;
  int ends[2];
  ck_assert_int_eq(pipe(ends), 0);
  log_init(&log, ends[1], LOG_JSON, LOG_INFO);
  close(ends[0]);
  for (int i = 0; i < LINES; i++) log_line(&log, LOG_INFO, "%d", i);
  ck_assert_uint_eq(log_lost(&log), LINES);
  log_release(&log);
  close(ends[1]);
}
END_TEST

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  Suite *suite = suite_create("server_log");
  TCase *tests = tcase_create("log");
  tcase_add_test(tests, gathered_lines_are_written_in_order);
  tcase_add_test(tests, a_line_that_is_longer_than_a_write_comes_whole);
  tcase_add_test(tests, a_line_has_the_time);
  tcase_add_loop_test(tests, a_pipe_that_is_full_is_not_waited_for, 0, 2);
  tcase_add_test(tests, a_terminal_that_stands_still_is_not_waited_for);
  tcase_add_test(tests, a_pipe_that_nobody_reads_any_more_loses_lines);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
