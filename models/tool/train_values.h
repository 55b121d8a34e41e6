/* Values of options, from their texts. False: the text is none. */
#ifndef TOOL_TRAIN_VALUES_H
#define TOOL_TRAIN_VALUES_H

#include "engine/hwgq.h"

bool train_parse_integer(const char *text, long long least, long long most, long long *value);
/* A number, or a fraction such as 1/64. */
bool train_parse_double(const char *text, double least, double most, double *value);
/* Three numbers, separated by commas, or one for all. */
bool train_parse_three(const char *text, float values[3]);
/* One of a NULL-terminated list; *value is its index. */
bool train_parse_word(const char *text, const char *const *words, int *value);
/* "CxHxW" */
bool train_parse_shape(const char *text, struct hwgq_shape *shape);

#endif
