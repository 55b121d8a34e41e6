/* From the bytes of an image file to class probabilities: the one implementation behind the daemon, `hwgq classify` and
 * `hwgq eval`, so that all of them give the same bits. */
#ifndef CLASSIFY_H
#define CLASSIFY_H

#include "models/classify/text.h"
#include "models/image/image.h"

/* A model made ready to run. Immutable: any number of threads may share one. */
struct classifier {
  struct hwgq_model *model;
  struct hwgq_plan *plan;
  struct hwgq_shape input; /* of the network */
  int class_count;
  int shorter_side; /* that images are resized to */
};

/* Reads the .hwgq file and makes its plan. cpu: kernel set, as in struct hwgq_plan_options (NULL: HWGQ_CPU, else the best).
 * A network whose last layer is not a softmax is refused (HWGQ_ERROR_UNSUPPORTED): its scores would not be probabilities. */
enum hwgq_status classifier_open(const char *path, const char *cpu, struct classifier **classifier, struct hwgq_error *error);
/* As classifier_open, of a model that is in memory already. Takes ownership of `model` when it succeeds. */
enum hwgq_status classifier_create(struct hwgq_model *model, const char *cpu, struct classifier **classifier,
                                   struct hwgq_error *error);
void classifier_destroy(struct classifier *classifier);
/* Bytes of plan and parameters that the classifier keeps. */
size_t classifier_bytes(const struct classifier *classifier);

/* What one thread needs to run: run arena, network input pixels and scores. Fits every classifier that it was reserved for; it
 * never shrinks. */
struct classify_scratch;
/* `classifier` may be NULL: reserve later. */
enum hwgq_status classify_scratch_create(const struct classifier *classifier, struct classify_scratch **scratch,
                                         struct hwgq_error *error);
/* From here on the network runs in a team of so many helpers. NULL: by itself. */
void classify_scratch_set_team(struct classify_scratch *scratch, struct hwgq_team *team, int helpers);
/* Grows the scratch where this classifier needs more. The functions below call it; afterwards it allocates nothing. */
enum hwgq_status classify_scratch_reserve(struct classify_scratch *scratch, const struct classifier *classifier,
                                          struct hwgq_error *error);
void classify_scratch_destroy(struct classify_scratch *scratch);
/* Bytes that a scratch reserved for this classifier has, with a team of so many helpers (0: none). */
size_t classify_scratch_bytes(const struct classifier *classifier, int helpers);

struct classify_result {
  const uint8_t *pixels;   /* what the network saw: HWC, 8 bits, in the network's channel order; in the scratch */
  const float *scores;     /* [class_count] probabilities, in the scratch: valid until its next use */
  struct image_info image; /* also after a failure, as far as the header was understood */
  uint64_t decode_ns, preprocess_ns, inference_ns; /* CLOCK_MONOTONIC */
  uint64_t waited_ns;                              /* of decode_ns: for its part of the budget */
  int helpers;                                     /* that had a part in it */
};
/* Nanoseconds that it kept its thread so far, failure or not, and waiting or not. */
uint64_t classify_spent_ns(const struct classify_result *result);

/* Decodes and preprocesses only: fills pixels, image, decode_ns, preprocess_ns and waited_ns. limits: NULL for
 * IMAGE_LIMITS_DEFAULT. Errors are those of image_prepare. Decoding and preprocessing alternate: their times are sums, also
 * after a failure. */
enum hwgq_status classify_prepare(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *bytes,
                                  size_t length, const struct image_limits *limits, struct classify_result *result,
                                  struct hwgq_error *error);
/* The whole step: classify_prepare, then the network. Fills every field of *result. */
enum hwgq_status classify_bytes(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *bytes,
                                size_t length, const struct image_limits *limits, struct classify_result *result,
                                struct hwgq_error *error);
/* The network only, on pixels that are preprocessed already (a data set's). Fills pixels, scores and inference_ns. */
enum hwgq_status classify_pixels(const struct classifier *classifier, struct classify_scratch *scratch, const uint8_t *pixels,
                                 struct classify_result *result, struct hwgq_error *error);

/* As classify_bytes from after the decoding on: an image of any size. Fills pixels, scores, preprocess_ns and inference_ns. */
enum hwgq_status classify_image(const struct classifier *classifier, struct classify_scratch *scratch,
                                const struct image *image, struct classify_result *result, struct hwgq_error *error);
/* The network only, on its input as preprocessed float32 CHW. Fills scores and inference_ns. Values so large that a score is no
 * number give HWGQ_ERROR_INVALID. */
enum hwgq_status classify_tensor(const struct classifier *classifier, struct classify_scratch *scratch, const float *input,
                                 struct classify_result *result, struct hwgq_error *error);

enum { CLASSIFY_MAX_TOP_K = HWGQ_MAX_CLASSES };

/* Appends [{"class":3,"label":"cat","probability":0.93}, ...]: the top_k classes, highest first, ties by class index. A
 * probability is written with as few digits (6 to 9) as read back to the same float. */
void classify_write_predictions(const struct hwgq_model *model, const float *scores, int top_k, struct text *text);
/* Appends {"format":"jpeg","width":1024,"height":768}. */
void classify_write_image(const struct image_info *image, struct text *text);

#endif
