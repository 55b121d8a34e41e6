/* What net.c and net_backward.c share: phases, and the layers that are loops of their own. Internal to models/train. */
#ifndef TRAIN_NET_LAYERS_H
#define TRAIN_NET_LAYERS_H

#include "models/train/net.h"

/* Layers between two points where the whole batch is needed, and its chunks of images. */
struct phase {
  struct net *net;
  int from, to;   /* layers from <= l < to; backward from to - 1 down to from */
  int statistics; /* the batch_norm whose sums this phase makes, -1 without */
  int count, chunk;
  const int *labels;
  const float *teacher;
  int weight_from, weight_to, weight_tasks; /* layers whose weights' gradients are made beside it */
};

static inline size_t net_pixels(struct hwgq_shape shape) {
  return (size_t)shape.height * (size_t)shape.width;
}

static inline bool net_has_weights(const struct net_layer *l) {
  return l->op == HWGQ_CONV2D || l->op == HWGQ_LINEAR;
}

/* Images per chunk of layers from <= l < to. */
int net_chunk_images(const struct net *net, int from, int to, int count);
/* Zero sums of a chunk, [2][channels]. */
double *net_chunk_sums(const struct net_layer *l, int chunk);

/* Of images [first, first + count). Backward: from the layer's gradient to in_gradient, or for add and concat to the sources'.
 */
void net_max_pool(const struct net *net, const struct net_layer *l, int first, int count);
void net_max_pool_backward(const struct net *net, const struct net_layer *l, int first, int count);
void net_average_pool(const struct net_layer *l, int first, int count);
void net_average_pool_backward(const struct net_layer *l, int first, int count);
void net_add(const struct net_layer *l, int first, int count);
void net_add_backward(const struct net_layer *l, int first, int count);
void net_concat(const struct net_layer *l, int first, int count);
void net_concat_backward(const struct net_layer *l, int first, int count);
/* Adds in_gradient to the gradient of the layer that the input comes from, where they are two. */
void net_pass_on(const struct net_layer *l, int first, int count);

#endif
