/* From the pixels of a data set to the values of a training batch. */
#ifndef TRAIN_AUGMENT_H
#define TRAIN_AUGMENT_H

#include "engine/hwgq.h"
#include "models/train/rng.h"

struct augmentation {
  bool mirror; /* every other image on average, left to right */
  int pad;     /* shifted by up to this many pixels each way; what comes into view has the mean's value */
  float zoom;  /* a random square of 1 / (1 + zoom) to 1 + zoom times the image's size is taken instead, bilinear; 0: off */
};

/* One image: HWC bytes of `shape` to HWC values (pixel - mean) * scale, of 255 - pixel when preprocess->invert is set, as
 * hwgq_preprocess_to_float. rng: NULL leaves the image as it is. */
void augment_image(const struct augmentation *augmentation, const struct hwgq_preprocess *preprocess, struct hwgq_shape shape,
                   const uint8_t *pixels, struct rng *rng, float *values);

#endif
