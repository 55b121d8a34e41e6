#include "models/image/image.h"

#include <stdlib.h>
#include <string.h>

#include "models/image/budget.h"
#include "models/image/decode.h"

const char *image_format_name(enum image_format format) {
  static const char *const names[] = {"unknown", "jpeg", "png", "webp"};
  return names[format];
}

static bool holds(const uint8_t *bytes, size_t length, size_t at, const char *signature, size_t size) {
  return length >= at + size && !memcmp(bytes + at, signature, size);
}

enum image_format image_sniff(const uint8_t *bytes, size_t length) {
  if (holds(bytes, length, 0, "\xff\xd8\xff", 3)) return IMAGE_JPEG;
  if (holds(bytes, length, 0, "\x89PNG\r\n\x1a\n", 8)) return IMAGE_PNG;
  if (holds(bytes, length, 0, "RIFF", 4) && holds(bytes, length, 8, "WEBP", 4)) return IMAGE_WEBP;
  return IMAGE_UNKNOWN;
}

/* What else it may be, so that the message can say so. */
static const char *foreign_format(const uint8_t *bytes, size_t length) {
  static const struct {
    const char *name, *bytes;
    size_t offset, length;
  } signatures[] = {
      {"a damaged PNG image (line ends were changed, or only its first bytes are there)", "\x89PNG", 0, 4},
      {"a GIF image", "GIF8", 0, 4},
      {"a BMP image", "BM", 0, 2},
      {"a TIFF image", "II*\0", 0, 4},
      {"a TIFF image", "MM\0*", 0, 4},
      {"a JPEG XL image", "\xff\x0a", 0, 2},
      {"an AVIF or HEIC image", "ftyp", 4, 4},
      {"an SVG image", "<svg", 0, 4},
      {"a PDF file", "%PDF", 0, 4},
  };
  for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
    if (holds(bytes, length, signatures[i].offset, signatures[i].bytes, signatures[i].length)) return signatures[i].name;
  }
  return "no known kind of image";
}

static enum hwgq_status decode(struct image_job *job) {
  enum hwgq_status status;
  *job->info = (struct image_info){0};
  if (job->length == 0) {
    return hwgq_fail(job->error, HWGQ_ERROR_UNSUPPORTED, "no image: 0 bytes; send a JPEG, PNG or WebP file");
  }
  job->info->format = image_sniff(job->bytes, job->length);
  switch (job->info->format) {
  case IMAGE_JPEG:
    status = jpeg_decode(job);
    break;
  case IMAGE_PNG:
    status = png_decode(job);
    break;
  case IMAGE_WEBP:
    status = webp_decode(job);
    break;
  default:
    return hwgq_fail(job->error, HWGQ_ERROR_UNSUPPORTED, "%s: convert it to JPEG, PNG or WebP, which can be read",
                     foreign_format(job->bytes, job->length));
  }
  if (job->granted) image_budget_give(job->limits->budget, job->granted);
  return status;
}

/* Keeps the whole picture. */
struct collector {
  struct image_sink sink; /* first */
  struct image image;
  int orientation, row;
};

static enum hwgq_status begin_collecting(struct image_sink *sink, const struct image_frame *frame, struct hwgq_error *error) {
  struct collector *collector = (struct collector *)sink;
  collector->image = (struct image){frame->width, frame->height, frame->channels, NULL};
  collector->orientation = frame->orientation;
  collector->image.pixels = malloc((size_t)frame->width * (size_t)frame->height * (size_t)frame->channels);
  if (collector->image.pixels) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the pixels of an image of %dx%d", frame->width, frame->height);
}

static void collect_rows(struct image_sink *sink, const uint8_t *rows, int count) {
  struct collector *collector = (struct collector *)sink;
  size_t stride = (size_t)collector->image.width * (size_t)collector->image.channels;
  memcpy(collector->image.pixels + (size_t)collector->row * stride, rows, (size_t)count * stride);
  collector->row += count;
}

enum hwgq_status image_decode(const uint8_t *bytes, size_t length, const struct image_limits *limits, struct image *image,
                              struct image_info *info, struct hwgq_error *error) {
  struct collector collector = {.sink = {.begin = begin_collecting, .rows = collect_rows}};
  struct image_job job = {
      .bytes = bytes, .length = length, .limits = limits, .sink = &collector.sink, .info = info, .error = error};
  enum hwgq_status status = decode(&job);
  if (!status) status = exif_orient(&collector.image, collector.orientation, error);
  if (status) {
    free(collector.image.pixels);
  } else {
    *image = collector.image;
  }
  return status;
}

void image_release(struct image *image) {
  free(image->pixels);
  *image = (struct image){0};
}

enum hwgq_status image_prepare(const uint8_t *bytes, size_t length, const struct image_limits *limits,
                               const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, uint8_t *pixels,
                               struct image_info *info, struct image_times *times, struct hwgq_error *error) {
  struct image_resizer *resizer = NULL;
  *info = (struct image_info){0};
  if (times) *times = (struct image_times){0};
  enum hwgq_status status = image_resizer_create(preprocess, shape, pixels, &resizer, error);
  if (status) return status;
  struct image_job job = {.bytes = bytes,
                          .length = length,
                          .limits = limits,
                          .shorter_side = image_shorter_side(preprocess, shape),
                          .sink = image_resizer_sink(resizer),
                          .measure = times != NULL,
                          .info = info,
                          .error = error};
  status = decode(&job);
  if (times) *times = (struct image_times){.resize_ns = job.sink_ns, .waited_ns = job.waited_ns};
  image_resizer_destroy(resizer);
  return status;
}
