/* From the pixels of a data set to the values of a training batch. */
#ifndef TRAIN_AUGMENT_H
#define TRAIN_AUGMENT_H

#include "engine/hwgq.h"
#include "models/train/rng.h"

/* All zero: nothing is changed. What is drawn at random is uniform within its range. */
struct augmentation {
  bool mirror;       /* every other image on average, left to right */
  int pad;           /* shifted by up to this many pixels each way; what comes into view has the mean's value */
  double zoom;       /* enlarged or shrunk by a factor of up to 1 + zoom (uniform in its logarithm), bilinear */
  double crop;       /* up to this share of each side is cut away, anywhere, and the rest enlarged; below 1 */
  double aspect;     /* width to height stretched by a factor of up to 1 + aspect, or height to width */
  double blur;       /* every other image: Gaussian, with a standard deviation of up to this many pixels */
  double soften;     /* every other image: shrunk by a factor of up to 1 + soften and enlarged again */
  double brightness; /* pixels times up to 1 + brightness, or divided by it; the next two likewise */
  double contrast;   /* differences from the image's mean */
  double saturation; /* differences from the pixel's gray; color images */
  int cutout;        /* side of a square somewhere that is set to the mean */
};

enum hwgq_status augmentation_check(const struct augmentation *augmentation, struct hwgq_error *error);

/* One image: HWC bytes of `shape` to HWC values (pixel - mean) * scale, of 255 - pixel when preprocess->invert is set, as
 * hwgq_preprocess_to_float. rng: NULL leaves the image as it is. scratch: as many values as the image has. */
void augment_image(const struct augmentation *augmentation, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                   const uint8_t *pixels, struct rng *rng, float *values, float *scratch);
/* The part that comes after the image has its place: softness, blur, colors, cutout. */
void augment_values(const struct augmentation *augmentation, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                    struct rng *rng, float *values, float *scratch);
/* A factor between 1 / (1 + range) and 1 + range, uniform in its logarithm. */
float augment_factor(struct rng *rng, double range);

#endif
