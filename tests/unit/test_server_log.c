/* The log: lines that are gathered come out whole, in order, and in writes that a pipe does not tear. */
#include "server/log.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
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

int main(void) {
  Suite *suite = suite_create("server_log");
  TCase *tests = tcase_create("log");
  tcase_add_test(tests, gathered_lines_are_written_in_order);
  tcase_add_test(tests, a_line_that_is_longer_than_a_write_comes_whole);
  tcase_add_test(tests, a_line_has_the_time);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
