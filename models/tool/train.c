/* hwgq train: images in, a .hwgq model out. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/storage.h"
#include "models/tool/tool.h"
#include "models/tool/train_session.h"
#include "models/train/checkpoint.h"

enum { EXIT_INTERRUPTED = 130 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
  (void)number;
  interrupted = 1;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------------- */

/* Files with their whole paths, so that a run can go on from another folder. */
static json_t *recipe_options(const struct session *s) {
  static const char *const names[] = {"data", "initial", "teacher", "labels"};
  json_t *options = train_options_recipe(&s->options);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *path = json_string_value(json_object_get(options, names[i]));
    char *folder = path != NULL && path[0] != '/' ? getcwd(NULL, 0) : NULL;
    if (folder != NULL) json_object_set_new(options, names[i], json_sprintf("%s/%s", folder, path));
    free(folder);
  }
  return options;
}

/* What the data calls its classes, whatever --labels makes of them; NULL where that is not UTF-8. */
static json_t *class_names(const struct dataset *d) {
  json_t *names = json_array();
  for (int i = 0; names != NULL && i < d->class_count; i++) {
    if (json_array_append_new(names, json_string(d->class_names[i])) == 0) continue;
    json_decref(names);
    names = NULL;
  }
  return names;
}

static char *recipe_text(const struct session *s) {
  json_t *recipe = json_pack("{s:o, s:O, s:O, s:f, s:f}", "options", recipe_options(s), "labels", s->labels, "history",
                             s->history, "test_accuracy", s->test_accuracy, "train_loss", s->train_loss);
  json_t *classes = recipe != NULL ? class_names(s->train) : NULL;
  if (classes != NULL) json_object_set_new(recipe, "classes", classes);
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

static void write_log(struct session *s, const json_t *line) {
  if (s->log == NULL) return;
  bool written = line != NULL && json_dumpf(line, s->log, JSON_COMPACT | JSON_REAL_PRECISION(8)) == 0;
  if (fprintf(s->log, "\n") < 0 || fflush(s->log) != 0 || !written) {
    fprintf(stderr, "hwgq train: cannot write epoch %d to the log %s (%m): training goes on\n", s->trainer->epoch + 1,
            s->options.log);
    clearerr(s->log);
  }
}

/* Accuracy of the weights in training, negative without test images; that of the model that they, or their average, make is
 * kept. */
static double test(struct session *s) {
  trainer_measure_average(s->trainer);
  s->test_accuracy = session_test(s);
  return s->test != NULL && trainer_has_average(s->trainer) ? trainer_evaluate(s->trainer, s->test).accuracy : s->test_accuracy;
}

static void report_epoch(struct session *s, double rate, double images_per_second) {
  struct trainer *t = s->trainer;
  struct trainer_score score = trainer_train_score(t);
  s->train_loss = score.loss;
  double accuracy = test(s);
  bool averaged = trainer_has_average(t);
  if (isatty(STDERR_FILENO)) fprintf(stderr, "\r\033[K");
  printf("epoch %d/%d: loss %.4f, train %.2f %%", t->epoch + 1, t->options.epochs, score.loss, 100 * score.accuracy);
  if (s->test_accuracy >= 0) printf(", test %.2f %%", 100 * s->test_accuracy);
  if (s->test_accuracy >= 0 && averaged) printf(", weights in training %.2f %%", 100 * accuracy);
  printf(", %.0f images/s\n", images_per_second);
  fflush(stdout);
  json_t *line = json_pack("{s:i, s:f, s:f, s:f, s:f, s:f}", "epoch", t->epoch + 1, "loss", score.loss, "train_accuracy",
                           score.accuracy, "images_per_second", images_per_second, "lr", rate, "seconds", t->seconds);
  if (line != NULL && s->test_accuracy >= 0) json_object_set_new(line, "test_accuracy", json_real(s->test_accuracy));
  if (line != NULL && s->test_accuracy >= 0 && averaged)
    json_object_set_new(line, "unaveraged_test_accuracy", json_real(accuracy));
  write_log(s, line);
  struct hwgq_error error;
  if (session_record(s, line, &error) != HWGQ_OK) fprintf(stderr, "hwgq train: %s: training goes on\n", error.message);
}

/* What is in the average by now needs statistics of its own. The checkpoint is safe before they are measured, which takes a
 * while: a second signal ends the program at once. */
static enum hwgq_status save_within_epoch(struct session *s, struct hwgq_error *error) {
  struct trainer *t = s->trainer;
  if (t->average == NULL || t->step == 0) return save_checkpoint(s, error);
  t->average->measured = false;
  enum hwgq_status status = save_checkpoint(s, error);
  trainer_measure_average(t);
  return status == HWGQ_OK && trainer_has_average(t) ? save_checkpoint(s, error) : status;
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
    bool complete = trainer_epoch_complete(t);
    if (complete) {
      report_epoch(s, rate, (t->step - first_step) * t->options.batch / (now() - start));
      trainer_next_epoch(t);
    }
    enum hwgq_status status = complete ? save_checkpoint(s, error) : save_within_epoch(s, error);
    if (status != HWGQ_OK || interrupted) return status;
  }
  return HWGQ_OK;
}

/* A run that was complete is not trained, but may want a report. With other options it makes another model, which is measured
 * and tested as at the end of the last epoch. */
static enum hwgq_status finish(struct session *s, struct hwgq_error *error) {
  struct trainer *t = s->trainer;
  printf("the run is complete, of %d epochs: more than that as --epochs would train on\n", t->epoch);
  if (s->changed) {
    const int back = t->step == 0; /* not where --epochs is now below the epoch that the run stands in */
    t->epoch -= back;
    test(s);
    t->epoch += back;
    if (s->test_accuracy >= 0) printf("tested once more, with the options that changed: %.2f %%\n", 100 * s->test_accuracy);
  }
  return s->options.report != NULL ? session_report(s, error) : HWGQ_OK;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

static enum hwgq_status run(struct session *s, struct hwgq_error *error) {
  enum hwgq_status status = session_open_outputs(s, error);
  if (status == HWGQ_OK) status = session_prepare(s, error);
  if (status == HWGQ_OK && !s->options.export_only) status = session_keep_checkpoint(s, error);
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
    status = trainer_finished(s->trainer) ? finish(s, error) : train(s, error);
    if (status == HWGQ_OK && interrupted) {
      fprintf(stderr, "\nstopped; to go on: hwgq train --resume ");
      session_print_word(stderr, s->checkpoint_path);
      if (s->options.output != NULL) {
        fprintf(stderr, " -o ");
        session_print_word(stderr, s->options.output);
      }
      fprintf(stderr, "\n(with --export-only%s: writes the model as it is)\n", s->options.output != NULL ? "" : " -o OUT.hwgq");
      return HWGQ_OK;
    }
  }
  if (status == HWGQ_OK && s->options.output == NULL) {
    fprintf(stderr, "no model was written: hwgq train --resume ");
    session_print_word(stderr, s->checkpoint_path);
    fprintf(stderr, " --export-only -o OUT.hwgq does\n");
  }
  return status == HWGQ_OK && s->options.output != NULL ? session_write_model(s, error) : status;
}

static void release(struct session *s) {
  trainer_destroy(s->trainer);
  teacher_destroy(s->teacher);
  hwgq_model_destroy(s->teacher_model);
  pool_destroy(s->pool);
  hwgq_network_destroy(s->network);
  if (s->options.export_only)
    free(s->train);
  else
    dataset_destroy(s->train);
  dataset_destroy(s->test);
  blas_unload(&s->blas);
  session_close_outputs(s);
  json_decref(s->labels);
  json_decref(s->history);
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
  struct session session = {.test_accuracy = -1, .lock = -1};
  struct hwgq_error error;
  enum hwgq_status status = train_options_parse(argc, argv, &session.options, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "hwgq train: %s\n", error.message);
    return 2;
  }
  if (session.options.help) {
    for (const char *const *part = train_options_usage(); *part != NULL; part++) fputs(*part, stdout);
    train_options_release(&session.options);
    return 0;
  }
  session.labels = json_array();
  session.history = json_array();
  session.checkpoint_path = checkpoint_path(&session.options);
  if (session.labels == NULL || session.history == NULL || session.checkpoint_path == NULL)
    status = hwgq_fail(&error, HWGQ_ERROR_MEMORY, "out of memory");
  else
    status = run(&session, &error);
  release(&session);
  if (status != HWGQ_OK) fprintf(stderr, "hwgq train: %s\n", error.message);
  return status != HWGQ_OK ? 1 : interrupted ? EXIT_INTERRUPTED : 0;
}
