/* Inside the Caffe importer. Reading order: caffe_net.c (the whole way), caffe_graph.c (which layers and which blobs),
 * caffe_layers.c (one layer's fields), caffe_input.c (input shape and preprocessing), caffemodel.c (the weights file),
 * caffe_weights.c (weights into layers).
 *
 * Numbers of messages and fields: caffe.proto of BVLC's Caffe; Quant and the binary layers: of the HWGQ authors' fork. */
#ifndef CAFFE_H
#define CAFFE_H

#include "models/import/import.h"
#include "models/import/prototxt.h"

/* ---- caffemodel ---------------------------------------------------------------------------------------------------------- */

enum { CAFFE_MAX_DIMS = 4, CAFFE_MAX_MODEL_LAYERS = 4096 };

/* A blob's place in the file; its values are read only when they are needed. */
struct caffe_blob {
  const uint8_t *bytes;
  size_t length;
  uint64_t count; /* values that are really there; equals the product of dims */
  int dim_count;  /* without leading ones: old files write every blob with four dimensions */
  int64_t dims[CAFFE_MAX_DIMS];
};

/* A layer of the caffemodel that has blobs. */
struct caffemodel_layer {
  const uint8_t *name, *bytes; /* into the file */
  size_t name_length, length;
  uint32_t blob_field; /* field number of blobs: 7, in V1 layers 6 */
  int blob_count;
  bool used;
};

struct caffemodel {
  struct caffemodel_layer *layers;
  int count, capacity;
};

enum hwgq_status caffemodel_parse(const uint8_t *bytes, size_t length, struct caffemodel *model, struct hwgq_error *error);
void caffemodel_release(struct caffemodel *model);
struct caffemodel_layer *caffemodel_find(const struct caffemodel *model, const char *name);
/* Blob `index` < blob_count. `name`: the layer, for messages. */
enum hwgq_status caffemodel_blob(const struct caffemodel_layer *layer, int index, const char *name, struct caffe_blob *blob,
                                 struct hwgq_error *error);
/* Writes blob->count values. A value that is not finite in float32 is refused. */
enum hwgq_status caffemodel_read(const struct caffe_blob *blob, const char *name, float *values, struct hwgq_error *error);

/* ---- graph --------------------------------------------------------------------------------------------------------------- */

enum { CAFFE_MAX_LAYERS = 4096, CAFFE_MAX_BLOBS = 8192, CAFFE_MAX_NET_INPUTS = 8 };

/* Where a blob comes from: the index of a layer, or -1 - k for input k of the net. */
typedef int caffe_source;

struct caffe_layer {
  int field; /* its message in the document */
  char *name, *type;
  char *network_name; /* see caffe_network_name; NULL until its layer is in the network */
  int index;          /* of that layer */
  int bottom_count, top_count;
  caffe_source bottoms[HWGQ_MAX_INPUTS];
  bool dropped;  /* identity or bookkeeping: gives no layer of the network */
  bool consumed; /* a layer that is not dropped reads its output */
  bool needed;   /* the chosen output depends on it */
};

struct caffe_net_input {
  char *blob;
  int field;     /* the Input or Data layer's message; PROTOTXT_NONE for the net's own input fields */
  int dim_count; /* 0: not stated */
  int dims[4];
};

struct caffe_graph {
  struct prototxt *document;
  char name[PROTOTXT_STRING_SIZE];
  struct caffe_layer *layers;
  int layer_count, layer_capacity;
  struct caffe_net_input inputs[CAFFE_MAX_NET_INPUTS];
  int input_count;
  int output;     /* layer index */
  int data_input; /* index into inputs: the one that the output depends on */
};

struct caffe_import {
  const struct import_options *options;
  struct prototxt document;
  struct caffe_graph graph;
  struct caffemodel model;
  const char *about; /* the name of the file that messages are about at the moment; NULL: not given */
  struct hwgq_error *error;
};

void caffe_note(const struct caffe_import *import, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reads which layers the TEST phase has, resolves blobs (in-place layers included) and chooses the output. */
enum hwgq_status caffe_graph_build(struct caffe_import *import);
void caffe_graph_release(struct caffe_graph *graph);
/* The net's inputs: caffe_input.c. */
enum hwgq_status caffe_graph_net_inputs(struct caffe_import *import);
enum hwgq_status caffe_graph_input_layer(struct caffe_import *import, int field, const char *type);
bool caffe_is_input_type(const char *type);

/* ---- layers and weights ---------------------------------------------------------------------------------------------------
 */

enum hwgq_status caffe_layer_add(struct caffe_import *import, struct hwgq_network *network, struct caffe_layer *source);
enum hwgq_status caffe_input_shape(struct caffe_import *import, struct hwgq_shape *shape);
enum hwgq_status caffe_preprocess(struct caffe_import *import, struct hwgq_shape shape, struct hwgq_preprocess *preprocess);
/* A name as the engine takes it: '/', which Caffe's names may have, becomes '.'; an empty one and the reserved "input" are
 * replaced. malloc'ed; NULL: out of memory. */
char *caffe_network_name(const char *name);
/* Checks every blob against the inferred network, finds plain layers that are binary, and only then allocates and fills. */
enum hwgq_status caffe_weights_load(struct caffe_import *import, struct hwgq_network *network);

#endif
