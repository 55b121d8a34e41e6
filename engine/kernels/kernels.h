/* The kernels: everything whose speed matters, once per instruction set, behind one table of function pointers.
 *
 * Every table computes the same integers and, in float and double, the same operations in the same order: results are equal
 * bit for bit. Kernels read and write plain arrays and know nothing of layers; the plan and the runner do.
 *
 * Layouts
 *   float tensors   HWC: channels of a pixel are adjacent.
 *   packed tensors  HWC in bits: a pixel has ceil(C / 32) words of 32 channels (channel c is bit c % 32 of word c / 32), and
 * each word is stored as its planes, adjacent: uint32 index ((y * W + x) * words + word) * planes + plane. Bits of channels
 * that do not exist are 0. What a plane is worth is the plan's business (struct plan_coding). blocks          Out channels are
 * computed in blocks of HWGQ_LANES. Weights of a block: [kernel row][kernel column] [word or channel][lanes], lanes = 16 or 32.
 * Accumulators of a block: [pixel][HWGQ_LANES]. */
#ifndef HWGQ_KERNELS_H
#define HWGQ_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/kernels/iconv.h"

enum { HWGQ_MAX_ICONVS = 3 };
enum { HWGQ_LANES = 32, HWGQ_MAX_PLANES = 4, HWGQ_MAX_FORMS = 4, HWGQ_MAX_SPAN = 2 };

/* A convolution of one block of out channels over a rectangle of output pixels that share their valid kernel taps. All steps
 * count 4-byte elements (uint32 words of bits, or floats). The taps of a pixel are rows x runs x length elements: `length`
 * elements are contiguous in the input and in the weights (times lanes); a kernel row is one run unless groups cut it into one
 * run per tap. Accumulation order: row, run, element. */
struct hwgq_conv_job {
  int lines, columns; /* of the rectangle */
  const void *input;  /* first element of the first tap of the rectangle's first pixel */
  size_t line_step, column_step;
  int rows, runs, length;
  size_t row_step, run_step;
  const void *weights; /* first tap's */
  size_t weight_row_step, weight_run_step;
  int lanes;          /* 16 or 32; 64: two blocks at once, for forms whose span is 2 */
  void *accumulators; /* of the first pixel; pixels of a line are HWGQ_LANES apart */
  size_t accumulator_line_step, accumulator_block_step;
  /* Binary only: accumulator = (sum over planes of 2^plane * popcount(weights & plane) << shift) + base[lane] +
   * correction[pixel]. */
  int planes;     /* 1 to HWGQ_MAX_PLANES planes are summed, starting at `input` */
  int plane_step; /* planes of the tensor: uint32 from one word to the next */
  int shift;
  const int32_t *base;
  const int32_t *correction; /* of the first pixel; pixels of a line are adjacent */
  size_t correction_line_step;
  const uint8_t *tables; /* of the form's codes */
};

/* Packed pixels to the codes of a form (codes.c). */
struct hwgq_encode_job {
  const uint32_t *input; /* [pixels][words][planes] */
  size_t pixels;
  int words, planes; /* 1 or 2 planes */
  uint32_t *codes;   /* [pixels][hwgq_code_elements] */
};

/* A way to compute binary convolutions. Forms with codes read activations four or six at a time: a code selects a table of the
 * sums that all subsets of them have, and bits of weights, in bytes, one lane each, index the table. codes.c describes codes
 * and weights. */
struct hwgq_bconv_form {
  const char *name;
  int code;       /* activations per code: 0 (planes are read as they are), 4 or 6 */
  int max_planes; /* of the input */
  int span;       /* adjacent blocks that one call computes */
  void (*bconv)(const struct hwgq_conv_job *job);
  void (*encode)(const struct hwgq_encode_job *job);
};

/* Bit-sliced convolutions: a vector holds one bit of the sums of LANES (pixel, out channel) pairs, and the weights of one input
 * channel of one input pixel of a tile (a source) for all of these pairs are a row of LANES bits. Only channels whose
 * activation bit is set are visited: their rows are added up by full adders on whole vectors. Offsets of rows are 16 bits, in
 * units of HWGQ_SLICED_UNIT bytes; sources whose rows lie farther apart belong to different parts. */
enum {
  HWGQ_SLICED_PLANES = 24,
  HWGQ_SLICED_MOST = 1 << 23, /* what a tile may visit: the kernel's counter has a level for it */
  HWGQ_SLICED_LEVELS = 15,
  HWGQ_SLICED_SLACK = 64, /* offsets that kernels may write beyond the last */
  HWGQ_SLICED_MAX_DWORDS = 16,
  HWGQ_SLICED_UNIT = 8
};

/* Packed pixels to lists: for each plane of each pixel, the row offsets (channel * LANES / 64) of the channels whose bit is
 * set. `offsets_step` is at least the number of channels + HWGQ_SLICED_SLACK. */
struct hwgq_sliced_list_job {
  const uint32_t *input; /* [pixels][words][planes] */
  size_t pixels, pixel_step;
  int words, planes;
  uint16_t *offsets; /* [pixels][planes][offsets_step] */
  size_t offsets_step;
  uint16_t *counts; /* [pixels][planes] */
};

struct hwgq_sliced_source {
  const uint16_t *offsets; /* [planes][offsets_step] */
  const uint16_t *counts;  /* [planes] */
  uint16_t part, add;      /* of the weights; offset of the source's rows in it. Parts do not decrease. */
};

/* sums = for each block of LANES pairs, sum over planes of 2^plane * (rows of the sources' lists of that plane). */
struct hwgq_sliced_job {
  const struct hwgq_sliced_source *sources;
  int source_count, planes;
  size_t offsets_step, usual; /* usual: multiple of 32, at most offsets_step; most lists are not longer */
  const uint8_t *weights;     /* [blocks][weight_step bytes]: [parts][part_step bytes]: rows */
  size_t weight_step, part_step;
  uint16_t zero; /* offset of a row of zeros in every part */
  int blocks;
  uint16_t *list; /* memory for the lists of a plane of the sources of a part, joined, + HWGQ_SLICED_SLACK + usual */
  void *sums;     /* [blocks][sum_planes][LANES / 8 bytes] */
  int sum_planes; /* 6 to HWGQ_SLICED_PLANES, enough for the largest sum */
  /* The weights of all rows that are visited, 2^plane each, add up to less than HWGQ_SLICED_MOST. */
};

/* For one block: masks[j] = (2 * sum + start >= thresholds[j]), bit-sliced. */
struct hwgq_sliced_compare_job {
  const void *sums; /* [sum_planes][LANES / 8] */
  int sum_planes, levels;
  const uint32_t *start;  /* [LANES / 32] */
  const void *thresholds; /* [sum_planes + 2][levels][LANES / 8] */
  void *masks;            /* [levels][LANES / 8] */
};

/* For one block: 2 * sum + start as int32. */
struct hwgq_sliced_unpack_job {
  const void *sums;
  int sum_planes;
  const uint32_t *start; /* [LANES / 32] */
  int32_t **sums_of;     /* [LANES / 32]: where 32 sums go */
};

/* The bit-sliced kernels of an instruction set. */
struct hwgq_sliced {
  int lanes;
  void (*list)(const struct hwgq_sliced_list_job *job);
  void (*sum)(const struct hwgq_sliced_job *job);
  void (*compare)(const struct hwgq_sliced_compare_job *job);
  void (*unpack)(const struct hwgq_sliced_unpack_job *job);
};

/* Weighted population counts of whole pixels: sums[i] = sum over words and planes of 2^plane * popcount(word & mask). */
struct hwgq_sums_job {
  const uint32_t *input;
  size_t pixels, pixel_step;
  int words, planes, plane_step;
  const uint32_t *masks; /* [words], or NULL for all bits */
  int32_t *sums;
};

/* Thresholds: a lane's level is the number of j with (accumulator >= thresholds[j][lane]) != negate; thresholds are ordered so
 * that level >= j + 1 implies level >= j. Writes planes: binary digits of the level, or (thermometer) plane j = level > j. */
struct hwgq_pack_job {
  const void *accumulators;
  size_t accumulator_step, pixels; /* elements from pixel to pixel */
  const void *thresholds;          /* [levels][HWGQ_LANES] of the accumulators' type */
  int levels, planes;
  uint32_t negate, valid; /* bit per lane; valid lanes are the first ones, others are neither read nor set */
  bool thermometer;
  uint32_t *output; /* planes of this block's word in the first pixel */
  size_t output_step;
};

/* y = a * x + b in double (two roundings), for each step s; then max(y, 0) where bit s of relu is set, then rounding to float32
 * where bit s of round is set. The last y is rounded to float32. With a residual r, scale * y + residual_scale * r in double,
 * rounded to float32, takes the place of y, and then max(y, 0) with residual_relu. The output may be the residual. */
struct hwgq_affine_job {
  const void *accumulators;
  size_t accumulator_step, pixels;
  const double *factors; /* [steps][2][HWGQ_LANES]: a, then b */
  int steps;
  uint32_t relu, round;
  int lanes; /* valid ones: 1 to HWGQ_LANES; others are neither read nor written */
  float *output;
  size_t output_step;
  const float *residual; /* NULL for none */
  size_t residual_step;
  double scale, residual_scale;
  bool residual_relu;
};

/* output = sum over inputs of coefficient * input, in double from 0, in order; rounded to float32. */
struct hwgq_add_job {
  const float *const *inputs;
  const float *coefficients;
  int input_count;
  size_t count;
  float *output;
};

/* sums = factor * accumulators, or are increased by that, in double. */
struct hwgq_accumulate_job {
  const int32_t *accumulators;
  double factor;
  bool first; /* the sums start at 0 */
  size_t count;
  double *sums;
};

/* One row of max pooling over blocks of accumulators. Windows are cut at the borders. */
struct hwgq_pool_job {
  const void *accumulators; /* first of the window's lines */
  size_t line_step;
  int lines, columns; /* valid lines of the window; pixels in a line */
  int output_columns, kernel, stride, pad;
  void *output; /* [output_columns][HWGQ_LANES] */
};

/* The largest levels of the packed pixels of a window, 32 channels at a time. digits: planes are binary digits of levels; else
 * each plane is compared by itself. Bits of `reversed` are inverted before and after, so that the smallest level counts there.
 */
struct hwgq_max_job {
  const uint32_t *input;
  size_t row_step, column_step; /* uint32 */
  int rows, columns;            /* of the window: 1 or more */
  size_t words;
  int planes;
  bool digits;
  const uint32_t *reversed; /* [words][planes], NULL for none */
  uint32_t *output;         /* [words][planes] */
};

/* Sum in double over a window of float pixels, row by row, divided by `divisor` and rounded to float32. */
struct hwgq_average_job {
  const float *input;
  size_t row_step, column_step; /* floats */
  int rows, columns;
  size_t channels;
  double divisor;
  float *output;
};

/* Matrix times vector in float32: 16 partial sums over i % 16 by fused multiply-add, i rising, then halves are added: 8, 4,
 * 2, 1. Rows of weights are padded with zeros to a multiple of 16, and so is the input by the kernel. */
struct hwgq_linear_job {
  const float *input;
  size_t inputs, weight_step;
  const float *weights;
  size_t outputs;
  float *output;
};

struct hwgq_kernels {
  const char *name;                             /* "scalar", "avx2", "avx512", "neon" */
  struct hwgq_bconv_form forms[HWGQ_MAX_FORMS]; /* preferred first; the last one takes everything; then name NULL */
  struct hwgq_sliced sliced;
  void (*fconv)(const struct hwgq_conv_job *job); /* float32 fused multiply-add, from 0 */
  struct hwgq_iconv_form iconvs[HWGQ_MAX_ICONVS]; /* preferred first; the last one runs wherever the set does */
  void (*sums)(const struct hwgq_sums_job *job);
  void (*pack_i32)(const struct hwgq_pack_job *job);
  void (*pack_f32)(const struct hwgq_pack_job *job);
  void (*pack_f64)(const struct hwgq_pack_job *job);
  void (*affine_i32)(const struct hwgq_affine_job *job);
  void (*affine_f32)(const struct hwgq_affine_job *job);
  void (*affine_f64)(const struct hwgq_affine_job *job);
  void (*add)(const struct hwgq_add_job *job);
  void (*accumulate)(const struct hwgq_accumulate_job *job);
  void (*pool_i32)(const struct hwgq_pool_job *job);
  void (*pool_f32)(const struct hwgq_pool_job *job);
  void (*pool_f64)(const struct hwgq_pool_job *job);
  void (*max)(const struct hwgq_max_job *job);
  /* output = e^(input - highest) as hwgq_exp gives it; no input is above `highest` */
  void (*exp)(const float *input, size_t count, float highest, double *output);
  void (*average)(const struct hwgq_average_job *job);
  void (*linear)(const struct hwgq_linear_job *job);
};

/* Kernel sets by index, best last; NULL at the end. */
const struct hwgq_kernels *hwgq_kernels_get(int index);
/* NULL for an unknown name. */
const struct hwgq_kernels *hwgq_kernels_find(const char *name);
/* Whether this CPU and operating system can run a set (cpu.c). */
bool hwgq_kernels_supported(const struct hwgq_kernels *kernels);

/* The same for one form of a supported set. */
bool hwgq_form_supported(const struct hwgq_bconv_form *form);
/* Whether this CPU is faster with it than with the forms after it, on inputs of so many planes. */
bool hwgq_form_preferred(const struct hwgq_bconv_form *form, int planes);

/* Whether this CPU has what the set's bit-sliced kernels need beside the set itself, and the share of the lanes from which on
 * they are faster than the forms; `floats`: the sums are wanted, not only which thresholds they reach. */
bool hwgq_sliced_supported(const struct hwgq_kernels *kernels);
double hwgq_sliced_share(const struct hwgq_kernels *kernels, bool floats);

/* codes.c: what a form with codes needs, per pixel of `words` words of planes. A unit is what `length` of a job counts. */
size_t hwgq_code_elements(const struct hwgq_bconv_form *form, int words); /* uint32 per pixel */
size_t hwgq_code_units(const struct hwgq_bconv_form *form, int words);    /* units per pixel */
size_t hwgq_code_unit_weights(const struct hwgq_bconv_form *form);        /* uint32 of weights per unit, of a whole span */
size_t hwgq_code_table_bytes(const struct hwgq_bconv_form *form);
void hwgq_code_make_tables(const struct hwgq_bconv_form *form, uint8_t *tables);
/* Weights of one tap of one block, bits[word][HWGQ_LANES], into the weights of its span's tap, as block `part` of the span. */
void hwgq_code_arrange(const struct hwgq_bconv_form *form, const uint32_t *bits, int words, int part, uint8_t *weights);

#define HWGQ_DECLARE_KERNELS(isa)                                                                                              \
  void hwgq_bconv_popcount_##isa(const struct hwgq_conv_job *job);                                                             \
  void hwgq_fconv_direct_##isa(const struct hwgq_conv_job *job);                                                               \
  void hwgq_sums_##isa(const struct hwgq_sums_job *job);                                                                       \
  void hwgq_pack_i32_##isa(const struct hwgq_pack_job *job);                                                                   \
  void hwgq_pack_f32_##isa(const struct hwgq_pack_job *job);                                                                   \
  void hwgq_pack_f64_##isa(const struct hwgq_pack_job *job);                                                                   \
  void hwgq_affine_i32_##isa(const struct hwgq_affine_job *job);                                                               \
  void hwgq_affine_f32_##isa(const struct hwgq_affine_job *job);                                                               \
  void hwgq_affine_f64_##isa(const struct hwgq_affine_job *job);                                                               \
  void hwgq_add_##isa(const struct hwgq_add_job *job);                                                                         \
  void hwgq_accumulate_##isa(const struct hwgq_accumulate_job *job);                                                           \
  void hwgq_pool_i32_##isa(const struct hwgq_pool_job *job);                                                                   \
  void hwgq_pool_f32_##isa(const struct hwgq_pool_job *job);                                                                   \
  void hwgq_pool_f64_##isa(const struct hwgq_pool_job *job);                                                                   \
  void hwgq_exp_##isa(const float *input, size_t count, float highest, double *output);                                        \
  void hwgq_max_##isa(const struct hwgq_max_job *job);                                                                         \
  void hwgq_average_##isa(const struct hwgq_average_job *job);                                                                 \
  void hwgq_linear_##isa(const struct hwgq_linear_job *job)

HWGQ_DECLARE_KERNELS(scalar);
HWGQ_DECLARE_KERNELS(avx2);
HWGQ_DECLARE_KERNELS(avx512);
HWGQ_DECLARE_KERNELS(neon);

#define HWGQ_DECLARE_SLICED(isa)                                                                                               \
  void hwgq_sliced_list_##isa(const struct hwgq_sliced_list_job *job);                                                         \
  void hwgq_sliced_sum_##isa(const struct hwgq_sliced_job *job);                                                               \
  void hwgq_sliced_compare_##isa(const struct hwgq_sliced_compare_job *job);                                                   \
  void hwgq_sliced_unpack_##isa(const struct hwgq_sliced_unpack_job *job)
HWGQ_DECLARE_SLICED(scalar);
HWGQ_DECLARE_SLICED(avx2);
HWGQ_DECLARE_SLICED(avx512);
HWGQ_DECLARE_SLICED(neon);

void hwgq_bconv_lookup4_avx2(const struct hwgq_conv_job *job);
void hwgq_bconv_lookup4_avx512(const struct hwgq_conv_job *job);
void hwgq_bconv_lookup6_avx512vbmi(const struct hwgq_conv_job *job);
void hwgq_encode4_avx2(const struct hwgq_encode_job *job);
void hwgq_encode6_avx512(const struct hwgq_encode_job *job);
void hwgq_bconv_lookup4_neon(const struct hwgq_conv_job *job);
void hwgq_encode4_neon(const struct hwgq_encode_job *job);

#endif
