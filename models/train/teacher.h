/* A finished model that a network learns from: its class scores for the same images. */
#ifndef TRAIN_TEACHER_H
#define TRAIN_TEACHER_H

#include "models/train/net.h"

struct teacher;

/* For a student of this input and class count, whose images go through `preprocess`. Batches have up to `batch` images. The
 * model, pool and blas must outlive the result. */
enum hwgq_status teacher_create(const struct hwgq_model *model, const struct hwgq_network *student,
                                const struct hwgq_preprocess *preprocess, int batch, struct pool *pool, const struct blas *blas,
                                struct teacher **teacher, struct hwgq_error *error);
void teacher_destroy(struct teacher *teacher);
/* Class scores, [image][class], of a batch as the student's input has it. Valid until the next call. */
const float *teacher_scores(struct teacher *teacher, const float *input, int count);

#endif
