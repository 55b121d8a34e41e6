/* Tiles of output pixels, shared by the look-up kernels. */
#ifndef HWGQ_LOOKUP_TILE_H
#define HWGQ_LOOKUP_TILE_H

#include "engine/kernels/kernels.h"

enum { LOOKUP_MAX_TILE = 8 };

struct lookup_tile {
  const uint32_t *input[LOOKUP_MAX_TILE];
  int32_t *accumulators[LOOKUP_MAX_TILE];
  int32_t correction[LOOKUP_MAX_TILE];
};

typedef void lookup_function(const struct hwgq_conv_job *job, const struct lookup_tile *tile);

/* Pixels of the rectangle in row order, as many at a time as the largest function takes; the rest in one smaller tile.
 * functions[t - 1] computes t pixels. */
static inline void lookup_rectangle(const struct hwgq_conv_job *job, size_t most, lookup_function *const *functions) {
  const size_t pixels = (size_t)job->lines * (size_t)job->columns;
  const uint32_t *input_line = job->input;
  int32_t *accumulator_line = job->accumulators;
  const int32_t *correction_line = job->correction;
  size_t x = 0;
  struct lookup_tile tile;
  for (size_t done = 0; done < pixels;) {
    const size_t count = pixels - done < most ? pixels - done : most;
    for (size_t t = 0; t < count; t++) {
      tile.input[t] = input_line + x * job->column_step;
      tile.accumulators[t] = accumulator_line + x * HWGQ_LANES;
      tile.correction[t] = correction_line[x];
      if (++x == (size_t)job->columns) {
        x = 0;
        input_line += job->line_step;
        accumulator_line += job->accumulator_line_step;
        correction_line += job->correction_line_step;
      }
    }
    done += count;
    functions[count - 1](job, &tile);
  }
}

#endif
