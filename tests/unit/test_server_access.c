/* API keys and their file, per-client limits, addresses behind proxies, time spans. */
#include "server/access.h"
#include "server/auth.h"
#include "server/clock.h"
#include "server/limits.h"
#include "server/limits_address.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH "sha256:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
#define HASH_2 "sha256:10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

static struct hwgq_error error;

static enum hwgq_status parse(const char *text, struct auth_keys *keys) {
  error.message[0] = 0;
  return auth_parse(text, strlen(text), "keys", keys, &error);
}

START_TEST(a_file_of_keys) {
  struct auth_keys keys;
  ck_assert_msg(parse("# comment\n\n  a  inference " HASH "\r\n\tb admin " HASH_2
                      " requests_per_minute=0 concurrency=3 burst=1000000 # x",
                      &keys) == HWGQ_OK,
                "%s", error.message);
  ck_assert_int_eq(keys.count, 2);
  ck_assert_str_eq(keys.keys[0].name, "a");
  ck_assert_int_eq(keys.keys[0].rights, AUTH_INFERENCE);
  ck_assert_int_eq(keys.keys[0].hash[0], 0);
  ck_assert_int_eq(keys.keys[0].hash[31], 0xff);
  ck_assert_int_eq(keys.keys[0].rule.per_minute, -1);
  ck_assert_int_eq(keys.keys[1].rights, AUTH_ADMIN);
  ck_assert_int_eq(keys.keys[1].rule.per_minute, 0);
  ck_assert_int_eq(keys.keys[1].rule.concurrency, 3);
  ck_assert_int_eq(keys.keys[1].rule.burst, 1000000);
  auth_keys_release(&keys);
  ck_assert_int_eq(parse("", &keys), HWGQ_OK);
  ck_assert_int_eq(keys.count, 0);
  auth_keys_release(&keys);
}
END_TEST

static const struct {
  const char *text, *message;
} refused[] = {
    {"a", "keys:1: after the name must stand inference or admin"},
    {"\n\na root " HASH, "keys:3: after the name"},
    {"a admins " HASH, "keys:1: after the name"},
    {"a admin", "keys:1: after the rights"},
    {"a admin sha256:0011", "keys:1: after the rights"},
    {"a admin " HASH "0", "keys:1: after the rights"},
    {"a admin sha512:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "keys:1: after the rights"},
    {"a admin sha256:g0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "keys:1: after the rights"},
    {"a b admin " HASH, "keys:1: after the name"},
    {".a admin " HASH, "keys:1: the name of a key"},
    {"\xc3\xa4 admin " HASH, "keys:1: the name of a key"},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa admin " HASH, "keys:1: the name of a key"},
    {"a admin " HASH "\na admin " HASH_2, "keys:2: this name"},
    {"a admin " HASH "\nb admin " HASH, "keys:2: this hash"},
    {"a admin " HASH " x", "keys:1: after the hash"},
    {"a admin " HASH " burst=", "keys:1: after the hash"},
    {"a admin " HASH " burst=-1", "keys:1: after the hash"},
    {"a admin " HASH " burst=1000001", "keys:1: after the hash"},
    {"a admin " HASH " burst=99999999999", "keys:1: after the hash"},
    {"a admin " HASH " burst=1 burst=2", "keys:1: after the hash"},
};

START_TEST(mistakes_are_refused_with_file_and_line) {
  struct auth_keys keys;
  ck_assert_int_ne(parse(refused[_i].text, &keys), HWGQ_OK);
  ck_assert_msg(strstr(error.message, refused[_i].message) == error.message, "%s gives: %s", refused[_i].text, error.message);
  auth_keys_release(&keys);
}
END_TEST

START_TEST(zero_bytes_are_no_blanks) {
  struct auth_keys keys;
  static const char text[] = "a\0 admin " HASH;
  ck_assert_int_ne(auth_parse(text, sizeof text - 1, "keys", &keys, &error), HWGQ_OK);
  auth_keys_release(&keys);
  static const char word[] = "a adm\0in " HASH;
  ck_assert_int_ne(auth_parse(word, sizeof word - 1, "keys", &keys, &error), HWGQ_OK);
  auth_keys_release(&keys);
}
END_TEST

START_TEST(more_keys_than_there_may_be) {
  struct auth_keys keys;
  struct text text = {0};
  for (int i = 0; i <= AUTH_MAX_KEYS; i++) text_printf(&text, "k%d admin sha256:%064x\n", i, (unsigned)i);
  ck_assert_int_ne(parse(text.data, &keys), HWGQ_OK);
  ck_assert_msg(strstr(error.message, "keys:4097: there are more keys"), "%s", error.message);
  ck_assert_int_eq(keys.count, AUTH_MAX_KEYS);
  auth_keys_release(&keys);
  text_release(&text);
}
END_TEST

START_TEST(keys_are_made_found_and_replaced) {
  char folder[] = "/tmp/hwgqd-keys-XXXXXX", path[64], first[AUTH_KEY_SIZE], second[AUTH_KEY_SIZE];
  struct auth *auth = auth_create();
  struct auth_key key = {0};
  struct stat info;
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/keys", folder);
  ck_assert(!auth_enabled(auth));
  ck_assert_msg(auth_add(path, "one", AUTH_ADMIN, first, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_msg(auth_add(path, "two", AUTH_INFERENCE, second, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(auth_add(path, "two", AUTH_INFERENCE, second + 0, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(stat(path, &info), 0);
  ck_assert_int_eq(info.st_mode & 0777, 0600);
  ck_assert_int_eq(strlen(first), 70);
  ck_assert_str_ne(first, second);
  ck_assert(!auth_find(auth, first, &key));
  ck_assert_msg(auth_load(auth, path, &error) == HWGQ_OK, "%s", error.message);
  ck_assert(auth_enabled(auth));
  ck_assert(auth_find(auth, first, &key));
  ck_assert_str_eq(key.name, "one");
  ck_assert_int_eq(key.rights, AUTH_ADMIN);
  first[10] = (char)(first[10] == '0' ? '1' : '0');
  ck_assert(!auth_find(auth, first, &key));
  ck_assert(!auth_find(auth, "", &key));
  ck_assert_int_ne(auth_load(auth, "/nonexistent/keys", &error), HWGQ_OK);
  first[10] = (char)(first[10] == '0' ? '1' : '0');
  ck_assert(auth_enabled(auth)); /* a failure changes nothing */
  ck_assert_int_eq(chmod(path, 0602), 0);
  ck_assert_int_eq(auth_load(auth, path, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(auth_load(auth, NULL, &error), HWGQ_OK);
  ck_assert(!auth_enabled(auth));
  auth_destroy(auth);
  unlink(path);
  rmdir(folder);
}
END_TEST

/* ---- limits ------------------------------------------------------------------------------------------------------------- */

START_TEST(a_rate_with_a_burst) {
  struct limits *limits = limits_create(10);
  const struct limits_rule rule = {.per_minute = 120, .burst = 4};
  uint64_t now = 1000 * CLOCK_SECOND, wait = 0;
  int fine = 0;
  for (int i = 0; i < 10; i++) fine += limits_begin(limits, 1, &rule, now, &wait) == LIMITS_FINE;
  ck_assert_int_eq(fine, 4);
  ck_assert_uint_eq(wait, CLOCK_SECOND / 2);
  ck_assert_int_eq(limits_begin(limits, 1, &rule, now + wait - 1, &wait), LIMITS_RATE);
  ck_assert_uint_eq(wait, 1);
  ck_assert_int_eq(limits_begin(limits, 1, &rule, now + CLOCK_SECOND / 2, &wait), LIMITS_FINE);
  ck_assert_int_eq(limits_begin(limits, 2, &rule, now, &wait), LIMITS_FINE); /* somebody else */
  /* over a long time it is the rate, however often is asked */
  fine = 0;
  for (int ms = 1000; ms < 61000; ms += 7) {
    fine += limits_begin(limits, 1, &rule, now + (uint64_t)ms * CLOCK_MS, &wait) == LIMITS_FINE;
  }
  ck_assert_int_ge(fine, 119);
  ck_assert_int_le(fine, 123);
  limits_destroy(limits);
}
END_TEST

START_TEST(requests_in_progress) {
  struct limits *limits = limits_create(10);
  const struct limits_rule rule = {.concurrency = 2};
  uint64_t wait;
  ck_assert(!limits_rule_empty(&rule));
  ck_assert_int_eq(limits_begin(limits, 1, &rule, 1, &wait), LIMITS_FINE);
  ck_assert_int_eq(limits_begin(limits, 1, &rule, 1, &wait), LIMITS_FINE);
  ck_assert_int_eq(limits_begin(limits, 1, &rule, 1, &wait), LIMITS_CONCURRENCY);
  ck_assert_int_eq(limits_begin(limits, 2, &rule, 1, &wait), LIMITS_FINE);
  limits_end(limits, 1);
  ck_assert_int_eq(limits_begin(limits, 1, &rule, 1, &wait), LIMITS_FINE);
  limits_destroy(limits);
}
END_TEST

/* A million clients in a table of a hundred: who has something in progress is remembered. */
START_TEST(the_table_of_clients_is_bounded) {
  enum { PLACES = 100, KEPT = 10 };
  struct limits *limits = limits_create(PLACES);
  const struct limits_rule rule = {.concurrency = 1, .per_minute = 60};
  uint64_t wait;
  for (uint64_t client = 0; client < KEPT; client++) {
    ck_assert_int_eq(limits_begin(limits, client, &rule, 1, &wait), LIMITS_FINE);
  }
  for (uint64_t client = KEPT; client < 1000000; client++) {
    ck_assert_int_eq(limits_begin(limits, client * UINT64_C(0x9e3779b97f4a7c15), &rule, 2, &wait), LIMITS_FINE);
    limits_end(limits, client * UINT64_C(0x9e3779b97f4a7c15));
  }
  for (uint64_t client = 0; client < KEPT; client++) {
    ck_assert_int_eq(limits_begin(limits, client, &rule, 100 * CLOCK_SECOND, &wait), LIMITS_CONCURRENCY);
    limits_end(limits, client);
    ck_assert_int_eq(limits_begin(limits, client, &rule, 100 * CLOCK_SECOND, &wait), LIMITS_FINE);
  }
  /* when everyone has something in progress, more are let through uncounted rather than kept out */
  for (uint64_t client = 1; client <= 2 * PLACES; client++) {
    ck_assert_int_eq(limits_begin(limits, client << 40, &rule, 200 * CLOCK_SECOND, &wait), LIMITS_FINE);
  }
  for (uint64_t client = 1; client <= 2 * PLACES; client++) limits_end(limits, client << 40);
  limits_destroy(limits);
}
END_TEST

static void *begin_and_end(void *argument) {
  const struct limits_rule rule = {.concurrency = 3};
  uint64_t wait;
  uintptr_t fine = 0;
  for (uint64_t i = 0; i < 20000; i++) {
    if (limits_begin(argument, i % 50, &rule, i, &wait)) continue;
    limits_end(argument, i % 50);
    fine++;
  }
  return (void *)fine;
}

START_TEST(threads_share_the_table) {
  struct limits *limits = limits_create(20);
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, begin_and_end, limits), 0);
  for (int i = 0; i < 4; i++) {
    void *fine;
    pthread_join(threads[i], &fine);
    ck_assert_uint_gt((uintptr_t)fine, 10000);
  }
  limits_destroy(limits);
}
END_TEST

/* ---- addresses ---------------------------------------------------------------------------------------------------------- */

static struct limits_address address(const char *text) {
  struct limits_address parsed;
  ck_assert_msg(limits_address_parse(text, strlen(text), &parsed), "%s", text);
  return parsed;
}

static const struct {
  const char *peer, *header, *expected;
  bool nonsense; /* in the header */
} forwarded[] = {
    {"10.0.0.1", NULL, "10.0.0.1", false},
    {"10.0.0.1", "", "10.0.0.1", false},
    {"10.0.0.1", "192.0.2.1", "192.0.2.1", false},
    {"10.0.0.1", "198.51.100.1, 192.0.2.1", "192.0.2.1", false},
    {"10.0.0.1", "198.51.100.1 ,192.0.2.1 , 10.200.0.9", "192.0.2.1", false},
    {"10.0.0.1", "192.0.2.1:4711", "192.0.2.1", false},
    {"10.0.0.1", "[2001:db8::1]:80", "2001:db8::1", false},
    {"10.0.0.1", "2001:db8::1", "2001:db8::1", false},
    {"10.0.0.1", "10.3.0.1, 10.4.0.1", "10.3.0.1", false},
    {"10.0.0.1", "192.0.2.1, unknown", "10.0.0.1", true},
    {"10.0.0.1", "192.0.2.1,", "10.0.0.1", true},
    {"10.0.0.1", ",,,", "10.0.0.1", true},
    {"fd00::5", "192.0.2.1", "192.0.2.1", false},
    {"192.0.2.77", "198.51.100.1", "192.0.2.77", false},
    {"11.0.0.1", "198.51.100.1", "11.0.0.1", false},
};

START_TEST(proxies_that_are_trusted) {
  struct limits_networks trusted;
  ck_assert_int_eq(limits_networks_parse(" 10.0.0.0/8 ,fd00::/8", &trusted, &error), HWGQ_OK);
  struct limits_address got = address(forwarded[_i].peer), expected = address(forwarded[_i].expected);
  bool understood = limits_address_forwarded(&trusted, forwarded[_i].header, &got);
  ck_assert_int_eq(understood, !forwarded[_i].nonsense);
  ck_assert_mem_eq(got.bytes, expected.bytes, sizeof got.bytes);
}
END_TEST

START_TEST(networks_are_parsed) {
  struct limits_networks networks;
  static const char *const bad[] = {"10.0.0.0/33", "10.0.0/8",     "::/129",           "x",
                                    "10.0.0.0/",   "10.0.0.0/8/8", "1.2.3.4,,5.6.7.8", "1.2.3.4 5.6.7.8"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    ck_assert_msg(limits_networks_parse(bad[i], &networks, &error) != HWGQ_OK, "%s", bad[i]);
  }
  ck_assert_int_eq(limits_networks_parse("192.0.2.128/25, 0.0.0.0/0", &networks, &error), HWGQ_OK);
  networks.count = 1;
  struct limits_address in = address("192.0.2.200"), out = address("192.0.2.100"), other = address("c000:0280::");
  ck_assert(limits_networks_contain(&networks, &in));
  ck_assert(!limits_networks_contain(&networks, &out));
  ck_assert(!limits_networks_contain(&networks, &other));
  ck_assert_int_eq(limits_networks_parse("0.0.0.0/0", &networks, &error), HWGQ_OK);
  ck_assert(limits_networks_contain(&networks, &out) && !limits_networks_contain(&networks, &other));
}
END_TEST

START_TEST(clients_have_numbers) {
  struct limits_address a = address("192.0.2.1"), b = address("192.0.2.2"), mapped = address("::ffff:192.0.2.1");
  struct limits_address c = address("2001:db8:1:2::1"), d = address("2001:db8:1:2:3::4"), e = address("2001:db8:1:3::1");
  ck_assert_uint_ne(limits_address_number(&a, 1), limits_address_number(&b, 1));
  ck_assert_uint_ne(limits_address_number(&a, 1), limits_address_number(&a, 2));
  ck_assert_uint_eq(limits_address_number(&a, 1), limits_address_number(&mapped, 1));
  ck_assert_uint_eq(limits_address_number(&c, 1), limits_address_number(&d, 1));
  ck_assert_uint_ne(limits_address_number(&c, 1), limits_address_number(&e, 1));
}
END_TEST

/* ---- levels and times --------------------------------------------------------------------------------------------------- */

START_TEST(paths_have_levels) {
  ck_assert_int_eq(access_level("/healthz"), ACCESS_OPEN);
  ck_assert_int_eq(access_level("/v2/health/ready"), ACCESS_OPEN);
  ck_assert_int_eq(access_level("/docs"), ACCESS_OPEN);
  ck_assert_int_eq(access_level("/page/{name}"), ACCESS_OPEN);
  ck_assert_int_eq(access_level("/metrics"), ACCESS_METRICS);
  ck_assert_int_eq(access_level("/v1/models/{name}/stats"), ACCESS_METRICS);
  ck_assert_int_eq(access_level("/classify"), ACCESS_INFERENCE);
  ck_assert_int_eq(access_level("/v2/models/{name}/infer"), ACCESS_INFERENCE);
  ck_assert_int_eq(access_level("/something/new"), ACCESS_INFERENCE);
  ck_assert_int_eq(access_level("/v1/models/{name}/load"), ACCESS_ADMIN);
  ck_assert_int_eq(access_level("/v2/repository/models/{name}/unload"), ACCESS_ADMIN);
}
END_TEST

START_TEST(times_are_read) {
  static const struct {
    const char *text;
    uint64_t ns;
  } times[] = {{"1", CLOCK_SECOND},
               {"1s", CLOCK_SECOND},
               {" 1 s ", CLOCK_SECOND},
               {"250ms", 250 * CLOCK_MS},
               {"0.5", CLOCK_SECOND / 2},
               {"1.25 ms", 1250000},
               {"0.000000001", 1},
               {"0.0000000001", 0},
               {"2.", 2 * CLOCK_SECOND},
               {"999999999", 999999999 * CLOCK_SECOND},
               {"9999999999", 0},
               {"", 0},
               {"s", 0},
               {"-1", 0},
               {"+1", 0},
               {"1m", 0},
               {"1 m s", 0},
               {"1,5", 0},
               {".5", 0},
               {"1.5.5", 0},
               {"0", 0},
               {"1mss", 0},
               {"0x10", 0}};
  for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
    ck_assert_msg(access_timeout(times[i].text) == times[i].ns, "'%s' gives %llu", times[i].text,
                  (unsigned long long)access_timeout(times[i].text));
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_access");
  TCase *tests = tcase_create("access");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, a_file_of_keys);
  tcase_add_loop_test(tests, mistakes_are_refused_with_file_and_line, 0, (int)(sizeof refused / sizeof refused[0]));
  tcase_add_test(tests, zero_bytes_are_no_blanks);
  tcase_add_test(tests, more_keys_than_there_may_be);
  tcase_add_test(tests, keys_are_made_found_and_replaced);
  tcase_add_test(tests, a_rate_with_a_burst);
  tcase_add_test(tests, requests_in_progress);
  tcase_add_test(tests, the_table_of_clients_is_bounded);
  tcase_add_test(tests, threads_share_the_table);
  tcase_add_loop_test(tests, proxies_that_are_trusted, 0, (int)(sizeof forwarded / sizeof forwarded[0]));
  tcase_add_test(tests, networks_are_parsed);
  tcase_add_test(tests, clients_have_numbers);
  tcase_add_test(tests, paths_have_levels);
  tcase_add_test(tests, times_are_read);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
