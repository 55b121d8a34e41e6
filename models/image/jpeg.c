/* JPEG through libjpeg-turbo. JDCT_ISLOW and fancy upsampling give the same bits in its scalar and SIMD versions.
 *
 * What counts as damage: libjpeg calls many things a warning and goes on with gray for what is missing. A viewer wants that; a
 * classifier would answer for a picture that nobody took. So a warning about the picture's data is an error here. Tolerated are
 * warnings that leave the picture whole: bytes between segments, an odd JFIF version, an unknown Adobe transform, a bad color
 * profile, and a missing end marker after the only scan (if the scan itself were short, another warning would tell).
 *
 * Memory: a baseline file takes JPEG_PER_COLUMN bytes for each pixel of a row, whatever its height. A file of several scans
 * (progressive or not) also has its coefficients in memory, 2 bytes each. libjpeg itself is held to that sum. */
#include <setjmp.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "models/image/decode.h"

enum {
  JPEG_FIXED = 1 << 20,  /* tables, pools, the strip */
  JPEG_PER_COLUMN = 160, /* measured: at most 120, CMYK with one row of inks to four of black; resizing included */
  REDUCED_LEAST = 3,     /* see image_prepare */
  CALLS_PER_LOOK = 4,    /* at the clock; a call is a row of pixels or of blocks */
};

struct decoder {
  struct jpeg_decompress_struct jpeg;
  struct jpeg_error_mgr messages;
  struct jpeg_progress_mgr progress;
  jmp_buf escape;
  struct image_job *job;
  uint8_t *strip;   /* rows to be handed on; freed by jpeg_decode */
  uint8_t *row;     /* one row of CMYK; the same */
  int orientation;  /* 0: unknown */
  bool single_scan; /* known after the header */
  unsigned calls;   /* of the progress monitor */
  enum hwgq_status status;
};

/* With the message written already. Returns when status is HWGQ_OK. */
static void escape_if(struct decoder *decoder, enum hwgq_status status) {
  if (!status) return;
  decoder->status = status;
  longjmp(decoder->escape, 1);
}

static void escape(struct decoder *decoder, enum hwgq_status status, const char *message) {
  escape_if(decoder, hwgq_fail(decoder->job->error, status, "%s", message));
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

/* Called for every row of blocks while scans are read into memory, and for every row of pixels. */
static void check_progress(j_common_ptr common) {
  struct decoder *decoder = common->client_data;
  int most = decoder->job->limits->max_scans;
  if (decoder->jpeg.input_scan_number > most) {
    escape_if(decoder, hwgq_fail(decoder->job->error, HWGQ_ERROR_LIMIT,
                                 "JPEG with more than %d scans; save it as a baseline JPEG", most));
  }
  if (++decoder->calls % CALLS_PER_LOOK == 0) escape_if(decoder, image_check_time(decoder->job));
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

/* What libjpeg keeps of a file whose picture comes in several scans. */
static uint64_t coefficient_bytes(const struct jpeg_decompress_struct *jpeg) {
  uint64_t bytes = 0;
  for (int i = 0; i < jpeg->num_components; i++) {
    const jpeg_component_info *component = &jpeg->comp_info[i];
    /* rounded up to whole groups of interleaved blocks, as libjpeg does */
    uint64_t across = (uint64_t)component->width_in_blocks + (uint64_t)component->h_samp_factor;
    uint64_t down = (uint64_t)component->height_in_blocks + (uint64_t)component->v_samp_factor;
    bytes += across * down * DCTSIZE2 * sizeof(JCOEF);
  }
  return bytes;
}

static void read_header(struct decoder *decoder) {
  struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
  jpeg_set_marker_processor(jpeg, JPEG_APP0 + 1, read_app1);
  jpeg_read_header(jpeg, TRUE);
  /* upright: an APP1 segment behind the first scan comes too late for the size */
  if (decoder->orientation == 0) decoder->orientation = 1;
  escape_if(decoder, image_check_size(decoder->job, jpeg->image_width, jpeg->image_height, decoder->orientation));
  decoder->single_scan = !jpeg_has_multiple_scans(jpeg);
  uint64_t bytes = JPEG_FIXED + (uint64_t)JPEG_PER_COLUMN * jpeg->image_width;
  if (!decoder->single_scan) bytes += coefficient_bytes(jpeg);
  escape_if(decoder, image_check_memory(decoder->job, bytes, decoder->single_scan ? "JPEG" : "progressive JPEG"));
  jpeg->mem->max_memory_to_use = (long)bytes;
}

/* Sets the smallest of the scales 1/8, 1/4, 1/2 and 1 that leaves the shorter side REDUCED_LEAST times as long as it will be
 * resized to. Other eighths take libjpeg-turbo longer than the full size. */
static void choose_scale(struct jpeg_decompress_struct *jpeg, int shorter_side) {
  jpeg->scale_denom = IMAGE_EIGHTHS;
  for (jpeg->scale_num = shorter_side > 0 ? 1 : IMAGE_EIGHTHS; jpeg->scale_num < IMAGE_EIGHTHS; jpeg->scale_num *= 2) {
    uint64_t shorter = jpeg->image_width < jpeg->image_height ? jpeg->image_width : jpeg->image_height;
    if (shorter * jpeg->scale_num >= (uint64_t)shorter_side * REDUCED_LEAST * IMAGE_EIGHTHS) break;
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

static void begin_rows(struct decoder *decoder) {
  const struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
  int channels = jpeg->out_color_space == JCS_GRAYSCALE ? 1 : 3;
  const struct image_frame frame = {.width = (int)jpeg->output_width,
                                    .height = (int)jpeg->output_height,
                                    .channels = channels,
                                    .orientation = decoder->orientation,
                                    .full_width = (int)jpeg->image_width,
                                    .full_height = (int)jpeg->image_height,
                                    .eighths = (int)jpeg->scale_num};
  size_t stride = (size_t)frame.width * (size_t)channels;
  escape_if(decoder, image_begin(decoder->job, &frame));
  decoder->strip = malloc(stride * (size_t)image_strip_rows(stride, frame.height));
  if (jpeg->out_color_space == JCS_CMYK) decoder->row = malloc((size_t)frame.width * 4);
  if (!decoder->strip || (jpeg->out_color_space == JCS_CMYK && !decoder->row))
    escape(decoder, HWGQ_ERROR_MEMORY, "no memory for rows of the image");
}

static void read_pixels(struct decoder *decoder) {
  struct jpeg_decompress_struct *jpeg = &decoder->jpeg;
  bool gray = jpeg->jpeg_color_space == JCS_GRAYSCALE;
  bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
  jpeg->out_color_space = gray ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
  jpeg->dct_method = JDCT_ISLOW;
  jpeg->do_fancy_upsampling = TRUE;
  jpeg->do_block_smoothing = FALSE; /* it would invent detail for progressive files whose last scans are missing */
  choose_scale(jpeg, decoder->job->shorter_side);
  jpeg_start_decompress(jpeg);
  begin_rows(decoder);
  size_t stride = (size_t)jpeg->output_width * (gray ? 1 : 3);
  int rows = image_strip_rows(stride, (int)jpeg->output_height), used = 0;
  while (jpeg->output_scanline < jpeg->output_height) {
    uint8_t *pixels = decoder->strip + (size_t)used * stride;
    JSAMPROW row = cmyk ? decoder->row : pixels;
    jpeg_read_scanlines(jpeg, &row, 1);
    if (cmyk) cmyk_to_rgb(row, jpeg->output_width, jpeg->saw_Adobe_marker, pixels);
    if (++used < rows && jpeg->output_scanline < jpeg->output_height) continue;
    image_rows(decoder->job, decoder->strip, used);
    used = 0;
  }
}

/* All that may longjmp; what must survive a jump is in *decoder. */
static enum hwgq_status decode(struct decoder *decoder) {
  if (setjmp(decoder->escape)) return decoder->status;
  jpeg_create_decompress(&decoder->jpeg);
  jpeg_mem_src(&decoder->jpeg, decoder->job->bytes, decoder->job->length);
  decoder->jpeg.progress = &decoder->progress;
  read_header(decoder);
  read_pixels(decoder);
  return HWGQ_OK;
}

enum hwgq_status jpeg_decode(struct image_job *job) {
  struct decoder decoder = {.job = job};
  decoder.jpeg.err = jpeg_std_error(&decoder.messages);
  decoder.jpeg.client_data = &decoder;
  decoder.messages.error_exit = fail_with_message;
  decoder.messages.emit_message = take_message;
  decoder.messages.output_message = ignore_output;
  decoder.progress.progress_monitor = check_progress;
  enum hwgq_status status = decode(&decoder);
  jpeg_destroy_decompress(&decoder.jpeg);
  free(decoder.row);
  free(decoder.strip);
  return status;
}
