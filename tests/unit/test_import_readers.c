/* The two readers of the Caffe importer: protobuf's wire format and its text format. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "models/import/protobuf.h"
#include "models/import/prototxt.h"

static struct hwgq_error failure;

/* ---- protobuf -------------------------------------------------------------------------------------------------------------
 */

START_TEST(wire_fields) {
  static const uint8_t message[] = {0x08, 0x96, 0x01, 0x12, 0x02, 'h', 'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 0, 0, 0, 0, 0, 0, 0x80};
  struct protobuf_reader reader = protobuf_open(message, sizeof message);
  struct protobuf_field field;
  ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_FIELD);
  ck_assert(field.number == 1 && field.wire == PROTOBUF_VARINT && field.value == 150);
  ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_FIELD);
  ck_assert(field.number == 2 && field.length == 2 && memcmp(field.bytes, "hi", 2) == 0);
  ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_FIELD);
  ck_assert(field.number == 3 && field.value == 0x04030201);
  ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_FIELD);
  ck_assert(field.number == 4 && field.value == 0x8000000000000001u);
  ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_END);
}
END_TEST

START_TEST(wire_damage) {
  static const struct {
    uint8_t bytes[12];
    size_t length;
  } damaged[] = {
      {{0x08}, 1},                                                     /* a varint that is not there */
      {{0x08, 0x80}, 2},                                               /* an unfinished varint */
      {{0x00, 0x00}, 2},                                               /* field number 0 */
      {{0x12, 0x05, 'a'}, 3},                                          /* a length past the end */
      {{0x1d, 1, 2, 3}, 4},                                            /* a short fixed32 */
      {{0x21, 1, 2, 3, 4, 5, 6, 7}, 8},                                /* a short fixed64 */
      {{0x0b}, 1},                                                     /* a group */
      {{0x0e}, 1},                                                     /* wire type 6 */
      {{0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x02}, 11}, /* more than 64 bits */
      {{0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0x01}, 11}, /* a length of 2^64 - 1 */
  };
  for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
    struct protobuf_reader reader = protobuf_open(damaged[i].bytes, damaged[i].length);
    struct protobuf_field field;
    ck_assert_int_eq(protobuf_next(&reader, &field), PROTOBUF_DAMAGED);
  }
}
END_TEST

/* ---- prototxt -------------------------------------------------------------------------------------------------------------
 */

static void parse(const char *text, struct prototxt *document) {
  enum hwgq_status status = prototxt_parse(text, strlen(text), document, &failure);
  ck_assert_msg(status == HWGQ_OK, "%s", failure.message);
}

START_TEST(text_values) {
  struct prototxt document;
  parse("# c\na: 1, b: -2.5e1; s: 'it\\'s \\\"x\\\" \\101' # 'quoted'\n \" and more\"\nm < k: TEST > n: { k: true }"
        "l: [3, 4,5] e: [] h: 0x1F f: 1.5f",
        &document);
  int value = 0, field;
  float number = 0;
  bool flag = false;
  char text[PROTOTXT_STRING_SIZE];
  ck_assert_int_eq(prototxt_get_integer(&document, 0, "a", 0, 9, &value, &failure), HWGQ_OK);
  ck_assert_int_eq(value, 1);
  ck_assert_int_eq(prototxt_get_float(&document, 0, "b", &number, &failure), HWGQ_OK);
  ck_assert(number == -25);
  ck_assert_int_eq(prototxt_get_string(&document, 0, "s", text, &failure), HWGQ_OK);
  ck_assert_str_eq(text, "it's \"x\" A and more");
  ck_assert_int_eq(prototxt_get_message(&document, 0, "m", &field, &failure), HWGQ_OK);
  ck_assert_int_eq(prototxt_get_word(&document, field, "k", text, &failure), HWGQ_OK);
  ck_assert_str_eq(text, "TEST");
  ck_assert_int_eq(prototxt_get_message(&document, 0, "n", &field, &failure), HWGQ_OK);
  ck_assert_int_eq(prototxt_get_bool(&document, field, "k", &flag, &failure), HWGQ_OK);
  ck_assert(flag);
  int count = 0;
  for (field = prototxt_find(&document, 0, "l"); field != PROTOTXT_NONE; field = prototxt_find_next(&document, field)) {
    int64_t element;
    ck_assert_int_eq(prototxt_integer(&document, field, 0, 9, &element, &failure), HWGQ_OK);
    ck_assert_int_eq(element, 3 + count++);
  }
  ck_assert_int_eq(count, 3);
  ck_assert_int_eq(prototxt_find(&document, 0, "e"), PROTOTXT_NONE);
  ck_assert_int_eq(prototxt_get_integer(&document, 0, "h", 0, 99, &value, &failure), HWGQ_OK);
  ck_assert_int_eq(value, 31);
  ck_assert_int_ne(prototxt_unused(&document, 0), PROTOTXT_NONE);
  ck_assert_int_eq(prototxt_get_float(&document, 0, "f", &number, &failure), HWGQ_OK);
  ck_assert_int_eq(prototxt_unused(&document, 0), PROTOTXT_NONE);
  prototxt_release(&document);
}
END_TEST

START_TEST(text_damage) {
  static const char *const damaged[] = {"a",   "a:",         "a: {",      "a { b: 1", "a: 'x", "a: 'x\n'", "a: \"x\\",
                                        "{",   "}",          "a: 1 }",    "a [1]",    "a: [1", "a: [1 2]", "a: [,]",
                                        ": 1", "a { b: 1 >", "a: 'x' 'y", "a:: 1",    "\x01",  "a: @"};
  for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
    struct prototxt document;
    ck_assert_msg(prototxt_parse(damaged[i], strlen(damaged[i]), &document, &failure) == HWGQ_ERROR_FORMAT, "%s", damaged[i]);
    ck_assert(strstr(failure.message, "line ") != NULL);
  }
}
END_TEST

START_TEST(text_limits) {
  struct prototxt document;
  char deep[200] = "";
  for (int i = 0; i < 40; i++) strcat(deep, "a {");
  ck_assert_int_eq(prototxt_parse(deep, strlen(deep), &document, &failure), HWGQ_ERROR_FORMAT);
  ck_assert(strstr(failure.message, "too deep") != NULL);
  size_t length = 5 * (PROTOTXT_MAX_FIELDS + 1u);
  char *many = malloc(length);
  for (size_t i = 0; i < length; i += 5) memcpy(many + i, "a: 1 ", 5);
  ck_assert_int_eq(prototxt_parse(many, length, &document, &failure), HWGQ_ERROR_LIMIT);
  free(many);
  int value = 0;
  bool flag;
  char text[PROTOTXT_STRING_SIZE];
  parse("a: 1 a: 2 b: 99999999999999999999 c: '\\t' d { } e: maybe f: 1x", &document);
  ck_assert_int_eq(prototxt_get_integer(&document, 0, "a", 0, 9, &value, &failure), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(prototxt_get_integer(&document, 0, "b", 0, INT32_MAX, &value, &failure), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(prototxt_get_string(&document, 0, "c", text, &failure), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(prototxt_get_word(&document, 0, "d", text, &failure), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(prototxt_get_bool(&document, 0, "e", &flag, &failure), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(prototxt_get_integer(&document, 0, "f", 0, 9, &value, &failure), HWGQ_ERROR_INVALID);
  prototxt_release(&document);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("import readers");
  TCase *cases = tcase_create("readers");
  tcase_add_test(cases, wire_fields);
  tcase_add_test(cases, wire_damage);
  tcase_add_test(cases, text_values);
  tcase_add_test(cases, text_damage);
  tcase_add_test(cases, text_limits);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
