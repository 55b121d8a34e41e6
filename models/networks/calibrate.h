/* Batch-norm statistics by running a network on a few images. Internal to models/networks. */
#ifndef NETWORKS_CALIBRATE_H
#define NETWORKS_CALIBRATE_H

#include "engine/hwgq.h"

/* Sets mean and variance of every batch norm to those of its input over the images, layer after layer, so that each one sees
 * what the calibrated layers before it give. inputs: [image_count] CHW, preprocessed. A float32 run of its own, fast enough for
 * the largest network, because the engine's plan folds away just the values that are needed here. */
enum hwgq_status calibrate(struct hwgq_network *network, const float *inputs, int image_count, struct hwgq_error *error);

enum {
  CALIBRATE_COLUMNS = 16, /* output positions of one tile */
  CALIBRATE_ROWS = 4,     /* output channels of one tile */
};
/* y[row][column] = sum over k of weights[row][k] * columns[k][column], multiplied and added in the order of k: the same bits
 * with any instruction set. All three are whole tiles; weights are `fan_in` apart. */
typedef void calibrate_tile(const float *weights, const float *columns, size_t fan_in, float *y);
calibrate_tile calibrate_tile_baseline, calibrate_tile_avx2;

#endif
