/* ResNets: a float stream to which every block adds. A block normalizes and quantizes the stream, runs binary convolutions with
 * batch norm and quantizer between them, and batch norm and scale behind the last; the first block of a stage also projects the
 * quantized stream to the new size (binary 1x1, batch norm, scale). The very first block's batch norm is in the stream itself:
 * shortcut and quantizer both take what comes out of it. */
#include "models/networks/builder.h"

/* Blocks are named as in the ResNet paper: res2a is the first block of the first stage. */
static void norm_and_scale(struct builder *b, const char *block, const char *branch) {
  char name[BUILDER_NAME];
  build_layer(b, build_name(name, "%s_%s_bn", block, branch), HWGQ_BATCH_NORM);
  build_scale(b, build_name(name, "%s_%s_scale", block, branch));
}

static void norm_and_quantize(struct builder *b, const char *block, const char *branch) {
  char name[BUILDER_NAME];
  build_layer(b, build_name(name, "%s_%s_bn", block, branch), HWGQ_BATCH_NORM);
  build_quantize(b, build_name(name, "%s_%s_quant", block, branch));
}

/* From the block's quantizer to the end of its branch: 3x3, 3x3, or with `bottleneck` 1x1, 3x3, 1x1 to four times the channels.
 * The stride is the first convolution's. */
static void branch(struct builder *b, const char *block, int channels, int stride, bool bottleneck) {
  char name[BUILDER_NAME];
  const struct conv basic[] = {{channels, 3, stride, 1}, {channels, 3, 1, 1}};
  const struct conv narrow[] = {{channels, 1, stride, 0}, {channels, 3, 1, 1}, {4 * channels, 1, 1, 0}};
  const char *const names[] = {"conv1", "conv2", "conv3"};
  const int count = bottleneck ? 3 : 2;
  for (int i = 0; i < count; i++) {
    build_binary_conv(b, build_name(name, "%s_%s", block, names[i]), bottleneck ? narrow[i] : basic[i]);
    if (i < count - 1) norm_and_quantize(b, block, names[i]);
  }
  norm_and_scale(b, block, names[count - 1]);
}

/* `first`: of the network, whose batch norm is there already. */
static void block(struct builder *b, const char *name, struct conv projection, int channels, bool bottleneck, bool first) {
  char stream[BUILDER_NAME], quantizer[BUILDER_NAME], end[BUILDER_NAME], proj[BUILDER_NAME];
  build_name(stream, "%s", b->last);
  if (!first) build_layer(b, build_name(end, "%s_bn", name), HWGQ_BATCH_NORM);
  build_quantize(b, build_name(quantizer, "%s_quant", name));
  if (projection.out_channels) {
    build_binary_conv(b, build_name(proj, "%s_proj", name), projection);
    norm_and_scale(b, name, "proj");
    build_name(stream, "%s", b->last);
    build_from(b, quantizer);
  }
  branch(b, name, channels, projection.out_channels ? projection.stride : 1, bottleneck);
  build_name(end, "%s", b->last);
  build_add(b, name, stream, end);
}

/* `small`: for images of a few dozen pixels, which a first stride and pool would shrink too far. */
static void resnet(struct builder *b, const int blocks[4], bool bottleneck, bool small, int class_count) {
  build_float_conv(b, "conv1", small ? (struct conv){64, 3, 1, 1} : (struct conv){64, 7, 2, 3}, true);
  if (!small) build_max_pool(b, "pool1", 3, 2);
  build_layer(b, "bn1", HWGQ_BATCH_NORM);
  for (int stage = 0; stage < 4; stage++) {
    const int channels = 64 << stage;
    for (int i = 0; i < blocks[stage]; i++) {
      char name[BUILDER_NAME];
      struct conv projection = {bottleneck ? 4 * channels : channels, 1, stage ? 2 : 1, 0};
      if (i > 0 || (stage == 0 && !bottleneck)) projection.out_channels = 0;
      build_name(name, "res%d%c", stage + 2, 'a' + i);
      block(b, name, projection, channels, bottleneck, stage == 0 && i == 0);
    }
  }
  build_layer(b, "relu5", HWGQ_RELU);
  build_global_pool(b, "pool5");
  build_classifier(b, "fc", class_count, false);
}

void build_resnet18(struct builder *b, int class_count) {
  resnet(b, (const int[]){2, 2, 2, 2}, false, false, class_count);
}

void build_resnet18_small(struct builder *b, int class_count) {
  resnet(b, (const int[]){2, 2, 2, 2}, false, true, class_count);
}

void build_resnet34(struct builder *b, int class_count) {
  resnet(b, (const int[]){3, 4, 6, 3}, false, false, class_count);
}

void build_resnet50(struct builder *b, int class_count) {
  resnet(b, (const int[]){3, 4, 6, 3}, true, false, class_count);
}
