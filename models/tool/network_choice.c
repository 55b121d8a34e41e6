#include "models/tool/network_choice.h"

#include <stdlib.h>
#include <string.h>

static bool parse_shape(const char *text, struct hwgq_shape *shape) {
  int *values[] = {&shape->channels, &shape->height, &shape->width};
  for (int i = 0; i < 3; i++) {
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || number < 1 || number > HWGQ_MAX_DIMENSION || *end != (i < 2 ? 'x' : '\0')) return false;
    *values[i] = (int)number;
    text = end + 1;
  }
  return true;
}

/* Steps of round(x / step), by bits, as they are in use. */
static const float rounding_steps[] = {0.799f, 0.538f, 0.3217f, 0.185f};

static enum hwgq_status uniform(const struct network_choice *choice, bool half, struct hwgq_quantizer *quantizer,
                                struct hwgq_error *error) {
  int bits = choice->bits ? choice->bits : 2;
  float step = choice->step > 0 ? (float)choice->step : half || bits == 2 ? rounding_steps[bits - 1] : 0;
  if (step == 0) return hwgq_quantizer_design((1 << bits) - 1, true, false, quantizer, error);
  *quantizer = (struct hwgq_quantizer){.level_count = (1 << bits) - 1};
  for (int i = 0; i < quantizer->level_count; i++) {
    quantizer->centers[i] = step * (float)(i + 1);
    if (i > 0) quantizer->thresholds[i] = (quantizer->centers[i - 1] + quantizer->centers[i]) / 2;
  }
  if (half) quantizer->thresholds[0] = step / 2;
  return HWGQ_OK;
}

static enum hwgq_status make_quantizer(const struct network_choice *choice, struct hwgq_quantizer *quantizer,
                                       struct hwgq_error *error) {
  const char *levels = choice->levels ? choice->levels : "uniform", *zero = choice->zero ? choice->zero : "0";
  bool half = strcmp(zero, "half") == 0, two = strcmp(levels, "two") == 0;
  if (!half && strcmp(zero, "0") != 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--zero takes 0 or half, not '%.40s'", zero);
  if (strcmp(levels, "uniform") == 0) return uniform(choice, half, quantizer, error);
  if (!two && strcmp(levels, "free") != 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--levels takes uniform, free or two, not '%.40s'", levels);
  if (choice->step > 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--step goes with --levels uniform");
  if (!two) return hwgq_quantizer_design((1 << (choice->bits ? choice->bits : 2)) - 1, false, half, quantizer, error);
  if (choice->bits) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--levels two goes without --bits: it has 2 levels");
  *quantizer = (struct hwgq_quantizer){.level_count = 2, .centers = {0.453f, 1.51f}};
  quantizer->thresholds[0] = half ? quantizer->centers[0] / 2 : 0;
  quantizer->thresholds[1] = (quantizer->centers[0] + quantizer->centers[1]) / 2;
  return HWGQ_OK;
}

enum hwgq_status network_choice_build(const struct network_choice *choice, struct hwgq_network **network,
                                      const struct networks_entry **entry, struct hwgq_error *error) {
  const struct networks_entry *found = networks_find(choice->name);
  struct hwgq_shape shape = found ? found->input : (struct hwgq_shape){3, 32, 32};
  struct hwgq_quantizer quantizer = {0};
  if (choice->input && !parse_shape(choice->input, &shape))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--input takes CHANNELSxHEIGHTxWIDTH, as in 3x32x32, not '%.40s'",
                     choice->input);
  if (choice->sign && (choice->bits || choice->levels || choice->zero || choice->step > 0))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--sign goes without --bits, --levels, --zero and --step");
  enum hwgq_status status = choice->sign ? HWGQ_OK : make_quantizer(choice, &quantizer, error);
  if (!status)
    status = networks_build(choice->name, shape,
                            choice->classes ? choice->classes
                            : found         ? found->class_count
                                            : 10,
                            choice->width > 0 ? choice->width : 1, choice->sign ? NULL : &quantizer, network, error);
  if (!status && entry) *entry = found;
  return status;
}
