#include "models/train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/json.h"
#include "engine/safetensors.h"
#include "engine/storage.h"

static const char format[] = "hwgq training checkpoint 1";

#define CHECKPOINT_MAX_BYTES ((uint64_t)8 << 30)

enum { NAME_BYTES = 320 };

struct checkpoint {
  char *path;
  uint8_t *bytes;
  struct hwgq_safetensors *parsed;
  const char *network, *recipe; /* in parsed */
  int epoch, step;
  int batch, images; /* 0: not stated, by an older version */
  int64_t right, optimizer_step, average_count;
  bool averaged, average_measured; /* averaged: its run had an average */
  double loss_sum, seconds;
};

/* ---- the tensors of a trainer ------------------------------------------------------------------------------------------- */

struct tensor_entry {
  char name[NAME_BYTES];
  float *values;
  uint64_t rows, columns; /* columns 0: a vector */
};

static void add_entry(struct tensor_entry *entries, int *count, const char *name, const char *suffix, float *values,
                      uint64_t size, uint64_t columns) {
  struct tensor_entry *entry = &entries[(*count)++];
  snprintf(entry->name, sizeof entry->name, "%s%s", name, suffix);
  entry->values = values;
  entry->rows = columns > 0 ? size / columns : size;
  entry->columns = columns;
}

/* All of them, in the order in which they are written; free() the result. NULL without memory. average: the trainer's, or NULL
 * to leave it out. */
static struct tensor_entry *list_entries(const struct trainer *trainer, const struct average *average, int *count) {
  const struct net *net = trainer->net;
  size_t most = (size_t)net->parameter_count * 4 + (size_t)net->layer_count * 4 + 1;
  struct tensor_entry *entries = calloc(most, sizeof *entries);
  *count = 0;
  if (entries == NULL) return NULL;
  for (int i = 0; i < net->parameter_count; i++) {
    const struct net_parameter *p = &net->parameters[i];
    uint64_t columns = p->value == p->layer->conv.weight ? (uint64_t)p->layer->out.channels : 0;
    add_entry(entries, count, p->name, "", p->value, p->count, columns);
    add_entry(entries, count, p->name, ".first", trainer->optimizer->first[i], p->count, columns);
    if (trainer->optimizer->second[i] != NULL)
      add_entry(entries, count, p->name, ".second", trainer->optimizer->second[i], p->count, columns);
    if (average != NULL) add_entry(entries, count, p->name, ".average", average->values[i], p->count, columns);
  }
  for (int i = 0; i < net->layer_count; i++) {
    const struct net_layer *l = &net->layers[i];
    if (l->op != HWGQ_BATCH_NORM) continue;
    add_entry(entries, count, l->layer->name, ".mean", l->mean, (uint64_t)l->out.channels, 0);
    add_entry(entries, count, l->layer->name, ".variance", l->variance, (uint64_t)l->out.channels, 0);
    if (average == NULL) continue;
    add_entry(entries, count, l->layer->name, ".mean.average", average->mean[i], (uint64_t)l->out.channels, 0);
    add_entry(entries, count, l->layer->name, ".variance.average", average->variance[i], (uint64_t)l->out.channels, 0);
  }
  return entries;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static char *state_text(const struct trainer *trainer) {
  /* Doubles in hexadecimal: they come back with the same bits. */
  char loss_sum[40], seconds[40];
  snprintf(loss_sum, sizeof loss_sum, "%a", trainer->loss_sum);
  snprintf(seconds, sizeof seconds, "%a", trainer->seconds);
  json_t *state = json_pack("{s:i, s:i, s:i, s:i, s:I, s:I, s:s, s:s}", "epoch", trainer->epoch, "step", trainer->step, "batch",
                            trainer->options.batch, "images", trainer->train->count, "right", (json_int_t)trainer->right,
                            "optimizer_step", (json_int_t)trainer->optimizer->step, "loss_sum", loss_sum, "seconds", seconds);
  if (state != NULL && trainer->average != NULL) {
    json_object_set_new(state, "average_count", json_integer((json_int_t)trainer->average->count));
    json_object_set_new(state, "average_measured", json_boolean(trainer->average->measured));
  }
  char *text = state != NULL ? json_dumps(state, JSON_COMPACT) : NULL;
  json_decref(state);
  return text;
}

enum hwgq_status checkpoint_write(const struct trainer *trainer, const char *recipe, const char *path,
                                  struct hwgq_error *error) {
  int count;
  struct tensor_entry *entries = list_entries(trainer, trainer->average, &count);
  struct hwgq_tensor *tensors = calloc((size_t)count + 1, sizeof *tensors);
  char *network = NULL, *state = state_text(trainer);
  enum hwgq_status status = HWGQ_OK;
  if (entries == NULL || tensors == NULL || state == NULL)
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to write the checkpoint %s", path);
  if (status == HWGQ_OK) status = hwgq_network_to_json(trainer->net->network, &network, error);
  if (status == HWGQ_OK) {
    for (int i = 0; i < count; i++) {
      const struct tensor_entry *e = &entries[i];
      tensors[i] = (struct hwgq_tensor){.name = e->name,
                                        .dtype = "F32",
                                        .rank = e->columns > 0 ? 2 : 1,
                                        .extents = {e->rows, e->columns},
                                        .data = e->values,
                                        .bytes = sizeof(float) * e->rows * (e->columns > 0 ? e->columns : 1)};
    }
    struct hwgq_metadata metadata[] = {{"format", format}, {"network", network}, {"state", state}, {"recipe", recipe}};
    status = hwgq_safetensors_write(path, tensors, count, metadata, 4, NULL, error);
  }
  free(entries);
  free(tensors);
  free(network);
  free(state);
  return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------ */

static enum hwgq_status read_double(const json_t *object, const char *key, const char *where, double *value,
                                    struct hwgq_error *error) {
  const char *text = NULL;
  enum hwgq_status status = hwgq_json_string(object, key, where, &text, error);
  if (status != HWGQ_OK) return status;
  char *end = NULL;
  *value = text != NULL ? strtod(text, &end) : NAN;
  if (text == NULL || end == text || *end != '\0' || !(*value >= 0) || isinf(*value))
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: \"%s\" is missing or not a number that can be", where, key);
  return HWGQ_OK;
}

static enum hwgq_status read_count(const json_t *object, const char *key, const char *where, int64_t most, int64_t *value,
                                   struct hwgq_error *error) {
  const json_t *number = json_object_get(object, key);
  if (!json_is_integer(number) || json_integer_value(number) < 0 || json_integer_value(number) > most)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: \"%s\" is missing or not a number that can be", where, key);
  *value = (int64_t)json_integer_value(number);
  return HWGQ_OK;
}

static enum hwgq_status read_state(struct checkpoint *checkpoint, const char *text, struct hwgq_error *error) {
  char where[128];
  snprintf(where, sizeof where, "checkpoint %s, state", hwgq_storage_label(checkpoint->path));
  json_t *state = NULL;
  enum hwgq_status status = hwgq_json_parse_object(text, strlen(text), where, &state, error);
  if (status != HWGQ_OK) return status;
  int64_t epoch = 0, step = 0, batch = 0, images = 0;
  status = read_count(state, "epoch", where, 1000000, &epoch, error);
  if (status == HWGQ_OK) status = read_count(state, "step", where, INT32_MAX, &step, error);
  if (status == HWGQ_OK && json_object_get(state, "batch") != NULL)
    status = read_count(state, "batch", where, INT32_MAX, &batch, error);
  if (status == HWGQ_OK && json_object_get(state, "images") != NULL)
    status = read_count(state, "images", where, INT32_MAX, &images, error);
  if (status == HWGQ_OK) status = read_count(state, "right", where, INT64_MAX, &checkpoint->right, error);
  if (status == HWGQ_OK) status = read_count(state, "optimizer_step", where, INT64_MAX / 2, &checkpoint->optimizer_step, error);
  checkpoint->averaged = json_object_get(state, "average_count") != NULL;
  if (status == HWGQ_OK && checkpoint->averaged)
    status = read_count(state, "average_count", where, INT64_MAX / 2, &checkpoint->average_count, error);
  checkpoint->average_measured = checkpoint->averaged && json_is_true(json_object_get(state, "average_measured"));
  if (status == HWGQ_OK) status = read_double(state, "loss_sum", where, &checkpoint->loss_sum, error);
  if (status == HWGQ_OK) status = read_double(state, "seconds", where, &checkpoint->seconds, error);
  checkpoint->epoch = (int)epoch;
  checkpoint->step = (int)step;
  checkpoint->batch = (int)batch;
  checkpoint->images = (int)images;
  json_decref(state);
  return status;
}

static enum hwgq_status fill(struct checkpoint *checkpoint, struct hwgq_error *error) {
  const char *label = hwgq_storage_label(checkpoint->path);
  size_t length = 0;
  enum hwgq_status status = hwgq_storage_read(checkpoint->path, CHECKPOINT_MAX_BYTES, &checkpoint->bytes, &length, error);
  if (status == HWGQ_OK) status = hwgq_safetensors_parse(checkpoint->bytes, length, label, &checkpoint->parsed, error);
  if (status != HWGQ_OK) return status;
  const char *found = hwgq_safetensors_text(checkpoint->parsed, "format");
  if (found == NULL || strcmp(found, format) != 0)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                     "%s is not a training checkpoint: give a file that hwgq train --checkpoint wrote", label);
  checkpoint->network = hwgq_safetensors_text(checkpoint->parsed, "network");
  checkpoint->recipe = hwgq_safetensors_text(checkpoint->parsed, "recipe");
  const char *state = hwgq_safetensors_text(checkpoint->parsed, "state");
  if (checkpoint->network == NULL || checkpoint->recipe == NULL || state == NULL)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "checkpoint %s lacks its network, recipe or state", label);
  return read_state(checkpoint, state, error);
}

enum hwgq_status checkpoint_read(const char *path, struct checkpoint **result, struct hwgq_error *error) {
  struct checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
  if (checkpoint != NULL) checkpoint->path = strdup(path);
  if (checkpoint == NULL || checkpoint->path == NULL) {
    free(checkpoint);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a checkpoint");
  }
  enum hwgq_status status = fill(checkpoint, error);
  if (status != HWGQ_OK) {
    checkpoint_destroy(checkpoint);
    return status;
  }
  *result = checkpoint;
  return HWGQ_OK;
}

bool checkpoint_recognize(const char *path) {
  enum { BEGINNING = 256 }; /* the header's length and its first words: the format is the first of the metadata */
  uint8_t *bytes = NULL;
  size_t length = 0;
  if (hwgq_storage_read(path, CHECKPOINT_MAX_BYTES, &bytes, &length, NULL) != HWGQ_OK) return false;
  bool recognized = memmem(bytes, length < BEGINNING ? length : BEGINNING, format, sizeof format - 1) != NULL;
  free(bytes);
  return recognized;
}

void checkpoint_destroy(struct checkpoint *checkpoint) {
  if (checkpoint == NULL) return;
  hwgq_safetensors_destroy(checkpoint->parsed);
  free(checkpoint->bytes);
  free(checkpoint->path);
  free(checkpoint);
}

const char *checkpoint_recipe(const struct checkpoint *checkpoint) {
  return checkpoint->recipe;
}

enum hwgq_status checkpoint_network(const struct checkpoint *checkpoint, struct hwgq_network **network,
                                    struct hwgq_error *error) {
  struct hwgq_network *built = NULL;
  enum hwgq_status status = hwgq_network_from_json(checkpoint->network, strlen(checkpoint->network), &built, error);
  if (status == HWGQ_OK) status = hwgq_network_infer(built, error);
  if (status == HWGQ_OK) status = hwgq_network_allocate_parameters(built, error);
  if (status != HWGQ_OK) {
    hwgq_network_destroy(built);
    return status;
  }
  *network = built;
  return HWGQ_OK;
}

static enum hwgq_status check_network(const struct checkpoint *checkpoint, const struct trainer *trainer,
                                      struct hwgq_error *error) {
  char *text = NULL;
  enum hwgq_status status = hwgq_network_to_json(trainer->net->network, &text, error);
  if (status != HWGQ_OK) return status;
  bool same = strcmp(text, checkpoint->network) == 0;
  free(text);
  return same
             ? HWGQ_OK
             : hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "checkpoint %s belongs to another network: give the network, width, quantizer, input size and classes "
                         "it was made with",
                         hwgq_storage_label(checkpoint->path));
}

static enum hwgq_status restore_entry(const struct checkpoint *checkpoint, const struct tensor_entry *entry, bool copy,
                                      struct hwgq_error *error) {
  const char *label = hwgq_storage_label(checkpoint->path);
  const struct hwgq_tensor *tensor = hwgq_safetensors_find(checkpoint->parsed, entry->name);
  if (tensor == NULL) return hwgq_fail(error, HWGQ_ERROR_FORMAT, "checkpoint %s lacks tensor %s", label, entry->name);
  uint64_t bytes = sizeof(float) * entry->rows * (entry->columns > 0 ? entry->columns : 1);
  if (strcmp(tensor->dtype, "F32") != 0 || tensor->rank != (entry->columns > 0 ? 2 : 1) || tensor->bytes != bytes ||
      tensor->extents[0] != entry->rows)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "checkpoint %s: tensor %s has not the shape that the network needs", label,
                     entry->name);
  for (uint64_t i = 0; i < bytes / sizeof(float); i++) {
    float value;
    memcpy(&value, (const char *)tensor->data + sizeof value * i, sizeof value);
    if (!isfinite(value))
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "checkpoint %s: tensor %s holds a value that is not finite", label,
                       entry->name);
  }
  if (copy) memcpy(entry->values, tensor->data, bytes);
  return HWGQ_OK;
}

/* Adam's first moment is not SGD's velocity, though both are kept as ".first": only Adam has a ".second". */
static enum hwgq_status check_optimizer(const struct checkpoint *checkpoint, const struct trainer *trainer,
                                        struct hwgq_error *error) {
  char second[NAME_BYTES];
  if (trainer->net->parameter_count == 0) return HWGQ_OK;
  snprintf(second, sizeof second, "%s.second", trainer->net->parameters[0].name);
  bool adam = hwgq_safetensors_find(checkpoint->parsed, second) != NULL;
  if (adam == (trainer->optimizer->second[0] != NULL)) return HWGQ_OK;
  return hwgq_fail(
      error, HWGQ_ERROR_INVALID,
      "checkpoint %s is of a run with --optimizer %s, which stays: another one begins a run of its own, from these "
      "weights with --initial",
      hwgq_storage_label(checkpoint->path), adam ? "adam" : "sgd");
}

enum hwgq_status checkpoint_restore(const struct checkpoint *checkpoint, struct trainer *trainer, struct hwgq_error *error) {
  enum hwgq_status status = check_network(checkpoint, trainer, error);
  if (status == HWGQ_OK) status = check_optimizer(checkpoint, trainer, error);
  if (status != HWGQ_OK) return status;
  int count;
  /* A run that was begun without an average begins one now. */
  struct tensor_entry *entries = list_entries(trainer, checkpoint->averaged ? trainer->average : NULL, &count);
  if (entries == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to read a checkpoint");
  /* Everything is checked before anything is changed. */
  for (int copy = 0; copy <= 1; copy++)
    for (int i = 0; status == HWGQ_OK && i < count; i++) status = restore_entry(checkpoint, &entries[i], copy == 1, error);
  free(entries);
  if (status != HWGQ_OK) return status;
  trainer->epoch = checkpoint->epoch;
  trainer->step = checkpoint->step;
  trainer->right = checkpoint->right;
  trainer->loss_sum = checkpoint->loss_sum;
  trainer->seconds = checkpoint->seconds;
  trainer->optimizer->step = checkpoint->optimizer_step;
  if (trainer->average != NULL) {
    trainer->average->count = checkpoint->average_count;
    trainer->average->measured = checkpoint->average_measured;
  }
  trainer->order_epoch = -1;
  net_prepare(trainer->net);
  return HWGQ_OK;
}

/* Entries of one layer, for checkpoint_initialize: 1 when all are there, 0 when one is not or has another shape, -1 when a
 * value is bad. */
static int take_layer(const struct checkpoint *checkpoint, const struct tensor_entry *entries, int count, bool copy,
                      struct hwgq_error *error) {
  for (int i = 0; i < count; i++) {
    struct tensor_entry entry = entries[i];
    char averaged[NAME_BYTES];
    snprintf(averaged, sizeof averaged, "%.300s.average", entries[i].name);
    if (checkpoint->average_measured && hwgq_safetensors_find(checkpoint->parsed, averaged) != NULL)
      memcpy(entry.name, averaged, sizeof averaged);
    const struct hwgq_tensor *tensor = hwgq_safetensors_find(checkpoint->parsed, entry.name);
    uint64_t bytes = sizeof(float) * entry.rows * (entry.columns > 0 ? entry.columns : 1);
    if (tensor == NULL || tensor->bytes != bytes || tensor->extents[0] != entry.rows) return 0;
    if (restore_entry(checkpoint, &entry, copy, error) != HWGQ_OK) return -1;
  }
  return 1;
}

enum hwgq_status checkpoint_initialize(const struct checkpoint *checkpoint, struct net *net, int *taken,
                                       struct hwgq_error *error) {
  *taken = 0;
  for (int copy = 0; copy <= 1; copy++) {
    for (int i = 0; i < net->layer_count; i++) {
      struct net_layer *l = &net->layers[i];
      struct tensor_entry entries[4];
      int count = 0;
      for (int p = 0; p < net->parameter_count; p++) {
        const struct net_parameter *parameter = &net->parameters[p];
        if (parameter->layer != l) continue;
        uint64_t columns = parameter->value == l->conv.weight ? (uint64_t)l->out.channels : 0;
        add_entry(entries, &count, parameter->name, "", parameter->value, parameter->count, columns);
      }
      if (l->op == HWGQ_BATCH_NORM) {
        add_entry(entries, &count, l->layer->name, ".mean", l->mean, (uint64_t)l->out.channels, 0);
        add_entry(entries, &count, l->layer->name, ".variance", l->variance, (uint64_t)l->out.channels, 0);
      }
      if (count == 0) continue;
      int good = take_layer(checkpoint, entries, count, false, error);
      if (good == 1 && copy == 1) good = take_layer(checkpoint, entries, count, true, error);
      if (good < 0) return HWGQ_ERROR_FORMAT;
      if (good == 0 && l->op != HWGQ_SCALE && !net_is_classifier(net, l))
        return hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "checkpoint %s has no layer %s of this shape: begin with the same network and width",
                         hwgq_storage_label(checkpoint->path), l->layer->name);
      *taken += copy == 1 && good == 1;
    }
  }
  net_prepare(net);
  return HWGQ_OK;
}

enum hwgq_status checkpoint_check_epoch(const struct checkpoint *checkpoint, const struct trainer *trainer,
                                        struct hwgq_error *error) {
  if (checkpoint->step == 0) return HWGQ_OK;
  if (checkpoint->images != 0 && checkpoint->images != trainer->train->count)
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "checkpoint %s stands within epoch %d, which was begun with %d images, not %d: finish the epoch with the "
                     "same data and --limit first",
                     hwgq_storage_label(checkpoint->path), checkpoint->epoch + 1, checkpoint->images, trainer->train->count);
  if (checkpoint->batch == 0 || checkpoint->batch == trainer->options.batch) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID,
                   "checkpoint %s stands within epoch %d, which was begun with batches of %d images, not %d: finish the epoch "
                   "with %d first",
                   hwgq_storage_label(checkpoint->path), checkpoint->epoch + 1, checkpoint->batch, trainer->options.batch,
                   checkpoint->batch);
}
