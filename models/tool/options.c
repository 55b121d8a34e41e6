#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/tool/tool.h"

static void print_usage(const struct command_usage *usage, FILE *file) {
  fprintf(file, "usage: hwgq %s [options]%s%s\n", usage->name, usage->operands[0] ? " " : "", usage->operands);
}

static void print_help(const struct command_usage *usage, const struct option_spec *options) {
  print_usage(usage, stdout);
  printf("\n%s\n", usage->summary);
  if (usage->notes) printf("%s\n", usage->notes);
  printf("\n");
  for (const struct option_spec *option = options; option->name; option++) {
    char form[48];
    snprintf(form, sizeof form, "--%s %s", option->name, option->argument ? option->argument : "");
    printf("  %-20s %s\n", form, option->help);
  }
  printf("  %-20s %s\n", "--help", "print this and stop");
}

int tool_failed(const struct command_usage *usage, const struct hwgq_error *error) {
  fprintf(stderr, "hwgq %s: %s\n", usage->name, error->message);
  return EXIT_FAILED;
}

int tool_usage(const struct command_usage *usage, const char *format, ...) {
  va_list arguments;
  fprintf(stderr, "hwgq %s: ", usage->name);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n");
  print_usage(usage, stderr);
  fprintf(stderr, "'hwgq %s --help' lists the options.\n", usage->name);
  return EXIT_USAGE;
}

/* -1: stored. */
static int store(const struct command_usage *usage, const struct option_spec *option, const char *text) {
  char *end;
  errno = 0;
  if (option->kind == OPTION_TEXT) {
    *(const char **)option->value = text;
    return -1;
  }
  double number = option->kind == OPTION_INT ? (double)strtol(text, &end, 10) : strtod(text, &end);
  if (end == text || *end || errno || !isfinite(number) || number < option->minimum || number > option->maximum) {
    return tool_usage(usage, "--%s takes %s from %.10g to %.10g, not '%s'", option->name,
                      option->kind == OPTION_INT ? "a whole number" : "a number", option->minimum, option->maximum, text);
  }
  if (option->kind == OPTION_INT) {
    *(int *)option->value = (int)number;
  } else {
    *(double *)option->value = number;
  }
  return -1;
}

static const struct option_spec *find_option(const struct option_spec *options, const char *name, size_t length) {
  for (; options->name; options++) {
    if (strlen(options->name) == length && !strncmp(options->name, name, length)) return options;
  }
  return NULL;
}

/* One argument that starts with a dash; *i moves on when it takes the next one. -1: go on. */
static int parse_option(const struct command_usage *usage, const struct option_spec *options, int argc, char **argv, int *i) {
  const char *argument = strcmp(argv[*i], "-o") ? argv[*i] : "--output";
  const char *name = argument + 2, *text = NULL;
  if (!strcmp(argument, "-h") || !strcmp(argument, "--help")) {
    print_help(usage, options);
    return EXIT_OK;
  }
  size_t length = argument[1] == '-' ? strcspn(name, "=") : 0;
  const struct option_spec *option = length ? find_option(options, name, length) : NULL;
  if (!option) return tool_usage(usage, "there is no option '%s'", argument);
  if (name[length] == '=') text = name + length + 1;
  if (option->kind == OPTION_FLAG) {
    if (text) return tool_usage(usage, "--%s takes no value", option->name);
    *(bool *)option->value = true;
    return -1;
  }
  if (!text) {
    if (*i + 1 >= argc) return tool_usage(usage, "--%s needs a value", option->name);
    text = argv[++*i];
  }
  return store(usage, option, text);
}

int options_parse(const struct command_usage *usage, const struct option_spec *options, int *argc, char **argv) {
  int operands = 0;
  bool more = true;
  for (int i = 1; i < *argc; i++) {
    if (more && !strcmp(argv[i], "--")) {
      more = false;
    } else if (more && argv[i][0] == '-' && argv[i][1]) {
      int code = parse_option(usage, options, *argc, argv, &i);
      if (code >= 0) return code;
    } else {
      argv[operands++] = argv[i];
    }
  }
  *argc = operands;
  argv[operands] = NULL;
  if (operands < usage->min_operands) return tool_usage(usage, "something is missing: expected %s", usage->operands);
  if (operands > usage->max_operands) return tool_usage(usage, "one argument too many: '%s'", argv[usage->max_operands]);
  return -1;
}

bool options_three_numbers(const char *text, float values[3]) {
  int count = 0;
  for (bool more = true; more; count++) {
    char *end;
    double number = strtod(text, &end);
    if (count == 3 || end == text) return false;
    if (*end == '/') {
      text = end + 1;
      number /= strtod(text, &end);
      if (end == text) return false;
    }
    if (!(fabs(number) <= 1e6) || (*end && *end != ',')) return false;
    values[count] = (float)number;
    more = *end == ',';
    text = end + 1;
  }
  if (count == 1) values[1] = values[2] = values[0];
  return count != 2;
}
