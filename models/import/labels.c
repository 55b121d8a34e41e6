#include "models/import/labels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/networks/networks.h"

enum hwgq_status labels_fill(struct hwgq_model *model, int classes, const char *const *labels, int label_count,
                             const char **note, struct hwgq_error *error) {
  *note = NULL;
  if (labels && label_count != classes)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "there are %d labels, but the network has %d classes", label_count, classes);
  if (!labels && classes == NETWORKS_IMAGENET_CLASSES) {
    labels = networks_imagenet_labels;
    *note = "1000 classes and no labels: ImageNet's class names, in their usual order, are assumed; --labels changes them";
  }
  model->labels = calloc((size_t)classes, sizeof *model->labels);
  if (!model->labels) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "labels: out of memory");
  model->class_count = classes;
  for (int i = 0; i < classes; i++) {
    char number[16];
    snprintf(number, sizeof number, "%d", i);
    model->labels[i] = strdup(labels ? labels[i] : number);
    if (!model->labels[i]) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "labels: out of memory");
  }
  return HWGQ_OK;
}
