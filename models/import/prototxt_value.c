/* The values of fields, checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "models/import/prototxt.h"

bool prototxt_is(const struct prototxt *document, int field, const char *name) {
  const struct prototxt_field *at = &document->fields[field];
  return strlen(name) == at->name_length && memcmp(document->text + at->name_offset, name, at->name_length) == 0;
}

void prototxt_name(const struct prototxt *document, int field, char *buffer, size_t size) {
  const struct prototxt_field *at = &document->fields[field];
  size_t length = at->name_length < size ? at->name_length : size - 1;
  memcpy(buffer, document->text + at->name_offset, length);
  buffer[length] = '\0';
}

static int find_from(struct prototxt *document, int field, const char *name, size_t length) {
  for (; field != PROTOTXT_NONE; field = document->fields[field].next) {
    struct prototxt_field *at = &document->fields[field];
    if (at->name_length != length || memcmp(document->text + at->name_offset, name, length) != 0) continue;
    at->used = true;
    return field;
  }
  return PROTOTXT_NONE;
}

int prototxt_find(struct prototxt *document, int message, const char *name) {
  return message == PROTOTXT_NONE ? PROTOTXT_NONE : find_from(document, document->fields[message].child, name, strlen(name));
}

int prototxt_find_next(struct prototxt *document, int field) {
  const struct prototxt_field *at = &document->fields[field];
  return find_from(document, at->next, document->text + at->name_offset, at->name_length);
}

static enum hwgq_status wrong(const struct prototxt *document, int field, const char *expected, struct hwgq_error *error) {
  char name[64];
  prototxt_name(document, field, name, sizeof name);
  return hwgq_fail(error, HWGQ_ERROR_FORMAT, "prototxt line %d: %s must be %s", prototxt_line(document, field), name, expected);
}

static int octal(char c) {
  return c >= '0' && c <= '7' ? c - '0' : -1;
}

/* The byte that an escape stands for; *at is behind the backslash and moves behind the escape. -1: unknown. */
static int escaped(const char **at, const char *end) {
  char c = *(*at)++;
  switch (c) {
  case '\\':
  case '\'':
  case '"':
  case '?':
    return c;
  default:
    break;
  }
  int value = octal(c);
  for (int digits = 1; value >= 0 && digits < 3 && *at < end && octal(**at) >= 0; digits++) value = 8 * value + octal(*(*at)++);
  return value;
}

enum hwgq_status prototxt_string(const struct prototxt *document, int field, char *value, struct hwgq_error *error) {
  static const char *const expected = "a string of fewer than 256 printable ASCII characters";
  const struct prototxt_field *span = &document->fields[field];
  if (span->kind != PROTOTXT_STRING) return wrong(document, field, expected, error);
  const char *at = document->text + span->value_offset, *end = at + span->value_length;
  size_t length = 0;
  char quote = 0;
  while (at < end) {
    int c = (unsigned char)*at++;
    if (!quote) { /* between adjacent strings: space, comments (which may hold quotes) or the next opening quote */
      if (c == '#')
        while (at < end && *at != '\n') at++;
      if (c == '"' || c == '\'') quote = (char)c;
      continue;
    }
    if (c == quote) {
      quote = 0;
      continue;
    }
    if (c == '\\') c = escaped(&at, end);
    if (c < 0x20 || c > 0x7e || length + 1 == PROTOTXT_STRING_SIZE) return wrong(document, field, expected, error);
    value[length++] = (char)c;
  }
  value[length] = '\0';
  return HWGQ_OK;
}

enum hwgq_status prototxt_word(const struct prototxt *document, int field, char *value, struct hwgq_error *error) {
  const struct prototxt_field *span = &document->fields[field];
  if (span->kind != PROTOTXT_WORD || span->value_length >= 64) return wrong(document, field, "a number or a word", error);
  memcpy(value, document->text + span->value_offset, span->value_length);
  value[span->value_length] = '\0';
  return HWGQ_OK;
}

enum hwgq_status prototxt_integer(const struct prototxt *document, int field, int64_t minimum, int64_t maximum, int64_t *value,
                                  struct hwgq_error *error) {
  char word[PROTOTXT_STRING_SIZE], *end;
  enum hwgq_status status = prototxt_word(document, field, word, error);
  if (status) return status;
  long long number = strtoll(word, &end, 0); /* saturates; the range check then refuses */
  if (*end != '\0' || number < minimum || number > maximum) {
    char name[64];
    prototxt_name(document, field, name, sizeof name);
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "prototxt line %d: %s is %s; it must be an integer from %lld to %lld",
                     prototxt_line(document, field), name, word, (long long)minimum, (long long)maximum);
  }
  *value = number;
  return HWGQ_OK;
}

enum hwgq_status prototxt_float(const struct prototxt *document, int field, float *value, struct hwgq_error *error) {
  char word[PROTOTXT_STRING_SIZE], *end;
  enum hwgq_status status = prototxt_word(document, field, word, error);
  if (status) return status;
  double number = strtod(word, &end);
  if ((*end == 'f' || *end == 'F') && end > word) end++;
  if (*end != '\0' || !(fabs(number) < 1e38)) return wrong(document, field, "a finite number", error);
  *value = (float)number;
  return HWGQ_OK;
}

/* The field, if there is one; twice is an error, as in protobuf's own reader. */
static enum hwgq_status find_once(struct prototxt *document, int message, const char *name, int *field,
                                  struct hwgq_error *error) {
  *field = prototxt_find(document, message, name);
  if (*field != PROTOTXT_NONE && prototxt_find_next(document, *field) != PROTOTXT_NONE)
    return wrong(document, *field, "given only once in a message", error);
  return HWGQ_OK;
}

enum hwgq_status prototxt_get_message(struct prototxt *document, int message, const char *name, int *value,
                                      struct hwgq_error *error) {
  enum hwgq_status status = find_once(document, message, name, value, error);
  if (!status && *value != PROTOTXT_NONE && document->fields[*value].kind != PROTOTXT_MESSAGE)
    return wrong(document, *value, "a message: { ... }", error);
  return status;
}

enum hwgq_status prototxt_get_string(struct prototxt *document, int message, const char *name, char *value,
                                     struct hwgq_error *error) {
  int field;
  enum hwgq_status status = find_once(document, message, name, &field, error);
  return status || field == PROTOTXT_NONE ? status : prototxt_string(document, field, value, error);
}

enum hwgq_status prototxt_get_word(struct prototxt *document, int message, const char *name, char *value,
                                   struct hwgq_error *error) {
  int field;
  enum hwgq_status status = find_once(document, message, name, &field, error);
  return status || field == PROTOTXT_NONE ? status : prototxt_word(document, field, value, error);
}

enum hwgq_status prototxt_get_integer(struct prototxt *document, int message, const char *name, int64_t minimum,
                                      int64_t maximum, int *value, struct hwgq_error *error) {
  int field;
  int64_t number = *value;
  enum hwgq_status status = find_once(document, message, name, &field, error);
  if (!status && field != PROTOTXT_NONE) status = prototxt_integer(document, field, minimum, maximum, &number, error);
  if (!status) *value = (int)number;
  return status;
}

enum hwgq_status prototxt_get_float(struct prototxt *document, int message, const char *name, float *value,
                                    struct hwgq_error *error) {
  int field;
  enum hwgq_status status = find_once(document, message, name, &field, error);
  return status || field == PROTOTXT_NONE ? status : prototxt_float(document, field, value, error);
}

enum hwgq_status prototxt_get_bool(struct prototxt *document, int message, const char *name, bool *value,
                                   struct hwgq_error *error) {
  char word[PROTOTXT_STRING_SIZE];
  int field;
  enum hwgq_status status = find_once(document, message, name, &field, error);
  if (status || field == PROTOTXT_NONE) return status;
  status = prototxt_word(document, field, word, error);
  if (status) return status;
  bool yes = !strcmp(word, "true") || !strcmp(word, "True") || !strcmp(word, "t") || !strcmp(word, "1");
  bool no = !strcmp(word, "false") || !strcmp(word, "False") || !strcmp(word, "f") || !strcmp(word, "0");
  if (!yes && !no) return wrong(document, field, "true or false", error);
  *value = yes;
  return HWGQ_OK;
}

static void mark_all(struct prototxt *document, int message) {
  for (int field = document->fields[message].child; field != PROTOTXT_NONE; field = document->fields[field].next) {
    document->fields[field].used = true;
    mark_all(document, field);
  }
}

bool prototxt_ignore(struct prototxt *document, int message, const char *name) {
  int field = prototxt_find(document, message, name);
  bool found = field != PROTOTXT_NONE;
  for (; field != PROTOTXT_NONE; field = prototxt_find_next(document, field)) mark_all(document, field);
  return found;
}

int prototxt_unused(const struct prototxt *document, int message) {
  for (int field = document->fields[message].child; field != PROTOTXT_NONE; field = document->fields[field].next) {
    if (!document->fields[field].used) return field;
    int inner = prototxt_unused(document, field);
    if (inner != PROTOTXT_NONE) return inner;
  }
  return PROTOTXT_NONE;
}
