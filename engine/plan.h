/* What a plan is made of: tensors with a place in the scratch memory, and stages that read and write them.
 *
 * plan.c        creates and describes plans
 * plan_build.c  walks the network; one stage per layer that nothing else takes
 * plan_chain.c  decides which layers end a stage: batch norm, scale, relu, quantizers
 * plan_concat.c  lets convolutions write their part of a concatenation
 * plan_weighted.c  stages of convolutions and linear layers
 * plan_conv.c   packs the weights of convolutions and linear layers
 * plan_epilogue.c  folds what follows an accumulator
 * plan_buffers.c   gives tensors their place
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
  size_t bytes, offset; /* in the scratch memory, 64-byte aligned */
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

/* A convolution, or a linear layer as a convolution whose kernel is its whole input. */
struct plan_conv {
  bool binary;
  const struct hwgq_bconv_form *form; /* binary */
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

/* A float linear layer. */
struct plan_linear {
  size_t inputs, outputs, weight_step;
  const float *weights; /* [out][weight_step], inputs in the tensor's order */
};

enum { PLAN_TEMPORARIES = 8 };
enum { TEMP_ACCUMULATORS, TEMP_POOLED, TEMP_SUMS, TEMP_CORRECTIONS, TEMP_PLANE, TEMP_BITS, TEMP_CODES, TEMP_POWERS };

struct plan_frame; /* of one run */

struct plan_stage {
  const char *name, *kernel;
  int last_layer;
  uint64_t macs;
  size_t weight_bytes;
  void (*run)(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
  int input_count;
  int inputs[HWGQ_MAX_INPUTS];
  int output, second_output;         /* tensors; -1: no second one */
  int temporaries[PLAN_TEMPORARIES]; /* tensors, -1: not used */
  struct plan_conv conv;
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
  bool keep_all_layers;
  size_t scratch_bytes;
};

/* One run: its memory and its input (one of the two). */
struct plan_frame {
  uint8_t *scratch;
  const uint8_t *pixels;
  const float *input;
};

static inline void *plan_data(const struct hwgq_plan *plan, const struct plan_frame *frame, int tensor) {
  return frame->scratch + plan->tensors[tensor].offset;
}

/* ---- building ----------------------------------------------------------------------------------------------------------- */

struct plan_builder {
  const struct hwgq_network *network;
  struct hwgq_plan *plan;
  struct hwgq_error *error;
  int consumer_count[HWGQ_MAX_LAYERS]; /* uses of a layer's output */
  int consumer[HWGQ_MAX_LAYERS];       /* the last one */
  bool folded[HWGQ_MAX_LAYERS];        /* already part of a stage */
  int *float_version;                  /* [tensor capacity]: tensor with the same values as floats, 0 for none */
  int parts[HWGQ_MAX_LAYERS];          /* concat layers: the tensor that their inputs' stages write, 0 for none yet */
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
                                  const bool *flip, int32_t bound);
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
/* plan_conv.c: fills stage->conv or stage->linear from a layer and its input tensor. `flip` [out_channels]: channels whose
 * weights change sign. */
enum hwgq_status plan_pack_conv(struct plan_builder *builder, struct plan_stage *stage, const struct hwgq_layer *layer,
                                const struct plan_tensor *input, const struct hwgq_layer *pool, const bool *flip);
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
 * [channels]: accumulators that have the opposite sign, or NULL. bound: largest |accumulator| when it is an integer. */
enum hwgq_status plan_fold_floats(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const bool *flip);
enum hwgq_status plan_fold_levels(struct plan_builder *builder, struct plan_epilogue *epilogue, const struct hwgq_chain *chain,
                                  const struct hwgq_layer *quantize, const bool *flip, int32_t bound);
/* plan_buffers.c */
enum hwgq_status plan_place_buffers(struct plan_builder *builder);

/* ---- running ------------------------------------------------------------------------------------------------------------ */

void run_input(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_conv(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_linear(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_chain(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_unpack(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_max_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_avg_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_add(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_concat(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_flatten(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_softmax(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_packed_max_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_packed_concat(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);
void run_packed_flatten(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame);

/* Applies an epilogue to `pixels` pixels of one block, of which the first is pixel `first` of the output. `bits`: memory for
 * unaligned blocks, planes * pixels words. Blocks that share words of the output must come in order, for every pixel. */
void run_epilogue(const struct hwgq_plan *plan, const struct plan_frame *frame, const struct plan_epilogue *epilogue, int block,
                  const void *accumulators, size_t accumulator_step, size_t pixels, size_t first, uint32_t *bits);
/* Values of `channels` channels of a tensor, from `channel` on, as CHW floats. */
void run_unpack_chw(const struct plan_tensor *tensor, const void *data, int channel, int channels, float *values);

#endif
