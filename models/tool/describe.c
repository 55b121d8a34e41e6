/* hwgq describe: a network of the paper as JSON, for programs such as models/train/torch. */
#include <stdio.h>
#include <stdlib.h>

#include "models/tool/network_choice.h"

static const struct command_usage usage = {
    .name = "describe",
    .operands = "NETWORK",
    .summary = "Prints the description of a network, layer by layer, as JSON (its format: engine/network_json.c).",
    .notes = "Without NETWORK: the names of all networks.",
    .min_operands = 0,
    .max_operands = 1,
};

int command_describe(int argc, char **argv) {
  struct network_choice choice = {0};
  const struct option_spec specs[] = {NETWORK_CHOICE_OPTIONS(&choice), {0}};
  int code = options_parse(&usage, specs, &argc, argv);
  if (code >= 0) return code;
  if (argc == 0) {
    for (const char *const *name = networks_names(); *name; name++) printf("%-16s %s\n", *name, networks_find(*name)->summary);
    return EXIT_OK;
  }
  choice.name = argv[0];
  struct hwgq_network *network = NULL;
  struct hwgq_error error;
  char *text = NULL;
  enum hwgq_status status = network_choice_build(&choice, &network, NULL, &error);
  if (!status) status = hwgq_network_to_json(network, &text, &error);
  if (!status) printf("%s\n", text);
  free(text);
  hwgq_network_destroy(network);
  return status ? tool_failed(&usage, &error) : EXIT_OK;
}
