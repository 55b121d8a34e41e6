/* Image files for tests: fixtures, PNG files made chunk by chunk, and what must hold of every decode. */
#ifndef IMAGE_FILES_H
#define IMAGE_FILES_H

#include "models/image/image.h"
#include "tests/support/fuzz.h"

/* tests/images/NAME; aborts when it is missing. malloc'ed. */
uint8_t *image_file(const char *name, size_t *length);

/* The checksum of a PNG chunk: CRC-32 (ISO 3309). */
uint32_t image_crc32(const uint8_t *bytes, size_t length);
/* Appends a chunk with its checksum; a signature when *buffer is empty. */
void image_png_chunk(struct fuzz_buffer *buffer, const char *type, const void *data, size_t length);
void image_png_header(struct fuzz_buffer *buffer, uint32_t width, uint32_t height, int bits, int color_type, bool interlaced);
/* Makes the checksums of a PNG right, as far as its chunks can be followed. */
void image_png_repair(struct fuzz_buffer *buffer);

/* Seed number `index` of a list of fixtures that ends with NULL. */
bool image_seed(const char *const *names, int index, struct fuzz_buffer *buffer);
/* Mostly single bytes of header or data; sometimes anything. */
void image_mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other);
/* A fuzz target's check: decodes in both ways, with small limits. Whatever is accepted must have the size that the header
 * states, and image_prepare must give what image_decode and image_preprocess give. */
const char *image_check(const uint8_t *bytes, size_t length, bool *accepted);

#endif
