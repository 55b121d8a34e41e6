/* The Caffe importer: weights, the graph rules, what is refused and how. Its readers: test_import_readers.c; the answers of
 * whole networks: test_golden.c. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/import/import.h"
#include "models/import/protobuf.h"
#include "models/networks/networks.h"
#include "tests/support/support.h"

/* ---- a small caffemodel writer --------------------------------------------------------------------------------------------
 */

struct bytes {
  uint8_t data[1 << 16];
  size_t length;
};

static void put(struct bytes *to, const void *data, size_t length) {
  ck_assert(to->length + length <= sizeof to->data);
  memcpy(to->data + to->length, data, length);
  to->length += length;
}

static void put_varint(struct bytes *to, uint64_t value) {
  do {
    uint8_t byte = (uint8_t)((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    put(to, &byte, 1);
    value >>= 7;
  } while (value);
}

static void put_field(struct bytes *to, uint32_t number, const void *data, size_t length) {
  put_varint(to, number << 3 | PROTOBUF_BYTES);
  put_varint(to, length);
  put(to, data, length);
}

enum blob_form { PACKED, UNPACKED, DOUBLES, LEGACY_SHAPE };

static void put_blob(struct bytes *layer, uint32_t field, const float *values, int count, const int *dims, int dim_count,
                     enum blob_form form) {
  static struct bytes blob, shape;
  blob.length = shape.length = 0;
  for (int i = 0; i < dim_count; i++) {
    if (form == LEGACY_SHAPE) {
      put_varint(&blob, (uint64_t)(i + 1) << 3 | PROTOBUF_VARINT);
      put_varint(&blob, (uint64_t)dims[i]);
    } else {
      put_varint(&shape, (uint64_t)dims[i]);
    }
  }
  if (form != LEGACY_SHAPE) {
    struct bytes *inner = malloc(sizeof *inner);
    inner->length = 0;
    put_field(inner, 1, shape.data, shape.length);
    put_field(&blob, 7, inner->data, inner->length);
    free(inner);
  }
  if (form == UNPACKED) {
    for (int i = 0; i < count; i++) {
      put_varint(&blob, 5 << 3 | PROTOBUF_FIXED32);
      put(&blob, &values[i], 4);
    }
  } else if (form == DOUBLES) {
    double doubles[1024];
    for (int i = 0; i < count; i++) doubles[i] = values[i];
    put_field(&blob, 8, doubles, (size_t)count * 8);
  } else {
    put_field(&blob, 5, values, (size_t)count * 4);
  }
  put_field(layer, field, blob.data, blob.length);
}

struct blob {
  const float *values;
  int dims[4], dim_count;
};

static void put_layer(struct bytes *model, bool v1, const char *name, const struct blob *blobs, int count,
                      enum blob_form form) {
  static struct bytes layer;
  layer.length = 0;
  put_field(&layer, v1 ? 4 : 1, name, strlen(name));
  for (int i = 0; i < count; i++) {
    int values = 1;
    for (int d = 0; d < blobs[i].dim_count; d++) values *= blobs[i].dims[d];
    put_blob(&layer, v1 ? 6 : 7, blobs[i].values, values, blobs[i].dims, blobs[i].dim_count, form);
  }
  put_field(model, v1 ? 2 : 100, layer.data, layer.length);
}

/* ---- running the importer -------------------------------------------------------------------------------------------------
 */

struct notes {
  char text[4096];
};

static void collect(void *context, const char *text) {
  struct notes *notes = context;
  strncat(notes->text, text, sizeof notes->text - strlen(notes->text) - 1);
  strncat(notes->text, "\n", sizeof notes->text - strlen(notes->text) - 1);
}

static struct notes notes;
static struct hwgq_error failure;
static struct import_options options;

static enum hwgq_status import(const char *prototxt, const struct bytes *weights, struct hwgq_model **model) {
  memset(&notes, 0, sizeof notes);
  options.note = collect;
  options.context = &notes;
  char *exact = malloc(strlen(prototxt) + 1); /* exact sizes: a byte too far is a finding under ASan */
  uint8_t *exact_weights = malloc(weights->length + 1);
  memcpy(exact, prototxt, strlen(prototxt));
  memcpy(exact_weights, weights->data, weights->length);
  exact = realloc(exact, strlen(prototxt) + (prototxt[0] == '\0'));
  exact_weights = realloc(exact_weights, weights->length + (weights->length == 0));
  enum hwgq_status status = import_caffe(exact, strlen(prototxt), exact_weights, weights->length, &options, model, &failure);
  free(exact);
  free(exact_weights);
  return status;
}

static struct hwgq_model *import_good(const char *prototxt, const struct bytes *weights) {
  struct hwgq_model *model = NULL;
  enum hwgq_status status = import(prototxt, weights, &model);
  ck_assert_msg(status == HWGQ_OK, "%s", failure.message);
  return model;
}

static void refused(const char *prototxt, const struct bytes *weights, enum hwgq_status expected, const char *part) {
  struct hwgq_model *model = NULL;
  enum hwgq_status status = import(prototxt, weights, &model);
  ck_assert_msg(status == expected && !model, "%s: %s instead of %s: %s", prototxt, hwgq_status_name(status),
                hwgq_status_name(expected), status ? failure.message : "imported");
  ck_assert_msg(strstr(failure.message, part) != NULL, "%s: '%s' is not in: %s", prototxt, part, failure.message);
}

/* A net of one input plane and a 2-class inner product over 4 pixels. */
#define HEAD "name: 'n' input: 'x' input_shape { dim: 1 dim: 1 dim: 2 dim: 2 } "
#define FC                                                                                                                     \
  "layer { name: 'fc' type: 'InnerProduct' bottom: 'x' top: 'fc' inner_product_param { num_output: 2 bias_term: false } } "
#define BINARY_FC(extra)                                                                                                       \
  "layer { name: 'fc' type: 'BinaryInnerProduct' bottom: 'x' top: 'fc' inner_product_param { num_output: 2 bias_term: false "  \
  "} " extra " } "

static const float fc_values[8] = {0.5f, -0.25f, 1, -2, 0.0f, -0.0f, 3, -1};

static const struct bytes *fc_weights(void) {
  static struct bytes weights;
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{fc_values, {2, 4}, 2}}, 1, PACKED);
  return &weights;
}

static void setup(void) {
  options = IMPORT_OPTIONS_DEFAULT;
}

/* ---- weights --------------------------------------------------------------------------------------------------------------
 */

START_TEST(float_weights) {
  /* Every way in which a caffemodel may store the same blob. */
  for (enum blob_form form = PACKED; form <= LEGACY_SHAPE; form++) {
    for (int v1 = 0; v1 < 2; v1++) {
      static struct bytes weights;
      weights.length = 0;
      struct blob blob = {fc_values, {2, 4}, 2};
      if (form == LEGACY_SHAPE) blob = (struct blob){fc_values, {1, 1, 2, 4}, 4};
      put_layer(&weights, v1, "fc", &blob, 1, form);
      struct hwgq_model *model = import_good(HEAD FC, &weights);
      const struct hwgq_layer *fc = &model->network->layers[0];
      ck_assert(!fc->binary && memcmp(fc->weight, fc_values, sizeof fc_values) == 0);
      hwgq_model_destroy(model);
    }
  }
}
END_TEST

START_TEST(binary_weights) {
  struct hwgq_model *model = import_good(HEAD BINARY_FC("binary_inner_product_param { use_alpha: true }"), fc_weights());
  const struct hwgq_layer *fc = &model->network->layers[0];
  ck_assert(fc->binary && fc->has_alpha && !fc->has_bias);
  ck_assert_int_eq(fc->weight_bits[0], 0x5); /* + - + - */
  ck_assert_int_eq(fc->weight_bits[1], 0x7); /* both zeros are +1 */
  ck_assert(fc->alpha[0] == 0.9375f && fc->alpha[1] == 1.0f);
  hwgq_model_destroy(model);
  model = import_good(HEAD BINARY_FC(""), fc_weights()); /* use_alpha defaults to false */
  ck_assert(model->network->layers[0].binary && !model->network->layers[0].has_alpha);
  hwgq_model_destroy(model);
  model = import_good(HEAD BINARY_FC("binary_inner_product_param { use_binarization: false }"), fc_weights());
  ck_assert(!model->network->layers[0].binary);
  hwgq_model_destroy(model);
  refused(HEAD BINARY_FC("binary_inner_product_param { use_alpha: true use_binarization: false }"), fc_weights(),
          HWGQ_ERROR_UNSUPPORTED, "use_alpha");
}
END_TEST

START_TEST(already_binarized) {
  static const float stored[8] = {0.3f, -0.3f, 0.3f, 0.3f, -0.7f, 0.7f, 0.7f, 0.7f};
  static struct bytes weights;
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{stored, {2, 4}, 2}}, 1, PACKED);
  struct hwgq_model *model = import_good(HEAD FC, &weights);
  const struct hwgq_layer *fc = &model->network->layers[0];
  ck_assert(fc->binary && fc->has_alpha && fc->alpha[0] == 0.3f && fc->alpha[1] == 0.7f);
  ck_assert_int_eq(fc->weight_bits[0], 0xd);
  ck_assert(strstr(notes.text, "binary layer") != NULL);
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(batch_norm_factor) {
  static const float mean[1] = {20}, variance[1] = {40}, zero[1] = {0}, factor[1] = {10};
  const char *net = HEAD "layer { name: 'bn' type: 'BatchNorm' bottom: 'x' top: 'bn' } "
                         "layer { name: 'fc' type: 'InnerProduct' bottom: 'bn' top: 'fc' "
                         "inner_product_param { num_output: 2 bias_term: false } }";
  for (int untrained = 0; untrained < 2; untrained++) {
    static struct bytes weights;
    weights.length = 0;
    put_layer(&weights, false, "bn",
              (const struct blob[]){{mean, {1}, 1}, {variance, {1}, 1}, {untrained ? zero : factor, {1}, 1}}, 3, PACKED);
    put_layer(&weights, false, "fc", (const struct blob[]){{fc_values, {2, 4}, 2}}, 1, PACKED);
    struct hwgq_model *model = import_good(net, &weights);
    const struct hwgq_layer *bn = &model->network->layers[0];
    ck_assert(bn->mean[0] == (untrained ? 0 : 2) && bn->variance[0] == (untrained ? 0 : 4) && bn->eps == 1e-5f);
    hwgq_model_destroy(model);
  }
}
END_TEST

START_TEST(weights_refused) {
  static struct bytes weights;
  weights.length = 0;
  refused(HEAD FC, &weights, HWGQ_ERROR_FORMAT, "not a caffemodel");
  put_layer(&weights, false, "other", (const struct blob[]){{fc_values, {2, 4}, 2}}, 1, PACKED);
  refused(HEAD FC, &weights, HWGQ_ERROR_INVALID, "'fc' needs weights");
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{fc_values, {4, 2}, 2}}, 1, PACKED);
  refused(HEAD FC, &weights, HWGQ_ERROR_INVALID, "shapes");
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{fc_values, {2, 4}, 2}, {fc_values, {2}, 1}}, 2, PACKED);
  refused(HEAD FC, &weights, HWGQ_ERROR_INVALID, "bias_term");
  float values[8];
  memcpy(values, fc_values, sizeof values);
  values[5] = NAN;
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{values, {2, 4}, 2}}, 1, PACKED);
  refused(HEAD FC, &weights, HWGQ_ERROR_FORMAT, "not a finite");
  struct bytes *cut = malloc(sizeof *cut);
  *cut = *fc_weights();
  cut->length--;
  refused(HEAD FC, cut, HWGQ_ERROR_FORMAT, "damaged");
  free(cut);
  memcpy(weights.data, "\x89HDF\r\n", 6);
  weights.length = 6;
  refused(HEAD FC, &weights, HWGQ_ERROR_UNSUPPORTED, "HDF5");
}
END_TEST

/* ---- graph ----------------------------------------------------------------------------------------------------------------
 */

START_TEST(train_val_file) {
  static const float conv[27] = {1, 2, 3};
  static const float fc[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  static struct bytes weights;
  weights.length = 0;
  put_layer(&weights, false, "conv/1", (const struct blob[]){{conv, {1, 3, 3, 3}, 4}}, 1, PACKED);
  put_layer(&weights, false, "fc", (const struct blob[]){{fc, {2, 4}, 2}}, 1, PACKED);
  put_layer(&weights, false, "gone", (const struct blob[]){{fc, {2, 4}, 2}}, 1, PACKED);
  const char *net =
      "layer { name: 'd' type: 'Data' top: 'data' top: 'label' include { phase: TRAIN } transform_param { crop_size: 9 } }"
      "layer { name: 'd' type: 'Data' top: 'data' top: 'label' include { phase: TEST } data_param { source: 's' batch_size: 5 }"
      "  transform_param { crop_size: 4 mirror: false scale: 0.5 mean_value: 1 mean_value: 2 mean_value: 3 } }"
      "layer { name: 'conv/1' type: 'Convolution' bottom: 'data' top: 'c' param { lr_mult: 1 }"
      "  convolution_param { num_output: 1 kernel_size: 3 bias_term: false weight_filler { type: 'msra' } } }"
      "layer { name: 'r' type: 'ReLU' bottom: 'c' top: 'c' }"
      "layer { name: 'train_only' type: 'PReLU' bottom: 'c' top: 'c' exclude { phase: TEST } }"
      "layer { name: 'drop' type: 'Dropout' bottom: 'c' top: 'c' dropout_param { dropout_ratio: 0.5 } }"
      "layer { name: 'fc' type: 'InnerProduct' bottom: 'c' top: 'fc' inner_product_param { num_output: 2 bias_term: false } }"
      "layer { name: 'aux' type: 'Sigmoid' bottom: 'c' top: 'aux' }"
      "layer { name: 'accuracy' type: 'Accuracy' bottom: 'fc' bottom: 'label' top: 'accuracy' include { phase: TEST } }"
      "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'fc' bottom: 'label' top: 'loss' loss_weight: 1 }";
  struct hwgq_model *model = import_good(net, &weights);
  const struct hwgq_network *network = model->network;
  static const char *const names[] = {"conv.1", "r", "fc", "loss"};
  static const enum hwgq_op ops[] = {HWGQ_CONV2D, HWGQ_RELU, HWGQ_LINEAR, HWGQ_SOFTMAX};
  ck_assert_int_eq(network->layer_count, 4);
  for (int i = 0; i < 4; i++) {
    ck_assert_str_eq(network->layers[i].name, names[i]);
    ck_assert_int_eq(network->layers[i].op, ops[i]);
    ck_assert_int_eq(network->layers[i].inputs[0], i - 1); /* in place and dropout resolved */
  }
  ck_assert(network->input.channels == 3 && network->input.height == 4 && network->input.width == 4);
  ck_assert(model->preprocess.order == HWGQ_BGR && model->preprocess.scale[1] == 0.5f);
  for (int c = 0; c < 3; c++) ck_assert(model->preprocess.mean[c] == (float)(c + 1));
  ck_assert_int_eq(model->class_count, 2);
  ck_assert_str_eq(model->labels[1], "1");
  ck_assert(strstr(notes.text, "'drop'") && strstr(notes.text, "'aux'") && strstr(notes.text, "'gone'"));
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(data_layer_options) {
  static const float conv[9] = {1, 2, 3};
  static struct bytes weights;
  weights.length = 0;
  put_layer(&weights, false, "c", (const struct blob[]){{conv, {1, 1, 3, 3}, 4}}, 1, PACKED);
#define DATA(transform)                                                                                                        \
  "layer { name: 'd' type: 'Data' top: 'x' transform_param { " transform " } }"                                                \
  "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'c' convolution_param { num_output: 1 kernel_h: 3 kernel_w: 3 "      \
  "bias_term: false } }"                                                                                                       \
  "layer { name: 'p' type: 'Pooling' bottom: 'c' top: 'p' pooling_param { pool: AVE global_pooling: true } }"
  refused(DATA("scale: 0.00390625"), &weights, HWGQ_ERROR_INVALID, "--crop");
  options.crop = 5;
  struct hwgq_model *model = import_good(DATA("scale: 0.00390625"), &weights);
  ck_assert(model->network->input.channels == 1 && model->network->input.height == 5); /* gray by the weights */
  ck_assert(model->preprocess.order == HWGQ_GRAY && model->preprocess.scale[0] == 0.00390625f &&
            model->preprocess.mean[0] == 0);
  ck_assert(model->network->layers[1].global_pool && model->network->layers[1].op == HWGQ_AVG_POOL);
  ck_assert_int_eq(model->network->layers[2].op, HWGQ_SOFTMAX);
  ck_assert(strstr(notes.text, "softmax is added") != NULL);
  hwgq_model_destroy(model);
  /* The prototxt's own size stays. */
  model = import_good(DATA("crop_size: 4 mean_value: 7"), &weights);
  ck_assert(model->network->input.height == 4 && model->preprocess.mean[0] == 7);
  ck_assert(strstr(notes.text, "--crop 5 is not used") != NULL);
  hwgq_model_destroy(model);
  refused(DATA("mean_value: 1 mean_value: 2"), &weights, HWGQ_ERROR_INVALID, "2 mean_value for 1 channels");
  refused(DATA("mean_value: 1 mean_value: 2 mean_value: 3"), &weights, HWGQ_ERROR_INVALID, "3 mean_value for 1 channels");
  refused(DATA("mean_file: 'm.binaryproto'"), &weights, HWGQ_ERROR_UNSUPPORTED, "--mean");
  options.has_mean = options.has_scale = true;
  options.mean[0] = 33;
  options.scale = 2;
  model = import_good(DATA("mean_file: 'm.binaryproto'"), &weights);
  ck_assert(model->preprocess.mean[0] == 33 && model->preprocess.scale[0] == 2);
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(labels) {
  static const char *const two[] = {"cat", "dog"};
  options.labels = two;
  options.label_count = 2;
  struct hwgq_model *model = import_good(HEAD FC, fc_weights());
  ck_assert_str_eq(model->labels[0], "cat");
  ck_assert_str_eq(model->labels[1], "dog");
  hwgq_model_destroy(model);
  options.label_count = 1;
  refused(HEAD FC, fc_weights(), HWGQ_ERROR_INVALID, "1 labels, but the network has 2 classes");
}
END_TEST

/* 1000 classes and no labels: ImageNet's names. */
START_TEST(imagenet_labels) {
  static const float values[4000] = {1};
  static struct bytes weights;
  weights.length = 0;
  put_layer(&weights, false, "fc", (const struct blob[]){{values, {1000, 4}, 2}}, 1, PACKED);
  static const char net[] = HEAD "layer { name: 'fc' type: 'InnerProduct' bottom: 'x' top: 'fc' "
                                 "inner_product_param { num_output: 1000 bias_term: false } }";
  struct hwgq_model *model = import_good(net, &weights);
  for (int i = 0; i < 1000; i++) ck_assert_str_eq(model->labels[i], networks_imagenet_labels[i]);
  ck_assert(strstr(notes.text, "ImageNet") != NULL);
  hwgq_model_destroy(model);
}
END_TEST

/* Every error begins with the name of the file that it is about, when names are given. */
START_TEST(files_are_named) {
  static struct bytes other;
  other.length = 0;
  put_layer(&other, false, "other", (const struct blob[]){{fc_values, {2, 4}, 2}}, 1, PACKED);
  options.prototxt_name = "net.prototxt";
  options.caffemodel_name = "net.caffemodel";
  refused("\nlayer {", fc_weights(), HWGQ_ERROR_FORMAT, "net.prototxt: prototxt line 2: ");
  refused(HEAD "weird: 3 " FC, fc_weights(), HWGQ_ERROR_UNSUPPORTED, "net.prototxt: prototxt line 1: ");
  refused(HEAD FC, &other, HWGQ_ERROR_INVALID, "net.caffemodel: layer 'fc' needs weights");
  other.length = 3;
  refused(HEAD FC, &other, HWGQ_ERROR_FORMAT, "net.caffemodel: caffemodel: ");
}
END_TEST

/* A long list of layers that are left out is cut, and says so. */
START_TEST(unused_weights_are_counted) {
  static struct bytes weights;
  weights = *fc_weights();
  char name[16];
  for (int i = 0; i < 25; i++) {
    snprintf(name, sizeof name, "u%d", i);
    put_layer(&weights, false, name, (const struct blob[]){{fc_values, {2, 4}, 2}}, 1, PACKED);
  }
  hwgq_model_destroy(import_good(HEAD FC, &weights));
  ck_assert(strstr(notes.text, "'u19'") && !strstr(notes.text, "'u20'"));
  ck_assert(strstr(notes.text, "and 5 more layers") != NULL);
}
END_TEST

START_TEST(old_forms) {
  /* V1 layers and input_dim. */
  struct hwgq_model *model =
      import_good("input: 'x' input_dim: 1 input_dim: 1 input_dim: 2 input_dim: 2 layers { name: 'fc' type: "
                  "INNER_PRODUCT bottom: 'x' top: 'fc' blobs_lr: 1 inner_product_param { num_output: 2 "
                  "bias_term: false } } layers { name: 'p' type: SOFTMAX bottom: 'fc' top: 'p' }",
                  fc_weights());
  ck_assert_int_eq(model->network->layer_count, 2);
  hwgq_model_destroy(model);
  /* A saved net: Input layer and Split. */
  model = import_good(
      "layer { name: 'input' type: 'Input' top: 'd' input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } } "
      "layer { name: 's' type: 'Split' bottom: 'd' top: 'x0' top: 'x1' phase: TEST }"
      "layer { name: 'sum' type: 'Eltwise' bottom: 'x0' bottom: 'x1' top: 'x' eltwise_param { operation: SUM coeff: 1 "
      "coeff: -0.5 } }" FC,
      fc_weights());
  const struct hwgq_layer *sum = &model->network->layers[0];
  ck_assert(sum->op == HWGQ_ADD && sum->input_count == 2 && sum->inputs[1] == HWGQ_NETWORK_INPUT);
  ck_assert(sum->coefficients[0] == 1 && sum->coefficients[1] == -0.5f);
  ck_assert_int_eq(model->network->layers[1].inputs[0], 0);
  hwgq_model_destroy(model);
}
END_TEST

START_TEST(quantizers) {
#define QUANT(fields) HEAD "layer { name: 'q' type: 'Quant' bottom: 'x' top: 'x' quant_param { " fields " } } " FC
  struct hwgq_model *model = import_good(
      QUANT("forward_func: 'hwgq' backward_func: 'relu' centers: [0.538, 1.076, 1.614] clip_thr: 1.614"), fc_weights());
  const struct hwgq_layer *q = &model->network->layers[0];
  ck_assert(!q->sign && q->level_count == 3 && q->thresholds[0] == 0);
  ck_assert(q->centers[2] == 1.614f && q->thresholds[1] == 0x1.9d2f1ap-1f && q->thresholds[2] == 0x1.5851ecp+0f);
  hwgq_model_destroy(model);
  model = import_good(QUANT("forward_func: 'sign'"), fc_weights());
  ck_assert(model->network->layers[0].sign);
  hwgq_model_destroy(model);
  refused(QUANT("forward_func: 'sign' centers: 1"), fc_weights(), HWGQ_ERROR_UNSUPPORTED, "no centers");
  refused(QUANT("forward_func: 'hwgq'"), fc_weights(), HWGQ_ERROR_UNSUPPORTED, "needs centers");
  refused(QUANT("forward_func: 'hwgq' centers: 2 centers: 1"), fc_weights(), HWGQ_ERROR_UNSUPPORTED, "ascend");
  refused(QUANT("forward_func: 'hwgq' centers: -1"), fc_weights(), HWGQ_ERROR_UNSUPPORTED, "positive");
  refused(QUANT("forward_func: 'hwgq' centers: 1 negative_slope: 0.25"), fc_weights(), HWGQ_ERROR_UNSUPPORTED,
          "negative_slope");
  refused(QUANT("forward_func: 'hwgq' centers: 1 mode: 2"), fc_weights(), HWGQ_ERROR_UNSUPPORTED, "field mode");
}
END_TEST

START_TEST(refusals) {
  static const struct {
    const char *net;
    enum hwgq_status status;
    const char *part;
  } cases[] = {
      {"", HWGQ_ERROR_INVALID, "no layer"},
      {HEAD, HWGQ_ERROR_INVALID, "no layer"},
      {HEAD "layer { name: 'l' type: 'LRN' bottom: 'x' top: 'x' } " FC, HWGQ_ERROR_UNSUPPORTED, "'LRN'"},
      {HEAD "layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { negative_slope: 0.1 } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "negative_slope"},
      {HEAD "layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' relu_param { slope: 0.1 } } " FC, HWGQ_ERROR_UNSUPPORTED,
       "field slope"},
      {HEAD "layer { name: 'r' type: 'ReLU' bottom: 'y' top: 'x' } " FC, HWGQ_ERROR_INVALID, "'y'"},
      {HEAD "layer { name: 'r' type: 'ReLU' bottom: 'x' top: 'x' include { phase: TRAIN } exclude { phase: TEST } } " FC,
       HWGQ_ERROR_INVALID, "include and exclude"},
      {HEAD "layer { name: 'r' type: 'ReLU' top: 'x' } " FC, HWGQ_ERROR_UNSUPPORTED, "no bottom"},
      {HEAD "layer { name: 'r' bottom: 'x' top: 'x' } " FC, HWGQ_ERROR_INVALID, "no type"},
      {HEAD "layer { name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'x' top: 'x' eltwise_param { operation: MAX } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "SUM"},
      {HEAD "layer { name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'x' top: 'x' eltwise_param { coeff: 1 } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "coeff"},
      {HEAD "layer { name: 'p' type: 'Pooling' bottom: 'x' top: 'x' pooling_param { pool: STOCHASTIC kernel_size: 2 } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "MAX or AVE"},
      {HEAD "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'x' convolution_param { num_output: 1 kernel_size: 1 "
            "dilation: 2 } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "dilation"},
      {HEAD "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'x' convolution_param { num_output: 1 } } " FC,
       HWGQ_ERROR_UNSUPPORTED, "kernel_size"},
      {HEAD
       "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'x' convolution_param { num_output: 0 kernel_size: 1 } } " FC,
       HWGQ_ERROR_INVALID, "num_output"},
      {HEAD "layer { name: 's' type: 'Scale' bottom: 'x' top: 'x' scale_param { axis: 2 } } " FC, HWGQ_ERROR_UNSUPPORTED,
       "axis"},
      {HEAD FC "layer { name: 'p' type: 'Softmax' bottom: 'fc' top: 'p' softmax_param { axis: 2 } }", HWGQ_ERROR_UNSUPPORTED,
       "axis"},
      {HEAD "weird: 3 " FC, HWGQ_ERROR_UNSUPPORTED, "field weird"},
      {HEAD "layer: 3 " FC, HWGQ_ERROR_FORMAT, "message"},
      {HEAD FC FC, HWGQ_ERROR_INVALID, "two layers"},
      {"input: 'x' input_shape { dim: 1 dim: 1 dim: 2 } " FC, HWGQ_ERROR_INVALID, "dimensions"},
      {"input: 'x' " FC, HWGQ_ERROR_INVALID, "dimensions"},
      {"input_shape { dim: 1 } " FC, HWGQ_ERROR_INVALID, "input_shape"},
      {HEAD "input: 'y' layer { name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'y' top: 'x' } " FC, HWGQ_ERROR_UNSUPPORTED,
       "two inputs"},
      {HEAD "layer { name: 'fc' type: 'InnerProduct' bottom: 'x' top: 'fc' param { name: 'w' } inner_product_param { "
            "num_output: 2 } }",
       HWGQ_ERROR_UNSUPPORTED, "shares weights"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) refused(cases[i].net, fc_weights(), cases[i].status, cases[i].part);
}
END_TEST

/* A prototxt that asks for more weights than the file has must not make memory for them. */
START_TEST(sizes_come_from_the_file) {
  refused("input: 'x' input_shape { dim: 1 dim: 60000 dim: 60 dim: 60 } layer { name: 'fc' type: 'BinaryInnerProduct' bottom: "
          "'x' top: "
          "'fc' inner_product_param { num_output: 65536 } }",
          fc_weights(), HWGQ_ERROR_LIMIT, "fc");
  refused("input: 'x' input_shape { dim: 1 dim: 30000 dim: 1 dim: 1 } layer { name: 'fc' type: 'InnerProduct' bottom: 'x' top: "
          "'fc' inner_product_param { num_output: 65536 bias_term: false } }",
          fc_weights(), HWGQ_ERROR_INVALID, "8 values");
}
END_TEST

/* Both files cut at every percent: refused with a message, or whole enough. */
START_TEST(cut_short) {
  struct target {
    uint8_t *bytes;
    size_t length;
  } files[2];
  files[0].bytes = support_read_file("tests/golden/mini/model.prototxt", &files[0].length);
  files[1].bytes = support_read_file("tests/golden/mini/model.caffemodel", &files[1].length);
  ck_assert_msg(files[0].bytes && files[1].bytes, "run this program from the repository's root");
  int refused_count = 0;
  for (size_t percent = 0; percent < 100; percent++) {
    for (int which = 0; which < 2; which++) {
      size_t lengths[2] = {files[0].length, files[1].length};
      lengths[which] = lengths[which] * percent / 100;
      uint8_t *cut = malloc(lengths[which] + (lengths[which] == 0));
      memcpy(cut, files[which].bytes, lengths[which]);
      const uint8_t *bytes[2] = {which == 0 ? cut : files[0].bytes, which == 1 ? cut : files[1].bytes};
      struct hwgq_model *model = NULL;
      failure.message[0] = '\0';
      enum hwgq_status status = import_caffe((const char *)bytes[0], lengths[0], bytes[1], lengths[1], NULL, &model, &failure);
      ck_assert_msg(status ? !model && failure.message[0] : model != NULL, "file %d cut at %zu %%", which, percent);
      refused_count += status != HWGQ_OK;
      hwgq_model_destroy(model);
      free(cut);
    }
  }
  ck_assert_int_ge(refused_count, 190); /* a prototxt cut between two layers is a smaller net */
  free(files[0].bytes);
  free(files[1].bytes);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("import");
  TCase *cases = tcase_create("caffe");
  tcase_add_checked_fixture(cases, setup, NULL);
  tcase_add_test(cases, float_weights);
  tcase_add_test(cases, binary_weights);
  tcase_add_test(cases, already_binarized);
  tcase_add_test(cases, batch_norm_factor);
  tcase_add_test(cases, weights_refused);
  tcase_add_test(cases, train_val_file);
  tcase_add_test(cases, data_layer_options);
  tcase_add_test(cases, labels);
  tcase_add_test(cases, imagenet_labels);
  tcase_add_test(cases, files_are_named);
  tcase_add_test(cases, unused_weights_are_counted);
  tcase_add_test(cases, old_forms);
  tcase_add_test(cases, quantizers);
  tcase_add_test(cases, refusals);
  tcase_add_test(cases, sizes_come_from_the_file);
  tcase_add_test(cases, cut_short);
  suite_add_tcase(suite, cases);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
