/* The model of a run: tested after every epoch, and written at the end. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/classify/classify.h"
#include "models/tool/train_session.h"
#include "models/train/export.h"

/* The weights in training, or their average where there is one that can be used. provenance: a JSON object. */
static enum hwgq_status export_session(const struct session *s, const char *provenance, struct hwgq_model **model,
                                       struct hwgq_error *error) {
  size_t count = json_array_size(s->labels);
  const char **labels = calloc(count + 1, sizeof *labels);
  if (labels == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the labels of the model");
  for (size_t i = 0; i < count; i++) labels[i] = json_string_value(json_array_get(s->labels, i));
  bool averaged = trainer_has_average(s->trainer);
  if (averaged) trainer_swap_average(s->trainer);
  enum hwgq_status status =
      export_model(s->trainer->net, &s->options.trainer.preprocess, labels, (int)count, provenance, model, error);
  if (averaged) trainer_swap_average(s->trainer);
  free(labels);
  return status;
}

/* ---- testing ------------------------------------------------------------------------------------------------------------ */

enum { IMAGES_PER_TASK = 32 };

struct test_run {
  const struct classifier *classifier;
  const struct dataset *images;
  struct classify_scratch **scratch; /* [thread], all reserved: there is always a result */
  atomic_int right;
};

static void test_images(void *context, int task, int worker) {
  struct test_run *run = context;
  const struct dataset *d = run->images;
  const size_t bytes = (size_t)d->height * (size_t)d->width * (size_t)d->channels;
  const int first = task * IMAGES_PER_TASK;
  for (int i = first; i < d->count && i < first + IMAGES_PER_TASK; i++) {
    struct classify_result result;
    struct hwgq_prediction best;
    /* where scores overflow, the result has them as they are */
    classify_pixels(run->classifier, run->scratch[worker], d->pixels + (size_t)i * bytes, &result, NULL);
    hwgq_top_k(result.scores, run->classifier->class_count, 1, &best);
    atomic_fetch_add(&run->right, best.class_index == d->labels[i]);
  }
}

/* Share of the test images that the engine gets right with this model, which is used up. */
static enum hwgq_status test_model(const struct session *s, struct hwgq_model *model, double *accuracy,
                                   struct hwgq_error *error) {
  struct classifier *classifier = NULL;
  const int threads = pool_threads(s->pool), images = s->test->count;
  struct test_run run = {.images = s->test, .scratch = calloc((size_t)threads, sizeof(struct classify_scratch *))};
  enum hwgq_status status = run.scratch != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  if (status == HWGQ_OK) status = classifier_create(model, NULL, &classifier, error);
  if (status != HWGQ_OK) hwgq_model_destroy(model);
  for (int i = 0; status == HWGQ_OK && i < threads; i++) status = classify_scratch_create(classifier, &run.scratch[i], error);
  if (status == HWGQ_OK) {
    run.classifier = classifier;
    pool_run(s->pool, (images + IMAGES_PER_TASK - 1) / IMAGES_PER_TASK, test_images, &run);
    *accuracy = (double)atomic_load(&run.right) / images;
  }
  for (int i = 0; run.scratch != NULL && i < threads; i++) classify_scratch_destroy(run.scratch[i]);
  free(run.scratch);
  classifier_destroy(classifier);
  return status;
}

double session_test(const struct session *s) {
  if (s->test == NULL) return -1;
  struct hwgq_model *model = NULL;
  struct hwgq_error error;
  double accuracy = -1;
  enum hwgq_status status = export_session(s, "{}", &model, &error);
  if (status == HWGQ_OK) status = test_model(s, model, &accuracy, &error);
  if (status != HWGQ_OK) fprintf(stderr, "hwgq train: cannot test the model: %s: training goes on\n", error.message);
  return accuracy;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------ */

static void cpu_name(char *name, size_t size) {
  snprintf(name, size, "unknown");
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (file == NULL) return;
  char line[256];
  while (fgets(line, sizeof line, file) != NULL) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
    snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
    break;
  }
  fclose(file);
}

const char *session_file_name(const char *path, int *length) {
  size_t end = strlen(path), start;
  while (end > 1 && path[end - 1] == '/') end--;
  for (start = end; start > 0 && path[start - 1] != '/';) start--;
  *length = (int)(end - start);
  return path + start;
}

static char *provenance_text(const struct session *s) {
  char cpu[128];
  cpu_name(cpu, sizeof cpu);
  json_t *options = train_options_recipe(&s->options);
  /* Files by their names: where they lay is nobody's business. */
  const char *const files[] = {"data", "initial", "teacher"}, *const paths[] = {s->options.data, s->options.initial,
                                                                                s->options.teacher};
  for (int i = 0; i < 3; i++) {
    if (paths[i] == NULL) continue;
    int length;
    const char *name = session_file_name(paths[i], &length);
    json_object_set_new(options, files[i], json_stringn(name, (size_t)length));
  }
  json_object_del(options, "labels");
  json_t *p = json_pack("{s:s, s:s, s:o, s:I, s:i, s:f, s:s, s:i, s:s, s:f}", "program", "hwgq train " HWGQ_VERSION, "network",
                        s->network->name, "recipe", options, "seed", (json_int_t)s->options.trainer.seed, "epochs",
                        s->trainer->epoch, "training_seconds", floor(s->trainer->seconds), "cpu", cpu, "threads",
                        s->options.threads, "blas_core", s->blas.core, "train_loss", s->train_loss);
  /* Within an epoch these are no longer the weights that were tested. */
  if (p != NULL && s->test_accuracy >= 0 && s->trainer->step == 0)
    json_object_set_new(p, "test_accuracy", json_real(s->test_accuracy));
  char *text = p != NULL ? json_dumps(p, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
  json_decref(p);
  return text;
}

enum hwgq_status session_write_model(const struct session *s, struct hwgq_error *error) {
  char *provenance = provenance_text(s);
  if (provenance == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the model");
  struct hwgq_model *model = NULL;
  enum hwgq_status status = export_session(s, provenance, &model, error);
  free(provenance);
  if (status == HWGQ_OK) status = hwgq_model_write(model, s->options.output, error);
  if (status == HWGQ_OK)
    printf("wrote %s, %llu bytes, %s\n", s->options.output, (unsigned long long)model->file_bytes, model->digest);
  hwgq_model_destroy(model);
  return status;
}
