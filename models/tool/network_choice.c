#include "models/tool/network_choice.h"

#include <stdlib.h>
#include <string.h>

/* *shape is the network's usual one; "N" leaves its channels. */
static bool parse_shape(const char *text, struct hwgq_shape *shape) {
  int *values[] = {&shape->channels, &shape->height, &shape->width};
  int count = strchr(text, 'x') ? 3 : 1;
  for (int i = 0; i < count; i++) {
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || number < 1 || number > HWGQ_MAX_DIMENSION || *end != (i < count - 1 ? 'x' : '\0')) return false;
    *values[count == 1 ? 1 : i] = (int)number;
    text = end + 1;
  }
  if (count == 1) shape->width = shape->height;
  return true;
}

/* Steps of round(x / step) that are in use, by number of levels. */
static float rounding_step(int level_count) {
  return level_count == 1 ? 0.799f : level_count == 3 ? 0.538f : level_count == 7 ? 0.3217f : level_count == 15 ? 0.185f : 0;
}

static void set_centers(struct hwgq_quantizer *quantizer, int count, const float *centers, bool half) {
  quantizer->level_count = count;
  for (int i = 0; i < count; i++) {
    quantizer->centers[i] = centers[i];
    quantizer->thresholds[i] = i > 0 ? (centers[i - 1] + centers[i]) / 2 : half ? centers[0] / 2 : 0;
  }
}

/* The paper's two quantizers with its rounded figures, and the steps that others round with; Lloyd's optimum otherwise, which
 * is what `hwgq train` has but for those steps. */
static enum hwgq_status make_quantizer(const struct network_choice *choice, struct hwgq_quantizer *quantizer,
                                       struct hwgq_error *error) {
  const char *levels = choice->levels ? choice->levels : "uniform", *zero = choice->zero ? choice->zero : "0";
  bool half = strcmp(zero, "half") == 0, uniform = strcmp(levels, "uniform") == 0;
  int count = choice->level_count ? choice->level_count : (1 << (choice->bits ? choice->bits : 2)) - 1;
  if (!half && strcmp(zero, "0") != 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--zero takes 0 or half, not '%.40s'", zero);
  if (!uniform && strcmp(levels, "free") != 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--levels takes uniform, free or relu, not '%.40s'", levels);
  if (choice->bits && choice->level_count) return hwgq_fail(error, HWGQ_ERROR_INVALID, "give one of --bits and --level-count");
  if (choice->step > 0 && !uniform) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--step goes with --levels uniform");
  float centers[HWGQ_MAX_LEVELS] = {0.453f, 1.51f};
  float step = choice->step > 0 ? (float)choice->step : half || count == 3 ? rounding_step(count) : 0;
  for (int i = 0; uniform && i < count; i++) centers[i] = step * (float)(i + 1);
  if (uniform ? step > 0 : count == 2 && !half) {
    set_centers(quantizer, count, centers, half);
    return HWGQ_OK;
  }
  return hwgq_quantizer_design(count, uniform, half, quantizer, error);
}

/* *chosen: whether `text` is `yes`; NULL is `no`. */
static enum hwgq_status choose(const char *option, const char *text, const char *yes, const char *no, bool *chosen,
                               struct hwgq_error *error) {
  *chosen = text && strcmp(text, yes) == 0;
  if (!text || *chosen || strcmp(text, no) == 0) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s takes %s or %s, not '%.40s'", option, yes, no, text);
}

static enum hwgq_status make_variant(const struct network_choice *choice, struct hwgq_quantizer *quantizer,
                                     struct networks_variant *variant, struct hwgq_error *error) {
  bool others = choice->bits || choice->level_count || choice->zero || choice->step > 0;
  variant->relu = choice->levels && strcmp(choice->levels, "relu") == 0;
  if (choice->sign && (others || choice->levels))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--sign goes without --bits, --level-count, --levels, --zero and --step");
  if (variant->relu && others)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--levels relu goes without --bits, --level-count, --zero and --step");
  enum hwgq_status status = choose("--weights", choice->weights, "float", "binary", &variant->float_weights, error);
  if (!status) status = choose("--affine", choice->affine, "yes", "no", &variant->affine, error);
  if (status || choice->sign || variant->relu) return status;
  variant->quantizer = quantizer;
  return make_quantizer(choice, quantizer, error);
}

enum hwgq_status network_choice_build(const struct network_choice *choice, struct hwgq_network **network,
                                      const struct networks_entry **entry, struct hwgq_error *error) {
  const struct networks_entry *found = networks_find(choice->name);
  struct hwgq_shape shape = found ? found->input : (struct hwgq_shape){3, 32, 32};
  struct hwgq_quantizer quantizer = {0};
  if (choice->input && !parse_shape(choice->input, &shape))
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "--input takes CHANNELSxHEIGHTxWIDTH, as in 3x32x32, or one number, not '%.40s'", choice->input);
  struct networks_variant variant = {0};
  enum hwgq_status status = make_variant(choice, &quantizer, &variant, error);
  if (!status)
    status = networks_build_variant(choice->name, shape,
                                    choice->classes ? choice->classes
                                    : found         ? found->class_count
                                                    : 10,
                                    choice->width > 0 ? choice->width : 1, &variant, network, error);
  if (!status && entry) *entry = found;
  return status;
}
