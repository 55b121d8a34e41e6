/* GoogLeNet as the HWGQ paper changes it (section 5): inception modules without the pooling branch, reductions as wide as the
 * convolutions that follow them, no auxiliary classifiers. */
#include "models/networks/builder.h"

#include <stddef.h>

/* Output channels of a module's three branches. */
struct module {
  const char *name;
  int one, three, five;
};

static void norm(struct builder *b, const char *owner) {
  char name[BUILDER_NAME];
  build_layer(b, build_name(name, "%s_bn", owner), HWGQ_BATCH_NORM);
}

/* 1x1 reduction -> batch norm -> quantizer -> kernel x kernel, all with the same channel count. `size`: "3x3" */
static void branch(struct builder *b, const char *module, const char *size, int kernel, int channels) {
  char name[BUILDER_NAME];
  build_binary_conv(b, build_name(name, "%s_%s_reduce", module, size), (struct conv){channels, 1, 1, 0});
  build_layer(b, build_name(name, "%s_bn_%s", module, size), HWGQ_BATCH_NORM);
  build_quantize(b, build_name(name, "%s_quant_%s", module, size));
  build_binary_conv(b, build_name(name, "%s_%s", module, size), (struct conv){channels, kernel, 1, kernel / 2});
}

static void inception(struct builder *b, const struct module *module) {
  char quantizer[BUILDER_NAME], one[BUILDER_NAME], three[BUILDER_NAME], five[BUILDER_NAME], output[BUILDER_NAME];
  const char *const ends[] = {build_name(one, "%s_1x1", module->name), build_name(three, "%s_3x3", module->name),
                              build_name(five, "%s_5x5", module->name)};
  build_quantize(b, build_name(quantizer, "%s_quant", module->name));
  build_binary_conv(b, one, (struct conv){module->one, 1, 1, 0});
  build_from(b, quantizer);
  branch(b, module->name, "3x3", 3, module->three);
  build_from(b, quantizer);
  branch(b, module->name, "5x5", 5, module->five);
  build_concat(b, build_name(output, "%s_output", module->name), 3, ends);
}

void build_googlenet(struct builder *b, int class_count) {
  static const struct module modules[] = {
      {"inception_3a", 96, 128, 32},   {"inception_3b", 192, 192, 96},  {"inception_4a", 256, 208, 48},
      {"inception_4b", 224, 224, 64},  {"inception_4c", 192, 256, 64},  {"inception_4d", 176, 288, 64},
      {"inception_4e", 384, 320, 128}, {"inception_5a", 384, 320, 128}, {"inception_5b", 512, 384, 128},
  };
  build_float_conv(b, "conv1", (struct conv){64, 7, 2, 3}, false);
  build_max_pool(b, "pool1", 3, 2);
  norm(b, "pool1");
  build_quantize(b, "conv2_quant");
  branch(b, "conv2", "3x3", 3, 192);
  build_max_pool(b, "pool2", 3, 2);
  norm(b, "pool2");
  for (int i = 0; i < 9; i++) {
    inception(b, &modules[i]);
    const char *pool = i == 1 ? "pool3" : i == 6 ? "pool4" : NULL;
    if (pool) build_max_pool(b, pool, 3, 2);
    norm(b, pool ? pool : modules[i].name);
  }
  build_scale(b, "inception_5b_scale");
  build_layer(b, "inception_5b_relu", HWGQ_RELU);
  build_global_pool(b, "pool5");
  build_classifier(b, "classifier", class_count, false);
}
