/* One run of `hwgq train`: what is read before, written after every epoch, and kept in between. */
#ifndef TOOL_TRAIN_SESSION_H
#define TOOL_TRAIN_SESSION_H

#include <stdio.h>

#include "models/tool/train_options.h"

struct session {
  struct train_options options;
  char *checkpoint_path;
  struct blas blas;
  struct pool *pool;
  struct hwgq_network *network;
  struct dataset *train, *test;
  struct trainer *trainer;
  struct hwgq_model *teacher_model;
  struct teacher *teacher;
  json_t *labels;       /* array of texts */
  double test_accuracy; /* session_test after the last epoch; negative: unknown */
  bool changed;         /* options of a resumed run are not the checkpoint's, and may make another model */
  double train_loss;
  json_t *history; /* the log's objects, of all epochs */
  FILE *log;
  int lock; /* of the checkpoint: open file, or -1 */
};

/* Refuses outputs that would replace one another or what is read, tries everything that is going to be written, opens the log,
 * of which nothing is lost yet, and locks the checkpoint against another run. To be called before the images are read.
 * (train_outputs.c) */
enum hwgq_status session_open_outputs(struct session *session, struct hwgq_error *error);
/* Gives another run's checkpoint that is where this one's is going to be another name, and says so: forgetting --resume must
 * not cost hours. After session_prepare. (train_outputs.c) */
enum hwgq_status session_keep_checkpoint(const struct session *session, struct hwgq_error *error);
void session_close_outputs(struct session *session);
/* A word of a command, so that it can be pasted into a shell. (train_outputs.c) */
void session_print_word(FILE *stream, const char *word);

/* Data, network, trainer, teacher and what to begin with or to go on from, as the options say (train_prepare.c). */
enum hwgq_status session_prepare(struct session *session, struct hwgq_error *error);

/* Share of the test images that the engine gets right with the model that would be written now; negative without test images,
 * and, with a message on stderr, where that model cannot be run. (train_model.c) */
double session_test(const struct session *session);
/* The last name of a path, without slashes behind it; not zero-terminated. (train_model.c) */
const char *session_file_name(const char *path, int *length);
/* Writes the model to the output file and says so on stdout. (train_model.c) */
enum hwgq_status session_write_model(const struct session *session, struct hwgq_error *error);

/* Files of a report. */
#define REPORT_PAGE "report.html"
#define REPORT_CURVES "curves.svg"
/* Makes the report's folder, unless it is there, and gives the path of a file in it, to be freed. (train_history.c) */
enum hwgq_status session_report_path(const struct session *session, const char *name, char **path, struct hwgq_error *error);
/* Adds an epoch to the history, which takes the object over (NULL: nothing happens), and writes the report if one is wanted.
 * (train_history.c) */
enum hwgq_status session_record(struct session *session, json_t *epoch, struct hwgq_error *error);
/* Writes the report. (train_history.c) */
enum hwgq_status session_report(struct session *session, struct hwgq_error *error);

#endif
