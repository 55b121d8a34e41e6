/* Writes a network as an ONNX model: write_onnx MODEL.hwgq OUT.onnx float32|relu|int8|int8-float-first
 *   float32           level codes are floats; a quantizer is Clip and Round behind a convolution that batch norm is folded into
 *   relu              the same with Relu for every quantizer: another network, and the least that these shapes cost
 *   int8              QLinearConv and QGemm: codes are uint8, weights +-127 (so that whole-number biases have 127 steps to a
 * unit of the sum), a quantizer is the requantization and one Clip. Float streams are uint8 too, their range is 4.5 deviations.
 * The first convolution takes 8-bit pixels and rounds its weights to 8 bits. The last layer is float. int8-float-first  the
 * same but for the first convolution, which is float */
#include "tests/bench/peers/lower.h"
#include "tests/bench/peers/onnx_proto.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How a value's bytes stand for numbers: (byte - zero_point) * scale. */
struct coding {
  double scale;
  int zero_point;
  bool floats; /* no bytes at all */
};

struct writer {
  struct peer_graph graph;
  struct proto out;
  struct coding *codings; /* [nodes] */
  bool int8, int8_first, relu;
};

enum { NAME = 48, NAMES = 512 };

static const char *format(char *text, size_t size, const char *pattern, ...) __attribute__((format(printf, 3, 4)));
static const char *format(char *text, size_t size, const char *pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  vsnprintf(text, size, pattern, arguments);
  va_end(arguments);
  return text;
}

/* The name of a node's value. */
static const char *name_of(int node, char name[NAME]) {
  return node == PEER_INPUT ? "input" : format(name, NAME, "v%d", node);
}

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (!memory) {
    fprintf(stderr, "write_onnx: out of memory\n");
    exit(1);
  }
  return memory;
}

/* PREFIX_s and PREFIX_z: scale and zero point of a value as tensors. */
static void add_coding(struct writer *w, const char *prefix, struct coding coding) {
  char name[NAME + 8];
  const uint8_t zero = (uint8_t)coding.zero_point;
  onnx_scalar(&w->out, format(name, sizeof name, "%s_s", prefix), (float)coding.scale);
  onnx_tensor(&w->out, format(name, sizeof name, "%s_z", prefix), ONNX_UINT8, 0, NULL, &zero, 1);
}

static struct coding coding_of(const struct writer *w, int node) {
  return w->codings[node];
}

static struct coding natural_coding(const struct peer_node *n, double magnitude) {
  if (n->codes) return (struct coding){1, 0, false};
  if (n->activation == PEER_RELU) return (struct coding){magnitude / 255, 0, false};
  return (struct coding){magnitude / 127, 128, false};
}

static void simple(struct writer *w, const char *op, const char *input, const char *output) {
  struct proto node = onnx_node(op, NULL, input, output);
  onnx_end(&w->out, &node);
}

static void window(struct proto *node, const struct peer_node *n) {
  onnx_integers(node, "kernel_shape", 2, (const int64_t[]){n->kernel_h, n->kernel_w});
  onnx_integers(node, "strides", 2, (const int64_t[]){n->stride_h, n->stride_w});
  onnx_integers(node, "pads", 4, (const int64_t[]){n->pad_h, n->pad_w, n->pad_h, n->pad_w});
}

/* A float value, decoded from bytes where it has any. Returns its name in `name`. */
static const char *as_float(struct writer *w, int node, char name[NAME]) {
  char bytes[NAME], inputs[NAMES];
  if (node == PEER_INPUT || coding_of(w, node).floats) return name_of(node, name);
  name_of(node, bytes);
  format(name, NAME, "%s_f", bytes);
  struct proto decode =
      onnx_node("DequantizeLinear", NULL, format(inputs, sizeof inputs, "%s %s_s %s_z", bytes, bytes, bytes), name);
  onnx_end(&w->out, &decode);
  return name;
}

/* ---- float32 ---------------------------------------------------------------------------------------------------------------
 */

/* From `input` through the node's activation to `output`. */
static void float_activation(struct writer *w, const struct peer_node *n, const char *input, const char *output) {
  char middle[NAME], inputs[NAMES];
  if (n->activation == PEER_RELU || (n->activation == PEER_LEVELS && w->relu)) {
    simple(w, "Relu", input, output);
    return;
  }
  format(middle, sizeof middle, "%s_c", output);
  simple(w, "Clip", format(inputs, sizeof inputs, "%s zero levels", input), middle);
  simple(w, "Round", middle, output);
}

static void float_weights(struct writer *w, int index, const char *output) {
  const struct peer_node *n = &w->graph.nodes[index];
  const size_t outs = (size_t)n->out.channels, count = outs * n->fan_in;
  const bool linear = n->op == PEER_LINEAR;
  const int64_t dims[] = {n->out.channels, linear ? (int64_t)n->fan_in : n->in.channels / n->groups, n->kernel_h, n->kernel_w};
  float *weight = allocate(count, sizeof *weight), *bias = allocate(outs, sizeof *bias);
  for (size_t i = 0; i < count; i++) weight[i] = (float)((double)n->weight[i] * n->scale[i / n->fan_in]);
  for (size_t o = 0; o < outs; o++) bias[o] = (float)n->bias[o];
  char input[NAME], flat[NAME + 8], inputs[NAMES], name[NAME];
  onnx_tensor(&w->out, format(name, sizeof name, "w%d", index), ONNX_FLOAT, linear ? 2 : 4, dims, weight,
              count * sizeof *weight);
  onnx_tensor(&w->out, format(name, sizeof name, "b%d", index), ONNX_FLOAT, 1, dims, bias, outs * sizeof *bias);
  const char *from = as_float(w, n->inputs[0], input);
  if (linear) {
    simple(w, "Flatten", from, format(flat, sizeof flat, "%s_flat%d", from, index));
    from = flat;
  }
  struct proto node =
      onnx_node(linear ? "Gemm" : "Conv", NULL, format(inputs, sizeof inputs, "%s w%d b%d", from, index, index), output);
  if (linear) {
    onnx_integer(&node, "transB", 1);
  } else {
    window(&node, n);
    onnx_integer(&node, "group", n->groups);
  }
  onnx_end(&w->out, &node);
  free(weight), free(bias);
}

/* A batch norm: the one per-channel operation that ONNX Runtime keeps in its blocked layout. */
static void float_affine(struct writer *w, int index, const char *output) {
  const struct peer_node *n = &w->graph.nodes[index];
  const int64_t dims[] = {n->out.channels};
  const size_t outs = (size_t)n->out.channels;
  static const char *const kinds[] = {"scale", "bias", "mean", "var"};
  float *values = allocate(outs, sizeof *values);
  char name[NAME], input[NAME], inputs[NAMES];
  for (int kind = 0; kind < 4; kind++) {
    for (size_t c = 0; c < outs; c++)
      values[c] = (float)(kind == 0 ? n->scale[c] : kind == 1 ? n->bias[c] : kind == 2 ? 0 : 1 - 1e-5);
    onnx_tensor(&w->out, format(name, sizeof name, "%s%d", kinds[kind], index), ONNX_FLOAT, 1, dims, values,
                outs * sizeof *values);
  }
  free(values);
  simple(w, "BatchNormalization",
         format(inputs, sizeof inputs, "%s scale%d bias%d mean%d var%d", as_float(w, n->inputs[0], input), index, index, index,
                index),
         output);
}

static void float_node(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  char output[NAME], sum[NAME], raw[NAME], addend[NAME], inputs[NAMES];
  const bool active = n->activation != PEER_NONE, adds = n->addend != PEER_INPUT;
  name_of(index, output);
  format(sum, sizeof sum, active ? "s%d" : "v%d", index);
  format(raw, sizeof raw, adds ? "r%d" : active ? "s%d" : "v%d", index);
  w->codings[index].floats = true;
  if (n->op == PEER_AFFINE)
    float_affine(w, index, raw);
  else
    float_weights(w, index, raw);
  if (adds) simple(w, "Add", format(inputs, sizeof inputs, "%s %s", raw, as_float(w, n->addend, addend)), sum);
  if (active) float_activation(w, n, sum, output);
}

/* ---- int8 ------------------------------------------------------------------------------------------------------------------
 */

/* Whole numbers: value = scale * sum(weight * (byte - zero point)) + bias. */
struct whole {
  float *weight;
  double *scale, *bias;
  size_t fan_in;
  struct coding from;
};

static struct whole whole_weights(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  const size_t outs = (size_t)n->out.channels, fan_in = n->op == PEER_AFFINE ? 1 : n->fan_in;
  struct whole q = {allocate(outs * fan_in, sizeof(float)),
                    allocate(outs, sizeof(double)),
                    allocate(outs, sizeof(double)),
                    fan_in,
                    {1, 0, false}};
  if (n->inputs[0] == PEER_INPUT) {
    q.from.zero_point = peer_quantize_first(&w->graph, n, 127, q.weight, q.scale, q.bias);
    return q;
  }
  q.from = coding_of(w, n->inputs[0]);
  for (size_t o = 0; o < outs; o++) {
    const bool negative = n->scale[o] < 0;
    for (size_t k = 0; k < fan_in; k++)
      q.weight[o * fan_in + k] = 127 * (n->op == PEER_AFFINE ? 1 : n->weight[o * fan_in + k]) * (negative ? -1 : 1);
    q.scale[o] = fabs(n->scale[o]) * q.from.scale / 127;
    q.bias[o] = n->bias[o];
  }
  return q;
}

/* The whole-number bias of a channel whose value is a level code: of those that give every sum the code that exact arithmetic
 * gives, the middle one; the nearest where there is none. unit: value of the sum's unit after the weights' factor of 127. */
static int32_t level_bias(const struct peer_node *n, size_t channel, double unit, double bias) {
  const double scale = n->scale[channel], reach = 3.0 * (double)n->fan_in + 1;
  double low = -1e9, high = 1e9;
  for (int k = 1; scale > 0 && k <= n->levels; k++) {
    const double below = floor((k - 0.5 - n->bias[channel]) / scale); /* the largest sum that stays under level k */
    if (fabs(below) > reach) continue;
    low = fmax(low, (k - 0.5) / unit - 127 * (below + 1));
    high = fmin(high, (k - 0.5) / unit - 127 * below);
  }
  const double middle = rint((low + high) / 2);
  return (int32_t)lrint(low > -1e9 && middle > low && middle < high ? middle : bias / unit);
}

/* wN, wsN, wzN, bN: weights, their scales and zero points, and biases in units of the sum. */
static void whole_tensors(struct writer *w, int index, const struct whole *q) {
  const struct peer_node *n = &w->graph.nodes[index];
  const size_t outs = (size_t)n->out.channels, count = outs * q->fan_in;
  const bool linear = n->op == PEER_LINEAR;
  const int64_t dims[] = {n->out.channels,
                          linear                 ? (int64_t)q->fan_in
                          : n->op == PEER_AFFINE ? 1
                                                 : n->in.channels / n->groups,
                          n->kernel_h, n->kernel_w};
  const int64_t turned[] = {dims[1], dims[0]};
  int8_t *weight = allocate(count, 1), *zero = allocate(outs, 1);
  float *scale = allocate(outs, sizeof *scale);
  int32_t *bias = allocate(outs, sizeof *bias);
  char name[NAME];
  for (size_t o = 0; o < outs; o++) {
    for (size_t k = 0; k < q->fan_in; k++)
      weight[linear ? k * outs + o : o * q->fan_in + k] = (int8_t)q->weight[o * q->fan_in + k];
    scale[o] = (float)(q->scale[o] / q->from.scale);
    const bool codes = n->op != PEER_AFFINE && n->codes && n->inputs[0] != PEER_INPUT;
    bias[o] = codes ? level_bias(n, o, q->scale[o], q->bias[o]) : (int32_t)lrint(q->bias[o] / q->scale[o]);
  }
  onnx_tensor(&w->out, format(name, sizeof name, "w%d", index), ONNX_INT8, linear ? 2 : 4, linear ? turned : dims, weight,
              count);
  onnx_tensor(&w->out, format(name, sizeof name, "ws%d", index), ONNX_FLOAT, 1, dims, scale, outs * sizeof *scale);
  onnx_tensor(&w->out, format(name, sizeof name, "wz%d", index), ONNX_INT8, 1, dims, zero, outs);
  onnx_tensor(&w->out, format(name, sizeof name, "b%d", index), ONNX_INT32, 1, dims, bias, outs * sizeof *bias);
  free(weight), free(zero), free(scale), free(bias);
}

static void int8_linear(struct writer *w, int index, const char *input, const char *output, bool floats) {
  char flat[NAME + 8], inputs[NAMES], source[NAME];
  name_of(w->graph.nodes[index].inputs[0], source);
  simple(w, "Flatten", input, format(flat, sizeof flat, "%s_flat%d", input, index));
  format(inputs, sizeof inputs, "%s %s_s %s_z w%d ws%d wz%d b%d", flat, source, source, index, index, index, index);
  if (!floats) format(inputs + strlen(inputs), sizeof inputs - strlen(inputs), " v%d_s v%d_z", index, index);
  struct proto node = onnx_node("QGemm", "com.microsoft", inputs, output);
  onnx_end(&w->out, &node);
}

static void int8_conv(struct writer *w, int index, const char *input, const char *coding, const char *output) {
  const struct peer_node *n = &w->graph.nodes[index];
  char inputs[NAMES];
  format(inputs, sizeof inputs, "%s %s_s %s_z w%d ws%d wz%d %s_s %s_z b%d", input, input, input, index, index, index, coding,
         coding, index);
  struct proto node = onnx_node("QLinearConv", NULL, inputs, output);
  window(&node, n);
  onnx_integer(&node, "group", n->op == PEER_AFFINE ? n->in.channels : n->groups);
  onnx_end(&w->out, &node);
}

static void int8_node(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  const bool adds = n->addend != PEER_INPUT, levels = n->activation == PEER_LEVELS;
  const bool floats = n->op == PEER_LINEAR && !levels;
  char input[NAME], output[NAME], raw[NAME], addend[NAME], inputs[NAMES];
  const char *from = name_of(n->inputs[0], input);
  const struct coding coding = natural_coding(n, n->magnitude);
  struct whole q = whole_weights(w, index);
  name_of(index, output);
  whole_tensors(w, index, &q);
  free(q.weight), free(q.scale), free(q.bias);
  w->codings[index] = coding;
  w->codings[index].floats = floats;
  if (!floats) add_coding(w, output, coding);
  format(raw, sizeof raw, adds || levels || (floats && n->activation == PEER_RELU) ? "r%d" : "v%d", index);
  if (n->op == PEER_LINEAR) {
    int8_linear(w, index, from, raw, floats);
  } else if (adds) {
    add_coding(w, raw, (struct coding){n->branch_magnitude / 127, 128, false});
    int8_conv(w, index, from, raw, raw);
    name_of(n->addend, addend);
    struct proto node = onnx_node("QLinearAdd", "com.microsoft",
                                  format(inputs, sizeof inputs, "%s %s_s %s_z %s %s_s %s_z %s_s %s_z", raw, raw, raw, addend,
                                         addend, addend, output, output),
                                  output);
    onnx_end(&w->out, &node);
  } else {
    int8_conv(w, index, from, output, raw);
  }
  if (levels) simple(w, "Clip", format(inputs, sizeof inputs, "%s zero_u8 levels_u8", raw), output);
  if (floats && n->activation == PEER_RELU) simple(w, "Relu", raw, output);
}

/* ---- the graph -------------------------------------------------------------------------------------------------------------
 */

static void encode(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  char bytes[NAME], inputs[NAMES];
  w->codings[index] = natural_coding(n, n->magnitude);
  format(bytes, sizeof bytes, "v%d", index);
  add_coding(w, bytes, w->codings[index]);
  struct proto node =
      onnx_node("QuantizeLinear", NULL, format(inputs, sizeof inputs, "f%d %s_s %s_z", index, bytes, bytes), bytes);
  onnx_end(&w->out, &node);
}

/* A first layer in float whose result the others take as bytes. */
static void float_first(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  char raw[NAME], output[NAME], inputs[NAMES];
  format(output, sizeof output, "f%d", index);
  format(raw, sizeof raw, n->activation == PEER_NONE ? "f%d" : "r%d", index);
  float_weights(w, index, raw);
  if (n->activation == PEER_LEVELS)
    simple(w, "Clip", format(inputs, sizeof inputs, "%s zero levels", raw), output);
  else if (n->activation == PEER_RELU)
    simple(w, "Relu", raw, output);
  encode(w, index);
}

static void passing_node(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  char input[NAME], output[NAME], inputs[NAMES] = "";
  name_of(index, output);
  w->codings[index] = coding_of(w, n->inputs[0]);
  if (n->op == PEER_GLOBAL_AVERAGE) {
    simple(w, "GlobalAveragePool", as_float(w, n->inputs[0], input), output);
    w->codings[index].floats = true;
    return;
  }
  for (int i = 0; i < n->input_count; i++)
    format(inputs + strlen(inputs), sizeof inputs - strlen(inputs), "%s%s", i ? " " : "", name_of(n->inputs[i], input));
  struct proto node = onnx_node(n->op == PEER_CONCAT ? "Concat" : "MaxPool", NULL, inputs, output);
  if (n->op == PEER_CONCAT) {
    onnx_integer(&node, "axis", 1);
  } else {
    window(&node, n);
    onnx_integer(&node, "ceil_mode", 1);
  }
  onnx_end(&w->out, &node);
  if (!w->codings[index].floats) add_coding(w, output, w->codings[index]);
}

static void add_node(struct writer *w, int index) {
  const struct peer_node *n = &w->graph.nodes[index];
  const bool first = n->inputs[0] == PEER_INPUT;
  if (n->op == PEER_MAX_POOL || n->op == PEER_GLOBAL_AVERAGE || n->op == PEER_CONCAT)
    passing_node(w, index);
  else if (w->int8 && first && !w->int8_first)
    float_first(w, index);
  else if (w->int8 && (first || n->binary || n->op == PEER_AFFINE))
    int8_node(w, index);
  else
    float_node(w, index);
}

static void write_graph(struct writer *w) {
  const struct hwgq_shape in = w->graph.input;
  const uint8_t zero = 0, levels = 3;
  char name[NAME];
  onnx_scalar(&w->out, "zero", 0);
  onnx_scalar(&w->out, "levels", 3);
  onnx_tensor(&w->out, "zero_u8", ONNX_UINT8, 0, NULL, &zero, 1);
  onnx_tensor(&w->out, "levels_u8", ONNX_UINT8, 0, NULL, &levels, 1);
  if (w->int8_first) {
    float *weight = allocate((size_t)w->graph.nodes[0].out.channels * w->graph.nodes[0].fan_in, sizeof *weight);
    double *rest = allocate(2 * (size_t)w->graph.nodes[0].out.channels, sizeof *rest);
    const int zero_point =
        peer_quantize_first(&w->graph, &w->graph.nodes[0], 127, weight, rest, rest + w->graph.nodes[0].out.channels);
    add_coding(w, "input", (struct coding){1, zero_point, false});
    free(weight), free(rest);
  }
  for (int i = 0; i < w->graph.count; i++) add_node(w, i);
  onnx_value(&w->out, 11, "input", w->int8_first ? ONNX_UINT8 : ONNX_FLOAT, 4,
             (const int64_t[]){1, in.channels, in.height, in.width});
  onnx_value(&w->out, 12, name_of(w->graph.count - 1, name), ONNX_FLOAT, 2, (const int64_t[]){1, w->graph.classes});
}

int main(int argc, char **argv) {
  struct hwgq_error error;
  struct hwgq_model *model;
  struct writer w = {.int8 = false};
  if (argc != 4) {
    fprintf(stderr, "usage: write_onnx MODEL.hwgq OUT.onnx float32|relu|int8|int8-float-first\n");
    return 2;
  }
  if (hwgq_model_read(argv[1], &model, &error) || peer_lower(model, &w.graph, &error)) {
    fprintf(stderr, "write_onnx: %s\n", error.message);
    return 1;
  }
  hwgq_model_destroy(model);
  w.int8 = strncmp(argv[3], "int8", 4) == 0;
  w.int8_first = strcmp(argv[3], "int8") == 0;
  w.relu = strcmp(argv[3], "relu") == 0;
  w.codings = allocate((size_t)w.graph.count, sizeof *w.codings);
  for (int i = 0; i < w.graph.count; i++) w.codings[i].floats = !w.int8;
  write_graph(&w);
  if (onnx_write(&w.out, argv[2])) {
    fprintf(stderr, "write_onnx: cannot write %s\n", argv[2]);
    return 1;
  }
  peer_graph_release(&w.graph);
  free(w.codings);
  return 0;
}
