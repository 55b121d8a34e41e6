/* The authors' recipes are those of the solver.prototxt and train_val.prototxt files of their published program
 * (github.com/zhaoweicai/hwgq, examples/cifar10 and examples/imagenet): SGD with momentum 0.9, a learning rate that falls on a
 * straight line to 0, mirrored and shifted images. Their iterations are epochs here: 100,000 of 100 images of CIFAR-10 are 200;
 * 320,000 of 256 images of ImageNet are 64 (256 is the paper's; the files have 128 for
 * each of several devices). The mean of CIFAR-10's channels stands for their mean image, and a shift of the 224 or 227 pixels
 * in the center for a window anywhere in 256. */
#include "models/tool/train_presets.h"

#include <string.h>

#define PAPER                                                                                                                  \
  {TRAIN_OPTIMIZER, "sgd"}, {TRAIN_MOMENTUM, "0.9"}, {TRAIN_SCHEDULE, "poly"}, {TRAIN_POWER, "1"}, {TRAIN_WARMUP, "0"},        \
      {TRAIN_CLASSIFIER_RATE, "1"}, {TRAIN_INITIALIZER, "msra"}, {TRAIN_SCALE, "1"}, {                                         \
    TRAIN_MIRROR, "yes"                                                                                                        \
  }

static const struct train_preset_option plain[] = {{0, NULL}};
/* Not the paper's: with half a step as the first threshold the squared error is half as large, and it and a scale and offset
 * train better; zooming is against learning images by heart. */
static const struct train_preset_option shipped[] = {
    {TRAIN_ZERO, "half"}, {TRAIN_AFFINE, "yes"}, {TRAIN_ZOOM, "0.1"}, {0, NULL}};
static const struct train_preset_option paper_cifar[] = {
    PAPER,    {TRAIN_LR, "0.01"}, {TRAIN_WEIGHT_DECAY, "0.0005"}, {TRAIN_BATCH, "100"}, {TRAIN_EPOCHS, "200"}, {TRAIN_PAD, "4"},
    {0, NULL}};
#define IMAGENET                                                                                                               \
  PAPER, {TRAIN_ORDER, "bgr"}, {TRAIN_MEAN, "104,117,123"}, {TRAIN_RESIZE, "256"}, {TRAIN_PAD, "16"}, {                        \
    TRAIN_BATCH, "256"                                                                                                         \
  }
static const struct train_preset_option paper_alexnet[] = {
    IMAGENET, {TRAIN_LR, "0.02"}, {TRAIN_WEIGHT_DECAY, "0.0005"}, {TRAIN_EPOCHS, "64"}, {0, NULL}};
static const struct train_preset_option paper_vgg[] = {
    IMAGENET, {TRAIN_LR, "0.01"}, {TRAIN_WEIGHT_DECAY, "0.0005"}, {TRAIN_EPOCHS, "64"}, {0, NULL}};
static const struct train_preset_option paper_resnet[] = {
    IMAGENET, {TRAIN_LR, "0.1"}, {TRAIN_WEIGHT_DECAY, "0.00005"}, {TRAIN_EPOCHS, "64"}, {0, NULL}};

static const struct {
  const char *name;
  const struct train_preset_option *options;
} presets[] = {
    {"plain", plain},         {"shipped", shipped},           {"paper-cifar", paper_cifar}, {"paper-alexnet", paper_alexnet},
    {"paper-vgg", paper_vgg}, {"paper-resnet", paper_resnet},
};

const struct train_preset_option *train_preset(const char *name) {
  for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++)
    if (strcmp(presets[i].name, name) == 0) return presets[i].options;
  return NULL;
}

const char *train_preset_name(int index) {
  return index < (int)(sizeof presets / sizeof presets[0]) ? presets[index].name : NULL;
}
