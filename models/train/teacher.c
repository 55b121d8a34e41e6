#include "models/train/teacher.h"

#include <stdlib.h>
#include <string.h>

struct teacher {
  struct net *net;
  float factor[3], offset[3]; /* from the student's input values to the teacher's */
};

static enum hwgq_status check(const struct hwgq_model *model, const struct hwgq_network *student,
                              const struct hwgq_preprocess *preprocess, struct hwgq_error *error) {
  struct hwgq_shape a = model->network->input, b = student->input;
  int classes = student->layers[student->layer_count - 1].output.channels;
  if (a.channels != b.channels || a.height != b.height || a.width != b.width)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "the teacher takes images of %d x %d with %d channels, not %d x %d with %d",
                     a.width, a.height, a.channels, b.width, b.height, b.channels);
  if (model->class_count != classes)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "the teacher knows %d classes, the images have %d", model->class_count,
                     classes);
  if (model->preprocess.order != preprocess->order || model->preprocess.invert != preprocess->invert)
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "the teacher takes channels in another order, or inverted pixels: give the "
                     "same --order and --invert as it was trained with");
  return HWGQ_OK;
}

enum hwgq_status teacher_create(const struct hwgq_model *model, const struct hwgq_network *student,
                                const struct hwgq_preprocess *preprocess, int batch, struct pool *pool, const struct blas *blas,
                                struct teacher **result, struct hwgq_error *error) {
  enum hwgq_status status = check(model, student, preprocess, error);
  if (status != HWGQ_OK) return status;
  struct teacher *teacher = calloc(1, sizeof *teacher);
  if (teacher == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the teacher");
  for (int c = 0; c < 3; c++) {
    const struct hwgq_preprocess *own = &model->preprocess;
    teacher->factor[c] = own->scale[c] / preprocess->scale[c];
    teacher->offset[c] = (preprocess->mean[c] - own->mean[c]) * own->scale[c];
  }
  int taken;
  status = net_create(model->network, batch, pool, blas, &teacher->net, error);
  if (status == HWGQ_OK) status = net_import(teacher->net, model->network, &taken, error);
  if (status != HWGQ_OK) {
    teacher_destroy(teacher);
    return status;
  }
  *result = teacher;
  return HWGQ_OK;
}

void teacher_destroy(struct teacher *teacher) {
  if (teacher == NULL) return;
  net_destroy(teacher->net);
  free(teacher);
}

const float *teacher_scores(struct teacher *teacher, const float *input, int count) {
  struct hwgq_shape in = teacher->net->network->input;
  size_t pixels = (size_t)in.height * (size_t)in.width * (size_t)count;
  teacher->net->kernels->affine(input, pixels, in.channels, teacher->factor, teacher->offset, teacher->net->input);
  net_forward(teacher->net, count, false);
  return net_class_scores(teacher->net);
}
