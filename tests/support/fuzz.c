/* The fuzz programs' main loop. */
#include "tests/support/fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seeds {
  struct fuzz_buffer *buffers;
  int count;
};

static struct fuzz_buffer *add_seed(struct seeds *seeds) {
  seeds->buffers = realloc(seeds->buffers, ((size_t)seeds->count + 1) * sizeof seeds->buffers[0]);
  if (!seeds->buffers) abort();
  seeds->buffers[seeds->count] = (struct fuzz_buffer){0};
  return &seeds->buffers[seeds->count++];
}

static bool add_file(struct seeds *seeds, const char *path) {
  size_t length = 0;
  uint8_t *bytes = support_read_file(path, &length);
  if (!bytes) return false;
  *add_seed(seeds) = (struct fuzz_buffer){bytes, length, length + 1};
  return true;
}

static int by_name(const struct dirent **left, const struct dirent **right) {
  return strcmp((*left)->d_name, (*right)->d_name);
}

/* In the order of names, so that a run number means the same everywhere. */
static void add_corpus(struct seeds *seeds, const char *name) {
  struct dirent **entries = NULL;
  char *folder = support_path("tests/fuzz/corpus", name);
  int count = scandir(folder, &entries, NULL, by_name);
  for (int i = 0; i < count; i++) {
    char *path = support_path(folder, entries[i]->d_name);
    if (entries[i]->d_name[0] != '.' && !add_file(seeds, path)) fprintf(stderr, "cannot read %s\n", path);
    free(path);
    free(entries[i]);
  }
  free(entries);
  free(folder);
}

static const char *check_exact(const struct fuzz_target *target, const struct fuzz_buffer *buffer, bool *accepted) {
  uint8_t *copy = malloc(buffer->length ? buffer->length : 1);
  if (!copy) abort();
  if (buffer->length) memcpy(copy, buffer->bytes, buffer->length);
  const char *wrong = target->check(copy, buffer->length, accepted);
  free(copy);
  return wrong;
}

/* The first runs are the seeds themselves. */
static const char *run_one(const struct fuzz_target *target, const struct seeds *seeds, uint64_t seed, int run,
                           bool *accepted) {
  struct support_random random = {seed * 0x100000001b3u + (uint64_t)run};
  struct fuzz_buffer buffer = {0};
  const struct fuzz_buffer *start =
      &seeds->buffers[run < seeds->count ? run : support_random_int(&random, 0, seeds->count - 1)];
  fuzz_set(&buffer, start->bytes, start->length);
  if (run >= seeds->count) {
    const struct fuzz_buffer *other = &seeds->buffers[support_random_int(&random, 0, seeds->count - 1)];
    /* Mostly one or two changes: many at once are caught by the first check. */
    int changes = 1;
    while (changes < 12 && support_random_chance(&random, 0.4)) changes++;
    for (int i = 0; i < changes; i++) (target->mutate ? target->mutate : fuzz_mutate)(&random, &buffer, other);
  }
  const char *wrong = check_exact(target, &buffer, accepted);
  free(buffer.bytes);
  return wrong;
}

static bool read_number(const char *text, long *number) {
  char *end;
  *number = text ? strtol(text, &end, 10) : 0;
  return text && end != text && *end == 0 && *number >= 0 && *number < 1000000000;
}

static int usage(const char *program) {
  fprintf(stderr, "usage: %s [--runs N] [--seed S] [--one RUN] [FILE...]\n", program);
  return 2;
}

int fuzz_main(int argc, char **argv, const struct fuzz_target *target) {
  struct seeds seeds = {0};
  long runs = target->runs, seed = 1, only = -1;
  for (int i = 0;; i++) {
    struct fuzz_buffer buffer = {0};
    if (!target->make_seed(i, &buffer)) break;
    *add_seed(&seeds) = buffer;
  }
  add_corpus(&seeds, target->name);
  for (int i = 1; i < argc; i++) {
    long *number = strcmp(argv[i], "--runs") == 0   ? &runs
                   : strcmp(argv[i], "--seed") == 0 ? &seed
                   : strcmp(argv[i], "--one") == 0  ? &only
                                                    : NULL;
    if (number ? !read_number(argv[++i], number) : argv[i][0] == '-' || !add_file(&seeds, argv[i])) return usage(argv[0]);
  }

  long passed = 0, failed = 0, taken = 0;
  for (long run = only >= 0 ? only : 0; run < (only >= 0 ? only + 1 : runs); run++) {
    bool accepted = false;
    const char *wrong = run_one(target, &seeds, (uint64_t)seed, (int)run, &accepted);
    taken += accepted;
    passed += !wrong;
    failed += wrong != NULL;
    if (wrong) printf("run %ld (--seed %ld --one %ld): %s\n", run, seed, run, wrong);
  }
  printf("%d seeds, %ld of %ld inputs accepted\n", seeds.count, taken, passed + failed);
  printf("%ld passed, %ld failed\n", passed, failed);
  for (int i = 0; i < seeds.count; i++) free(seeds.buffers[i].bytes);
  free(seeds.buffers);
  return failed != 0;
}
