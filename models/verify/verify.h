/* The engine against the reference executor, and both against recordings of another program.
 *
 * Quantized layers are compared as level codes, exactly. A code may differ only where the value that is quantized lies so near
 * a threshold that float32 cannot tell: within `tolerance` of every threshold between the two codes; recorded codes may not
 * differ at all, unless that is asked for. Float layers are compared
 * by their largest error. Both are relative: an error to the largest magnitude of the layer's output, a distance to the largest
 * magnitude among the quantizer's inputs and thresholds. A softmax turns an absolute error of its input into a relative one, so
 * its tolerance is multiplied by its input's largest magnitude where that is above 1.
 *
 * Every layer is judged by itself: where codes differ, the reference goes on from the engine's codes. */
#ifndef VERIFY_H
#define VERIFY_H

#include "models/classify/text.h"
#include "models/verify/golden.h"

#define VERIFY_TOLERANCE 1e-5

enum { VERIFY_MAX_SETS = 8 };

struct verify_place {
  int channel, y, x;
};

/* What was found in one layer's output. */
struct verify_layer {
  bool compared; /* false: folded into another stage, or not recorded */
  bool codes;    /* the output of a quantizer */
  bool follows;  /* comes after a tolerated difference which it cannot be freed from: not judged */
  bool failed;
  uint64_t values;
  uint64_t differing; /* codes that differ */
  uint64_t wrong;     /* of these, codes whose value lies farther than the tolerance from a threshold */
  double error;       /* floats: the largest, relative; infinite for values that are not finite or no level */
  /* Codes: the first that is wrong, else the first that differs. Floats: the largest error. */
  struct verify_place place;
  double expected, found; /* codes: as codes; found is -1 when the value is no level at all */
  double value, distance; /* codes: what was quantized, and how far it is from the thresholds in between, relative */
  int differs_from;       /* the set whose output has other bits, -1: none */
};

/* One executor, over all layers. */
struct verify_comparison {
  const char *who; /* "reference" or a kernel set */
  int layer_count;
  struct verify_layer *layers; /* owned */
  int compared, code_layers, followers;
  uint64_t code_values, tolerated;
  int worst_layer; /* with the largest float error, -1: no float layer */
  double largest_error;
  int first_failed;        /* layer, -1: none */
  int scores_differ;       /* from the scores of this set, -1: the same bits */
  bool serving_differs;    /* the plan that reuses its buffers gives other scores than the one that keeps all layers */
  bool top_classes_differ; /* recordings: the best five are not the recorded ones */
};

/* How safe the codes are: the value that is nearest to a threshold without lying on it. */
struct verify_nearest {
  int layer; /* the quantizer, -1: there is none */
  struct verify_place place;
  double value, threshold, distance;
  uint64_t on_threshold; /* values that lie exactly on one: equality goes to the lower level (sign: to +1) */
};

struct verify_result {
  bool recording; /* compared with one, otherwise with the reference */
  int count;
  struct verify_comparison comparisons[VERIFY_MAX_SETS + 1];
  struct verify_nearest nearest;
  bool passed;
};

/* ---- one layer (compare.c) ----------------------------------------------------------------------------------------------- */

struct verify_operands {
  const struct hwgq_layer *layer;
  const double *expected, *found; /* the layer's output, CHW */
  const double *before;           /* the layer's first input as the reference has it; NULL: any differing code is wrong */
  size_t before_count;
  double tolerance;
};

void verify_compare(const struct verify_operands *operands, struct verify_layer *result);
/* The level code of a quantizer's output value: 0 to level_count, sign 0 or 1; -1: no level has this value. */
int verify_code(const struct hwgq_layer *quantizer, double value);
/* The value that a code stands for; code 0 to level_count. */
double verify_code_value(const struct hwgq_layer *quantizer, int code);
void verify_find_nearest(const struct hwgq_layer *quantizer, int index, const double *before, struct verify_nearest *nearest);

/* ---- a network (verify.c) ------------------------------------------------------------------------------------------------ */

struct verifier; /* the reference and one plan per kernel set. Not thread-safe. */

/* Borrows the network. preprocess: NULL for verifier_run_input only. cpu: a kernel set; NULL or "all": all that this CPU can
 * run. */
enum hwgq_status verifier_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess, const char *cpu,
                                 double tolerance, struct verifier **verifier, struct hwgq_error *error);
void verifier_destroy(struct verifier *verifier);
/* For verifier_run_golden: lets codes differ this near a threshold. Without this call: nowhere. */
void verifier_tolerate_recorded_codes(struct verifier *verifier, double tolerance);
/* Kernel sets against the reference, on pixels as hwgq_run takes them or on input values as hwgq_run_tensor takes them. */
enum hwgq_status verifier_run_pixels(struct verifier *verifier, const uint8_t *pixels, struct verify_result *result,
                                     struct hwgq_error *error);
enum hwgq_status verifier_run_input(struct verifier *verifier, const float *input, struct verify_result *result,
                                    struct hwgq_error *error);
/* The reference (comparison 0) and kernel sets against a recording. input: NULL for the recorded one; then every recorded layer
 * must be in the network. Otherwise the network is a part of the recorded one, and what it lacks is passed over. */
enum hwgq_status verifier_run_golden(struct verifier *verifier, const struct golden *golden, const float *input,
                                     struct verify_result *result, struct hwgq_error *error);
void verify_result_release(struct verify_result *result);

/* ---- for people and programs (report.c) ---------------------------------------------------------------------------------- */

/* A few lines, indented: what failed, how much was compared, the nearest threshold. */
void verify_write_text(const struct hwgq_network *network, const struct verify_result *result, struct text *text);
/* Every compared layer in a table. */
void verify_write_layers(const struct hwgq_network *network, const struct verify_result *result, struct text *text);
/* {"passed":...,"executors":[...],"nearest":...} */
void verify_write_json(const struct hwgq_network *network, const struct verify_result *result, struct text *text);

#endif
