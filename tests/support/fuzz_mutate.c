/* Mutations of byte strings that are partly text. */
#include "tests/support/fuzz.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20 }; /* inputs do not grow beyond this */

void fuzz_splice(struct fuzz_buffer *buffer, size_t at, size_t removed, const void *bytes, size_t inserted) {
  size_t length = buffer->length - removed + inserted;
  if (length + 1 > buffer->capacity) {
    buffer->capacity = 2 * length + 64;
    buffer->bytes = realloc(buffer->bytes, buffer->capacity);
    if (!buffer->bytes) abort();
  }
  memmove(buffer->bytes + at + inserted, buffer->bytes + at + removed, buffer->length - at - removed);
  if (inserted) memcpy(buffer->bytes + at, bytes, inserted);
  buffer->length = length;
}

void fuzz_set(struct fuzz_buffer *buffer, const void *bytes, size_t length) {
  fuzz_splice(buffer, 0, buffer->length, bytes, length);
}

static size_t below(struct support_random *random, size_t limit) {
  return limit ? (size_t)(support_random_next(random) % limit) : 0;
}

static void change_byte(struct support_random *random, struct fuzz_buffer *buffer) {
  static const uint8_t interesting[] = {0,   1,   0x7f, 0x80, 0xff, ' ', '"', '{', '}', '[',
                                        ']', ',', ':',  '-',  '.',  '0', '9', 'e', '\\'};
  uint8_t *byte = &buffer->bytes[below(random, buffer->length)];
  if (support_random_chance(random, 0.5))
    *byte ^= (uint8_t)(1u << below(random, 8));
  else
    *byte = interesting[below(random, sizeof interesting)];
}

static void remove_range(struct support_random *random, struct fuzz_buffer *buffer) {
  size_t at = below(random, buffer->length), most = buffer->length - at;
  size_t count = 1 + below(random, support_random_chance(random, 0.8) && most > 16 ? 16 : most);
  fuzz_splice(buffer, at, count < most ? count : most, NULL, 0);
}

/* A part of `source` (which may be the buffer itself) is inserted somewhere, or put over what is there. */
static void copy_range(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *source) {
  if (source->length == 0) return;
  size_t from = below(random, source->length), most = source->length - from;
  size_t count = 1 + below(random, support_random_chance(random, 0.8) && most > 64 ? 64 : most);
  if (count > most) count = most;
  if (buffer->length + count > MOST_BYTES) return;
  uint8_t *part = malloc(count);
  if (!part) abort();
  memcpy(part, source->bytes + from, count);
  size_t at = below(random, buffer->length + 1), over = support_random_chance(random, 0.5) ? count : 0;
  if (over > buffer->length - at) over = buffer->length - at;
  fuzz_splice(buffer, at, over, part, count);
  free(part);
}

/* Finds the next run of bytes of one kind at or after a random place. */
static bool find_run(struct support_random *random, const struct fuzz_buffer *buffer, bool (*belongs)(uint8_t), size_t *at,
                     size_t *count) {
  size_t i = below(random, buffer->length);
  while (i < buffer->length && !belongs(buffer->bytes[i])) i++;
  while (i > 0 && i < buffer->length && belongs(buffer->bytes[i - 1])) i--;
  *at = i;
  while (i < buffer->length && belongs(buffer->bytes[i])) i++;
  *count = i - *at;
  return *count > 0;
}

static bool in_number(uint8_t c) {
  return isdigit(c) || c == '.' || c == '-' || c == '+';
}

static bool in_word(uint8_t c) {
  return isalpha(c) || c == '_';
}

static void change_number(struct support_random *random, struct fuzz_buffer *buffer) {
  static const char *const numbers[] = {"0",
                                        "1",
                                        "-1",
                                        "2",
                                        "3",
                                        "7",
                                        "16",
                                        "64",
                                        "65",
                                        "255",
                                        "256",
                                        "65536",
                                        "65537",
                                        "1e9",
                                        "0.5",
                                        "-0.0",
                                        "1e39",
                                        "1e-46",
                                        "2147483647",
                                        "2147483648",
                                        "4294967296",
                                        "9223372036854775807",
                                        "9223372036854775808",
                                        "1e400",
                                        "null",
                                        "true",
                                        "[1,2]",
                                        "\"1\"",
                                        "18446744073709551615"};
  size_t at, count;
  char small[16];
  if (!find_run(random, buffer, in_number, &at, &count)) return;
  const char *text = numbers[below(random, sizeof numbers / sizeof numbers[0])];
  if (support_random_chance(random, 0.5)) {
    snprintf(small, sizeof small, "%d", support_random_int(random, 0, 12));
    text = small;
  }
  fuzz_splice(buffer, at, count, text, strlen(text));
}

/* One word is replaced by another word of the same text: keys, operations and names change places. */
static void change_word(struct support_random *random, struct fuzz_buffer *buffer) {
  size_t at, count, from, length;
  char word[64];
  if (!find_run(random, buffer, in_word, &from, &length) || length > sizeof word) return;
  memcpy(word, buffer->bytes + from, length);
  if (!find_run(random, buffer, in_word, &at, &count)) return;
  fuzz_splice(buffer, at, count, word, length);
}

void fuzz_mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  if (buffer->length == 0) {
    copy_range(random, buffer, other);
    return;
  }
  switch (support_random_int(random, 0, 9)) {
  case 0:
  case 1:
    change_byte(random, buffer);
    break;
  case 2:
    remove_range(random, buffer);
    break;
  case 3:
    copy_range(random, buffer, buffer);
    break;
  case 4:
    copy_range(random, buffer, other);
    break;
  case 5:
    if (support_random_chance(random, 0.2)) buffer->length = below(random, buffer->length);
    break;
  case 6:
  case 7:
    change_number(random, buffer);
    break;
  default:
    change_word(random, buffer);
    break;
  }
}
