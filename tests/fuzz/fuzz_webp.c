/* Fuzzes image_decode, image_prepare and image_preprocess with damaged WebP files: container, EXIF and picture. */
#include "tests/support/image_files.h"

#include <string.h>

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  static const char *const names[] = {"lossy.webp",          "lossless.webp", "lossy-alpha.webp",
                                      "lossless-alpha.webp", "exif-6.webp",   "frames.webp",
                                      "frames-alpha.webp",   "one.webp",      NULL};
  return image_seed(names, index, buffer);
}

/* Often with a size in the container's header that suits the file again, and with a canvas of another size. */
static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  image_mutate(random, buffer, other);
  if (buffer->length >= 30 && !memcmp(buffer->bytes + 12, "VP8X", 4) && support_random_chance(random, 0.1))
    buffer->bytes[24 + support_random_int(random, 0, 5)] = (uint8_t)support_random_int(random, 0, 255);
  if (buffer->length < 12 || !support_random_chance(random, 0.7)) return;
  for (int i = 0; i < 4; i++) buffer->bytes[4 + i] = (uint8_t)((buffer->length - 8) >> (8 * i));
}

int main(int argc, char **argv) {
  static const struct fuzz_target target = {"webp", 30000, make_seed, mutate, image_check};
  return fuzz_main(argc, argv, &target);
}
