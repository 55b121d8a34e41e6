/* From a trainer to a model that can be used. */
#ifndef TRAIN_EXPORT_H
#define TRAIN_EXPORT_H

#include "models/train/net.h"

/* A model of its own: the network with what was trained, preprocessing, labels (class_count of them, copied) and provenance (a
 * JSON object, copied). */
enum hwgq_status export_model(const struct net *net, const struct hwgq_preprocess *preprocess, const char *const *labels,
                              int label_count, const char *provenance, struct hwgq_model **model, struct hwgq_error *error);

#endif
