/* Descriptions of the paper's networks, by name, and random weights for them. */
#ifndef NETWORKS_H
#define NETWORKS_H

#include "engine/hwgq.h"

/* What a network is meant for: the paper's input and classes, and the preprocessing of the authors' program. */
struct networks_entry {
  const char *name;    /* "resnet-18" */
  const char *summary; /* one line */
  struct hwgq_shape input;
  int class_count;
  struct hwgq_preprocess preprocess;
};

/* What a network computes with, apart from its layers. */
struct networks_variant {
  const struct hwgq_quantizer *quantizer; /* of every hidden layer's activations; NULL: sign */
  bool relu;                              /* ReLU in its place */
  bool float_weights;                     /* no layer is binary */
  bool affine;                            /* a scale with an offset before every activation, for training to find */
};

/* Builds one of
 *   lenet              28x28 gray. The first convolution is binary on real-valued pixels, the last layer binary with a bias
 *   vgg-small          32x32. Batch norm and quantizer also before the classifier; what `hwgq train` trains
 *   vgg-small-relu     the same as the authors' program ends it: batch norm, scale, ReLU, max pool, classifier
 *   alexnet            227x227
 *   vgg-variant        224x224, as all that follow
 *   darknet-19
 *   googlenet
 *   resnet-18, resnet-34, resnet-50
 *   resnet-18-small    32x32: resnet-18 whose first convolution is 3x3 with stride 1, and no pool behind it
 * First convolution and classifier are float but for lenet. Any input size that leaves something to every layer will do.
 * width: factor on every hidden channel count (1 is the paper's). quantizer: the activation quantizer of every layer; NULL for
 * sign activations. The network has shapes and zero-filled parameters. */
enum hwgq_status networks_build(const char *name, struct hwgq_shape input, int class_count, double width,
                                const struct hwgq_quantizer *quantizer, struct hwgq_network **network,
                                struct hwgq_error *error);
/* The same with anything else in the place of quantized activations and binary weights: the paper's ablations. */
enum hwgq_status networks_build_variant(const char *name, struct hwgq_shape input, int class_count, double width,
                                        const struct networks_variant *variant, struct hwgq_network **network,
                                        struct hwgq_error *error);
/* NULL-terminated list of the names. */
const char *const *networks_names(void);
/* NULL when there is no such network. */
const struct networks_entry *networks_find(const char *name);

/* Fills a built network with random parameters: Gaussian weights (binary layers: their signs, and alpha as their mean
 * magnitude), scales about 1, and batch-norm statistics of `image_count` synthetic images, so that activations are spread over
 * the levels as in a trained network. The same seed gives the same bits everywhere. image_count: 1 to 64. */
enum hwgq_status networks_randomize(struct hwgq_network *network, const struct hwgq_preprocess *preprocess, uint64_t seed,
                                    int image_count, struct hwgq_error *error);
/* One synthetic image: HWC pixels of color gradients, blobs and noise. The calibration uses numbers 0 to image_count - 1. */
void networks_image(struct hwgq_shape shape, uint64_t seed, int number, uint8_t *pixels);

enum { NETWORKS_IMAGENET_CLASSES = 1000 };
extern const char *const networks_imagenet_labels[NETWORKS_IMAGENET_CLASSES];

#endif
