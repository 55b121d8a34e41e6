/* A network written down layer by layer: what the descriptions in this folder are made of. Internal to models/networks. */
#ifndef NETWORKS_BUILDER_H
#define NETWORKS_BUILDER_H

#include "models/networks/networks.h"

enum { BUILDER_NAME = 64 };

/* The first failure is kept and later calls do nothing, so descriptions need no error handling. Every layer takes `last` and
 * becomes it, unless said otherwise. */
struct builder {
  struct hwgq_network *network;
  const struct networks_variant *variant;
  double width;
  char last[BUILDER_NAME];
  enum hwgq_status status;
  struct hwgq_error *error;
};

/* Convolution of a square kernel. out_channels is the paper's and gets scaled by the width, as in build_binary_linear. */
struct conv {
  int out_channels, kernel, stride, pad;
};
void build_float_conv(struct builder *b, const char *name, struct conv conv, bool bias);
void build_binary_conv(struct builder *b, const char *name, struct conv conv);
void build_binary_linear(struct builder *b, const char *name, int out_channels);
/* Linear layer with a bias, and softmax "prob". Not scaled: these are the classes. */
void build_classifier(struct builder *b, const char *name, int class_count, bool binary);

void build_max_pool(struct builder *b, const char *name, int kernel, int stride);
void build_global_pool(struct builder *b, const char *name);
void build_scale(struct builder *b, const char *name);
/* The activation: a quantizer, or what the variant has instead. The name stays. */
void build_quantize(struct builder *b, const char *name);
void build_add(struct builder *b, const char *name, const char *one, const char *other);
void build_concat(struct builder *b, const char *name, int count, const char *const *inputs);
/* Any other layer with one input, for the caller to fill in; NULL after a failure. */
struct hwgq_layer *build_layer(struct builder *b, const char *name, enum hwgq_op op);
/* Formats a layer's name into `name` and returns it. */
const char *build_name(char name[BUILDER_NAME], const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The next layer takes this one. */
void build_from(struct builder *b, const char *name);

/* The descriptions: a network from `input` to the softmax. */
void build_lenet(struct builder *b, int class_count);
void build_vgg_small(struct builder *b, int class_count);
void build_vgg_small_relu(struct builder *b, int class_count);
void build_alexnet(struct builder *b, int class_count);
void build_vgg_variant(struct builder *b, int class_count);
void build_darknet19(struct builder *b, int class_count);
void build_googlenet(struct builder *b, int class_count);
void build_resnet18(struct builder *b, int class_count);
void build_resnet18_small(struct builder *b, int class_count);
void build_resnet34(struct builder *b, int class_count);
void build_resnet50(struct builder *b, int class_count);

#endif
