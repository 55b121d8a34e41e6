/* The plain networks: one layer after the other, convolution -> (max pool) -> batch norm -> quantizer. They are tables of
 * convolutions; the paper's figures are in section 5, layer sizes as in the authors' program. */
#include "models/networks/builder.h"

/* Batch normalization and quantizer, named bnN and quantN. */
static void activation(struct builder *b, int number) {
  char name[BUILDER_NAME];
  build_layer(b, build_name(name, "bn%d", number), HWGQ_BATCH_NORM);
  build_quantize(b, build_name(name, "quant%d", number));
}

/* Convolution number N of a table and the max pool behind it (pool_kernel 0: none). Layers are named convN and poolM, where M
 * counts the pools. */
struct stage {
  struct conv conv;
  int pool_kernel, pool_stride;
};

static void stage_conv(struct builder *b, const struct stage *stage, int number, int *pools) {
  char name[BUILDER_NAME];
  build_name(name, "conv%d", number);
  if (number == 1)
    build_float_conv(b, name, stage->conv, false);
  else
    build_binary_conv(b, name, stage->conv);
  if (stage->pool_kernel == 0) return;
  build_max_pool(b, build_name(name, "pool%d", ++*pools), stage->pool_kernel, stage->pool_stride);
}

/* Every stage with its activation. */
static void stages(struct builder *b, const struct stage *stage, int count) {
  int pools = 0;
  for (int i = 0; i < count; i++) {
    stage_conv(b, &stage[i], i + 1, &pools);
    activation(b, i + 1);
  }
}

/* Two binary linear layers of 4096; the second one's activation is a ReLU, since the classifier after it is float. */
static void hidden_layers(struct builder *b, int number, int class_count) {
  char name[BUILDER_NAME];
  build_binary_linear(b, build_name(name, "fc%d", number), 4096);
  activation(b, number);
  build_binary_linear(b, build_name(name, "fc%d", number + 1), 4096);
  build_layer(b, build_name(name, "bn%d", number + 1), HWGQ_BATCH_NORM);
  build_layer(b, build_name(name, "relu%d", number + 1), HWGQ_RELU);
  build_classifier(b, build_name(name, "fc%d", number + 2), class_count, false);
}

/* LeNet of the Caffe tutorial: everything is binary, pixels are not quantized. */
void build_lenet(struct builder *b, int class_count) {
  build_binary_conv(b, "conv1", (struct conv){20, 5, 1, 0});
  build_max_pool(b, "pool1", 2, 2);
  activation(b, 1);
  build_binary_conv(b, "conv2", (struct conv){50, 5, 1, 0});
  build_max_pool(b, "pool2", 2, 2);
  activation(b, 2);
  build_binary_linear(b, "fc1", 500);
  activation(b, 3);
  build_classifier(b, "fc2", class_count, true);
}

static const struct stage vgg_small[] = {
    {{128, 3, 1, 1}, 0, 0}, {{128, 3, 1, 1}, 2, 2}, {{256, 3, 1, 1}, 0, 0},
    {{256, 3, 1, 1}, 2, 2}, {{512, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 2, 2},
};

void build_vgg_small(struct builder *b, int class_count) {
  stages(b, vgg_small, 6);
  build_classifier(b, "fc", class_count, false);
}

void build_vgg_small_relu(struct builder *b, int class_count) {
  stages(b, vgg_small, 5);
  build_binary_conv(b, "conv6", vgg_small[5].conv);
  build_layer(b, "bn6", HWGQ_BATCH_NORM);
  build_scale(b, "scale6");
  build_layer(b, "relu6", HWGQ_RELU);
  build_max_pool(b, "pool3", 2, 2);
  build_classifier(b, "fc", class_count, false);
}

/* Without groups and without local response normalization. */
void build_alexnet(struct builder *b, int class_count) {
  static const struct stage alexnet[] = {
      {{96, 11, 4, 0}, 3, 2}, {{256, 5, 1, 2}, 3, 2}, {{384, 3, 1, 1}, 0, 0}, {{384, 3, 1, 1}, 0, 0}, {{256, 3, 1, 1}, 3, 2},
  };
  stages(b, alexnet, 5);
  hidden_layers(b, 6, class_count);
}

/* Model A of He et al., "Delving Deep into Rectifiers", cut short: a ReLU before the first pool, no spatial pyramid. */
void build_vgg_variant(struct builder *b, int class_count) {
  static const struct stage vgg[] = {
      {{256, 3, 1, 1}, 0, 0}, {{256, 3, 1, 1}, 0, 0}, {{256, 3, 1, 1}, 2, 2}, {{512, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 0, 0},
      {{512, 3, 1, 1}, 2, 2}, {{512, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 2, 2},
  };
  build_float_conv(b, "conv1", (struct conv){96, 7, 2, 3}, false);
  build_layer(b, "relu1", HWGQ_RELU);
  build_max_pool(b, "pool1", 2, 2);
  activation(b, 1);
  int pools = 1;
  for (int i = 0; i < 9; i++) {
    stage_conv(b, &vgg[i], i + 2, &pools);
    activation(b, i + 2);
  }
  hidden_layers(b, 11, class_count);
}

/* Darknet-19 with 3x3 kernels in place of its 1x1 ones, and a float classifier in place of its last convolution. */
void build_darknet19(struct builder *b, int class_count) {
  static const struct stage darknet[] = {
      {{32, 3, 1, 1}, 2, 2},   {{64, 3, 1, 1}, 2, 2},  {{128, 3, 1, 1}, 0, 0}, {{64, 3, 1, 1}, 0, 0},   {{128, 3, 1, 1}, 2, 2},
      {{256, 3, 1, 1}, 0, 0},  {{128, 3, 1, 1}, 0, 0}, {{256, 3, 1, 1}, 2, 2}, {{512, 3, 1, 1}, 0, 0},  {{256, 3, 1, 1}, 0, 0},
      {{512, 3, 1, 1}, 0, 0},  {{256, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 2, 2}, {{1024, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 0, 0},
      {{1024, 3, 1, 1}, 0, 0}, {{512, 3, 1, 1}, 0, 0},
  };
  stages(b, darknet, 17);
  build_binary_conv(b, "conv18", (struct conv){1024, 3, 1, 1});
  build_layer(b, "bn18", HWGQ_BATCH_NORM);
  build_scale(b, "scale18");
  build_layer(b, "relu18", HWGQ_RELU);
  build_global_pool(b, "pool6");
  build_classifier(b, "fc19", class_count, false);
}
