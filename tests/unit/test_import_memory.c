/* What loading a damaged file may allocate: at most 4 times its size at any moment, the file's own bytes included, and a
 * constant. Files are cut at every percent and mutated at random; and some are made to be as expensive as they can. Every
 * allocation of the program is counted, which needs the C library's own allocator: with a sanitizer the same files are loaded
 * and nothing is counted. */
#include <check.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "engine/storage.h"
#include "models/import/import.h"
#include "models/import/prototxt.h"
#include "tests/support/fuzz.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#endif

/* The constant is for a header: as parsed JSON it takes about 6 times its length, which is 7 kB in the network here. */
enum { TIMES = 4, CONSTANT = 24 << 10, MUTATIONS = 1000 };

static size_t held, peak;

#ifndef SANITIZED
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void __libc_free(void *block);

static void *counted(void *block) {
  held += block ? malloc_usable_size(block) : 0;
  if (held > peak) peak = held;
  return block;
}

void *malloc(size_t size) {
  return counted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size) {
  return counted(__libc_calloc(count, size));
}

void free(void *block) {
  held -= block ? malloc_usable_size(block) : 0;
  __libc_free(block);
}

/* Counts old and new block together: when a block moves, both are there. */
void *realloc(void *block, size_t size) {
  size_t before = block ? malloc_usable_size(block) : 0;
  void *moved = counted(__libc_realloc(block, size));
  if (moved || size == 0) held -= before;
  return moved;
}
#endif

static struct hwgq_error failure;

/* ---- the loaders, from files -------------------------------------------------------------------------------------------- */

static void load_model(char *const *paths) {
  struct hwgq_model *model = NULL;
  (void)hwgq_model_read(paths[0], &model, &failure);
  hwgq_model_destroy(model);
}

static void load_caffe(char *const *paths) {
  struct hwgq_model *model = NULL;
  uint8_t *bytes[2] = {NULL, NULL};
  size_t lengths[2];
  for (int i = 0; i < 2; i++)
    ck_assert_int_eq(hwgq_storage_read(paths[i], IMPORT_MAX_CAFFEMODEL, &bytes[i], &lengths[i], &failure), HWGQ_OK);
  (void)import_caffe((const char *)bytes[0], lengths[0], bytes[1], lengths[1], NULL, &model, &failure);
  free(bytes[0]);
  free(bytes[1]);
  hwgq_model_destroy(model);
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

struct subject {
  void (*load)(char *const *paths);
  int count;
  char *directory, *paths[2];
  struct fuzz_buffer files[2];
};

static struct subject open_subject(void (*load)(char *const *paths), const char *first, const char *second) {
  const char *const names[2] = {first, second};
  struct subject subject = {.load = load, .count = second ? 2 : 1, .directory = support_make_directory()};
  for (int i = 0; i < subject.count; i++) {
    subject.files[i].bytes = support_read_file(names[i], &subject.files[i].length);
    ck_assert_msg(subject.files[i].bytes != NULL, "%s: run this program from the repository's root", names[i]);
    subject.files[i].capacity = subject.files[i].length + 1;
    subject.paths[i] = support_path(subject.directory, i ? "second" : "first");
    support_write_file(subject.paths[i], subject.files[i].bytes, subject.files[i].length);
  }
  return subject;
}

static void close_subject(struct subject *subject) {
  for (int i = 0; i < subject->count; i++) {
    free(subject->files[i].bytes);
    free(subject->paths[i]);
  }
  support_remove_directory(subject->directory);
}

/* Loads the files with other bytes in place of number `which`. */
static void check_load(const struct subject *subject, int which, const uint8_t *bytes, size_t length) {
  size_t total = length;
  for (int i = 0; i < subject->count; i++) total += i == which ? 0 : subject->files[i].length;
  support_write_file(subject->paths[which], bytes, length);
  failure.message[0] = '\0';
  const size_t before = held;
  peak = held;
  subject->load(subject->paths);
  ck_assert_msg(held == before, "%zu bytes are not freed: %s", held - before, failure.message);
  ck_assert_msg(peak - before <= TIMES * total + CONSTANT, "%zu bytes for files of %zu: %s", peak - before, total,
                failure.message);
}

static void check_damage(struct subject *subject, int which) {
  const struct fuzz_buffer *whole = &subject->files[which];
  for (size_t percent = 0; percent <= 100; percent++) check_load(subject, which, whole->bytes, whole->length * percent / 100);
  struct support_random random = {2024};
  for (int i = 0; i < MUTATIONS; i++) {
    struct fuzz_buffer buffer = {0};
    fuzz_set(&buffer, whole->bytes, whole->length);
    for (int changes = support_random_int(&random, 1, 3); changes > 0; changes--) fuzz_mutate(&random, &buffer, whole);
    check_load(subject, which, buffer.bytes, buffer.length);
    free(buffer.bytes);
  }
  support_write_file(subject->paths[which], whole->bytes, whole->length);
}

START_TEST(damaged_model) {
  struct subject subject = open_subject(load_model, "models/zoo/fashion-mnist.hwgq", NULL);
  check_damage(&subject, 0);
  close_subject(&subject);
}
END_TEST

START_TEST(damaged_prototxt) {
  struct subject subject = open_subject(load_caffe, "tests/golden/mini/model.prototxt", "tests/golden/mini/model.caffemodel");
  check_damage(&subject, 0);
  close_subject(&subject);
}
END_TEST

START_TEST(damaged_caffemodel) {
  struct subject subject = open_subject(load_caffe, "tests/golden/mini/model.prototxt", "tests/golden/mini/model.caffemodel");
  check_damage(&subject, 1);
  close_subject(&subject);
}
END_TEST

/* ---- as expensive as can be ---------------------------------------------------------------------------------------------- */

/* `unit` over and over behind `start`. */
static uint8_t *repeated(const char *start, const char *unit, size_t length) {
  uint8_t *bytes = malloc(length);
  ck_assert_ptr_nonnull(bytes);
  size_t at = strlen(start), step = strlen(unit);
  memcpy(bytes, start, at);
  for (; at < length; at += step) memcpy(bytes + at, unit, step < length - at ? step : length - at);
  return bytes;
}

START_TEST(many_fields) {
  static const char *const texts[][2] = {
      {"", "a{}"}, {"", "a:1 "}, {"a:[1", ",1"}, {"a:[{}", ",{}"}, {"", "layer{}"}, {"", "layer{type:'a'}"}, {"", "input:'a'"}};
  struct subject subject = open_subject(load_caffe, "tests/golden/mini/model.prototxt", "tests/golden/mini/model.caffemodel");
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    for (size_t length = 1 << 10; length <= IMPORT_MAX_PROTOTXT; length *= 4) {
      uint8_t *bytes = repeated(texts[i][0], texts[i][1], length);
      check_load(&subject, 0, bytes, length);
      /* The text alone: its fields take less than 3 times its size. */
      struct prototxt document;
      const size_t before = held;
      peak = held;
      if (prototxt_parse((const char *)bytes, length, &document, &failure) == HWGQ_OK) prototxt_release(&document);
      ck_assert_msg(peak - before <= 3 * length + 4096, "%zu bytes for a text of %zu", peak - before, length);
      free(bytes);
    }
  }
  close_subject(&subject);
}
END_TEST

/* Layers of two bytes and layers with a blob of no bytes. */
START_TEST(many_layers) {
  static const char *const units[] = {"\xa2\x06\x01", "\xa2\x06\x05\x0a\x01x\x3a\x01", "\x12\x05\x22\x01x\x32\x01"};
  struct subject subject = open_subject(load_caffe, "tests/golden/mini/model.prototxt", "tests/golden/mini/model.caffemodel");
  for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
    for (size_t length = 1 << 10; length <= 1 << 20; length *= 4) {
      uint8_t *bytes = repeated("", units[i], length);
      check_load(&subject, 1, bytes, length);
      free(bytes);
    }
  }
  close_subject(&subject);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("import memory");
  TCase *cases = tcase_create("memory");
  tcase_set_timeout(cases, 300);
  tcase_add_test(cases, damaged_model);
  tcase_add_test(cases, damaged_prototxt);
  tcase_add_test(cases, damaged_caffemodel);
  tcase_add_test(cases, many_fields);
  tcase_add_test(cases, many_layers);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
