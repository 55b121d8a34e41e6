#include "engine/pixel_weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  WORD_LIMIT = 32767,
  BYTE_LIMIT = 127,
  DOUBLINGS = 4, /* of the unit at most: fewer than 12 bits are not enough */
};
#define MAX_SUM 2147483646.0 /* thresholds go up to one more */
#define MAX_VALUES ((size_t)1 << 24)

/* Means and scales of the pixels themselves: of 255 - pixel where the network wants it inverted. */
static void read_preprocess(struct pixel_weights *w, const struct hwgq_preprocess *preprocess) {
  const bool whole = !preprocess || w->channels > 3; /* pixels as they are */
  for (int c = 0; c < w->channels; c++) {
    w->mean[c] = whole ? 0 : (double)preprocess->mean[c];
    w->scale[c] = whole ? 1 : (double)preprocess->scale[c];
    if (!whole && preprocess->invert) {
      w->mean[c] = 255 - w->mean[c];
      w->scale[c] = -w->scale[c];
    }
  }
}

enum hwgq_status pixel_weights_create(struct pixel_weights *weights, const struct hwgq_layer *layer, int channels,
                                      const struct hwgq_preprocess *preprocess, struct hwgq_error *error) {
  struct pixel_weights w = {.layer = layer, .channels = channels, .row_values = channels * layer->kernel_width, .bits = 16};
  w.values = (size_t)layer->kernel_height * (size_t)w.row_values;
  if (w.values > MAX_VALUES) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "layer '%s': a kernel of %zu values is too large for integers", layer->name,
                     w.values);
  }
  w.mean = malloc((size_t)channels * sizeof *w.mean);
  w.scale = malloc((size_t)channels * sizeof *w.scale);
  w.products = malloc(w.values * sizeof *w.products);
  w.integers = malloc(w.values * sizeof *w.integers);
  if (!w.mean || !w.scale || !w.products || !w.integers) {
    pixel_weights_destroy(&w);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "layer '%s': out of memory for its weights", layer->name);
  }
  read_preprocess(&w, preprocess);
  *weights = w;
  return HWGQ_OK;
}

void pixel_weights_destroy(struct pixel_weights *weights) {
  free(weights->mean);
  free(weights->scale);
  free(weights->products);
  free(weights->integers);
}

static void read_products(struct pixel_weights *w, int out, bool flip) {
  const struct hwgq_layer *layer = w->layer;
  const int group_channels = w->channels / layer->groups;
  const int first = out / (layer->out_channels / layer->groups) * group_channels;
  const size_t taps = w->values / (size_t)w->channels, fan_in = taps * (size_t)group_channels;
  memset(w->products, 0, w->values * sizeof *w->products);
  for (int c = 0; c < group_channels; c++) {
    const double scale = flip ? -w->scale[first + c] : w->scale[first + c];
    for (size_t tap = 0; tap < taps; tap++) {
      const size_t index = (size_t)c * taps + tap;
      double weight;
      if (layer->binary) {
        weight = layer->weight_bits[(size_t)out * ((fan_in + 7) / 8) + index / 8] >> (index % 8) & 1 ? 1 : -1;
      } else {
        weight = (double)layer->weight[(size_t)out * fan_in + index];
      }
      w->products[tap * (size_t)w->channels + (size_t)(first + c)] = weight * scale;
    }
  }
}

/* Whole numbers for w->unit. False: some do not fit. */
static bool round_products(struct pixel_weights *w) {
  const size_t below = (size_t)w->layer->stride_height * (size_t)w->row_values;
  w->bound = 1;
  w->exact = true;
  for (size_t i = 0; i < w->values; i++) {
    const double ratio = w->products[i] / w->unit, nearest = floor(ratio + 0.5);
    const double mean = w->mean[i % (size_t)w->channels];
    if (!(fabs(nearest) <= (w->bits == 8 ? BYTE_LIMIT : WORD_LIMIT))) return false;
    w->integers[i] = (int32_t)nearest;
    w->bound += fabs(nearest) * fmax(fabs(mean), fabs(255 - mean));
    if (fabs(ratio - nearest) > fabs(nearest) * 0x1p-22) w->exact = false;
  }
  for (size_t i = 0; i + below < w->values; i++) {
    if (abs(w->integers[i] + w->integers[i + below]) > WORD_LIMIT) return false;
  }
  return w->bound <= MAX_SUM;
}

bool pixel_weights_quantize(struct pixel_weights *weights, int out, bool flip) {
  double most = 0;
  read_products(weights, out, flip);
  for (size_t i = 0; i < weights->values; i++) {
    if (!isfinite(weights->products[i])) return false;
    most = fmax(most, fabs(weights->products[i]));
  }
  for (int c = 0; c < weights->channels; c++) {
    if (!isfinite(weights->mean[c])) return false;
  }
  if (weights->bits == 8) {
    weights->unit = most > 0 ? most / BYTE_LIMIT : 1;
    return isnormal(weights->unit) && round_products(weights);
  }
  /* Weights of 1 bit are all one magnitude: it divided by a power of two, so that they are exact whatever the scale. */
  int exponent = 0;
  const double fraction = most > 0 ? frexp(most, &exponent) : 1;
  for (int i = 0; i <= DOUBLINGS; i++) {
    weights->unit = ldexp(weights->layer->binary ? fraction : 1, exponent - 15 + i);
    if (isnormal(weights->unit) && round_products(weights)) return true;
  }
  return false;
}

bool pixel_weights_are_exact(struct pixel_weights *weights) {
  for (int out = 0; out < weights->layer->out_channels; out++) {
    if (!pixel_weights_quantize(weights, out, false) || !weights->exact) return false;
  }
  return true;
}

/* ---- rounding a network ----------------------------------------------------------------------------------------------------
 */

static void round_channel(const struct pixel_weights *w, int out, float *weight) {
  const struct hwgq_layer *layer = w->layer;
  const int group_channels = w->channels / layer->groups;
  const int first = out / (layer->out_channels / layer->groups) * group_channels;
  const size_t taps = w->values / (size_t)w->channels;
  for (int c = 0; c < group_channels; c++) {
    const double scale = w->scale[first + c];
    for (size_t tap = 0; tap < taps && scale != 0; tap++) {
      const int32_t integer = w->integers[tap * (size_t)w->channels + (size_t)(first + c)];
      weight[((size_t)out * (size_t)group_channels + (size_t)c) * taps + tap] = (float)(integer * w->unit / scale);
    }
  }
}

/* Weights that fit fewer bits already stay what they are. */
static enum hwgq_status round_layer(struct pixel_weights *weights, struct hwgq_layer *layer, int bits,
                                    struct hwgq_error *error) {
  weights->bits = 8;
  if (bits > 8 && pixel_weights_are_exact(weights)) return HWGQ_OK;
  weights->bits = bits;
  for (int out = 0; out < layer->out_channels; out++) {
    if (!pixel_weights_quantize(weights, out, false)) {
      return hwgq_fail(
          error, HWGQ_ERROR_UNSUPPORTED,
          "layer '%s': its weights and the scale of the pixels do not fit whole numbers of %d bits: keep it in float32",
          layer->name, bits);
    }
  }
  for (int out = 0; out < layer->out_channels; out++) {
    pixel_weights_quantize(weights, out, false);
    round_channel(weights, out, layer->weight);
  }
  return HWGQ_OK;
}

enum hwgq_status hwgq_network_round_pixels(struct hwgq_network *network, const struct hwgq_preprocess *preprocess, int bits,
                                           struct hwgq_error *error) {
  if (bits != 8 && bits != 16) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "weights of %d bits for pixels: choose 8 or 16", bits);
  }
  for (int i = 0; i < network->layer_count; i++) {
    struct hwgq_layer *layer = &network->layers[i];
    if (layer->op != HWGQ_CONV2D || layer->binary || !layer->weight || layer->inputs[0] != HWGQ_NETWORK_INPUT) continue;
    struct pixel_weights weights;
    enum hwgq_status status = pixel_weights_create(&weights, layer, network->input.channels, preprocess, error);
    if (status) return status;
    status = round_layer(&weights, layer, bits, error);
    pixel_weights_destroy(&weights);
    if (status) return status;
  }
  return HWGQ_OK;
}
