/* What every decoder asks before it spends memory or time, and how it hands rows on. */
#include <time.h>

#include "models/image/budget.h"
#include "models/image/decode.h"

enum { STRIP_BYTES = 64 << 10 };

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

enum hwgq_status image_check_size(struct image_job *job, uint32_t width, uint32_t height, int orientation) {
  bool swap = exif_turn_of(orientation).swap;
  uint32_t upright_width = swap ? height : width, upright_height = swap ? width : height;
  uint64_t pixels = (uint64_t)width * height;
  job->info->width = upright_width > INT32_MAX ? INT32_MAX : (int)upright_width;
  job->info->height = upright_height > INT32_MAX ? INT32_MAX : (int)upright_height;
  if (pixels > job->limits->max_pixels) {
    return hwgq_fail(job->error, HWGQ_ERROR_LIMIT,
                     "image of %ux%u pixels: more than the %llu that are allowed; send it at a smaller size", upright_width,
                     upright_height, (unsigned long long)job->limits->max_pixels);
  }
  if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE) {
    return hwgq_fail(job->error, HWGQ_ERROR_LIMIT,
                     "image of %ux%u pixels: a side may have at most %d; send it at a smaller size", upright_width,
                     upright_height, IMAGE_MAX_SIDE);
  }
  return HWGQ_OK;
}

enum hwgq_status image_check_memory(struct image_job *job, uint64_t bytes, const char *kind) {
  const struct image_limits *limits = job->limits;
  uint64_t most = limits->max_memory ? limits->max_memory : UINT64_MAX;
  if (limits->budget && limits->budget->total < most) most = limits->budget->total;
  if (bytes <= IMAGE_SMALL_DECODE) return HWGQ_OK;
  if (bytes > most) {
    return hwgq_fail(job->error, HWGQ_ERROR_LIMIT,
                     "%s of %dx%d pixels: decoding takes up to %llu MiB, more than the %llu MiB that are allowed; send it at a "
                     "smaller size or as a baseline JPEG",
                     kind, job->info->width, job->info->height, (unsigned long long)((bytes + (1 << 20) - 1) >> 20),
                     (unsigned long long)(most >> 20));
  }
  if (!limits->budget) return HWGQ_OK;
  uint64_t start = now_ns();
  bool taken = image_budget_take_unless(limits->budget, bytes, limits->deadline_ns, limits->needed, limits->context);
  job->waited_ns = now_ns() - start;
  if (!taken) {
    return hwgq_fail(job->error, HWGQ_ERROR_MEMORY,
                     "other large images take the memory that is set aside for decoding; send this one again later");
  }
  job->granted = bytes;
  return HWGQ_OK;
}

enum hwgq_status image_check_time(const struct image_job *job) {
  if (!job->limits->deadline_ns || now_ns() <= job->limits->deadline_ns + job->waited_ns) return HWGQ_OK;
  return hwgq_fail(job->error, HWGQ_ERROR_LIMIT,
                   "decoding the image of %dx%d pixels takes longer than is allowed; send it at a smaller size",
                   job->info->width, job->info->height);
}

enum hwgq_status image_begin(struct image_job *job, const struct image_frame *frame) {
  return job->sink->begin(job->sink, frame, job->error);
}

void image_rows(struct image_job *job, const uint8_t *rows, int count) {
  uint64_t start = job->measure ? now_ns() : 0;
  job->sink->rows(job->sink, rows, count);
  if (job->measure) job->sink_ns += now_ns() - start;
}

int image_strip_rows(size_t row_bytes, int height) {
  size_t rows = STRIP_BYTES / row_bytes;
  if (rows < 1) return 1;
  return rows < (size_t)height ? (int)rows : height;
}
