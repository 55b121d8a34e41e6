/* The answer to an inference request of the Open Inference Protocol v2. */
#ifndef V2_REPLY_H
#define V2_REPLY_H

#include "models/classify/text.h"
#include "server/v2_request.h"

/* What was computed: `batch` rows of model->class_count probabilities. */
struct v2_result {
  const char *model_name;
  int model_version;
  const struct hwgq_model *model;
  const float *scores;
  int batch;
};

/* Appends the JSON object and behind it the outputs that are to be binary. *json_length: of the object, 0 when there is nothing
 * behind it. */
void v2_write(const struct v2_request *request, const struct v2_result *result, struct text *text, size_t *json_length);

#endif
