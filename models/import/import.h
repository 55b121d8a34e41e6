/* Networks from other programs become models of this one.
 *
 * Caffe: the prototxt (text) gives the layers, the caffemodel (protobuf) the weights, matched by layer name. Both are read as
 * untrusted input by own bounded readers (prototxt.h, protobuf.h). What the TEST phase of the authors' Caffe program would
 * compute is what is imported; a layer or field that would change the result and is not known here is refused by name.
 *
 * PyTorch: a state_dict in a safetensors file, for a network whose description is known by name or stands in the file.
 * models/train/torch writes such files; its README lists the tensors of every layer. */
#ifndef IMPORT_H
#define IMPORT_H

#include "engine/hwgq.h"

enum {
  IMPORT_MAX_PROTOTXT = 1 << 20,      /* bytes of a prototxt */
  IMPORT_MAX_CAFFEMODEL = 0x7fffffff, /* bytes of a caffemodel: protobuf's own limit */
  IMPORT_MAX_STATE = 0x7fffffff,      /* bytes of a state_dict's file */
  IMPORT_DECIDE = -1,                 /* import_options.resize: by the network */
};

struct import_options {
  const char *prototxt_name, *caffemodel_name; /* what error messages begin with, by the file they are about; NULL: nothing */
  const char *const *labels; /* class names, label_count of them; NULL: ImageNet's for 1000 classes, else "0", "1", ... */
  int label_count;
  bool has_mean, has_scale; /* override what the prototxt says */
  float mean[3];            /* in the order of the network's channels: B, G, R; a gray network uses mean[0] */
  float scale;              /* factor on (pixel - mean) */
  int resize;               /* shorter side before the crop, 0: the network's input size, IMPORT_DECIDE */
  int crop;                 /* network input height and width where the prototxt does not say; 0: not given */
  /* Called for everything that was assumed, changed or left out; NULL: nobody is told. */
  void (*note)(void *context, const char *text);
  void *context;
};

#define IMPORT_OPTIONS_DEFAULT ((struct import_options){.resize = IMPORT_DECIDE})

/* Weights of Caffe's binary layers become sign bits (w >= 0, both zeros included, is +1) and, with use_alpha, alpha = mean |w|
 * of an output channel. A plain Convolution or InnerProduct whose every output channel has a single |w| is imported as the
 * binary layer that it is. The bytes are not kept. */
enum hwgq_status import_caffe(const char *prototxt, size_t prototxt_length, const uint8_t *caffemodel, size_t caffemodel_length,
                              const struct import_options *options, struct hwgq_model **model, struct hwgq_error *error);

struct import_state_options {
  const struct hwgq_network *network; /* NULL: the description in the file's metadata. Parameters are not looked at. */
  const char *const *labels;          /* class names; NULL: the file's, else ImageNet's for 1000 classes, else "0", ... */
  int label_count;
  /* Which fields of `preprocess` override the file's; a gray network uses mean[0] and scale[0]. */
  bool has_order, has_resize, has_invert, has_mean, has_scale;
  struct hwgq_preprocess preprocess;
  void (*note)(void *context, const char *text); /* as in struct import_options */
  void *context;
};

/* A PyTorch state_dict. Tensors, F32, F64, F16 or BF16, are called LAYER.KEY:
 *   conv2d, linear   weight [out_channels, in/groups, kernel height and width] or [out_channels, in], bias. In a binary layer
 *                    the weights are the latent ones: w >= 0, both zeros included, is +1, and alpha is the mean of |w| over an
 *                    output channel, in double precision.
 *   batch_norm       running_mean, running_var; num_batches_tracked is ignored. weight and bias, which torch has by default,
 *                    go to the scale layer that alone takes this layer's output and has no tensors of its own, else to a scale
 *                    layer that is inserted, LAYER.scale.
 *   scale            weight, bias
 * A tensor that is missing, has another shape or belongs to no layer is refused by name. `what` names the bytes in messages.
 * The metadata "network", "preprocess" and "labels", when present, have the forms that a .hwgq file gives them. "provenance" is
 * kept, but for a "test_accuracy" that was measured with pixels prepared in another way. */
enum hwgq_status import_state(const uint8_t *bytes, size_t length, const char *what, const struct import_state_options *options,
                              struct hwgq_model **model, struct hwgq_error *error);

#endif
