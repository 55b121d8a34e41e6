/* The .hwgq file: a safetensors file (safetensors.h) whose metadata says what the tensors are for.
 *
 *   __metadata__    every value a string
 *     format          "hwgq"
 *     format_version  "1"
 *     network         the description, JSON as in network_json.c
 *     preprocess      {"order":"rgb"|"bgr"|"gray", "resize":0, "invert":false, "mean":[..], "scale":[..]}; mean and scale have
 *                     one number per input channel; resize and invert may be left out
 *     labels          JSON array of one string per output channel
 *     provenance      JSON object: how the model was made
 *     digest          "xxh3:" and XXH3-128 of the data section, 32 hexadecimal digits
 *   tensors
 *     LAYER.weight        F32 [out_channels, in/groups, kernel_height, kernel_width]
 *     LAYER.weight_bits   U8 [out_channels, ceil(in/groups * kernel_height * kernel_width / 8)], bits as in struct hwgq_layer
 *     LAYER.alpha, .bias, .mean, .variance, .gamma, .beta   F32 [channels]
 *   First all F32 tensors in the order of the layers, then all U8, so that every tensor is aligned in a mapped file.
 *
 * The network is stored as it was trained; folding happens when a plan is made. A model is a classifier: its network ends with
 * a softmax. */
#include "engine/file.h"
#include "engine/json.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/storage.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAX_LABEL 256
#define MAX_PROVENANCE ((size_t)1 << 20)
#define MAX_TENSORS (HWGQ_MAX_LAYERS * HWGQ_MAX_PARAMETERS)

const char *const hwgq_model_metadata[HWGQ_MODEL_METADATA] = {"format", "format_version", "network", "preprocess",
                                                              "labels", "provenance",     "digest"};
const char *const hwgq_channel_order_names[HWGQ_CHANNEL_ORDERS] = {
    [HWGQ_RGB] = "rgb", [HWGQ_BGR] = "bgr", [HWGQ_GRAY] = "gray"};

void hwgq_model_destroy(struct hwgq_model *model) {
  if (!model) return;
  for (int i = 0; model->labels && i < model->class_count; i++) free(model->labels[i]);
  free(model->labels);
  free(model->provenance);
  hwgq_network_destroy(model->network);
  free(model);
}

/* ---- what must hold for every model, read or written -------------------------------------------------------------------- */

static enum hwgq_status check_preprocess(const struct hwgq_preprocess *preprocess, struct hwgq_shape input,
                                         struct hwgq_error *error) {
  if ((unsigned)preprocess->order >= HWGQ_CHANNEL_ORDERS)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: channel order %d does not exist", (int)preprocess->order);
  int channels = preprocess->order == HWGQ_GRAY ? 1 : 3;
  if (input.channels != channels)
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "preprocess: order '%s' needs a network with %d input channels, this one has %d",
                     hwgq_channel_order_names[preprocess->order], channels, input.channels);
  int least = input.height > input.width ? input.height : input.width;
  if (preprocess->resize != 0 && (preprocess->resize < least || preprocess->resize > HWGQ_MODEL_MAX_RESIZE))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: resize is %d, must be 0 or %d (the network's input) to %d",
                     preprocess->resize, least, HWGQ_MODEL_MAX_RESIZE);
  for (int c = 0; c < channels; c++) {
    if (!isfinite(preprocess->mean[c]))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: mean of channel %d is not finite", c);
    if (!isfinite(preprocess->scale[c]) || preprocess->scale[c] == 0)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: scale of channel %d is %g, must be finite and not 0", c,
                       (double)preprocess->scale[c]);
    if (!isfinite((255 - preprocess->mean[c]) * preprocess->scale[c]) || !isfinite(-preprocess->mean[c] * preprocess->scale[c]))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "preprocess: mean and scale of channel %d make infinite values", c);
  }
  return HWGQ_OK;
}

enum hwgq_status hwgq_model_check_label(const char *label, size_t length, const char *where, struct hwgq_error *error) {
  if (length == 0 || length > MAX_LABEL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s must have 1 to %d bytes", where, MAX_LABEL);
  for (size_t j = 0; j < length; j++)
    if ((unsigned char)label[j] < 0x20 || label[j] == 0x7f)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s contains a control character, byte %zu", where, j);
  json_t *text = json_stringn(label, length); /* refuses what is not UTF-8 */
  if (!text) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s is not valid UTF-8", where);
  json_decref(text);
  return HWGQ_OK;
}

static enum hwgq_status check_labels(const struct hwgq_model *model, int outputs, struct hwgq_error *error) {
  if (model->class_count != outputs)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "labels: %d given, the network has %d classes", model->class_count, outputs);
  for (int i = 0; i < model->class_count; i++) {
    char where[40];
    snprintf(where, sizeof where, "labels: label %d", i);
    enum hwgq_status status = hwgq_model_check_label(model->labels[i], strnlen(model->labels[i], MAX_LABEL + 1), where, error);
    if (status) return status;
  }
  return HWGQ_OK;
}

static enum hwgq_status check_provenance(const char *text, struct hwgq_error *error) {
  json_t *object = NULL;
  size_t length = strnlen(text, MAX_PROVENANCE + 1);
  if (length > MAX_PROVENANCE) return hwgq_fail(error, HWGQ_ERROR_LIMIT, "provenance: longer than %zu bytes", MAX_PROVENANCE);
  enum hwgq_status status = hwgq_json_parse_object(text, length, "provenance", &object, error);
  json_decref(object);
  return status;
}

enum hwgq_status hwgq_model_check(const struct hwgq_model *model, struct hwgq_error *error) {
  const struct hwgq_network *network = model->network;
  const struct hwgq_layer *last = &network->layers[network->layer_count - 1];
  if (last->op != HWGQ_SOFTMAX)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer '%s': the last layer of a model must be softmax, this is %s", last->name,
                     hwgq_op_name(last->op));
  enum hwgq_status status = check_preprocess(&model->preprocess, network->input, error);
  if (!status) status = check_labels(model, last->output.channels, error);
  if (!status) status = check_provenance(model->provenance, error);
  return status;
}

enum hwgq_status hwgq_model_digest(const struct hwgq_tensor *tensors, int count, char digest[40], struct hwgq_error *error) {
  XXH3_state_t *state = XXH3_createState();
  if (!state) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  XXH3_128bits_reset(state);
  for (int i = 0; i < count; i++) XXH3_128bits_update(state, tensors[i].data, (size_t)tensors[i].bytes);
  XXH128_hash_t hash = XXH3_128bits_digest(state);
  XXH3_freeState(state);
  snprintf(digest, 40, "xxh3:%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
  return HWGQ_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

/* A file before it is written: what its header refers to. */
struct draft {
  int tensor_count;
  struct hwgq_tensor tensors[MAX_TENSORS];
  char names[MAX_TENSORS][HWGQ_MAX_NAME + 32];
  char *network, *preprocess, *labels;
  struct hwgq_metadata metadata[HWGQ_MODEL_METADATA];
};

static char *preprocess_text(const struct hwgq_preprocess *preprocess) {
  bool failed = false;
  json_t *object = json_object(), *mean = json_array(), *scale = json_array();
  for (int c = 0; c < (preprocess->order == HWGQ_GRAY ? 1 : 3); c++) {
    if (json_array_append_new(mean, json_real((double)preprocess->mean[c]))) failed = true;
    if (json_array_append_new(scale, json_real((double)preprocess->scale[c]))) failed = true;
  }
  if (json_object_set_new(object, "order", json_string(hwgq_channel_order_names[preprocess->order]))) failed = true;
  if (json_object_set_new(object, "resize", json_integer(preprocess->resize))) failed = true;
  if (json_object_set_new(object, "invert", json_boolean(preprocess->invert))) failed = true;
  if (json_object_set_new(object, "mean", mean)) failed = true;
  if (json_object_set_new(object, "scale", scale)) failed = true;
  char *text = failed ? NULL : hwgq_json_text(object);
  json_decref(object);
  return text;
}

static char *labels_text(const struct hwgq_model *model) {
  bool failed = false;
  json_t *array = json_array();
  for (int i = 0; i < model->class_count; i++)
    if (json_array_append_new(array, json_string(model->labels[i]))) failed = true;
  char *text = failed ? NULL : hwgq_json_text(array);
  json_decref(array);
  return text;
}

/* All F32 arrays, then all packed bits. */
static void list_tensors(const struct hwgq_network *network, struct draft *draft) {
  for (int bits = 0; bits <= 1; bits++)
    for (int i = 0; i < network->layer_count; i++) {
      struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS];
      int count = hwgq_layer_parameters(network, &network->layers[i], parameters);
      for (int j = 0; j < count; j++) {
        if ((parameters[j].bits != NULL) != (bits == 1)) continue;
        char *name = draft->names[draft->tensor_count];
        struct hwgq_tensor *tensor = &draft->tensors[draft->tensor_count++];
        snprintf(name, sizeof draft->names[0], "%s.%s", network->layers[i].name, parameters[j].name);
        *tensor = (struct hwgq_tensor){.name = name,
                                       .dtype = bits ? "U8" : "F32",
                                       .rank = parameters[j].rank,
                                       .data = hwgq_parameter_data(&parameters[j]),
                                       .bytes = hwgq_parameter_bytes(&parameters[j])};
        for (int k = 0; k < tensor->rank; k++) tensor->extents[k] = parameters[j].extents[k];
      }
    }
}

static enum hwgq_status check_size(const struct draft *draft, struct hwgq_error *error) {
  uint64_t bytes = HWGQ_TENSORS_MAX_HEADER;
  for (int i = 0; i < draft->tensor_count; i++) bytes += draft->tensors[i].bytes;
  if (bytes > HWGQ_MODEL_MAX_FILE)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "the model would have about %llu bytes, at most %llu are allowed",
                     (unsigned long long)bytes, (unsigned long long)HWGQ_MODEL_MAX_FILE);
  return HWGQ_OK;
}

static enum hwgq_status fill_draft(struct hwgq_model *model, struct draft *draft, struct hwgq_error *error) {
  enum hwgq_status status = hwgq_network_infer(model->network, error);
  if (!status) status = hwgq_model_check(model, error);
  if (!status) status = hwgq_network_check_parameters(model->network, error);
  if (!status) status = hwgq_network_to_json(model->network, &draft->network, error);
  if (status) return status;
  draft->preprocess = preprocess_text(&model->preprocess);
  draft->labels = labels_text(model);
  if (!draft->preprocess || !draft->labels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  list_tensors(model->network, draft);
  status = check_size(draft, error);
  if (!status) status = hwgq_model_digest(draft->tensors, draft->tensor_count, model->digest, error);
  if (status) return status;
  const char *const texts[] = {"hwgq", "1", draft->network, draft->preprocess, draft->labels, model->provenance, model->digest};
  for (int i = 0; i < HWGQ_MODEL_METADATA; i++) draft->metadata[i] = (struct hwgq_metadata){hwgq_model_metadata[i], texts[i]};
  return HWGQ_OK;
}

static void destroy_draft(struct draft *draft) {
  free(draft->network);
  free(draft->preprocess);
  free(draft->labels);
  free(draft);
}

/* The draft of a checked model. Messages start with `what`. */
static enum hwgq_status create_draft(struct hwgq_model *model, const char *what, struct draft **draft,
                                     struct hwgq_error *error) {
  struct hwgq_error inner = {{0}};
  struct draft *created = calloc(1, sizeof *created);
  enum hwgq_status status =
      created ? fill_draft(model, created, &inner) : hwgq_fail(&inner, HWGQ_ERROR_MEMORY, "out of memory");
  if (!status) {
    *draft = created;
    return HWGQ_OK;
  }
  if (created) destroy_draft(created);
  return hwgq_fail(error, status, "%s: not written: %s", hwgq_storage_label(what), inner.message);
}

enum hwgq_status hwgq_model_write(struct hwgq_model *model, const char *path, struct hwgq_error *error) {
  struct draft *draft = NULL;
  enum hwgq_status status = create_draft(model, path, &draft, error);
  if (status) return status;
  status = hwgq_safetensors_write(path, draft->tensors, draft->tensor_count, draft->metadata, HWGQ_MODEL_METADATA,
                                  &model->file_bytes, error);
  destroy_draft(draft);
  return status;
}

enum hwgq_status hwgq_model_build(struct hwgq_model *model, uint8_t **bytes, size_t *length, struct hwgq_error *error) {
  struct draft *draft = NULL;
  enum hwgq_status status = create_draft(model, "model", &draft, error);
  if (status) return status;
  status =
      hwgq_safetensors_build(draft->tensors, draft->tensor_count, draft->metadata, HWGQ_MODEL_METADATA, bytes, length, error);
  if (!status) model->file_bytes = *length;
  destroy_draft(draft);
  return status;
}
