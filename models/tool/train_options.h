/* The command line of `hwgq train`, which is also the recipe that a checkpoint keeps. */
#ifndef TOOL_TRAIN_OPTIONS_H
#define TOOL_TRAIN_OPTIONS_H

#include <jansson.h>

#include "models/train/trainer.h"

enum train_option {
  TRAIN_NETWORK,
  TRAIN_DATA,
  TRAIN_PRESET,
  TRAIN_WIDTH,
  TRAIN_WEIGHTS,
  TRAIN_BITS,
  TRAIN_LEVEL_COUNT,
  TRAIN_LEVELS,
  TRAIN_ZERO,
  TRAIN_STEP,
  TRAIN_BACKWARD,
  TRAIN_AFFINE,
  TRAIN_INPUT,
  TRAIN_INITIAL,
  TRAIN_INITIALIZER,
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
  TRAIN_LABEL_SMOOTHING,
  TRAIN_TEACHER,
  TRAIN_DISTILL_WEIGHT,
  TRAIN_DISTILL_TEMPERATURE,
  TRAIN_AVERAGE,
  TRAIN_AVERAGE_EPOCHS,
  TRAIN_STATISTICS_BATCHES,
  TRAIN_SEED,
  TRAIN_PRECISION,
  TRAIN_MIRROR,
  TRAIN_PAD,
  TRAIN_ZOOM,
  TRAIN_CROP,
  TRAIN_ASPECT,
  TRAIN_BLUR,
  TRAIN_SOFTEN,
  TRAIN_BRIGHTNESS,
  TRAIN_CONTRAST,
  TRAIN_SATURATION,
  TRAIN_CUTOUT,
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
  TRAIN_REPORT,
  TRAIN_THREADS,
  TRAIN_BLAS_CORE,
  TRAIN_EXPORT_ONLY,
  TRAIN_HELP,
  TRAIN_OPTION_COUNT
};

enum train_levels { TRAIN_UNIFORM, TRAIN_FREE, TRAIN_SIGN, TRAIN_RELU };

enum train_precision { PRECISION_AUTO, PRECISION_FLOAT32, PRECISION_MIXED };

struct train_options {
  /* The recipe. */
  char *network, *data, *preset;
  double width;
  int weights;           /* 0: binary, 1: float */
  int bits, level_count; /* level_count 0: by bits */
  enum train_levels levels;
  int zero;    /* 0: level 0 up to 0, 1: up to half a step */
  double step; /* 0: the best one */
  bool affine;
  struct hwgq_shape input; /* zero channels: the network's usual one */
  char *initial, *teacher;
  bool no_test;
  int limit;
  char *labels_file;
  bool labels_given; /* on the command line, not only by the recipe of a checkpoint */
  enum train_precision precision;
  struct trainer_options trainer;

  char *given[TRAIN_RECIPE_COUNT]; /* texts of the options that were given; NULL: default */

  /* How to run it: not part of the recipe. */
  int threads;
  char *output, *checkpoint, *resume, *log, *report, *blas_core;
  bool export_only, help;
};

void train_options_release(struct train_options *options);
/* Defaults, then the recipe of a checkpoint that --resume names, then the command line. argv[0] is not looked at. */
enum hwgq_status train_options_parse(int argc, char **argv, struct train_options *options, struct hwgq_error *error);
/* The recipe as a JSON object {"option": "text", ...}, without what was left at its default. */
json_t *train_options_recipe(const struct train_options *options);
/* The text of --help in parts, NULL-terminated. */
const char *const *train_options_usage(void);

#endif
