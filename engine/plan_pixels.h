/* The network's first convolution in integers, straight from the 8-bit pixels.
 *
 * With whole numbers W times a unit in the place of weight * scale (pixel_weights.h), a sum over the valid taps is
 *
 *   unit * (sum of W * pixel - sum of W * mean).
 *
 * The second sum is a constant of the out channel and of the taps that are valid. An accumulator is the first sum minus the
 * second, rounded; what rounding leaves out is added back when thresholds are folded: exactly for pixels that see no padding,
 * within half a unit for the others. Padding takes part as pixel 0, whose products are 0.
 *
 * Where whole numbers of 8 bits do and the CPU multiplies bytes, input and weights are bytes, four to a word, else 16-bit, two
 * to a word.
 *
 * Two output rows of 16-bit values, one below the other, share work: input rows r and r + stride meet kernel rows a and
 * b = a + stride as
 *   row 1:  a * in[r] + b * in[r + stride]            =  (a + b) * in[r + stride] + a * (in[r] - in[r + stride])
 *   row 2:  a * in[r + stride] + b * in[r + 2 stride] =  (a + b) * in[r + stride] - b * (in[r + stride] - in[r + 2 stride])
 * so that three products of a kernel row do the work of four, on input rows and on differences of input rows. */
#ifndef HWGQ_PLAN_PIXELS_H
#define HWGQ_PLAN_PIXELS_H

#include "engine/plan.h"

/* What the kernel is asked to add up: everything for one output row, or the part that two rows share, or the rest of each. */
enum plan_pixel_pass { PASS_WHOLE, PASS_SHARED, PASS_FIRST, PASS_SECOND, PASSES };

enum { PIXEL_STRIP = 28 }; /* columns of two rows that are computed together: the shared part stays in the nearest cache */

struct plan_pixels {
  const struct hwgq_iconv_form *form;
  bool paired; /* rows are computed two by two where they can be */
  struct {
    int words;
    const size_t *offsets; /* [words], bytes from where the (first) output row's window starts */
    size_t weights;        /* bytes from the block's weights */
  } passes[PASSES];
  size_t value_bytes;          /* of an input value or weight: 1 or 2 */
  const uint8_t *weights;      /* [block][pass][word][lanes] words */
  size_t block_weights;        /* bytes */
  const int32_t *base;         /* [line segment][column segment][block][HWGQ_LANES] */
  size_t base_step;            /* block_count * HWGQ_LANES */
  const uint16_t *column_base; /* [output column]: its segment */
  int chunk;                   /* rows of conv->final for which input rows are prepared at once */
  int band, band_lines;        /* as in struct plan_conv */
  int rows;                    /* input rows of a chunk, at most */
  size_t row_bytes;
  size_t lead; /* bytes of a row before the padded image starts: its pixels are then aligned */
  /* Places in the memory that one call needs. Input rows stand at 0, their differences after them. */
  size_t shared, accumulators, pooled, bits, bytes;
  struct plan_epilogue epilogue;
};

/* Adds stage->pixels to a convolution stage that is complete otherwise, if the layer can be computed that way; then the stage
 * runs in integers on pixels, and in float32 on preprocessed values. `ending`, `flip`: as for the float form. */
enum hwgq_status plan_add_pixels(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                 const struct plan_ending *ending, const bool *flip);

/* Rows begin .. end - 1 of the stage's output, from pixels. `memory`: stage->pixels->bytes, 64-byte aligned, used by nobody
 * else during the call. */
void run_pixel_rows(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame, int begin,
                    int end, uint8_t *memory);

#endif
