/* Fuzzes image_decode, image_prepare and image_preprocess with damaged PNG files. Checksums are made right after most changes,
 * and some seeds have their rows uncompressed, so that changes reach what lies behind checksums and compression. */
#include "tests/support/image_files.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"rgb.png",
                                    "gray-1.png",
                                    "gray-4-interlaced.png",
                                    "gray-16.png",
                                    "palette-2.png",
                                    "rgb-16.png",
                                    "palette-trns.png",
                                    "rgb-trns.png",
                                    "gray-trns.png",
                                    "gray-alpha.png",
                                    "rgb-alpha.png",
                                    "exif-6.png",
                                    "exif-6-late.png",
                                    "animated.png",
                                    "one.png",
                                    "odd.png",
                                    "rgb-alpha-interlaced.png",
                                    NULL};

struct stored {
  int width, height, bits, color_type;
  bool interlaced;
};

/* A zlib stream of one stored block: the rows as they are, with filter bytes. */
static void add_stored(struct fuzz_buffer *buffer, const uint8_t *rows, size_t length) {
  uint8_t data[4096] = {0x78, 0x01, 0x01, (uint8_t)length, (uint8_t)(length >> 8), (uint8_t)~length, (uint8_t)(~length >> 8)};
  uint32_t a = 1, b = 0;
  memcpy(data + 7, rows, length);
  for (size_t i = 0; i < length; i++) {
    a = (a + rows[i]) % 65521;
    b = (b + a) % 65521;
  }
  uint8_t checksum[4] = {(uint8_t)(b >> 8), (uint8_t)b, (uint8_t)(a >> 8), (uint8_t)a};
  memcpy(data + 7 + length, checksum, 4);
  image_png_chunk(buffer, "IDAT", data, length + 11);
}

static void make_stored(const struct stored *kind, struct fuzz_buffer *buffer) {
  static const uint8_t channels[] = {1, 0, 3, 1, 2, 0, 4};
  uint8_t rows[4000];
  size_t length = 0, row = ((size_t)kind->width * channels[kind->color_type] * (size_t)kind->bits + 7) / 8;
  /* enough for the passes of an interlaced one as well, whose rows have paddings and filter bytes of their own */
  size_t count = kind->interlaced ? 3 * (size_t)kind->height : (size_t)kind->height;
  for (size_t y = 0; y < count; y++) {
    rows[length++] = (uint8_t)(kind->interlaced ? 0 : y % 5);
    for (size_t x = 0; x < row; x++) rows[length++] = (uint8_t)(kind->interlaced ? 0 : x * 7 + y * 3);
  }
  image_png_header(buffer, (uint32_t)kind->width, (uint32_t)kind->height, kind->bits, kind->color_type, kind->interlaced);
  if (kind->color_type == 3) image_png_chunk(buffer, "PLTE", "\1\2\3\4\5\6\7\10\11", 9);
  add_stored(buffer, rows, length);
  image_png_chunk(buffer, "IEND", "", 0);
}

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  static const struct stored kinds[] = {{9, 7, 8, 2, false},  {9, 7, 2, 3, false}, {9, 7, 16, 6, false}, {9, 7, 8, 0, true},
                                        {13, 9, 8, 6, false}, {9, 7, 1, 0, true},  {9, 7, 8, 4, true}};
  const int files = sizeof names / sizeof *names - 1;
  if (index < files) return image_seed(names, index, buffer);
  if (index - files >= (int)(sizeof kinds / sizeof *kinds)) return false;
  make_stored(&kinds[index - files], buffer);
  return true;
}

static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  image_mutate(random, buffer, other);
  if (support_random_chance(random, 0.8)) image_png_repair(buffer);
}

int main(int argc, char **argv) {
  static const struct fuzz_target target = {"png", 30000, make_seed, mutate, image_check};
  return fuzz_main(argc, argv, &target);
}
