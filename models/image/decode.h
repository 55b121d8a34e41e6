/* Decoders of single formats, behind image_decode and image_prepare, and what they share. Internal to models/image. */
#ifndef IMAGE_DECODE_H
#define IMAGE_DECODE_H

#include "models/image/image.h"

/* ---- where rows go ------------------------------------------------------------------------------------------------------- */

enum { IMAGE_EIGHTHS = 8 };

/* Of the rows that follow, as stored: before orientation. */
struct image_frame {
  int width, height, channels; /* 1: gray, 3: RGB */
  int orientation;             /* EXIF: 1 to 8; 0: not stated */
  /* Reduced by the decoder: each pixel stands for IMAGE_EIGHTHS / eighths of the picture's along both axes, the last ones of an
   * axis maybe for less; width is full_width * eighths / IMAGE_EIGHTHS, rounded up, and so is height. */
  int full_width, full_height, eighths;
};

/* Takes every row of one picture from the top. */
struct image_sink {
  enum hwgq_status (*begin)(struct image_sink *sink, const struct image_frame *frame, struct hwgq_error *error);
  /* `count` rows without gaps between them; the last row of the frame ends the picture */
  void (*rows)(struct image_sink *sink, const uint8_t *rows, int count);
};

/* ---- one decode ---------------------------------------------------------------------------------------------------------- */

struct image_job {
  const uint8_t *bytes;
  size_t length;
  const struct image_limits *limits;
  int shorter_side; /* 0: full size */
  struct image_sink *sink;
  bool measure;
  struct image_info *info;
  struct hwgq_error *error;
  uint64_t sink_ns;   /* with measure: time that the sink took */
  uint64_t waited_ns; /* for what was granted */
  uint64_t granted;   /* bytes taken from limits->budget; image.c gives them back */
};

/* Each as image_decode, for bytes that image_sniff told to be of that format. */
enum hwgq_status jpeg_decode(struct image_job *job);
enum hwgq_status png_decode(struct image_job *job);
enum hwgq_status webp_decode(struct image_job *job);

/* To be called in this order, once each, before anything is allocated in proportion to the picture. */

/* Sets width and height of *job->info, upright, and refuses too many pixels. Sides are as stored. */
enum hwgq_status image_check_size(struct image_job *job, uint32_t width, uint32_t height, int orientation);
/* `bytes` is what decoding will take at most beside the file itself. `kind`: "a progressive JPEG", for the message. */
enum hwgq_status image_check_memory(struct image_job *job, uint64_t bytes, const char *kind);
/* Between rows or parts of the file. */
enum hwgq_status image_check_time(const struct image_job *job);

enum hwgq_status image_begin(struct image_job *job, const struct image_frame *frame);
void image_rows(struct image_job *job, const uint8_t *rows, int count);
/* Rows of `row_bytes` to collect before they are handed on: few enough to stay in the cache, at least 1, at most `height`. */
int image_strip_rows(size_t row_bytes, int height);

/* ---- lossless WebP (vp8l.c) ---------------------------------------------------------------------------------------------- */

/* *bytes: what libwebp takes at most for the Huffman codes and the inner images of VP8L data, from behind their size on.
 * `width` and `height`: of the picture. HWGQ_ERROR_FORMAT: damaged; HWGQ_ERROR_LIMIT: the deadline. */
enum hwgq_status vp8l_code_bytes(const struct image_job *job, const uint8_t *data, size_t length, uint32_t width,
                                 uint32_t height, uint64_t *bytes);

/* ---- resizing (resize.c) ------------------------------------------------------------------------------------------------- */

struct image_resizer;

/* A sink that does the work of image_preprocess on rows. The row that completes the picture completes `pixels`. What the
 * arguments point to must stay until then. */
enum hwgq_status image_resizer_create(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, uint8_t *pixels,
                                      struct image_resizer **resizer, struct hwgq_error *error);
struct image_sink *image_resizer_sink(struct image_resizer *resizer);
void image_resizer_destroy(struct image_resizer *resizer);
/* It takes 9 bytes for each sample of a stored row, which the decoders count in. */

/* ---- EXIF (exif.c) ------------------------------------------------------------------------------------------------------- */

/* Orientation (1 to 8) out of a TIFF structure, with or without "Exif\0\0" in front: the data of an APP1 segment, of PNG's eXIf
 * or WebP's EXIF chunk. 0 when it is something else or states none. */
int exif_orientation(const uint8_t *data, size_t length);
/* What to do with stored rows and columns to see the picture upright: first flip, then exchange rows and columns. */
struct exif_turn {
  bool flip_x, flip_y, swap;
};
struct exif_turn exif_turn_of(int orientation);
/* Turns the pixels so that row 0 is the visual top. Replaces image->pixels. */
enum hwgq_status exif_orient(struct image *image, int orientation, struct hwgq_error *error);

#endif
