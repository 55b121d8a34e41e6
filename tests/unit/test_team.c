/* One image by several participants: the same bits as hwgq_run gives, whatever parts of the work come in what order. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"
#include "models/networks/networks.h"
#include "tests/support/support.h"

static const char *const forms[] = {"popcount", "lookup4", "lookup6"};
enum { FORMS = sizeof forms / sizeof *forms };

/* A plan, an input for it and the scores that hwgq_run_tensor gives. */
struct subject {
  struct hwgq_plan *plan;
  const struct hwgq_network *network;
  const float *input;
  float *scores;
  size_t score_bytes;
};

static struct subject subject_of(const struct hwgq_network *network, const char *form, const float *input) {
  struct subject subject = {.network = network, .input = input};
  struct hwgq_error error = {""};
  const struct hwgq_plan_options options = {.form = form};
  ck_assert_msg(hwgq_plan_create(network, NULL, &options, &subject.plan, &error) == HWGQ_OK, "%s", error.message);
  subject.score_bytes = (size_t)hwgq_plan_output_count(subject.plan) * sizeof(float);
  subject.scores = malloc(subject.score_bytes);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(subject.plan));
  hwgq_run_tensor(subject.plan, scratch, input, subject.scores);
  free(scratch);
  return subject;
}

static void release(struct subject *subject) {
  free(subject->scores);
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
  const struct plan_frame frame = {.scratch = scratch, .local = scratch + plan->shared_bytes, .input = subject->input};
  memset(scratch, 0x5a, bytes);
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    if (stage->prepare) run_step(subject, stage, stage->prepare, stage->prepare_units, &frame, random);
    run_step(subject, stage, stage->run, stage->run_units, &frame, random);
  }
  run_unpack_chw(&plan->tensors[plan->output_tensor], plan_data(plan, &frame, plan->output_tensor), scores);
  ck_assert_msg(memcmp(scores, subject->scores, subject->score_bytes) == 0, "network '%s' differs in parts",
                subject->network->name);
  free(scores);
  free(scratch);
}

/* ---- networks ---------------------------------------------------------------------------------------------------------------
 */

typedef void check_subject(const struct subject *subject, struct support_random *random);

static void on_random_networks(int count, check_subject *check) {
  for (unsigned seed = 0; seed < (unsigned)count; seed++) {
    struct support_random random = {seed};
    struct hwgq_network *network = support_random_network(&random);
    float *input = support_random_input(network->input, &random);
    struct subject subject = subject_of(network, forms[seed % FORMS], input);
    check(&subject, &random);
    release(&subject);
    free(input);
    hwgq_network_destroy(network);
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
  float *input = support_random_input(network->input, &random);
  for (int k = 0; k < FORMS; k++) {
    struct subject subject = subject_of(network, forms[k], input);
    check(&subject, &random);
    release(&subject);
  }
  free(input);
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

int main(void) {
  Suite *suite = suite_create("team");
  TCase *tests = tcase_create("team");
  int networks = 0;
  while (networks_names()[networks]) networks++;
  tcase_set_timeout(tests, 300);
  tcase_add_test(tests, units_of_random_networks);
  tcase_add_loop_test(tests, units_of_networks, 0, networks);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
