/* From the bytes of an image file to the pixels that a network takes. One implementation for trainer, tool and daemon.
 * The same bytes give the same pixels everywhere: JDCT_ISLOW decoding, integer resizing. */
#ifndef IMAGE_H
#define IMAGE_H

#include "engine/hwgq.h"

enum image_format { IMAGE_UNKNOWN, IMAGE_JPEG };

/* 8-bit pixels, HWC, 3 channels (RGB) or 1 (gray); rows follow each other without gaps. */
struct image {
  int width, height, channels;
  uint8_t *pixels; /* owned; image_release frees it */
};

struct image_limits {
  uint64_t max_pixels; /* width * height as the header states it */
  int max_scans;       /* of a progressive JPEG */
};

/* What the file says of itself, before orientation and scaling are applied to the pixels: width and height are already as a
 * viewer would show them (EXIF orientation applied). */
struct image_info {
  enum image_format format;
  int width, height;
};

/* What decoding one image may take at most beside the file itself: so many bytes, and so many more per pixel of its header. */
enum { IMAGE_DECODE_FIXED = 32 << 20, IMAGE_DECODE_PER_PIXEL = 12 };

#define IMAGE_LIMITS_DEFAULT ((struct image_limits){.max_pixels = 64u << 20, .max_scans = 64})

/* "jpeg", ...; "unknown". */
const char *image_format_name(enum image_format format);
/* By the first bytes. */
enum image_format image_sniff(const uint8_t *bytes, size_t length);

/* Decodes to upright RGB or gray. `shorter_side` > 0 allows decoding at a reduced JPEG scale whose shorter side is still at
 * least that long. *info is filled as far as the header was understood, also on failure. HWGQ_ERROR_UNSUPPORTED: not an image
 * type that is read here. HWGQ_ERROR_FORMAT: damaged. HWGQ_ERROR_LIMIT: over `limits`. */
enum hwgq_status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shorter_side,
                              struct image *image, struct image_info *info, struct hwgq_error *error);
void image_release(struct image *image);

/* Resizes (area average when shrinking, bilinear when growing, integers throughout), crops and orders channels as the model
 * says, into `pixels`: shape.height * shape.width * shape.channels bytes, HWC. */
enum hwgq_status image_preprocess(const struct image *image, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                                  uint8_t *pixels, struct hwgq_error *error);
/* The shorter side that image_preprocess will resize to: what to pass to image_decode. */
int image_shorter_side(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape);

#endif
