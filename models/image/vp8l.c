/* What the Huffman codes of lossless WebP data cost, told before libwebp makes their tables
 * (developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification).
 *
 * A picture may have up to 65536 groups of five codes and say in an entropy image which block of pixels (from 4x4) uses which.
 * A group takes 20 bits of the file and 6 to 21 KB of memory. The entropy image follows the images that belong to the
 * transforms, all compressed; they are read here as far as that. No pixel is kept: copied pixels and those out of the color
 * cache repeat the literal ones or are 0, so the literal ones tell which groups are used.
 *
 * libwebp stores every group up to the last one used when those are at most SPARSE (later versions: fewer), else those used.
 * A group's tables are counted at the most that complete codes can take, which its own allocation is: for many codes of one
 * symbol that is twice of what is written, for other codes less. */
#include <string.h>

#include "models/image/decode.h"

enum { GREEN, RED, BLUE, ALPHA, DISTANCE, CODES };
enum { PREDICTOR, CROSS_COLOR, SUBTRACT_GREEN, COLOR_INDEXING };

enum {
  LITERALS = 256,
  LENGTHS = 24, /* prefixes of numbers of pixels to copy; behind the literals of green, in front of the color cache */
  DISTANCES = 40,
  MOST_CACHE_BITS = 11,
  MOST_SYMBOLS = LITERALS + LENGTHS + (1 << MOST_CACHE_BITS),
  LONGEST = 15,      /* bits of a symbol */
  CODE_LENGTHS = 19, /* symbols of the code that code lengths are stored in */
  GROUPS = 1 << 16,
  SPARSE = 1000,
  GROUP_BYTES = 640, /* beside the tables: 568 */
  /* Entries, of 4 bytes, of a group's tables; one more for each color of the cache. From 654 for green without a cache, three
   * of 630 and 410 for distances, as zlib's examples/enough.c finds for a first table of 8 bits; with a cache at most 2 more.
   */
  TABLE_ENTRIES = 656 + 3 * 630 + 410,
  PIXELS_PER_LOOK = 1 << 16, /* at the clock */
};

struct reader {
  const uint8_t *bytes;
  uint64_t at, end; /* bits; what is read beyond the end is 0 */
};

struct code {
  bool single; /* the only symbol takes no bits */
  uint16_t counts[LONGEST + 1];
  uint16_t symbols[MOST_SYMBOLS]; /* by length, then by value */
};

struct walk {
  const struct image_job *job;
  struct reader reader;
  struct code codes[CODES];
  uint64_t image_pixels; /* of transforms and entropy image */
  uint8_t used[GROUPS / 8];
  unsigned used_count, last; /* groups */
};

static unsigned read_bit(struct reader *reader) {
  uint64_t at = reader->at++;
  return at < reader->end ? reader->bytes[at / 8] >> at % 8 & 1u : 0;
}

static unsigned read_bits(struct reader *reader, unsigned count) {
  unsigned value = 0;
  for (unsigned i = 0; i < count; i++) value |= read_bit(reader) << i;
  return value;
}

static unsigned read_symbol(struct reader *reader, const struct code *code) {
  unsigned value = 0, first = 0, index = 0;
  if (code->single) return code->symbols[0];
  for (int length = 1; length <= LONGEST; length++) {
    value = value << 1 | read_bit(reader);
    first <<= 1;
    unsigned count = code->counts[length];
    if (value < first + count) return code->symbols[index + value - first];
    first += count;
    index += count;
  }
  return 0; /* never: codes are complete */
}

/* A length or distance. */
static unsigned read_number(struct reader *reader, unsigned prefix) {
  if (prefix < 4) return prefix + 1;
  unsigned extra = (prefix - 2) / 2;
  return ((2 + prefix % 2) << extra) + read_bits(reader, extra) + 1;
}

/* False unless the code is complete or has one symbol. */
static bool make_code(const uint8_t *lengths, unsigned symbols, struct code *code) {
  unsigned next[LONGEST + 2] = {0};
  int left = 1;
  memset(code->counts, 0, sizeof code->counts);
  for (unsigned s = 0; s < symbols; s++) code->counts[lengths[s]]++;
  code->counts[0] = 0;
  for (int length = 1; length <= LONGEST; length++) {
    next[length + 1] = next[length] + code->counts[length];
    left = 2 * left - code->counts[length];
    if (left < 0) return false;
  }
  code->single = next[LONGEST + 1] == 1;
  for (unsigned s = 0; s < symbols; s++) {
    if (lengths[s]) code->symbols[next[lengths[s]]++] = (uint16_t)s;
  }
  return left == 0 || code->single;
}

static bool read_lengths(struct reader *reader, unsigned symbols, uint8_t *lengths) {
  static const uint8_t order[CODE_LENGTHS] = {17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  uint8_t own[CODE_LENGTHS] = {0}, before = 8;
  struct code code;
  unsigned given = 4 + read_bits(reader, 4), most = symbols;
  for (unsigned i = 0; i < given; i++) own[order[i]] = (uint8_t)read_bits(reader, 3);
  if (!make_code(own, CODE_LENGTHS, &code)) return false;
  if (read_bit(reader)) most = 2 + read_bits(reader, 2 + 2 * read_bits(reader, 3));
  if (most > symbols) return false;
  for (unsigned s = 0; s < symbols && most > 0; most--) {
    unsigned length = read_symbol(reader, &code), repeat = 1;
    if (length == 16) repeat = 3 + read_bits(reader, 2);
    if (length == 17) repeat = 3 + read_bits(reader, 3);
    if (length == 18) repeat = 11 + read_bits(reader, 7);
    if (repeat > symbols - s) return false;
    if (length > 0 && length < 16) before = (uint8_t)length;
    memset(lengths + s, length <= 16 && length > 0 ? before : 0, repeat);
    s += repeat;
  }
  return true;
}

static bool read_code(struct reader *reader, unsigned symbols, struct code *code) {
  uint8_t lengths[MOST_SYMBOLS] = {0};
  if (!read_bit(reader)) return read_lengths(reader, symbols, lengths) && make_code(lengths, symbols, code);
  bool two = read_bit(reader);
  lengths[read_bits(reader, read_bit(reader) ? 8 : 1)] = 1;
  if (two) lengths[read_bits(reader, 8)] = 1;
  return make_code(lengths, symbols, code);
}

static bool read_cache_bits(struct reader *reader, unsigned *bits) {
  *bits = 0;
  if (!read_bit(reader)) return true;
  *bits = read_bits(reader, 4);
  return *bits >= 1 && *bits <= MOST_CACHE_BITS;
}

static enum hwgq_status damaged(const struct walk *walk) {
  if (walk->reader.at > walk->reader.end)
    return hwgq_fail(walk->job->error, HWGQ_ERROR_FORMAT, "truncated WebP: the file ends before the picture does");
  return hwgq_fail(walk->job->error, HWGQ_ERROR_FORMAT, "damaged WebP");
}

static void use_group(struct walk *walk, unsigned group) {
  uint8_t bit = (uint8_t)(1u << group % 8);
  walk->used_count += !(walk->used[group / 8] & bit);
  walk->used[group / 8] |= bit;
  if (group > walk->last) walk->last = group;
}

/* An image of a transform, or the entropy image. */
static enum hwgq_status walk_image(struct walk *walk, uint64_t pixels, bool entropy) {
  struct reader *reader = &walk->reader;
  unsigned cache_bits;
  uint64_t look = 0;
  if (!read_cache_bits(reader, &cache_bits)) return damaged(walk);
  for (int i = 0; i < CODES; i++) {
    unsigned symbols = i == DISTANCE ? DISTANCES : LITERALS;
    if (i == GREEN) symbols += LENGTHS + (cache_bits ? 1u << cache_bits : 0);
    if (!read_code(reader, symbols, &walk->codes[i])) return damaged(walk);
  }
  walk->image_pixels += pixels;
  for (uint64_t at = 0; at < pixels; at++) {
    unsigned green = read_symbol(reader, &walk->codes[GREEN]);
    if (green < LITERALS) {
      unsigned red = read_symbol(reader, &walk->codes[RED]);
      read_symbol(reader, &walk->codes[BLUE]);
      read_symbol(reader, &walk->codes[ALPHA]);
      if (entropy) use_group(walk, red << 8 | green);
    } else if (green < LITERALS + LENGTHS) {
      at += read_number(reader, green - LITERALS) - 1;
      read_number(reader, read_symbol(reader, &walk->codes[DISTANCE]));
      if (at >= pixels) return damaged(walk);
    }
    if (reader->at > reader->end) return damaged(walk);
    if (at < look) continue;
    enum hwgq_status status = image_check_time(walk->job);
    if (status) return status;
    look = at + PIXELS_PER_LOOK;
  }
  return HWGQ_OK;
}

/* An image with a pixel for each block of 1 << bits pixels along both axes. */
static enum hwgq_status walk_blocks(struct walk *walk, uint32_t width, uint32_t height, bool entropy) {
  unsigned bits = 2 + read_bits(&walk->reader, 3);
  uint64_t across = (width + (1u << bits) - 1) >> bits, down = (height + (1u << bits) - 1) >> bits;
  return walk_image(walk, across * down, entropy);
}

/* Of color indexing, which also puts up to 8 pixels into one. */
static enum hwgq_status walk_palette(struct walk *walk, uint32_t *width) {
  unsigned colors = 1 + read_bits(&walk->reader, 8), bits = colors > 16 ? 0 : colors > 4 ? 1 : colors > 2 ? 2 : 3;
  *width = (*width + (1u << bits) - 1) >> bits;
  return walk_image(walk, colors, false);
}

static enum hwgq_status walk_transforms(struct walk *walk, uint32_t *width, uint32_t height) {
  enum hwgq_status status = HWGQ_OK;
  for (unsigned seen = 0; !status && read_bit(&walk->reader);) {
    unsigned kind = read_bits(&walk->reader, 2);
    if (seen >> kind & 1) return damaged(walk);
    seen |= 1u << kind;
    if (kind == PREDICTOR || kind == CROSS_COLOR) status = walk_blocks(walk, *width, height, false);
    if (kind == COLOR_INDEXING) status = walk_palette(walk, width);
  }
  return status;
}

enum hwgq_status vp8l_code_bytes(const struct image_job *job, const uint8_t *data, size_t length, uint32_t width,
                                 uint32_t height, uint64_t *bytes) {
  struct walk walk = {.job = job, .reader = {.bytes = data, .end = 8 * (uint64_t)length}};
  unsigned cache_bits;
  enum hwgq_status status = walk_transforms(&walk, &width, height);
  if (status) return status;
  if (!read_cache_bits(&walk.reader, &cache_bits)) return damaged(&walk);
  use_group(&walk, 0); /* where there is no entropy image; where there is one, its color cache may give 0 */
  if (read_bit(&walk.reader)) status = walk_blocks(&walk, width, height, true);
  if (status) return status;
  uint64_t groups = walk.last < SPARSE ? walk.last + 1 : walk.used_count, entries = TABLE_ENTRIES + (1u << cache_bits);
  *bytes = groups * (GROUP_BYTES + 4 * entries) + 4 * walk.image_pixels;
  return HWGQ_OK;
}
