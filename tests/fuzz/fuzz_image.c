/* Fuzzes image_decode and image_preprocess with damaged JPEG files. Whatever is accepted must have the size that the header
 * states (or a reduced one) and must preprocess. */
#include "models/image/image.h"
#include "tests/support/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Small limits keep a run short; they are also what is tested. */
static const struct image_limits limits = {.max_pixels = 1 << 18, .max_scans = 20};

/* The files of tests/images. */
static bool make_seed(int index, struct fuzz_buffer *buffer) {
  static const char *const names[] = {"baseline", "progressive", "gray",  "cmyk",  "ycck",      "cmyk-plain", "orientation-6",
                                      "odd",      "one",         "large", "scans", "truncated", "no-end"};
  char path[128];
  size_t length;
  if (index >= (int)(sizeof names / sizeof *names)) return false;
  snprintf(path, sizeof path, "tests/images/%s.jpg", names[index]);
  uint8_t *bytes = support_read_file(path, &length);
  if (!bytes) abort(); /* run from the top folder */
  fuzz_set(buffer, bytes, length);
  free(bytes);
  return true;
}

/* Mostly a header field or a byte of the data; sometimes anything. */
static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
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

static const char *check_image(const struct image *image, const struct image_info *info, int shorter_side) {
  const struct hwgq_preprocess preprocess = {.order = HWGQ_RGB, .resize = 20};
  const struct hwgq_shape shape = {3, 16, 16};
  uint8_t pixels[16 * 16 * 3];
  int shorter = image->width < image->height ? image->width : image->height;
  int stated = info->width < info->height ? info->width : info->height;
  if (image->channels != 1 && image->channels != 3) return "channels are neither 1 nor 3";
  if (image->width < 1 || image->height < 1 || image->width > info->width || image->height > info->height)
    return "the image is larger than the header states";
  if ((uint64_t)info->width * (uint64_t)info->height > limits.max_pixels) return "over the pixel limit";
  if (shorter < stated && shorter < shorter_side) return "reduced too far";
  memset(pixels, 0, sizeof pixels);
  enum hwgq_status status = image_preprocess(image, &preprocess, shape, pixels, NULL);
  return status == HWGQ_OK || status == HWGQ_ERROR_LIMIT ? NULL : "cannot be preprocessed";
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  struct image image = {0};
  struct image_info info;
  struct hwgq_error error = {""};
  int shorter_side = length % 3 ? 20 : 0;
  enum hwgq_status status = image_decode(bytes, length, &limits, shorter_side, &image, &info, &error);
  *accepted = status == HWGQ_OK;
  if (status) {
    if (image.pixels) return "pixels after a failure";
    return error.message[0] ? NULL : "no message";
  }
  const char *wrong = check_image(&image, &info, shorter_side ? shorter_side : 1 << 30);
  image_release(&image);
  return wrong;
}

int main(int argc, char **argv) {
  static const struct fuzz_target target = {"image", 60000, make_seed, mutate, check};
  return fuzz_main(argc, argv, &target);
}
