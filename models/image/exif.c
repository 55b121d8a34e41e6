/* The one thing that is wanted of EXIF (CIPA DC-008, section 4.6): tag 0x0112 of the first directory of a TIFF structure. Every
 * offset is checked against the data before it is used. */
#include <stdlib.h>
#include <string.h>

#include "models/image/decode.h"

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };

struct tiff {
  const uint8_t *data;
  size_t length;
  bool little;
};

static uint32_t read_16(const struct tiff *tiff, size_t at) {
  const uint8_t *b = tiff->data + at;
  return tiff->little ? (uint32_t)(b[0] | b[1] << 8) : (uint32_t)(b[0] << 8 | b[1]);
}

static uint32_t read_32(const struct tiff *tiff, size_t at) {
  return tiff->little ? read_16(tiff, at) | read_16(tiff, at + 2) << 16 : read_16(tiff, at) << 16 | read_16(tiff, at + 2);
}

int exif_orientation(const uint8_t *data, size_t length) {
  size_t prefix = length >= 6 && !memcmp(data, "Exif\0\0", 6) ? 6 : 0;
  if (length < prefix + 8) return 0;
  struct tiff tiff = {data + prefix, length - prefix, data[prefix] == 'I'};
  if (memcmp(tiff.data, "II*\0", 4) != 0 && memcmp(tiff.data, "MM\0*", 4) != 0) return 0;
  size_t directory = read_32(&tiff, 4);
  if (directory > tiff.length - 2) return 0;
  size_t entries = read_16(&tiff, directory), at = directory + 2;
  for (size_t i = 0; i < entries && tiff.length - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES) {
    if (read_16(&tiff, at) != TAG_ORIENTATION) continue;
    if (read_16(&tiff, at + 2) != TYPE_SHORT || read_32(&tiff, at + 4) != 1) return 0;
    uint32_t value = read_16(&tiff, at + 8);
    return value >= 1 && value <= 8 ? (int)value : 0;
  }
  return 0;
}

/* Orientations by where stored row 0 and column 0 lie in the picture: 1 top left, 2 top right, 3 bottom right, 4 bottom left,
 * 5 left top, 6 right top, 7 right bottom, 8 left bottom. From 5 on, rows and columns change places. */
struct exif_turn exif_turn_of(int orientation) {
  return (struct exif_turn){
      .flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8,
      .flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7,
      .swap = orientation >= 5,
  };
}

enum hwgq_status exif_orient(struct image *image, int orientation, struct hwgq_error *error) {
  if (orientation <= 1) return HWGQ_OK;
  const struct exif_turn turn = exif_turn_of(orientation);
  size_t width = (size_t)image->width, height = (size_t)image->height, channels = (size_t)image->channels;
  size_t out_width = turn.swap ? height : width, out_height = turn.swap ? width : height;
  uint8_t *out = malloc(width * height * channels);
  if (!out) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to turn an image of %zux%zu", width, height);
  uint8_t *to = out;
  for (size_t y = 0; y < out_height; y++) {
    for (size_t x = 0; x < out_width; x++) {
      size_t column = turn.swap ? y : x, row = turn.swap ? x : y;
      if (turn.flip_x) column = width - 1 - column;
      if (turn.flip_y) row = height - 1 - row;
      const uint8_t *from = image->pixels + (row * width + column) * channels;
      for (size_t c = 0; c < channels; c++) *to++ = from[c];
    }
  }
  free(image->pixels);
  *image = (struct image){(int)out_width, (int)out_height, image->channels, out};
  return HWGQ_OK;
}
