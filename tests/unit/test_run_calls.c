/* Inference does not allocate, lock or call the system: hwgq_run, hwgq_run_tensor and hwgq_top_k on every network of the paper
 * and on random ones, with every kernel set and form, once with the C library's functions counted, and once in a process that a
 * seccomp filter has left nothing but write and exit. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#include <stdio.h>

#if defined(SANITIZED)
int main(void) {
  printf("SKIPPED: sanitizers allocate and call the system themselves: what inference calls is tested without them\n");
  printf("0 passed, 0 failed, 1 skipped\n");
  return 0;
}
#else

#include <check.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "models/networks/networks.h"
#include "tests/support/calls.h"
#include "tests/support/support.h"

/* ---- a process without system calls -------------------------------------------------------------------------------------- */

enum { EXIT_NO_FILTER = 77, EXIT_CALLED = 78 };

/* Says which call it was. Only functions that are safe in a signal handler, and only calls that the filter allows. */
static void on_call(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  char text[] = "system call 0000\n";
  for (int call = info->si_syscall, at = sizeof text - 3; call && at > 11; call /= 10, at--) text[at] = (char)('0' + call % 10);
  _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? EXIT_NO_FILTER : EXIT_CALLED);
}

static bool forbid_calls(void) {
  static const int allowed[] = {SCMP_SYS(write), SCMP_SYS(exit), SCMP_SYS(exit_group)};
  struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};
  scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
  bool ready = filter && sigaction(SIGSYS, &action, NULL) == 0;
  for (size_t i = 0; ready && i < sizeof allowed / sizeof *allowed; i++) {
    ready = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed[i], 0) == 0;
  }
  return ready && seccomp_load(filter) == 0; /* the filter's memory lasts as long as the process */
}

/* Exit status of a child that runs work(context) without system calls; its output goes to `pipe_end`. */
static int without_calls(void (*work)(void *context, int pipe_end), void *context, void *output, size_t bytes) {
  int ends[2], status;
  ck_assert_int_eq(pipe(ends), 0);
  const pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    if (!forbid_calls()) _exit(EXIT_NO_FILTER);
    work(context, ends[1]);
    _exit(0);
  }
  close(ends[1]);
  size_t received = 0;
  for (ssize_t count = 1; received < bytes && count > 0; received += (size_t)count) {
    count = read(ends[0], (char *)output + received, bytes - received);
    ck_assert_int_ge(count, 0);
  }
  close(ends[0]);
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert_msg(WIFEXITED(status), "the child ended by signal %d", WTERMSIG(status));
  return WEXITSTATUS(status);
}

static bool has_filters(void);

/* ---- inference ----------------------------------------------------------------------------------------------------------- */

struct subject {
  struct hwgq_plan *plan;
  void *scratch;
  uint8_t *pixels;
  float *input, *scores; /* scores: of pixels, then of the tensor */
  int score_count;
  struct hwgq_prediction best[5];
};

static void infer(struct subject *s) {
  hwgq_run(s->plan, s->scratch, s->pixels, s->scores);
  hwgq_run_tensor(s->plan, s->scratch, s->input, s->scores + s->score_count);
  hwgq_top_k(s->scores, s->score_count, 5, s->best);
}

static void infer_and_tell(void *context, int pipe_end) {
  struct subject *s = context;
  memset(s->scores, 0, 2 * (size_t)s->score_count * sizeof *s->scores);
  infer(s);
  const char *from = (const char *)s->scores;
  for (size_t left = 2 * (size_t)s->score_count * sizeof *s->scores; left;) {
    const ssize_t count = write(pipe_end, from, left);
    if (count <= 0) _exit(EXIT_CALLED);
    from += count;
    left -= (size_t)count;
  }
}

static void check_plan(struct subject *s, const char *what) {
  const size_t bytes = 2 * (size_t)s->score_count * sizeof *s->scores;
  float *expected = malloc(bytes), *scores = malloc(bytes);
  memset(&calls, 0, sizeof calls);
  calls_counted = true;
  infer(s);
  calls_counted = false;
  ck_assert_msg(!calls.allocations && !calls.frees && !calls.maps && !calls.locks,
                "%s: %lu allocations, %lu frees, %lu maps, %lu locks", what, calls.allocations, calls.frees, calls.maps,
                calls.locks);
  memcpy(expected, s->scores, bytes);
  if (has_filters()) {
    memset(scores, 0, bytes);
    const int status = without_calls(infer_and_tell, s, scores, bytes);
    ck_assert_msg(status == 0, "%s: status %d, %s", what, status, status == EXIT_CALLED ? "a system call" : "no filter");
    ck_assert_mem_eq(scores, expected, bytes);
  }
  free(scores);
  free(expected);
}

/* With every kernel set of this CPU and every form. */
static void check_network(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                          struct support_random *random) {
  static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
  static const char *const forms[] = {NULL, "sliced", "lookup6", "lookup4", "popcount"};
  const struct hwgq_shape shape = network->input;
  struct subject s = {.pixels = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width),
                      .input = support_random_input(shape, random)};
  networks_image(shape, 1, 0, s.pixels);
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    if (!hwgq_cpu_supports(sets[i])) continue;
    for (size_t j = 0; j < sizeof forms / sizeof *forms; j++) {
      const struct hwgq_plan_options options = {.cpu = sets[i], .form = forms[j]};
      struct hwgq_error error;
      char what[160];
      snprintf(what, sizeof what, "%.80s on %s, form %s", network->name, sets[i], forms[j] ? forms[j] : "of its choice");
      ck_assert_msg(!hwgq_plan_create(network, preprocess, &options, &s.plan, &error), "%s: %s", what, error.message);
      s.score_count = hwgq_plan_output_count(s.plan);
      s.scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(s.plan));
      s.scores = calloc(2 * (size_t)s.score_count, sizeof *s.scores);
      check_plan(&s, what);
      free(s.scores);
      free(s.scratch);
      hwgq_plan_destroy(s.plan);
    }
  }
  free(s.input);
  free(s.pixels);
}

/* ---- tests --------------------------------------------------------------------------------------------------------------- */

static void call_the_system(void *context, int pipe_end) {
  (void)context;
  syscall(SYS_getppid);
  if (write(pipe_end, "x", 1) != 1) _exit(1);
}

static void only_write(void *context, int pipe_end) {
  if (write(pipe_end, context, 1) != 1) _exit(1);
}

/* Filters cannot be had under emulation, for instance. */
static bool has_filters(void) {
  static int known = -1;
  char byte = 0;
  if (known < 0) known = without_calls(only_write, "y", &byte, 1) == 0 && byte == 'y';
  return known;
}

START_TEST(calls_are_noticed) {
  char byte = 0;
  if (!has_filters()) {
    printf("SKIPPED: no seccomp filters here: system calls of inference are not looked for\n");
    fflush(stdout);
    return;
  }
  ck_assert_int_eq(without_calls(call_the_system, NULL, &byte, 1), EXIT_CALLED);
  ck_assert_int_eq(byte, 0);
}
END_TEST

START_TEST(library_calls_are_counted) {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  void *volatile memory;
  void *made = NULL;
  memset(&calls, 0, sizeof calls);
  calls_counted = true;
  memory = malloc(1);
  memory = realloc(memory, 100);
  free(memory);
  memory = calloc(3, 4);
  free(memory);
  memory = aligned_alloc(64, 64);
  free(memory);
  const int status = posix_memalign(&made, 64, 64);
  free(made);
  pthread_mutex_lock(&mutex);
  pthread_mutex_unlock(&mutex);
  memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  munmap(memory, 4096);
  calls_counted = false;
  ck_assert_int_eq(status, 0);
  ck_assert_uint_eq(calls.allocations, 5);
  ck_assert_uint_eq(calls.frees, 4);
  ck_assert_uint_eq(calls.locks, 1);
  ck_assert_uint_eq(calls.maps, 2);
}
END_TEST

START_TEST(random_networks) {
  struct support_random random = {(uint64_t)_i};
  struct hwgq_network *network = support_random_network(&random);
  check_network(network, NULL, &random);
  hwgq_network_destroy(network);
}
END_TEST

/* Narrow, and no larger than 64 x 64 pixels; with two bits, four bits or signs. */
START_TEST(networks_of_the_paper) {
  const char *name = networks_names()[_i];
  const struct networks_entry *entry = networks_find(name);
  struct support_random random = {(uint64_t)_i + 1};
  struct hwgq_network *network;
  struct hwgq_quantizer quantizer;
  struct hwgq_error error;
  struct hwgq_shape shape = entry->input;
  if (shape.height > 64) shape.height = shape.width = strcmp(name, "alexnet") == 0 ? 67 : 64;
  ck_assert_int_eq(hwgq_quantizer_design(_i % 3 == 1 ? 15 : 3, true, false, &quantizer, &error), HWGQ_OK);
  ck_assert_msg(!networks_build(name, shape, 12, 0.25, _i % 3 == 2 ? NULL : &quantizer, &network, &error), "%s: %s", name,
                error.message);
  ck_assert_msg(!networks_randomize(network, &entry->preprocess, 1, 1, &error), "%s: %s", name, error.message);
  check_network(network, &entry->preprocess, &random);
  hwgq_network_destroy(network);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("run calls");
  TCase *tests = tcase_create("run calls");
  int networks = 0;
  while (networks_names()[networks]) networks++;
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, calls_are_noticed);
  tcase_add_test(tests, library_calls_are_counted);
  tcase_add_loop_test(tests, random_networks, 1, 13);
  tcase_add_loop_test(tests, networks_of_the_paper, 0, networks);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif
