/* hwgq train: from options to a trainer that is ready for its next step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/storage.h"
#include "models/networks/networks.h"
#include "models/tool/train_session.h"
#include "models/train/checkpoint.h"

enum { MAX_LABELS_BYTES = 16 << 20 };

/* ---- network and data --------------------------------------------------------------------------------------------------- */

static enum hwgq_status quantizer(const struct train_options *o, struct hwgq_quantizer *result, struct hwgq_error *error) {
  int count = o->level_count > 0 ? o->level_count : (1 << o->bits) - 1;
  bool uniform = o->levels == TRAIN_UNIFORM, half = o->zero == 1;
  /* Where the paper has figures, its rounded ones: everyone after it uses them. */
  static const float free_2[] = {0.453f, 1.51f};
  float step = o->step > 0 ? (float)o->step : count == 3 && !half ? 0.538f : 0.0f;
  if (uniform ? step <= 0.0f : count != 2 || half) return hwgq_quantizer_design(count, uniform, half, result, error);
  *result = (struct hwgq_quantizer){.level_count = count};
  for (int i = 0; i < count; i++) result->centers[i] = uniform ? step * (float)(i + 1) : free_2[i];
  result->thresholds[0] = half ? result->centers[0] / 2 : 0.0f;
  for (int i = 1; i < count; i++) result->thresholds[i] = (result->centers[i - 1] + result->centers[i]) / 2;
  return HWGQ_OK;
}

/* Also the check that there is such a network, before data is read. */
static enum hwgq_status find_input(const struct train_options *o, struct hwgq_shape *shape, struct hwgq_error *error) {
  const struct networks_entry *entry = networks_find(o->network);
  if (entry == NULL) {
    char names[256] = "";
    for (const char *const *name = networks_names(); *name != NULL; name++) {
      size_t length = strlen(names);
      snprintf(names + length, sizeof names - length, "%s%s", length > 0 ? ", " : "", *name);
    }
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "there is no network \"%.60s\": choose one of %s", o->network, names);
  }
  *shape = o->input.channels > 0 ? o->input : entry->input;
  return HWGQ_OK;
}

/* The mean of every channel as training sees it (inverted or not), to the nearest whole number, so that padding is exact in
 * first convolutions of integers; and its text into the recipe. */
static enum hwgq_status measure_mean(struct session *s, struct hwgq_error *error) {
  const struct dataset *d = s->train;
  uint64_t sums[3] = {0}, pixels = (uint64_t)d->count * (uint64_t)d->height * (uint64_t)d->width;
  for (uint64_t i = 0; i < pixels; i++) {
    for (int c = 0; c < d->channels; c++) sums[c] += d->pixels[i * (uint64_t)d->channels + (uint64_t)c];
  }
  float *mean = s->options.trainer.preprocess.mean;
  for (int c = 0; c < 3; c++) {
    double average = (double)sums[c < d->channels ? c : 0] / (double)pixels;
    mean[c] = (float)round(s->options.trainer.preprocess.invert ? 255 - average : average);
  }
  char text[80];
  snprintf(text, sizeof text, "%.9g,%.9g,%.9g", (double)mean[0], (double)mean[1], (double)mean[2]);
  s->options.given[TRAIN_MEAN] = strdup(text);
  return s->options.given[TRAIN_MEAN] != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the mean");
}

/* Adds a label; one that no model could have is refused now, not after hours. */
static enum hwgq_status add_label(struct session *s, const char *label, size_t length, const char *where, const char *advice,
                                  struct hwgq_error *error) {
  struct hwgq_error reason;
  enum hwgq_status status = hwgq_model_check_label(label, length, where, &reason);
  if (status != HWGQ_OK) return hwgq_fail(error, status, "%s: %s", reason.message, advice);
  if (json_array_append_new(s->labels, json_stringn(label, length)) == 0) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the labels");
}

/* One a line. */
static enum hwgq_status read_labels(struct session *s, const char *path, int class_count, struct hwgq_error *error) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  enum hwgq_status status = hwgq_storage_read(path, MAX_LABELS_BYTES, &bytes, &length, error);
  for (size_t i = 0; status == HWGQ_OK && i < length;) {
    const uint8_t *end = memchr(bytes + i, '\n', length - i);
    size_t line = end != NULL ? (size_t)(end - bytes) - i : length - i;
    size_t label = line > 0 && bytes[i + line - 1] == '\r' ? line - 1 : line;
    char where[256];
    snprintf(where, sizeof where, "%.200s: line %zu", path, json_array_size(s->labels) + 1);
    status = add_label(s, (const char *)bytes + i, label, where, "give one label a line, in UTF-8", error);
    i += line + 1;
  }
  free(bytes);
  if (status != HWGQ_OK || (int)json_array_size(s->labels) == class_count) return status;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has %d labels, the %s %d classes: give one label a line", path,
                   (int)json_array_size(s->labels), s->options.export_only ? "network has" : "images have", class_count);
}

static enum hwgq_status choose_labels(struct session *s, struct hwgq_error *error) {
  if (s->options.labels_file != NULL) return read_labels(s, s->options.labels_file, s->train->class_count, error);
  enum hwgq_status status = HWGQ_OK;
  for (int i = 0; status == HWGQ_OK && i < s->train->class_count; i++) {
    const char *name = s->train->class_names[i];
    char where[256];
    snprintf(where, sizeof where, "%.200s: the name of class %d", s->options.data, i);
    status = add_label(s, name, strlen(name), where, "rename its folder, or give --labels FILE", error);
  }
  return status;
}

static void count_images(const struct dataset *d, int *counts) {
  for (int i = 0; i < d->count; i++) counts[d->labels[i]]++;
}

/* Classes that are in one part of the data only are most often misspelt names. */
static enum hwgq_status check_classes(const struct session *s, struct hwgq_error *error) {
  const struct dataset *train = s->train, *test = s->test;
  int classes = train->class_count, limit = s->options.limit;
  if (classes < 2) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has one class only: training needs two", s->options.data);
  if (limit > 0 && limit < classes) return HWGQ_OK;
  int *counts = calloc(2 * (size_t)classes, sizeof *counts);
  if (counts == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the classes");
  count_images(train, counts);
  if (test != NULL) count_images(test, counts + classes);
  for (int c = 0; c < classes; c++) {
    if (counts[c] == 0)
      fprintf(stderr, "hwgq train: class \"%s\" has no images to train on%s\n", train->class_names[c],
              counts[classes + c] > 0 ? ": is its name spelt differently there?" : "");
    else if (test != NULL && counts[classes + c] == 0)
      fprintf(stderr, "hwgq train: class \"%s\" has no images to test\n", train->class_names[c]);
  }
  free(counts);
  return HWGQ_OK;
}

static enum hwgq_status open_test(struct session *s, struct hwgq_shape shape, struct hwgq_error *error) {
  const struct train_options *o = &s->options;
  if (s->train->undivided)
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "%s has no train/ and test/: put some images of every class into test/CLASS and the others into "
                     "train/CLASS, or train on all with --no-test",
                     o->data);
  struct hwgq_error reason;
  enum hwgq_status status = dataset_open(o->data, DATASET_TEST, &o->trainer.preprocess, shape, o->limit, &s->test, &reason);
  if (status != HWGQ_OK) return hwgq_fail(error, status, "%.400s (--no-test trains without test images)", reason.message);
  return HWGQ_OK;
}

static enum hwgq_status open_data(struct session *s, struct hwgq_shape shape, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  struct hwgq_preprocess *preprocess = &o->trainer.preprocess;
  if (o->given[TRAIN_ORDER] == NULL) preprocess->order = shape.channels == 1 ? HWGQ_GRAY : HWGQ_RGB;
  struct hwgq_error reason;
  enum hwgq_status status = dataset_open(o->data, DATASET_TRAIN, preprocess, shape, o->limit, &s->train, &reason);
  if (status != HWGQ_OK)
    return hwgq_fail(error, status, "%.400s%s", reason.message,
                     o->resume != NULL ? " (NETWORK DATA beside --resume names other data)" : "");
  if (status == HWGQ_OK && !o->no_test) status = open_test(s, shape, error);
  if (status == HWGQ_OK && s->test != NULL && s->test->class_count != s->train->class_count)
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has %d classes to train on and %d to test: they must be the same",
                       o->data, s->train->class_count, s->test->class_count);
  if (status == HWGQ_OK) status = check_classes(s, error);
  if (status == HWGQ_OK && o->given[TRAIN_MEAN] == NULL) status = measure_mean(s, error);
  return status == HWGQ_OK ? choose_labels(s, error) : status;
}

/* ---- where to begin ------------------------------------------------------------------------------------------------------ */

/* For --export-only. A checkpoint is a file like any other: its labels may be anything. */
static enum hwgq_status take_labels(struct session *s, const json_t *labels, struct hwgq_error *error) {
  if (s->options.labels_given) {
    const struct hwgq_network *network = s->network;
    return read_labels(s, s->options.labels_file, network->layers[network->layer_count - 1].output.channels, error);
  }
  bool texts = json_is_array(labels);
  for (size_t i = 0; texts && i < json_array_size(labels); i++) texts = json_is_string(json_array_get(labels, i));
  if (!texts)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the \"labels\" of checkpoint %.200s are not a list of texts",
                     s->options.resume);
  enum hwgq_status status = HWGQ_OK;
  for (size_t i = 0; status == HWGQ_OK && i < json_array_size(labels); i++) {
    const json_t *label = json_array_get(labels, i);
    char where[256];
    snprintf(where, sizeof where, "checkpoint %.200s: label %zu", s->options.resume, i);
    status = add_label(s, json_string_value(label), json_string_length(label), where, "give others with --labels FILE", error);
  }
  return status;
}

/* Whether the options are those of a checkpoint's recipe, but for the names of classes. */
static bool same_model(const struct session *s, const json_t *recipe) {
  json_t *now = train_options_recipe(&s->options), *then = json_copy((json_t *)recipe);
  json_object_del(now, "labels");
  json_object_del(then, "labels");
  bool same = json_equal(now, then);
  json_decref(now);
  json_decref(then);
  return same;
}

/* Weights that learned other classes, or these in another order, would go on from what they learned, to nothing. */
static enum hwgq_status check_same_classes(const struct session *s, const json_t *recipe, struct hwgq_error *error) {
  const json_t *then = json_object_get(recipe, "classes");
  /* older checkpoints have the labels only */
  if (then == NULL && json_object_get(json_object_get(recipe, "options"), "labels") == NULL)
    then = json_object_get(recipe, "labels");
  if (then == NULL || s->options.labels_given) return HWGQ_OK;
  const int now_count = s->train->class_count, then_count = (int)json_array_size(then);
  const char *resumed = s->options.resume;
  if (now_count != then_count)
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "%.150s has %d classes, the data of checkpoint %.150s had %d: resume it with that data", s->options.data,
                     now_count, resumed, then_count);
  for (int i = 0; i < now_count; i++) {
    const char *now = s->train->class_names[i], *was = json_string_value(json_array_get(then, (size_t)i));
    if (was == NULL || strcmp(now, was) != 0)
      return hwgq_fail(
          error, HWGQ_ERROR_INVALID,
          "class %d is \"%.60s\" in %.100s and was \"%.60s\" in the data of checkpoint %.100s: resume it with that "
          "data, or, if only the names changed, say with --labels FILE what the classes are called",
          i, now, s->options.data, was != NULL ? was : "?", resumed);
  }
  return HWGQ_OK;
}

static enum hwgq_status resume(struct session *s, struct hwgq_error *error) {
  struct checkpoint *checkpoint = NULL;
  enum hwgq_status status = checkpoint_read(s->options.resume, &checkpoint, error);
  json_t *recipe = status == HWGQ_OK ? json_loads(checkpoint_recipe(checkpoint), 0, NULL) : NULL;
  if (status == HWGQ_OK && !s->options.export_only) status = check_same_classes(s, recipe, error);
  if (status == HWGQ_OK && !s->options.export_only) status = checkpoint_check_epoch(checkpoint, s->trainer, error);
  if (status == HWGQ_OK) status = checkpoint_restore(checkpoint, s->trainer, error);
  if (status == HWGQ_OK) {
    s->test_accuracy = json_is_number(json_object_get(recipe, "test_accuracy"))
                           ? json_number_value(json_object_get(recipe, "test_accuracy"))
                           : -1;
    s->train_loss = json_number_value(json_object_get(recipe, "train_loss"));
    /* of the model that this recipe makes, not of one with other means or without its average */
    s->changed = !same_model(s, json_object_get(recipe, "options"));
    if (s->changed) s->test_accuracy = -1;
    json_t *history = json_object_get(recipe, "history"); /* older checkpoints have none */
    for (size_t i = 0; i < json_array_size(history); i++)
      if (json_is_object(json_array_get(history, i))) json_array_append(s->history, json_array_get(history, i));
    if (s->options.export_only) status = take_labels(s, json_object_get(recipe, "labels"), error);
  }
  json_decref(recipe);
  checkpoint_destroy(checkpoint);
  return status;
}

/* A teacher's classes are the images' classes, in the same order. */
static enum hwgq_status open_teacher(struct session *s, struct hwgq_error *error) {
  const char *path = s->options.teacher;
  enum hwgq_status status = hwgq_model_read(path, &s->teacher_model, error);
  if (status == HWGQ_OK)
    status = teacher_create(s->teacher_model, s->network, &s->options.trainer.preprocess, s->trainer->options.batch, s->pool,
                            &s->blas, &s->teacher, error);
  for (int i = 0; status == HWGQ_OK && i < s->teacher_model->class_count; i++) {
    const char *label = json_string_value(json_array_get(s->labels, (size_t)i));
    if (strcmp(label, s->teacher_model->labels[i]) != 0)
      status = hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "class %d is \"%.60s\" to the teacher %.100s and \"%.60s\" in the data: they "
                         "must be the same",
                         i, s->teacher_model->labels[i], path, label);
  }
  s->trainer->teacher = s->teacher;
  return status;
}

/* Weights to begin with: of a model, or of a checkpoint, which has latent ones. */
static enum hwgq_status initialize(struct session *s, struct hwgq_error *error) {
  const char *path = s->options.initial;
  struct checkpoint *checkpoint = NULL;
  struct hwgq_model *model = NULL;
  int taken = 0;
  enum hwgq_status status = checkpoint_read(path, &checkpoint, error);
  if (status == HWGQ_OK) {
    status = checkpoint_initialize(checkpoint, s->trainer->net, &taken, error);
  } else if (status == HWGQ_ERROR_FORMAT && !checkpoint_recognize(path)) {
    status = hwgq_model_read(path, &model, error);
    if (status == HWGQ_OK) status = net_import(s->trainer->net, model->network, &taken, error);
  }
  if (status == HWGQ_OK) {
    printf("begins with %d layers of %s\n", taken, path);
    long long beyond = net_clamp_latent(s->trainer->net);
    if (beyond > 0)
      printf("%lld weights of binary layers lay beyond -1 to 1, where they are kept, and were cut to it\n", beyond);
  }
  checkpoint_destroy(checkpoint);
  hwgq_model_destroy(model);
  return status;
}

/* Without data, for --export-only: one empty image of the right shape. */
static enum hwgq_status empty_data(struct session *s, struct hwgq_error *error) {
  struct hwgq_shape in = s->network->input;
  s->train = calloc(1, sizeof *s->train);
  if (s->train == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  *s->train = (struct dataset){.count = 1, .height = in.height, .width = in.width, .channels = in.channels};
  return HWGQ_OK;
}

static enum hwgq_status build_network(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  struct hwgq_quantizer q;
  struct hwgq_shape shape;
  struct networks_variant variant = {.quantizer = o->levels == TRAIN_SIGN ? NULL : &q,
                                     .relu = o->levels == TRAIN_RELU,
                                     .float_weights = o->weights == 1,
                                     .affine = o->affine};
  enum hwgq_status status = find_input(o, &shape, error);
  if (status == HWGQ_OK) status = quantizer(o, &q, error);
  if (status == HWGQ_OK) status = open_data(s, shape, error);
  if (status == HWGQ_OK)
    status = networks_build_variant(o->network, shape, s->train->class_count, o->width, &variant, &s->network, error);
  return status;
}

static enum hwgq_status network_of_checkpoint(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  struct checkpoint *checkpoint = NULL;
  enum hwgq_status status = checkpoint_read(o->resume, &checkpoint, error);
  if (status == HWGQ_OK) status = checkpoint_network(checkpoint, &s->network, error);
  checkpoint_destroy(checkpoint);
  if (status == HWGQ_OK) status = empty_data(s, error);
  if (status == HWGQ_OK && o->given[TRAIN_ORDER] == NULL && s->network->input.channels == 1)
    o->trainer.preprocess.order = HWGQ_GRAY;
  return status;
}

/* Takes the precision and writes it into the recipe, so that a resumed run computes alike on another CPU or not at all; but for
 * layers in bfloat16, which a CPU without it has in float32. */
static enum hwgq_status choose_precision(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  const struct dot_kernels *fast = dot_kernels_fast();
  if (o->export_only) return HWGQ_OK;
  if (o->precision == PRECISION_MIXED && fast == NULL)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "precision mixed: this CPU has no AVX512-VNNI; use --precision float32");
  s->blas.dot = o->precision == PRECISION_FLOAT32 ? NULL : fast;
  free(o->given[TRAIN_PRECISION]);
  o->given[TRAIN_PRECISION] = strdup(s->blas.dot != NULL ? "mixed" : "float32");
  return o->given[TRAIN_PRECISION] != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the precision");
}

enum hwgq_status session_prepare(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  enum hwgq_status status = blas_load(o->blas_core, &s->blas, error);
  if (status == HWGQ_OK) status = choose_precision(s, error);
  if (status == HWGQ_OK) status = pool_create(o->threads, &s->pool, error);
  if (status == HWGQ_OK) status = o->export_only ? network_of_checkpoint(s, error) : build_network(s, error);
  if (status == HWGQ_OK) status = trainer_create(&o->trainer, s->network, s->train, s->pool, &s->blas, &s->trainer, error);
  if (status == HWGQ_OK && o->teacher != NULL && !o->export_only) status = open_teacher(s, error);
  if (status == HWGQ_OK && o->initial != NULL && o->resume == NULL) status = initialize(s, error);
  return status == HWGQ_OK && o->resume != NULL ? resume(s, error) : status;
}
