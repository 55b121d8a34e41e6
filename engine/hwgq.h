/* libhwgq: the engine. A network description goes in, class probabilities come out.
 *
 * HWGQ networks (Cai, He, Sun, Vasconcelos, arXiv 1702.00953) have 1-bit weights and activations of a few levels. The engine
 * keeps a network as it was trained, folds it to integer thresholds when a plan is made, and runs the plan on packed bits.
 *
 * Reading order: this header, network.c (the description), plan.c (folding and buffers), run.c (execution), reference.c (the
 * slow double-precision executor that defines what is right).
 *
 * Conventions
 *   - A function that can fail returns enum hwgq_status and writes a sentence (what, where, what to do) to *error. `error` may
 *     be NULL. On failure the result pointer is left untouched.
 *   - Nothing here prints, exits or keeps global mutable state. A created object is freed by its _destroy function, which
 *     accepts NULL.
 *   - A network, a model and a plan are immutable once made and may be shared by any number of threads. */
#ifndef HWGQ_H
#define HWGQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HWGQ_VERSION "0.1.0"

/* ---- status ------------------------------------------------------------------------------------------------------------ */

enum hwgq_status {
  HWGQ_OK = 0,
  HWGQ_ERROR_IO,          /* the operating system refused: open, read, write */
  HWGQ_ERROR_FORMAT,      /* bytes that are not what they claim to be: damaged, truncated, wrong digest */
  HWGQ_ERROR_INVALID,     /* well-formed, but it makes no sense: shapes that do not fit, unknown names, bad arguments */
  HWGQ_ERROR_LIMIT,       /* larger than a stated limit */
  HWGQ_ERROR_MEMORY,      /* out of memory */
  HWGQ_ERROR_UNSUPPORTED, /* makes sense, but this program cannot do it */
};

struct hwgq_error {
  char message[512];
};

/* Writes a printf-formatted sentence to *error (if not NULL) and returns `status`, so that callers can `return hwgq_fail(...)`.
 */
enum hwgq_status hwgq_fail(struct hwgq_error *error, enum hwgq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* A lower-case word for a status, for logs: "ok", "io", "format", ... */
const char *hwgq_status_name(enum hwgq_status status);

/* ---- the network description -------------------------------------------------------------------------------------------- */

enum {
  HWGQ_MAX_INPUTS = 16, /* inputs of one add or concat layer */
  HWGQ_MAX_LEVELS = 15, /* non-zero levels of a quantizer: 4 bits */
  HWGQ_MAX_LAYERS = 1024,
  HWGQ_MAX_DIMENSION = 1 << 16, /* channels, height or width of any tensor */
  HWGQ_MAX_KERNEL = 64,         /* kernel height or width, stride, pad */
};

enum hwgq_op {
  HWGQ_CONV2D,
  HWGQ_LINEAR, /* takes CHW in that order, whatever its shape: no flatten layer is needed before it */
  HWGQ_QUANTIZE,
  HWGQ_BATCH_NORM,
  HWGQ_SCALE,
  HWGQ_RELU,
  HWGQ_MAX_POOL,
  HWGQ_AVG_POOL,
  HWGQ_ADD,
  HWGQ_CONCAT,  /* along channels */
  HWGQ_FLATTEN, /* C,H,W -> C*H*W,1,1 */
  HWGQ_SOFTMAX, /* over channels, of a C,1,1 tensor */
  HWGQ_OP_COUNT
};

struct hwgq_shape {
  int channels, height, width;
};

/* One layer. Which fields matter follows from `op`. Parameter arrays belong to the network; a layer's arrays are NULL until
 * hwgq_network_allocate_parameters. */
struct hwgq_layer {
  char *name; /* unique within the network */
  enum hwgq_op op;
  int input_count;
  int inputs[HWGQ_MAX_INPUTS]; /* indices of earlier layers; HWGQ_NETWORK_INPUT is the network's input */

  /* conv2d and linear (linear: kernel 1x1, stride 1, pad 0). Output size of a convolution rounds down:
   * (in + 2 pad - kernel) / stride + 1. Zero padding is the value 0, also for sign activations. */
  int out_channels;
  int kernel_height, kernel_width, stride_height, stride_width, pad_height, pad_width; /* also max_pool, avg_pool */
  int groups; /* conv2d: both channel counts are divisible by it */
  bool binary, has_alpha, has_bias;
  bool float_pixels;    /* conv2d on the network's input: in float32 also when the input is 8-bit pixels (see hwgq_run) */
  float *weight;        /* float layers: [out_channels][in/groups][kernel_height][kernel_width] */
  uint8_t *weight_bits; /* binary layers: per output channel in/groups*kh*kw bits in that order, bit i at byte i/8, bit i%8
                           (least significant first); 1 is +1, 0 is -1; each channel starts on a byte; unused bits are 0 */
  float *alpha;         /* has_alpha: [out_channels]; output = alpha * sum(+-1 * activation) + bias */
  float *bias;          /* has_bias: [out_channels] */

  /* batch_norm: (x - mean) / sqrt(variance + eps), per channel */
  float eps;
  float *mean, *variance; /* [channels] */

  /* scale: gamma * x + beta, per channel; beta only with has_bias */
  float *gamma, *beta; /* [channels] */

  /* quantize. Either sign: x >= 0 -> +1, else -1. Or: the level is the number of j with x > thresholds[j] (equality goes to
   * the lower level); level 0 stands for 0, level k for centers[k - 1], or for k * centers[0] where all centers are such
   * multiples, rounded to float32. Both arrays increase strictly. */
  bool sign;
  int level_count; /* non-zero levels: 3 for 2 bits */
  float centers[HWGQ_MAX_LEVELS];
  float thresholds[HWGQ_MAX_LEVELS]; /* thresholds[0] is the zero threshold, 0 in the paper */

  /* max_pool, avg_pool: output size rounds up; a last window that starts at or beyond size + pad is dropped. Max ignores
   * padding. The average's divisor counts the window's cells up to size + pad, padding included. Global pooling is a kernel of
   * the input's size with global_pool set (kernel fields are then filled by shape inference). */
  bool global_pool;

  /* add: sum of coefficients[i] * input i */
  float coefficients[HWGQ_MAX_INPUTS];

  struct hwgq_shape output; /* by shape inference */
};

enum { HWGQ_NETWORK_INPUT = -1 };

struct hwgq_network {
  char *name;
  struct hwgq_shape input;
  int layer_count;
  struct hwgq_layer *layers; /* in execution order; the last layer is the output */
};

/* An empty network. `name` is copied. */
enum hwgq_status hwgq_network_create(const char *name, struct hwgq_shape input, struct hwgq_network **network,
                                     struct hwgq_error *error);
void hwgq_network_destroy(struct hwgq_network *network);
/* Appends a layer with default fields (kernel 1, stride 1, pad 0, groups 1, coefficients 1, eps 1e-5) and returns it in *layer,
 * for the caller to fill in before the next call on this network (the array may move). Inputs: names of earlier layers, or
 * "input" for the network's input. The reserved name "input" is refused for a layer. */
enum hwgq_status hwgq_network_add(struct hwgq_network *network, const char *name, enum hwgq_op op, int input_count,
                                  const char *const *inputs, struct hwgq_layer **layer, struct hwgq_error *error);
/* Infers every layer's output shape and checks every field; messages name the layer. Must succeed before anything below. */
enum hwgq_status hwgq_network_infer(struct hwgq_network *network, struct hwgq_error *error);
/* Allocates every parameter array that is still NULL, zero-filled (variance, gamma and alpha 1). */
enum hwgq_status hwgq_network_allocate_parameters(struct hwgq_network *network, struct hwgq_error *error);
/* Frees every parameter array: a plan has its own copy. What is left describes the layers. */
void hwgq_network_release_parameters(struct hwgq_network *network);
/* Index of a layer by name, HWGQ_NETWORK_INPUT for "input", -2 when there is none. */
int hwgq_network_find(const struct hwgq_network *network, const char *name);
/* Shape of a layer's input i. */
struct hwgq_shape hwgq_network_input_shape(const struct hwgq_network *network, const struct hwgq_layer *layer, int i);
/* Multiply-accumulates of one layer for one image (0 for layers without weights). Padded taps are counted, as usual. */
uint64_t hwgq_layer_macs(const struct hwgq_network *network, const struct hwgq_layer *layer);
const char *hwgq_op_name(enum hwgq_op op);

/* The description as JSON text (no parameters), and back. Format: docs in network_json.c. The text is malloc'ed. */
enum hwgq_status hwgq_network_to_json(const struct hwgq_network *network, char **text, struct hwgq_error *error);
enum hwgq_status hwgq_network_from_json(const char *text, size_t length, struct hwgq_network **network,
                                        struct hwgq_error *error);

/* ---- the model: a network with what is needed to use it ------------------------------------------------------------------ */

enum hwgq_channel_order { HWGQ_RGB, HWGQ_BGR, HWGQ_GRAY };

/* From a decoded image to the network's input: the shorter side is resized to `resize` (0: to the smallest size that covers the
 * network's input), the center is cropped to the network's input size, channels are put in order, and the network's input
 * value of channel c is (pixel - mean[c]) * scale[c] in float32. */
struct hwgq_preprocess {
  enum hwgq_channel_order order;
  int resize;
  bool invert;   /* pixel = 255 - pixel first: for networks trained on light strokes on black, as MNIST's */
  float mean[3]; /* in the order of the network's channels */
  float scale[3];
};

struct hwgq_model {
  struct hwgq_network *network;
  struct hwgq_preprocess preprocess;
  int class_count;  /* channels of the network's output */
  char **labels;    /* class_count names */
  char *provenance; /* a JSON object: how the model was made; "{}" when unknown */
  char digest[40];  /* "xxh3:" and 32 hexadecimal digits, of the tensors' bytes; filled by read and write */
  uint64_t file_bytes;
};

enum { HWGQ_MAX_CLASSES = 1 << 16 };

/* The .hwgq file (a safetensors file; format in file.c). Reading checks everything before trusting anything. */
enum hwgq_status hwgq_model_read(const char *path, struct hwgq_model **model, struct hwgq_error *error);
/* `what` names the bytes in messages. The bytes are not kept. */
enum hwgq_status hwgq_model_parse(const void *bytes, size_t length, const char *what, struct hwgq_model **model,
                                  struct hwgq_error *error);
/* Writes a temporary file beside `path` and renames it, so a reader never sees half a file. */
enum hwgq_status hwgq_model_write(struct hwgq_model *model, const char *path, struct hwgq_error *error);
void hwgq_model_destroy(struct hwgq_model *model);

/* ---- the quantizer ------------------------------------------------------------------------------------------------------ */

struct hwgq_quantizer {
  int level_count;
  float centers[HWGQ_MAX_LEVELS], thresholds[HWGQ_MAX_LEVELS]; /* as in struct hwgq_layer */
  double mean_squared_error;                                   /* E[(q(x) - x)^2] over the positive half of N(0,1) */
};

/* Lloyd's algorithm for the positive half of N(0,1). level_count: 1 to 15 non-zero levels (2^bits - 1). uniform: centers are
 * multiples of one step. half_step_zero: the zero threshold is at half the first center instead of at 0. */
enum hwgq_status hwgq_quantizer_design(int level_count, bool uniform, bool half_step_zero, struct hwgq_quantizer *quantizer,
                                       struct hwgq_error *error);

/* ---- the reference executor ---------------------------------------------------------------------------------------------- */

/* Double precision, layer by layer, unfolded. Slow, and the definition of what is right. Not thread-safe: one per thread. */
struct hwgq_reference;
enum hwgq_status hwgq_reference_create(const struct hwgq_network *network, struct hwgq_reference **reference,
                                       struct hwgq_error *error); /* borrows the network */
void hwgq_reference_destroy(struct hwgq_reference *reference);
/* `input`: CHW values of the network's input. */
enum hwgq_status hwgq_reference_run(struct hwgq_reference *reference, const float *input, struct hwgq_error *error);
/* CHW values of a layer's output after a run. */
const double *hwgq_reference_output(const struct hwgq_reference *reference, int layer);
/* The same run one layer at a time: begin, then step 0, 1, ... layer_count - 1. After a layer's step its output may be
 * replaced; later layers then compute from the replacement, so that each layer can be judged by itself. */
enum hwgq_status hwgq_reference_begin(struct hwgq_reference *reference, const float *input, struct hwgq_error *error);
void hwgq_reference_step(struct hwgq_reference *reference, int layer);
void hwgq_reference_replace(struct hwgq_reference *reference, int layer, const double *values);
/* The network's input values as float32 CHW, from 8-bit HWC pixels in the network's channel order. */
void hwgq_preprocess_to_float(const struct hwgq_preprocess *preprocess, struct hwgq_shape shape, const uint8_t *pixels,
                              float *input);

/* Rounds the weights of convolutions on the network's input to whole numbers of `bits` (8 or 16) times a unit per out channel,
 * with which they can be computed in integers from 8-bit pixels (hwgq_run), exactly. It moves a weight by at most 1/254 (8) or
 * 1/32768 (16) of the out channel's largest. Weights that fit fewer bits stay. HWGQ_ERROR_UNSUPPORTED: there are no such
 * numbers. */
enum hwgq_status hwgq_network_round_pixels(struct hwgq_network *network, const struct hwgq_preprocess *preprocess, int bits,
                                           struct hwgq_error *error);

/* ---- the plan and the runner --------------------------------------------------------------------------------------------- */

struct hwgq_plan;

struct hwgq_plan_options {
  const char *cpu; /* "scalar", "avx2", "avx512", "neon": kernel set; NULL: environment HWGQ_CPU, else the best this CPU has */
  bool keep_all_layers; /* no buffer is reused, so that hwgq_run_output can return every stage's output (tests, verify) */
  const char *form; /* "sliced", "lookup6", "lookup4", "popcount": how binary convolutions are computed where the kernel set can
                       do it that way (all give the same numbers); NULL: its fastest way */
  const char *first_conv; /* "integer" or "float": how a convolution on the network's input computes from pixels, integer with
                             rounded weights if need be; NULL: in integers when that is exact and not refused (float_pixels) */
};

/* Folds, packs weights, plans buffers, picks kernels. Copies what it needs: the model may be destroyed afterwards. */
enum hwgq_status hwgq_plan_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                  const struct hwgq_plan_options *options, struct hwgq_plan **plan, struct hwgq_error *error);
void hwgq_plan_destroy(struct hwgq_plan *plan);

/* Bytes that a run needs beside the plan, and bytes of the plan itself. */
size_t hwgq_plan_scratch_bytes(const struct hwgq_plan *plan);
size_t hwgq_plan_bytes(const struct hwgq_plan *plan);
const char *hwgq_plan_cpu(const struct hwgq_plan *plan); /* the kernel set in use */
int hwgq_plan_output_count(const struct hwgq_plan *plan);
/* The best kernel set of this CPU, and whether a named one can run here. */
const char *hwgq_cpu_best(void);
bool hwgq_cpu_supports(const char *cpu);

/* Runs one image: no allocation, lock or system call. `scratch`: hwgq_plan_scratch_bytes, 64-byte aligned, one per concurrent
 * run, any contents. `scores`: hwgq_plan_output_count floats. Same bits on every kernel set and machine.
 * hwgq_run: pixels HWC, 8 bits, in the network's channel order. A convolution on them is computed in integers when its
 * weights allow it exactly (hwgq_network_round_pixels) and neither the network (float_pixels) nor first_conv asks for floats.
 * hwgq_run_tensor: preprocessed float32 CHW, always in float32: what float32 rounds near a threshold may get another level than
 * from pixels. */
void hwgq_run(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores);
void hwgq_run_tensor(const struct hwgq_plan *plan, void *scratch, const float *input, float *scores);

/* ---- one image by several threads
 * --------------------------------------------------------------------------------------------- A team belongs to one thread at
 * a time, its leader, which runs images with it. Any other thread may help meanwhile, come and go at any time; nobody needs to
 * help. A leader waits only for work that a helper has begun. The bits of the scores do not depend on who helped. */
struct hwgq_team;
enum { HWGQ_MAX_HELPERS = 15 };
/* The leader calls this before each part of a run that helpers could share, when there is room for more of them: it may wake a
 * thread that will help, and should return at once when there is none. Returns whether it woke one: without help, and none to
 * come, the leader does not cut its work into pieces. */
typedef bool hwgq_team_wake(void *context);

/* helpers: 1 to HWGQ_MAX_HELPERS at the same time. wake may be NULL: then helpers are expected at any time. */
enum hwgq_status hwgq_team_create(int helpers, hwgq_team_wake *wake, void *context, struct hwgq_team **team,
                                  struct hwgq_error *error);
/* Nobody may be in hwgq_team_help or call it any more. */
void hwgq_team_destroy(struct hwgq_team *team);
/* Scratch memory of hwgq_run_team, for a team of so many helpers. */
size_t hwgq_plan_team_scratch_bytes(const struct hwgq_plan *plan, int helpers);
/* As hwgq_run, but it may yield the processor and sleep while it waits for a helper. stage_ns: as in hwgq_run_profiled, or
 * NULL. Returns how many helpers had a part in it. */
int hwgq_run_team(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores, struct hwgq_team *team,
                  uint64_t *stage_ns);
/* Helps with the image that the team's leader runs. Returns at once when there is none or no room, and otherwise at its end, or
 * when `leave` (NULL: never) says so, which is asked every few dozen microseconds at least, or when there was nothing to do for
 * some twenty microseconds. Returns whether it computed anything. */
bool hwgq_team_help(struct hwgq_team *team, bool (*leave)(void *context), void *context);
/* Whether there is something to help with right now, and room. A thread that is about to sleep looks once more after it has
 * said so to `wake` (both sequentially consistent): then no call is lost. */
bool hwgq_team_open(const struct hwgq_team *team);

/* ---- looking into plans and runs -------------------------------------------------------------------------------------------
 */

/* A stage is one step of the plan: a layer with the layers that were folded into it. */
struct hwgq_stage_info {
  const char *name;   /* of the layer that gives the stage its work */
  const char *kernel; /* e.g. "bconv_u2_popcount_avx512" */
  int last_layer;     /* the layer whose output this stage writes */
  uint64_t macs;
  size_t weight_bytes, input_bytes, output_bytes;
};
int hwgq_plan_stage_count(const struct hwgq_plan *plan);
struct hwgq_stage_info hwgq_plan_stage(const struct hwgq_plan *plan, int stage);
/* What a quantizer became when it was folded into a stage, for one output channel: its level is the number of j with
 * (accumulator >= thresholds[j]) != reversed. */
struct hwgq_thresholds {
  int channels, count; /* of the stage's output; levels above 0. Both are 0 when the stage does not end in a quantizer. */
  bool integers;       /* accumulators are whole numbers, sums of levels times +-1; otherwise they are real values */
  bool reversed;
  bool constant; /* every accumulator that is possible gives the same level */
  double thresholds[HWGQ_MAX_LEVELS];
};
/* channel: 0 to channels - 1; others give the thresholds of channel 0. */
struct hwgq_thresholds hwgq_plan_thresholds(const struct hwgq_plan *plan, int stage, int channel);
/* A place in the scratch memory. Places overlap only when no stage needs both, or when one tensor takes over another's memory.
 */
struct hwgq_memory_info {
  const char *name; /* of the layer whose output it is, or of the stage that uses it */
  const char *what; /* "float32", "levels", "accumulators", ... */
  size_t bytes, offset;
  bool local;      /* a helper of a team has its own; offsets of these count from the end of the others */
  int first, last; /* stages that need it; last is the number of stages when scores are read from it */
};
int hwgq_plan_memory_count(const struct hwgq_plan *plan);
struct hwgq_memory_info hwgq_plan_memory(const struct hwgq_plan *plan, int place);
/* As hwgq_run, and writes each stage's duration in nanoseconds (CLOCK_MONOTONIC) to stage_ns[stage_count]. */
void hwgq_run_profiled(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores, uint64_t *stage_ns);
/* With keep_all_layers, after a run: CHW values of a layer's output (levels already as the values they stand for).
 * HWGQ_ERROR_UNSUPPORTED when the layer was folded into another stage and its output does not exist. */
enum hwgq_status hwgq_run_output(const struct hwgq_plan *plan, const void *scratch, int layer, float *values,
                                 struct hwgq_error *error);

struct hwgq_prediction {
  int class_index;
  float probability;
};
/* The k highest scores, highest first, ties by class index. Returns how many were written: min(k, count). */
int hwgq_top_k(const float *scores, int count, int k, struct hwgq_prediction *predictions);

#ifdef __cplusplus
}
#endif
#endif
