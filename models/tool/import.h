/* What the kinds of `hwgq import` share. Internal to models/tool. */
#ifndef TOOL_IMPORT_H
#define TOOL_IMPORT_H

#include "models/tool/tool.h"

/* `hwgq import safetensors ...`; argv[0] is "safetensors". */
int import_command_safetensors(int argc, char **argv);

/* The file to be written is none of those that are read, by whatever name; entries may be NULL. */
enum hwgq_status import_check_output(const char *output, const char *const *inputs, int count, struct hwgq_error *error);
/* Labels, one a line. Both results are malloc'ed; the array points into the text. */
enum hwgq_status import_read_labels(const char *path, char **text, const char ***labels, int *count, struct hwgq_error *error);
/* A note on standard error; for import_options.note. */
void import_print_note(void *context, const char *text);
void import_print_summary(const struct hwgq_model *model, const char *path);

#endif
