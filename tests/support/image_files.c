#include "tests/support/image_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint8_t *image_file(const char *name, size_t *length) {
  char path[256];
  snprintf(path, sizeof path, "tests/images/%s", name);
  uint8_t *bytes = support_read_file(path, length);
  if (!bytes) {
    fprintf(stderr, "%s is missing: run tests from the top folder\n", path);
    abort();
  }
  return bytes;
}

/* ---- PNG ----------------------------------------------------------------------------------------------------------------- */

uint32_t image_crc32(const uint8_t *bytes, size_t length) {
  uint32_t crc = 0xffffffff;
  for (size_t i = 0; i < length; i++) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

static void put_32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

void image_png_chunk(struct fuzz_buffer *buffer, const char *type, const void *data, size_t length) {
  uint8_t word[8];
  if (buffer->length == 0) fuzz_set(buffer, "\x89PNG\r\n\x1a\n", 8);
  put_32(word, (uint32_t)length);
  memcpy(word + 4, type, 4);
  fuzz_splice(buffer, buffer->length, 0, word, 8);
  fuzz_splice(buffer, buffer->length, 0, data, length);
  put_32(word, image_crc32(buffer->bytes + buffer->length - length - 4, length + 4));
  fuzz_splice(buffer, buffer->length, 0, word, 4);
}

void image_png_header(struct fuzz_buffer *buffer, uint32_t width, uint32_t height, int bits, int color_type, bool interlaced) {
  uint8_t header[13] = {0};
  put_32(header, width);
  put_32(header + 4, height);
  header[8] = (uint8_t)bits;
  header[9] = (uint8_t)color_type;
  header[12] = interlaced;
  image_png_chunk(buffer, "IHDR", header, sizeof header);
}

void image_png_repair(struct fuzz_buffer *buffer) {
  for (size_t at = 8; buffer->length >= 12 && at <= buffer->length - 12;) {
    const uint8_t *b = buffer->bytes + at;
    size_t length = (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
    if (length > buffer->length - at - 12) return;
    put_32(buffer->bytes + at + 8 + length, image_crc32(b + 4, length + 4));
    at += 12 + length;
  }
}

/* ---- fuzzing ------------------------------------------------------------------------------------------------------------- */

/* They keep a run short; they are also what is tested. */
static const struct image_limits limits = {.max_pixels = 1 << 18, .max_scans = 20, .max_memory = 5 << 20};

bool image_seed(const char *const *names, int index, struct fuzz_buffer *buffer) {
  size_t length;
  if (!names[index]) return false;
  uint8_t *bytes = image_file(names[index], &length);
  fuzz_set(buffer, bytes, length);
  free(bytes);
  return true;
}

void image_mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  int changes = support_random_int(random, 1, 4);
  if (support_random_chance(random, 0.3) || buffer->length < 8) {
    fuzz_mutate(random, buffer, other);
    return;
  }
  for (int i = 0; i < changes; i++) {
    size_t range = support_random_chance(random, 0.6) && buffer->length > 640 ? 640 : buffer->length;
    buffer->bytes[support_random_next(random) % range] = (uint8_t)support_random_int(random, 0, 255);
  }
}

static const char *check_image(const struct image *image, const struct image_info *info) {
  if (image->channels != 1 && image->channels != 3) return "channels are neither 1 nor 3";
  if (image->width < 1 || image->height < 1) return "an empty image";
  if (image->width != info->width || image->height != info->height) return "another size than the header states";
  if ((uint64_t)info->width * (uint64_t)info->height > limits.max_pixels) return "over the pixel limit";
  return NULL;
}

/* No image of these limits but a large square one is reduced: both ways must agree exactly. */
static const char *compare(const struct image *image, const uint8_t *bytes, size_t length) {
  enum { SIDE = 100 };
  const struct hwgq_preprocess preprocess = {.order = HWGQ_RGB, .resize = 128};
  const struct hwgq_shape shape = {3, SIDE, SIDE};
  static uint8_t whole[SIDE * SIDE * 3], rows[SIDE * SIDE * 3];
  struct image_info info;
  enum hwgq_status status = image_preprocess(image, &preprocess, shape, whole, NULL);
  if (status && status != HWGQ_ERROR_LIMIT) return "cannot be preprocessed";
  if (image_prepare(bytes, length, &limits, &preprocess, shape, rows, &info, NULL, NULL) != status)
    return "image_prepare ends with another status";
  bool reduced = image->width >= 512 && image->height >= 512;
  return status || reduced || !memcmp(whole, rows, sizeof whole) ? NULL : "image_prepare gives other pixels";
}

const char *image_check(const uint8_t *bytes, size_t length, bool *accepted) {
  const struct hwgq_preprocess small = {.order = HWGQ_GRAY};
  struct image image = {0};
  struct image_info info;
  struct hwgq_error error = {""};
  uint8_t pixels[8 * 8];
  enum hwgq_status status = image_decode(bytes, length, &limits, &image, &info, &error);
  *accepted = status == HWGQ_OK;
  if (status == HWGQ_ERROR_INVALID || status == HWGQ_ERROR_IO) return "a status that decoding cannot have";
  if (status) {
    if (image.pixels) return "pixels after a failure";
    if (!error.message[0]) return "no message";
  }
  /* at a reduced scale, where there is one; damage is found there as well, but for what only full rows show */
  enum hwgq_status reduced =
      image_prepare(bytes, length, &limits, &small, (struct hwgq_shape){1, 8, 8}, pixels, &info, NULL, NULL);
  if (reduced != status && reduced != HWGQ_ERROR_LIMIT) return "another status at a reduced scale";
  if (status) return NULL;
  const char *wrong = check_image(&image, &info);
  if (!wrong) wrong = compare(&image, bytes, length);
  image_release(&image);
  return wrong;
}
