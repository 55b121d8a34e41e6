#include "models/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "models/image/decode.h"

const char *image_format_name(enum image_format format) {
  return format == IMAGE_JPEG ? "jpeg" : "unknown";
}

enum image_format image_sniff(const uint8_t *bytes, size_t length) {
  return length >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff ? IMAGE_JPEG : IMAGE_UNKNOWN;
}

/* What else it may be, so that the message can say so. */
static const char *foreign_format(const uint8_t *bytes, size_t length) {
  static const struct {
    const char *name, *bytes;
    size_t offset, length;
  } signatures[] = {
      {"a PNG image", "\x89PNG\r\n\x1a\n", 0, 8},
      {"a GIF image", "GIF8", 0, 4},
      {"a WebP image", "WEBP", 8, 4},
      {"a BMP image", "BM", 0, 2},
      {"a TIFF image", "II*\0", 0, 4},
      {"a TIFF image", "MM\0*", 0, 4},
      {"an AVIF or HEIC image", "ftyp", 4, 4},
  };
  for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
    size_t offset = signatures[i].offset, size = signatures[i].length;
    if (length >= offset + size && !memcmp(bytes + offset, signatures[i].bytes, size)) return signatures[i].name;
  }
  return "no known kind of image";
}

enum hwgq_status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shorter_side,
                              struct image *image, struct image_info *info, struct hwgq_error *error) {
  *info = (struct image_info){0};
  if (length == 0) return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "no image: 0 bytes; send a JPEG");
  info->format = image_sniff(bytes, length);
  if (info->format == IMAGE_JPEG) return jpeg_decode(bytes, length, limits, shorter_side, image, info, error);
  return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "%s: convert it to JPEG, which is what can be read",
                   foreign_format(bytes, length));
}

void image_release(struct image *image) {
  free(image->pixels);
  *image = (struct image){0};
}
