#include "models/networks/networks.h"
#include "models/networks/builder.h"

#include <string.h>

/* The authors' program subtracts the mean of ImageNet's blue, green and red, and does not scale. */
#define IMAGENET(size, resized)                                                                                                \
  .input = {3, size, size}, .class_count = NETWORKS_IMAGENET_CLASSES,                                                          \
  .preprocess = {.order = HWGQ_BGR, .resize = resized, .mean = {104, 117, 123}, .scale = {1, 1, 1}}
/* The authors subtract a mean image; the mean of CIFAR-10's channels instead, and a power of two as the scale. */
#define CIFAR                                                                                                                  \
  .input = {3, 32, 32}, .class_count = 10,                                                                                     \
  .preprocess = {.order = HWGQ_RGB, .mean = {125.3f, 123, 113.9f}, .scale = {0.015625f, 0.015625f, 0.015625f}}

static const struct network {
  struct networks_entry entry;
  void (*build)(struct builder *b, int class_count);
} networks[] = {
    {{"lenet", "MNIST: 2 convolutions, 2 linear layers, all binary", .input = {1, 28, 28}, .class_count = 10,
      .preprocess = {.order = HWGQ_GRAY, .mean = {0}, .scale = {0.00390625f}}},
     build_lenet},
    {{"vgg-small", "CIFAR-10: 6 convolutions, as `hwgq train` trains it", CIFAR}, build_vgg_small},
    {{"vgg-small-relu", "CIFAR-10: 6 convolutions, with the authors' end (scale, ReLU, pool)", CIFAR}, build_vgg_small_relu},
    {{"alexnet", "ImageNet: 5 convolutions, 3 linear layers", IMAGENET(227, 256)}, build_alexnet},
    {{"vgg-variant", "ImageNet: 10 convolutions, 3 linear layers", IMAGENET(224, 256)}, build_vgg_variant},
    {{"darknet-19", "ImageNet: 18 convolutions, all 3x3", IMAGENET(224, 256)}, build_darknet19},
    {{"googlenet", "ImageNet: 9 inception modules without pooling branch", IMAGENET(224, 256)}, build_googlenet},
    {{"resnet-18", "ImageNet: 8 basic blocks", IMAGENET(224, 256)}, build_resnet18},
    {{"resnet-34", "ImageNet: 16 basic blocks", IMAGENET(224, 256)}, build_resnet34},
    {{"resnet-50", "ImageNet: 16 bottleneck blocks", IMAGENET(224, 256)}, build_resnet50},
    {{"resnet-18-small", "Tiny ImageNet at 32x32: resnet-18 that keeps its input's size at first", .input = {3, 32, 32},
      .class_count = 200,
      .preprocess = {.order = HWGQ_RGB, .mean = {122.5f, 114, 101.5f}, .scale = {0.015625f, 0.015625f, 0.015625f}}},
     build_resnet18_small},
};

enum { NETWORK_COUNT = sizeof networks / sizeof networks[0] };

#define NAMES                                                                                                                  \
  "lenet, vgg-small, vgg-small-relu, alexnet, vgg-variant, darknet-19, googlenet, resnet-18, resnet-34, resnet-50, "           \
  "resnet-18-small"

const char *const *networks_names(void) {
  static const char *const names[NETWORK_COUNT + 1] = {"lenet",       "vgg-small",  "vgg-small-relu", "alexnet",
                                                       "vgg-variant", "darknet-19", "googlenet",      "resnet-18",
                                                       "resnet-34",   "resnet-50",  "resnet-18-small"};
  return names;
}

static const struct network *find(const char *name) {
  for (int i = 0; i < NETWORK_COUNT; i++) {
    if (strcmp(networks[i].entry.name, name) == 0) return &networks[i];
  }
  return NULL;
}

const struct networks_entry *networks_find(const char *name) {
  const struct network *found = find(name);
  return found ? &found->entry : NULL;
}

enum hwgq_status networks_build(const char *name, struct hwgq_shape input, int class_count, double width,
                                const struct hwgq_quantizer *quantizer, struct hwgq_network **network,
                                struct hwgq_error *error) {
  return networks_build_variant(name, input, class_count, width, &(struct networks_variant){.quantizer = quantizer}, network,
                                error);
}

enum hwgq_status networks_build_variant(const char *name, struct hwgq_shape input, int class_count, double width,
                                        const struct networks_variant *variant, struct hwgq_network **network,
                                        struct hwgq_error *error) {
  const struct network *found = find(name);
  if (found == NULL) return hwgq_fail(error, HWGQ_ERROR_INVALID, "there is no network \"%.40s\": choose one of " NAMES, name);
  if (!(width > 0 && width <= 64))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "width factor %g: give one above 0 and up to 64", width);
  if (class_count < 1 || class_count > HWGQ_MAX_CLASSES)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%d classes: a network has 1 to %d", class_count, HWGQ_MAX_CLASSES);
  struct builder b = {.variant = variant, .width = width, .last = "input", .error = error};
  enum hwgq_status status = hwgq_network_create(name, input, &b.network, error);
  if (status != HWGQ_OK) return status;
  found->build(&b, class_count);
  status = b.status;
  if (status == HWGQ_OK) status = hwgq_network_infer(b.network, error);
  if (status == HWGQ_OK) status = hwgq_network_allocate_parameters(b.network, error);
  if (status != HWGQ_OK) {
    hwgq_network_destroy(b.network);
    return status;
  }
  *network = b.network;
  return HWGQ_OK;
}
