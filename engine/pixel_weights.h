/* Integer weights of a convolution that reads 8-bit pixels.
 *
 * An input value is (pixel - mean) * scale, so a sum of weight * value is a sum of (weight * scale) * (pixel - mean). The
 * products weight * scale of an out channel are written as whole numbers times a unit, such that every sum of whole number *
 * pixel over the kernel fits 32 bits.
 *
 * With 8 bits the unit is 1/127 of the largest product. With 16 bits it is a power of two (times the magnitude of all weights
 * where they have 1 bit), the smallest for which the whole numbers fit 16 bits, and those of kernel rows r and r + stride added
 * up do too. Weights that were rounded to such numbers once (hwgq_network_round_pixels) are found again exactly: the largest
 * is 127 units again, and finer powers of two divide coarser ones. */
#ifndef HWGQ_PIXEL_WEIGHTS_H
#define HWGQ_PIXEL_WEIGHTS_H

#include "engine/hwgq.h"

struct pixel_weights {
  const struct hwgq_layer *layer;
  int channels, row_values; /* of the input; channels * kernel_width */
  size_t values;            /* of the kernel: kernel_height rows of row_values, [kernel column][channel] */
  double *mean, *scale;     /* [channels]: input value = (pixel - mean) * scale */
  double *products;         /* [values]: weight * scale, 0 for channels of other groups */
  int bits;                 /* of the integers: 8 or 16 */
  /* Of the out channel that was quantized last: */
  int32_t *integers; /* [values] */
  double unit;       /* product = integer * unit */
  double bound;      /* largest |sum of integer * (pixel - mean)|, with room for 1 more */
  bool exact;        /* the products are integers times unit, but for the rounding of float32 weights */
};

/* channels: of the network's input. preprocess: NULL takes pixels as they are. bits: 16, to be changed at will. Borrows the
 * layer. */
enum hwgq_status pixel_weights_create(struct pixel_weights *weights, const struct hwgq_layer *layer, int channels,
                                      const struct hwgq_preprocess *preprocess, struct hwgq_error *error);
void pixel_weights_destroy(struct pixel_weights *weights);
/* False: no unit is fine enough and keeps the sums within 32 bits. flip: with the opposite sign. */
bool pixel_weights_quantize(struct pixel_weights *weights, int out, bool flip);
/* Whether integers of weights->bits represent every out channel exactly. */
bool pixel_weights_are_exact(struct pixel_weights *weights);

#endif
