/* hwgq eval --first-conv: what changes when a first convolution is computed in integers. */
#ifndef TOOL_EVAL_FIRST_H
#define TOOL_EVAL_FIRST_H

#include "models/data/dataset.h"

struct first_comparison {
  const char *layer;            /* the first quantizer, NULL: there is none */
  int predictions, scores;      /* images whose best class, or any score, differs */
  int images;                   /* with a level that differs */
  uint64_t levels, level_count; /* levels that differ, of how many */
};

/* Runs every image of the data set with the first convolution in integers and in float32. Networks without a convolution that
 * can take pixels are refused. */
enum hwgq_status first_compare(const struct hwgq_model *model, const struct dataset *data, struct first_comparison *comparison,
                               struct hwgq_error *error);

#endif
