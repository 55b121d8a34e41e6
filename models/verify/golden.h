/* A folder with a recording of another program's run: index.json lists blobs in order, each a file of little-endian float32.
 *
 *   {"blobs": [{"file": "001_conv1.acc.bin", "layer": "conv1", "type": "Convolution", "kind": "acc", "shape": [1, 20, 16, 17]},
 *              ...],
 *    "top5": [[class, probability], ...]}
 *
 * The first blob is the network's input (kind "input"). Kind "codes": level indices of a quantizer's output; any other kind:
 * values. Files and index are read as untrusted input. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "engine/hwgq.h"

enum { GOLDEN_MAX_BLOBS = 4096, GOLDEN_TOP = 5 };

struct golden_blob {
  const char *file; /* in the folder */
  char *layer;      /* as a network of this program calls it: '/' becomes '.' */
  bool identity;    /* of a layer that does nothing at test time (Dropout, Split) and that no imported network has */
  bool codes;
  size_t count; /* values */
};

struct golden {
  char *folder;
  void *index; /* what strings point into */
  int blob_count;
  struct golden_blob *blobs; /* without the input */
  float *input;
  size_t input_count;
  int top_count; /* 0: not recorded */
  struct hwgq_prediction top[GOLDEN_TOP];
};

enum hwgq_status golden_open(const char *folder, struct golden **golden, struct hwgq_error *error);
void golden_close(struct golden *golden);
/* The blob of a layer, NULL when it was not recorded. */
const struct golden_blob *golden_find(const struct golden *golden, const char *layer);
/* The recorded output of `layer` (the blob's) as the values that this program's layer has: codes become what they stand for.
 * Refuses a blob whose size is not the layer's and codes that are none. values: [blob->count]. */
enum hwgq_status golden_read(const struct golden *golden, const struct golden_blob *blob, const struct hwgq_layer *layer,
                             double *values, struct hwgq_error *error);
/* A network of the folder `folder`: model.prototxt with the weights file `weights`. */
enum hwgq_status golden_import(const char *folder, const char *weights, struct hwgq_model **model, struct hwgq_error *error);

#endif
