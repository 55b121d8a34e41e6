/* Recipes by name: options that others on the command line change. */
#ifndef TOOL_TRAIN_PRESETS_H
#define TOOL_TRAIN_PRESETS_H

#include "models/tool/train_options.h"

struct train_preset_option {
  enum train_option option;
  const char *value; /* NULL ends a preset */
};

/* NULL: there is none of this name. */
const struct train_preset_option *train_preset(const char *name);

#endif
