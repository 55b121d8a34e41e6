/* Options that choose a network of models/networks: the same in every command that has them. */
#ifndef TOOL_NETWORK_CHOICE_H
#define TOOL_NETWORK_CHOICE_H

#include "models/networks/networks.h"
#include "models/tool/tool.h"

struct network_choice {
  const char *name;
  double width;          /* 0: 1 */
  int classes;           /* 0: the network's usual number */
  const char *input;     /* "CxHxW", or "N" for NxN; NULL: the network's usual size */
  int bits, level_count; /* one of them; both 0: 2 bits */
  const char *levels, *zero, *weights, *affine;
  double step; /* 0: by bits */
  bool sign;
};

/* Entries of an option table. */
#define NETWORK_CHOICE_OPTIONS(choice)                                                                                           \
  {"width", OPTION_NUMBER, &(choice)->width, "W", "factor on the channels of every hidden layer (default 1)", 0.001, 64},        \
      {"classes", OPTION_INT,      &(choice)->classes, "N", "number of classes (default: the network's usual one)",              \
       1,         HWGQ_MAX_CLASSES},                                                                                             \
      {"input", OPTION_TEXT, &(choice)->input, "CxHxW", "size of the input, or N for NxN (default: the network's usual one)", 0, \
       0},                                                                                                                       \
      {"bits", OPTION_INT, &(choice)->bits, "N", "activations of 1 to 4 bits: 2^N - 1 levels and 0 (default 2)", 1, 4},          \
      {"level-count",  OPTION_INT, &(choice)->level_count, "N", "or the number of levels beside 0 itself, 1 to 15", 1,           \
       HWGQ_MAX_LEVELS},                                                                                                         \
      {"levels",                                                                                                                 \
       OPTION_TEXT,                                                                                                              \
       &(choice)->levels,                                                                                                        \
       "KIND",                                                                                                                   \
       "uniform: multiples of one step (default); free: each of its own; relu: not quantized",                                   \
       0,                                                                                                                        \
       0},                                                                                                                       \
      {"weights", OPTION_TEXT, &(choice)->weights, "KIND", "binary (default) or float", 0, 0},                                   \
      {"affine", OPTION_TEXT, &(choice)->affine, "yes|no", "a scale and an offset before every activation (default no)", 0, 0},  \
      {"zero",                                                                                                                   \
       OPTION_TEXT,                                                                                                              \
       &(choice)->zero,                                                                                                          \
       "WHERE",                                                                                                                  \
       "0, or half: values up to half a step become 0, as round(x / step) does (default 0)",                                     \
       0,                                                                                                                        \
       0},                                                                                                                       \
      {"step", OPTION_NUMBER, &(choice)->step, "S", "of uniform levels (default: the best one, 0.538 for 2 bits)", 1e-6, 1e6},   \
  {                                                                                                                              \
    "sign", OPTION_FLAG, &(choice)->sign, NULL, "activations are -1 and +1 instead", 0, 0                                        \
  }

/* The network, with zero parameters. *entry (may be NULL) receives what the network is meant for. */
enum hwgq_status network_choice_build(const struct network_choice *choice, struct hwgq_network **network,
                                      const struct networks_entry **entry, struct hwgq_error *error);

#endif
