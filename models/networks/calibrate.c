#include "models/networks/calibrate.h"
#include "engine/parameters.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Values of layers are [image][channel][height][width]. They are freed behind their last use: a ResNet-50 has 100 MB of them
 * per image. */
struct run {
  struct hwgq_network *network;
  const float *inputs;
  size_t images;
  float **values; /* [layer_count] */
  int *last_use;  /* [layer_count] */
  calibrate_tile *tile;
};

static const float *input_of(const struct run *run, const struct hwgq_layer *layer, int i) {
  return layer->inputs[i] == HWGQ_NETWORK_INPUT ? run->inputs : run->values[layer->inputs[i]];
}

/* ---- convolutions and linear layers ----------------------------------------------------------------------------------------
 */

/* A layer as a matrix product: positions are the output pixels of all images, one after the other. */
struct product {
  const struct hwgq_layer *layer;
  struct hwgq_shape in, out; /* linear: C*H*W,1,1 -> channels,1,1 */
  const float *x;
  float *y;
  size_t fan_in, positions, plane; /* plane: output pixels of one image */
  int group, group_in, group_out;  /* the group at work, and channels of one group */
};

/* columns[k][c]: what weight k of the group's channels meets at position `first` + c; 0 in the padding and past the end. */
static void gather_columns(const struct product *p, size_t first, float *columns) {
  const struct hwgq_layer *layer = p->layer;
  const size_t in_plane = (size_t)p->in.height * (size_t)p->in.width;
  memset(columns, 0, p->fan_in * CALIBRATE_COLUMNS * sizeof *columns);
  for (int c = 0; c < CALIBRATE_COLUMNS && first + (size_t)c < p->positions; c++) {
    const size_t position = first + (size_t)c, image = position / p->plane, pixel = position % p->plane;
    const int top = (int)(pixel / (size_t)p->out.width) * layer->stride_height - layer->pad_height;
    const int left = (int)(pixel % (size_t)p->out.width) * layer->stride_width - layer->pad_width;
    const float *x = p->x + (image * (size_t)p->in.channels + (size_t)p->group * (size_t)p->group_in) * in_plane;
    float *to = columns + c;
    for (int channel = 0; channel < p->group_in; channel++, x += in_plane) {
      for (int ky = 0; ky < layer->kernel_height; ky++) {
        for (int kx = 0; kx < layer->kernel_width; kx++, to += CALIBRATE_COLUMNS) {
          const int row = top + ky, column = left + kx;
          if (row < 0 || row >= p->in.height || column < 0 || column >= p->in.width) continue;
          *to = x[row * p->in.width + column];
        }
      }
    }
  }
}

/* Weights of output channels first .. first + count - 1 as floats, alpha left out; rows past the end are 0. */
static void expand_weights(const struct product *p, size_t first, size_t count, size_t end, float *weights) {
  const struct hwgq_layer *layer = p->layer;
  const size_t row_bytes = (p->fan_in + 7) / 8;
  for (size_t o = first; o < first + count; o++, weights += p->fan_in) {
    if (o >= end) {
      memset(weights, 0, p->fan_in * sizeof *weights);
    } else if (!layer->binary) {
      memcpy(weights, layer->weight + o * p->fan_in, p->fan_in * sizeof *weights);
    } else {
      const uint8_t *bits = layer->weight_bits + o * row_bytes;
      for (size_t k = 0; k < p->fan_in; k++) weights[k] = (bits[k / 8] >> (k % 8)) & 1 ? 1.0f : -1.0f;
    }
  }
}

static void store_tile(const struct product *p, size_t channel, size_t end, size_t first, const float *tile) {
  for (size_t row = 0; row < CALIBRATE_ROWS && channel + row < end; row++) {
    const size_t o = channel + row;
    const float alpha = p->layer->has_alpha ? p->layer->alpha[o] : 1, bias = p->layer->has_bias ? p->layer->bias[o] : 0;
    for (size_t c = 0; c < CALIBRATE_COLUMNS && first + c < p->positions; c++) {
      const size_t position = first + c;
      p->y[(position / p->plane * (size_t)p->out.channels + o) * p->plane + position % p->plane] =
          alpha * tile[row * CALIBRATE_COLUMNS + c] + bias;
    }
  }
}

/* One group, a block of output channels at a time: their weights as floats stay below WEIGHT_BLOCK. */
static void multiply_group(const struct run *run, const struct product *p, size_t block, float *weights, float *columns) {
  const size_t begin = (size_t)p->group * (size_t)p->group_out, end = begin + (size_t)p->group_out;
  float tile[CALIBRATE_ROWS * CALIBRATE_COLUMNS];
  for (size_t from = begin; from < end; from += block) {
    expand_weights(p, from, block, end, weights);
    for (size_t first = 0; first < p->positions; first += CALIBRATE_COLUMNS) {
      gather_columns(p, first, columns);
      for (size_t row = 0; row < block && from + row < end; row += CALIBRATE_ROWS) {
        run->tile(weights + row * p->fan_in, columns, p->fan_in, tile);
        store_tile(p, from + row, end, first, tile);
      }
    }
  }
}

static enum hwgq_status multiply(const struct run *run, const struct hwgq_layer *layer, float *y, struct hwgq_error *error) {
  enum { WEIGHT_BLOCK = 4 << 20 }; /* floats */
  struct product p = {.layer = layer, .out = layer->output, .x = input_of(run, layer, 0), .y = y};
  p.in = hwgq_network_input_shape(run->network, layer, 0);
  if (layer->op == HWGQ_LINEAR) p.in = (struct hwgq_shape){p.in.channels * p.in.height * p.in.width, 1, 1};
  p.fan_in = (size_t)hwgq_layer_fan_in(run->network, layer);
  p.plane = (size_t)p.out.height * (size_t)p.out.width;
  p.positions = run->images * p.plane;
  p.group_in = p.in.channels / layer->groups;
  p.group_out = p.out.channels / layer->groups;
  size_t block = WEIGHT_BLOCK / p.fan_in / CALIBRATE_ROWS * CALIBRATE_ROWS;
  const size_t whole = ((size_t)p.group_out + CALIBRATE_ROWS - 1) / CALIBRATE_ROWS * CALIBRATE_ROWS;
  if (block < CALIBRATE_ROWS) block = CALIBRATE_ROWS;
  if (block > whole) block = whole;
  float *weights = malloc(block * p.fan_in * sizeof *weights);
  float *columns = malloc(p.fan_in * CALIBRATE_COLUMNS * sizeof *columns);
  if (weights && columns) {
    for (p.group = 0; p.group < layer->groups; p.group++) multiply_group(run, &p, block, weights, columns);
  }
  const bool done = weights && columns;
  free(weights);
  free(columns);
  return done ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "calibrating layer %s: out of memory", layer->name);
}

/* ---- the other layers ------------------------------------------------------------------------------------------------------
 */

/* Statistics, then the normalized values. A channel that hardly varies over so few images would be blown up; its variance is at
 * least a twentieth of the layer's mean one. */
static void normalize(const struct run *run, struct hwgq_layer *layer, float *y) {
  const size_t channels = (size_t)layer->output.channels;
  const size_t plane = (size_t)layer->output.height * (size_t)layer->output.width;
  const float *x = input_of(run, layer, 0);
  double mean_variance = 0;
  for (size_t c = 0; c < channels; c++) {
    double sum = 0, squares = 0;
    for (size_t image = 0; image < run->images; image++) {
      for (size_t i = 0; i < plane; i++) sum += (double)x[(image * channels + c) * plane + i];
    }
    const double count = (double)(run->images * plane), mean = sum / count;
    for (size_t image = 0; image < run->images; image++) {
      for (size_t i = 0; i < plane; i++) {
        const double distance = (double)x[(image * channels + c) * plane + i] - mean;
        squares += distance * distance;
      }
    }
    layer->mean[c] = (float)mean;
    layer->variance[c] = (float)(squares / count);
    mean_variance += squares / count / (double)channels;
  }
  for (size_t c = 0; c < channels; c++) {
    layer->variance[c] = fmaxf(layer->variance[c], (float)(0.05 * mean_variance));
    const float divisor = sqrtf(layer->variance[c] + layer->eps);
    for (size_t image = 0; image < run->images; image++) {
      for (size_t i = (image * channels + c) * plane, end = i + plane; i < end; i++) y[i] = (x[i] - layer->mean[c]) / divisor;
    }
  }
}

static float quantized(const struct hwgq_layer *layer, float x) {
  if (layer->sign) return x >= 0 ? 1 : -1;
  int level = 0;
  for (int j = 0; j < layer->level_count; j++) level += x > layer->thresholds[j];
  return level ? layer->centers[level - 1] : 0;
}

static void elementwise(const struct run *run, const struct hwgq_layer *layer, float *y) {
  const size_t plane = (size_t)layer->output.height * (size_t)layer->output.width, channels = (size_t)layer->output.channels;
  const float *x = input_of(run, layer, 0);
  const size_t count = run->images * channels * plane;
  for (size_t i = 0; i < count; i++) {
    const size_t c = i / plane % channels;
    switch (layer->op) {
    case HWGQ_QUANTIZE:
      y[i] = quantized(layer, x[i]);
      break;
    case HWGQ_SCALE:
      y[i] = layer->gamma[c] * x[i] + (layer->has_bias ? layer->beta[c] : 0);
      break;
    case HWGQ_ADD:
      y[i] = 0;
      for (int j = 0; j < layer->input_count; j++) y[i] += layer->coefficients[j] * input_of(run, layer, j)[i];
      break;
    default: /* HWGQ_RELU */
      y[i] = x[i] > 0 ? x[i] : 0;
      break;
    }
  }
}

static void max_pool(const struct run *run, const struct hwgq_layer *layer, float *y) {
  const struct hwgq_shape in = hwgq_network_input_shape(run->network, layer, 0), out = layer->output;
  const float *x = input_of(run, layer, 0);
  const size_t planes = run->images * (size_t)in.channels;
  for (size_t p = 0; p < planes; p++, x += (size_t)in.height * (size_t)in.width) {
    for (int row = 0; row < out.height; row++) {
      for (int column = 0; column < out.width; column++) {
        const int top = row * layer->stride_height - layer->pad_height, left = column * layer->stride_width - layer->pad_width;
        float most = -FLT_MAX;
        for (int i = top < 0 ? 0 : top; i < top + layer->kernel_height && i < in.height; i++) {
          for (int j = left < 0 ? 0 : left; j < left + layer->kernel_width && j < in.width; j++) {
            most = fmaxf(most, x[i * in.width + j]);
          }
        }
        *y++ = most;
      }
    }
  }
}

static void concat(const struct run *run, const struct hwgq_layer *layer, float *y) {
  const size_t plane = (size_t)layer->output.height * (size_t)layer->output.width;
  for (size_t image = 0; image < run->images; image++) {
    for (int i = 0; i < layer->input_count; i++) {
      const size_t part = (size_t)hwgq_network_input_shape(run->network, layer, i).channels * plane;
      memcpy(y, input_of(run, layer, i) + image * part, part * sizeof *y);
      y += part;
    }
  }
}

/* ---- the run ---------------------------------------------------------------------------------------------------------------
 */

static enum hwgq_status run_layer(struct run *run, int index, struct hwgq_error *error) {
  struct hwgq_layer *layer = &run->network->layers[index];
  float *y = malloc(run->images * (size_t)hwgq_shape_elements(layer->output) * sizeof *y);
  run->values[index] = y;
  if (!y) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "calibrating layer %s: out of memory", layer->name);
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return multiply(run, layer, y, error);
  case HWGQ_BATCH_NORM:
    normalize(run, layer, y);
    return HWGQ_OK;
  case HWGQ_MAX_POOL:
    max_pool(run, layer, y);
    return HWGQ_OK;
  case HWGQ_CONCAT:
    concat(run, layer, y);
    return HWGQ_OK;
  case HWGQ_QUANTIZE:
  case HWGQ_SCALE:
  case HWGQ_ADD:
  case HWGQ_RELU:
    elementwise(run, layer, y);
    return HWGQ_OK;
  default:
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "layer %s: a batch norm behind a %s cannot be calibrated; none of the built-in networks has one",
                     layer->name, hwgq_op_name(layer->op));
  }
}

/* Returns the number of layers to run: up to the last batch norm. */
static int find_last_uses(struct run *run) {
  int count = 0;
  for (int i = 0; i < run->network->layer_count; i++) {
    const struct hwgq_layer *layer = &run->network->layers[i];
    if (layer->op == HWGQ_BATCH_NORM) count = i + 1;
    for (int j = 0; j < layer->input_count; j++) {
      if (layer->inputs[j] != HWGQ_NETWORK_INPUT) run->last_use[layer->inputs[j]] = i;
    }
  }
  return count;
}

enum hwgq_status calibrate(struct hwgq_network *network, const float *inputs, int image_count, struct hwgq_error *error) {
  const size_t layers = (size_t)network->layer_count;
  struct run run = {.network = network, .inputs = inputs, .images = (size_t)image_count};
  enum hwgq_status status = HWGQ_OK;
  run.tile = calibrate_tile_baseline;
#if defined(__x86_64__)
  if (hwgq_cpu_supports("avx2")) run.tile = calibrate_tile_avx2;
#endif
  run.values = calloc(layers, sizeof *run.values);
  run.last_use = calloc(layers, sizeof *run.last_use);
  if (!run.values || !run.last_use) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "calibration: out of memory");
  const int count = status ? 0 : find_last_uses(&run);
  for (int i = 0; i < count && !status; i++) {
    status = run_layer(&run, i, error);
    for (int j = 0; j < network->layers[i].input_count; j++) {
      const int input = network->layers[i].inputs[j];
      if (input == HWGQ_NETWORK_INPUT || run.last_use[input] != i) continue;
      free(run.values[input]);
      run.values[input] = NULL;
    }
  }
  for (size_t i = 0; run.values && i < layers; i++) free(run.values[i]);
  free(run.values);
  free(run.last_use);
  return status;
}
