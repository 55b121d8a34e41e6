/* What the Huffman codes of lossless WebP data may cost: files with thousands of groups of them, which no encoder writes, are
 * counted in the budget as what they take, wherever the groups are told; others are not. */
#include "models/image/budget.h"
#include "models/image/image.h"
#include "tests/support/image_files.h"
#include "tests/support/support.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <webp/encode.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif
#else
enum { SANITIZED = 0 };
#endif

enum { MIB = 1 << 20 };

static struct hwgq_error error;
static struct image_info info;
static struct image_budget budget;
static struct image_limits limits;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static enum hwgq_status prepare(const struct fuzz_buffer *file) {
  static const struct hwgq_preprocess preprocess = {.order = HWGQ_RGB};
  static uint8_t pixels[32 * 32 * 3];
  error.message[0] = 0;
  return image_prepare(file->bytes, file->length, &limits, &preprocess, (struct hwgq_shape){3, 32, 32}, pixels, &info, NULL,
                       &error);
}

/* The daemon's limits by default; the libraries are there and warm. */
static void setup(void) {
  struct fuzz_buffer file = {0};
  limits = IMAGE_LIMITS_DEFAULT;
  file.bytes = image_file("lossless-alpha.webp", &file.length);
  ck_assert_int_eq(prepare(&file), HWGQ_OK);
  free(file.bytes);
  ck_assert_int_eq(image_budget_init(&budget, 128 * MIB, &error), HWGQ_OK);
  limits.budget = &budget;
}

static void teardown(void) {
  ck_assert_uint_eq(budget.taken, 0);
  image_budget_destroy(&budget);
}

/* ---- writing such files -------------------------------------------------------------------------------------------------- */

struct writer {
  struct fuzz_buffer data;
  unsigned held, bits; /* less than a byte */
};

/* The lowest bit first. */
static void put(struct writer *writer, unsigned value, unsigned count) {
  for (unsigned i = 0; i < count; i++) {
    writer->held |= (value >> i & 1) << writer->bits;
    if (++writer->bits < 8) continue;
    if (writer->data.length == writer->data.capacity) {
      writer->data.capacity = 2 * writer->data.capacity + 64;
      writer->data.bytes = realloc(writer->data.bytes, writer->data.capacity);
    }
    writer->data.bytes[writer->data.length++] = (uint8_t)writer->held;
    writer->held = writer->bits = 0;
  }
}

/* A symbol of a code in which all have as many bits: the highest first. */
static void put_symbol(struct writer *writer, unsigned value, unsigned count) {
  for (unsigned i = count; i > 0; i--) put(writer, value >> (i - 1), 1);
}

/* Codes of the symbol 0 alone. */
static void put_simple_codes(struct writer *writer, int count) {
  for (int i = 0; i < count; i++) put(writer, 1, 4);
}

/* A code by its lengths, each of them stored with 4 bits. */
static void put_code(struct writer *writer, const uint8_t *lengths, int symbols) {
  put(writer, 0, 1);
  put(writer, 15, 4); /* all 19 symbols of the code for lengths: not 17 and 18, 0 to 15, not 16 */
  for (int i = 0; i < 19; i++) put(writer, i == 0 || i == 1 || i == 8 ? 0 : 4, 3);
  put(writer, 0, 1);
  for (int i = 0; i < symbols; i++) put_symbol(writer, lengths[i], 4);
}

/* Whose tables are as large as libwebp can be made to write: second ones of 128 entries behind most of the first one's. */
static void put_deep_code(struct writer *writer, int symbols) {
  uint8_t lengths[2328] = {0};
  int used = 0, deep = symbols / 8 < 255 ? symbols / 8 : 255;
  while (8 * deep + __builtin_popcount(256u - (unsigned)deep) > symbols) deep--;
  for (int length = 1; length <= 8; length++) {
    if ((256 - deep) >> (8 - length) & 1) lengths[used++] = (uint8_t)length;
  }
  for (int i = 0; i < deep; i++) {
    for (int length = 9; length <= 15; length++) lengths[used++] = (uint8_t)length;
    lengths[used++] = 15;
  }
  put_code(writer, lengths, symbols);
}

/* The 256 literals with 8 bits each. */
static void put_literal_code(struct writer *writer, int symbols) {
  uint8_t lengths[256 + 24] = {0};
  memset(lengths, 8, 256);
  put_code(writer, lengths, symbols);
}

enum kind {
  PLAIN,
  TRANSFORMED, /* by all four: images of their own lie in front */
  CACHED,      /* with the largest color cache, which makes green's tables larger */
  DEEP,        /* with tables as large as can be */
  DEEP_CACHED,
  ALPHA, /* of a lossy picture */
  KINDS,
};

/* From behind the size. Each block of 4x4 pixels has a group of its own, times `step`. */
static void put_groups(struct writer *writer, enum kind kind, int side, unsigned step) {
  int blocks = side / 4 * (side / 4);
  if (kind == TRANSFORMED) {
    for (unsigned i = 0; i < 4; i++) {
      put(writer, 1 | i << 1, 3);
      if (i == 3) put(writer, 255, 8); /* colors, less 1 */
      if (i < 2) put(writer, 0, 3);    /* blocks of 4x4 */
      if (i == 2) continue;
      put(writer, 0, 1);
      put_simple_codes(writer, 5);
    }
  }
  put(writer, 0, 1);
  bool cached = kind == CACHED || kind == DEEP_CACHED, deep = kind == DEEP || kind == DEEP_CACHED;
  put(writer, cached ? 1 | 11 << 1 : 0, cached ? 5 : 1);
  put(writer, 1, 4); /* an entropy image, blocks of 4x4 */
  put(writer, 0, 1);
  put_literal_code(writer, 280);
  put_literal_code(writer, 256);
  put_simple_codes(writer, 3);
  for (unsigned i = 0; i < (unsigned)blocks; i++) {
    put_symbol(writer, i * step & 255, 8);
    put_symbol(writer, i * step >> 8, 8);
  }
  for (int i = 0; i <= (blocks - 1) * (int)step; i++) {
    if (!deep) {
      put_simple_codes(writer, 5);
      continue;
    }
    put_deep_code(writer, cached ? 280 + 2048 : 280);
    for (int j = 0; j < 3; j++) put_deep_code(writer, 256);
    put_deep_code(writer, 40);
  }
  if (!deep) return;
  for (int i = 0; i < side * side; i++) put(writer, 0, 32);
}

static void add_chunk(struct fuzz_buffer *file, const char *type, const uint8_t *data, size_t length) {
  uint8_t header[8];
  memcpy(header, type, 4);
  for (int i = 0; i < 4; i++) header[4 + i] = (uint8_t)(length >> (8 * i));
  fuzz_splice(file, file->length, 0, header, 8);
  fuzz_splice(file, file->length, 0, data, length);
  if (length & 1) fuzz_splice(file, file->length, 0, "", 1);
}

static struct fuzz_buffer groups_file(enum kind kind, int side, unsigned step) {
  struct writer writer = {0};
  struct fuzz_buffer file = {0};
  fuzz_set(&file, "RIFF\0\0\0\0WEBP", 12);
  if (kind == ALPHA) {
    uint8_t *rgb = calloc((size_t)(side * side), 3), *lossy = NULL;
    const size_t length = WebPEncodeRGB(rgb, side, side, 3 * side, 50, &lossy);
    put(&writer, 1, 8); /* compressed, not filtered */
    put_groups(&writer, kind, side, step);
    put(&writer, 0, 32);
    add_chunk(&file, "VP8X", (uint8_t[]){16, 0, 0, 0, (uint8_t)(side - 1), 0, 0, (uint8_t)(side - 1), 0, 0}, 10);
    add_chunk(&file, "ALPH", writer.data.bytes, writer.data.length);
    fuzz_splice(&file, file.length, 0, lossy + 12, length - 12);
    WebPFree(lossy);
    free(rgb);
  } else {
    put(&writer, 0x2f, 8);
    put(&writer, (unsigned)(side - 1) | (unsigned)(side - 1) << 14, 32);
    put_groups(&writer, kind, side, step);
    put(&writer, 0, 32);
    add_chunk(&file, "VP8L", writer.data.bytes, writer.data.length);
  }
  for (int i = 0; i < 4; i++) file.bytes[4 + i] = (uint8_t)((file.length - 8) >> (8 * i));
  free(writer.data.bytes);
  return file;
}

/* ---- tests --------------------------------------------------------------------------------------------------------------- */

/* 74 and 295 kB that take 93 and 370 MiB. */
START_TEST(thousands_of_codes_are_refused) {
  struct fuzz_buffer file = groups_file(PLAIN, _i ? 1024 : 512, 1);
  long before = support_peak_kib();
  ck_assert_int_eq(prepare(&file), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_nonnull(strstr(error.message, "lossless WebP of"));
  ck_assert(SANITIZED || support_peak_kib() - before < 1024);
  free(file.bytes);
}
END_TEST

/* Of a file whose picture alone needs no part of the budget. */
START_TEST(codes_wait_for_the_budget) {
  struct fuzz_buffer file = groups_file(_i ? ALPHA : PLAIN, 256, 1);
  ck_assert(image_budget_take(&budget, 120 * MIB, 0));
  /* The deadline may come before the wait when this thread sleeps meanwhile: then once more, later. */
  enum hwgq_status status = HWGQ_ERROR_LIMIT;
  for (uint64_t wait = 30000000; status == HWGQ_ERROR_LIMIT && wait < 60000000000; wait *= 2) {
    limits.deadline_ns = now_ns() + wait;
    status = prepare(&file);
  }
  ck_assert_int_eq(status, HWGQ_ERROR_MEMORY);
  image_budget_give(&budget, 120 * MIB);
  limits.deadline_ns = 0;
  ck_assert_msg(prepare(&file) == HWGQ_OK, "%s", error.message);
  free(file.bytes);
}
END_TEST

/* What a refusal says is enough, and at most 2.5 times of what is taken; 1.25 times where the tables are large. */
START_TEST(stated_memory_is_enough_for_codes) {
  bool deep = _i == DEEP || _i == DEEP_CACHED;
  struct fuzz_buffer file = groups_file((enum kind)_i, deep ? 128 : 192, 1);
  unsigned mib = 0;
  limits.max_memory = 1;
  ck_assert_int_eq(prepare(&file), HWGQ_ERROR_LIMIT);
  const char *said = strstr(error.message, "up to ");
  ck_assert_ptr_nonnull(said);
  ck_assert_int_eq(sscanf(said, "up to %u MiB", &mib), 1);
  limits.max_memory = (uint64_t)mib * MIB;
  long before = support_peak_kib();
  ck_assert_msg(prepare(&file) == HWGQ_OK, "%s", error.message);
  long more = support_peak_kib() - before, stated = (long)mib * 1024;
  ck_assert_msg(SANITIZED || more <= stated, "%ld of %ld KiB", more, stated);
  if (_i != CACHED) ck_assert_msg(SANITIZED || stated - 3072 <= more * (deep ? 5 : 10) / 4, "%ld of %ld KiB", more, stated);
  free(file.bytes);
}
END_TEST

/* Groups that no block uses are not kept. */
START_TEST(unused_codes_are_not_counted) {
  struct fuzz_buffer file = groups_file(PLAIN, 32, 1000);
  limits.max_memory = 5 * MIB;
  long before = support_peak_kib();
  ck_assert_msg(prepare(&file) == HWGQ_OK, "%s", error.message);
  ck_assert(SANITIZED || support_peak_kib() - before < 5 * 1024);
  free(file.bytes);
}
END_TEST

/* What an encoder makes of a million pixels, many kinds of them, takes 7 MB for them and less than 1 for codes. */
START_TEST(pictures_are_not_counted_as_more) {
  enum { SIDE = 1000 };
  struct support_random random = {1};
  uint8_t *rgb = malloc(SIDE * SIDE * 3), *bytes = NULL;
  struct fuzz_buffer file = {0};
  for (int y = 0; y < SIDE; y++) {
    for (int x = 0; x < SIDE; x++) {
      int kind = y / 100 * 10 + x / 100;
      for (int c = 0; c < 3; c++) {
        int noise = support_random_int(&random, 0, 1 + kind / 4);
        rgb[3 * (y * SIDE + x) + c] = (uint8_t)((x * (kind % 7) >> 4) + (y * (kind % 5) >> c) + noise);
      }
    }
  }
  file.length = WebPEncodeLosslessRGB(rgb, SIDE, SIDE, 3 * SIDE, &bytes);
  file.bytes = bytes;
  limits.max_memory = 10 * MIB;
  ck_assert_msg(prepare(&file) == HWGQ_OK, "%s", error.message);
  WebPFree(bytes);
  free(rgb);
}
END_TEST

/* Cut within any of the codes, with the container's lengths made right. */
START_TEST(cut_codes_are_refused) {
  struct fuzz_buffer whole = groups_file(TRANSFORMED, 16, 1);
  for (size_t length = 26; length < whole.length - 10; length++) {
    struct fuzz_buffer file = {0};
    fuzz_set(&file, whole.bytes, length);
    file.bytes[4] = (uint8_t)(length - 8);
    file.bytes[16] = (uint8_t)(length - 20);
    ck_assert_int_eq(prepare(&file), HWGQ_ERROR_FORMAT);
    free(file.bytes);
  }
  free(whole.bytes);
}
END_TEST

/* A predictor image of 16 million pixels in no bits at all: the clock is looked at while it is walked over. */
START_TEST(inner_images_keep_the_deadline) {
  static const uint8_t head[] = "RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0\x2f\xff\xff\xff\x0f\x81\x88\x88\0\0\0\0\0\0\0\0\0\0";
  struct fuzz_buffer file = {0};
  fuzz_set(&file, head, 38);
  limits = (struct image_limits){.max_pixels = 1 << 28, .deadline_ns = now_ns()};
  ck_assert_int_eq(prepare(&file), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_nonnull(strstr(error.message, "longer than is allowed"));
  limits = (struct image_limits){.max_pixels = 1 << 28, .max_memory = MIB};
  ck_assert_int_eq(prepare(&file), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_nonnull(strstr(error.message, "16384x16384"));
  free(file.bytes);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("lossless images");
  TCase *codes = tcase_create("codes");
  tcase_add_checked_fixture(codes, setup, teardown);
  tcase_set_timeout(codes, 120);
  tcase_add_loop_test(codes, thousands_of_codes_are_refused, 0, 2);
  tcase_add_loop_test(codes, codes_wait_for_the_budget, 0, 2);
  tcase_add_loop_test(codes, stated_memory_is_enough_for_codes, 0, KINDS);
  tcase_add_test(codes, unused_codes_are_not_counted);
  tcase_add_test(codes, pictures_are_not_counted_as_more);
  tcase_add_test(codes, cut_codes_are_refused);
  tcase_add_test(codes, inner_images_keep_the_deadline);
  suite_add_tcase(suite, codes);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed > 0;
}
