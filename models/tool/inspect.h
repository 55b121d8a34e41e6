/* Parts of `hwgq inspect`. Internal to models/tool. */
#ifndef TOOL_INSPECT_H
#define TOOL_INSPECT_H

#include <jansson.h>

#include "engine/hwgq.h"

/* Numbers of one layer, or of all of them. */
struct inspect_account {
  uint64_t parameters, macs;
  uint64_t bit_bytes, float_bytes; /* in the file: packed weights, and float32 arrays */
  uint64_t weights;                /* of conv2d and linear layers, binary or float */
  uint64_t binary, plus;           /* binary weights, and those that are +1 */
};

struct inspect_account inspect_layer(const struct hwgq_network *network, const struct hwgq_layer *layer);
struct inspect_account inspect_network(const struct hwgq_network *network);

/* The folded thresholds of one stage. */
struct inspect_thresholds {
  int channels; /* 0: the stage does not end in a quantizer */
  int reversed, constant;
  bool integers;
  size_t count; /* thresholds that some accumulator lies below and some above; the rest follow from these */
  double least, median, largest;
};

/* inspect_plan.c */
enum hwgq_status inspect_stage(const struct hwgq_plan *plan, int stage, struct inspect_thresholds *summary,
                               struct hwgq_error *error);
enum hwgq_status inspect_print_plan(const struct hwgq_plan *plan, struct hwgq_error *error);
enum hwgq_status inspect_plan_json(const struct hwgq_plan *plan, json_t **json, struct hwgq_error *error);

/* inspect_caffemodel.c: the weights file of a network that was not imported yet. */
enum hwgq_status inspect_caffemodel(const char *path, bool as_json, struct hwgq_error *error);

#endif
