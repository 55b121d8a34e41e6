/* PNG (ISO/IEC 15948) through libspng. It is shown only the chunks that make the picture (critical ones and tRNS): compressed
 * texts and color profiles, which may be bombs, are stepped over, and eXIf is read where it lies. Checksums of what is shown
 * are verified; a missing end chunk behind a complete picture is tolerated, as in a JPEG.
 *
 * Memory: PNG_PER_COLUMN bytes for each pixel of a row; an interlaced picture is complete only with its last pass, so all of it
 * is kept. */
#include <stdlib.h>
#include <string.h>

#include <spng.h>

#include "models/image/decode.h"

enum {
  PNG_FIXED = 1 << 18, /* inflate's window, libspng's buffers, the strip */
  PNG_PER_COLUMN = 48, /* two stored rows of up to 8 bytes, one of RGBA, and resizing; measured: at most 44.1 */
  CHUNK_OVERHEAD = 12, /* length, type; checksum */
  SIGNATURE_BYTES = 8,
};

static const uint8_t end_chunk[CHUNK_OVERHEAD] = {0, 0, 0, 0, 'I', 'E', 'N', 'D', 0xae, 0x42, 0x60, 0x82};

/* Hands libspng the signature and the chunks that it may see, one after the other. */
struct chunks {
  const uint8_t *bytes;
  size_t length;
  size_t next;          /* where the next chunk starts */
  const uint8_t *shown; /* what is left of the chunk being shown */
  size_t shown_bytes;
  bool ended; /* the end chunk was shown, or the file is cut off in a chunk that counts */
};

struct chunk {
  uint8_t type[4];
  const uint8_t *data;
  size_t length; /* of data, as far as the file goes */
  bool whole;    /* with its checksum */
  size_t next;
};

static uint32_t read_32(const uint8_t *b) {
  return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* The chunk at `at`; false when not even its header is there. */
static bool read_chunk(const uint8_t *bytes, size_t length, size_t at, struct chunk *chunk) {
  if (length - at < 8) return false;
  const uint8_t *b = bytes + at;
  size_t stated = read_32(b), left = length - at;
  memcpy(chunk->type, b + 4, 4);
  chunk->data = b + 8;
  chunk->whole = stated + CHUNK_OVERHEAD <= left;
  chunk->length = stated <= left - 8 ? stated : left - 8;
  chunk->next = chunk->whole ? at + stated + CHUNK_OVERHEAD : length;
  return true;
}

static bool is_type(const struct chunk *chunk, const char *type) {
  return !memcmp(chunk->type, type, 4);
}

/* Critical chunks, also unknown ones (a capital first letter), which libspng refuses. */
static bool counts(const struct chunk *chunk) {
  return (chunk->type[0] & 0x20) == 0 || is_type(chunk, "tRNS");
}

static void show_next(struct chunks *chunks) {
  struct chunk chunk;
  while (read_chunk(chunks->bytes, chunks->length, chunks->next, &chunk)) {
    size_t start = chunks->next;
    chunks->next = chunk.next;
    if (!counts(&chunk)) continue;
    if (is_type(&chunk, "IEND") && !chunk.whole) break;
    chunks->shown = chunks->bytes + start;
    chunks->shown_bytes = chunk.next - start;
    chunks->ended = !chunk.whole || is_type(&chunk, "IEND");
    return;
  }
  chunks->shown = end_chunk;
  chunks->shown_bytes = sizeof end_chunk;
  chunks->ended = true;
}

static int read_shown(spng_ctx *context, void *user, void *to, size_t length) {
  struct chunks *chunks = user;
  uint8_t *out = to;
  (void)context;
  while (length > 0) {
    if (chunks->shown_bytes == 0) {
      if (chunks->ended) return SPNG_IO_EOF;
      show_next(chunks);
    }
    size_t part = length < chunks->shown_bytes ? length : chunks->shown_bytes;
    memcpy(out, chunks->shown, part);
    out += part;
    length -= part;
    chunks->shown += part;
    chunks->shown_bytes -= part;
  }
  return 0;
}

/* eXIf may stand on either side of the picture's data. */
static int find_orientation(const uint8_t *bytes, size_t length) {
  struct chunk chunk;
  for (size_t at = SIGNATURE_BYTES; read_chunk(bytes, length, at, &chunk); at = chunk.next) {
    if (is_type(&chunk, "eXIf") && chunk.whole) return exif_orientation(chunk.data, chunk.length);
  }
  return 0;
}

struct decoder {
  struct image_job *job;
  spng_ctx *context;
  struct chunks chunks;
  struct spng_ihdr header;
  struct image_frame frame;
  int format, stored; /* what libspng is asked for, and its bytes per pixel */
  uint8_t *rows;      /* a strip, or all rows of an interlaced picture */
};

static enum hwgq_status fail(const struct decoder *decoder, int code) {
  struct hwgq_error *error = decoder->job->error;
  switch (code) {
  case SPNG_EMEM:
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to decode a PNG");
  case SPNG_IO_EOF:
  case SPNG_EOF:
  case SPNG_EIDAT_TOO_SHORT:
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "truncated PNG: the file ends before the picture does");
  case SPNG_ECHUNK_UNKNOWN_CRITICAL:
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "a kind of PNG that cannot be read here: %s", spng_strerror(code));
  default:
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "damaged PNG: %s", spng_strerror(code));
  }
}

/* Chooses what libspng converts to: gray for gray of up to 8 bits, else RGB, with alpha only where the file has any. */
static enum hwgq_status choose_format(struct decoder *decoder) {
  struct spng_trns trns;
  const struct spng_ihdr *header = &decoder->header;
  bool gray = header->color_type == SPNG_COLOR_TYPE_GRAYSCALE || header->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
  bool alpha = header->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA || header->color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
  int code = spng_get_trns(decoder->context, &trns);
  if (code && code != SPNG_ECHUNKAVAIL) return fail(decoder, code);
  if (!code) alpha = true;
  decoder->format = alpha ? SPNG_FMT_RGBA8 : gray && header->bit_depth <= 8 ? SPNG_FMT_G8 : SPNG_FMT_RGB8;
  decoder->stored = decoder->format == SPNG_FMT_RGBA8 ? 4 : decoder->format == SPNG_FMT_G8 ? 1 : 3;
  decoder->frame.channels = gray ? 1 : 3;
  return HWGQ_OK;
}

static enum hwgq_status read_header(struct decoder *decoder) {
  struct image_job *job = decoder->job;
  const struct spng_ihdr *header = &decoder->header;
  int orientation = find_orientation(job->bytes, job->length);
  int code = spng_get_ihdr(decoder->context, &decoder->header);
  if (code == SPNG_EOVERFLOW) { /* rows that no computer can address; the header was read */
    enum hwgq_status refused = image_check_size(job, read_32(job->bytes + 16), read_32(job->bytes + 20), orientation);
    return refused ? refused : fail(decoder, code);
  }
  if (code) return fail(decoder, code);
  enum hwgq_status status = image_check_size(job, header->width, header->height, orientation);
  if (!status) status = choose_format(decoder);
  if (status) return status;
  decoder->frame.width = (int)header->width;
  decoder->frame.height = (int)header->height;
  decoder->frame.full_width = decoder->frame.width;
  decoder->frame.full_height = decoder->frame.height;
  decoder->frame.eighths = IMAGE_EIGHTHS;
  decoder->frame.orientation = orientation;
  uint64_t bytes = PNG_FIXED + (uint64_t)PNG_PER_COLUMN * header->width;
  if (header->interlace_method) bytes += (uint64_t)header->width * header->height * (unsigned)decoder->stored;
  return image_check_memory(job, bytes, header->interlace_method ? "interlaced PNG" : "PNG");
}

/* From libspng's pixels to those of the frame, in place. */
static void convert(const struct decoder *decoder, uint8_t *rows, size_t pixels) {
  int stored = decoder->stored, channels = decoder->frame.channels;
  const uint8_t *from = rows;
  uint8_t *to = rows;
  if (stored == channels) return;
  for (size_t i = 0; i < pixels; i++, from += stored, to += channels) {
    unsigned alpha = stored == 4 ? from[3] : 255;
    for (int c = 0; c < channels; c++) to[c] = (uint8_t)((from[c] * alpha + 255 * (255 - alpha) + 127) / 255);
  }
}

/* libspng returns SPNG_EOI with the last row. */
static enum hwgq_status read_strips(struct decoder *decoder) {
  size_t stride = (size_t)decoder->frame.width * (size_t)decoder->stored;
  int most = image_strip_rows(stride, decoder->frame.height), left = decoder->frame.height, code = 0;
  decoder->rows = malloc(stride * (size_t)most);
  if (!decoder->rows) return fail(decoder, SPNG_EMEM);
  while (left > 0) {
    enum hwgq_status status = image_check_time(decoder->job);
    if (status) return status;
    int count = left < most ? left : most;
    for (int i = 0; i < count; i++) {
      code = spng_decode_row(decoder->context, decoder->rows + (size_t)i * stride, stride);
      if (code && !(code == SPNG_EOI && i + 1 == left)) return fail(decoder, code);
    }
    convert(decoder, decoder->rows, (size_t)count * (size_t)decoder->frame.width);
    image_rows(decoder->job, decoder->rows, count);
    left -= count;
  }
  return HWGQ_OK;
}

static enum hwgq_status read_passes(struct decoder *decoder) {
  size_t stride = (size_t)decoder->frame.width * (size_t)decoder->stored;
  size_t pixels = (size_t)decoder->frame.width * (size_t)decoder->frame.height;
  struct spng_row_info row;
  int code = 0;
  decoder->rows = calloc((size_t)decoder->frame.height, stride);
  if (!decoder->rows) return fail(decoder, SPNG_EMEM);
  for (unsigned i = 0; code != SPNG_EOI; i++) {
    enum hwgq_status status = i % 16 ? HWGQ_OK : image_check_time(decoder->job);
    if (status) return status;
    code = spng_get_row_info(decoder->context, &row);
    if (!code) code = spng_decode_row(decoder->context, decoder->rows + (size_t)row.row_num * stride, stride);
    if (code && code != SPNG_EOI) return fail(decoder, code);
  }
  convert(decoder, decoder->rows, pixels);
  image_rows(decoder->job, decoder->rows, decoder->frame.height);
  return HWGQ_OK;
}

static enum hwgq_status decode(struct decoder *decoder) {
  enum hwgq_status status = read_header(decoder);
  if (status) return status;
  int flags = SPNG_DECODE_PROGRESSIVE | (decoder->stored == 4 ? SPNG_DECODE_TRNS : 0);
  int code = spng_decode_image(decoder->context, NULL, 0, decoder->format, flags);
  if (code) return fail(decoder, code);
  status = image_begin(decoder->job, &decoder->frame);
  if (!status) status = decoder->header.interlace_method ? read_passes(decoder) : read_strips(decoder);
  if (status) return status;
  /* what is left of the picture's data, for its checksum */
  code = spng_decode_chunks(decoder->context);
  return code ? fail(decoder, code) : HWGQ_OK;
}

enum hwgq_status png_decode(struct image_job *job) {
  struct decoder decoder = {.job = job,
                            .chunks = {.bytes = job->bytes,
                                       .length = job->length,
                                       .next = SIGNATURE_BYTES,
                                       .shown = job->bytes,
                                       .shown_bytes = SIGNATURE_BYTES}};
  decoder.context = spng_ctx_new(0);
  if (!decoder.context) return fail(&decoder, SPNG_EMEM);
  int code = spng_set_png_stream(decoder.context, read_shown, &decoder.chunks);
  enum hwgq_status status = code ? fail(&decoder, code) : decode(&decoder);
  spng_ctx_free(decoder.context);
  free(decoder.rows);
  return status;
}
