/* One node of a lowered network as oneDNN primitives. oneDNN 2.x, its C interface. */
#ifndef PEERS_ONEDNN_NODE_H
#define PEERS_ONEDNN_NODE_H

#include "tests/bench/peers/lower.h"

#include <dnnl.h>

struct onednn_value {
  dnnl_memory_desc_t desc; /* four dimensions */
  dnnl_memory_t memory;
  void *data;
};

/* A primitive with its arguments, or (primitive NULL) the affine node's own loop. */
struct onednn_step {
  dnnl_primitive_t primitive;
  dnnl_exec_arg_t args[HWGQ_MAX_INPUTS + 2];
  int arg_count;
  const struct peer_node *node;
  const float *scale, *bias;
  const struct onednn_value *from, *to;
};

struct onednn_net {
  struct peer_graph graph;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  bool int8;       /* level codes are u8, other values f32, all in NHWC; else everything is f32 in the layouts oneDNN prefers */
  bool int8_first; /* the first convolution takes 8-bit pixels and 8-bit weights */
  struct onednn_value input, *values; /* [nodes] */
  struct onednn_step *steps;
  int step_count, step_room;
};

#define ONEDNN_CHECK(call) onednn_check(call, #call)
void onednn_check(dnnl_status_t status, const char *what);
struct onednn_value onednn_new_value(const struct onednn_net *net, const dnnl_memory_desc_t *desc);
/* Appends the steps of node `index`; its inputs have theirs already. */
void onednn_add_node(struct onednn_net *net, int index);
void onednn_run_affine(const struct onednn_step *step);

#endif
