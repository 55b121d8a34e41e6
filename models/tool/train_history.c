/* hwgq train: what the epochs gave, and the report of it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/storage.h"
#include "models/tool/train_report.h"
#include "models/tool/train_session.h"

enum { REPORT_IMAGES = 1000 }; /* whose activations are counted */

static void set_text(json_t *facts, const char *key, const char *text) {
  json_object_set_new(facts, key, json_string(text));
}

/* As people read them: the options that were given, and how far it is. */
static json_t *facts_of(const struct session *s) {
  json_t *facts = json_object(), *recipe = train_options_recipe(&s->options), *value;
  const struct trainer *t = s->trainer;
  const char *key;
  char text[160], options[1024] = "";
  json_object_foreach(recipe, key, value) {
    size_t length = strlen(options);
    if (strcmp(key, "network") != 0 && strcmp(key, "data") != 0)
      snprintf(options + length, sizeof options - length, "%s--%s %s", length > 0 ? " " : "", key, json_string_value(value));
  }
  json_decref(recipe);
  int name_length;
  const char *name = session_file_name(s->options.data, &name_length);
  json_object_set_new(facts, "data", json_stringn(name, (size_t)name_length));
  snprintf(text, sizeof text, "%d to train on, %d to test, %d classes", s->train->count, s->test != NULL ? s->test->count : 0,
           s->train->class_count);
  set_text(facts, "images", text);
  set_text(facts, "options", options);
  bool minutes = t->seconds >= 120;
  snprintf(text, sizeof text, "%zu of %d epochs, %.*f %s of training", json_array_size(s->history), t->options.epochs,
           minutes ? 0 : 1, minutes ? t->seconds / 60 : t->seconds, minutes ? "minutes" : "seconds");
  set_text(facts, "trained", text);
  if (s->test_accuracy >= 0) {
    snprintf(text, sizeof text, "%.2f %% of the test images", 100 * s->test_accuracy);
    set_text(facts, "accuracy", text);
  }
  return facts;
}

/* With its parents, as mkdir -p does; also where it is already. 0, or -1 with errno. */
static int make_folder(const char *path) {
  if (mkdir(path, 0777) == 0 || errno == EEXIST) return 0;
  const char *slash = strrchr(path, '/');
  if (errno != ENOENT || slash == NULL || slash == path) return -1;
  char *parent = strndup(path, (size_t)(slash - path));
  int made = parent != NULL ? make_folder(parent) : -1;
  free(parent); /* keeps errno */
  return made == 0 && (mkdir(path, 0777) == 0 || errno == EEXIST) ? 0 : -1;
}

enum hwgq_status session_report_path(const struct session *s, const char *name, char **path, struct hwgq_error *error) {
  if (make_folder(s->options.report) != 0)
    return hwgq_fail(error, HWGQ_ERROR_IO, "cannot make the folder %s: %m", s->options.report);
  if (asprintf(path, "%s/%s", s->options.report, name) >= 0) return HWGQ_OK;
  *path = NULL;
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the report");
}

/* Writes what `print` makes of the report. */
static enum hwgq_status write_file(const struct session *s, const char *name, const struct report *report,
                                   void (*print)(const struct report *report, struct text *text), struct hwgq_error *error) {
  char *path = NULL;
  struct text text = {0};
  print(report, &text);
  enum hwgq_status status = text.failed ? hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the report")
                                        : session_report_path(s, name, &path, error);
  struct hwgq_chunk chunk = {text.data, text.length};
  if (status == HWGQ_OK) status = hwgq_storage_replace(path, &chunk, 1, error);
  text_release(&text);
  free(path);
  return status;
}

enum hwgq_status session_report(struct session *s, struct hwgq_error *error) {
  struct trainer *t = s->trainer;
  struct report page = {.title = s->network->name, .history = s->history};
  struct distribution *list = distribution_create(t->net, &page.distribution_count);
  if (list == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the report");
  bool averaged = trainer_has_average(t);
  if (averaged) trainer_swap_average(t);
  trainer_distributions(t, s->test != NULL ? s->test : s->train, REPORT_IMAGES, list);
  if (averaged) trainer_swap_average(t);
  json_t *facts = facts_of(s);
  page.facts = facts;
  page.distributions = list;
  enum hwgq_status status = write_file(s, REPORT_PAGE, &page, report_write, error);
  if (status == HWGQ_OK) status = write_file(s, REPORT_CURVES, &page, report_write_curves, error);
  json_decref(facts);
  free(list);
  return status;
}

enum hwgq_status session_record(struct session *s, json_t *epoch, struct hwgq_error *error) {
  if (epoch == NULL || json_array_append_new(s->history, epoch) != 0)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the history");
  return s->options.report != NULL ? session_report(s, error) : HWGQ_OK;
}
