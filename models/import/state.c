/* PyTorch state_dicts: from the tensors of a safetensors file to a model. What is read from a tensor: state_weights.c. */
#include "models/import/state.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "models/import/labels.h"

void state_note(const struct state_import *import, const char *text) {
  if (import->options->note) import->options->note(import->options->context, text);
}

/* ---- the tensors by name --------------------------------------------------------------------------------------------------
 */

static int compare_names(const void *left, const void *right) {
  return strcmp((*(const struct hwgq_tensor *const *)left)->name, (*(const struct hwgq_tensor *const *)right)->name);
}

static enum hwgq_status open_file(struct state_import *import, const uint8_t *bytes, size_t length, const char *what) {
  enum hwgq_status status = hwgq_safetensors_parse(bytes, length, what, &import->file, import->error);
  if (status) return status;
  size_t count = (size_t)import->file->tensor_count;
  import->sorted = calloc(count + 1, sizeof *import->sorted);
  import->taken = calloc(count + 1, sizeof *import->taken);
  if (!import->sorted || !import->taken) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "import: out of memory");
  for (size_t i = 0; i < count; i++) import->sorted[i] = &import->file->tensors[i];
  if (count) qsort(import->sorted, count, sizeof *import->sorted, compare_names);
  return HWGQ_OK;
}

/* Index into `sorted`, -1 when there is none. */
static int find(const struct state_import *import, const char *layer, const char *key) {
  char name[STATE_NAME_SIZE];
  snprintf(name, sizeof name, "%s.%s", layer, key);
  const struct hwgq_tensor wanted = {.name = name}, *pointer = &wanted, **found = NULL;
  size_t count = (size_t)import->file->tensor_count;
  if (count) found = bsearch(&pointer, import->sorted, count, sizeof *import->sorted, compare_names);
  return found ? (int)(found - import->sorted) : -1;
}

bool state_has(const struct state_import *import, const char *layer, const char *key) {
  return find(import, layer, key) >= 0;
}

/* The end of another tensor's name is what was looked for: the network was saved inside something else. */
static const char *wrapped_name(const struct state_import *import, const char *layer, const char *key) {
  char name[STATE_NAME_SIZE + 1];
  int length = snprintf(name, sizeof name, ".%s.%s", layer, key);
  for (int i = 0; i < import->file->tensor_count; i++) {
    size_t other = strlen(import->sorted[i]->name);
    if (other > (size_t)length && !strcmp(import->sorted[i]->name + other - length, name)) return import->sorted[i]->name;
  }
  return NULL;
}

enum hwgq_status state_take(struct state_import *import, const char *layer, const char *key,
                            const struct hwgq_tensor **tensor) {
  int index = find(import, layer, key);
  if (index >= 0) {
    import->taken[index] = true;
    *tensor = import->sorted[index];
    return HWGQ_OK;
  }
  const char *wrapped = wrapped_name(import, layer, key);
  if (wrapped)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "tensor '%s.%s' is missing, but there is '%.100s': save the state_dict of the network itself, not of what "
                     "it is wrapped in (model.module.state_dict())",
                     layer, key, wrapped);
  return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                   "tensor '%s.%s' is missing: network '%s' needs it; is the file of this network, and named as "
                   "models/train/torch/README.md says?",
                   layer, key, import->network->name);
}

static enum hwgq_status refuse_surplus(const struct state_import *import) {
  for (int i = 0; i < import->file->tensor_count; i++) {
    const char *name = import->sorted[i]->name, *dot = strrchr(name, '.');
    if (import->taken[i]) continue;
    char layer[STATE_NAME_SIZE] = "";
    if (dot && (size_t)(dot - name) < sizeof layer) memcpy(layer, name, (size_t)(dot - name));
    int index = layer[0] ? hwgq_network_find(import->network, layer) : -2;
    if (index >= 0 && !strcmp(dot, ".bias"))
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                       "tensor '%.100s': layer '%s' of network '%s' has no bias: train it with bias=False", name, layer,
                       import->network->name);
    if (index >= 0)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                       "tensor '%.100s': layer '%s' of network '%s' is a %s layer and takes no '%s': remove the tensor", name,
                       layer, import->network->name, hwgq_op_name(import->network->layers[index].op), dot + 1);
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "tensor '%.100s' belongs to no layer of network '%s': is the file of this network? Otherwise remove or "
                     "rename it ('hwgq describe' prints the layers)",
                     name, import->network->name);
  }
  return HWGQ_OK;
}

/* ---- the network ----------------------------------------------------------------------------------------------------------
 */

/* malloc'ed JSON of the network: the caller's, and the file's when it has one must be the same. */
static enum hwgq_status network_text(const struct state_import *import, char **text) {
  const struct hwgq_network *given = import->options->network;
  const char *stated = hwgq_safetensors_text(import->file, "network");
  struct hwgq_network *own = NULL;
  char *own_text = NULL, *given_text = NULL;
  enum hwgq_status status = HWGQ_OK;
  if (!given && !stated)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "the file does not say which network it is of: name it, as in --network resnet-18");
  if (stated) status = hwgq_network_from_json(stated, strlen(stated), &own, import->error);
  if (!status && own) status = hwgq_network_to_json(own, &own_text, import->error);
  if (!status && given) status = hwgq_network_to_json(given, &given_text, import->error);
  if (!status && given && own && strcmp(own_text, given_text) != 0)
    status =
        hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                  "the file describes its network ('%s'), and not as the one that was asked for ('%s', its size, classes or "
                  "quantizer): leave --network out to take the file's",
                  own->name, given->name);
  hwgq_network_destroy(own);
  if (!status) *text = given ? given_text : own_text;
  if (status || !given) free(given_text);
  if (status || given) free(own_text);
  return status;
}

/* The scale layer that takes the tensors weight and bias of a batch_norm, -1: none. */
static int scale_behind(const struct state_import *import, int batch_norm) {
  const struct hwgq_network *network = import->network;
  int found = -1, consumers = 0;
  for (int i = batch_norm + 1; i < network->layer_count; i++)
    for (int j = 0; j < network->layers[i].input_count; j++)
      if (network->layers[i].inputs[j] == batch_norm) {
        consumers++;
        found = i;
      }
  if (consumers != 1 || network->layers[found].op != HWGQ_SCALE || state_has(import, network->layers[found].name, "weight"))
    return -1;
  return found;
}

const char *state_affine_name(const struct state_import *import, const struct hwgq_layer *scale) {
  const struct hwgq_network *network = import->network;
  if (scale->inputs[0] < 0 || state_has(import, scale->name, "weight")) return scale->name;
  const struct hwgq_layer *source = &network->layers[scale->inputs[0]];
  bool affine = source->op == HWGQ_BATCH_NORM && state_has(import, source->name, "weight");
  return affine && scale_behind(import, scale->inputs[0]) == (int)(scale - network->layers) ? source->name : scale->name;
}

/* Behind the batch_norm that is layer `index` of the JSON array: a scale layer that everything after it takes instead. */
static bool insert_scale(json_t *layers, size_t index, const char *name) {
  char scale[STATE_NAME_SIZE];
  snprintf(scale, sizeof scale, "%s.scale", name);
  for (size_t i = index + 1; i < json_array_size(layers); i++) {
    json_t *inputs = json_object_get(json_array_get(layers, i), "inputs");
    for (size_t j = 0; j < json_array_size(inputs); j++)
      if (!strcmp(json_string_value(json_array_get(inputs, j)), name) && json_array_set_new(inputs, j, json_string(scale)))
        return false;
  }
  json_t *layer = json_pack("{s:s, s:s, s:[s], s:b}", "name", scale, "op", "scale", "inputs", name, "bias", 1);
  return layer && !json_array_insert_new(layers, index + 1, layer);
}

/* Replaces import->network by one with a scale layer behind every batch_norm whose weight and bias have no layer to go to. */
static enum hwgq_status insert_scales(struct state_import *import, const char *text) {
  json_t *root = json_loads(text, 0, NULL), *layers = json_object_get(root, "layers");
  size_t inserted = 0;
  bool ok = root != NULL;
  for (int i = 0; ok && i < import->network->layer_count; i++) {
    const struct hwgq_layer *layer = &import->network->layers[i];
    if (layer->op != HWGQ_BATCH_NORM || !state_has(import, layer->name, "weight") || scale_behind(import, i) >= 0) continue;
    ok = insert_scale(layers, (size_t)i + inserted++, layer->name);
  }
  char *changed = ok && inserted ? hwgq_json_text(root) : NULL;
  json_decref(root);
  if (!ok || (inserted && !changed)) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "import: out of memory");
  if (!inserted) return HWGQ_OK;
  struct hwgq_network *network = NULL;
  enum hwgq_status status = hwgq_network_from_json(changed, strlen(changed), &network, import->error);
  free(changed);
  if (status) return status;
  hwgq_network_destroy(import->network);
  import->network = network;
  char note[120];
  snprintf(note, sizeof note, "%zu batch norms have weight and bias: a scale layer was inserted behind each", inserted);
  state_note(import, note);
  return HWGQ_OK;
}

static enum hwgq_status open_network(struct state_import *import) {
  char *text = NULL;
  enum hwgq_status status = network_text(import, &text);
  if (!status) status = hwgq_network_from_json(text, strlen(text), &import->network, import->error);
  if (!status) status = insert_scales(import, text);
  free(text);
  return status;
}

/* ---- the rest of a model ----------------------------------------------------------------------------------------------------
 */

static bool same_pixels(const struct hwgq_preprocess *a, const struct hwgq_preprocess *b) {
  bool same = a->order == b->order && a->resize == b->resize && a->invert == b->invert;
  for (int c = 0; c < (a->order == HWGQ_GRAY ? 1 : 3); c++)
    same = same && a->mean[c] == b->mean[c] && a->scale[c] == b->scale[c];
  return same;
}

static enum hwgq_status fill_preprocess(struct state_import *import, struct hwgq_preprocess *preprocess) {
  const struct import_state_options *options = import->options;
  const char *text = hwgq_safetensors_text(import->file, "preprocess");
  *preprocess =
      (struct hwgq_preprocess){.order = import->network->input.channels == 1 ? HWGQ_GRAY : HWGQ_RGB, .scale = {1, 1, 1}};
  if (text) {
    enum hwgq_status status = hwgq_model_parse_preprocess(text, preprocess, import->error);
    if (status) return status;
  } else if (!options->has_mean || !options->has_scale) {
    state_note(import, "the file does not say how pixels are prepared: a network trained on (pixel / 255 - mean) / deviation "
                       "needs --mean 255*mean,... and --scale 1/(255*deviation),...; without them mean is 0 and scale 1");
  }
  const struct hwgq_preprocess stated = *preprocess;
  if (options->has_order) preprocess->order = options->preprocess.order;
  if (options->has_resize) preprocess->resize = options->preprocess.resize;
  if (options->has_invert) preprocess->invert = options->preprocess.invert;
  for (int c = 0; c < 3; c++) {
    if (options->has_mean) preprocess->mean[c] = options->preprocess.mean[c];
    if (options->has_scale) preprocess->scale[c] = options->preprocess.scale[c];
  }
  import->other_pixels = !same_pixels(&stated, preprocess);
  return HWGQ_OK;
}

static enum hwgq_status fill_labels(const struct state_import *import, struct hwgq_model *model) {
  const struct import_state_options *options = import->options;
  const char *text = hwgq_safetensors_text(import->file, "labels");
  int classes = import->network->layers[import->network->layer_count - 1].output.channels;
  if (!options->labels && text) return hwgq_model_parse_labels(text, model, import->error);
  const char *note;
  enum hwgq_status status = labels_fill(model, classes, options->labels, options->label_count, &note, import->error);
  if (!status && note) state_note(import, note);
  return status;
}

static enum hwgq_status fill_provenance(const struct state_import *import, const uint8_t *bytes, size_t length,
                                        struct hwgq_model *model) {
  const struct hwgq_tensor file = {.data = bytes, .bytes = length};
  char digest[40];
  enum hwgq_status status = hwgq_model_digest(&file, 1, digest, import->error);
  if (status) return status;
  json_t *object = json_pack("{s:s, s:s, s:s}", "source", "pytorch", "importer", "hwgq " HWGQ_VERSION, "state_dict", digest);
  const char *text = hwgq_safetensors_text(import->file, "provenance");
  json_t *training = text ? json_loads(text, 0, NULL) : NULL;
  if (import->other_pixels && json_object_del(training, "test_accuracy") == 0)
    state_note(import, "the accuracy that the file claims is left out: it was measured with pixels prepared in another way");
  if (training && json_object_set(object, "training", training)) {
    json_decref(object);
    object = NULL;
  }
  json_decref(training);
  model->provenance = object ? json_dumps(object, JSON_COMPACT) : NULL;
  json_decref(object);
  return model->provenance ? HWGQ_OK : hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "provenance: out of memory");
}

static enum hwgq_status import_all(struct state_import *import, const uint8_t *bytes, size_t length, const char *what,
                                   struct hwgq_model *model) {
  enum hwgq_status status = open_file(import, bytes, length, what);
  if (!status) status = open_network(import);
  if (!status) status = state_weights_check(import);
  if (!status) status = refuse_surplus(import);
  if (!status) status = hwgq_network_allocate_parameters(import->network, import->error);
  if (!status) status = state_weights_fill(import);
  if (!status) status = fill_preprocess(import, &model->preprocess);
  if (!status) status = fill_labels(import, model);
  if (!status) status = fill_provenance(import, bytes, length, model);
  model->network = import->network;
  return status ? status : hwgq_model_check(model, import->error);
}

enum hwgq_status import_state(const uint8_t *bytes, size_t length, const char *what, const struct import_state_options *options,
                              struct hwgq_model **model, struct hwgq_error *error) {
  static const struct import_state_options defaults = {0};
  struct hwgq_error inner = {{0}};
  struct state_import import = {.options = options ? options : &defaults, .error = &inner};
  struct hwgq_model *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "import: out of memory");
  enum hwgq_status status = import_all(&import, bytes, length, what, made);
  bool opened = import.file != NULL;
  hwgq_safetensors_destroy(import.file);
  free(import.sorted);
  free(import.taken);
  if (!status) {
    *model = made;
    return HWGQ_OK;
  }
  hwgq_model_destroy(made);
  if (!opened) return hwgq_fail(error, status, "%s", inner.message); /* the container's messages name the file */
  return hwgq_fail(error, status, "%s: %s", hwgq_storage_label(what), inner.message);
}
