/* Whole files: what is read, and what is replaced. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/storage.h"
#include "tests/support/support.h"

static struct hwgq_error failure;
static const struct hwgq_chunk chunks[2] = {{"one ", 4}, {"two", 3}};

START_TEST(reads) {
  char *directory = support_make_directory(), *path = support_path(directory, "file");
  uint8_t *bytes = NULL;
  size_t length = 1;
  for (size_t size = 0; size < 4; size++) {
    support_write_file(path, "abc", size);
    ck_assert_int_eq(hwgq_storage_read(path, 3, &bytes, &length, &failure), HWGQ_OK);
    ck_assert_uint_eq(length, size);
    ck_assert(bytes && memcmp(bytes, "abc", size) == 0 && bytes[size] == 0); /* a NUL behind the bytes */
    free(bytes);
  }
  ck_assert_int_eq(hwgq_storage_read(path, 2, &bytes, &length, &failure), HWGQ_ERROR_LIMIT);
  ck_assert_int_eq(hwgq_storage_read(directory, 2, &bytes, &length, &failure), HWGQ_ERROR_IO);
  ck_assert_int_eq(unlink(path), 0);
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert_int_eq(hwgq_storage_read(path, 2, &bytes, &length, &failure), HWGQ_ERROR_IO); /* and does not hang */
  free(path);
  support_remove_directory(directory);
}
END_TEST

static void check_content(const char *path) {
  size_t length = 0;
  uint8_t *bytes = support_read_file(path, &length);
  ck_assert(bytes && length == 7 && memcmp(bytes, "one two", 7) == 0);
  free(bytes);
}

static void refuse(const char *path, mode_t kind) {
  struct stat info;
  ck_assert_int_eq(hwgq_storage_replace(path, chunks, 2, &failure), HWGQ_ERROR_IO);
  ck_assert_msg(strstr(failure.message, path) != NULL, "%s", failure.message);
  ck_assert(lstat(path, &info) == 0 && (info.st_mode & S_IFMT) == kind);
}

START_TEST(replaces_files) {
  char *directory = support_make_directory(), *path = support_path(directory, "file"), *link = support_path(directory, "link");
  struct stat info;
  ck_assert_int_eq(hwgq_storage_replace(path, chunks, 2, &failure), HWGQ_OK);
  check_content(path);
  support_write_file(path, "a longer text than the new one", 30);
  ck_assert_int_eq(symlink("file", link), 0);
  ck_assert_int_eq(hwgq_storage_replace(link, chunks, 2, &failure), HWGQ_OK);
  check_content(path); /* the link's file is the new one, and the link is one still */
  ck_assert(lstat(link, &info) == 0 && S_ISLNK(info.st_mode));
  free(link);
  free(path);
  support_remove_directory(directory);
}
END_TEST

/* A rename would put a file in its place. */
START_TEST(refuses_what_is_no_file) {
  char *directory = support_make_directory(), *path = support_path(directory, "there");
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  refuse(path, S_IFIFO);
  char *link = support_path(directory, "link");
  ck_assert_int_eq(symlink("there", link), 0);
  refuse(link, S_IFLNK);
  refuse(path, S_IFIFO);
  ck_assert_int_eq(unlink(path), 0); /* now the link leads nowhere */
  refuse(link, S_IFLNK);
  refuse(directory, S_IFDIR);
  free(link);
  free(path);
  support_remove_directory(directory);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("storage");
  TCase *cases = tcase_create("files");
  tcase_add_test(cases, reads);
  tcase_add_test(cases, replaces_files);
  tcase_add_test(cases, refuses_what_is_no_file);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
