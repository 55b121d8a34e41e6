/* hwgq train: images in, a .hwgq model out. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/storage.h"
#include "models/networks/networks.h"
#include "models/tool/tool.h"
#include "models/tool/train_options.h"
#include "models/train/checkpoint.h"
#include "models/train/export.h"

enum { EXIT_INTERRUPTED = 130, MAX_LABELS_BYTES = 16 << 20 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

struct session {
  struct train_options options;
  char *checkpoint_path;
  struct blas blas;
  struct pool *pool;
  struct hwgq_network *network;
  struct dataset *train, *test;
  struct trainer *trainer;
  json_t *labels;       /* array of texts */
  double test_accuracy; /* of the last epoch; negative: unknown */
  double train_loss;
  FILE *log;
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- network and data --------------------------------------------------------------------------------------------------- */

static enum hwgq_status quantizer(const struct train_options *o, struct hwgq_quantizer *result, struct hwgq_error *error) {
  if (o->bits != 2 || !o->uniform) return hwgq_quantizer_design((1 << o->bits) - 1, o->uniform, false, result, error);
  /* The figures that the paper and everyone after it uses. */
  *result = (struct hwgq_quantizer){.level_count = 3};
  for (int i = 0; i < 3; i++) result->centers[i] = 0.538f * (float)(i + 1);
  for (int i = 1; i < 3; i++) result->thresholds[i] = (result->centers[i - 1] + result->centers[i]) / 2;
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

/* The mean of every channel as training sees it (inverted or not), and its text into the recipe. */
static enum hwgq_status measure_mean(struct session *s, struct hwgq_error *error) {
  const struct dataset *d = s->train;
  uint64_t sums[3] = {0}, pixels = (uint64_t)d->count * (uint64_t)d->height * (uint64_t)d->width;
  for (uint64_t i = 0; i < pixels; i++) {
    for (int c = 0; c < d->channels; c++) sums[c] += d->pixels[i * (uint64_t)d->channels + (uint64_t)c];
  }
  float *mean = s->options.trainer.preprocess.mean;
  for (int c = 0; c < 3; c++) {
    double average = (double)sums[c < d->channels ? c : 0] / (double)pixels;
    mean[c] = (float)(s->options.trainer.preprocess.invert ? 255 - average : average);
  }
  char text[80];
  snprintf(text, sizeof text, "%.9g,%.9g,%.9g", (double)mean[0], (double)mean[1], (double)mean[2]);
  s->options.given[TRAIN_MEAN] = strdup(text);
  return s->options.given[TRAIN_MEAN] != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the mean");
}

static enum hwgq_status read_labels(struct session *s, struct hwgq_error *error) {
  const char *path = s->options.labels_file;
  if (path == NULL) {
    for (int i = 0; i < s->train->class_count; i++) json_array_append_new(s->labels, json_string(s->train->class_names[i]));
  } else {
    uint8_t *bytes = NULL;
    size_t length = 0;
    enum hwgq_status status = hwgq_storage_read(path, MAX_LABELS_BYTES, &bytes, &length, error);
    if (status != HWGQ_OK) return status;
    for (size_t i = 0; i < length;) {
      const uint8_t *end = memchr(bytes + i, '\n', length - i);
      size_t line = end != NULL ? (size_t)(end - bytes) - i : length - i;
      json_array_append_new(s->labels,
                            json_stringn((const char *)bytes + i, line > 0 && bytes[i + line - 1] == '\r' ? line - 1 : line));
      i += line + 1;
    }
    free(bytes);
  }
  if ((int)json_array_size(s->labels) == s->train->class_count) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has %d labels, the images have %d classes: give one label a line",
                   path != NULL ? path : "the data", (int)json_array_size(s->labels), s->train->class_count);
}

static enum hwgq_status open_data(struct session *s, struct hwgq_shape shape, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  struct hwgq_preprocess *preprocess = &o->trainer.preprocess;
  if (!o->order_given) preprocess->order = shape.channels == 1 ? HWGQ_GRAY : HWGQ_RGB;
  enum hwgq_status status = dataset_open(o->data, DATASET_TRAIN, preprocess, shape, o->limit, &s->train, error);
  if (status == HWGQ_OK && !o->no_test)
    status = dataset_open(o->data, DATASET_TEST, preprocess, shape, o->limit, &s->test, error);
  if (status == HWGQ_OK && s->test != NULL && s->test->class_count != s->train->class_count)
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has %d classes to train on and %d to test: they must be the same",
                       o->data, s->train->class_count, s->test->class_count);
  if (status == HWGQ_OK && !o->mean_given) status = measure_mean(s, error);
  return status == HWGQ_OK ? read_labels(s, error) : status;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------------- */

static char *recipe_text(const struct session *s) {
  json_t *recipe = json_pack("{s:o, s:O, s:f, s:f}", "options", train_options_recipe(&s->options), "labels", s->labels,
                             "test_accuracy", s->test_accuracy, "train_loss", s->train_loss);
  char *text = recipe != NULL ? json_dumps(recipe, JSON_COMPACT) : NULL;
  json_decref(recipe);
  return text;
}

static enum hwgq_status save_checkpoint(const struct session *s, struct hwgq_error *error) {
  char *recipe = recipe_text(s);
  if (recipe == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the recipe of a checkpoint");
  enum hwgq_status status = checkpoint_write(s->trainer, recipe, s->checkpoint_path, error);
  free(recipe);
  return status;
}

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

static char *provenance_text(const struct session *s) {
  char cpu[128];
  cpu_name(cpu, sizeof cpu);
  json_t *options = train_options_recipe(&s->options);
  const char *slash = strrchr(s->options.data, '/');
  json_object_set_new(options, "data", json_string(slash != NULL && slash[1] != '\0' ? slash + 1 : s->options.data));
  json_object_del(options, "labels");
  json_t *p = json_pack("{s:s, s:s, s:o, s:I, s:i, s:f, s:s, s:i, s:s, s:f}", "program", "hwgq train " HWGQ_VERSION, "network",
                        s->network->name, "recipe", options, "seed", (json_int_t)s->options.trainer.seed, "epochs",
                        s->trainer->epoch, "training_seconds", floor(s->trainer->seconds), "cpu", cpu, "threads",
                        s->options.threads, "blas_core", s->blas.core, "train_loss", s->train_loss);
  if (p != NULL && s->test_accuracy >= 0) json_object_set_new(p, "test_accuracy", json_real(s->test_accuracy));
  char *text = p != NULL ? json_dumps(p, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
  json_decref(p);
  return text;
}

static enum hwgq_status write_model(const struct session *s, struct hwgq_error *error) {
  size_t count = json_array_size(s->labels);
  const char **labels = calloc(count + 1, sizeof *labels);
  char *provenance = provenance_text(s);
  struct hwgq_model *model = NULL;
  enum hwgq_status status =
      labels != NULL && provenance != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the model");
  for (size_t i = 0; status == HWGQ_OK && i < count; i++) labels[i] = json_string_value(json_array_get(s->labels, i));
  if (status == HWGQ_OK)
    status = export_model(s->trainer->net, &s->options.trainer.preprocess, labels, (int)count, provenance, &model, error);
  if (status == HWGQ_OK) status = hwgq_model_write(model, s->options.output, error);
  if (status == HWGQ_OK)
    printf("wrote %s, %llu bytes, %s\n", s->options.output, (unsigned long long)model->file_bytes, model->digest);
  hwgq_model_destroy(model);
  free(labels);
  free(provenance);
  return status;
}

/* ---- the epochs --------------------------------------------------------------------------------------------------------- */

static void show_progress(const struct session *s, double epoch_start, int first_step) {
  const struct trainer *t = s->trainer;
  enum { BAR = 24 };
  int steps = trainer_steps_per_epoch(t), filled = BAR * t->step / steps;
  double rate = (t->step - first_step) / (now() - epoch_start);
  double left = rate > 0 ? ((double)(t->options.epochs - t->epoch) * steps - t->step) / rate : 0;
  struct trainer_score score = trainer_train_score(t);
  fprintf(stderr, "\r\033[Kepoch %d/%d [%.*s%.*s] loss %.3f, accuracy %.1f %%, %.0f images/s, %d:%02d:%02d left", t->epoch + 1,
          t->options.epochs, filled, "########################", BAR - filled, "........................", score.loss,
          100 * score.accuracy, rate * t->options.batch, (int)left / 3600, (int)left / 60 % 60, (int)left % 60);
}

static void report_epoch(struct session *s, double rate, double images_per_second) {
  struct trainer *t = s->trainer;
  struct trainer_score score = trainer_train_score(t);
  s->train_loss = score.loss;
  s->test_accuracy = s->test != NULL ? trainer_evaluate(t, s->test).accuracy : -1;
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
  printf("epoch %d/%d: loss %.4f, train %.2f %%", t->epoch + 1, t->options.epochs, score.loss, 100 * score.accuracy);
  if (s->test != NULL) printf(", test %.2f %%", 100 * s->test_accuracy);
  printf(", %.0f images/s\n", images_per_second);
  fflush(stdout);
  if (s->log == NULL) return;
  json_t *line = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "epoch", t->epoch + 1, "loss", score.loss, "train_accuracy",
                           score.accuracy, "images_per_second", images_per_second, "lr", rate, "seconds", t->seconds);
  if (line != NULL && s->test != NULL) json_object_set_new(line, "test_accuracy", json_real(s->test_accuracy));
  bool written = line != NULL && json_dumpf(line, s->log, JSON_COMPACT | JSON_REAL_PRECISION(8)) == 0;
  if (fprintf(s->log, "\n") < 0 || fflush(s->log) != 0 || !written) {
    fprintf(stderr, "hwgq train: cannot write epoch %d to the log %s (%m): training goes on\n", t->epoch + 1, s->options.log);
    clearerr(s->log);
  }
  json_decref(line);
}

/* HWGQ_OK with `interrupted` set when stopped by a signal. */
static enum hwgq_status train(struct session *s, struct hwgq_error *error) {
  struct trainer *t = s->trainer;
  bool terminal = isatty(STDERR_FILENO);
  while (!trainer_finished(t)) {
    double start = now(), shown = start, rate = 0;
    int first_step = t->step;
    while (!trainer_epoch_complete(t) && !interrupted) {
      rate = trainer_rate(t);
      trainer_step(t);
      if (!terminal || now() - shown < 0.2) continue;
      shown = now();
      show_progress(s, start, first_step);
    }
    if (!isfinite(t->loss_sum))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "the loss is no longer a number in epoch %d: try a lower --lr", t->epoch + 1);
    if (trainer_epoch_complete(t)) {
      report_epoch(s, rate, (t->step - first_step) * t->options.batch / (now() - start));
      trainer_next_epoch(t);
    }
    enum hwgq_status status = save_checkpoint(s, error);
    if (status != HWGQ_OK || interrupted) return status;
  }
  return HWGQ_OK;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

/* A checkpoint is a file like any other: its labels may be anything. */
static enum hwgq_status take_labels(struct session *s, json_t *labels, struct hwgq_error *error) {
  bool texts = json_is_array(labels);
  for (size_t i = 0; texts && i < json_array_size(labels); i++) texts = json_is_string(json_array_get(labels, i));
  if (!texts)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the \"labels\" of checkpoint %.200s are not a list of texts",
                     s->options.resume);
  json_array_extend(s->labels, labels);
  return HWGQ_OK;
}

static enum hwgq_status resume(struct session *s, struct hwgq_error *error) {
  struct checkpoint *checkpoint = NULL;
  enum hwgq_status status = checkpoint_read(s->options.resume, &checkpoint, error);
  if (status == HWGQ_OK && !s->options.export_only) status = checkpoint_check_batch(checkpoint, s->trainer, error);
  if (status == HWGQ_OK) status = checkpoint_restore(checkpoint, s->trainer, error);
  if (status == HWGQ_OK) {
    json_t *recipe = json_loads(checkpoint_recipe(checkpoint), 0, NULL);
    s->test_accuracy = json_is_number(json_object_get(recipe, "test_accuracy"))
                           ? json_number_value(json_object_get(recipe, "test_accuracy"))
                           : -1;
    s->train_loss = json_number_value(json_object_get(recipe, "train_loss"));
    if (s->options.export_only) status = take_labels(s, json_object_get(recipe, "labels"), error);
    json_decref(recipe);
  }
  checkpoint_destroy(checkpoint);
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

/* Takes the precision and writes it into the recipe, so that a resumed run computes alike on another CPU or not at all. */
static enum hwgq_status choose_precision(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  const struct dot_kernels *fast = dot_kernels_fast();
  if (o->export_only) return HWGQ_OK;
  if (o->precision == PRECISION_BF16 && fast == NULL)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "precision bf16: this CPU has no AVX512-BF16; use --precision float32");
  s->blas.dot = o->precision == PRECISION_FLOAT32 ? NULL : fast;
  free(o->given[TRAIN_PRECISION]);
  o->given[TRAIN_PRECISION] = strdup(s->blas.dot != NULL ? "bf16" : "float32");
  return o->given[TRAIN_PRECISION] != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the precision");
}

static enum hwgq_status prepare(struct session *s, struct hwgq_error *error) {
  struct train_options *o = &s->options;
  enum hwgq_status status = blas_load(o->blas_core, &s->blas, error);
  if (status == HWGQ_OK) status = choose_precision(s, error);
  if (status == HWGQ_OK) status = pool_create(o->threads, &s->pool, error);
  if (status != HWGQ_OK) return status;
  if (o->export_only) {
    struct checkpoint *checkpoint = NULL;
    status = checkpoint_read(o->resume, &checkpoint, error);
    if (status == HWGQ_OK) status = checkpoint_network(checkpoint, &s->network, error);
    checkpoint_destroy(checkpoint);
    if (status == HWGQ_OK) status = empty_data(s, error);
    if (status == HWGQ_OK && !o->order_given && s->network->input.channels == 1) o->trainer.preprocess.order = HWGQ_GRAY;
  } else {
    struct hwgq_quantizer q;
    struct hwgq_shape shape;
    status = find_input(o, &shape, error);
    if (status == HWGQ_OK) status = open_data(s, shape, error);
    if (status == HWGQ_OK) status = quantizer(o, &q, error);
    if (status == HWGQ_OK)
      status = networks_build(o->network, shape, s->train->class_count, o->width, o->sign ? NULL : &q, &s->network, error);
  }
  if (status == HWGQ_OK) status = trainer_create(&o->trainer, s->network, s->train, s->pool, &s->blas, &s->trainer, error);
  return status == HWGQ_OK && o->resume != NULL ? resume(s, error) : status;
}

/* A file that hwgq_storage_replace will write: whether one can be made beside it is tried now, not after hours. */
static enum hwgq_status check_writable(const char *path, struct hwgq_error *error) {
  struct stat about;
  bool there = stat(path, &about) == 0;
  if (there && !S_ISREG(about.st_mode))
    return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write %s: it is there and no regular file", path);
  char *target = there ? realpath(path, NULL) : strdup(path), *probe = NULL;
  if (target == NULL || asprintf(&probe, "%s.XXXXXX", target) < 0) {
    free(target);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  }
  int file = mkstemp(probe);
  enum hwgq_status status = file >= 0 ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_IO, "cannot write %s: %m", path);
  if (file >= 0) {
    close(file);
    unlink(probe);
  }
  free(probe);
  free(target);
  return status;
}

/* Everything that is going to be written, before the images are read. An earlier log is not touched yet. */
static enum hwgq_status check_outputs(struct session *s, struct hwgq_error *error) {
  const struct train_options *o = &s->options;
  enum hwgq_status status = o->output != NULL ? check_writable(o->output, error) : HWGQ_OK;
  if (status != HWGQ_OK || o->export_only) return status;
  status = check_writable(s->checkpoint_path, error);
  if (status != HWGQ_OK || o->log == NULL) return status;
  s->log = fopen(o->log, "a");
  return s->log != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_IO, "cannot write the log %s: %m", o->log);
}

static enum hwgq_status run(struct session *s, struct hwgq_error *error) {
  enum hwgq_status status = check_outputs(s, error);
  if (status == HWGQ_OK) status = prepare(s, error);
  if (status != HWGQ_OK) return status;
  if (!s->options.export_only) {
    /* EINVAL: a pipe or terminal, which has nothing old in it */
    if (s->log != NULL && s->options.resume == NULL && ftruncate(fileno(s->log), 0) != 0 && errno != EINVAL)
      return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write the log %s: %m", s->options.log);
    printf("%s: %d images to train on, %d to test, %d classes; OpenBLAS %s, %s, %d threads\n", s->network->name,
           s->train->count, s->test != NULL ? s->test->count : 0, s->train->class_count, s->blas.core,
           s->options.given[TRAIN_PRECISION], s->options.threads);
    fflush(stdout);
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    status = train(s, error);
    if (status == HWGQ_OK && interrupted) {
      fprintf(stderr, "\nstopped; to go on: hwgq train --resume %s%s%s\n", s->checkpoint_path,
              s->options.output != NULL ? " -o " : "", s->options.output != NULL ? s->options.output : "");
      return HWGQ_OK;
    }
  }
  if (status == HWGQ_OK && s->options.output == NULL)
    fprintf(stderr, "no model was written: hwgq train --resume %s --export-only -o OUT.hwgq does\n", s->checkpoint_path);
  return status == HWGQ_OK && s->options.output != NULL ? write_model(s, error) : status;
}

static void release(struct session *s) {
  trainer_destroy(s->trainer);
  pool_destroy(s->pool);
  hwgq_network_destroy(s->network);
  if (s->options.export_only)
    free(s->train);
  else
    dataset_destroy(s->train);
  dataset_destroy(s->test);
  blas_unload(&s->blas);
  if (s->log != NULL) fclose(s->log);
  json_decref(s->labels);
  free(s->checkpoint_path);
  train_options_release(&s->options);
}

/* Beside the output, unless told otherwise; a resumed run goes on in the file it came from. */
static char *checkpoint_path(const struct train_options *o) {
  if (o->checkpoint != NULL) return strdup(o->checkpoint);
  if (o->resume != NULL) return strdup(o->resume);
  char *path = NULL;
  return asprintf(&path, "%s.checkpoint", o->output) < 0 ? NULL : path;
}

int command_train(int argc, char **argv) {
  struct session session = {.test_accuracy = -1};
  struct hwgq_error error;
  enum hwgq_status status = train_options_parse(argc, argv, &session.options, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "hwgq train: %s\n", error.message);
    return 2;
  }
  if (session.options.help) {
    fputs(train_options_usage(), stdout);
    train_options_release(&session.options);
    return 0;
  }
  session.labels = json_array();
  session.checkpoint_path = checkpoint_path(&session.options);
  if (session.labels == NULL || session.checkpoint_path == NULL)
    status = hwgq_fail(&error, HWGQ_ERROR_MEMORY, "out of memory");
  else
    status = run(&session, &error);
  release(&session);
  if (status != HWGQ_OK) fprintf(stderr, "hwgq train: %s\n", error.message);
  return status != HWGQ_OK ? 1 : interrupted ? EXIT_INTERRUPTED : 0;
}
