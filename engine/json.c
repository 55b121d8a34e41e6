/* Checked readers over jansson. */
#include "engine/json.h"

#include <math.h>
#include <string.h>

enum hwgq_status hwgq_json_parse_object(const char *text, size_t length, const char *where, json_t **object,
                                        struct hwgq_error *error) {
  json_error_t details;
  json_t *value = json_loadb(text, length, JSON_REJECT_DUPLICATES, &details);
  if (!value && json_error_code(&details) == json_error_out_of_memory)
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory for its JSON", where);
  if (!value)
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: not valid JSON, line %d column %d: %s", where, details.line, details.column,
                     details.text);
  if (!json_is_object(value)) {
    json_decref(value);
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s: must be a JSON object, {...}", where);
  }
  *object = value;
  return HWGQ_OK;
}

char *hwgq_json_text(const json_t *value) {
  return json_dumps(value, JSON_COMPACT | JSON_REAL_PRECISION(9) | JSON_ENCODE_ANY);
}

static bool is_word_of(const char *words, const char *word) {
  size_t length = strlen(word);
  for (const char *p = words; length > 0 && (p = strstr(p, word)); p += length)
    if ((p == words || p[-1] == ' ') && (p[length] == ' ' || p[length] == 0)) return true;
  return false;
}

enum hwgq_status hwgq_json_check_keys(const json_t *object, const char *known, const char *where, struct hwgq_error *error) {
  const char *key;
  json_t *value;
  /* The macro wants a non-const object, and only reads it. */
  json_object_foreach((json_t *)object, key, value) {
    if (strchr(key, ' ') || !is_word_of(known, key))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: unknown key '%.64s', known here: %s", where, key, known);
  }
  return HWGQ_OK;
}

enum hwgq_status hwgq_json_bool(const json_t *object, const char *key, const char *where, bool *value,
                                struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  if (!json_is_boolean(item)) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be true or false", where, key);
  *value = json_is_true(item);
  return HWGQ_OK;
}

enum hwgq_status hwgq_json_int(const json_t *object, const char *key, const char *where, int least, int most, int *value,
                               struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  if (!json_is_integer(item) || json_integer_value(item) < least || json_integer_value(item) > most)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be a whole number from %d to %d", where, key, least, most);
  *value = (int)json_integer_value(item);
  return HWGQ_OK;
}

enum hwgq_status hwgq_json_string(const json_t *object, const char *key, const char *where, const char **value,
                                  struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  if (!json_is_string(item)) return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be a string", where, key);
  *value = json_string_value(item);
  return HWGQ_OK;
}

/* A number that rounds to a finite float32: below FLT_MAX and half a unit in its last place. (FLT_MAX itself, written with 9
 * digits, is a little above it.) */
static bool get_float(const json_t *item, float *value) {
  if (!json_is_number(item)) return false;
  double number = json_number_value(item);
  if (!(fabs(number) < 0x1.ffffffp+127)) return false;
  *value = (float)number;
  return true;
}

enum hwgq_status hwgq_json_float(const json_t *object, const char *key, const char *where, float *value,
                                 struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  if (!get_float(item, value))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be a number that fits 32-bit floats", where, key);
  return HWGQ_OK;
}

enum hwgq_status hwgq_json_floats(const json_t *object, const char *key, const char *where, int least, int most, float *values,
                                  int *count, struct hwgq_error *error) {
  const json_t *item = json_object_get(object, key);
  if (!item) return HWGQ_OK;
  size_t length = json_array_size(item); /* 0 when it is no array */
  if (least == most && (!json_is_array(item) || length != (size_t)least))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be an array of %d numbers", where, key, least);
  if (!json_is_array(item) || length < (size_t)least || length > (size_t)most)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' must be an array of %d to %d numbers", where, key, least, most);
  for (size_t i = 0; i < length; i++)
    if (!get_float(json_array_get(item, i), &values[i]))
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s: '%s' element %zu must be a number that fits 32-bit floats", where, key,
                       i);
  *count = (int)length;
  return HWGQ_OK;
}
