/* A small fuzzer: valid inputs, mutated, given to a parser. A program supplies seeds and a check; this does the rest.
 *
 *   fuzz_X [--runs N] [--seed S] [--one RUN] [FILE...]
 *
 * FILEs are more seeds, beside those that the program makes and those in tests/fuzz/corpus/X. Run number r with seed S always
 * does the same; --one repeats a single run, so a failure can be looked at. The last line is "N passed, N failed". */
#ifndef FUZZ_H
#define FUZZ_H

#include "tests/support/support.h"

struct fuzz_buffer {
  uint8_t *bytes; /* malloc'ed */
  size_t length, capacity;
};

struct fuzz_target {
  const char *name; /* of the corpus folder */
  int runs;         /* when the command line does not say */
  /* Makes seed number `index`; false when there are no more. */
  bool (*make_seed)(int index, struct fuzz_buffer *buffer);
  /* Mutates; NULL: fuzz_mutate alone. */
  void (*mutate)(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other);
  /* NULL when all is well, else what is wrong. The bytes are exactly as long as the allocation, so that a sanitizer notices a
   * read beyond them. Sets *accepted when the parser took the input. */
  const char *(*check)(const uint8_t *bytes, size_t length, bool *accepted);
};

int fuzz_main(int argc, char **argv, const struct fuzz_target *target);

void fuzz_set(struct fuzz_buffer *buffer, const void *bytes, size_t length);
/* Replaces `removed` bytes at `at` by `inserted` ones. */
void fuzz_splice(struct fuzz_buffer *buffer, size_t at, size_t removed, const void *bytes, size_t inserted);
/* One random change of any kind: bits, bytes, ranges, numbers and words of a text, a part of another input. */
void fuzz_mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other);

#endif
