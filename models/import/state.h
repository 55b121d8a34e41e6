/* What the two files of the state_dict importer share. */
#ifndef STATE_H
#define STATE_H

#include "engine/json.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/storage.h"
#include "models/import/import.h"

enum { STATE_NAME_SIZE = HWGQ_MAX_NAME + 32 };

struct state_import {
  const struct import_state_options *options;
  struct hwgq_error *error;
  struct hwgq_safetensors *file;
  const struct hwgq_tensor **sorted; /* the file's tensors by name */
  bool *taken;                       /* by index into `sorted`: a layer wants it */
  struct hwgq_network *network;
  bool other_pixels; /* they are prepared in another way than the file says */
};

void state_note(const struct state_import *import, const char *text);
bool state_has(const struct state_import *import, const char *layer, const char *key);
/* The tensor LAYER.KEY, which must be there, and is then taken. */
enum hwgq_status state_take(struct state_import *import, const char *layer, const char *key, const struct hwgq_tensor **tensor);
/* The layer in whose name a scale layer's weight and bias are stored: its own, or that of the batch_norm before it. */
const char *state_affine_name(const struct state_import *import, const struct hwgq_layer *scale);

/* Every tensor that the network needs is there, with the right shape; nothing is allocated yet, so that the file's size bounds
 * what is. Takes the tensors. */
enum hwgq_status state_weights_check(struct state_import *import);
/* After the above and hwgq_network_allocate_parameters. */
enum hwgq_status state_weights_fill(struct state_import *import);

#endif
