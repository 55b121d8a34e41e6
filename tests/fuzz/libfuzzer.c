/* The main loop of a fuzz program on top of libFuzzer, in the place of tests/support/fuzz.c: the program's own main calls
 * fuzz_main, which hands the target to libFuzzer. How to build and use it: README.md. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/fuzz.h"

/* libFuzzer's interface; no header of clang declares all of it for C. */
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*run)(const uint8_t *bytes, size_t length));
size_t LLVMFuzzerMutate(uint8_t *bytes, size_t length, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t length, size_t most, unsigned seed);

/* libFuzzer passes no context to its callbacks. */
static const struct fuzz_target *current;

static int run(const uint8_t *bytes, size_t length) {
  bool accepted = false;
  const char *wrong = current->check(bytes, length, &accepted);
  if (!wrong) return 0;
  fprintf(stderr, "%s: %s\n", current->name, wrong);
  abort();
}

/* libFuzzer's own mutations, guided by coverage, and as often the target's, which keep lengths and checksums right. */
size_t LLVMFuzzerCustomMutator(uint8_t *bytes, size_t length, size_t most, unsigned seed) {
  struct support_random random = {seed};
  if (!current->mutate || support_random_chance(&random, 0.5)) return LLVMFuzzerMutate(bytes, length, most);
  struct fuzz_buffer buffer = {0}, other = {0};
  fuzz_set(&buffer, bytes, length);
  fuzz_set(&other, bytes, length);
  current->mutate(&random, &buffer, &other);
  size_t changed = buffer.length < most ? buffer.length : most;
  if (changed) memcpy(bytes, buffer.bytes, changed);
  free(other.bytes);
  free(buffer.bytes);
  return changed;
}

/* Writes the seeds that the program makes, for a corpus. */
static int write_seeds(const struct fuzz_target *target, const char *directory) {
  for (int i = 0;; i++) {
    struct fuzz_buffer buffer = {0};
    char name[32];
    if (!target->make_seed(i, &buffer)) return 0;
    snprintf(name, sizeof name, "made-%d", i);
    char *path = support_path(directory, name);
    support_write_file(path, buffer.bytes, buffer.length);
    free(path);
    free(buffer.bytes);
  }
}

int fuzz_main(int argc, char **argv, const struct fuzz_target *target) {
  current = target;
  if (argc == 3 && strcmp(argv[1], "--seeds") == 0) return write_seeds(target, argv[2]);
  return LLVMFuzzerRunDriver(&argc, &argv, run);
}
