/* The form parser and the JSON text writer: what comes from and goes to the network. */
#include "models/classify/text.h"
#include "server/multipart.h"
#include "tests/support/support.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static struct hwgq_error error;
static struct multipart_part parts[8];
static int count;

/* Parses a copy that ends where the bytes end, so that a sanitizer sees any read behind them. */
static enum hwgq_status parse_bytes(const char *body, size_t length, const char *boundary, uint8_t **copy) {
  *copy = malloc(length ? length : 1);
  ck_assert_ptr_nonnull(*copy);
  if (length) memcpy(*copy, body, length);
  error.message[0] = 0;
  return multipart_parse(*copy, length, boundary, parts, 8, &count, &error);
}

static enum hwgq_status parse(const char *body) {
  uint8_t *copy;
  enum hwgq_status status = parse_bytes(body, strlen(body), "XX", &copy);
  free(copy);
  return status;
}

static const struct {
  const char *content_type, *boundary; /* NULL: refused */
} boundaries[] = {
    {"multipart/form-data; boundary=XX", "XX"},
    {"multipart/form-data;boundary=\"a b\"", "a b"},
    {"Multipart/Form-Data; charset=utf-8; BOUNDARY=----WebKit7MA4YWxkTrZu0gW", "----WebKit7MA4YWxkTrZu0gW"},
    {"multipart/form-data; boundary = XX ; charset=x", "XX"},
    {"multipart/form-data", NULL},
    {"multipart/form-data; boundary=", NULL},
    {"multipart/form-data; boundary=\"\"", NULL},
    {"multipart/form-data; boundary=\"ends with a blank \"", NULL},
    {"multipart/form-data; boundary=\"not closed", NULL},
    {"multipart/form-data; boundary=a; boundary=b", NULL},
    {"multipart/form-data; boundary=\"tab\there\"", NULL},
    {"multipart/form-data; boundary=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
    {"multipart/form-data; boundary=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", NULL},
};

START_TEST(boundaries_are_taken_or_refused) {
  char boundary[MULTIPART_MAX_BOUNDARY + 1];
  enum hwgq_status status = multipart_boundary(boundaries[_i].content_type, boundary, &error);
  ck_assert_int_eq(status, boundaries[_i].boundary ? HWGQ_OK : HWGQ_ERROR_FORMAT);
  if (boundaries[_i].boundary) ck_assert_str_eq(boundary, boundaries[_i].boundary);
}
END_TEST

START_TEST(a_form_as_curl_and_browsers_send_it) {
  static const char body[] = "--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a \\\"b\\\".jpg\"\r\n"
                             "Content-Type: image/jpeg\r\n\r\n\xff\xd8\0\r\n--X\r\n\xff\xd9\r\n--XX\r\n"
                             "content-disposition: form-data; filename=\"C:\\dir\\x.jpg\"; name=top_k\r\n\r\n3\r\n--XX--\r\n";
  uint8_t *copy;
  ck_assert_msg(parse_bytes(body, sizeof body - 1, "XX", &copy) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(count, 2);
  ck_assert_str_eq(parts[0].name, "image");
  ck_assert_uint_eq(parts[0].length, 12);
  ck_assert_mem_eq(parts[0].data, "\xff\xd8\0\r\n--X\r\n\xff\xd9", 12);
  ck_assert_str_eq(parts[1].name, "top_k");
  ck_assert_uint_eq(parts[1].length, 1);
  ck_assert_mem_eq(parts[1].data, "3", 1);
  free(copy);
}
END_TEST

static const struct {
  const char *body;
  int count; /* -1: refused */
} bodies[] = {
    {"--XX--", 0},
    {"preamble\r\n--XX--\r\nepilogue", 0},
    {"--XX \t\r\n\r\n\r\n--XX--", 1},                                                /* blanks behind a boundary */
    {"--XX\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n\r\n--XX--", 1}, /* empty part */
    {"--XX\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\n--XX--", 1},     /* the same, one line end less */
    {"--XX\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nx\r\n--XX--", 1},
    {"", -1},
    {"--X", -1},
    {"--XX", -1},
    {"--XX-", -1},
    {"--XX\r\n", -1},
    {"--XX\r\n\r\nx", -1}, /* cut off in a part */
    {"--XX\r\n\r\nx\r\n--X", -1},
    {"--XX\r\n\r\nx\r\n--XXY\r\n\r\ny\r\n--XX--", -1}, /* a longer boundary inside */
    {"--XX\n\nx\n--XX--", -1},                         /* bare line feeds */
    {"--XX\r\nContent-Disposition\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Disposition: attachment; name=\"image\"\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Disposition: form-data; name=\"image\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Disposition: form-data; name=\"a\"; name=\"b\"\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Disposition: form-data name=\"a\"\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Transfer-Encoding: base64\r\n\r\nx\r\n--XX--", -1},
    {"--XX\r\nContent-Transfer-Encoding: binary\r\n\r\nx\r\n--XX--", 1},
    {"--XX\r\nContent-Disposition: form-data; name=\"0123456789012345678901234567890123456789012345678901234567890123\"\r\n"
     "\r\nx\r\n--XX--",
     -1},
};

START_TEST(well_formed_or_refused) {
  enum hwgq_status status = parse(bodies[_i].body);
  if (bodies[_i].count < 0) {
    ck_assert_int_eq(status, HWGQ_ERROR_FORMAT);
    ck_assert_uint_gt(strlen(error.message), 0);
  } else {
    ck_assert_msg(status == HWGQ_OK, "%s: %s", bodies[_i].body, error.message);
    ck_assert_int_eq(count, bodies[_i].count);
    for (int i = 0; i < count; i++) ck_assert_uint_le(parts[i].length, 1);
  }
}
END_TEST

START_TEST(too_many_parts_are_refused) {
  struct text text = {0};
  for (int i = 0; i < 9; i++) text_puts(&text, "--XX\r\n\r\nx\r\n");
  text_puts(&text, "--XX--");
  ck_assert_int_eq(parse(text.data), HWGQ_ERROR_LIMIT);
  text_release(&text);
}
END_TEST

START_TEST(endless_headers_are_refused) {
  struct text text = {0};
  text_puts(&text, "--XX\r\n");
  for (int i = 0; i < 2000; i++) text_puts(&text, "X-Filler: 0123456789\r\n");
  text_puts(&text, "\r\nx\r\n--XX--");
  ck_assert_int_eq(parse(text.data), HWGQ_ERROR_FORMAT);
  text_release(&text);
}
END_TEST

/* Any bytes as a label come out as JSON that a parser reads, and valid UTF-8 comes out unchanged. */
START_TEST(json_strings_are_valid_whatever_is_in_them) {
  struct support_random random = {7};
  for (int round = 0; round < 20000; round++) {
    char label[24];
    struct text text = {0};
    int length = support_random_int(&random, 0, 23);
    for (int i = 0; i < length; i++) {
      /* mostly the bytes that matter: UTF-8 leads and continuations, quotes, controls */
      static const char interesting[] = "\"\\\n\t\x01\x7f\x80\xbf\xc0\xc2\xe0\xa0\xed\x9f\xef\xf0\x90\xf4\x8f\xf5\xff";
      label[i] = support_random_chance(&random, 0.7) ? interesting[support_random_int(&random, 0, sizeof interesting - 2)]
                                                     : (char)support_random_int(&random, 1, 255);
    }
    label[length] = 0;
    text_json_string(&text, label);
    json_t *value = json_loads(text.data, JSON_DECODE_ANY, NULL), *same = json_string(label);
    ck_assert_msg(json_is_string(value), "%s", text.data);
    if (same) ck_assert_str_eq(json_string_value(value), label); /* NULL when the label is not UTF-8 */
    json_decref(value);
    json_decref(same);
    text_release(&text);
  }
}
END_TEST

START_TEST(floats_read_back_to_the_same_bits) {
  struct support_random random = {8};
  for (int round = 0; round < 200000; round++) {
    uint32_t bits = (uint32_t)support_random_next(&random);
    struct text text = {0};
    float value;
    memcpy(&value, &bits, sizeof value);
    if (round % 2) value = (float)support_random_uniform(&random);
    if (round % 4 == 3) value *= 2e-3f; /* around the smallest that are written without an exponent */
    text_json_float(&text, value);
    if (value - value != 0) { /* infinite or not a number */
      ck_assert_str_eq(text.data, "null");
    } else {
      float back = strtof(text.data, NULL);
      ck_assert_msg(memcmp(&back, &value, sizeof back) == 0, "%.9g as %s", (double)value, text.data);
      ck_assert_uint_le(text.length, 16);
    }
    text_release(&text);
  }
}
END_TEST

static const struct {
  float value;
  const char *text;
} floats[] = {{0.0f, "0"},
              {1.0f, "1"},
              {0.5f, "0.5"},
              {0.93f, "0.93"},
              {1e-4f, "0.0001"},
              {9.9999994e-1f, "0.99999994"},
              {1.5e-4f, "0.00015"},
              {0.25f, "0.25"},
              {0.1f, "0.1"},
              {1e-8f, "1e-08"},
              {1.0f / 3, "0.33333334"}};

START_TEST(floats_take_as_few_digits_as_they_need) {
  struct text text = {0};
  text_json_float(&text, floats[_i].value);
  ck_assert_str_eq(text.data, floats[_i].text);
  text_release(&text);
}
END_TEST

START_TEST(durations_and_integers) {
  static const struct {
    unsigned long long ns;
    const char *text;
  } cases[] = {{0, "0.000"},
               {499, "0.000"},
               {500, "0.001"},
               {999499, "0.999"},
               {999500, "1.000"},
               {1234567, "1.235"},
               {60000000000u, "60000.000"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct text text = {0};
    text_ms(&text, cases[i].ns);
    ck_assert_str_eq(text.data, cases[i].text);
    text_release(&text);
  }
  struct text text = {0};
  text_integer(&text, 0);
  text_integer(&text, -17);
  text_integer(&text, INT64_MIN);
  text_integer(&text, INT64_MAX);
  ck_assert_str_eq(text.data, "0-17-92233720368547758089223372036854775807");
  text_release(&text);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_multipart");
  TCase *tests = tcase_create("multipart");
  tcase_set_timeout(tests, 60);
  tcase_add_loop_test(tests, boundaries_are_taken_or_refused, 0, (int)(sizeof boundaries / sizeof boundaries[0]));
  tcase_add_test(tests, a_form_as_curl_and_browsers_send_it);
  tcase_add_loop_test(tests, well_formed_or_refused, 0, (int)(sizeof bodies / sizeof bodies[0]));
  tcase_add_test(tests, too_many_parts_are_refused);
  tcase_add_test(tests, endless_headers_are_refused);
  tcase_add_test(tests, json_strings_are_valid_whatever_is_in_them);
  tcase_add_test(tests, floats_read_back_to_the_same_bits);
  tcase_add_loop_test(tests, floats_take_as_few_digits_as_they_need, 0, (int)(sizeof floats / sizeof floats[0]));
  tcase_add_test(tests, durations_and_integers);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
