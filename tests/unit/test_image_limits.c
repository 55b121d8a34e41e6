/* What decoding may cost: files that promise or unpack to far more than they are, in time and memory; the shared budget; the
 * deadline; and the tolerance of reduced JPEG scales. */
#include "models/classify/classify.h"
#include "models/image/budget.h"
#include "models/image/decode.h"
#include "models/image/image.h"
#include "tests/support/image_files.h"
#include "tests/support/support.h"

#include <check.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>
#include <webp/encode.h>
#include <zlib.h>

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
static const struct hwgq_preprocess preprocess = {.order = HWGQ_RGB};
static const struct hwgq_shape shape = {3, 32, 32};
static uint8_t pixels[32 * 32 * 3];
static struct image_info info;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static enum hwgq_status prepare(const struct fuzz_buffer *file, const struct image_limits *limits) {
  error.message[0] = 0;
  return image_prepare(file->bytes, file->length, limits, &preprocess, shape, pixels, &info, NULL, &error);
}

static struct fuzz_buffer fixture(const char *name) {
  struct fuzz_buffer file = {0};
  file.bytes = image_file(name, &file.length);
  file.capacity = file.length + 1;
  return file;
}

/* Bytes that zlib has unpacked for libspng, whose calls come here first: what unpacking costs, however fast the machine is. */
static uint64_t unpacked;

int inflate(z_streamp stream, int flush) {
  static int (*zlib)(z_streamp, int);
  if (!zlib) *(void **)&zlib = dlsym(RTLD_NEXT, "inflate");
  const uInt before = stream->avail_out;
  const int result = zlib(stream, flush);
  unpacked += before - stream->avail_out;
  return result;
}

/* Prepares the file and expects the status, a word of the message, and at most so many KiB that are unpacked and of memory. */
static void expect_cost(const struct fuzz_buffer *file, const struct image_limits *limits, enum hwgq_status status,
                        const char *word, long unpacked_kib, long kib) {
  long before = support_peak_kib();
  unpacked = 0;
  enum hwgq_status got = prepare(file, limits);
  long more = support_peak_kib() - before;
  ck_assert_msg(got == status, "status %d: %s", got, error.message);
  ck_assert_msg(!word || strstr(error.message, word), "'%s' does not say '%s'", error.message, word);
  ck_assert_msg(unpacked <= (uint64_t)unpacked_kib * 1024, "%llu bytes unpacked", (unsigned long long)unpacked);
  ck_assert_msg(SANITIZED || more <= kib, "%ld KiB", more);
}

/* The daemon's limits by default, with a budget of its own. */
static struct image_budget budget;
static struct image_limits limits;

/* Each test starts in a process whose libraries are there and warm, so that its memory is that of the decode. */
static void setup(void) {
  static const char *const names[] = {"rgb.png", "progressive.jpg", "baseline.jpg", "lossy.webp", "lossless.webp"};
  const struct image_limits standard = IMAGE_LIMITS_DEFAULT;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    struct fuzz_buffer file = fixture(names[i]);
    ck_assert_int_eq(prepare(&file, &standard), HWGQ_OK);
    free(file.bytes);
  }
  ck_assert_int_eq(image_budget_init(&budget, 128 * MIB, &error), HWGQ_OK);
  limits = (struct image_limits){.max_pixels = 64 * MIB, .max_scans = 64, .budget = &budget};
}

static void teardown(void) {
  ck_assert_uint_eq(budget.taken, 0);
  image_budget_destroy(&budget);
}

/* ---- files that are larger than they look -------------------------------------------------------------------------------- */

/* A zlib stream of `count` zeros: after the first one, copies of 258 with fixed codes, 13 bits each. */
static void add_zeros(struct fuzz_buffer *data, uint64_t count) {
  uint64_t held = 3 | 12 << 3, left = count - 1; /* last block, fixed codes; the literal 0 is 00110000, first bit first */
  int bits = 11;
  size_t capacity = (size_t)(count / 258 * 13 / 8 + count % 258 + 64), length = 2;
  uint8_t *out = malloc(capacity);
  memcpy(out, "\x78\x01", 2);
  while (left > 0) {
    if (left >= 258) {
      held |= (uint64_t)0xa3 << bits; /* length code 285: 11000101 */
      bits += 13;                     /* distance code 0: 00000 */
      left -= 258;
    } else {
      held |= (uint64_t)12 << bits;
      bits += 8;
      left--;
    }
    for (; bits >= 8; bits -= 8, held >>= 8) out[length++] = (uint8_t)held;
  }
  bits += 7; /* end of block: 0000000 */
  for (; bits > 0; bits -= 8, held >>= 8) out[length++] = (uint8_t)held;
  uint32_t b = (uint32_t)(count % 65521);
  memcpy(out + length, (uint8_t[]){(uint8_t)(b >> 8), (uint8_t)b, 0, 1}, 4);
  fuzz_splice(data, data->length, 0, out, length + 4);
  free(out);
}

/* A black PNG. */
static struct fuzz_buffer black_png(uint32_t width, uint32_t height, int color_type, bool interlaced, uint64_t bytes) {
  struct fuzz_buffer file = {0}, data = {0};
  image_png_header(&file, width, height, 8, color_type, interlaced);
  add_zeros(&data, bytes);
  image_png_chunk(&file, "IDAT", data.bytes, data.length);
  image_png_chunk(&file, "IEND", "", 0);
  free(data.bytes);
  return file;
}

START_TEST(huge_png_headers_cost_nothing) {
  static const uint32_t sizes[][2] = {{50000, 50000}, {0x7fffffff, 0x7fffffff}, {1, 0x7fffffff}, {1 << 25, 2}};
  struct fuzz_buffer file = black_png(sizes[_i][0], sizes[_i][1], 2, _i == 1, 100000);
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, "smaller size", 0, 512);
  ck_assert_int_eq(info.format, IMAGE_PNG);
  ck_assert_int_eq(info.height, (int)sizes[_i][1]);
  free(file.bytes);
}
END_TEST

START_TEST(png_texts_and_profiles_are_not_unpacked) {
  static const char *const kinds[] = {"zTXt", "iCCP", "iTXt"};
  static const char head[] = "Comment\0\0", international[] = "Comment\0\1\0\0\0";
  struct fuzz_buffer file = {0}, data = {0}, picture = black_png(8, 8, 2, false, 8 * 25);
  fuzz_set(&data, _i == 2 ? international : head, _i == 2 ? sizeof international - 1 : sizeof head - 1);
  add_zeros(&data, 200 * MIB);
  image_png_header(&file, 8, 8, 8, 2, false);
  for (int i = 0; i < (_i == 1 ? 1 : 5); i++) image_png_chunk(&file, kinds[_i], data.bytes, data.length);
  fuzz_splice(&file, file.length, 0, picture.bytes + 33, picture.length - 33);
  expect_cost(&file, &limits, HWGQ_OK, NULL, 1, 512);
  free(file.bytes);
  free(data.bytes);
  free(picture.bytes);
}
END_TEST

/* More data than the picture has: unpacked no further than that. */
START_TEST(png_data_beyond_the_picture_are_not_unpacked) {
  struct fuzz_buffer file = black_png(8, 8, 2, false, 400u * MIB);
  prepare(&file, &limits); /* either status */
  expect_cost(&file, &limits, prepare(&file, &limits), NULL, 64, 512);
  free(file.bytes);
}
END_TEST

/* 192 MB of pixels, decoded in rows. */
START_TEST(large_pngs_take_rows_only) {
  struct fuzz_buffer file = black_png(8000, 8000, 2, false, 8000ull * 24001);
  expect_cost(&file, &limits, HWGQ_OK, NULL, 8000l * 24001 / 1024 + 1, 2048);
  ck_assert_uint_eq(pixels[0], 0);
  free(file.bytes);
}
END_TEST

START_TEST(interlaced_pngs_are_bounded) {
  struct fuzz_buffer large = black_png(8000, 8000, 6, true, 100000),
                     flat = black_png(1000, 1000, 2, true, 3 * 1000 * 1000 + 1885);
  expect_cost(&large, &limits, HWGQ_ERROR_LIMIT, "interlaced PNG of 8000x8000", 0, 512);
  expect_cost(&flat, &limits, HWGQ_OK, NULL, 3000, 4096);
  free(large.bytes);
  free(flat.bytes);
}
END_TEST

/* 16383 x 16383: lossy, lossless; with more pixels allowed, memory refuses. */
START_TEST(huge_webp_headers_cost_nothing) {
  static const uint8_t lossy[] = "RIFF\x1e\0\0\0WEBPVP8 \x12\0\0\0\x50\x01\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0\0\0\0\0\0";
  static const uint8_t lossless[] = "RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0\x2f\xfe\xbf\xff\x0f\0\0\0\0\0\0\0\0\0\0\0\0";
  struct fuzz_buffer file = {0};
  fuzz_set(&file, _i ? lossless : lossy, 38);
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, "16383x16383", 0, 512);
  limits.max_pixels = 1 << 30;
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, _i ? "lossless WebP of 16383x16383" : "MiB", 0, 512);
  free(file.bytes);
}
END_TEST

/* Offset of the first segment of a kind. */
static size_t find_segment(const struct fuzz_buffer *file, uint8_t marker) {
  size_t at = 2;
  while (file->bytes[at + 1] != marker) at += 2 + (size_t)(file->bytes[at + 2] << 8 | file->bytes[at + 3]);
  return at;
}

START_TEST(large_progressive_jpegs_are_bounded) {
  struct fuzz_buffer file = fixture("progressive.jpg");
  memcpy(file.bytes + find_segment(&file, 0xc2) + 5, "\x1f\x40\x1f\x40", 4); /* 8000x8000: 184 MiB of coefficients */
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, "progressive JPEG of 8000x8000", 0, 512);
  free(file.bytes);
}
END_TEST

/* The last scan again and again, and the limit itself. */
START_TEST(thousands_of_scans_cost_nothing) {
  struct fuzz_buffer file = fixture("scans.jpg");
  size_t last = file.length - 2;
  while (memcmp(file.bytes + last, "\xff\xda", 2) != 0) last--;
  size_t length = file.length - 2 - last;
  uint8_t *scan = malloc(length);
  memcpy(scan, file.bytes + last, length);
  for (int i = 0; i < 5000; i++) fuzz_splice(&file, last, 0, scan, length);
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, "more than 64 scans", 0, 512);
  limits.max_scans = 100000;
  enum hwgq_status status = prepare(&file, &limits);
  ck_assert_int_ne(status, HWGQ_ERROR_MEMORY);
  expect_cost(&file, &limits, status, NULL, 0, 1024);
  free(scan);
  free(file.bytes);
}
END_TEST

/* A header of 64 Mi pixels with nothing behind it. */
START_TEST(empty_jpegs_cost_nothing) {
  struct fuzz_buffer file = fixture("baseline.jpg");
  memcpy(file.bytes + find_segment(&file, 0xc0) + 5, "\x20\x00\x20\x00", 4);
  expect_cost(&file, &limits, HWGQ_ERROR_FORMAT, "truncated", 0, 4096);
  free(file.bytes);
}
END_TEST

/* ---- deadline ------------------------------------------------------------------------------------------------------------ */

static struct fuzz_buffer flat_jpeg(int side, bool progressive) {
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr messages;
  struct fuzz_buffer file = {0};
  unsigned char *bytes = NULL;
  unsigned long length = 0;
  uint8_t *row = calloc((size_t)side, 3);
  jpeg.err = jpeg_std_error(&messages);
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, &bytes, &length);
  jpeg.image_width = jpeg.image_height = (JDIMENSION)side;
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  if (progressive) jpeg_simple_progression(&jpeg);
  jpeg_start_compress(&jpeg, TRUE);
  for (int y = 0; y < side; y++) {
    for (int x = 0; x < 3 * side; x += 7) row[x] = (uint8_t)(x * y);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  fuzz_set(&file, bytes, length);
  free(bytes);
  free(row);
  return file;
}

/* Lossless: black, in so few bytes that libwebp gets them at once. */
static struct fuzz_buffer flat_webp(int side, bool lossless) {
  struct fuzz_buffer file = {0};
  uint8_t *rgb = calloc((size_t)side * (size_t)side, 3), *bytes = NULL;
  for (int i = 0; i < side * side && !lossless; i += 5) rgb[3 * i] = (uint8_t)(i * 77 >> 3);
  size_t length = lossless ? WebPEncodeLosslessRGB(rgb, side, side, 3 * side, &bytes)
                           : WebPEncodeRGB(rgb, side, side, 3 * side, 60, &bytes);
  fuzz_set(&file, bytes, length);
  WebPFree(bytes);
  free(rgb);
  return file;
}

START_TEST(deadlines_are_kept) {
  struct fuzz_buffer file = _i == 0   ? black_png(6000, 6000, 2, false, 6000ull * 18001)
                            : _i == 1 ? flat_jpeg(3000, false)
                            : _i == 2 ? flat_jpeg(3000, true)
                                      : flat_webp(2000, _i == 4);
  limits.deadline_ns = now_ns() + 1000000;
  expect_cost(&file, &limits, HWGQ_ERROR_LIMIT, "longer than is allowed", 6000l * 18001 / 1024 / 2, 64 * 1024);
  limits.deadline_ns = now_ns() + 600000000000;
  ck_assert_int_eq(prepare(&file, &limits), HWGQ_OK);
  free(file.bytes);
}
END_TEST

/* Lets the deadline pass with the first rows. */
static enum hwgq_status begin_late(struct image_sink *sink, const struct image_frame *frame, struct hwgq_error *message) {
  (void)sink, (void)frame, (void)message;
  return HWGQ_OK;
}

static int late_calls;

static void rows_late(struct image_sink *sink, const uint8_t *rows, int count) {
  (void)sink, (void)rows, (void)count;
  late_calls++;
  limits.deadline_ns = 1;
}

/* A WebP's rows are handed on when the whole picture is there. */
START_TEST(deadlines_are_kept_between_rows) {
  struct fuzz_buffer file = flat_webp(400, true);
  struct image_sink sink = {begin_late, rows_late};
  struct image_job job = {file.bytes, file.length, &limits, .sink = &sink, .info = &info, .error = &error};
  ck_assert_int_eq(webp_decode(&job), HWGQ_ERROR_LIMIT);
  ck_assert_int_eq(late_calls, 1);
  free(file.bytes);
}
END_TEST

/* ---- budget -------------------------------------------------------------------------------------------------------------- */

START_TEST(a_taken_budget_is_waited_for) {
  struct fuzz_buffer file = flat_jpeg(1600, true), small = fixture("progressive.jpg");
  ck_assert(image_budget_take(&budget, 127 * MIB, 0));
  /* The deadline may come before the wait when this thread sleeps meanwhile: then once more, later. */
  enum hwgq_status status = HWGQ_ERROR_LIMIT;
  for (uint64_t wait = 30000000; status == HWGQ_ERROR_LIMIT && wait < 60000000000; wait *= 2) {
    limits.deadline_ns = now_ns() + wait;
    status = prepare(&file, &limits);
  }
  ck_assert_int_eq(status, HWGQ_ERROR_MEMORY);
  ck_assert_ptr_nonnull(strstr(error.message, "later"));
  limits.deadline_ns = now_ns() + 600000000000;
  ck_assert_int_eq(prepare(&small, &limits), HWGQ_OK); /* needs no part of it */
  image_budget_give(&budget, 127 * MIB);
  limits.deadline_ns = 0;
  ck_assert_int_eq(prepare(&file, &limits), HWGQ_OK);
  ck_assert(!image_budget_take(&budget, 129 * MIB, 0));
  free(file.bytes);
  free(small.bytes);
}
END_TEST

static void *prepare_large(void *argument) {
  static struct image_times times;
  const struct fuzz_buffer *file = argument;
  uint8_t out[32 * 32 * 3];
  struct image_info seen;
  return image_prepare(file->bytes, file->length, &limits, &preprocess, shape, out, &seen, &times, NULL) ? NULL : &times;
}

static void wait_for_waiter(void) {
  for (bool waits = false; !waits; nanosleep(&(struct timespec){0, 1000000}, NULL)) {
    pthread_mutex_lock(&budget.lock);
    waits = budget.first != NULL;
    pthread_mutex_unlock(&budget.lock);
  }
}

/* The wait is told apart from the work, and takes none of the time that decoding has. */
START_TEST(waiting_is_no_work) {
  enum { HELD_NS = 30000000 };
  struct fuzz_buffer file = flat_jpeg(1600, true);
  pthread_t thread;
  void *times = NULL;
  ck_assert(image_budget_take(&budget, 127 * MIB, 0));
  limits.deadline_ns = now_ns() + 600000000000;
  ck_assert_int_eq(pthread_create(&thread, NULL, prepare_large, &file), 0);
  wait_for_waiter();
  nanosleep(&(struct timespec){0, HELD_NS}, NULL);
  image_budget_give(&budget, 127 * MIB);
  pthread_join(thread, &times);
  ck_assert_ptr_nonnull(times);
  ck_assert_uint_ge(((struct image_times *)times)->waited_ns, HELD_NS);
  struct image_job job = {.limits = &limits, .info = &info, .error = &error};
  limits.deadline_ns = now_ns() - 1000000000;
  ck_assert_int_eq(image_check_time(&job), HWGQ_ERROR_LIMIT);
  job.waited_ns = 600000000000;
  ck_assert_int_eq(image_check_time(&job), HWGQ_OK);
  free(file.bytes);
}
END_TEST

/* Set by one thread while another one waits. */
static atomic_bool is_needed;

static bool needed(void *context) {
  (void)context;
  return atomic_load(&is_needed);
}

static void *take_unless_needed(void *argument) {
  bool *taken = argument;
  *taken = image_budget_take_unless(&budget, 100 * MIB, 0, needed, NULL);
  return NULL;
}

static void wait_for_waiters(int count) {
  while (atomic_load(&budget.waiting) != count) nanosleep(&(struct timespec){0, 1000000}, NULL);
}

START_TEST(whoever_is_needed_elsewhere_gives_up) {
  pthread_t first, second;
  bool first_taken = false, second_taken = true, third_taken = true;
  budget.patient = 1;
  ck_assert(image_budget_take(&budget, 100 * MIB, 0));
  ck_assert_int_eq(pthread_create(&first, NULL, take_unless_needed, &first_taken), 0);
  wait_for_waiters(1);
  ck_assert_int_eq(pthread_create(&second, NULL, take_unless_needed, &second_taken), 0);
  wait_for_waiters(2); /* as long as nobody is needed */
  atomic_store(&is_needed, true);
  image_budget_look(&budget);
  pthread_join(second, NULL);
  ck_assert(!second_taken);
  take_unless_needed(&third_taken); /* at once */
  ck_assert(!third_taken);
  ck_assert_int_eq(atomic_load(&budget.waiting), 1); /* the patient one */
  image_budget_give(&budget, 100 * MIB);
  pthread_join(first, NULL);
  ck_assert(first_taken);
  image_budget_give(&budget, 100 * MIB);
  take_unless_needed(&third_taken); /* what is free is taken */
  ck_assert(third_taken);
  image_budget_give(&budget, 100 * MIB);
  atomic_store(&is_needed, false);
}
END_TEST

struct taker {
  pthread_t thread;
  const struct fuzz_buffer *file;
  const struct image_limits *limits;
  int failures;
};

static void *decode_often(void *argument) {
  struct taker *taker = argument;
  uint8_t out[32 * 32 * 3];
  struct image_info seen;
  for (int i = 0; i < 5; i++) {
    taker->failures += image_prepare(taker->file->bytes, taker->file->length, taker->limits, &preprocess, shape, out, &seen,
                                     NULL, NULL) != HWGQ_OK;
  }
  return NULL;
}

/* One fits at a time: everyone gets a turn, and nothing is left taken. */
START_TEST(concurrent_decodes_take_turns) {
  struct fuzz_buffer file = flat_jpeg(1600, true);
  struct taker takers[6];
  image_budget_destroy(&budget);
  ck_assert_int_eq(image_budget_init(&budget, 12 * MIB, &error), HWGQ_OK);
  for (int i = 0; i < 6; i++) {
    takers[i] = (struct taker){.file = &file, .limits = &limits};
    ck_assert_int_eq(pthread_create(&takers[i].thread, NULL, decode_often, &takers[i]), 0);
  }
  for (int i = 0; i < 6; i++) {
    pthread_join(takers[i].thread, NULL);
    ck_assert_int_eq(takers[i].failures, 0);
  }
  free(file.bytes);
}
END_TEST

static void *take_much(void *argument) {
  (void)argument;
  bool taken = image_budget_take(&budget, 100 * MIB, now_ns() + 600000000000);
  if (taken) image_budget_give(&budget, 100 * MIB);
  return taken ? &budget : NULL;
}

/* Who came later does not overtake, even where it would fit; when the first one gives up, the next are served. */
START_TEST(waiters_are_served_in_turn) {
  pthread_t thread;
  void *taken = NULL;
  ck_assert(image_budget_take(&budget, 60 * MIB, 0));
  ck_assert_int_eq(pthread_create(&thread, NULL, take_much, NULL), 0);
  wait_for_waiter();
  ck_assert(!image_budget_take(&budget, 10 * MIB, now_ns() + 20000000));
  image_budget_give(&budget, 60 * MIB);
  pthread_join(thread, &taken);
  ck_assert_ptr_nonnull(taken);
  ck_assert(image_budget_take(&budget, 60 * MIB, 0));
  ck_assert(!image_budget_take(&budget, 100 * MIB, now_ns() + 1000000));
  ck_assert(image_budget_take(&budget, 68 * MIB, now_ns() + 1000000));
  image_budget_give(&budget, 128 * MIB);
}
END_TEST

/* What a decode takes is at most what the refusal says that it would. */
START_TEST(stated_memory_is_enough) {
  struct fuzz_buffer file = _i == 0   ? flat_jpeg(1600, true)
                            : _i == 1 ? flat_webp(2000, false)
                            : _i == 2 ? black_png(1600, 1600, 2, true, 3 * 1600 * 1600 + 3000)
                                      : black_png(200000, 100, 6, false, 100 * 800001);
  unsigned mib = 0;
  limits.max_memory = 1;
  ck_assert_int_eq(prepare(&file, &limits), HWGQ_ERROR_LIMIT);
  const char *said = strstr(error.message, "up to ");
  ck_assert_ptr_nonnull(said);
  ck_assert_int_eq(sscanf(said, "up to %u MiB", &mib), 1);
  limits.max_memory = (uint64_t)mib * MIB;
  expect_cost(&file, &limits, HWGQ_OK, NULL, 100 * 800001l / 1024 + 1, (long)mib * 1024 + 512);
  free(file.bytes);
}
END_TEST

/* ---- reduced scales ------------------------------------------------------------------------------------------------------ */

enum { MOST = 32 };
static const double most_on_average = 1.25;

/* As image.h promises. */
static void expect_tolerance(const char *name, const struct fuzz_buffer *file, int side, int resize) {
  const struct hwgq_preprocess how = {.order = HWGQ_RGB, .resize = resize};
  const struct hwgq_shape to = {3, side, side};
  const struct image_limits standard = IMAGE_LIMITS_DEFAULT;
  size_t size = (size_t)(side * side * 3);
  uint8_t *whole = malloc(size), *reduced = malloc(size);
  struct image image = {0};
  double sum = 0;
  int most = 0;
  ck_assert_int_eq(image_decode(file->bytes, file->length, &standard, &image, &info, &error), HWGQ_OK);
  ck_assert_int_eq(image_preprocess(&image, &how, to, whole, &error), HWGQ_OK);
  ck_assert_int_eq(image_prepare(file->bytes, file->length, &standard, &how, to, reduced, &info, NULL, &error), HWGQ_OK);
  ck_assert_int_eq(info.width, image.width);
  for (size_t i = 0; i < size; i++) {
    int difference = abs(whole[i] - reduced[i]);
    sum += difference;
    if (difference > most) most = difference;
  }
  int shorter = image.width < image.height ? image.width : image.height;
  if (shorter < 6 * image_shorter_side(&how, to)) ck_assert_int_eq(most, 0);
  ck_assert_msg(sum / (double)size <= most_on_average && most <= MOST, "%s to %d: %.2f on average, %d at most", name, side,
                sum / (double)size, most);
  image_release(&image);
  free(whole);
  free(reduced);
}

static void expect_tolerances(const char *name, const struct fuzz_buffer *file) {
  static const int sides[][2] = {{8, 0}, {16, 0}, {28, 0}, {32, 0}, {32, 40}, {64, 0}, {75, 0}, {112, 0}, {128, 0}, {224, 256}};
  for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) expect_tolerance(name, file, sides[i][0], sides[i][1]);
}

START_TEST(reduced_scales_keep_their_tolerance) {
  struct fuzz_buffer file = fixture("large.jpg");
  expect_tolerances("large.jpg", &file);
  free(file.bytes);
}
END_TEST

/* The class that the network finds in the full picture. */
static int full_class(const struct classifier *classifier, struct classify_scratch *scratch, const struct fuzz_buffer *file) {
  const struct image_limits standard = IMAGE_LIMITS_DEFAULT;
  uint8_t input[32 * 32 * 3];
  struct classify_result result;
  struct hwgq_prediction best;
  struct image image = {0};
  ck_assert_int_eq(image_decode(file->bytes, file->length, &standard, &image, &info, &error), HWGQ_OK);
  ck_assert_int_eq(image_preprocess(&image, &classifier->model->preprocess, classifier->input, input, &error), HWGQ_OK);
  ck_assert_int_eq(classify_pixels(classifier, scratch, input, &result, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_top_k(result.scores, classifier->class_count, 1, &best), 1);
  image_release(&image);
  return best.class_index;
}

START_TEST(photographs_keep_their_tolerance_and_class) {
  DIR *folder = opendir("../shared/photos");
  struct classifier *classifier;
  struct classify_scratch *scratch;
  if (!folder) {
    puts("SKIPPED: there are no photographs in ../shared/photos");
    return;
  }
  ck_assert_int_eq(classifier_open("models/zoo/cifar10.hwgq", NULL, &classifier, &error), HWGQ_OK);
  ck_assert_int_eq(classify_scratch_create(classifier, &scratch, &error), HWGQ_OK);
  for (struct dirent *entry; (entry = readdir(folder));) {
    struct fuzz_buffer file = {0};
    struct classify_result result;
    struct hwgq_prediction best;
    if (!strstr(entry->d_name, ".jpg")) continue;
    char *path = support_path("../shared/photos", entry->d_name);
    file.bytes = support_read_file(path, &file.length);
    ck_assert_ptr_nonnull(file.bytes);
    expect_tolerances(entry->d_name, &file);
    ck_assert_int_eq(classify_bytes(classifier, scratch, file.bytes, file.length, NULL, &result, &error), HWGQ_OK);
    hwgq_top_k(result.scores, classifier->class_count, 1, &best);
    ck_assert_int_eq(full_class(classifier, scratch, &file), best.class_index);
    free(file.bytes);
    free(path);
  }
  classify_scratch_destroy(scratch);
  classifier_destroy(classifier);
  closedir(folder);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("image limits");
  TCase *bombs = tcase_create("bombs"), *shared = tcase_create("time and memory"), *threads = tcase_create("threads"),
        *scales = tcase_create("scales");
  tcase_add_checked_fixture(bombs, setup, teardown);
  tcase_add_checked_fixture(shared, setup, teardown);
  tcase_add_checked_fixture(threads, setup, teardown);
  tcase_set_timeout(bombs, 120);
  tcase_set_timeout(shared, 120);
  tcase_set_timeout(threads, 120);
  tcase_set_timeout(scales, 120);
  tcase_add_loop_test(bombs, huge_png_headers_cost_nothing, 0, 4);
  tcase_add_loop_test(bombs, png_texts_and_profiles_are_not_unpacked, 0, 3);
  tcase_add_test(bombs, png_data_beyond_the_picture_are_not_unpacked);
  tcase_add_test(bombs, large_pngs_take_rows_only);
  tcase_add_test(bombs, interlaced_pngs_are_bounded);
  tcase_add_loop_test(bombs, huge_webp_headers_cost_nothing, 0, 2);
  tcase_add_test(bombs, large_progressive_jpegs_are_bounded);
  tcase_add_test(bombs, thousands_of_scans_cost_nothing);
  tcase_add_test(bombs, empty_jpegs_cost_nothing);
  tcase_add_loop_test(shared, deadlines_are_kept, 0, 5);
  tcase_add_test(shared, deadlines_are_kept_between_rows);
  tcase_add_loop_test(shared, stated_memory_is_enough, 0, 4);
  tcase_add_test(threads, a_taken_budget_is_waited_for);
  tcase_add_test(threads, waiting_is_no_work);
  tcase_add_test(threads, whoever_is_needed_elsewhere_gives_up);
  tcase_add_test(threads, concurrent_decodes_take_turns);
  tcase_add_test(threads, waiters_are_served_in_turn);
  tcase_add_test(scales, reduced_scales_keep_their_tolerance);
  tcase_add_test(scales, photographs_keep_their_tolerance_and_class);
  suite_add_tcase(suite, bombs);
  suite_add_tcase(suite, shared);
  suite_add_tcase(suite, threads);
  suite_add_tcase(suite, scales);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed > 0;
}
