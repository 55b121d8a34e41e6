/* Damaged forms: whatever the bytes, the parser refuses them with a message or gives parts that lie inside the body.
 * The first line of an input is the Content-Type, the rest is the body. */
#include "server/multipart.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 12 };

static const char *const seeds[] = {
    "multipart/form-data; boundary=XX\n--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a \\\"b\\\".jpg\"\r\n"
    "Content-Type: image/jpeg\r\n\r\n\xff\xd8\xff\xe0 pixels \xff\xd9\r\n--XX--\r\n",
    "multipart/form-data; charset=utf-8; boundary=\"--a b\"\npreamble\r\n----a b \t\r\ncontent-disposition: form-data; "
    "name=top_k\r\n\r\n3\r\n----a b\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Transfer-Encoding: "
    "binary\r\n\r\n"
    "\r\n--\r\n----\r\n----a\r\n----a b--\r\nepilogue",
    "multipart/form-data;boundary=1\n--1\r\n\r\n\r\n--1\r\n\r\n--1\r\n\r\nx\r\n--1--",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

static const char *check_parts(const struct multipart_part *parts, int count, const uint8_t *body, size_t length) {
  const uint8_t *last = body;
  if (count < 0 || count > CAPACITY) return "impossible number of parts";
  for (int i = 0; i < count; i++) {
    if (!memchr(parts[i].name, 0, sizeof parts[i].name)) return "a name without an end";
    if (parts[i].data < last || parts[i].data > body + length) return "a part outside of the body or of its order";
    if (parts[i].length > (size_t)(body + length - parts[i].data)) return "a part that goes beyond the body";
    last = parts[i].data + parts[i].length;
  }
  return NULL;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  const uint8_t *line_end = length ? memchr(bytes, '\n', length) : NULL;
  size_t head = line_end ? (size_t)(line_end - bytes) : length, rest = line_end ? length - head - 1 : 0;
  struct multipart_part parts[CAPACITY];
  struct hwgq_error error = {{0}};
  char boundary[MULTIPART_MAX_BOUNDARY + 1], *content_type = calloc(1, head + 1);
  uint8_t *body = malloc(rest ? rest : 1);
  const char *problem = NULL;
  int count = -1;
  if (!content_type || !body) abort();
  if (head) memcpy(content_type, bytes, head);
  if (rest) memcpy(body, line_end + 1, rest);
  enum hwgq_status status = multipart_boundary(content_type, boundary, &error);
  if (!status && (strlen(boundary) == 0 || strlen(boundary) > MULTIPART_MAX_BOUNDARY)) problem = "an impossible boundary";
  if (!status) status = multipart_parse(body, rest, boundary, parts, CAPACITY, &count, &error);
  if (status && !error.message[0]) problem = "refused without a message";
  if (!status && !problem) problem = check_parts(parts, count, body, rest);
  *accepted = !status;
  free(content_type);
  free(body);
  return problem;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "multipart", .runs = 200000, .make_seed = make_seed, .check = check};
  return fuzz_main(argc, argv, &target);
}
