/* Small checked readers over jansson, shared by the network description and the .hwgq header. Each takes `where` ("layer
 * 'conv1'", "preprocess"), which starts every message. An absent key leaves *value as it is. */
#ifndef HWGQ_JSON_H
#define HWGQ_JSON_H

#include "engine/hwgq.h"

#include <jansson.h>

/* Parses `length` bytes of UTF-8; duplicate keys, NUL characters and anything after the value are refused. The value must be
 * an object. */
enum hwgq_status hwgq_json_parse_object(const char *text, size_t length, const char *where, json_t **object,
                                        struct hwgq_error *error);
/* Compact text of a value, malloc'ed; floats with the 9 digits that bring every float32 back exactly. */
char *hwgq_json_text(const json_t *value);

/* Refuses a key that is not among the space-separated `known` ones, by name. */
enum hwgq_status hwgq_json_check_keys(const json_t *object, const char *known, const char *where, struct hwgq_error *error);
enum hwgq_status hwgq_json_bool(const json_t *object, const char *key, const char *where, bool *value,
                                struct hwgq_error *error);
enum hwgq_status hwgq_json_int(const json_t *object, const char *key, const char *where, int least, int most, int *value,
                               struct hwgq_error *error);
enum hwgq_status hwgq_json_string(const json_t *object, const char *key, const char *where, const char **value,
                                  struct hwgq_error *error);
enum hwgq_status hwgq_json_float(const json_t *object, const char *key, const char *where, float *value,
                                 struct hwgq_error *error);
/* An array of `least` to `most` floats; *count is set only when the key is there. */
enum hwgq_status hwgq_json_floats(const json_t *object, const char *key, const char *where, int least, int most, float *values,
                                  int *count, struct hwgq_error *error);

#endif
