/* Tiles of output pixels: the walk over a rectangle that the direct convolutions share. */
#ifndef HWGQ_CONV_TILE_H
#define HWGQ_CONV_TILE_H

#include "engine/kernels/kernels.h"

enum { CONV_MAX_TILE = 8 };

/* The float convolution casts the pointers: its elements have four bytes too. It has no corrections. */
struct conv_tile {
  const uint32_t *input[CONV_MAX_TILE];
  int32_t *accumulators[CONV_MAX_TILE];
  int32_t correction[CONV_MAX_TILE];
};

struct conv_walk {
  const uint32_t *input_line;
  int32_t *accumulator_line;
  const int32_t *correction_line;
  size_t x, left;
};

static inline struct conv_walk conv_walk_of(const struct hwgq_conv_job *job) {
  return (struct conv_walk){job->input, job->accumulators, job->correction, 0, (size_t)job->lines * (size_t)job->columns};
}

/* The next pixels of the rectangle in row order: `most` of them, or the rest. Returns how many, 0 at the end. `corrected` is a
 * constant in every call. */
static inline __attribute__((always_inline)) size_t conv_next_tile(const struct hwgq_conv_job *job, struct conv_walk *walk,
                                                                   size_t most, const bool corrected, struct conv_tile *tile) {
  const size_t count = walk->left < most ? walk->left : most;
  for (size_t t = 0; t < count; t++) {
    tile->input[t] = walk->input_line + walk->x * job->column_step;
    tile->accumulators[t] = walk->accumulator_line + walk->x * HWGQ_LANES;
    if (corrected) tile->correction[t] = walk->correction_line[walk->x];
    if (++walk->x == (size_t)job->columns) {
      walk->x = 0;
      walk->input_line += job->line_step;
      walk->accumulator_line += job->accumulator_line_step;
      if (corrected) walk->correction_line += job->correction_line_step;
    }
  }
  walk->left -= count;
  return count;
}

typedef void conv_tile_function(const struct hwgq_conv_job *job, const struct conv_tile *tile);

/* functions[t - 1] computes t pixels, at most `most`. */
static inline void conv_rectangle(const struct hwgq_conv_job *job, size_t most, conv_tile_function *const *functions) {
  struct conv_walk walk = conv_walk_of(job);
  struct conv_tile tile;
  for (size_t count; (count = conv_next_tile(job, &walk, most, true, &tile)) > 0;) functions[count - 1](job, &tile);
}

#endif
