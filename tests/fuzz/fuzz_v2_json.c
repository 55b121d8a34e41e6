/* JSON bodies of inference requests: refused with a message, or every span lies in the body and the reply is JSON. And the
 * scanner takes for JSON what another parser, jansson, takes for it. */
#include "server/scan.h"
#include "tests/support/fuzz_v2.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const seeds[] = {
    "{\"id\":\"a\\u00e9\\ud83d\\ude00b\",\"inputs\":[{\"name\":\"image\",\"shape\":[2,1],\"datatype\":\"BYTES\",\"data\":[[{"
    "\"b64\":"
    "\"/9j/"
    "4AAQ\"}],[\"AAECAw==\"]]}],\"outputs\":[{\"name\":\"probabilities\",\"parameters\":{\"classification\":2,\"binary_data\":"
    "true}},{\"name\":\"label\"}],\"parameters\":{\"binary_data_output\":false,\"x\":[1,{\"y\":null}]}}",
    "{\"inputs\":[{\"name\":\"pixels\",\"shape\":[2,2,1,3],\"datatype\":\"UINT8\",\"data\":[[[[0,1,2]],[[3,4,255]]],[[[6,7,8]],"
    "[[9,10,"
    "11]]]]}]}",
    "{\"inputs\":[{\"name\":\"tensor\",\"shape\":[1,2,2],\"datatype\":\"FP32\",\"data\":[0.5, -1e-3,\n "
    "2.50E+1,\t12345678901234567890]}]}",
    "{\"inputs\":[{\"parameters\":{\"content_type\":\"base64\"},\"name\":\"image\",\"shape\":[1],\"datatype\":\"BYTES\","
    "\"data\":["
    "\"\\/9j\\u002f4AAQ\"]}],\"outputs\":[]}",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

/* Where the two parsers differ on purpose: the scanner bounds depth and digits, and leaves bytes beyond ASCII, lone surrogates
 * and sizes of numbers to whoever takes the value. */
static const char *compare(const uint8_t *bytes, size_t length) {
  struct scan scan;
  json_error_t error;
  uint8_t *copy = malloc(length ? length : 1);
  if (!copy) abort();
  if (length) memcpy(copy, bytes, length);
  scan_init(&scan, copy, length);
  bool taken = scan_skip(&scan) && scan_finish(&scan);
  bool limit = scan.problem && (strstr(scan.problem, "nested") || strstr(scan.problem, "digits"));
  json_t *value = json_loadb((const char *)bytes, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
  const char *problem = NULL;
  /* jansson passes over some zero bytes, which are no JSON. */
  if (value && !taken && !limit && !memchr(bytes, 0, length)) problem = "JSON that was refused";
  if (!value && taken && json_error_code(&error) == json_error_invalid_syntax && !strstr(error.text, "Unicode") &&
      !strstr(error.text, "\\u")) {
    problem = "no JSON, and it was taken";
  }
  json_decref(value);
  free(copy);
  return problem;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  if (length == 0) return NULL; /* a body of nothing never gets this far */
  const char *problem = fuzz_v2_check(bytes, length, length, accepted);
  return problem ? problem : compare(bytes, length);
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "v2_json", .runs = 200000, .make_seed = make_seed, .check = check};
  return fuzz_main(argc, argv, &target);
}
