/* The net's inputs: their blobs, the size of the one that counts, and what is done to a pixel before it gets there. */
#include <stdlib.h>
#include <string.h>

#include "models/import/caffe.h"

bool caffe_is_input_type(const char *type) {
  return !strcmp(type, "Input") || !strcmp(type, "Data") || !strcmp(type, "ImageData") || !strcmp(type, "MemoryData");
}

static enum hwgq_status add_input(struct caffe_import *import, const char *blob, int field, struct caffe_net_input **input) {
  struct caffe_graph *graph = &import->graph;
  if (graph->input_count == CAFFE_MAX_NET_INPUTS)
    return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "prototxt: more than %d inputs", CAFFE_MAX_NET_INPUTS);
  char *copy = strdup(blob);
  if (!copy) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
  *input = &graph->inputs[graph->input_count++];
  **input = (struct caffe_net_input){.blob = copy, .field = field};
  return HWGQ_OK;
}

static enum hwgq_status add_dim(struct caffe_import *import, int field, struct caffe_net_input *input) {
  int64_t dim;
  enum hwgq_status status = prototxt_integer(&import->document, field, 1, HWGQ_MAX_DIMENSION, &dim, import->error);
  if (status) return status;
  if (input->dim_count == 4)
    return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED, "prototxt line %d: an input has more than four dimensions",
                     prototxt_line(&import->document, field));
  input->dims[input->dim_count++] = (int)dim;
  return HWGQ_OK;
}

static enum hwgq_status read_shape(struct caffe_import *import, int shape, struct caffe_net_input *input) {
  struct prototxt *document = &import->document;
  enum hwgq_status status = HWGQ_OK;
  for (int at = prototxt_find(document, shape, "dim"); !status && at != PROTOTXT_NONE; at = prototxt_find_next(document, at))
    status = add_dim(import, at, input);
  return status;
}

/* input: "a" input_shape { dim... }, or the older input: "a" and four input_dim each. */
enum hwgq_status caffe_graph_net_inputs(struct caffe_import *import) {
  struct prototxt *document = &import->document;
  struct caffe_graph *graph = &import->graph;
  char blob[PROTOTXT_STRING_SIZE];
  enum hwgq_status status = HWGQ_OK;
  struct caffe_net_input *input;
  for (int at = prototxt_find(document, PROTOTXT_ROOT, "input"); !status && at != PROTOTXT_NONE;
       at = prototxt_find_next(document, at)) {
    status = prototxt_string(document, at, blob, import->error);
    if (!status) status = add_input(import, blob, PROTOTXT_NONE, &input);
  }
  int shape = prototxt_find(document, PROTOTXT_ROOT, "input_shape"), dim = prototxt_find(document, PROTOTXT_ROOT, "input_dim");
  for (int i = 0; !status && shape != PROTOTXT_NONE; shape = prototxt_find_next(document, shape), i++) {
    if (i >= graph->input_count || dim != PROTOTXT_NONE)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: input_shape without an input of its own",
                       prototxt_line(document, shape));
    status = read_shape(import, shape, &graph->inputs[i]);
  }
  for (int i = 0; !status && dim != PROTOTXT_NONE; dim = prototxt_find_next(document, dim), i++) {
    if (i / 4 >= graph->input_count)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: input_dim without an input of its own",
                       prototxt_line(document, dim));
    status = add_dim(import, dim, &graph->inputs[i / 4]);
  }
  return status;
}

/* Every top is an input: the first of a Data layer is the image, the second the label. */
enum hwgq_status caffe_graph_input_layer(struct caffe_import *import, int field, const char *type) {
  struct prototxt *document = &import->document;
  int first = import->graph.input_count;
  char blob[PROTOTXT_STRING_SIZE];
  struct caffe_net_input *input;
  for (int at = prototxt_find(document, field, "top"); at != PROTOTXT_NONE; at = prototxt_find_next(document, at)) {
    enum hwgq_status status = prototxt_string(document, at, blob, import->error);
    if (!status) status = add_input(import, blob, field, &input);
    if (status) return status;
  }
  if (strcmp(type, "Input") != 0) return HWGQ_OK;
  int parameters, shape;
  enum hwgq_status status = prototxt_get_message(document, field, "input_param", &parameters, import->error);
  if (status) return status;
  /* One shape for each top, or one for all. */
  shape = prototxt_find(document, parameters, "shape");
  for (int i = first; !status && i < import->graph.input_count && shape != PROTOTXT_NONE; i++) {
    status = read_shape(import, shape, &import->graph.inputs[i]);
    int next = prototxt_find_next(document, shape);
    if (next != PROTOTXT_NONE) shape = next;
  }
  return status;
}

/* ---- the input that the output depends on ---------------------------------------------------------------------------------
 */

/* Channels by the weights of the first convolution that reads the input, for Data layers, which do not say. */
static int channels_by_weights(struct caffe_import *import) {
  const struct caffe_graph *graph = &import->graph;
  for (int i = 0; i < graph->layer_count; i++) {
    const struct caffe_layer *layer = &graph->layers[i];
    if (!layer->needed || layer->bottoms[0] != -1 - graph->data_input) continue;
    const struct caffemodel_layer *found = caffemodel_find(&import->model, layer->name);
    struct caffe_blob blob;
    if (!found || caffemodel_blob(found, 0, layer->name, &blob, NULL) != HWGQ_OK) continue;
    /* [out][in/groups][height][width], leading ones dropped */
    if (!strstr(layer->type, "Convolution") || blob.dim_count < 2) continue;
    int64_t channels = blob.dim_count == 4 ? blob.dims[1] : blob.dim_count == 3 ? blob.dims[0] : 1;
    if (channels == 1 || channels == 3) return (int)channels;
  }
  return 3;
}

static enum hwgq_status data_layer_shape(struct caffe_import *import, int field, struct hwgq_shape *shape) {
  struct prototxt *document = &import->document;
  int transform, size = 0;
  enum hwgq_status status = prototxt_get_message(document, field, "transform_param", &transform, import->error);
  if (!status) status = prototxt_get_integer(document, transform, "crop_size", 0, HWGQ_MAX_DIMENSION, &size, import->error);
  if (status) return status;
  if (size > 0 && import->options->crop > 0 && import->options->crop != size)
    caffe_note(import, "--crop %d is not used: the prototxt says crop_size: %d", import->options->crop, size);
  if (size == 0) size = import->options->crop;
  if (size <= 0)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "prototxt line %d: the data layer has no crop_size, so the network's input size is in its database only; "
                     "give it with --crop N",
                     prototxt_line(document, field));
  *shape = (struct hwgq_shape){channels_by_weights(import), size, size};
  return HWGQ_OK;
}

enum hwgq_status caffe_input_shape(struct caffe_import *import, struct hwgq_shape *shape) {
  const struct caffe_graph *graph = &import->graph;
  const struct caffe_net_input *input = &graph->inputs[graph->data_input];
  if (input->dim_count == 4) {
    *shape = (struct hwgq_shape){input->dims[1], input->dims[2], input->dims[3]};
  } else if (input->dim_count == 2) {
    *shape = (struct hwgq_shape){input->dims[1], 1, 1};
  } else if (input->dim_count == 0 && input->field != PROTOTXT_NONE) {
    return data_layer_shape(import, input->field, shape);
  } else {
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "input '%.80s' has %d dimensions; give four: images, channels, height, width", input->blob,
                     input->dim_count);
  }
  if (import->options->crop > 0 && (import->options->crop != shape->height || import->options->crop != shape->width))
    caffe_note(import, "--crop %d is not used: the prototxt says that the input is %d x %d", import->options->crop,
               shape->height, shape->width);
  return HWGQ_OK;
}

/* mean_value (one for all channels or one each), mean_file, scale. */
static enum hwgq_status read_transform(struct caffe_import *import, int transform, int channels,
                                       struct hwgq_preprocess *preprocess, bool *has_mean) {
  struct prototxt *document = &import->document;
  float values[3], scale = 1;
  int count = 0;
  for (int at = prototxt_find(document, transform, "mean_value"); at != PROTOTXT_NONE; at = prototxt_find_next(document, at)) {
    if (count == 3)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: more than three mean_value",
                       prototxt_line(document, at));
    enum hwgq_status status = prototxt_float(document, at, &values[count++], import->error);
    if (status) return status;
  }
  if (count > 1 && count != channels)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "prototxt line %d: %d mean_value for %d channels; give one for all or one each",
                     prototxt_line(document, transform), count, channels);
  for (int c = 0; count > 0 && c < 3; c++) preprocess->mean[c] = values[count == 3 ? c : 0];
  *has_mean = count > 0;
  int mean_file = prototxt_find(document, transform, "mean_file");
  if (mean_file != PROTOTXT_NONE && !import->options->has_mean)
    return hwgq_fail(
        import->error, HWGQ_ERROR_UNSUPPORTED,
        "prototxt line %d: mean_file is a mean image, and this engine takes one mean per channel; give the image's "
        "channel averages with --mean B,G,R",
        prototxt_line(document, mean_file));
  enum hwgq_status status = prototxt_get_float(document, transform, "scale", &scale, import->error);
  for (int c = 0; c < 3; c++) preprocess->scale[c] = scale;
  return status;
}

/* What is left in a Data layer says where the training data was and how it was augmented, which does not matter here; anything
 * else is refused. */
static enum hwgq_status check_data_layer(struct caffe_import *import, int field, int transform) {
  static const char *const harmless[] = {
      "name", "type", "top", "phase", "include", "exclude", "data_param", "image_data_param", "memory_data_param", "param"};
  static const char *const harmless_transform[] = {"mirror", "force_color", "force_gray", "crop_size"};
  struct prototxt *document = &import->document;
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) prototxt_ignore(document, field, harmless[i]);
  for (size_t i = 0; transform != PROTOTXT_NONE && i < sizeof harmless_transform / sizeof *harmless_transform; i++)
    prototxt_ignore(document, transform, harmless_transform[i]);
  int unused = prototxt_unused(document, field);
  if (unused == PROTOTXT_NONE) return HWGQ_OK;
  char name[64];
  prototxt_name(document, unused, name, sizeof name);
  return hwgq_fail(
      import->error, HWGQ_ERROR_UNSUPPORTED,
      "prototxt line %d: the input layer's field %s is not known here; if it does not change the network's input, delete it",
      prototxt_line(document, unused), name);
}

static void apply_options(struct caffe_import *import, struct hwgq_shape shape, bool has_mean,
                          struct hwgq_preprocess *preprocess) {
  const struct import_options *options = import->options;
  static const float paper_mean[3] = {104, 117, 123}; /* B, G, R: the authors' ImageNet networks */
  for (int c = 0; c < 3; c++) {
    if (options->has_mean) preprocess->mean[c] = options->mean[shape.channels == 1 ? 0 : c];
    if (options->has_scale) preprocess->scale[c] = options->scale;
    if (!options->has_mean && !has_mean && shape.channels == 3) preprocess->mean[c] = paper_mean[c];
  }
  if (!options->has_mean && !has_mean && shape.channels == 3)
    caffe_note(import,
               "the prototxt states no mean: 104,117,123 (B,G,R) is assumed, as in the authors' networks; --mean changes it");
  preprocess->resize = options->resize;
  if (options->resize != IMPORT_DECIDE) return;
  bool imagenet = shape.height >= 200 && shape.height <= 256 && shape.width >= 200 && shape.width <= 256;
  preprocess->resize = imagenet ? 256 : 0;
  if (imagenet)
    caffe_note(
        import,
        "images are resized to a shorter side of 256 before the %d x %d crop, as in the authors' networks; --resize changes it",
        shape.width, shape.height);
}

enum hwgq_status caffe_preprocess(struct caffe_import *import, struct hwgq_shape shape, struct hwgq_preprocess *preprocess) {
  const struct caffe_net_input *input = &import->graph.inputs[import->graph.data_input];
  struct prototxt *document = &import->document;
  *preprocess = (struct hwgq_preprocess){.order = shape.channels == 1 ? HWGQ_GRAY : HWGQ_BGR, .scale = {1, 1, 1}};
  bool has_mean = false;
  if (input->field != PROTOTXT_NONE) {
    int transform;
    enum hwgq_status status = prototxt_get_message(document, input->field, "transform_param", &transform, import->error);
    if (!status) status = read_transform(import, transform, shape.channels, preprocess, &has_mean);
    if (!status) status = check_data_layer(import, input->field, transform);
    if (status) return status;
  }
  apply_options(import, shape, has_mean, preprocess);
  return HWGQ_OK;
}
