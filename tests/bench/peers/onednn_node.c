#include "tests/bench/peers/onednn_node.h"
#include "tests/bench/peers/child.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void onednn_check(dnnl_status_t status, const char *what) {
  if (status != dnnl_success) child_die("oneDNN: status %d from %s", (int)status, what);
}

static void *allocate(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  if (!memory) child_die("out of memory");
  return memset(memory, 0, bytes);
}

struct onednn_value onednn_new_value(const struct onednn_net *net, const dnnl_memory_desc_t *desc) {
  struct onednn_value value = {.desc = *desc, .data = allocate(dnnl_memory_desc_get_size(desc))};
  ONEDNN_CHECK(dnnl_memory_create(&value.memory, desc, net->engine, value.data));
  return value;
}

/* ---- descriptions ----------------------------------------------------------------------------------------------------------
 */

static dnnl_memory_desc_t describe(struct hwgq_shape shape, dnnl_data_type_t type, dnnl_format_tag_t tag) {
  const dnnl_dims_t dims = {1, shape.channels, shape.height, shape.width};
  dnnl_memory_desc_t desc;
  ONEDNN_CHECK(dnnl_memory_desc_init_by_tag(&desc, 4, dims, type, tag));
  return desc;
}

static dnnl_memory_desc_t describe_vector(int channels, dnnl_data_type_t type) {
  const dnnl_dims_t dims = {channels};
  dnnl_memory_desc_t desc;
  ONEDNN_CHECK(dnnl_memory_desc_init_by_tag(&desc, 1, dims, type, dnnl_x));
  return desc;
}

static dnnl_memory_desc_t weight_desc(const struct peer_node *n, dnnl_data_type_t type, bool any) {
  const bool grouped = n->groups > 1, linear = n->op == PEER_LINEAR;
  const int ins = linear ? n->in.channels : n->in.channels / n->groups, outs = n->out.channels / n->groups;
  const int h = linear ? n->in.height : n->kernel_h, w = linear ? n->in.width : n->kernel_w;
  const dnnl_dims_t five = {n->groups, outs, ins, h, w}, four = {outs, ins, h, w};
  dnnl_memory_desc_t desc;
  ONEDNN_CHECK(dnnl_memory_desc_init_by_tag(&desc, grouped ? 5 : 4, grouped ? five : four, type,
                                            any       ? dnnl_format_tag_any
                                            : grouped ? dnnl_goihw
                                                      : dnnl_oihw));
  return desc;
}

static const struct onednn_value *value_of(const struct onednn_net *net, int node) {
  return node == PEER_INPUT ? &net->input : &net->values[node];
}

/* ---- steps -----------------------------------------------------------------------------------------------------------------
 */

static struct onednn_step *new_step(struct onednn_net *net) {
  if (net->step_count == net->step_room) {
    net->step_room = net->step_room * 2 + 64;
    net->steps = realloc(net->steps, (size_t)net->step_room * sizeof *net->steps);
    if (!net->steps) child_die("out of memory");
  }
  struct onednn_step *step = &net->steps[net->step_count++];
  *step = (struct onednn_step){.primitive = NULL};
  return step;
}

static void add_argument(struct onednn_step *step, int index, dnnl_memory_t memory) {
  step->args[step->arg_count++] = (dnnl_exec_arg_t){index, memory};
}

static dnnl_primitive_t reorder_primitive(const struct onednn_net *net, const struct onednn_value *from,
                                          const struct onednn_value *to) {
  dnnl_primitive_desc_t desc;
  dnnl_primitive_t primitive;
  ONEDNN_CHECK(dnnl_reorder_primitive_desc_create(&desc, &from->desc, net->engine, &to->desc, net->engine, NULL));
  ONEDNN_CHECK(dnnl_primitive_create(&primitive, desc));
  dnnl_primitive_desc_destroy(desc);
  return primitive;
}

/* The value in another layout or type, by a step of its own where it has not got that already. */
static struct onednn_value converted(struct onednn_net *net, const struct onednn_value *from, const dnnl_memory_desc_t *desc) {
  if (dnnl_memory_desc_equal(&from->desc, desc)) return *from;
  struct onednn_value to = onednn_new_value(net, desc);
  struct onednn_step *step = new_step(net);
  step->primitive = reorder_primitive(net, from, &to);
  add_argument(step, DNNL_ARG_FROM, from->memory);
  add_argument(step, DNNL_ARG_TO, to.memory);
  return to;
}

/* Parameters are brought into the primitive's layout once. */
static struct onednn_value packed(const struct onednn_net *net, const dnnl_memory_desc_t *plain, const dnnl_memory_desc_t *desc,
                                  const float *data) {
  struct onednn_value from = onednn_new_value(net, plain), to = onednn_new_value(net, desc);
  memcpy(from.data, data, dnnl_memory_desc_get_size(plain));
  dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from.memory}, {DNNL_ARG_TO, to.memory}};
  ONEDNN_CHECK(dnnl_primitive_execute(reorder_primitive(net, &from, &to), net->stream, 2, args));
  ONEDNN_CHECK(dnnl_stream_wait(net->stream));
  dnnl_memory_destroy(from.memory);
  free(from.data);
  return to;
}

/* ---- convolutions and linear layers ----------------------------------------------------------------------------------------
 */

/* y = scale * (weight * x + bias), with bias in units of the sum when integers are summed. */
struct folded {
  float *weight, *scale, *bias;
  int zero_point;
};

/* AVX2 without VNNI adds pairs of products in 16 bits: with 8-bit pixels, weights up to 63 are all it can take. */
static struct folded fold(const struct onednn_net *net, const struct peer_node *n, bool integers, bool first) {
  const size_t outs = (size_t)n->out.channels, count = outs * n->fan_in;
  struct folded f = {allocate(count * sizeof(float)), allocate(outs * sizeof(float)), allocate(outs * sizeof(float)), 0};
  double *scale = allocate(outs * sizeof *scale), *bias = allocate(outs * sizeof *bias);
  memcpy(f.weight, n->weight, count * sizeof(float));
  memcpy(scale, n->scale, outs * sizeof *scale);
  memcpy(bias, n->bias, outs * sizeof *bias);
  if (first) f.zero_point = peer_quantize_first(&net->graph, n, getenv("ONEDNN_MAX_CPU_ISA") ? 63 : 127, f.weight, scale, bias);
  for (size_t o = 0; o < outs; o++) {
    f.scale[o] = (float)scale[o];
    f.bias[o] = (float)(integers ? bias[o] / scale[o] : bias[o]);
    for (size_t k = 0; !integers && k < n->fan_in; k++) f.weight[o * n->fan_in + k] *= f.scale[o];
  }
  free(scale), free(bias);
  return f;
}

static void append(dnnl_post_ops_t ops, dnnl_alg_kind_t kind, float alpha, float beta) {
  ONEDNN_CHECK(dnnl_post_ops_append_eltwise(ops, 1, kind, alpha, beta));
}

/* `bytes`: the result becomes bytes by a conversion that rounds. */
static dnnl_primitive_attr_t attributes(const struct peer_node *n, const struct folded *f, bool integers, bool bytes) {
  dnnl_primitive_attr_t attr;
  dnnl_post_ops_t ops;
  ONEDNN_CHECK(dnnl_primitive_attr_create(&attr));
  ONEDNN_CHECK(dnnl_post_ops_create(&ops));
  if (integers) ONEDNN_CHECK(dnnl_primitive_attr_set_output_scales(attr, n->out.channels, 2, f->scale));
  if (f->zero_point)
    ONEDNN_CHECK(dnnl_primitive_attr_set_zero_points(attr, DNNL_ARG_SRC, 1, 0, (const int32_t[]){f->zero_point}));
  if (n->addend != PEER_INPUT) ONEDNN_CHECK(dnnl_post_ops_append_sum(ops, 1));
  if (n->activation == PEER_RELU) append(ops, dnnl_eltwise_relu, 0, 0);
  if (n->activation == PEER_LEVELS) append(ops, dnnl_eltwise_clip, 0, (float)n->levels);
  if (n->activation == PEER_LEVELS && !bytes) append(ops, dnnl_eltwise_round, 0, 0);
  ONEDNN_CHECK(dnnl_primitive_attr_set_post_ops(attr, ops));
  dnnl_post_ops_destroy(ops);
  return attr;
}

static dnnl_primitive_desc_t weights_primitive_desc(const struct onednn_net *net, const struct peer_node *n,
                                                    const dnnl_memory_desc_t *src, const dnnl_memory_desc_t *dst,
                                                    dnnl_data_type_t type, dnnl_primitive_attr_t attr) {
  const dnnl_memory_desc_t weights = weight_desc(n, type, true), bias = describe_vector(n->out.channels, dnnl_f32);
  const dnnl_dims_t stride = {n->stride_h, n->stride_w}, pad = {n->pad_h, n->pad_w};
  const dnnl_dims_t after = {(n->out.height - 1) * n->stride_h + n->kernel_h - n->in.height - n->pad_h,
                             (n->out.width - 1) * n->stride_w + n->kernel_w - n->in.width - n->pad_w};
  dnnl_convolution_desc_t convolution;
  dnnl_inner_product_desc_t product;
  dnnl_primitive_desc_t desc;
  if (n->op == PEER_CONV) {
    ONEDNN_CHECK(dnnl_convolution_forward_desc_init(&convolution, dnnl_forward_inference, dnnl_convolution_direct, src,
                                                    &weights, &bias, dst, stride, pad, after));
    ONEDNN_CHECK(dnnl_primitive_desc_create(&desc, &convolution, attr, net->engine, NULL));
  } else {
    const dnnl_dims_t dims = {1, n->out.channels};
    dnnl_memory_desc_t flat;
    ONEDNN_CHECK(dnnl_memory_desc_init_by_tag(&flat, 2, dims, dst->data_type, dnnl_ab));
    ONEDNN_CHECK(dnnl_inner_product_forward_desc_init(&product, dnnl_forward_inference, src, &weights, &bias, &flat));
    ONEDNN_CHECK(dnnl_primitive_desc_create(&desc, &product, attr, net->engine, NULL));
  }
  return desc;
}

static void add_weights(struct onednn_net *net, int index) {
  const struct peer_node *n = &net->graph.nodes[index];
  const bool pixels = n->inputs[0] == PEER_INPUT, first = pixels && net->int8_first;
  const bool integers = net->int8 && (first || (!pixels && n->binary && net->graph.nodes[n->inputs[0]].codes));
  const dnnl_format_tag_t tag = net->int8 && !pixels ? dnnl_nhwc : dnnl_format_tag_any;
  const struct folded f = fold(net, n, integers, first);
  const dnnl_primitive_attr_t attr = attributes(n, &f, integers, net->int8 && n->codes);
  dnnl_memory_desc_t src = describe(n->in, integers ? dnnl_u8 : dnnl_f32, first ? dnnl_nhwc : tag);
  dnnl_memory_desc_t dst = describe(n->out, dnnl_f32, net->int8 ? dnnl_nhwc : n->op == PEER_LINEAR ? dnnl_nchw : tag);
  if (net->int8 && n->codes && integers) dst.data_type = dnnl_u8;
  if (n->addend != PEER_INPUT) dst = net->values[n->addend].desc;
  const dnnl_primitive_desc_t desc = weights_primitive_desc(net, n, &src, &dst, integers ? dnnl_s8 : dnnl_f32, attr);
  const struct onednn_value from =
      converted(net, value_of(net, n->inputs[0]), dnnl_primitive_desc_query_md(desc, dnnl_query_src_md, 0));
  const dnnl_memory_desc_t plain = weight_desc(n, dnnl_f32, false), vector = describe_vector(n->out.channels, dnnl_f32);
  const struct onednn_value weights =
      packed(net, &plain, dnnl_primitive_desc_query_md(desc, dnnl_query_weights_md, 0), f.weight);
  const struct onednn_value bias = packed(net, &vector, &vector, f.bias);
  if (n->op == PEER_CONV) dst = *dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0);
  net->values[index] = n->addend != PEER_INPUT ? net->values[n->addend] : onednn_new_value(net, &dst);
  dnnl_memory_t result = net->values[index].memory;
  if (n->op == PEER_LINEAR) /* the same bytes in two dimensions */
    ONEDNN_CHECK(dnnl_memory_create(&result, dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0), net->engine,
                                    net->values[index].data));
  struct onednn_step *step = new_step(net);
  ONEDNN_CHECK(dnnl_primitive_create(&step->primitive, desc));
  add_argument(step, DNNL_ARG_SRC, from.memory);
  add_argument(step, DNNL_ARG_WEIGHTS, weights.memory);
  add_argument(step, DNNL_ARG_BIAS, bias.memory);
  add_argument(step, DNNL_ARG_DST, result);
  if (net->int8 && n->codes && !integers) { /* a float first layer: its codes become bytes by a rounding conversion */
    dst.data_type = dnnl_u8;
    net->values[index] = converted(net, &net->values[index], &dst);
  }
  dnnl_primitive_attr_destroy(attr);
  dnnl_primitive_desc_destroy(desc);
  free(f.weight), free(f.scale), free(f.bias);
}

/* ---- the others ------------------------------------------------------------------------------------------------------------
 */

static void add_pool(struct onednn_net *net, int index) {
  const struct peer_node *n = &net->graph.nodes[index];
  const struct onednn_value *from = value_of(net, n->inputs[0]);
  const bool global = n->op == PEER_GLOBAL_AVERAGE;
  const int kh = global ? n->in.height : n->kernel_h, kw = global ? n->in.width : n->kernel_w;
  const dnnl_dims_t kernel = {kh, kw}, stride = {n->stride_h, n->stride_w}, pad = {n->pad_h, n->pad_w};
  const dnnl_dims_t after = {(n->out.height - 1) * n->stride_h + kh - n->in.height - n->pad_h,
                             (n->out.width - 1) * n->stride_w + kw - n->in.width - n->pad_w};
  const dnnl_memory_desc_t dst = describe(n->out, from->desc.data_type, net->int8 ? dnnl_nhwc : dnnl_format_tag_any);
  dnnl_pooling_desc_t pooling;
  dnnl_primitive_desc_t desc;
  ONEDNN_CHECK(dnnl_pooling_forward_desc_init(&pooling, dnnl_forward_inference,
                                              global ? dnnl_pooling_avg_exclude_padding : dnnl_pooling_max, &from->desc, &dst,
                                              stride, kernel, pad, after));
  ONEDNN_CHECK(dnnl_primitive_desc_create(&desc, &pooling, NULL, net->engine, NULL));
  net->values[index] = onednn_new_value(net, dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0));
  struct onednn_step *step = new_step(net);
  ONEDNN_CHECK(dnnl_primitive_create(&step->primitive, desc));
  add_argument(step, DNNL_ARG_SRC, from->memory);
  add_argument(step, DNNL_ARG_DST, net->values[index].memory);
  dnnl_primitive_desc_destroy(desc);
}

static void add_concat(struct onednn_net *net, int index) {
  const struct peer_node *n = &net->graph.nodes[index];
  struct onednn_value from[HWGQ_MAX_INPUTS];
  dnnl_memory_desc_t descs[HWGQ_MAX_INPUTS];
  for (int i = 0; i < n->input_count; i++) {
    from[i] = *value_of(net, n->inputs[i]);
    descs[i] = from[i].desc;
  }
  dnnl_primitive_desc_t desc;
  ONEDNN_CHECK(dnnl_concat_primitive_desc_create(&desc, NULL, n->input_count, 1, descs, NULL, net->engine));
  net->values[index] = onednn_new_value(net, dnnl_primitive_desc_query_md(desc, dnnl_query_dst_md, 0));
  struct onednn_step *step = new_step(net);
  ONEDNN_CHECK(dnnl_primitive_create(&step->primitive, desc));
  for (int i = 0; i < n->input_count; i++) add_argument(step, DNNL_ARG_MULTIPLE_SRC + i, from[i].memory);
  add_argument(step, DNNL_ARG_DST, net->values[index].memory);
  dnnl_primitive_desc_destroy(desc);
}

static void add_affine(struct onednn_net *net, int index) {
  const struct peer_node *n = &net->graph.nodes[index];
  const struct onednn_value *from = value_of(net, n->inputs[0]);
  dnnl_memory_desc_t desc = from->desc;
  if (net->int8 && n->codes) desc.data_type = dnnl_u8;
  if (from->desc.data_type != dnnl_f32) child_die("node %d: affine of codes", index);
  net->values[index] = onednn_new_value(net, &desc);
  float *scale = allocate((size_t)n->out.channels * sizeof *scale), *bias = allocate((size_t)n->out.channels * sizeof *bias);
  for (int c = 0; c < n->out.channels; c++) {
    scale[c] = (float)n->scale[c];
    bias[c] = (float)n->bias[c];
  }
  struct onednn_step *step = new_step(net);
  step->node = n;
  step->scale = scale;
  step->bias = bias;
  step->from = from;
  step->to = &net->values[index];
}

void onednn_add_node(struct onednn_net *net, int index) {
  switch (net->graph.nodes[index].op) {
  case PEER_CONV:
  case PEER_LINEAR:
    add_weights(net, index);
    break;
  case PEER_MAX_POOL:
  case PEER_GLOBAL_AVERAGE:
    add_pool(net, index);
    break;
  case PEER_CONCAT:
    add_concat(net, index);
    break;
  case PEER_AFFINE:
    add_affine(net, index);
    break;
  }
}

/* ---- the affine loop: channels lie in blocks, [C/block][pixels][block] -----------------------------------------------------
 */

static float activate(float x, float top) {
  return x < 0 ? 0 : x > top ? top : x;
}

static void affine_bytes(const float *x, const float *scale, const float *bias, int count, float top, uint8_t *y) {
  for (int c = 0; c < count; c++) y[c] = (uint8_t)(int)rintf(activate(scale[c] * x[c] + bias[c], top));
}

static void affine_floats(const float *x, const float *scale, const float *bias, int count, float top, bool levels, float *y) {
  if (levels)
    for (int c = 0; c < count; c++) y[c] = rintf(activate(scale[c] * x[c] + bias[c], top));
  else if (top > 0)
    for (int c = 0; c < count; c++) y[c] = activate(scale[c] * x[c] + bias[c], top);
  else
    for (int c = 0; c < count; c++) y[c] = scale[c] * x[c] + bias[c];
}

void onednn_run_affine(const struct onednn_step *step) {
  const struct peer_node *n = step->node;
  const dnnl_blocking_desc_t *layout = &step->from->desc.format_desc.blocking;
  const int channels = n->out.channels;
  const int block = layout->inner_nblks == 1 ? (int)layout->inner_blks[0] : layout->strides[1] == 1 ? channels : 1;
  const size_t pixels = (size_t)n->out.height * (size_t)n->out.width;
  const bool bytes = step->to->desc.data_type == dnnl_u8;
  const float top = n->activation == PEER_LEVELS ? (float)n->levels : n->activation == PEER_RELU ? INFINITY : -1;
  const float *x = step->from->data;
  char *y = step->to->data;
  for (int c = 0; c < channels; c += block) {
    for (size_t p = 0; p < pixels; p++, x += block, y += (size_t)block * (bytes ? 1 : sizeof(float))) {
      if (bytes)
        affine_bytes(x, step->scale + c, step->bias + c, block, top, (uint8_t *)y);
      else
        affine_floats(x, step->scale + c, step->bias + c, block, top, n->activation == PEER_LEVELS, (float *)(void *)y);
    }
  }
}
