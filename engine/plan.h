/* What a plan is made of: tensors with a place in the scratch memory, and stages that read and write them.
 *
 * plan.c        creates and describes plans
 * plan_build.c  walks the network; one stage per layer that nothing else takes
 * plan_chain.c  decides which layers end a stage: batch norm, scale, relu, quantizers
 * plan_concat.c  lets convolutions write their part of a concatenation
 * plan_weighted.c  stages of convolutions and linear layers
 * plan_conv.c   packs the weights of convolutions and linear layers
 * plan_sliced.c  the same for bit-sliced convolutions
 * plan_pixels.c  the first convolution in integers, from 8-bit pixels
 * plan_epilogue.c  folds what follows an accumulator
 * plan_buffers.c   gives tensors their place
 * plan_units.c     cuts stages into units that can run at the same time
 * run*.c        execute stages */
#ifndef HWGQ_PLAN_H
#define HWGQ_PLAN_H

#include "engine/arena.h"
#include "engine/fold.h"
#include "engine/hwgq.h"
#include "engine/kernels/kernels.h"

/* ---- tensors ------------------------------------------------------------------------------------------------------------ */

/* What the planes of a packed tensor are worth.
 *   binary digits: value = unit * level, level = sum of 2^p * plane p   (uniform quantizers)
 *   sign:          value = 2 * plane 0 - 1
 *   thermometer:   plane j is set when level > j; value = sum of steps[j] * plane j, steps[j] = centers[j] - centers[j - 1] */
struct plan_coding {
  bool sign, thermometer;
  int levels, planes;
  double unit;                       /* 1 for sign and thermometer */
  double steps[HWGQ_MAX_LEVELS];     /* thermometer */
  float values[HWGQ_MAX_LEVELS + 1]; /* of each level */
};

enum plan_format { PLAN_FLOAT, PLAN_PACKED, PLAN_TEMPORARY };

struct plan_tensor {
  enum plan_format format;
  struct hwgq_shape shape; /* as stored; a flatten layer's tensor may be its input's (same order, CHW) */
  struct plan_coding coding;
  bool blocked;         /* floats: [block of HWGQ_LANES channels][pixel][channel of the block], not HWC */
  int in_place;         /* takes over the memory of this tensor, -1: has its own */
  size_t bytes, offset; /* in the scratch memory, or when `local` in the participant's own; 64-byte aligned */
  bool local;           /* a temporary that each participant has for itself */
  int first, last;      /* stages during which it must exist */
};

static inline int plan_words(const struct plan_tensor *tensor) {
  return (tensor->shape.channels + 31) / 32;
}
/* uint32 per pixel of a packed tensor */
static inline size_t plan_pixel_words(const struct plan_tensor *tensor) {
  return (size_t)plan_words(tensor) * (size_t)tensor->coding.planes;
}
static inline size_t plan_pixels(struct hwgq_shape shape) {
  return (size_t)shape.height * (size_t)shape.width;
}

/* Index of a float, and from there to the same channel of the next pixel. */
static inline size_t plan_float_index(const struct plan_tensor *tensor, size_t pixel, size_t channel) {
  if (!tensor->blocked) return pixel * (size_t)tensor->shape.channels + channel;
  return (channel / HWGQ_LANES * plan_pixels(tensor->shape) + pixel) * HWGQ_LANES + channel % HWGQ_LANES;
}
static inline size_t plan_float_step(const struct plan_tensor *tensor) {
  return tensor->blocked ? HWGQ_LANES : (size_t)tensor->shape.channels;
}

/* ---- stages ------------------------------------------------------------------------------------------------------------- */

enum plan_type { PLAN_I32, PLAN_F32, PLAN_F64 };

/* Up to HWGQ_LANES out channels that are computed together; a block never crosses a group. */
struct plan_block {
  int channel, count; /* first channel, channels */
  int lanes;          /* of the weights: 16 or 32 */
  int group;
  size_t weights; /* element index of its weights */
};

/* What happens to the accumulators of a block: they become floats by affine steps, or levels by thresholds; or floats, which
 * may be added to a residual, and levels of those floats at once. Writes one or two tensors, from channel `channel` on. */
struct plan_epilogue {
  enum plan_type type;
  const struct plan_block *blocks;
  int block_count;
  int channel;        /* of the output tensors: where channel 0 of the blocks goes */
  int floats, levels; /* tensors, -1 for none */
  /* levels */
  int level_count;
  enum plan_type threshold_type; /* `type`, or PLAN_F32 for levels of the floats that the affine steps give */
  const void *thresholds;        /* [block][level_count][HWGQ_LANES] of threshold_type */
  const uint32_t *negate;        /* [block] */
  double bound;                  /* what thresholds are compared with lies within -bound .. bound */
  bool unaligned;                /* some block does not start at a word of the levels' tensor */
  /* floats */
  int steps; /* 0: levels come from accumulators */
  uint32_t relu, round;
  const double *factors; /* [block][steps][2][HWGQ_LANES] */
  int residual;          /* tensor that is added, -1 for none */
  bool residual_relu;    /* negative sums become 0 */
  double scale, residual_scale;
};

/* Consecutive output positions along one axis with the same valid kernel taps. */
struct plan_segment {
  int start, count; /* output positions */
  int tap, taps;    /* first valid tap, number of valid taps */
  int input;        /* input position of the first tap at `start` */
};

struct plan_window {
  int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width;
};

static inline struct plan_window plan_window_of(const struct hwgq_layer *layer) {
  return (struct plan_window){layer->kernel_height, layer->kernel_width, layer->stride_height,
                              layer->stride_width,  layer->pad_height,   layer->pad_width};
}

/* The words (binary) or channels (float) of a tap that a group uses. */
struct plan_group {
  int first, count;
  const uint32_t *masks; /* binary: [count], the group's channels in each word */
};

/* Out channels of one group that share a tile shape (plan_sliced.c). */
struct sliced_part {
  int group, first_block, block_count; /* blocks of HWGQ_LANES out channels */
  int blocks;                          /* of the kernel's lanes */
  int pixel_lanes, pixels;             /* lanes per output pixel (a power of two from 32 on), output pixels of a tile */
  int tile_height, tile_width;
  int source_rows, source_columns; /* input pixels that a tile reads */
  const uint8_t *weights;          /* [blocks][weight_step]: [parts][part_step]: rows [source][channel], a row of zeros */
  size_t weight_step, part_step;
  int part_sources; /* of all parts but the last, which may have fewer */
  uint16_t zero;
  const uint32_t *thresholds; /* [blocks][sum_planes + 2][levels][lanes / 32], + bound */
};

/* A bit-sliced convolution. Offsets are into the stage's memory of one run. */
struct plan_sliced {
  const struct hwgq_sliced *kernels;
  int lanes, sum_planes;
  int32_t bound; /* no sum of levels times +-1 is beyond -bound .. bound */
  int part_count;
  struct sliced_part *parts;
  int tile_rows;               /* the highest tile */
  int input_rows, output_rows; /* of the rings */
  int column_units;            /* units that a row of the output is cut into */
  size_t usual, offsets_step;  /* of lists, in offsets: see struct hwgq_sliced_job; what follows is in bytes */
  size_t bytes, offsets, counts, totals, column_totals, window_totals, sources, list, sums, masks, pooled, output;
};

/* A convolution, or a linear layer as a convolution whose kernel is its whole input. */
struct plan_conv {
  bool binary;
  const struct hwgq_bconv_form *form; /* binary, not sliced */
  struct plan_sliced *sliced;         /* binary, or NULL */
  const uint8_t *tables;              /* of the form's codes, NULL for none */
  struct hwgq_shape in, out;          /* out: before pooling */
  struct plan_window window;
  struct plan_segment *lines, *columns;
  int line_segments, column_segments;
  struct plan_group *groups;
  int group_count;
  struct plan_block *blocks;
  int block_count;
  const void *weights;     /* [block][kernel row][kernel column][word or channel][lanes]; forms with codes: codes.c */
  const int32_t *tap_sums; /* sign input: [block][kernel row][kernel column][HWGQ_LANES], sums of the +-1 weights */
  bool pooled;
  struct plan_window pool;
  struct hwgq_shape final; /* after pooling */
  int band;                /* rows of `final` that are computed at once */
  int band_lines;          /* rows of `out` that this needs at most */
  int bands;               /* number of bands */
  int slices;              /* ranges of bands that belong to different units of work */
};

/* Place of a block in the span that computes it: spans start at every second block of a group when the form's span is 2. */
static inline int plan_span_part(const struct plan_conv *conv, int block) {
  if (!conv->form || conv->form->span == 1) return 0;
  const int per_group = conv->block_count / conv->group_count;
  return block % per_group % conv->form->span;
}
/* Blocks of the span that starts with `block`. */
static inline int plan_span(const struct plan_conv *conv, int block) {
  return block + 1 < conv->block_count && plan_span_part(conv, block + 1) == 1 ? 2 : 1;
}

/* Spans of a layer, and the first block of one. */
static inline int plan_span_count(const struct plan_conv *conv) {
  const int per_group = conv->block_count / conv->group_count, size = conv->form ? conv->form->span : 1;
  return (per_group + size - 1) / size * conv->group_count;
}
static inline int plan_span_block(const struct plan_conv *conv, int span) {
  const int per_group = conv->block_count / conv->group_count, size = conv->form ? conv->form->span : 1;
  const int spans = (per_group + size - 1) / size;
  return span / spans * per_group + span % spans * size;
}

/* A float linear layer. */
struct plan_linear {
  size_t inputs, outputs, weight_step;
  const float *weights; /* [out][weight_step], inputs in the tensor's order */
};

enum { PLAN_TEMPORARIES = 10 };
enum {
  TEMP_ACCUMULATORS,
  TEMP_POOLED,
  TEMP_SUMS,
  TEMP_CORRECTIONS,
  TEMP_PLANE,
  TEMP_BITS,
  TEMP_CODES,
  TEMP_SLICED,
  TEMP_POWERS,
  TEMP_PIXELS
};
/* Temporaries that carry something from one step to the next, or from one unit to another: one for all participants. Of the
 * others each participant has its own. */
#define PLAN_SHARED_TEMPORARIES (1u << TEMP_CORRECTIONS | 1u << TEMP_CODES)

/* ---- steps and units ------------------------------------------------------------------------------------------------------
 * A stage runs in one or two steps, `prepare` (where there is one) and `run`; a step begins when the one before it is complete.
 * A step consists of units, numbered from 0. Several participants may run one step at the same time, each some ranges of its
 * units, in any order; every unit runs exactly once. So a unit
 *   writes parts of the output and of shared temporaries that no other unit of its step touches (a 32-bit word is the smallest
 *   part) and reads nothing that another unit of its step writes,
 *   keeps what it needs meanwhile in local temporaries, whose contents are lost when the call ends,
 *   gives the same bits whatever ranges the units come in.
 * A single thread passes all units of a step in one call: what neighbouring units can share (rows of a band, weights in the
 * cache) is shared within a call. A new kind of stage starts with one unit, which is always right; plan_units.c gives it more.
 */

struct plan_frame; /* of one run */
struct plan_stage;
struct plan_pixels;

struct plan_units {
  int begin, end; /* begin .. end - 1, at least one */
};

typedef void plan_run(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                      struct plan_units units);

struct plan_stage {
  const char *name, *kernel;
  int last_layer;
  uint64_t macs;
  size_t weight_bytes;
  plan_run *prepare, *run; /* prepare: NULL for none */
  int prepare_units, run_units;
  uint64_t cost_ns; /* what the stage takes about, on one fast core: only the order of magnitude counts */
  int input_count;
  int inputs[HWGQ_MAX_INPUTS];
  int output, second_output;         /* tensors; -1: no second one */
  int temporaries[PLAN_TEMPORARIES]; /* tensors, -1: not used */
  struct plan_conv conv;
  struct plan_pixels *pixels; /* a first convolution that takes pixels (plan_pixels.h), else NULL */
  struct plan_linear linear;
  struct plan_epilogue epilogue;
  struct plan_window window;           /* pooling */
  const uint32_t *reversed;            /* pooling of levels: [word][plane] bits to invert first and last; NULL: none */
  float coefficients[HWGQ_MAX_INPUTS]; /* add */
};

struct hwgq_plan {
  struct hwgq_arena arena; /* everything below except the two growing arrays */
  const struct hwgq_kernels *kernels;
  const char *form;                      /* of binary convolutions, where it is possible; NULL: the set's choice */
  const uint8_t *tables[HWGQ_MAX_FORMS]; /* of forms with codes that are in use */
  int stage_count, stage_capacity;
  struct plan_stage *stages;
  int tensor_count, tensor_capacity;
  struct plan_tensor *tensors;
  int layer_count;
  int *layer_tensors; /* [layer_count]: -1 when folded into another stage */
  /* [layer_count]: channels of a layer that is a part of its tensor, and the first of them; else 0 */
  int *layer_parts, *layer_channels;
  char **layer_names;
  struct hwgq_shape input;
  int input_tensor, output_tensor, output_count;
  float (*pixel_values)[256]; /* [input channels]: network input value of each pixel value */
  bool only_pixels;           /* a run on pixels does not read the input tensor */
  bool keep_all_layers;
  size_t shared_bytes, local_bytes; /* of scratch memory: of a run, and of each of its participants */
};

/* One run as one of its participants sees it: memory, and the input (one of the two). */
struct plan_frame {
  uint8_t *scratch, *local; /* all participants'; this one's */
  const uint8_t *pixels;
  const float *input;
};

static inline void *plan_data(const struct hwgq_plan *plan, const struct plan_frame *frame, int tensor) {
  return (plan->tensors[tensor].local ? frame->local : frame->scratch) + plan->tensors[tensor].offset;
}

/* The part of `total` things that a range of a step's `count` units covers when they are dealt out evenly. */
struct plan_slice {
  size_t begin, end;
};
static inline struct plan_slice plan_slice(size_t total, int count, struct plan_units units) {
  return (struct plan_slice){(size_t)((uint64_t)total * (uint64_t)units.begin / (uint64_t)count),
                             (size_t)((uint64_t)total * (uint64_t)units.end / (uint64_t)count)};
}

/* ---- building ----------------------------------------------------------------------------------------------------------- */

struct plan_builder {
  const struct hwgq_network *network;
  const struct hwgq_preprocess *preprocess; /* or NULL */
  const char *first_conv;                   /* as in struct hwgq_plan_options */
  struct hwgq_plan *plan;
  struct hwgq_error *error;
  int consumer_count[HWGQ_MAX_LAYERS]; /* uses of a layer's output */
  int consumer[HWGQ_MAX_LAYERS];       /* the last one */
  bool folded[HWGQ_MAX_LAYERS];        /* already part of a stage */
  int *float_version;                  /* [tensor capacity]: tensor with the same values as floats, 0 for none */
  int parts[HWGQ_MAX_LAYERS];          /* concat layers: the tensor that their inputs' stages write, 0 for none yet */
  int missing_parts[HWGQ_MAX_LAYERS];  /* inputs whose stages have not been added yet */
};

/* How a stage ends. */
struct plan_ending {
  struct hwgq_chain chain;            /* from the accumulators to floats or, with a quantizer, to levels */
  const struct hwgq_layer *quantize;  /* NULL: ends in floats */
  int last;                           /* layer whose output that is */
  int concat, channel;                /* layer that joins it with others from this channel on; -1 for none */
  int add, other;                     /* add layer of the floats and its input that is not theirs; -1 for none */
  bool relu;                          /* after the addition */
  struct hwgq_chain second;           /* from the floats to levels */
  const struct hwgq_layer *quantize2; /* NULL: no such levels */
  int last2;
};

/* What joins the inputs of a concat layer whose stages write their parts of it. */
struct plan_join {
  bool possible;
  int first, last; /* first channel of the layers after it that are folded, and the layer whose output the parts are */
  int pool;        /* max pooling between the parts and the last layer, -1 for none */
  int chain_count; /* layers after it */
  int chain[HWGQ_MAX_CHAIN];
  const struct hwgq_layer *quantize; /* of the parts, NULL for floats */
  bool own_quantizers;               /* every part has its own */
};

enum hwgq_status plan_out_of_memory(const struct plan_builder *builder);
/* Appends a tensor; its bytes follow from format and shape (PLAN_TEMPORARY: `bytes`). */
enum hwgq_status plan_add_tensor(struct plan_builder *builder, enum plan_format format, struct hwgq_shape shape,
                                 const struct plan_coding *coding, size_t bytes, int *tensor);
/* Appends a zeroed stage. The pointer is good until the next stage is added. */
enum hwgq_status plan_add_stage(struct plan_builder *builder, struct plan_stage **stage);
enum hwgq_status plan_build(struct plan_builder *builder);
/* plan_build.c: small steps that the others share. */
static inline struct plan_tensor *plan_tensor_at(const struct plan_builder *builder, int tensor) {
  return &builder->plan->tensors[tensor];
}
int plan_tensor_of(const struct plan_builder *builder, int layer);
/* The only user of a layer's output, -1 when there are several or none. */
int plan_only_consumer(const struct plan_builder *builder, int layer);
enum hwgq_status plan_add_layer_stage(struct plan_builder *builder, int layer, const char *kernel, struct plan_stage **stage);
enum hwgq_status plan_add_temporary(struct plan_builder *builder, int stage, int which, uint64_t bytes);
/* The float version of a tensor: itself, or the output of an unpack stage that is made once. */
enum hwgq_status plan_as_float(struct plan_builder *builder, int layer, int tensor, int *result);
/* plan_chain.c */
bool plan_joins_chain(enum hwgq_op op);
/* Appends the layers after ending->last that only it feeds, up to a quantizer. */
void plan_extend(struct plan_builder *builder, struct plan_ending *ending);
/* Appends what can be made of the floats at the end at once: a sum, and levels. */
void plan_extend_floats(struct plan_builder *builder, struct plan_ending *ending);
/* Tensors of an ending, for a stage that is added then and whose blocks start at multiples of 32 channels when `aligned`. */
enum hwgq_status plan_add_outputs(struct plan_builder *builder, const struct plan_ending *ending, bool aligned,
                                  struct plan_epilogue *epilogue);
/* Thresholds and affine steps of a stage whose blocks and types are known. */
enum hwgq_status plan_fold_ending(struct plan_builder *builder, struct plan_stage *stage, const struct plan_ending *ending,
                                  const bool *flip, double bound);
enum hwgq_status plan_build_chain(struct plan_builder *builder, int index);
/* plan_concat.c */
void plan_find_join(const struct plan_builder *builder, int concat, struct plan_join *join);
void plan_extend_concat(struct plan_builder *builder, struct plan_ending *ending);
/* The max pooling of a joined tensor. */
enum hwgq_status plan_build_joined_pool(struct plan_builder *builder, int concat, const struct plan_join *join);
enum hwgq_status plan_add_part(struct plan_builder *builder, const struct plan_ending *ending, int *tensor);
/* plan_weighted.c */
enum hwgq_status plan_build_weighted(struct plan_builder *builder, int index);
bool plan_can_pool(const struct plan_builder *builder, int conv, int pool);
/* What packing a layer's weights needs to know. `flip` [out_channels]: channels whose weights change sign, or NULL. */
struct plan_packing {
  const struct plan_conv *conv;
  const struct hwgq_layer *layer;
  const bool *flip;
  size_t fan_in, taps, channels; /* channels of a group's input */
};

/* plan_conv.c: fills stage->conv, but for the weights, from a layer and its input tensor, and the epilogue's blocks. */
enum hwgq_status plan_shape_conv(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                 const struct plan_tensor *input, const struct hwgq_layer *pool);
/* The weights. */
enum hwgq_status plan_pack_conv(struct plan_builder *builder, struct plan_stage *stage, const struct plan_packing *packing,
                                const struct plan_tensor *input);
struct plan_packing plan_packing_of(const struct plan_builder *builder, const struct plan_stage *stage,
                                    const struct hwgq_layer *layer, const bool *flip);
/* Bits of one block: weights[tap][word of the group][block->lanes], zeroed before; tap_sums [tap][HWGQ_LANES] (or NULL) get the
 * sums of the +-1 weights. */
void plan_pack_bits(const struct plan_packing *packing, const struct plan_block *block, uint32_t *weights, int32_t *tap_sums);
/* Zeroed memory of the plan; an error when the plan becomes too large. */
enum hwgq_status plan_allocate_weights(struct plan_builder *builder, const struct hwgq_layer *layer, uint64_t bytes,
                                       void **memory);
/* plan_sliced.c: whether a shaped and folded convolution will be bit-sliced, and its weights and thresholds. */
bool plan_choose_sliced(const struct hwgq_plan *plan, const struct hwgq_layer *layer, const struct plan_tensor *input,
                        const struct plan_conv *conv, const struct plan_epilogue *epilogue);
enum hwgq_status plan_pack_sliced(struct plan_builder *builder, struct plan_stage *stage, const struct plan_packing *packing,
                                  const struct plan_tensor *input);
/* How a binary layer will be computed. */
const struct hwgq_bconv_form *plan_choose_form(const struct plan_builder *builder, const struct hwgq_layer *layer,
                                               const struct plan_tensor *input);
enum hwgq_status plan_pack_linear(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                  const struct plan_tensor *input);
enum hwgq_status plan_make_blocks(struct plan_builder *builder, int channels, int groups, size_t lane_elements,
                                  struct plan_block **blocks, int *count);
/* plan_epilogue.c */
void plan_coding_of(const struct hwgq_layer *quantize, struct plan_coding *coding);
/* Affine steps; and thresholds, on accumulators or, where steps exist already, on the floats that they give. `flip`
 * [channels]: accumulators that have the opposite sign, or NULL. bound: largest |accumulator| of a binary layer. */
enum hwgq_status plan_fold_floats(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const bool *flip);
enum hwgq_status plan_fold_levels(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const struct hwgq_layer *quantize, const bool *flip, double bound);
/* plan_units.c: sets prepare_units, run_units and cost_ns of every stage. */
void plan_set_units(struct hwgq_plan *plan);
/* plan_buffers.c */
enum hwgq_status plan_place_buffers(struct plan_builder *builder);

/* ---- running ------------------------------------------------------------------------------------------------------------ */

plan_run run_input;
plan_run run_conv_prepare; /* binary: corrections, codes */
plan_run run_conv;
plan_run run_sliced;
plan_run run_first_conv;
plan_run run_linear;
plan_run run_chain;
plan_run run_unpack;
plan_run run_max_pool;
plan_run run_avg_pool;
plan_run run_add;
plan_run run_concat;
plan_run run_flatten;
plan_run run_softmax;
plan_run run_packed_max_pool;
plan_run run_packed_concat;
plan_run run_packed_flatten;

/* Pools row y of the output of `conv`; the accumulators, of `type`, start with row `start` of the convolution. */
void run_pool_row(const struct hwgq_plan *plan, const struct plan_conv *conv, enum plan_type type, const void *accumulators,
                  int start, int y, void *output);
/* Applies an epilogue to `pixels` pixels of one block, of which the first is pixel `first` of the output. `bits`: memory for
 * unaligned blocks, planes * pixels words. Blocks that share words of the output must come in order, for every pixel. */
void run_epilogue(const struct hwgq_plan *plan, const struct plan_frame *frame, const struct plan_epilogue *epilogue, int block,
                  const void *accumulators, size_t accumulator_step, size_t pixels, size_t first, uint32_t *bits);
/* Values of `channels` channels of a tensor, from `channel` on, as CHW floats. */
void run_unpack_chw(const struct plan_tensor *tensor, const void *data, int channel, int channels, float *values);

#endif
