/* Every kind of data set, built in a temporary directory from the pictures of tests/images, and damaged ones. */
#include "models/data/dataset.h"
#include "models/image/image.h"
#include "tests/support/support.h"

#include <archive.h>
#include <archive_entry.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { SIDE = 12 };

static struct hwgq_error error;
static struct dataset *data;
static char *directory; /* of the running test */
static const struct hwgq_preprocess color = {.order = HWGQ_RGB}, gray = {.order = HWGQ_GRAY};
static const struct hwgq_shape color_shape = {3, SIDE, SIDE}, gray_shape = {1, SIDE, SIDE};

/* A file of a source and the picture in it; in archives also "=PATH", a hard link, and ">PATH", a symbolic one. */
struct item {
  const char *path, *picture;
};

static const struct item split_items[] = {
    {"test/cat/b.jpg", "gray"},      {"train/cat/1.jpg", "odd"},    {"train/ant/2.JPG", "baseline"},
    {"test/cat/a.jpeg", "cmyk"},     {"train/ant/10.jpg", "large"}, {"train/bee/x.jpg", "one"},
    {"test/ant/c.jpg", "ycck"},      {"train/cat/0.jpg", "gray"},   {"train/cat/notes.txt", NULL},
    {"train/cat/.hidden.jpg", NULL}, {"README.txt", NULL},
};
enum { SPLIT_ITEMS = sizeof split_items / sizeof *split_items };

static void setup(void) {
  directory = support_make_directory();
  data = NULL;
}

static void teardown(void) {
  char *command;
  dataset_destroy(data);
  /* the helper of tests/support removes flat directories only */
  if (asprintf(&command, "rm -rf '%s'", directory) > 0) ck_assert_int_eq(system(command), 0);
  free(command);
  free(directory);
}

/* The picture's bytes; for NULL some text. */
static uint8_t *picture_bytes(const char *picture, size_t *length) {
  char path[256];
  if (!picture) {
    *length = 5;
    return (uint8_t *)strdup("text\n");
  }
  snprintf(path, sizeof path, "tests/images/%s%s", picture, strchr(picture, '.') ? "" : ".jpg");
  uint8_t *bytes = support_read_file(path, length);
  ck_assert_msg(bytes != NULL, "%s is missing: run tests from the top folder", path);
  return bytes;
}

static void write_bytes(const char *relative, const void *bytes, size_t length) {
  char *path = support_path(directory, relative);
  for (char *slash = strchr(path + strlen(directory) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(path, 0700);
    *slash = '/';
  }
  support_write_file(path, bytes, length);
  free(path);
}

static void write_items(const struct item *items, int count) {
  for (int i = 0; i < count; i++) {
    size_t length;
    uint8_t *bytes = picture_bytes(items[i].picture, &length);
    write_bytes(items[i].path, bytes, length);
    free(bytes);
  }
}

static void write_entry(struct archive *archive, const struct item *item) {
  const char kind = item->picture ? item->picture[0] : 0;
  const bool link = kind == '=' || kind == '>';
  size_t length = 0;
  uint8_t *bytes = link ? NULL : picture_bytes(item->picture, &length);
  struct archive_entry *entry = archive_entry_new();
  archive_entry_set_pathname(entry, item->path);
  archive_entry_set_size(entry, (la_int64_t)length);
  archive_entry_set_filetype(entry, kind == '>' ? AE_IFLNK : AE_IFREG);
  archive_entry_set_perm(entry, 0600);
  if (kind == '=') archive_entry_set_hardlink(entry, item->picture + 1);
  if (kind == '>') archive_entry_set_symlink(entry, item->picture + 1);
  ck_assert_int_eq(archive_write_header(archive, entry), ARCHIVE_OK);
  if (!link) ck_assert_int_eq(archive_write_data(archive, bytes, length), (la_ssize_t)length);
  archive_entry_free(entry);
  free(bytes);
}

static char *write_archive(const char *name, bool zip, const struct item *items, int count) {
  char *path = support_path(directory, name);
  struct archive *archive = archive_write_new();
  if (zip) {
    archive_write_set_format_zip(archive);
  } else {
    archive_write_set_format_pax_restricted(archive);
  }
  if (strstr(name, ".xz")) archive_write_add_filter_xz(archive);
  if (strstr(name, ".gz")) archive_write_add_filter_gzip(archive);
  ck_assert_int_eq(archive_write_open_filename(archive, path), ARCHIVE_OK);
  for (int i = 0; i < count; i++) write_entry(archive, &items[i]);
  ck_assert_int_eq(archive_write_close(archive), ARCHIVE_OK);
  archive_write_free(archive);
  return path;
}

static enum hwgq_status open_path(const char *path, enum dataset_split split, int limit) {
  dataset_destroy(data);
  data = NULL;
  return dataset_open(path, split, &color, color_shape, limit, &data, &error);
}

static void open_well(const char *path, enum dataset_split split, int limit) {
  enum hwgq_status status = open_path(path, split, limit);
  ck_assert_msg(status == HWGQ_OK, "%s: %s", path, error.message);
}

static void expect_failure(const char *path, enum dataset_split split, enum hwgq_status status, const char *words) {
  ck_assert_int_eq(open_path(path, split, 0), status);
  ck_assert_ptr_null(data);
  ck_assert_msg(strstr(error.message, words) != NULL, "'%s' does not say '%s'", error.message, words);
}

static void expect_image(int i, const char *file, const char *class_name, const char *picture) {
  struct image_info info;
  const struct image_limits limits = IMAGE_LIMITS_DEFAULT;
  uint8_t pixels[SIDE * SIDE * 3];
  size_t length;
  uint8_t *bytes = picture_bytes(picture, &length);
  ck_assert_int_eq(image_prepare(bytes, length, &limits, &color, color_shape, pixels, &info, NULL, &error), HWGQ_OK);
  ck_assert_str_eq(data->file_names[i], file);
  ck_assert_str_eq(data->class_names[data->labels[i]], class_name);
  ck_assert_mem_eq(data->pixels + (size_t)i * sizeof pixels, pixels, sizeof pixels);
  free(bytes);
}

/* What split_items hold, whatever they are kept in: byte order of paths, classes of both splits. */
static void expect_split_items(const char *path, const char *prefix) {
  char file[64];
  static const struct item train[] = {{"train/ant/10.jpg", "large"},
                                      {"train/ant/2.JPG", "baseline"},
                                      {"train/bee/x.jpg", "one"},
                                      {"train/cat/0.jpg", "gray"},
                                      {"train/cat/1.jpg", "odd"}};
  static const struct item test[] = {{"test/ant/c.jpg", "ycck"}, {"test/cat/a.jpeg", "cmyk"}, {"test/cat/b.jpg", "gray"}};
  static const char *const train_classes[] = {"ant", "ant", "bee", "cat", "cat"}, *const test_classes[] = {"ant", "cat", "cat"};
  open_well(path, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->count, 5);
  ck_assert_int_eq(data->class_count, 3);
  ck_assert_int_eq(data->width * data->height * data->channels, SIDE * SIDE * 3);
  for (int i = 0; i < 5; i++) {
    snprintf(file, sizeof file, "%s%s", prefix, train[i].path);
    expect_image(i, file, train_classes[i], train[i].picture);
  }
  open_well(path, DATASET_TEST, 0);
  ck_assert_int_eq(data->count, 3);
  ck_assert_int_eq(data->class_count, 3); /* "bee" has no test image and keeps its number */
  for (int i = 0; i < 3; i++) {
    snprintf(file, sizeof file, "%s%s", prefix, test[i].path);
    expect_image(i, file, test_classes[i], test[i].picture);
  }
}

/* ---- images by class ----------------------------------------------------------------------------------------------------- */

START_TEST(folder_with_splits) {
  write_items(split_items, SPLIT_ITEMS);
  expect_split_items(directory, "");
  ck_assert(!data->undivided);
}
END_TEST

/* Formats are told by content: the last file's name is wrong. */
START_TEST(every_format) {
  static const struct item items[] = {
      {"a/1.png", "rgb.png"}, {"a/2.WEBP", "lossy.webp"}, {"b/3.jpg", "gray.jpg"}, {"b/4.jpg", "odd.png"}};
  static const char *const classes[] = {"a", "a", "b", "b"};
  write_items(items, 4);
  open_well(directory, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->count, 4);
  for (int i = 0; i < 4; i++) expect_image(i, items[i].path, classes[i], items[i].picture);
}
END_TEST

START_TEST(archives_equal_the_folder) {
  static const char *const names[] = {"a.tar", "a.tar.xz", "a.tar.gz", "a.zip"};
  char *path = write_archive(names[_i], _i == 3, split_items, SPLIT_ITEMS);
  expect_split_items(path, "");
  free(path);
}
END_TEST

START_TEST(archive_within_one_folder) {
  struct item items[SPLIT_ITEMS];
  char paths[SPLIT_ITEMS][64];
  for (int i = 0; i < SPLIT_ITEMS; i++) {
    snprintf(paths[i], sizeof paths[i], "./animals/%s", split_items[i].path);
    items[i] = (struct item){paths[i], split_items[i].picture};
  }
  char *path = write_archive("a.tar.gz", false, items, SPLIT_ITEMS);
  expect_split_items(path, "animals/");
  free(path);
}
END_TEST

/* Without train and test folders everything is the one set; a class may be called train. */
START_TEST(folder_without_splits) {
  static const struct item items[] = {{"train/a.jpg", "odd"}, {"bus/b.jpg", "gray"}, {"bus/a.jpg", "one"}};
  write_items(items, 3);
  for (int split = 0; split < 2; split++) {
    open_well(directory, split ? DATASET_TEST : DATASET_TRAIN, 0);
    ck_assert(data->undivided);
    ck_assert_int_eq(data->count, 3);
    ck_assert_int_eq(data->class_count, 2);
    expect_image(0, "bus/a.jpg", "bus", "one");
    expect_image(2, "train/a.jpg", "train", "odd");
  }
}
END_TEST

/* Tiny ImageNet: images one folder deeper, and a list for the validation set. */
START_TEST(validation_with_annotations) {
  static const struct item items[] = {{"train/n1/images/n1_0.JPEG", "odd"},
                                      {"train/n2/images/n2_0.JPEG", "gray"},
                                      {"val/images/val_0.JPEG", "one"},
                                      {"val/images/val_1.JPEG", "odd"}};
  static const char list[] = "val_1.JPEG\tn1\t0\t0\t62\t44\nval_0.JPEG\tn2\t1\t2\t3\t4\n";
  write_items(items, 4);
  write_bytes("val/val_annotations.txt", list, strlen(list));
  open_well(directory, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->class_count, 2);
  expect_image(1, "train/n2/images/n2_0.JPEG", "n2", "gray");
  open_well(directory, DATASET_TEST, 0);
  ck_assert_int_eq(data->class_count, 2);
  expect_image(0, "val/images/val_0.JPEG", "n2", "one");
  expect_image(1, "val/images/val_1.JPEG", "n1", "odd");
  write_bytes("val/val_annotations.txt", list, 20);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_FORMAT, "val_0.JPEG");
}
END_TEST

/* As it is distributed: test/images without classes. The list's classes count for the training set too. */
START_TEST(unlabelled_test_images_are_left_out) {
  static const struct item items[] = {{"train/n1/images/n1_0.JPEG", "odd"},
                                      {"train/n3/images/n3_0.JPEG", "gray"},
                                      {"test/images/test_0.JPEG", "one"},
                                      {"val/images/val_0.JPEG", "one"},
                                      {"val/images/val_1.JPEG", "odd"}};
  static const char list[] = "val_1.JPEG\tn2\t0\t0\t62\t44\nval_0.JPEG\tn3\t1\t2\t3\t4\n";
  write_items(items, 5);
  write_bytes("val/val_annotations.txt", list, strlen(list));
  open_well(directory, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->count, 2);
  ck_assert_int_eq(data->class_count, 3);
  ck_assert_str_eq(data->class_names[1], "n2");
  expect_image(1, "train/n3/images/n3_0.JPEG", "n3", "gray");
  open_well(directory, DATASET_TEST, 0);
  ck_assert_int_eq(data->count, 2);
  ck_assert_int_eq(data->class_count, 3);
  expect_image(0, "val/images/val_0.JPEG", "n3", "one");
  expect_image(1, "val/images/val_1.JPEG", "n2", "odd");
}
END_TEST

/* test/ is taken, but val/ has a class that no other split has. */
START_TEST(classes_of_all_splits_are_numbered) {
  static const struct item items[] = {{"train/bee/a.jpg", "odd"},
                                      {"test/bee/b.jpg", "gray"},
                                      {"test/dog/c.jpg", "one"},
                                      {"val/ant/d.jpg", "one"},
                                      {"stray/e.jpg", "one"}};
  write_items(items, 5);
  for (int split = 0; split < 2; split++) {
    open_well(directory, split ? DATASET_TEST : DATASET_TRAIN, 0);
    ck_assert_int_eq(data->count, 1 + split);
    ck_assert_int_eq(data->class_count, 3);
    ck_assert_str_eq(data->class_names[0], "ant");
    ck_assert_str_eq(data->class_names[1], "bee");
    ck_assert_str_eq(data->class_names[2], "dog");
    ck_assert_int_eq(data->labels[0], 1);
  }
}
END_TEST

START_TEST(limit_is_spread_over_the_classes) {
  char name[32];
  static const int sizes[] = {5, 1, 3},
                   expected[][3] = {{1, 0, 0}, {1, 1, 0}, {1, 1, 1}, {2, 1, 1}, {2, 1, 2}, {3, 1, 2}, {3, 1, 3}};
  for (int c = 0; c < 3; c++) {
    for (int i = 0; i < sizes[c]; i++) {
      snprintf(name, sizeof name, "%c/%d.jpg", 'a' + c, i);
      write_items(&(struct item){name, "one"}, 1);
    }
  }
  for (int limit = 1; limit <= 7; limit++) {
    int counts[3] = {0};
    open_well(directory, DATASET_TRAIN, limit);
    ck_assert_int_eq(data->count, limit);
    for (int i = 0; i < data->count; i++) {
      snprintf(name, sizeof name, "%c/%d.jpg", 'a' + data->labels[i], counts[data->labels[i]]++);
      ck_assert_str_eq(data->file_names[i], name); /* the first ones of each class */
    }
    ck_assert_mem_eq(counts, expected[limit - 1], sizeof counts);
  }
  open_well(directory, DATASET_TRAIN, 100);
  ck_assert_int_eq(data->count, 9);
}
END_TEST

START_TEST(wrong_folders_and_files_are_named) {
  static const struct item bad = {"cat/bad.jpg", "truncated"}, good = {"cat/good.jpg", "one"}, loose = {"loose.jpg", "one"};
  char *path = support_path(directory, "missing");
  expect_failure(path, DATASET_TRAIN, HWGQ_ERROR_IO, "missing");
  free(path);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_INVALID, "no images");
  write_items(&good, 1);
  open_well(directory, DATASET_TRAIN, 0);
  write_items(&bad, 1);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "cat/bad.jpg");
  path = write_archive("a.tar.xz", false, (const struct item[]){good, bad}, 2);
  expect_failure(path, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "cat/bad.jpg");
  ck_assert_ptr_nonnull(strstr(error.message, "a.tar.xz"));
  free(path);
  write_bytes("cat/bad.jpg", "GIF89a", 6);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_UNSUPPORTED, "GIF");
  write_items(&(struct item){"cat/bad.jpg", "one"}, 1);
  write_items(&loose, 1);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_INVALID, "loose.jpg");
}
END_TEST

/* Whoever mends images sees them all at once, as far as a message can name them. */
START_TEST(all_damaged_images_are_named) {
  enum { IMAGES = 40 };
  struct item items[IMAGES];
  char names[IMAGES][32];
  for (int i = 0; i < IMAGES; i++) {
    snprintf(names[i], sizeof names[i], "cat/%02d.jpg", i);
    items[i] = (struct item){names[i], i % 10 == 3 ? "truncated" : "one"};
  }
  char *sources[] = {directory, NULL};
  write_items(items, IMAGES);
  sources[1] = write_archive("a.zip", true, items, IMAGES);
  for (int i = 0; i < 2; i++) {
    expect_failure(sources[i], DATASET_TRAIN, HWGQ_ERROR_FORMAT, "cat/03.jpg");
    ck_assert_ptr_nonnull(
        strstr(error.message, "; neither can 3 other images be read: 'cat/13.jpg', 'cat/23.jpg', 'cat/33.jpg'"));
  }
  unlink(sources[1]);
  free(sources[1]);
  for (int i = 0; i < IMAGES; i++) items[i].picture = "truncated";
  write_items(items, IMAGES);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "cat/00.jpg");
  ck_assert_ptr_nonnull(strstr(error.message, "; neither can 39 other images be read: 'cat/01.jpg', "));
  ck_assert_ptr_nonnull(strstr(error.message, " more"));
}
END_TEST

START_TEST(missing_split_is_named) {
  static const struct item items[] = {{"train/cat/a.jpg", "one"}};
  write_items(items, 1);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_INVALID, "test/");
}
END_TEST

START_TEST(paths_that_leave_the_archive_are_refused) {
  static const struct item items[] = {{"cat/../../etc/a.jpg", "one"}};
  char *path = write_archive("a.tar", false, items, 1);
  expect_failure(path, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "leaves");
  free(path);
}
END_TEST

/* An image that is in an archive once and linked from elsewhere is in all those places, whatever comes first. */
START_TEST(links_in_archives_are_followed) {
  static const struct item items[] = {{"ds/train/a/0.jpg", ">../../test/b/late.jpg"},
                                      {"ds/test/a/1.jpg", "odd"},
                                      {"ds/train/a/2.jpg", "=ds/test/a/1.jpg"},
                                      {"ds/train/b/3.jpg", "gray"},
                                      {"ds/train/b/4.jpg", "=ds/train/b/3.jpg"},
                                      {"ds/train/b/5.jpg", ">./4.jpg"},
                                      {"ds/train/b/6.jpg", ">../../.store/6"},
                                      {"ds/train/b/README", ">../../NOTES"},
                                      {"ds/.store/6", "large"},
                                      {"ds/NOTES", NULL},
                                      {"ds/test/b/late.jpg", "one"},
                                      {"ds/latest", ">test"},
                                      {"ds/broken.jpg", ">nowhere.jpg"},
                                      {"ds/.hidden", ">/etc"}};
  static const struct item train[] = {{"ds/train/a/0.jpg", "one"},  {"ds/train/a/2.jpg", "odd"},
                                      {"ds/train/b/3.jpg", "gray"}, {"ds/train/b/4.jpg", "gray"},
                                      {"ds/train/b/5.jpg", "gray"}, {"ds/train/b/6.jpg", "large"}};
  for (int zip = 0; zip < 2; zip++) { /* zip has no hard links: libarchive writes none */
    struct item own[sizeof items / sizeof *items];
    memcpy(own, items, sizeof items);
    if (zip) own[2].picture = ">../../test/a/1.jpg", own[4].picture = ">3.jpg";
    char *path = write_archive(zip ? "a.zip" : "a.tar.gz", zip, own, sizeof own / sizeof *own);
    open_well(path, DATASET_TRAIN, 0);
    ck_assert_int_eq(data->count, 6);
    ck_assert_int_eq(data->class_count, 2);
    for (int i = 0; i < 6; i++) expect_image(i, train[i].path, i < 2 ? "a" : "b", train[i].picture);
    open_well(path, DATASET_TEST, 0);
    ck_assert_int_eq(data->count, 2);
    free(path);
  }
}
END_TEST

START_TEST(links_that_lead_nowhere_are_named) {
  static const struct item one = {"ds/train/a/1.jpg", "odd"}, two = {"ds/train/b/1.jpg", "gray"};
  static const struct {
    struct item link;
    const char *words;
  } cases[] = {{{"ds/train/a/2.jpg", ">3.jpg"}, "'ds/train/a/2.jpg' in '"},
               {{"ds/train/a/2.jpg", ">../../../../1.jpg"}, "is a link to '../../../../1.jpg', which is no file"},
               {{"ds/train/a/2.jpg", ">/ds/train/a/1.jpg"}, "which is no file of the archive"},
               {{"ds/train/a/2.jpg", ">2.jpg"}, "which is no file of the archive"},
               {{"ds/train/a/2.jpg", "=ds/train/a/3.jpg"}, "which is no file of the archive"},
               {{"ds/train/c", ">a"}, "a folder, and links to folders are not followed"},
               {{"ds/train/c", ">/images/c"}, "which is no file of the archive"},
               {{"ds/test", ">train"}, "a folder"},
               {{"ds/train/a/more", ">../b"}, "a folder"}};
  const int i = _i;
  char *path = write_archive("a.tar", false, (const struct item[]){cases[i].link, one, two}, 3);
  expect_failure(path, DATASET_TRAIN, HWGQ_ERROR_UNSUPPORTED, cases[i].words);
  ck_assert_ptr_nonnull(strstr(error.message, "put the files themselves into the archive"));
  free(path);
}
END_TEST

/* As in folders, where only chosen images are read. */
START_TEST(damage_counts_only_in_chosen_images) {
  static const struct item items[] = {
      {"ds/train/a/1.jpg", "odd"},          {"ds/train/b/1.jpg", "gray"}, {"ds/preview.gif", NULL},
      {"ds/stray/1.jpg", "truncated"},      {"ds/test/a/1.jpg", "one"},   {"ds/val/a/1.jpg", "truncated"},
      {"ds/val/a/2.jpg", "=ds/preview.gif"}};
  char *path = write_archive("a.tar", false, items, sizeof items / sizeof *items);
  open_well(path, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->count, 2);
  open_well(path, DATASET_TEST, 0);
  ck_assert_int_eq(data->count, 1);
  expect_failure(path, DATASET_VAL, HWGQ_ERROR_FORMAT, "ds/val/a/1.jpg");
  ck_assert_ptr_nonnull(strstr(error.message, "neither can 1 other image be read: 'ds/val/a/2.jpg'"));
  free(path);
}
END_TEST

START_TEST(damaged_archives_are_refused) {
  size_t length;
  static const char *const names[] = {"a.tar.xz", "a.tar.gz", "a.zip", "a.tar"};
  char *path = write_archive(names[_i], _i == 2, split_items, SPLIT_ITEMS);
  uint8_t *bytes = support_read_file(path, &length);
  /* cut off: a plain tar or zip still has whole entries in front, which must not pass for the whole */
  support_write_file(path, bytes, length / 2);
  enum hwgq_status status = open_path(path, DATASET_TRAIN, 0);
  ck_assert_int_eq(status, HWGQ_ERROR_FORMAT);
  ck_assert_ptr_nonnull(strstr(error.message, names[_i]));
  /* random damage: any answer but a crash */
  struct support_random random = {(uint64_t)_i};
  for (int run = 0; run < 60; run++) {
    uint8_t *damaged = malloc(length);
    memcpy(damaged, bytes, length);
    for (int k = 0; k < 3; k++)
      damaged[support_random_int(&random, 0, (int)length - 1)] ^= (uint8_t)support_random_int(&random, 1, 255);
    support_write_file(path, damaged, length);
    status = open_path(path, DATASET_TRAIN, 0);
    ck_assert(status == HWGQ_OK || error.message[0]);
    free(damaged);
  }
  support_write_file(path, "not an archive", 14);
  expect_failure(path, DATASET_TRAIN, HWGQ_ERROR_FORMAT, names[_i]);
  free(bytes);
  free(path);
}
END_TEST

/* ---- IDX ----------------------------------------------------------------------------------------------------------------- */

/* `count` images of SIDE x SIDE whose pixels are all the image's index, and labels index % classes. */
static void write_idx(const char *split, int count, int classes, bool packed) {
  char name[64];
  uint8_t images[16 + 9 * SIDE * SIDE] = {0, 0, 8, 3, 0, 0, 0, (uint8_t)count, 0, 0, 0, SIDE, 0, 0, 0, SIDE};
  uint8_t labels[8 + 9] = {0, 0, 8, 1, 0, 0, 0, (uint8_t)count};
  ck_assert_int_le(count, 9);
  for (int i = 0; i < count; i++) {
    memset(images + 16 + i * SIDE * SIDE, i, SIDE * SIDE);
    labels[8 + i] = (uint8_t)(i % classes);
  }
  snprintf(name, sizeof name, "%s-images-idx3-ubyte", split);
  write_bytes(name, images, 16 + (size_t)count * SIDE * SIDE);
  snprintf(name, sizeof name, "%s-labels-idx1-ubyte", split);
  write_bytes(name, labels, 8 + (size_t)count);
  if (packed) {
    char command[512];
    snprintf(command, sizeof command, "gzip '%s/%s-images-idx3-ubyte' '%s/%s-labels-idx1-ubyte'", directory, split, directory,
             split);
    ck_assert_int_eq(system(command), 0);
  }
}

START_TEST(idx_files) {
  write_idx("train", 9, 3, _i == 1);
  write_idx("t10k", 2, 2, _i == 1);
  ck_assert_int_eq(dataset_open(directory, DATASET_TRAIN, &gray, gray_shape, 0, &data, &error), HWGQ_OK);
  ck_assert_int_eq(data->count, 9);
  ck_assert_int_eq(data->class_count, 3);
  ck_assert_str_eq(data->class_names[2], "2");
  ck_assert_str_eq(data->file_names[7], "#7");
  for (int i = 0; i < 9; i++) {
    ck_assert_int_eq(data->labels[i], i % 3);
    ck_assert_int_eq(data->pixels[i * SIDE * SIDE], i);
    ck_assert_int_eq(data->pixels[(i + 1) * SIDE * SIDE - 1], i);
  }
  dataset_destroy(data);
  data = NULL;
  ck_assert_int_eq(dataset_open(directory, DATASET_TEST, &gray, gray_shape, 0, &data, &error), HWGQ_OK);
  ck_assert_int_eq(data->count, 2);
  ck_assert_int_eq(data->class_count, 3);
  open_well(directory, DATASET_TRAIN, 4); /* as color images */
  ck_assert_int_eq(data->count, 4);
  ck_assert_str_eq(data->file_names[3], "#3");
  ck_assert_int_eq(data->pixels[3 * SIDE * SIDE * 3 + 1], 3);
}
END_TEST

START_TEST(damaged_idx_files_are_named) {
  size_t length;
  write_idx("train", 9, 3, false);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_INVALID, "t10k");
  char *images = support_path(directory, "train-images-idx3-ubyte"),
       *labels = support_path(directory, "train-labels-idx1-ubyte");
  uint8_t *bytes = support_read_file(images, &length);
  support_write_file(images, bytes, length - 1);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "train-images-idx3-ubyte");
  support_write_file(images, bytes, 10);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "train-images-idx3-ubyte");
  memset(bytes + 4, 0xff, 4); /* four thousand million images */
  support_write_file(images, bytes, length);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "4294967295");
  write_idx("train", 9, 3, false);
  support_write_file(labels, "\0\0\10\1\377\377\377\377\0\1", 10);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "4294967295 labels");
  support_write_file(labels, "\0\0\10\1\0\0\0\2\0\1", 10);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "9 images but 2 labels");
  ck_assert_int_eq(remove(labels), 0);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_INVALID, "train-labels-idx1-ubyte");
  free(bytes);
  free(images);
  free(labels);
}
END_TEST

static long resident_kilobytes(void) {
  struct rusage usage;
  ck_assert_int_eq(getrusage(RUSAGE_SELF, &usage), 0);
  return usage.ru_maxrss;
}

/* An eighth of a gigabyte of zeros behind a header: of 9 images, or of nothing known. */
START_TEST(packed_idx_files_are_unpacked_as_far_as_stated) {
  char command[512];
  write_idx("train", 9, 3, false);
  if (_i == 1) write_bytes("train-images-idx3-ubyte", "\0\0\10\7", 4);
  snprintf(command, sizeof command,
           "cd '%s' && head -c 134217728 /dev/zero | cat train-images-idx3-ubyte - | gzip -1 >big && "
           "rm train-images-idx3-ubyte && mv big train-images-idx3-ubyte.gz",
           directory);
  ck_assert_int_eq(system(command), 0);
  long before = resident_kilobytes();
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_FORMAT, "train-images-idx3-ubyte.gz");
  ck_assert_int_lt(resident_kilobytes() - before, 64 << 10);
}
END_TEST

/* ---- CIFAR-10 ------------------------------------------------------------------------------------------------------------ */

enum { RECORD = 3073 };

/* Record i of a batch: label (first + i) % 10, red first + i, green 100, blue 200. */
static void write_batch(const char *name, int first, int count) {
  uint8_t *bytes = malloc((size_t)count * RECORD);
  for (int i = 0; i < count; i++) {
    uint8_t *record = bytes + i * RECORD;
    record[0] = (uint8_t)((first + i) % 10);
    memset(record + 1, first + i, 1024);
    memset(record + 1025, 100, 1024);
    memset(record + 2049, 200, 1024);
  }
  write_bytes(name, bytes, (size_t)count * RECORD);
  free(bytes);
}

START_TEST(cifar_batches) {
  static const char names[] = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
  const char *folder = _i ? "cifar-10-batches-bin/" : "";
  char name[64];
  for (int b = 0; b < 5; b++) {
    snprintf(name, sizeof name, "%sdata_batch_%d.bin", folder, b + 1);
    write_batch(name, 3 * b, 3);
  }
  snprintf(name, sizeof name, "%stest_batch.bin", folder);
  write_batch(name, 40, 2);
  open_well(directory, DATASET_TRAIN, 0);
  ck_assert_int_eq(data->count, 15);
  ck_assert_int_eq(data->class_count, 10);
  ck_assert_str_eq(data->class_names[3], "3");
  for (int i = 0; i < 15; i++) {
    const uint8_t *pixel = data->pixels + (size_t)i * SIDE * SIDE * 3;
    ck_assert_int_eq(data->labels[i], i % 10);
    ck_assert_mem_eq(pixel, ((uint8_t[]){(uint8_t)i, 100, 200}), 3);
  }
  snprintf(name, sizeof name, "%sbatches.meta.txt", folder);
  write_bytes(name, names, strlen(names));
  open_well(directory, DATASET_VAL, 0); /* there is none: the test images */
  ck_assert_int_eq(data->count, 2);
  ck_assert_int_eq(data->split, DATASET_TEST);
  open_well(directory, DATASET_TEST, 1);
  ck_assert_int_eq(data->count, 1);
  ck_assert_str_eq(data->class_names[3], "cat");
  ck_assert_str_eq(data->class_names[9], "truck");
  ck_assert_str_eq(data->file_names[0], "#0");
}
END_TEST

START_TEST(damaged_cifar_batches_are_named) {
  uint8_t record[RECORD] = {10};
  write_batch("test_batch.bin", 0, 2);
  expect_failure(directory, DATASET_TRAIN, HWGQ_ERROR_IO, "data_batch_1.bin");
  write_bytes("test_batch.bin", record, RECORD);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_FORMAT, "label 10");
  write_bytes("test_batch.bin", record, RECORD - 1);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_FORMAT, "test_batch.bin");
  write_bytes("test_batch.bin", record, 0);
  expect_failure(directory, DATASET_TEST, HWGQ_ERROR_FORMAT, "test_batch.bin");
}
END_TEST

START_TEST(impossible_shapes_are_refused) {
  ck_assert_int_eq(dataset_open(directory, DATASET_TRAIN, &color, (struct hwgq_shape){2, 8, 8}, 0, &data, &error),
                   HWGQ_ERROR_INVALID);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("data");
  TCase *images = tcase_create("images"), *arrays = tcase_create("arrays");
  tcase_add_checked_fixture(images, setup, teardown);
  tcase_add_checked_fixture(arrays, setup, teardown);
  tcase_set_timeout(images, 60);
  tcase_set_timeout(arrays, 60);
  tcase_add_test(images, folder_with_splits);
  tcase_add_test(images, every_format);
  tcase_add_loop_test(images, archives_equal_the_folder, 0, 4);
  tcase_add_test(images, archive_within_one_folder);
  tcase_add_test(images, folder_without_splits);
  tcase_add_test(images, validation_with_annotations);
  tcase_add_test(images, unlabelled_test_images_are_left_out);
  tcase_add_test(images, classes_of_all_splits_are_numbered);
  tcase_add_test(images, limit_is_spread_over_the_classes);
  tcase_add_test(images, wrong_folders_and_files_are_named);
  tcase_add_test(images, all_damaged_images_are_named);
  tcase_add_test(images, missing_split_is_named);
  tcase_add_test(images, paths_that_leave_the_archive_are_refused);
  tcase_add_test(images, links_in_archives_are_followed);
  tcase_add_loop_test(images, links_that_lead_nowhere_are_named, 0, 9);
  tcase_add_test(images, damage_counts_only_in_chosen_images);
  tcase_add_loop_test(images, damaged_archives_are_refused, 0, 4);
  tcase_add_loop_test(arrays, idx_files, 0, 2);
  tcase_add_test(arrays, damaged_idx_files_are_named);
  tcase_add_loop_test(arrays, packed_idx_files_are_unpacked_as_far_as_stated, 0, 2);
  tcase_add_loop_test(arrays, cifar_batches, 0, 2);
  tcase_add_test(arrays, damaged_cifar_batches_are_named);
  tcase_add_test(arrays, impossible_shapes_are_refused);
  suite_add_tcase(suite, images);
  suite_add_tcase(suite, arrays);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed > 0;
}
