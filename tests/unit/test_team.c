/* One image by several participants: the same bits as hwgq_run gives, whatever parts of the work come in what order. */
#include <check.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan.h"
#include "models/networks/networks.h"
#include "tests/support/support.h"

static const char *const forms[] = {"sliced", "popcount", "lookup4", "lookup6"};
enum { FORMS = sizeof forms / sizeof *forms };

/* A plan, an image for it and the scores that hwgq_run gives. */
struct subject {
  struct hwgq_plan *plan;
  const struct hwgq_network *network;
  uint8_t *pixels;
  float *scores;
  size_t score_bytes;
};

static struct subject subject_of(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                 const char *form) {
  struct subject subject = {.network = network};
  struct hwgq_error error = {""};
  const struct hwgq_plan_options options = {.form = form};
  ck_assert_msg(hwgq_plan_create(network, preprocess, &options, &subject.plan, &error) == HWGQ_OK, "%s", error.message);
  subject.score_bytes = (size_t)hwgq_plan_output_count(subject.plan) * sizeof(float);
  subject.scores = malloc(subject.score_bytes);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(subject.plan));
  subject.pixels = malloc((size_t)hwgq_shape_elements(network->input));
  networks_image(network->input, 5, 3, subject.pixels);
  hwgq_run(subject.plan, scratch, subject.pixels, subject.scores);
  free(scratch);
  return subject;
}

static void release(struct subject *subject) {
  free(subject->scores);
  free(subject->pixels);
  hwgq_plan_destroy(subject->plan);
}

/* ---- units -----------------------------------------------------------------------------------------------------------------
 */

/* Ranges of random lengths in random order; local memory has other contents each time. */
static void run_step(const struct subject *subject, const struct plan_stage *stage, plan_run *run, int count,
                     const struct plan_frame *frame, struct support_random *random) {
  struct plan_units ranges[64];
  int ranges_count = 0;
  for (int begin = 0; begin < count; ranges_count++) {
    const int longest = ranges_count == 63 ? count : begin + support_random_int(random, 1, count / 4 + 1);
    ranges[ranges_count] = (struct plan_units){begin, longest < count ? longest : count};
    begin = ranges[ranges_count].end;
  }
  for (int i = ranges_count - 1; i >= 0; i--) {
    const int k = support_random_int(random, 0, i);
    memset(frame->local, (int)support_random_next(random) & 0xff, subject->plan->local_bytes);
    run(subject->plan, stage, frame, ranges[k]);
    ranges[k] = ranges[i];
  }
}

static void check_units(const struct subject *subject, struct support_random *random) {
  const struct hwgq_plan *plan = subject->plan;
  const size_t bytes = hwgq_plan_scratch_bytes(plan);
  uint8_t *scratch = aligned_alloc(64, bytes);
  float *scores = malloc(subject->score_bytes);
  const struct plan_frame frame = {.scratch = scratch, .local = scratch + plan->shared_bytes, .pixels = subject->pixels};
  memset(scratch, 0x5a, bytes);
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    if (stage->prepare) run_step(subject, stage, stage->prepare, stage->prepare_units, &frame, random);
    run_step(subject, stage, stage->run, stage->run_units, &frame, random);
  }
  const struct plan_tensor *output = &plan->tensors[plan->output_tensor];
  run_unpack_chw(output, plan_data(plan, &frame, plan->output_tensor), 0, output->shape.channels, scores);
  ck_assert_msg(memcmp(scores, subject->scores, subject->score_bytes) == 0, "network '%s' differs in parts",
                subject->network->name);
  free(scores);
  free(scratch);
}

/* ---- networks ---------------------------------------------------------------------------------------------------------------
 */

typedef void check_subject(const struct subject *subject, struct support_random *random);

static void on_random_networks(int count, check_subject *check) {
  for (unsigned seed = 0; seed < (unsigned)support_rounds(count); seed++) {
    struct support_random random = {seed};
    struct hwgq_model *model = support_random_model(&random);
    struct subject subject = subject_of(model->network, &model->preprocess, forms[seed % FORMS]);
    check(&subject, &random);
    release(&subject);
    hwgq_model_destroy(model);
  }
}

/* Every network of the paper, narrow, on images that are large enough for several bands. */
static void on_network(int index, check_subject *check) {
  enum { SIZE = 99, CLASSES = 70 };
  struct support_random random = {100u + (unsigned)index};
  const struct networks_entry *entry = networks_find(networks_names()[index]);
  const int size = entry->input.height < SIZE ? entry->input.height : SIZE;
  struct hwgq_network *network = NULL;
  struct hwgq_quantizer quantizer;
  struct hwgq_error error = {""};
  ck_assert_int_eq(hwgq_quantizer_design(3, true, false, &quantizer, &error), HWGQ_OK);
  ck_assert_msg(networks_build(entry->name, (struct hwgq_shape){entry->input.channels, size, size}, CLASSES, 0.3, &quantizer,
                               &network, &error) == HWGQ_OK,
                "%s", error.message);
  ck_assert_msg(networks_randomize(network, &entry->preprocess, 5, 2, &error) == HWGQ_OK, "%s", error.message);
  for (int k = 0; k < support_rounds(FORMS); k++) {
    struct subject subject = subject_of(network, &entry->preprocess, forms[(index + k) % FORMS]);
    check(&subject, &random);
    release(&subject);
  }
  hwgq_network_destroy(network);
}

START_TEST(units_of_random_networks) {
  on_random_networks(150, check_units);
}
END_TEST

START_TEST(units_of_networks) {
  on_network(_i, check_units);
}
END_TEST

/* ---- teams ------------------------------------------------------------------------------------------------------------------
 */

enum { HELPERS = 3 };

static struct hwgq_team *team;
static atomic_bool ended;
static atomic_int wakes;

/* Helpers come whenever they like; the leader believes in them every other time. */
static bool wake(void *context) {
  return atomic_fetch_add((atomic_int *)context, 1) % 16 < 8;
}

/* Now and then, so that helpers come and go during runs. */
static bool leave_sometimes(void *context) {
  return support_random_chance(context, 0.02);
}

static void *help(void *argument) {
  struct support_random random = {(uint64_t)(uintptr_t)argument};
  while (!atomic_load(&ended)) {
    if (!hwgq_team_help(team, leave_sometimes, &random)) sched_yield();
  }
  return NULL;
}

static int helped; /* runs */

static void check_team(const struct subject *subject, struct support_random *random) {
  const size_t bytes = hwgq_plan_team_scratch_bytes(subject->plan, HELPERS);
  void *scratch = aligned_alloc(64, bytes);
  float *scores = malloc(subject->score_bytes);
  for (int i = 0; i < 4; i++) {
    memset(scratch, (int)support_random_next(random) & 0xff, bytes);
    memset(scores, 0, subject->score_bytes);
    helped += hwgq_run_team(subject->plan, scratch, subject->pixels, scores, team, NULL) > 0;
    ck_assert_msg(memcmp(scores, subject->scores, subject->score_bytes) == 0, "network '%s' differs in a team",
                  subject->network->name);
  }
  free(scores);
  free(scratch);
}

/* With 1 to HELPERS threads beside this one. */
static void with_helpers(int count, void (*run)(int), int argument) {
  pthread_t threads[HELPERS];
  struct hwgq_error error;
  ck_assert_int_eq(hwgq_team_create(HELPERS, wake, &wakes, &team, &error), HWGQ_OK);
  for (int i = 0; i < count; i++) {
    ck_assert_int_eq(pthread_create(&threads[i], NULL, help, (void *)(uintptr_t)(100 + i)), 0);
  }
  /* A machine with one core runs the helpers rarely. */
  for (int round = 0; round < 1000 && helped == 0; round++) run(argument);
  atomic_store(&ended, true);
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
  ck_assert_int_gt(helped, 0);
  ck_assert_int_gt(atomic_load(&wakes), 0);
  hwgq_team_destroy(team);
}

static void team_on_random_networks(int count) {
  on_random_networks(count, check_team);
}
static void team_on_network(int index) {
  on_network(index, check_team);
}

START_TEST(teams_on_random_networks) {
  with_helpers(_i, team_on_random_networks, 60);
}
END_TEST

START_TEST(teams_on_networks) {
  with_helpers(1 + _i % HELPERS, team_on_network, _i);
}
END_TEST

static bool leave(void *context) {
  ++*(int *)context;
  return true;
}

/* A team without a run: nobody waits in it. */
START_TEST(idle_team) {
  struct hwgq_error error;
  int asked = 0;
  ck_assert_int_eq(hwgq_team_create(0, NULL, NULL, &team, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(hwgq_team_create(HWGQ_MAX_HELPERS + 1, NULL, NULL, &team, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "16"));
  ck_assert_int_eq(hwgq_team_create(1, NULL, NULL, &team, &error), HWGQ_OK);
  ck_assert(!hwgq_team_open(team));
  ck_assert(!hwgq_team_help(team, leave, &asked));
  ck_assert_int_eq(asked, 0);
  hwgq_team_destroy(team);
}
END_TEST

/* Alone: what hwgq_run gives, with times of the stages. */
static void check_alone(const struct subject *subject, struct support_random *random) {
  struct hwgq_error error;
  (void)random;
  ck_assert_int_eq(hwgq_team_create(1, NULL, NULL, &team, &error), HWGQ_OK);
  void *scratch = aligned_alloc(64, hwgq_plan_team_scratch_bytes(subject->plan, 1));
  float *scores = malloc(subject->score_bytes);
  uint64_t *times = calloc((size_t)hwgq_plan_stage_count(subject->plan), sizeof *times), total = 0;
  ck_assert_int_eq(hwgq_run_team(subject->plan, scratch, subject->pixels, scores, team, times), 0);
  ck_assert_mem_eq(scores, subject->scores, subject->score_bytes);
  for (int s = 0; s < hwgq_plan_stage_count(subject->plan); s++) total += times[s];
  ck_assert_uint_gt(total, 0);
  ck_assert(!hwgq_team_open(team));
  free(times);
  free(scores);
  free(scratch);
  hwgq_team_destroy(team);
}

START_TEST(leader_alone) {
  on_random_networks(20, check_alone);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("team");
  TCase *tests = tcase_create("alone"), *threads = tcase_create("threads");
  int networks = 0;
  while (networks_names()[networks]) networks++;
  tcase_set_timeout(tests, 300);
  tcase_set_timeout(threads, 300);
  tcase_add_test(tests, units_of_random_networks);
  tcase_add_loop_test(tests, units_of_networks, 0, networks);
  tcase_add_loop_test(threads, teams_on_random_networks, 1, HELPERS + 1);
  tcase_add_loop_test(threads, teams_on_networks, 0, networks);
  tcase_add_test(tests, idle_team);
  tcase_add_test(tests, leader_alone);
  suite_add_tcase(suite, tests);
  suite_add_tcase(suite, threads);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
