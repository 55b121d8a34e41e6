/* hwgq eval: what images of each class were taken for. */
#ifndef TOOL_EVAL_CLASSES_H
#define TOOL_EVAL_CLASSES_H

#include <stdbool.h>

#include "models/classify/text.h"

struct class_counts {
  int classes;
  char *const *labels;
  int *counts; /* [true class][predicted class] */
};

/* A line for every class that has images: how many, the share that was right, and the classes it was most often taken for. */
void class_counts_print(const struct class_counts *c);
/* The matrix, a row for every class that has images. */
void class_counts_print_matrix(const struct class_counts *c);
/* As members of a JSON object, each with a comma before it. With `classes`: "classes", how many images of each there are and
 * were right; with `matrix`: "confusion". */
void class_counts_json(const struct class_counts *c, bool classes, bool matrix, struct text *text);

#endif
