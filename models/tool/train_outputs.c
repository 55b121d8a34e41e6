/* hwgq train: the files that a run is going to write, tried and locked before it begins. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "models/tool/train_session.h"

/* ---- one run at a time -------------------------------------------------------------------------------------------------- */

/* The file beside a checkpoint that the run which writes it has locked: the checkpoint itself is another file after every
 * epoch. Freed by the caller; NULL without memory. */
static char *lock_path(const struct session *s) {
  char *path = NULL;
  return asprintf(&path, "%s.lock", s->checkpoint_path) < 0 ? NULL : path;
}

/* Whether the file is still the one at the path: the run that had it may have removed it since. */
static bool is_there(int file, const char *path) {
  struct stat opened, named;
  return fstat(file, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/* Two runs would take turns in replacing one checkpoint. Where files cannot be locked, as on some network mounts, nothing is
 * done. */
static enum hwgq_status lock_checkpoint(struct session *s, struct hwgq_error *error) {
  char *path = lock_path(s);
  if (path == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a path");
  enum hwgq_status status = HWGQ_OK;
  while (s->lock < 0 && status == HWGQ_OK) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
      status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot write %s: %m", path);
    else if (flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      status = hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "another hwgq train is writing %s: wait for it, or choose another --output or --checkpoint",
                         s->checkpoint_path);
    else if (is_there(file, path))
      s->lock = file;
    if (file >= 0 && s->lock < 0) close(file);
  }
  free(path);
  return status;
}

static void unlock_checkpoint(struct session *s) {
  char *path = s->lock >= 0 ? lock_path(s) : NULL;
  if (path != NULL) unlink(path);
  free(path);
  if (s->lock >= 0) close(s->lock);
  s->lock = -1;
}

/* ---- files that a run would lose ------------------------------------------------------------------------------------------
 */

struct named {
  const char *what, *option, *path;
};

/* The folder of a file that is yet to be made, without links, and its name; NULL where there is no such folder. */
static char *future_path(const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash != NULL ? slash + 1 : path;
  char *before = slash != NULL ? strndup(path, (size_t)(name - path)) : strdup("."), *result = NULL;
  char *folder = before != NULL ? realpath(before, NULL) : NULL;
  if (folder != NULL && asprintf(&result, "%s/%s", folder, name) < 0) result = NULL;
  free(folder);
  free(before);
  return result;
}

static bool same_file(const char *a, const char *b) {
  struct stat about_a, about_b;
  bool a_there = stat(a, &about_a) == 0, b_there = stat(b, &about_b) == 0;
  if (a_there || b_there) return a_there && b_there && about_a.st_dev == about_b.st_dev && about_a.st_ino == about_b.st_ino;
  char *future_a = future_path(a), *future_b = future_path(b);
  bool same = future_a != NULL && future_b != NULL && strcmp(future_a, future_b) == 0;
  free(future_a);
  free(future_b);
  return same;
}

/* No output may be another one or something that is read. A checkpoint that is resumed is also written. */
static enum hwgq_status check_apart(const struct session *s, const char *lock, struct hwgq_error *error) {
  const struct train_options *o = &s->options;
  const struct named outputs[] = {{"model", "--output", o->output},
                                  {"checkpoint", "--checkpoint", s->checkpoint_path},
                                  {"log", "--log", o->log},
                                  {"lock beside the checkpoint", "--checkpoint", lock}};
  const struct named inputs[] = {{"checkpoint to resume", "--resume", o->resume},
                                 {"weights to begin with", "--initial", o->initial},
                                 {"teacher", "--teacher", o->teacher},
                                 {"labels", "--labels", o->labels_file},
                                 {"data", "DATA", o->data}};
  const size_t output_count = o->export_only ? 1 : sizeof outputs / sizeof outputs[0];
  for (size_t i = 0; i < output_count; i++) {
    const struct named *a = &outputs[i];
    if (a->path == NULL) continue;
    for (size_t j = i + 1; j < output_count; j++) {
      const struct named *b = &outputs[j];
      if (b->path != NULL && same_file(a->path, b->path))
        return hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "the %s %.150s and the %s %.150s would be the same file: choose another %s or %s", a->what, a->path,
                         b->what, b->path, a->option, b->option);
    }
    if (a->path == s->checkpoint_path && o->resume != NULL && same_file(a->path, o->resume)) continue;
    for (size_t j = 0; j < sizeof inputs / sizeof inputs[0]; j++) {
      const struct named *b = &inputs[j];
      if (b->path != NULL && access(b->path, F_OK) == 0 && same_file(a->path, b->path))
        return hwgq_fail(error, HWGQ_ERROR_INVALID,
                         "the %s %.150s would replace the %s (%s %.150s), which is the same file: choose another %s", a->what,
                         a->path, b->what, b->option, b->path, a->option);
    }
  }
  return HWGQ_OK;
}

/* ---- before the images are read ------------------------------------------------------------------------------------------ */

static enum hwgq_status check_link(const char *path, struct hwgq_error *error) {
  struct stat about;
  if (stat(path, &about) == 0 || lstat(path, &about) != 0) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write %s: it is a symbolic link to nothing; name the file itself", path);
}

/* A file that hwgq_storage_replace will write: whether one can be made beside it is tried now, not after hours. */
static enum hwgq_status check_writable(const char *path, struct hwgq_error *error) {
  struct stat about;
  bool there = stat(path, &about) == 0;
  if (!there && check_link(path, error) != HWGQ_OK) return HWGQ_ERROR_IO;
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

/* Leaves no folder behind: what is read next may end the run before it has something to report. */
static enum hwgq_status check_report(const struct session *s, struct hwgq_error *error) {
  static const char *const names[] = {REPORT_PAGE, REPORT_CURVES};
  bool there = access(s->options.report, F_OK) == 0;
  enum hwgq_status status = HWGQ_OK;
  for (size_t i = 0; status == HWGQ_OK && i < sizeof names / sizeof names[0]; i++) {
    char *path = NULL;
    status = session_report_path(s, names[i], &path, error);
    if (status == HWGQ_OK) status = check_writable(path, error);
    free(path);
  }
  if (!there) rmdir(s->options.report);
  return status;
}

enum hwgq_status session_open_outputs(struct session *s, struct hwgq_error *error) {
  const struct train_options *o = &s->options;
  char *lock = lock_path(s);
  if (lock == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a path");
  enum hwgq_status status = check_apart(s, lock, error);
  free(lock);
  if (status == HWGQ_OK && o->output != NULL) status = check_writable(o->output, error);
  if (status != HWGQ_OK || o->export_only) return status;
  status = check_writable(s->checkpoint_path, error);
  if (status == HWGQ_OK) status = lock_checkpoint(s, error);
  if (status == HWGQ_OK && o->report != NULL) status = check_report(s, error);
  if (status == HWGQ_OK && o->log != NULL) status = check_link(o->log, error);
  if (status != HWGQ_OK || o->log == NULL) return status;
  s->log = fopen(o->log, "a");
  return s->log != NULL ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_IO, "cannot write the log %s: %m", o->log);
}

/* The first of PATH.old, PATH.old.2, PATH.old.3 ... that is not there, freed by the caller; NULL without memory. */
static char *free_name(const char *path) {
  char *name = NULL;
  if (asprintf(&name, "%s.old", path) < 0) return NULL;
  struct stat about;
  for (int i = 2; lstat(name, &about) == 0; i++) {
    free(name);
    if (asprintf(&name, "%s.old.%d", path, i) < 0) return NULL;
  }
  return name;
}

/* The checkpoint of an earlier run, perhaps of hours, is not what somebody who forgets --resume means to lose. */
enum hwgq_status session_keep_checkpoint(const struct session *s, struct hwgq_error *error) {
  if (access(s->checkpoint_path, F_OK) != 0 || trainer_finished(s->trainer)) return HWGQ_OK; /* a complete run writes none */
  if (s->options.resume != NULL && same_file(s->options.resume, s->checkpoint_path)) return HWGQ_OK;
  char *kept = free_name(s->checkpoint_path);
  if (kept == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for a path");
  enum hwgq_status status = HWGQ_OK;
  if (rename(s->checkpoint_path, kept) == 0) {
    printf("an earlier run's checkpoint has another name now: hwgq train --resume ");
    session_print_word(stdout, kept);
    printf(" would go on with it\n");
  } else {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "%s is an earlier run's and cannot be renamed: %m; move it away, or --resume it",
                       s->checkpoint_path);
  }
  free(kept);
  return status;
}

void session_close_outputs(struct session *s) {
  if (s->log != NULL) fclose(s->log);
  s->log = NULL;
  unlock_checkpoint(s);
}

/* ---- commands for people ------------------------------------------------------------------------------------------------- */

void session_print_word(FILE *stream, const char *word) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+:,@%=";
  if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
    fputs(word, stream);
    return;
  }
  fputc('\'', stream);
  for (; *word != '\0'; word++) {
    if (*word == '\'')
      fputs("'\\''", stream);
    else
      fputc(*word, stream);
  }
  fputc('\'', stream);
}
