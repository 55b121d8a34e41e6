/* Fuzzes image_decode, image_prepare and image_preprocess with damaged JPEG files, EXIF included. */
#include "tests/support/image_files.h"

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  static const char *const names[] = {"baseline.jpg",      "progressive.jpg",   "gray.jpg",      "cmyk.jpg",   "ycck.jpg",
                                      "cmyk-plain.jpg",    "orientation-6.jpg", "odd.jpg",       "one.jpg",    "large.jpg",
                                      "orientation-3.jpg", "scans.jpg",         "truncated.jpg", "no-end.jpg", NULL};
  return image_seed(names, index, buffer);
}

int main(int argc, char **argv) {
  static const struct fuzz_target target = {"jpeg", 30000, make_seed, image_mutate, image_check};
  return fuzz_main(argc, argv, &target);
}
