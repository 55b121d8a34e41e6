/* Inference requests with binary tensors behind their JSON. An input is the JSON's length (4 bytes, little-endian, at most what
 * follows), then the body. */
#include "tests/support/fuzz_v2.h"

#include <stdlib.h>
#include <string.h>

static const struct {
  const char *json, *tensor;
  size_t length;
} seeds[] = {
    {"{\"inputs\":[{\"name\":\"image\",\"shape\":[2],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":15}}],"
     "\"parameters\":{"
     "\"binary_data_output\":true}}",
     "\x05\0\0\0\xff\xd8\xff\xe0z\x02\0\0\0ab", 15},
    {"{\"id\":\"1\",\"inputs\":[{\"name\":\"pixels\",\"shape\":[1,2,2,3],\"datatype\":\"UINT8\",\"parameters\":{\"binary_data_"
     "size\":12}}],"
     "\"outputs\":[{\"name\":\"class\",\"parameters\":{\"binary_data\":true}},{\"name\":\"probabilities\"}]}",
     "abcdefghijkl", 12},
    {"{\"inputs\":[{\"name\":\"tensor\",\"shape\":[2,1,1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":16}}]}",
     "\0\0\0\x3f\0\0\x80\xbf\0\0\0\0\xff\xff\x7f\x7f", 16},
    {"", "\xff\xd8\xff\xe0 a whole file", 17},
};

static void assemble(struct fuzz_buffer *buffer, const void *json, size_t json_length, const void *tensor, size_t length) {
  const uint8_t head[4] = {(uint8_t)json_length, (uint8_t)(json_length >> 8), (uint8_t)(json_length >> 16), 0};
  fuzz_set(buffer, head, sizeof head);
  fuzz_splice(buffer, buffer->length, 0, json, json_length);
  fuzz_splice(buffer, buffer->length, 0, tensor, length);
}

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  assemble(buffer, seeds[index].json, strlen(seeds[index].json), seeds[index].tensor, seeds[index].length);
  return true;
}

/* The JSON's length, made to fit. */
static size_t json_length_of(const uint8_t *bytes, size_t length) {
  size_t stated = length < 4 ? 0 : bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
  return length < 4 ? 0 : stated <= length - 4 ? stated : length - 4;
}

/* Half of the time in one of the two parts, with the length made right. */
static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  if (buffer->length < 4 || support_random_chance(random, 0.5)) {
    fuzz_mutate(random, buffer, other);
    return;
  }
  size_t json_length = json_length_of(buffer->bytes, buffer->length), rest = buffer->length - 4 - json_length;
  struct fuzz_buffer json = {0}, tensor = {0};
  fuzz_set(&json, buffer->bytes + 4, json_length);
  fuzz_set(&tensor, buffer->bytes + 4 + json_length, rest);
  fuzz_mutate(random, support_random_chance(random, 0.7) ? &json : &tensor, other);
  assemble(buffer, json.bytes, json.length, tensor.bytes, tensor.length);
  free(json.bytes);
  free(tensor.bytes);
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  size_t json_length = json_length_of(bytes, length);
  return length <= 4 ? NULL : fuzz_v2_check(bytes + 4, length - 4, json_length, accepted);
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {
      .name = "v2_binary", .runs = 200000, .make_seed = make_seed, .mutate = mutate, .check = check};
  return fuzz_main(argc, argv, &target);
}
