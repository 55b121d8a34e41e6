/* A network as an engine of another maker would run it: batch norms, scales and alphas folded into the convolutions, quantizers
 * into what they follow. Every peer starts from this, so that all of them compute the same network in its cheapest form. */
#ifndef PEERS_LOWER_H
#define PEERS_LOWER_H

#include "engine/hwgq.h"

enum peer_op {
  PEER_CONV,
  PEER_LINEAR, /* takes CHW, whatever the input's shape */
  PEER_MAX_POOL,
  PEER_GLOBAL_AVERAGE,
  PEER_AFFINE, /* scale * x + bias per channel, where no convolution could take it */
  PEER_CONCAT,
};

enum peer_activation {
  PEER_NONE,
  PEER_RELU,
  PEER_LEVELS, /* the level code, min(max(round(x), 0), levels): round to nearest */
};

enum { PEER_INPUT = -1 };

/* y = activation(scale * op(x) + bias + addend) */
struct peer_node {
  enum peer_op op;
  int input_count, inputs[HWGQ_MAX_INPUTS];
  int addend; /* a node whose values are added, or PEER_INPUT for none: a residual */
  struct hwgq_shape in, out;
  int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, groups;
  bool binary;
  float *weight; /* [out][in/groups][kernel_h][kernel_w]; binary: +1 and -1 */
  size_t fan_in;
  double *scale, *bias; /* [out.channels]; of convolutions, linear and affine nodes */
  enum peer_activation activation;
  int levels;              /* PEER_LEVELS: the highest code */
  bool codes;              /* the values are level codes, also behind a pool or concatenation of codes */
  double step;             /* codes: value of level 1 */
  double magnitude;        /* about the largest |y|, from batch-norm statistics: engines with 8-bit values need it */
  double branch_magnitude; /* the same without the addend */
};

struct peer_graph {
  struct hwgq_shape input;
  struct hwgq_preprocess preprocess;
  int count, classes;
  struct peer_node *nodes; /* in order of execution; the last one gives the scores before the softmax */
};

/* Refused: sign activations, quantizers whose thresholds are not at (k - 1/2) steps, and average pools that are not global. */
enum hwgq_status peer_lower(const struct hwgq_model *model, struct peer_graph *graph, struct hwgq_error *error);
/* The first convolution for engines that take 8-bit pixels and 8-bit weights: weights become whole numbers up to `limit`, and
 * scale * sum(weight * (pixel - zero point)) + bias is the node's value. Returns the zero point, the mean pixel; padding has
 * that value, in every channel, where the network means the channel's own. The arrays are the caller's. */
int peer_quantize_first(const struct peer_graph *graph, const struct peer_node *node, double limit, float *weight,
                        double *scale, double *bias);
void peer_graph_release(struct peer_graph *graph);

#endif
