/* hwgq: everything about networks but serving them. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "models/tool/tool.h"

static const struct command {
  const char *name;
  int (*run)(int argc, char **argv);
  const char *summary;
} commands[] = {
    {"train", command_train, "train a network on labelled images and write it as a .hwgq model"},
    {"import", command_import, "turn a network of another program into a .hwgq model"},
    {"describe", command_describe, "print the description of a network of the paper as JSON"},
    {"new", command_new, "make a model of one of the paper's networks with random weights"},
    {"round", command_round, "round a model's first convolution, to be computed in integers"},
    {"eval", command_eval, "measure a model's accuracy on labelled images"},
    {"classify", command_classify, "say what images show"},
    {"inspect", command_inspect, "describe a model: layers, shapes, sizes, where it comes from"},
    {"verify", command_verify, "compare the engine with the reference executor or with recordings, layer by layer"},
    {"bench", command_bench, "measure a model's speed, layer by layer"},
    {"quantizer", command_quantizer, "compute the best activation quantizer for a number of levels"},
};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *file) {
  fprintf(file, "usage: hwgq COMMAND [arguments]\n\ncommands:\n");
  for (int i = 0; i < COMMAND_COUNT; i++) fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
  fprintf(file,
          "\n'hwgq COMMAND --help' says more. 'hwgq --version' prints the version.\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage, 130 training was interrupted (by Control-C or SIGTERM) and saved.\n");
}

static int run(int argc, char **argv) {
  if (argc < 2) {
    print_help(stderr);
    return EXIT_USAGE;
  }
  if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
    print_help(stdout);
    return EXIT_OK;
  }
  if (!strcmp(argv[1], "--version")) {
    printf("hwgq %s\n", HWGQ_VERSION);
    return EXIT_OK;
  }
  for (int i = 0; i < COMMAND_COUNT; i++) {
    if (!strcmp(argv[1], commands[i].name)) return commands[i].run(argc - 1, argv + 1);
  }
  fprintf(stderr, "hwgq: there is no command '%s'\n", argv[1]);
  print_help(stderr);
  return EXIT_USAGE;
}

int main(int argc, char **argv) {
  int code = run(argc, argv);
  bool failed = fflush(stdout) != 0;
  const char *reason = failed ? strerror(errno) : "an earlier part of it could not be written";
  if ((failed || ferror(stdout)) && code == EXIT_OK) {
    fprintf(stderr, "hwgq: cannot write the result to standard output: %s\n", reason);
    code = EXIT_FAILED;
  }
  return code;
}
