/* Fuzzes the .hwgq reader. Mutations of the header keep its length field right, and mutations of the data are given a right
 * digest, most of the time: so they reach the checks behind those. */
#include "engine/file.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  if (index >= 12) return false;
  struct hwgq_model *model = support_random_model(&(struct support_random){(uint64_t)index + 100});
  if (hwgq_model_build(model, &bytes, &length, NULL)) abort();
  fuzz_set(buffer, bytes, length);
  free(bytes);
  hwgq_model_destroy(model);
  return true;
}

/* Bytes of the length field and the header; 0 when they are not all there. */
static size_t header_end(const struct fuzz_buffer *buffer) {
  uint64_t header_bytes = 0;
  if (buffer->length < 8) return 0;
  memcpy(&header_bytes, buffer->bytes, 8);
  return header_bytes <= buffer->length - 8 ? (size_t)header_bytes + 8 : 0;
}

static void set_header(struct fuzz_buffer *buffer, size_t end, const struct fuzz_buffer *header) {
  uint64_t header_bytes = header->length;
  fuzz_splice(buffer, 8, end - 8, header->bytes, header->length);
  memcpy(buffer->bytes, &header_bytes, 8);
}

static void mutate_header(struct support_random *random, struct fuzz_buffer *buffer, size_t end,
                          const struct fuzz_buffer *other) {
  struct fuzz_buffer header = {0};
  fuzz_set(&header, buffer->bytes + 8, end - 8);
  fuzz_mutate(random, &header, other);
  set_header(buffer, end, &header);
  free(header.bytes);
}

/* A float becomes an extreme one, or any byte changes. */
static void mutate_data(struct support_random *random, struct fuzz_buffer *buffer, size_t end) {
  static const uint32_t extremes[] = {0x7fc00000, 0x7f800000, 0xff800000, 0x7f7fffff, 0xbf800000, 0x80000000, 1, 0};
  size_t count = buffer->length - end;
  if (count < 4) return;
  size_t place = (size_t)(support_random_next(random) % (count / 4)) * 4;
  if (support_random_chance(random, 0.7))
    memcpy(buffer->bytes + end + place, &extremes[support_random_int(random, 0, 7)], 4);
  else
    buffer->bytes[end + place] ^= (uint8_t)support_random_int(random, 1, 255);
}

static void fix_digest(struct fuzz_buffer *buffer) {
  char digest[40];
  size_t end = header_end(buffer);
  if (!end) return;
  const struct hwgq_tensor data = {.data = buffer->bytes + end, .bytes = buffer->length - end};
  uint8_t *found = memmem(buffer->bytes, end, "\"digest\":\"xxh3:", 15);
  if (!found || found + 10 + 37 > buffer->bytes + end || hwgq_model_digest(&data, 1, digest, NULL)) return;
  memcpy(found + 10, digest, 37);
}

static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  size_t end = header_end(buffer);
  int kind = support_random_int(random, 0, 9);
  if (!end || kind == 0)
    fuzz_mutate(random, buffer, other);
  else if (kind <= 6)
    mutate_header(random, buffer, end, other);
  else
    mutate_data(random, buffer, end);
  if (support_random_chance(random, 0.9)) fix_digest(buffer);
}

static const char *check_again(struct hwgq_model *model) {
  struct hwgq_model *again = NULL;
  uint8_t *first = NULL, *second = NULL;
  size_t first_length = 0, second_length = 0;
  const char *wrong = NULL;
  if (hwgq_model_build(model, &first, &first_length, NULL))
    wrong = "an accepted model cannot be written";
  else if (hwgq_model_parse(first, first_length, "again", &again, NULL))
    wrong = "what was written is refused";
  else if (hwgq_model_build(again, &second, &second_length, NULL) || first_length != second_length ||
           memcmp(first, second, first_length))
    wrong = "written twice, the bytes differ";
  free(first);
  free(second);
  hwgq_model_destroy(again);
  return wrong;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  if (hwgq_model_parse(bytes, length, "fuzz", &model, &error))
    return model ? "refused, but a model was made" : error.message[0] ? NULL : "refused without a message";
  *accepted = true;
  const char *wrong = check_again(model);
  hwgq_model_destroy(model);
  return wrong;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "file", .runs = 12000, .make_seed = make_seed, .mutate = mutate, .check = check};
  return fuzz_main(argc, argv, &target);
}
