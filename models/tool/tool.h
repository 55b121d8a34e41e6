/* The `hwgq` program: one command_* function per command, in a file of the same name. Internal to models/tool. */
#ifndef TOOL_H
#define TOOL_H

#include "engine/hwgq.h"

enum exit_code { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* Arguments are those of main without the program's name: argv[0] is the command. argv[argc] is NULL. A command prints its
 * result to standard output and messages to standard error, and returns the program's exit code. */
int command_train(int argc, char **argv);
int command_import(int argc, char **argv);
int command_describe(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_classify(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_new(int argc, char **argv);
int command_round(int argc, char **argv);
int command_quantizer(int argc, char **argv);

/* ---- options (options.c) ------------------------------------------------------------------------------------------------- */

/* What an option's argument is stored as. */
enum option_kind {
  OPTION_FLAG,   /* no argument; bool, set to true */
  OPTION_INT,    /* int, between minimum and maximum */
  OPTION_NUMBER, /* double, between minimum and maximum */
  OPTION_TEXT,   /* const char *, any text */
};

/* One option, "--name VALUE" or "--name=VALUE". A table ends with an option whose name is NULL. */
struct option_spec {
  const char *name; /* without the dashes */
  enum option_kind kind;
  void *value;
  const char *argument, *help; /* "N", "what it does"; the default belongs into `help` */
  double minimum, maximum;
};

struct command_usage {
  const char *name;
  const char *operands; /* "MODEL IMAGE..." */
  const char *summary;  /* one line */
  const char *notes;    /* further lines of --help, or NULL */
  int min_operands, max_operands;
};

/* Takes the options out of argv and moves the operands to its start; "--" ends options. *argc becomes their number. Returns -1
 * to go on, otherwise the exit code to return: --help printed, or a message and the usage on standard error. */
int options_parse(const struct command_usage *usage, const struct option_spec *options, int *argc, char **argv);
/* Three finite numbers or one for all three, separated by commas; a fraction such as 1/64 is a number. False: anything else. */
bool options_three_numbers(const char *text, float values[3]);
/* Prints "hwgq COMMAND: MESSAGE" and returns EXIT_FAILED, or EXIT_USAGE. */
int tool_failed(const struct command_usage *usage, const struct hwgq_error *error);
int tool_usage(const struct command_usage *usage, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
