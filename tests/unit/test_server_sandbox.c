/* The sandbox from inside: each test forks, enters it, tries what must not be possible and what must, and reports the errno of
 * every try (0: it was possible). */
#include "models/classify/classify.h"
#include "server/sandbox_parts.h"
#include "tests/support/support.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  READ_MODEL,
  LIST_MODELS,
  READ_OTHER,
  READ_CONFIG,
  WRITE_MODEL,
  APPEND_MODEL,
  CREATE,
  REMOVE,
  RENAME,
  CHANGE_MODE,
  RUN,
  FORK,
  TRACE,
  SOCKET,
  CONNECT,
  CODE_MEMORY,
  MEMORY,
  THREAD,
  READ_OPEN_FILE,
  CLASSIFY,
  TRIES
};
static const char *const names[TRIES] = {
    "read a network",  "list the networks",   "read another file", "read the configuration",
    "write a network", "append to a network", "create a file",     "remove a file",
    "rename a file",   "change a mode",       "run a program",     "fork",
    "trace",           "make a socket",       "connect",           "get executable memory",
    "get memory",      "start a thread",      "read an open file", "classify"};

static struct hwgq_error error;

struct world {
  char *models, *elsewhere, *model, *other,
      *fresh; /* two folders; a network, a file that is none of its business, a new name */
  struct config config;
  struct classifier *classifier;
  struct classify_scratch *scratch;
  uint8_t *image;
  size_t image_length;
  float *expected; /* scores */
  int listener, open_file;
  struct sockaddr_in address; /* of the listener */
};

static void world_open(struct world *world, enum sandbox_mode mode) {
  struct support_random random = {7};
  struct classify_result result;
  socklen_t size = sizeof world->address;
  memset(world, 0, sizeof *world);
  world->models = support_make_directory();
  world->elsewhere = support_make_directory();
  world->model = support_path(world->models, "a.hwgq");
  world->other = support_path(world->elsewhere, "secret");
  world->fresh = support_path(world->models, "fresh");
  struct hwgq_model *model = support_random_model(&random);
  ck_assert_int_eq(hwgq_model_write(model, world->model, &error), HWGQ_OK);
  support_write_file(world->other, "x", 1);
  config_init(&world->config);
  world->config.sandbox = mode;
  world->config.models = calloc(1, sizeof *world->config.models);
  world->config.models[0].path = strdup(world->models);
  world->config.model_count = 1;
  world->config.file = support_path(world->models, "hwgqd.json");
  support_write_file(world->config.file, "{}", 2);
  world->image = support_read_file("tests/images/baseline.jpg", &world->image_length);
  ck_assert_ptr_nonnull(world->image);
  ck_assert_msg(classifier_create(model, NULL, &world->classifier, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(classify_scratch_create(NULL, &world->scratch, &error), HWGQ_OK);
  ck_assert_int_eq(classify_bytes(world->classifier, world->scratch, world->image, world->image_length, NULL, &result, &error),
                   HWGQ_OK);
  size_t bytes = (size_t)world->classifier->class_count * sizeof *world->expected;
  world->expected = malloc(bytes);
  memcpy(world->expected, result.scores, bytes);
  world->listener = socket(AF_INET, SOCK_STREAM, 0);
  world->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  ck_assert_int_eq(bind(world->listener, (struct sockaddr *)&world->address, sizeof world->address), 0);
  ck_assert_int_eq(listen(world->listener, 1), 0);
  ck_assert_int_eq(getsockname(world->listener, (struct sockaddr *)&world->address, &size), 0);
  world->open_file = open(world->other, O_RDONLY);
  ck_assert_int_ge(world->open_file, 0);
}

static void world_close(struct world *world) {
  close(world->listener);
  close(world->open_file);
  classify_scratch_destroy(world->scratch);
  classifier_destroy(world->classifier);
  config_release(&world->config);
  support_remove_directory(world->models);
  support_remove_directory(world->elsewhere);
  free(world->model);
  free(world->other);
  free(world->fresh);
  free(world->image);
  free(world->expected);
}

static int try_open(const char *path, int flags) {
  int fd = open(path, flags, 0600);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

static int outcome(long result) {
  return result < 0 ? errno : 0;
}

static int try_fork(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  if (child < 0) return errno;
  waitpid(child, NULL, 0);
  return 0;
}

/* In a child, where there may be one: a program that runs replaces the one that reports. */
static int try_run(void) {
  char *const arguments[] = {(char *)(uintptr_t) "true", NULL};
  int status = 0;
  pid_t child = fork();
  if (child > 0) return waitpid(child, &status, 0) == child && status == 0 ? 0 : ENOEXEC;
  execv("/bin/true", arguments);
  if (child == 0) _exit(1);
  return errno;
}

static int try_connect(const struct world *world, int *socket_error) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  *socket_error = outcome(fd);
  if (fd < 0) fd = world->listener; /* connect is refused by itself, too */
  int result = outcome(connect(fd, (const struct sockaddr *)&world->address, sizeof world->address));
  if (fd != world->listener) close(fd);
  return result;
}

static int try_memory(int protection) {
  void *memory = mmap(NULL, 1 << 20, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return errno;
  munmap(memory, 1 << 20);
  return 0;
}

static void *nothing(void *argument) {
  return argument;
}

static int try_classify(const struct world *world) {
  struct classify_result result;
  struct hwgq_error problem;
  if (classify_bytes(world->classifier, world->scratch, world->image, world->image_length, NULL, &result, &problem)) return -1;
  return memcmp(result.scores, world->expected, (size_t)world->classifier->class_count * sizeof(float)) ? -2 : 0;
}

static void try_everything(const struct world *world, int *tries) {
  char byte;
  pthread_t thread;
  tries[READ_MODEL] = try_open(world->model, O_RDONLY);
  tries[LIST_MODELS] = try_open(world->models, O_RDONLY | O_DIRECTORY);
  tries[READ_OTHER] = try_open(world->other, O_RDONLY);
  tries[READ_CONFIG] = try_open(world->config.file, O_RDONLY);
  tries[WRITE_MODEL] = try_open(world->model, O_WRONLY);
  tries[APPEND_MODEL] = try_open(world->model, O_RDWR | O_APPEND);
  tries[CREATE] = try_open(world->fresh, O_RDONLY | O_CREAT);
  tries[REMOVE] = outcome(unlink(world->fresh));
  tries[RENAME] = outcome(rename(world->model, world->fresh));
  tries[CHANGE_MODE] = outcome(chmod(world->model, 0600));
  tries[FORK] = try_fork();
  tries[TRACE] = outcome(syscall(SYS_ptrace, PTRACE_SEIZE, getppid(), 0, 0));
  tries[CONNECT] = try_connect(world, &tries[SOCKET]);
  tries[CODE_MEMORY] = try_memory(PROT_READ | PROT_WRITE | PROT_EXEC);
  tries[MEMORY] = try_memory(PROT_READ | PROT_WRITE);
  tries[THREAD] = pthread_create(&thread, NULL, nothing, NULL);
  if (tries[THREAD] == 0) pthread_join(thread, NULL);
  tries[READ_OPEN_FILE] = outcome(read(world->open_file, &byte, 1));
  tries[CLASSIFY] = try_classify(world);
  tries[RUN] = try_run();
}

struct worker {
  const struct world *world;
  const struct sandbox *sandbox;
  int *tries;
};

static void *work(void *argument) {
  struct worker *worker = argument;
  if (!sandbox_enter_worker(worker->sandbox)) return NULL;
  try_everything(worker->world, worker->tries);
  return argument;
}

/* In a child: enters the sandbox, then tries everything in its main thread or in a worker. *entered: what was in force. */
static void in_child(const struct world *world, bool as_worker, int *tries, struct sandbox *entered) {
  int pipe_fds[2], report[TRIES];
  for (int i = 0; i < TRIES; i++) tries[i] = -100;
  ck_assert_int_eq(pipe(pipe_fds), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    struct sandbox sandbox;
    pthread_t thread;
    memcpy(report, tries, sizeof report);
    if (sandbox_enter(&sandbox, &world->config, &error)) _exit(1);
    if (as_worker) {
      struct worker worker = {world, &sandbox, report};
      if (pthread_create(&thread, NULL, work, &worker)) _exit(2);
      pthread_join(thread, NULL);
    } else {
      try_everything(world, report);
    }
    if (write(pipe_fds[1], report, sizeof report) != (ssize_t)sizeof report) _exit(3);
    if (write(pipe_fds[1], &sandbox, sizeof sandbox) != (ssize_t)sizeof sandbox) _exit(3);
    _exit(0);
  }
  close(pipe_fds[1]);
  ssize_t count = read(pipe_fds[0], tries, TRIES * sizeof *tries);
  ck_assert_int_eq(count, (ssize_t)(TRIES * sizeof *tries));
  ck_assert_int_eq(read(pipe_fds[0], entered, sizeof *entered), (ssize_t)sizeof *entered);
  close(pipe_fds[0]);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
}

/* -1: any errno; 0: must be possible. */
static void expect(const int *tries, const int *which, int count, int wanted) {
  for (int i = 0; i < count; i++) {
    int got = tries[which[i]];
    bool good = wanted == -1 ? got > 0 : got == wanted;
    ck_assert_msg(good, "%s: errno %d (%s), not %d", names[which[i]], got, got > 0 ? strerror(got) : "possible", wanted);
  }
}
#define EXPECT(tries, wanted, ...)                                                                                             \
  expect((tries), (const int[]){__VA_ARGS__}, (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int)), (wanted))

START_TEST(the_process_reads_what_is_configured_and_nothing_else) {
  struct world world;
  struct sandbox entered;
  int tries[TRIES];
  world_open(&world, SANDBOX_ON);
  if (landlock_version() && filter_available()) {
    in_child(&world, false, tries, &entered);
    EXPECT(tries, 0, READ_MODEL, LIST_MODELS, READ_CONFIG, MEMORY, THREAD, READ_OPEN_FILE, CLASSIFY);
    EXPECT(tries, -1, WRITE_MODEL, APPEND_MODEL, CREATE, REMOVE, RENAME, TRACE);
    ck_assert_int_eq(entered.landlock, landlock_version());
    ck_assert_int_gt(entered.worker.count, 0);
    ck_assert(entered.process_filter == !SANDBOX_SANITIZED);
    if (!SANDBOX_SANITIZED) {
      EXPECT(tries, -1, READ_OTHER);
      EXPECT(tries, EPERM, RUN, FORK, TRACE, SOCKET, CONNECT, CHANGE_MODE, WRITE_MODEL, CREATE, REMOVE, RENAME);
    } else if (landlock_version() >= 4) {
      EXPECT(tries, EACCES, CONNECT);
    }
  }
  world_close(&world);
}
END_TEST

START_TEST(a_worker_has_no_files_and_no_sockets) {
  struct world world;
  struct sandbox entered;
  int tries[TRIES];
  world_open(&world, SANDBOX_ON);
  if (landlock_version() && filter_available()) {
    in_child(&world, true, tries, &entered);
    EXPECT(tries, 0, MEMORY, CLASSIFY);
    EXPECT(tries, EPERM, READ_MODEL, LIST_MODELS, READ_OTHER, READ_CONFIG, WRITE_MODEL, APPEND_MODEL, CREATE, REMOVE, RENAME,
           CHANGE_MODE, RUN, FORK, TRACE, SOCKET, CONNECT, CODE_MEMORY, THREAD, READ_OPEN_FILE);
  }
  world_close(&world);
}
END_TEST

START_TEST(off_is_off) {
  struct world world;
  struct sandbox entered;
  struct text text = {0};
  int tries[TRIES];
  world_open(&world, SANDBOX_OFF);
  in_child(&world, true, tries, &entered);
  EXPECT(tries, 0, READ_MODEL, READ_OTHER, WRITE_MODEL, CREATE, REMOVE, RENAME, RUN, FORK, SOCKET, CONNECT, THREAD, CLASSIFY);
  ck_assert_int_eq(entered.worker.count + entered.landlock, 0);
  entered.worker.code = NULL; /* a pointer of the child's */
  sandbox_describe(&entered, &text);
  ck_assert_str_eq(text.data, "off");
  text_release(&text);
  world_close(&world);
}
END_TEST

START_TEST(what_a_kernel_lacks_is_said) {
  struct text text = {0};
  ck_assert_int_eq(sandbox_probe(SANDBOX_TRY, &text, &error), HWGQ_OK);
  ck_assert_int_eq(strncmp(text.data, "sandbox (try): ", 15), 0);
  enum hwgq_status status = sandbox_probe(SANDBOX_ON, &text, &error);
  ck_assert((status == HWGQ_OK) == (landlock_version() && filter_available()));
  if (status) ck_assert_ptr_nonnull(strstr(error.message, "not possible here"));
  text_release(&text);
}
END_TEST

/* Inside a filter that refuses seccomp and Landlock, as containers have them. */
START_TEST(without_permission_try_goes_on_and_on_does_not) {
  struct world world;
  int status;
  world_open(&world, SANDBOX_TRY);
  pid_t child = fork();
  if (child == 0) {
    struct sandbox sandbox;
    struct sandbox_program worker = {0};
    /* the worker's own filter refuses both system calls */
    if (SANDBOX_SANITIZED) _exit(0);
    if (syscall(SYS_prctl, 38 /* PR_SET_NO_NEW_PRIVS */, 1, 0, 0, 0)) _exit(1);
    if (filter_make_worker(&worker, &error) || !filter_enter(&worker)) _exit(2);
    if (sandbox_enter(&sandbox, &world.config, &error)) _exit(3);
    if (!sandbox.missing.message[0] || sandbox.landlock || sandbox.process_filter || sandbox.worker.count) _exit(4);
    if (!sandbox_enter_worker(&sandbox)) _exit(5);
    world.config.sandbox = SANDBOX_ON;
    if (!sandbox_enter(&sandbox, &world.config, &error) || !strstr(error.message, "sandbox")) _exit(6);
    _exit(0);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(!filter_available() || (WIFEXITED(status) && WEXITSTATUS(status) == 0), "the child ended with %d", status);
  world_close(&world);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_sandbox");
  TCase *tests = tcase_create("sandbox");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, the_process_reads_what_is_configured_and_nothing_else);
  tcase_add_test(tests, a_worker_has_no_files_and_no_sockets);
  tcase_add_test(tests, off_is_off);
  tcase_add_test(tests, what_a_kernel_lacks_is_said);
  tcase_add_test(tests, without_permission_try_goes_on_and_on_does_not);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
