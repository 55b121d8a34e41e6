/* The command line of `hwgq train`, which is also the recipe that a checkpoint keeps. */
#ifndef TOOL_TRAIN_OPTIONS_H
#define TOOL_TRAIN_OPTIONS_H

#include <jansson.h>

#include "models/train/trainer.h"

enum train_option {
  TRAIN_NETWORK,
  TRAIN_DATA,
  TRAIN_WIDTH,
  TRAIN_BITS,
  TRAIN_LEVELS,
  TRAIN_INPUT,
  TRAIN_EPOCHS,
  TRAIN_BATCH,
  TRAIN_OPTIMIZER,
  TRAIN_LR,
  TRAIN_CLASSIFIER_RATE,
  TRAIN_MOMENTUM,
  TRAIN_WEIGHT_DECAY,
  TRAIN_SCHEDULE,
  TRAIN_POWER,
  TRAIN_WARMUP,
  TRAIN_SEED,
  TRAIN_PRECISION,
  TRAIN_MIRROR,
  TRAIN_PAD,
  TRAIN_ZOOM,
  TRAIN_MEAN,
  TRAIN_SCALE,
  TRAIN_ORDER,
  TRAIN_RESIZE,
  TRAIN_INVERT,
  TRAIN_LIMIT,
  TRAIN_LABELS,
  TRAIN_NO_TEST,
  TRAIN_RECIPE_COUNT, /* the options above are the recipe */

  TRAIN_OUTPUT = TRAIN_RECIPE_COUNT,
  TRAIN_CHECKPOINT,
  TRAIN_RESUME,
  TRAIN_LOG,
  TRAIN_THREADS,
  TRAIN_BLAS_CORE,
  TRAIN_EXPORT_ONLY,
  TRAIN_HELP,
  TRAIN_OPTION_COUNT
};

enum train_precision { PRECISION_AUTO, PRECISION_FLOAT32, PRECISION_BF16 };

struct train_options {
  /* The recipe. */
  char *network, *data;
  double width;
  int bits;
  bool uniform, sign;
  struct hwgq_shape input; /* zero channels: the network's usual one */
  bool mean_given, order_given, no_test;
  int limit;
  char *labels_file;
  enum train_precision precision;
  struct trainer_options trainer;

  char *given[TRAIN_RECIPE_COUNT]; /* texts of the options that were given; NULL: default */

  /* How to run it: not part of the recipe. */
  int threads;
  char *output, *checkpoint, *resume, *log, *blas_core;
  bool export_only, help;
};

void train_options_release(struct train_options *options);
/* Defaults, then the recipe of a checkpoint that --resume names, then the command line. argv[0] is not looked at. */
enum hwgq_status train_options_parse(int argc, char **argv, struct train_options *options, struct hwgq_error *error);
/* The recipe as a JSON object {"option": "text", ...}, without what was left at its default. */
json_t *train_options_recipe(const struct train_options *options);
const char *train_options_usage(void);

#endif
