/* From the bytes of an image file to the pixels that a network takes. One implementation for trainer, tool and daemon.
 * The same bytes give the same pixels everywhere: JDCT_ISLOW decoding, integer resizing.
 *
 * Formats, told apart by their first bytes, never by a name or a type:
 *   JPEG  baseline and progressive; gray, YCbCr, RGB, CMYK, YCCK
 *   PNG   every kind: gray, color, palette, alpha, tRNS, 1 to 16 bits, interlaced. Of 16 bits the high byte counts. Of an
 *         animated one the default picture.
 *   WebP  lossy, lossless, alpha; of an animated one the first frame
 * EXIF orientation is obeyed in all of them (APP1, eXIf, EXIF). Transparency shows white, as on most pages. Color profiles and
 * gamma are ignored.
 *
 * A picture whose file is damaged or cut off is refused; only what lies behind the picture (an end marker,
 * metadata) may be missing or wrong.
 *
 * Memory and time are bounded before they are spent. JPEG, PNG and what is done with their rows take memory in proportion to
 * one row, whatever the height: rows are resized as they are decoded. What has to be kept whole (the coefficients of a
 * progressive JPEG, an interlaced PNG, a WebP and the codes of a lossless one) is computed from the header and taken from a
 * budget that concurrent decodes share (budget.h) or refused. Only headers and picture data are read: compressed texts and
 * profiles are never unpacked. */
#ifndef IMAGE_H
#define IMAGE_H

#include "engine/hwgq.h"

enum image_format { IMAGE_UNKNOWN, IMAGE_JPEG, IMAGE_PNG, IMAGE_WEBP };

/* 8-bit pixels, HWC, 3 channels (RGB) or 1 (gray); rows follow each other without gaps. */
struct image {
  int width, height, channels;
  uint8_t *pixels; /* owned; image_release frees it */
};

struct image_budget;

struct image_limits {
  uint64_t max_pixels; /* width * height as the header states it */
  int max_scans;       /* of a JPEG */
  uint64_t max_memory; /* bytes that one decode may take; 0: any */
  /* CLOCK_MONOTONIC; 0: none. Kept to within some 0.3 s for a large WebP, 50 ms for others. Waiting for the budget ends there,
   * and what it took is then added. */
  uint64_t deadline_ns;
  struct image_budget *budget; /* shared by concurrent decodes; NULL: none */
  /* Asked while it waits for the budget, with `context`: whether the thread is needed elsewhere, so that it gives up. May be
   * NULL. */
  bool (*needed)(void *context);
  void *context;
};

/* What the file says of itself, before orientation and scaling are applied to the pixels: width and height are already as a
 * viewer would show them (EXIF orientation applied). */
struct image_info {
  enum image_format format;
  int width, height;
};

/* Parts of the time that one image_prepare took. */
struct image_times {
  uint64_t resize_ns;
  uint64_t waited_ns; /* for its part of the budget: nobody worked */
};

enum {
  IMAGE_SMALL_DECODE = 4 << 20, /* bytes: a decode that takes at most so much is not counted in the budget */
  IMAGE_MAX_SIDE = 1 << 20,     /* pixels: sums of a row or column of 8-bit pixels with their weights fit 32 bits */
};

#define IMAGE_LIMITS_DEFAULT ((struct image_limits){.max_pixels = 64u << 20, .max_scans = 64, .max_memory = 1u << 30})

/* "jpeg", "png", "webp"; "unknown". */
const char *image_format_name(enum image_format format);
/* By the first bytes. */
enum image_format image_sniff(const uint8_t *bytes, size_t length);

/* Decodes to upright RGB or gray, at full size. *info is filled as far as the header was understood, also on failure.
 * HWGQ_ERROR_UNSUPPORTED: not an image type that is read here. HWGQ_ERROR_FORMAT: damaged. HWGQ_ERROR_LIMIT: over `limits`.
 * HWGQ_ERROR_MEMORY: no memory, or the budget was taken until the deadline, or until `needed`. The result itself is not counted
 * in limits and budget. */
enum hwgq_status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, struct image *image,
                              struct image_info *info, struct hwgq_error *error);
void image_release(struct image *image);

/* Resizes (area average when shrinking, bilinear when growing, integers throughout), crops and orders channels as the model
 * says, into `pixels`: shape.height * shape.width * shape.channels bytes, HWC. */
enum hwgq_status image_preprocess(const struct image *image, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                                  uint8_t *pixels, struct hwgq_error *error);
/* The shorter side that image_preprocess will resize to. */
int image_shorter_side(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape);

/* image_decode and image_preprocess in one pass over the rows, without the whole image in memory. *times (NULL: not
 * measured) is filled also on failure. Errors are those of both.
 *
 * Tolerance: the pixels are those of the two functions, bit for bit, except when a JPEG's shorter side is at least 6 times
 * image_shorter_side. Then it is decoded at 1/2, 1/4 or 1/8, to at least 3 times the size that it is resized to. A photograph's
 * pixels then differ by at most 1.25 of 255 levels on average and by at most 32 each (measured on the photographs of
 * tests/unit/test_image_limits.c: 1.04, 22); twice the size instead of 3 times gave 2.0 and 30, and another class for one of
 * eight photographs. */
enum hwgq_status image_prepare(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                               const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, uint8_t *pixels,
                               struct image_info *info, struct image_times *times, struct hwgq_error *error);

#endif
