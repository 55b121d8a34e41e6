/* JPEG through libjpeg-turbo. JDCT_ISLOW and fancy upsampling give the same bits in its scalar and SIMD versions.
 *
 * What counts as damage: libjpeg calls many things a warning and goes on with gray for what is missing. A viewer wants that; a
 * classifier would answer for a picture that nobody took. So a warning about the picture's data is an error here. Tolerated are
 * warnings that leave the picture whole: bytes between segments, an odd JFIF version, an unknown Adobe transform, a bad color
 * profile, and a missing end marker after the only scan (if the scan itself were short, another warning would tell).
 *
 * Memory: at most IMAGE_DECODE_FIXED plus 8 bytes per pixel inside libjpeg (coefficients of a progressive file, 4 components of
 * 2 bytes) plus 3 bytes per decoded pixel, twice when the image has to be turned, which is after libjpeg's have been freed. */
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "models/image/decode.h"

struct decoder {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr messages;
  struct jpeg_progress_mgr progress;
  jmp_buf escape;
  const struct image_limits *limits;
  struct image image; /* pixels are freed by jpeg_decode when something fails */
  uint8_t *row;       /* one row of CMYK */
  int orientation;    /* 0: unknown */
  bool single_scan;   /* known after the header */
  enum hwgq_status status;
  struct hwgq_error *error;
};

static void escape(struct decoder *decoder, enum hwgq_status status, const char *message) {
  decoder->status = hwgq_fail(decoder->error, status, "%s", message);
  longjmp(decoder->escape, 1);
}

static enum hwgq_status status_of(int code) {
  switch (code) {
  case JERR_OUT_OF_MEMORY:
    return HWGQ_ERROR_MEMORY;
  case JERR_NO_BACKING_STORE: /* over max_memory_to_use */
  case JERR_IMAGE_TOO_BIG:
  case JERR_WIDTH_OVERFLOW:
    return HWGQ_ERROR_LIMIT;
  case JERR_SOF_UNSUPPORTED:
  case JERR_BAD_PRECISION:
  case JERR_CONVERSION_NOTIMPL:
  case JERR_ARITH_NOTIMPL:
  case JERR_NOT_COMPILED:
    return HWGQ_ERROR_UNSUPPORTED;
  default:
    return HWGQ_ERROR_FORMAT;
  }
}

static void fail_with_message(j_common_ptr common) {
  struct decoder *decoder = common->client_data;
  char reason[JMSG_LENGTH_MAX], message[JMSG_LENGTH_MAX + 64];
  enum hwgq_status status = status_of(common->err->msg_code);
  common->err->format_message(common, reason);
  const char *kind = status == HWGQ_ERROR_UNSUPPORTED ? "a kind of JPEG that cannot be read here"
                     : status == HWGQ_ERROR_FORMAT    ? "damaged JPEG"
                                                      : "JPEG";
  snprintf(message, sizeof message, "%s: %s", kind, reason);
  escape(decoder, status, message);
}

static void take_message(j_common_ptr common, int level) {
  struct decoder *decoder = common->client_data;
  if (level >= 0) return; /* trace output */
  switch (common->err->msg_code) {
  case JWRN_EXTRANEOUS_DATA:
  case JWRN_JFIF_MAJOR:
  case JWRN_ADOBE_XFORM:
  case JWRN_BOGUS_ICC:
    return;
  case JWRN_JPEG_EOF:
    if (decoder->single_scan) return;
    escape(decoder, HWGQ_ERROR_FORMAT, "truncated JPEG: the file ends before the picture does");
    return;
  case JWRN_HIT_MARKER:
    escape(decoder, HWGQ_ERROR_FORMAT, "truncated or damaged JPEG: the picture's data end too early");
    return;
  default:
    fail_with_message(common);
  }
}

static void ignore_output(j_common_ptr common) {
  (void)common;
}

/* Called often while scans are read. */
static void check_scans(j_common_ptr common) {
  struct decoder *decoder = common->client_data;
  if (decoder->jpeg.input_scan_number <= decoder->limits->max_scans) return;
  char message[96];
  snprintf(message, sizeof message, "JPEG with more than %d scans", decoder->limits->max_scans);
  escape(decoder, HWGQ_ERROR_LIMIT, message);
}

/* An APP1 segment, read where it lies: the whole file is the source's buffer. libjpeg's own saving of markers walks the list of
 * the saved ones for each new one, which many empty segments turn into minutes. */
static boolean read_app1(j_decompress_ptr jpeg) {
  struct decoder *decoder = jpeg->client_data;
  struct jpeg_source_mgr *source = jpeg->src;
  size_t left = source->bytes_in_buffer,
         length = left < 2 ? 0 : (size_t)(source->next_input_byte[0] << 8 | source->next_input_byte[1]);
  if (left < 2 || length > left) escape(decoder, HWGQ_ERROR_FORMAT, "truncated JPEG: the file ends before the picture does");
  if (length < 2) escape(decoder, HWGQ_ERROR_FORMAT, "damaged JPEG: an APP1 segment shorter than its own length field");
  if (decoder->orientation == 0) decoder->orientation = exif_orientation(source->next_input_byte + 2, length - 2);
  source->next_input_byte += length;
  source->bytes_in_buffer -= length;
  return TRUE;
}

static void read_header(struct decoder *decoder, struct image_info *info) {
  struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
  jpeg_set_marker_processor(jpeg, JPEG_APP0 + 1, read_app1);
  jpeg_read_header(jpeg, TRUE);
  bool swap = decoder->orientation >= 5;
  info->width = (int)(swap ? jpeg->image_height : jpeg->image_width);
  info->height = (int)(swap ? jpeg->image_width : jpeg->image_height);
  uint64_t pixels = (uint64_t)jpeg->image_width * jpeg->image_height;
  if (pixels > decoder->limits->max_pixels) {
    char message[128];
    snprintf(message, sizeof message, "image of %dx%d pixels: more than the %llu that are allowed", info->width, info->height,
             (unsigned long long)decoder->limits->max_pixels);
    escape(decoder, HWGQ_ERROR_LIMIT, message);
  }
  jpeg->mem->max_memory_to_use = (long)(IMAGE_DECODE_FIXED + 8 * pixels);
  decoder->single_scan = !jpeg_has_multiple_scans(jpeg);
}

/* Sets the smallest of the scales 1/8 to 8/8 that leaves the shorter side at least `shorter_side` long. */
static void choose_scale(struct jpeg_decompress_struct *jpeg, int shorter_side) {
  jpeg->scale_denom = 8;
  for (jpeg->scale_num = shorter_side > 0 ? 1 : 8; jpeg->scale_num < 8; jpeg->scale_num++) {
    jpeg_calc_output_dimensions(jpeg);
    JDIMENSION shorter = jpeg->output_width < jpeg->output_height ? jpeg->output_width : jpeg->output_height;
    if (shorter >= (JDIMENSION)shorter_side) break;
  }
}

/* CMYK without a color profile: light that neither the ink nor the black absorbs. Adobe's files store the light that is left
 * instead of the ink. */
static void cmyk_to_rgb(const uint8_t *cmyk, size_t width, bool inverted, uint8_t *rgb) {
  for (size_t x = 0; x < width; x++, cmyk += 4, rgb += 3) {
    unsigned black = inverted ? cmyk[3] : 255u - cmyk[3];
    for (int c = 0; c < 3; c++) {
      unsigned light = inverted ? cmyk[c] : 255u - cmyk[c];
      rgb[c] = (uint8_t)((light * black + 127) / 255);
    }
  }
}

static void read_pixels(struct decoder *decoder, int shorter_side) {
  struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
  bool gray = jpeg->jpeg_color_space == JCS_GRAYSCALE;
  bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
  jpeg->out_color_space = gray ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg->do_fancy_upsampling = TRUE;
  jpeg->do_block_smoothing = FALSE; /* it would invent detail for progressive files whose last scans are missing */
  choose_scale(jpeg, shorter_side);
  jpeg_start_decompress(jpeg);
  size_t width = jpeg->output_width, stride = width * (gray ? 1 : 3);
  decoder->image = (struct image){(int)width, (int)jpeg->output_height, gray ? 1 : 3, NULL};
  decoder->image.pixels = malloc(stride * jpeg->output_height);
  decoder->row = cmyk ? malloc(width * 4) : NULL;
  if (!decoder->image.pixels || (cmyk && !decoder->row)) escape(decoder, HWGQ_ERROR_MEMORY, "no memory for the image's pixels");
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t *pixels = decoder->image.pixels + jpeg->output_scanline * stride;
    JSAMPROW row = cmyk ? decoder->row : pixels;
    jpeg_read_scanlines(jpeg, &row, 1);
    if (cmyk) cmyk_to_rgb(row, width, jpeg->saw_Adobe_marker, pixels);
  }
}

/* All that may longjmp; what must survive a jump is in *decoder. */
static enum hwgq_status decode(struct decoder *decoder, const uint8_t *bytes, size_t length, int shorter_side,
                               struct image_info *info) {
  if (setjmp(decoder->escape)) return decoder->status;
  jpeg_create_decompress(&decoder->jpeg);
  jpeg_mem_src(&decoder->jpeg, bytes, length);
  decoder->jpeg.progress = &decoder->progress;
  read_header(decoder, info);
  read_pixels(decoder, shorter_side);
  return HWGQ_OK;
}

enum hwgq_status jpeg_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, int shorter_side,
                             struct image *image, struct image_info *info, struct hwgq_error *error) {
  struct decoder decoder = {.limits = limits, .error = error};
  decoder.jpeg.err = jpeg_std_error(&decoder.messages);
  decoder.jpeg.client_data = &decoder;
  decoder.messages.error_exit = fail_with_message;
  decoder.messages.emit_message = take_message;
  decoder.messages.output_message = ignore_output;
  decoder.progress.progress_monitor = check_scans;
  enum hwgq_status status = decode(&decoder, bytes, length, shorter_side, info);
  jpeg_destroy_decompress(&decoder.jpeg);
  free(decoder.row);
  if (!status) status = exif_orient(&decoder.image, decoder.orientation, error);
  if (status) {
    free(decoder.image.pixels);
  } else {
    *image = decoder.image;
  }
  return status;
}
