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
/* The presets by number, from 0; NULL after the last. */
const char *train_preset_name(int index);

#endif
