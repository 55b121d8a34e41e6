#include "models/tool/train_values.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

bool train_parse_integer(const char *text, long long least, long long most, long long *value) {
  char *end;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || number < least || number > most) return false;
  *value = number;
  return true;
}

/* A number or a fraction of two, up to the end or to a comma. */
static bool parse_fraction(const char **text, double *value) {
  char *end;
  *value = strtod(*text, &end);
  if (end == *text) return false;
  if (*end == '/') {
    const char *divisor = end + 1;
    *value /= strtod(divisor, &end);
    if (end == divisor) return false;
  }
  if (!isfinite(*value) || (*end != '\0' && *end != ',')) return false;
  *text = *end == ',' ? end + 1 : end;
  return true;
}

bool train_parse_double(const char *text, double least, double most, double *value) {
  double number;
  if (strchr(text, ',') != NULL || !parse_fraction(&text, &number) || !(number >= least && number <= most)) return false;
  *value = number;
  return true;
}

bool train_parse_three(const char *text, float values[3]) {
  int count = 0;
  double number;
  do {
    if (count == 3 || !parse_fraction(&text, &number) || fabs(number) > 1e6) return false;
    values[count++] = (float)number;
  } while (*text != '\0');
  if (count == 1) values[1] = values[2] = values[0];
  return count != 2;
}

bool train_parse_word(const char *text, const char *const *words, int *value) {
  for (int i = 0; words[i] != NULL; i++) {
    if (strcmp(text, words[i]) != 0) continue;
    *value = i;
    return true;
  }
  return false;
}

bool train_parse_shape(const char *text, struct hwgq_shape *shape) {
  int *values[] = {&shape->channels, &shape->height, &shape->width};
  for (int i = 0; i < 3; i++) {
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || number < 1 || number > HWGQ_MAX_DIMENSION || *end != (i < 2 ? 'x' : '\0')) return false;
    *values[i] = (int)number;
    text = end + 1;
  }
  return true;
}
