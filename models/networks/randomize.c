#include "engine/parameters.h"
#include "models/networks/calibrate.h"
#include "models/networks/networks.h"

#include <math.h>
#include <stdlib.h>

/* ---- random numbers: splitmix64 (Steele, Lea, Flood), one stream per layer and image --------------------------------------
 */

struct stream {
  uint64_t state;
};

static uint64_t next(struct stream *stream) {
  uint64_t z = stream->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static struct stream stream_of(uint64_t seed, uint64_t kind, int number) {
  struct stream stream = {seed};
  stream.state = next(&stream) ^ (kind << 32 | (uint64_t)number);
  stream.state = next(&stream);
  return stream;
}

/* [0, 1) */
static double uniform(struct stream *stream) {
  return (double)(next(stream) >> 11) * 0x1p-53;
}

/* About N(0,1): four uniforms have a variance of 1/3. Additions only, so the same on every machine. */
static double normal(struct stream *stream) {
  const uint64_t bits = next(stream);
  const double sum = (double)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
  return (sum / 65536 - 2 + 2.0 / 65536) * 1.7320508075688772;
}

/* ---- parameters ------------------------------------------------------------------------------------------------------------
 */

/* Weights of variance 2 / fan_in ("msra"), as the authors start training. Signs of Gaussian weights are coin tosses, and their
 * mean magnitude is sqrt(2 / pi) of the deviation. `spread`: factor on a float layer's weights. */
static void fill_weights(struct hwgq_layer *layer, size_t fan_in, double spread, struct stream *stream) {
  const size_t row = (fan_in + 7) / 8;
  const double deviation = sqrt(2 / (double)fan_in);
  for (size_t o = 0; o < (size_t)layer->out_channels; o++) {
    if (layer->binary) {
      uint8_t *bits = layer->weight_bits + o * row;
      uint64_t word = 0;
      for (size_t i = 0; i < row; i++, word >>= 8) {
        if (i % 8 == 0) word = next(stream);
        bits[i] = (uint8_t)word;
      }
      if (fan_in % 8) bits[row - 1] &= (uint8_t)((1u << (fan_in % 8)) - 1);
    } else {
      float *weight = layer->weight + o * fan_in;
      for (size_t k = 0; k < fan_in; k++) weight[k] = (float)(normal(stream) * deviation * spread);
    }
    if (layer->has_alpha) layer->alpha[o] = (float)(deviation * 0.79788456 * (0.75 + 0.5 * uniform(stream)));
    if (layer->has_bias) layer->bias[o] = (float)(0.1 * normal(stream));
  }
}

static void fill_parameters(struct hwgq_network *network, uint64_t seed) {
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    struct stream stream = stream_of(seed, 1, i);
    const bool classifier = layer->op == HWGQ_LINEAR && i + 2 >= network->layer_count;
    if (layer->op == HWGQ_CONV2D || layer->op == HWGQ_LINEAR) {
      fill_weights(layer, (size_t)hwgq_layer_fan_in(network, layer), classifier ? 3 : 1, &stream);
    }
    if (layer->op != HWGQ_SCALE) continue;
    for (int c = 0; c < layer->output.channels; c++) {
      layer->gamma[c] = (float)(fabs(1 + 0.3 * normal(&stream)) + 0.05);
      if (layer->has_bias) layer->beta[c] = (float)(0.3 * normal(&stream));
    }
  }
}

/* ---- images ----------------------------------------------------------------------------------------------------------------
 */

enum { BLOBS = 8 };

struct blob {
  double x, y, radius, color[3];
};

void networks_image(struct hwgq_shape shape, uint64_t seed, int number, uint8_t *pixels) {
  struct stream stream = stream_of(seed, 2, number);
  struct blob blobs[BLOBS];
  double base[3], along_x[3], along_y[3];
  for (int c = 0; c < 3; c++) {
    base[c] = 60 + 120 * uniform(&stream);
    along_x[c] = 160 * uniform(&stream) - 80;
    along_y[c] = 160 * uniform(&stream) - 80;
  }
  for (int i = 0; i < BLOBS; i++) {
    blobs[i] = (struct blob){uniform(&stream), uniform(&stream), 0.05 + 0.3 * uniform(&stream), {0}};
    for (int c = 0; c < 3; c++) blobs[i].color[c] = 400 * uniform(&stream) - 200;
  }
  for (int row = 0; row < shape.height; row++) {
    for (int column = 0; column < shape.width; column++) {
      const double x = (column + 0.5) / shape.width, y = (row + 0.5) / shape.height;
      double light[BLOBS];
      for (int i = 0; i < BLOBS; i++) {
        const double dx = x - blobs[i].x, dy = y - blobs[i].y;
        light[i] = 1 - (dx * dx + dy * dy) / (blobs[i].radius * blobs[i].radius);
      }
      for (int c = 0; c < shape.channels; c++) {
        double value = base[c % 3] + along_x[c % 3] * (x - 0.5) + along_y[c % 3] * (y - 0.5) + 12 * normal(&stream);
        for (int i = 0; i < BLOBS; i++) value += light[i] > 0 ? light[i] * blobs[i].color[c % 3] : 0;
        *pixels++ = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
      }
    }
  }
}

enum hwgq_status networks_randomize(struct hwgq_network *network, const struct hwgq_preprocess *preprocess, uint64_t seed,
                                    int image_count, struct hwgq_error *error) {
  const struct hwgq_shape shape = network->input;
  const size_t elements = (size_t)hwgq_shape_elements(shape);
  if (shape.channels > 3)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "an image has 1 to 3 channels, this network's input has %d", shape.channels);
  if (image_count < 1 || image_count > 64)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%d images to calibrate on: choose 1 to 64", image_count);
  uint8_t *pixels = malloc(elements);
  float *inputs = malloc(elements * (size_t)image_count * sizeof *inputs);
  enum hwgq_status status = HWGQ_OK;
  if (!pixels || !inputs) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory for %d images", image_count);
  for (int i = 0; i < image_count && !status; i++) {
    networks_image(shape, seed, i, pixels);
    hwgq_preprocess_to_float(preprocess, shape, pixels, inputs + (size_t)i * elements);
  }
  if (!status) {
    fill_parameters(network, seed);
    status = hwgq_network_round_pixels(network, preprocess, 16, error);
  }
  if (!status) status = calibrate(network, inputs, image_count, error);
  free(inputs);
  free(pixels);
  return status;
}
