#include "models/train/export.h"

#include <stdlib.h>
#include <string.h>

/* The copy's first convolution is rounded to what runs in integers, or stays as it is where that cannot be. */
static enum hwgq_status copy_network(const struct net *net, const struct hwgq_preprocess *preprocess,
                                     struct hwgq_network **network, struct hwgq_error *error) {
  char *text = NULL;
  struct hwgq_network *copy = NULL;
  enum hwgq_status status = hwgq_network_to_json(net->network, &text, error);
  if (status == HWGQ_OK) status = hwgq_network_from_json(text, strlen(text), &copy, error);
  free(text);
  if (status == HWGQ_OK) status = hwgq_network_infer(copy, error);
  if (status == HWGQ_OK) status = hwgq_network_allocate_parameters(copy, error);
  if (status != HWGQ_OK) {
    hwgq_network_destroy(copy);
    return status;
  }
  net_export(net, copy);
  status = hwgq_network_round_pixels(copy, preprocess, 16, error);
  if (status != HWGQ_OK && status != HWGQ_ERROR_UNSUPPORTED) {
    hwgq_network_destroy(copy);
    return status;
  }
  *network = copy;
  return HWGQ_OK;
}

enum hwgq_status export_model(const struct net *net, const struct hwgq_preprocess *preprocess, const char *const *labels,
                              int label_count, const char *provenance, struct hwgq_model **result, struct hwgq_error *error) {
  int classes = net_class_count(net);
  if (label_count != classes)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%d labels for the %d classes of network %s: give one label a class",
                     label_count, classes, net->network->name);
  struct hwgq_model *model = calloc(1, sizeof *model);
  if (model == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the model");
  model->preprocess = *preprocess;
  model->class_count = classes;
  model->labels = calloc((size_t)classes, sizeof *model->labels);
  model->provenance = strdup(provenance);
  bool enough = model->labels != NULL && model->provenance != NULL;
  for (int i = 0; enough && i < classes; i++) {
    model->labels[i] = strdup(labels[i]);
    enough = model->labels[i] != NULL;
  }
  enum hwgq_status status = enough ? copy_network(net, preprocess, &model->network, error)
                                   : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the labels of the model");
  if (status != HWGQ_OK) {
    hwgq_model_destroy(model);
    return status;
  }
  *result = model;
  return HWGQ_OK;
}
