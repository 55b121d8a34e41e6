/* A network in training: the layers of a struct hwgq_network, in its order, with what their gradients need.
 *
 * A batch goes through in phases. Within a phase a few images at a time pass through several layers while they are in the
 * cache, each such chunk a task for the pool; a phase ends where the whole batch is needed (batch statistics). Chunks do not
 * depend on the number of threads, and sums over them are made in a fixed order: nor do the results. */
#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include "engine/hwgq.h"
#include "models/train/blas.h"
#include "models/train/conv.h"
#include "models/train/kernels.h"
#include "models/train/pool.h"

/* What stands for the derivative of a quantizer with levels, x being its input and m its largest center (the paper's section
 * 3.3). Signs have the hard tanh's, 1 for |x| <= 1. */
enum net_backward {
  NET_CLIPPED,    /* 1 for 0 < x <= m */
  NET_VANILLA,    /* 1 for 0 < x */
  NET_LOG_TAILED, /* 1 for 0 < x <= m, 1 / (x - m + 1) beyond */
};

/* What a batch is trained for. All zero: cross entropy with the labels. */
struct net_objective {
  double smoothing; /* share of the label's probability that is spread evenly over all classes */
  /* With p and t the softmax of the network's and the teacher's class scores, each divided by the temperature, the loss is
   * (1 - distillation) * cross entropy with the labels + distillation * temperature^2 * KL(t, p) (Hinton, Vinyals, Dean, arXiv
   * 1503.02531). */
  double distillation, temperature;
};

enum net_initializer {
  NET_UNIFORM, /* within 1 / sqrt(inputs per output) */
  NET_MSRA,    /* Gaussian of variance 2 / (inputs per output) (He et al., arXiv 1502.01852) */
};

/* One input of a layer, and the gradient of the layer that it comes from. When several layers take the same output, the first
 * of them in backward order, which is the last one, overwrites its gradient, and the others add to it. */
struct net_source {
  const float *value;
  float *gradient; /* NULL: the network's input, of which none is wanted */
  struct hwgq_shape shape;
  size_t size;
  bool overwrites;
};

struct net_layer {
  enum hwgq_op op;
  const struct hwgq_layer *layer; /* borrowed */
  struct hwgq_shape in, out;
  size_t in_size, out_size; /* values per image */
  const float *in_value;    /* the layer's first input and output: [image][row][column][channel] */
  float *value;
  /* Of the first input; NULL where none is wanted. Element-wise layers work in place: in_gradient == gradient. Where it is not
   * the source's own gradient, it is added to that after each chunk. */
  float *in_gradient;
  float *gradient;
  bool owns_value, owns_gradient, owns_in_gradient;
  int source_count, consumers; /* layers that take the output */
  struct net_source sources[HWGQ_MAX_INPUTS];

  struct conv conv; /* conv2d, linear */
  uint8_t *which;   /* max_pool: number of the window's cell that each output was taken from */

  /* batch_norm and scale, per channel */
  float *mean, *variance; /* running */
  float *gamma, *beta, *gamma_gradient, *beta_gradient;
  float *slope, *offset; /* of the forward pass: y = slope * x + offset */
  float *back[3];        /* of the backward pass: g * back[0] + y * back[1] + back[2] */
  double *partial;       /* [chunk][2][channels] */
};

/* What an optimizer changes. */
struct net_parameter {
  char name[256]; /* "LAYER.weight", ... */
  float *value, *gradient;
  size_t count;
  bool latent;  /* clamped to [-1, 1] */
  bool decayed; /* weight decay applies */
  struct net_layer *layer;
};

struct net {
  struct pool *pool; /* borrowed, as the next three */
  const struct blas *blas;
  const struct train_kernels *kernels;
  const struct hwgq_network *network;
  int batch; /* most images at a time */
  float *input;
  int layer_count;
  struct net_layer *layers;
  int parameter_count;
  struct net_parameter *parameters;
  float statistics_momentum; /* share of a batch's statistics in the running ones */
  enum net_backward backward;
  struct net_objective objective;
  float **workspaces; /* [worker] */
};

/* Refuses what the trainer cannot do, by the name of the layer: flatten, groups, a network that does not end in a
 * softmax. The network, with shapes inferred, must outlive the result. */
enum hwgq_status net_create(const struct hwgq_network *network, int batch, struct pool *pool, const struct blas *blas,
                            struct net **net, struct hwgq_error *error);
void net_destroy(struct net *net);

/* Random weights, biases 0, gamma 1, beta 0, running mean 0 and variance 1. */
void net_initialize(struct net *net, enum net_initializer kind, uint64_t seed);
/* To be called after weights were changed and before net_forward: alpha, binary weights. */
void net_prepare(struct net *net);

/* From net->input, images [0, count), to the output of the last layer. training: batch statistics, which also go into the
 * running ones; else the running ones. */
void net_forward(struct net *net, int count, bool training);
/* Probabilities, [image][class]. */
const float *net_output(const struct net *net);
/* What the softmax takes, [image][class]. */
const float *net_class_scores(const struct net *net);
int net_class_count(const struct net *net);
/* Sum over the images of -log(probability of the label), and how many images have their label's probability as the largest. */
void net_score(const struct net *net, const int *labels, int count, double *loss, int *right);
/* After net_forward(training) of the same images: the gradients of the objective's mean with respect to every parameter.
 * teacher: a teacher's class scores of these images, [image][class]; NULL without distillation. seed: of what is rounded at
 * random, another one for each batch. */
void net_backward(struct net *net, const int *labels, const float *teacher, int count, uint64_t seed);

/* Takes the parameters of layers of the same name from a network, whose shapes are inferred; its images may be of another size.
 * Every layer must be there with parameters of the same shapes, but for scales, and for the classifier (the last layer with
 * weights), which then stay as they are. *taken: layers that were found. Latent weights may lie beyond their bounds afterwards,
 * as those of channels whose alpha is above 1: before the net is trained, net_clamp_latent. */
enum hwgq_status net_import(struct net *net, const struct hwgq_network *network, int *taken, struct hwgq_error *error);
/* Latent weights into [-1, 1], where training keeps them; returns how many were not. */
int64_t net_clamp_latent(struct net *net);
bool net_is_classifier(const struct net *net, const struct net_layer *layer);
/* Copies what was trained into a network of the same description, whose parameters are allocated. */
void net_export(const struct net *net, struct hwgq_network *network);

#endif
