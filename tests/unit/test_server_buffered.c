/* Memory of bodies and replies: a limit for all, and a share for each client. */
#include "server/buffered.h"

#include <check.h>

enum { LIMIT = 1000 };

static struct buffered buffered;

static bool take(uint64_t client, uint64_t held, uint64_t more) {
  return buffered_take(&buffered, LIMIT, client, held, more);
}

static void check_empty(void) {
  ck_assert_uint_eq(atomic_load(&buffered.total), 0);
  for (int i = 0; i < BUFFERED_SLOTS; i++) ck_assert_uint_eq(atomic_load(&buffered.of[i]), 0);
}

START_TEST(one_body_may_take_all_there_is) {
  ck_assert(take(1, 0, 600));
  ck_assert(take(1, 600, 400)); /* it grows */
  ck_assert(!take(1, 1000, 1));
  ck_assert(!take(2, 0, 1));
  buffered_give(&buffered, 1, 1000);
  check_empty();
}
END_TEST

START_TEST(several_of_one_client_leave_some_to_others) {
  uint64_t own = 0;
  while (take(1, 0, 50)) own += 50;
  ck_assert_uint_eq(own, 800); /* four times what is left */
  ck_assert(!take(1, 50, 50));
  ck_assert(take(2, 0, 150)); /* the first of another one may have what is free */
  ck_assert(!take(2, 0, 50)); /* its second may not */
  buffered_give(&buffered, 1, 800);
  ck_assert(take(2, 0, 300));
  buffered_give(&buffered, 2, 450);
  check_empty();
}
END_TEST

START_TEST(what_is_refused_holds_nothing) {
  ck_assert(!take(1, 0, LIMIT + 1));
  check_empty();
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_buffered");
  TCase *tests = tcase_create("buffered");
  tcase_add_test(tests, one_body_may_take_all_there_is);
  tcase_add_test(tests, several_of_one_client_leave_some_to_others);
  tcase_add_test(tests, what_is_refused_holds_nothing);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
