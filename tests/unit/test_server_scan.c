/* The scanner of JSON that the Open Inference Protocol's bodies go through. What it refuses is in tests/http/suite_v2.py and in
 * the fuzz programs. */
#include "server/scan.h"
#include "tests/support/support.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number_of(const char *text) {
  uint8_t bytes[512];
  struct scan scan;
  double value = 0;
  memcpy(bytes, text, strlen(text));
  scan_init(&scan, bytes, strlen(text));
  ck_assert_msg(scan_number(&scan, &value) && scan_finish(&scan), "%s: %s", text, scan.problem);
  return value;
}

/* Every spelling of a double gives it back, to the last bit. */
START_TEST(numbers_are_read_as_strtod_does) {
  static const char *const formats[] = {"%.17g", "%.9g", "%.1f", "%.6f", "%.3e", "%.0f", "%.25g"};
  struct support_random random = {5};
  for (int i = 0; i < 100000; i++) {
    char text[400];
    double value = support_random_normal(&random) * pow(10, support_random_int(&random, -30, 30));
    snprintf(text, sizeof text, formats[i % 7], value);
    double wanted = strtod(text, NULL), found = number_of(text);
    ck_assert_msg(memcmp(&wanted, &found, sizeof found) == 0, "%s: %.17g", text, found);
  }
  ck_assert(isinf(number_of("1e999")) && isinf(number_of("-1e400")) && signbit(number_of("-0")));
  ck_assert_double_eq(number_of("0e99999999999999"), 0);
  ck_assert_double_eq(number_of("1e-99999999999999"), 0);
  ck_assert_double_eq(number_of("9007199254740993"), 9007199254740992.0);
  ck_assert_double_eq(number_of("5e-324"), 5e-324);
}
END_TEST

START_TEST(integers_are_whole) {
  static const struct {
    const char *text;
    bool good;
    int64_t value;
  } cases[] = {{"0", true, 0},    {"-17", true, -17}, {"123456789012345", true, 123456789012345},
               {"1.0", false, 0}, {"1e3", false, 0},  {"99999999999999999999", false, 0},
               {"true", false, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint8_t bytes[64];
    struct scan scan;
    int64_t value = 0;
    memcpy(bytes, cases[i].text, strlen(cases[i].text));
    scan_init(&scan, bytes, strlen(cases[i].text));
    ck_assert_int_eq(scan_integer(&scan, &value), cases[i].good);
    if (cases[i].good) ck_assert_int_eq(value, cases[i].value);
  }
}
END_TEST

START_TEST(strings_stand_for_what_they_escape) {
  static const struct {
    const char *text, *wanted;
  } cases[] = {{"plain", "plain"},
               {"\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"},
               {"a\\u00e9\\u20acz", "a\xc3\xa9\xe2\x82\xacz"},
               {"\\ud83d\\ude00", "\xf0\x9f\x98\x80"},
               {"\\ud83d", "\xef\xbf\xbd"},
               {"\\ude00\\ud83dx", "\xef\xbf\xbd\xef\xbf\xbdx"},
               {"\\ud83d\\u0041", "\xef\xbf\xbd"
                                  "A"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[64], found[64];
    struct scan scan;
    struct scan_string string;
    int length = snprintf(text, sizeof text, " \"%s\" ", cases[i].text);
    scan_init(&scan, (uint8_t *)text, (size_t)length);
    ck_assert_msg(scan_string(&scan, &string) && scan_finish(&scan), "%s", cases[i].text);
    ck_assert(scan_copy(&string, found, sizeof found));
    ck_assert_str_eq(found, cases[i].wanted);
  }
}
END_TEST

START_TEST(base64_gives_the_bytes_back) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  struct support_random random = {9};
  for (int round = 0; round < 20000; round++) {
    uint8_t bytes[64], text[96];
    size_t length = (size_t)support_random_int(&random, 0, 60), written = 0;
    for (size_t i = 0; i < length; i++) bytes[i] = (uint8_t)support_random_int(&random, 0, 255);
    for (size_t i = 0; i < length; i += 3) {
      uint32_t group = 0;
      size_t count = length - i < 3 ? length - i : 3;
      for (size_t k = 0; k < 3; k++) group = group << 8 | (k < count ? bytes[i + k] : 0u);
      for (size_t k = 0; k < 4; k++) text[written++] = (uint8_t)(k <= count ? digits[group >> (18 - 6 * k) & 63] : '=');
    }
    size_t found = written;
    if (round % 2) {
      while (found && text[found - 1] == '=') found--;
    }
    ck_assert(scan_base64(text, &found));
    ck_assert_uint_eq(found, length);
    ck_assert_mem_eq(text, bytes, length);
  }
  static const char *const bad[] = {
      "a", "abcde", "ab=c", "=", "====", "a===", "ab=", "ab===", "aa==bb==", "ab\n=", "a-b_", "aB"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    uint8_t text[16];
    size_t length = strlen(bad[i]);
    memcpy(text, bad[i], length);
    ck_assert_msg(!scan_base64(text, &length), "%s", bad[i]);
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_scan");
  TCase *tests = tcase_create("scan");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, numbers_are_read_as_strtod_does);
  tcase_add_test(tests, integers_are_whole);
  tcase_add_test(tests, strings_stand_for_what_they_escape);
  tcase_add_test(tests, base64_gives_the_bytes_back);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
