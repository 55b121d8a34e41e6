/* A JPEG to measure with. */
#ifndef BENCH_JPEG_H
#define BENCH_JPEG_H

#include "engine/hwgq.h"

/* A synthetic picture of models/networks as a JPEG of quality 75, colors subsampled as cameras do. *bytes is malloc'ed. */
enum hwgq_status bench_jpeg(int width, int height, uint8_t **bytes, size_t *length, struct hwgq_error *error);

#endif
