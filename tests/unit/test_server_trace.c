/* W3C trace context, and what a service manager is told. */
#include "server/notify.h"
#include "server/trace.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRACE "0af7651916cd43dd8448eb211c80319c"
#define SPAN "b7ad6b7169203331"

START_TEST(headers_of_the_specification) {
  struct trace trace;
  ck_assert(trace_parse("00-" TRACE "-" SPAN "-01", &trace));
  ck_assert_str_eq(trace.trace_id, TRACE);
  ck_assert_str_eq(trace.parent_id, SPAN);
  ck_assert_int_eq(trace.flags, 1);
  ck_assert(trace_parse("00-" TRACE "-" SPAN "-00", &trace));
  ck_assert_int_eq(trace.flags, 0);
  ck_assert(trace_parse("00-" TRACE "-" SPAN "-ff", &trace));
  ck_assert_int_eq(trace.flags, 0xff);
  /* versions that do not exist yet */
  ck_assert(trace_parse("cc-" TRACE "-" SPAN "-01", &trace));
  ck_assert(trace_parse("cc-" TRACE "-" SPAN "-01-what-will-come", &trace));
  ck_assert_str_eq(trace.parent_id, SPAN);
}
END_TEST

static const char *const malformed[] = {
    "",
    "0",
    "00",
    "00-",
    "00-" TRACE,
    "00-" TRACE "-",
    "00-" TRACE "-" SPAN,
    "00-" TRACE "-" SPAN "-",
    "00-" TRACE "-" SPAN "-0",
    "00-" TRACE "-" SPAN "-011",
    "00-" TRACE "-" SPAN "-01-",
    "00-" TRACE "-" SPAN "-01-extra",
    "00-" TRACE "-" SPAN "-01 ",
    " 00-" TRACE "-" SPAN "-01",
    "ff-" TRACE "-" SPAN "-01",
    "cc-" TRACE "-" SPAN "-01.what",
    "0A-" TRACE "-" SPAN "-01",
    "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01",
    "00-" TRACE "-B7AD6B7169203331-01",
    "00-" TRACE "-" SPAN "-0G",
    "00-00000000000000000000000000000000-" SPAN "-01",
    "00-" TRACE "-0000000000000000-01",
    "00-0af7651916cd43dd8448eb211c80319-" SPAN "-01",
    "00-0af7651916cd43dd8448eb211c80319c1-" SPAN "-01",
    "00_" TRACE "_" SPAN "_01",
};

START_TEST(malformed_headers_start_a_new_trace) {
  struct trace trace;
  char text[TRACE_HEADER_LENGTH + 1];
  /* in memory of its exact size, so that a sanitizer sees a byte too many */
  char *header = strdup(malformed[_i]);
  ck_assert_msg(!trace_parse(header, &trace), "%s", header);
  ck_assert_str_eq(trace.trace_id, "");
  trace_begin(&trace, header, 0x1, 0x2, 0x3);
  ck_assert_str_eq(trace.trace_id, "00000000000000010000000000000002");
  ck_assert_str_eq(trace.parent_id, "");
  trace_header(&trace, text);
  ck_assert_str_eq(text, "00-00000000000000010000000000000002-0000000000000003-00");
  free(header);
}
END_TEST

START_TEST(a_trace_goes_on_with_a_new_span) {
  struct trace trace, next;
  char text[TRACE_HEADER_LENGTH + 1];
  trace_begin(&trace, "00-" TRACE "-" SPAN "-03", 1, 2, 0xabc);
  trace_header(&trace, text);
  ck_assert_str_eq(text, "00-" TRACE "-0000000000000abc-01");
  ck_assert(trace_parse(text, &next));
  ck_assert_str_eq(next.parent_id, trace.span_id);
  trace_begin(&trace, NULL, 0, 0, 0); /* never an id of zeros */
  trace_header(&trace, text);
  ck_assert(trace_parse(text, &next));
}
END_TEST

static int manager(struct sockaddr_un *address, socklen_t size) {
  int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(bind(fd, (struct sockaddr *)address, size), 0);
  return fd;
}

START_TEST(a_manager_with_an_abstract_name_hears_messages) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  struct hwgq_error error;
  struct notify notify;
  char name[64], text[64];
  snprintf(name, sizeof name, "@hwgqd-test-%d", (int)getpid());
  memcpy(address.sun_path + 1, name + 1, strlen(name) - 1);
  int fd = manager(&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name)));
  setenv("NOTIFY_SOCKET", name, 1);
  setenv("WATCHDOG_USEC", "2000000", 1);
  unsetenv("WATCHDOG_PID");
  ck_assert_int_eq(notify_open(&notify, &error), HWGQ_OK);
  ck_assert_uint_eq(notify.watchdog_ns, 2000000000);
  notify_send(&notify, "READY=1\nSTATUS=%d networks", 3);
  ssize_t length = recv(fd, text, sizeof text, 0);
  ck_assert_int_eq(length, (ssize_t)strlen("READY=1\nSTATUS=3 networks"));
  ck_assert_mem_eq(text, "READY=1\nSTATUS=3 networks", (size_t)length);
  close(fd); /* a manager that is gone does no harm */
  notify_send(&notify, "STOPPING=1");
  notify_close(&notify);
  setenv("WATCHDOG_PID", "1", 1); /* meant for another process */
  setenv("WATCHDOG_USEC", "x", 1);
  ck_assert_int_eq(notify_open(&notify, &error), HWGQ_ERROR_IO);
  ck_assert_uint_eq(notify.watchdog_ns, 0);
  notify_close(&notify);
}
END_TEST

START_TEST(without_a_manager_nothing_happens) {
  static const char *const bad[] = {"relative/path", "@", "/", "/nonexistent/socket"};
  struct hwgq_error error;
  struct notify notify;
  char path[300];
  unsetenv("NOTIFY_SOCKET");
  ck_assert_int_eq(notify_open(&notify, &error), HWGQ_OK);
  ck_assert_int_eq(notify.fd, -1);
  notify_send(&notify, "READY=1");
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    setenv("NOTIFY_SOCKET", bad[i], 1);
    ck_assert_int_ne(notify_open(&notify, &error), HWGQ_OK);
    ck_assert_ptr_nonnull(strstr(error.message, "NOTIFY_SOCKET"));
    ck_assert_int_eq(notify.fd, -1);
  }
  memset(path, 'a', sizeof path - 1); /* longer than an address can be */
  path[0] = '/';
  path[sizeof path - 1] = 0;
  setenv("NOTIFY_SOCKET", path, 1);
  ck_assert_int_ne(notify_open(&notify, &error), HWGQ_OK);
}
END_TEST

static void announce(const char *count, int pid) {
  char text[16];
  snprintf(text, sizeof text, "%d", pid);
  setenv("LISTEN_FDS", count, 1);
  setenv("LISTEN_PID", text, 1);
}

/* In a child, because descriptor 3 belongs to the test program. Returns the number of what went wrong. */
static int look_at_passed_sockets(void) {
  struct hwgq_error error;
  int fd, made = socket(AF_INET, SOCK_STREAM, 0);
  if (made < 0 || (made != 3 && dup2(made, 3) != 3)) return 1;
  unsetenv("LISTEN_FDS");
  if (notify_listener(&fd, &error) || fd != -1) return 2;
  announce("1", (int)getpid() + 1); /* for another process */
  if (notify_listener(&fd, &error) || fd != -1) return 3;
  announce("2", (int)getpid());
  if (!notify_listener(&fd, &error) || !strstr(error.message, "2 sockets")) return 4;
  announce("1", (int)getpid()); /* does not listen */
  if (!notify_listener(&fd, &error) || fd != -1) return 5;
  if (listen(3, 1)) return 6;
  return notify_listener(&fd, &error) || fd != 3 ? 7 : 0;
}

START_TEST(passed_sockets_are_looked_at) {
  int status;
  pid_t child = fork();
  if (child == 0) _exit(look_at_passed_sockets());
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "step %d", WEXITSTATUS(status));
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_trace");
  TCase *tests = tcase_create("trace and notify");
  tcase_add_test(tests, headers_of_the_specification);
  tcase_add_loop_test(tests, malformed_headers_start_a_new_trace, 0, sizeof malformed / sizeof malformed[0]);
  tcase_add_test(tests, a_trace_goes_on_with_a_new_span);
  tcase_add_test(tests, a_manager_with_an_abstract_name_hears_messages);
  tcase_add_test(tests, without_a_manager_nothing_happens);
  tcase_add_test(tests, passed_sockets_are_looked_at);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
