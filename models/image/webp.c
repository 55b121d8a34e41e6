/* WebP (developers.google.com/speed/webp/docs/riff_container) through libwebp. The container is read here: it says where the
 * picture (the first frame of an animated one) and the EXIF data are, and libwebp gets the picture's chunks alone.
 *
 * Memory: libwebp writes the whole picture (3 bytes a pixel, 4 with alpha), and keeps 4 more for lossless ones; measured: 3.1
 * bytes a pixel for lossy pictures of 9 million, 7.0 and 8.0 for lossless ones without and with alpha. What Huffman codes take
 * is not in proportion to the picture: vp8l.c counts them. */
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

#include "models/image/decode.h"

enum {
  RIFF_HEADER = 12,
  CHUNK_HEADER = 8,
  FRAME_HEADER = 16,     /* of an ANMF chunk */
  PART_BYTES = 64 << 10, /* of the file, that libwebp gets at a time; time is checked in between */
  LOSSLESS_HEADER = 5,   /* of a VP8L chunk's data: signature and size */
  ALPHA_HEADER = 1,      /* of an ALPH chunk's data: method and filter */
  WEBP_FIXED = 2 << 20,  /* tables */
  WEBP_PER_COLUMN = 256, /* rows of blocks, upsampling, resizing */
};

/* Where the picture is. */
struct webp {
  const uint8_t *picture; /* [ALPH] VP8 or VP8L, to the end of that chunk */
  size_t picture_bytes;
  const uint8_t *exif; /* NULL: none */
  size_t exif_bytes;
  bool whole;    /* the picture's chunks are there to their end */
  bool extended; /* the file states a canvas */
  bool animated; /* the picture is a frame on the canvas */
  uint32_t canvas_width, canvas_height;
  uint32_t left, top, width, height; /* of the frame, as its header states */
};

struct chunk {
  const uint8_t *start, *data;
  size_t length; /* of data, as far as the file goes */
  bool whole;
  size_t next; /* with padding */
};

static uint32_t read_24(const uint8_t *b) {
  return (uint32_t)(b[0] | b[1] << 8 | b[2] << 16);
}

static uint32_t read_32(const uint8_t *b) {
  return read_24(b) | (uint32_t)b[3] << 24;
}

static bool read_chunk(const uint8_t *bytes, size_t length, size_t at, struct chunk *chunk) {
  if (at >= length || length - at < CHUNK_HEADER) return false;
  size_t stated = read_32(bytes + at + 4), left = length - at - CHUNK_HEADER;
  chunk->start = bytes + at;
  chunk->data = chunk->start + CHUNK_HEADER;
  chunk->whole = stated <= left;
  chunk->length = chunk->whole ? stated : left;
  chunk->next = chunk->whole ? at + CHUNK_HEADER + stated + (stated & 1) : length;
  return true;
}

static bool is_type(const struct chunk *chunk, const char *type) {
  return !memcmp(chunk->start, type, 4);
}

/* The first picture among the chunks of a file or a frame. An ALPH chunk in front belongs to it. */
static void take_picture(const struct chunk *chunk, const uint8_t **alpha, struct webp *webp) {
  if (webp->picture) return;
  if (is_type(chunk, "ALPH")) *alpha = chunk->start;
  if (!is_type(chunk, "VP8 ") && !is_type(chunk, "VP8L")) return;
  webp->picture = *alpha && is_type(chunk, "VP8 ") ? *alpha : chunk->start;
  webp->picture_bytes = (size_t)(chunk->data + chunk->length - webp->picture);
  webp->whole = chunk->whole;
}

static void take_frame(const struct chunk *frame, struct webp *webp) {
  const uint8_t *alpha = NULL, *header = frame->data;
  struct chunk chunk;
  if (webp->picture || frame->length < FRAME_HEADER) return;
  webp->left = 2 * read_24(header);
  webp->top = 2 * read_24(header + 3);
  webp->width = read_24(header + 6) + 1;
  webp->height = read_24(header + 9) + 1;
  webp->animated = true;
  for (size_t at = FRAME_HEADER; read_chunk(frame->data, frame->length, at, &chunk); at = chunk.next)
    take_picture(&chunk, &alpha, webp);
}

/* Chunks of other kinds are stepped over. */
static void find_parts(const uint8_t *bytes, size_t length, struct webp *webp) {
  size_t stated = (size_t)read_32(bytes + 4) + 8;
  const uint8_t *alpha = NULL;
  struct chunk chunk;
  if (stated < length) length = stated;
  for (size_t at = RIFF_HEADER; read_chunk(bytes, length, at, &chunk); at = chunk.next) {
    if (is_type(&chunk, "VP8X") && chunk.length >= 10 && !webp->extended) {
      webp->extended = true;
      webp->canvas_width = read_24(chunk.data + 4) + 1;
      webp->canvas_height = read_24(chunk.data + 7) + 1;
    } else if (is_type(&chunk, "EXIF") && chunk.whole && !webp->exif) {
      webp->exif = chunk.data;
      webp->exif_bytes = chunk.length;
    } else if (is_type(&chunk, "ANMF")) {
      take_frame(&chunk, webp);
    } else {
      take_picture(&chunk, &alpha, webp);
    }
  }
}

struct decoder {
  struct image_job *job;
  struct webp webp;
  WebPDecoderConfig config;
  struct image_frame frame;
  int stored; /* bytes per pixel that libwebp writes */
};

static enum hwgq_status fail(const struct decoder *decoder, VP8StatusCode code) {
  struct hwgq_error *error = decoder->job->error;
  switch (code) {
  case VP8_STATUS_OUT_OF_MEMORY:
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to decode a WebP");
  case VP8_STATUS_NOT_ENOUGH_DATA:
  case VP8_STATUS_SUSPENDED:
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "truncated WebP: the file ends before the picture does");
  case VP8_STATUS_UNSUPPORTED_FEATURE:
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "a kind of WebP that cannot be read here");
  default:
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "damaged WebP");
  }
}

/* The frame of an animated file must have the size that its header states and lie within the canvas; any other picture must
 * have the size of the canvas, where one is stated. */
static bool sizes_agree(const struct webp *webp, uint32_t width, uint32_t height) {
  if (webp->animated) {
    return webp->extended && width == webp->width && height == webp->height && webp->left <= webp->canvas_width &&
           width <= webp->canvas_width - webp->left && webp->top <= webp->canvas_height &&
           height <= webp->canvas_height - webp->top;
  }
  return !webp->extended || (width == webp->canvas_width && height == webp->canvas_height);
}

/* Of a lossless picture, or of the alpha of a lossy one where that is compressed: its method is 1. */
static enum hwgq_status count_codes(const struct decoder *decoder, uint64_t *bytes) {
  const WebPBitstreamFeatures *features = &decoder->config.input;
  struct chunk chunk;
  *bytes = 0;
  if (!read_chunk(decoder->webp.picture, decoder->webp.picture_bytes, 0, &chunk)) return HWGQ_OK;
  bool lossless = is_type(&chunk, "VP8L"), alpha = is_type(&chunk, "ALPH") && chunk.length > 0 && (chunk.data[0] & 3) == 1;
  size_t header = lossless ? LOSSLESS_HEADER : ALPHA_HEADER;
  if ((!lossless && !alpha) || chunk.length < header) return HWGQ_OK;
  return vp8l_code_bytes(decoder->job, chunk.data + header, chunk.length - header, (uint32_t)features->width,
                         (uint32_t)features->height, bytes);
}

static enum hwgq_status read_header(struct decoder *decoder) {
  struct image_job *job = decoder->job;
  struct webp *webp = &decoder->webp;
  const WebPBitstreamFeatures *features = &decoder->config.input;
  find_parts(job->bytes, job->length, webp);
  int orientation = webp->exif ? exif_orientation(webp->exif, webp->exif_bytes) : 0;
  if (webp->extended) { /* before the picture is looked for: a large canvas is refused whatever it holds */
    enum hwgq_status status = image_check_size(job, webp->canvas_width, webp->canvas_height, orientation);
    if (status) return status;
  }
  if (!webp->picture) return fail(decoder, VP8_STATUS_NOT_ENOUGH_DATA);
  VP8StatusCode code = WebPGetFeatures(webp->picture, webp->picture_bytes, &decoder->config.input);
  if (code) return fail(decoder, code);
  uint32_t width = (uint32_t)features->width, height = (uint32_t)features->height;
  if (!webp->extended) {
    webp->canvas_width = width;
    webp->canvas_height = height;
    enum hwgq_status status = image_check_size(job, width, height, orientation);
    if (status) return status;
  }
  if (!sizes_agree(webp, width, height))
    return hwgq_fail(job->error, HWGQ_ERROR_FORMAT, "damaged WebP: its headers state different sizes");
  decoder->frame = (struct image_frame){.width = (int)webp->canvas_width,
                                        .height = (int)webp->canvas_height,
                                        .channels = 3,
                                        .orientation = orientation,
                                        .full_width = (int)webp->canvas_width,
                                        .full_height = (int)webp->canvas_height,
                                        .eighths = IMAGE_EIGHTHS};
  if (!webp->whole) return fail(decoder, VP8_STATUS_NOT_ENOUGH_DATA);
  decoder->stored = features->has_alpha ? 4 : 3;
  /* 1: lossy. Alpha of a lossy picture is a plane of its own, compressed without loss. */
  unsigned inside = features->format != 1 ? 4 : features->has_alpha ? 6 : 0;
  uint64_t bytes;
  enum hwgq_status status = count_codes(decoder, &bytes);
  if (status) return status;
  bytes += WEBP_FIXED + (uint64_t)WEBP_PER_COLUMN * webp->canvas_width;
  bytes += (uint64_t)width * height * ((unsigned)decoder->stored + inside);
  return image_check_memory(job, bytes, features->format == 1 ? "WebP" : "lossless WebP");
}

/* The file in growing parts, so that a header that libwebp reads again with each does not cost the square of its length. */
static enum hwgq_status read_picture(struct decoder *decoder) {
  const struct webp *webp = &decoder->webp;
  VP8StatusCode code = VP8_STATUS_SUSPENDED;
  decoder->config.output.colorspace = decoder->stored == 4 ? MODE_RGBA : MODE_RGB;
  WebPIDecoder *incremental = WebPIDecode(NULL, 0, &decoder->config);
  if (!incremental) return fail(decoder, VP8_STATUS_OUT_OF_MEMORY);
  enum hwgq_status status = HWGQ_OK;
  for (size_t given = 0; code == VP8_STATUS_SUSPENDED && given < webp->picture_bytes && !status;) {
    size_t part = given / 8 > PART_BYTES ? given / 8 : PART_BYTES;
    given = part < webp->picture_bytes - given ? given + part : webp->picture_bytes;
    code = WebPIUpdate(incremental, webp->picture, given);
    if (code == VP8_STATUS_OK || code == VP8_STATUS_SUSPENDED) status = image_check_time(decoder->job);
  }
  WebPIDelete(incremental);
  if (!status && code) status = fail(decoder, code);
  return status;
}

/* Transparency shows white, in place. */
static void blend_white(uint8_t *row, size_t pixels) {
  const uint8_t *from = row;
  for (size_t i = 0; i < pixels; i++, from += 4) {
    unsigned alpha = from[3], white = 255 * (255 - alpha) + 127;
    for (int c = 0; c < 3; c++) *row++ = (uint8_t)((from[c] * alpha + white) / 255);
  }
}

/* The whole picture; white around a frame that does not fill the canvas. */
static enum hwgq_status hand_on(struct decoder *decoder) {
  const struct webp *webp = &decoder->webp;
  const WebPRGBABuffer *picture = &decoder->config.output.u.RGBA;
  size_t width = (size_t)decoder->config.output.width, left = webp->animated ? 3 * (size_t)webp->left : 0;
  int top = webp->animated ? (int)webp->top : 0, height = decoder->config.output.height;
  size_t stride = 3 * (size_t)decoder->frame.width;
  int most = image_strip_rows(stride, decoder->frame.height);
  enum hwgq_status status = image_begin(decoder->job, &decoder->frame);
  if (status) return status;
  uint8_t *strip = malloc(stride * (size_t)most);
  if (!strip) return fail(decoder, VP8_STATUS_OUT_OF_MEMORY);
  for (int y = 0, used = 0; y < decoder->frame.height && !status; y++) {
    uint8_t *to = strip + (size_t)used * stride;
    if (width * 3 < stride || y < top || y - top >= height) memset(to, 255, stride);
    if (y >= top && y - top < height) {
      uint8_t *from = picture->rgba + (size_t)(y - top) * (size_t)picture->stride;
      if (decoder->stored == 4) blend_white(from, width);
      memcpy(to + left, from, 3 * width);
    }
    if (++used < most && y + 1 < decoder->frame.height) continue;
    status = image_check_time(decoder->job);
    if (!status) image_rows(decoder->job, strip, used);
    used = 0;
  }
  free(strip);
  return status;
}

enum hwgq_status webp_decode(struct image_job *job) {
  struct decoder decoder = {.job = job};
  if (!WebPInitDecoderConfig(&decoder.config))
    return hwgq_fail(job->error, HWGQ_ERROR_UNSUPPORTED, "libwebp has another version than the one built with");
  enum hwgq_status status = read_header(&decoder);
  if (!status) status = read_picture(&decoder);
  if (!status) status = hand_on(&decoder);
  WebPFreeDecBuffer(&decoder.config.output);
  return status;
}
