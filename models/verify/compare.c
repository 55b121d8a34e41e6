#include <math.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/verify/verify.h"

int verify_code(const struct hwgq_layer *quantizer, double value) {
  if (quantizer->sign) return value == 1 ? 1 : value == -1 ? 0 : -1;
  if (value == 0) return 0;
  for (int k = 0; k < quantizer->level_count; k++) {
    if (value == (double)quantizer->centers[k]) return k + 1;
  }
  return -1;
}

double verify_code_value(const struct hwgq_layer *quantizer, int code) {
  if (quantizer->sign) return code ? 1 : -1;
  return code ? (double)quantizer->centers[code - 1] : 0;
}

static struct verify_place place_of(struct hwgq_shape shape, size_t i) {
  const size_t width = (size_t)shape.width, plane = (size_t)shape.height * width;
  return (struct verify_place){(int)(i / plane), (int)(i % plane / width), (int)(i % width)};
}

static double largest_magnitude(const double *values, size_t count) {
  double largest = 0;
  for (size_t i = 0; i < count; i++) largest = fmax(largest, fabs(values[i]));
  return largest;
}

static double threshold_of(const struct hwgq_layer *quantizer, int j) {
  return quantizer->sign ? 0 : (double)quantizer->thresholds[j];
}

/* Not fmax: where float32 thresholds are widened in the loop, gcc 12 for aarch64 stops with an internal error. */
static double larger(double a, double b) {
  return b > a ? b : a;
}

/* What a distance from a threshold is relative to. */
static double quantizer_scale(const struct hwgq_layer *quantizer, const double *before, size_t count) {
  double scale = largest_magnitude(before, count);
  for (int j = 0; j < (quantizer->sign ? 1 : quantizer->level_count); j++) {
    scale = larger(scale, fabs(threshold_of(quantizer, j)));
  }
  return scale > 0 ? scale : 1;
}

/* The farthest of the thresholds between two codes. */
static double distance_between(const struct hwgq_layer *quantizer, double value, double scale, int a, int b) {
  const int low = a < b ? a : b, high = a < b ? b : a;
  double distance = 0;
  if (low < 0) return (double)INFINITY;
  for (int j = low; j < high; j++) distance = larger(distance, fabs(value - threshold_of(quantizer, j)) / scale);
  return distance;
}

static void compare_codes(const struct verify_operands *o, struct verify_layer *result) {
  const struct hwgq_layer *layer = o->layer;
  const double scale = o->before ? quantizer_scale(layer, o->before, o->before_count) : 1;
  result->codes = true;
  for (size_t i = 0; i < result->values; i++) {
    const int expected = verify_code(layer, o->expected[i]), found = verify_code(layer, o->found[i]);
    if (expected == found && found >= 0) continue;
    const double distance = o->before ? distance_between(layer, o->before[i], scale, expected, found) : (double)INFINITY;
    const bool wrong = !(distance <= o->tolerance);
    if (result->differing == 0 || (wrong && result->wrong == 0)) {
      result->place = place_of(layer->output, i);
      result->expected = expected;
      result->found = found;
      result->value = o->before ? o->before[i] : (double)NAN;
      result->distance = distance;
    }
    result->differing++;
    result->wrong += wrong;
  }
  result->failed = result->wrong > 0;
}

static void compare_floats(const struct verify_operands *o, struct verify_layer *result) {
  const double scale = largest_magnitude(o->expected, result->values);
  double largest = -1, tolerance = o->tolerance;
  for (size_t i = 0; i < result->values; i++) {
    const double error = isfinite(o->found[i]) ? fabs(o->found[i] - o->expected[i]) : (double)INFINITY;
    if (!(error > largest)) continue;
    largest = error;
    result->place = place_of(o->layer->output, i);
    result->expected = o->expected[i];
    result->found = o->found[i];
  }
  if (o->layer->op == HWGQ_SOFTMAX && o->before) tolerance *= fmax(1, largest_magnitude(o->before, o->before_count));
  result->error = largest > 0 ? (scale > 0 ? largest / scale : (double)INFINITY) : 0;
  result->failed = !(result->error <= tolerance);
}

void verify_compare(const struct verify_operands *operands, struct verify_layer *result) {
  *result = (struct verify_layer){.compared = true, .values = hwgq_shape_elements(operands->layer->output), .differs_from = -1};
  if (operands->layer->op == HWGQ_QUANTIZE) {
    compare_codes(operands, result);
  } else {
    compare_floats(operands, result);
  }
}

void verify_find_nearest(const struct hwgq_layer *quantizer, int index, const double *before, struct verify_nearest *nearest) {
  const size_t count = (size_t)hwgq_shape_elements(quantizer->output);
  const double scale = quantizer_scale(quantizer, before, count);
  for (size_t i = 0; i < count; i++) {
    for (int j = 0; j < (quantizer->sign ? 1 : quantizer->level_count); j++) {
      const double threshold = threshold_of(quantizer, j), distance = fabs(before[i] - threshold) / scale;
      if (distance == 0) {
        nearest->on_threshold++;
      } else if (nearest->layer < 0 || distance < nearest->distance) {
        nearest->layer = index;
        nearest->place = place_of(quantizer->output, i);
        nearest->value = before[i];
        nearest->threshold = threshold;
        nearest->distance = distance;
      }
    }
  }
}
