/* The body of a calibrate_tile function, included by one file per instruction set: eight independent sums in registers. */
#include "models/networks/calibrate.h"

/* `loose` is the same in memory: unaligned, and of any type. */
typedef float vector __attribute__((vector_size(CALIBRATE_COLUMNS / 2 * sizeof(float))));
typedef float loose __attribute__((vector_size(CALIBRATE_COLUMNS / 2 * sizeof(float)), aligned(sizeof(float)), may_alias));

void CALIBRATE_TILE(const float *weights, const float *columns, size_t fan_in, float *y) {
  vector sums[CALIBRATE_ROWS][2] = {0};
  for (size_t k = 0; k < fan_in; k++) {
    const loose *x = (const loose *)(columns + k * CALIBRATE_COLUMNS);
    const vector left = x[0], right = x[1];
    for (int row = 0; row < CALIBRATE_ROWS; row++) {
      const float weight = weights[(size_t)row * fan_in + k];
      sums[row][0] += weight * left;
      sums[row][1] += weight * right;
    }
  }
  for (int row = 0; row < CALIBRATE_ROWS; row++) {
    loose *to = (loose *)(y + row * CALIBRATE_COLUMNS);
    to[0] = sums[row][0];
    to[1] = sums[row][1];
  }
}
