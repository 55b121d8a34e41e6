/* Decoders of single formats, behind image_decode. Internal to models/image. */
#ifndef IMAGE_DECODE_H
#define IMAGE_DECODE_H

#include "models/image/image.h"

/* As image_decode, for bytes that start as a JPEG does. */
enum hwgq_status jpeg_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shorter_side,
                             struct image *image, struct image_info *info, struct hwgq_error *error);

/* EXIF orientation (1 to 8) out of an APP1 segment's data; 0 when the segment is not EXIF or does not state one. */
int exif_orientation(const uint8_t *data, size_t length);
/* Turns the pixels so that row 0 is the visual top. Replaces image->pixels. */
enum hwgq_status exif_orient(struct image *image, int orientation, struct hwgq_error *error);

#endif
