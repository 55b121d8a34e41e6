/* Class names of an imported network. */
#ifndef LABELS_H
#define LABELS_H

#include "engine/hwgq.h"

/* Fills the labels of `classes` classes: those that are given, else ImageNet's names for its 1000 classes, which *note then
 * says, else "0", "1", ... *note: what is to be told, NULL: nothing. hwgq_model_destroy releases the labels, also after a
 * failure. */
enum hwgq_status labels_fill(struct hwgq_model *model, int classes, const char *const *labels, int label_count,
                             const char **note, struct hwgq_error *error);

#endif
