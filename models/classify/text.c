#include "models/classify/text.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for `extra` more bytes and the zero behind them. */
static bool text_reserve(struct text *text, size_t extra) {
  size_t need;
  if (text->failed) return false;
  if (__builtin_add_overflow(text->length, extra, &need) || __builtin_add_overflow(need, (size_t)1, &need)) {
    text->failed = true;
    return false;
  }
  if (need <= text->capacity) return true;
  size_t capacity = text->capacity < 256 ? 256 : text->capacity;
  while (capacity < need) capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
  char *data = realloc(text->data, capacity);
  if (!data) {
    text->failed = true;
    return false;
  }
  text->data = data;
  text->capacity = capacity;
  return true;
}

void text_append(struct text *text, const char *bytes, size_t length) {
  if (!text_reserve(text, length)) return;
  if (length) memcpy(text->data + text->length, bytes, length);
  text->length += length;
  text->data[text->length] = 0;
}

void text_puts(struct text *text, const char *string) {
  text_append(text, string, strlen(string));
}

void text_vprintf(struct text *text, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  if (text_reserve(text, 128)) {
    size_t room = text->capacity - text->length;
    int length = vsnprintf(text->data + text->length, room, format, arguments);
    if (length < 0) {
      text->failed = true;
    } else if ((size_t)length < room) {
      text->length += (size_t)length;
    } else if (text_reserve(text, (size_t)length)) {
      vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
      text->length += (size_t)length;
    }
  }
  va_end(again);
}

void text_printf(struct text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  text_vprintf(text, format, arguments);
  va_end(arguments);
}

/* Length of the valid UTF-8 sequence at s (RFC 3629: no surrogates, nothing over-long), or 0. Reads no byte behind a zero. */
static size_t utf8_length(const unsigned char *s) {
  unsigned char low = 0x80, high = 0xbf;
  size_t length;
  if (s[0] < 0x80) return 1;
  if (s[0] >= 0xc2 && s[0] <= 0xdf) {
    length = 2;
  } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
    length = 3;
    if (s[0] == 0xe0) low = 0xa0;
    if (s[0] == 0xed) high = 0x9f;
  } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
    length = 4;
    if (s[0] == 0xf0) low = 0x90;
    if (s[0] == 0xf4) high = 0x8f;
  } else {
    return 0;
  }
  if (s[1] < low || s[1] > high) return 0;
  for (size_t i = 2; i < length; i++) {
    if (s[i] < 0x80 || s[i] > 0xbf) return 0;
  }
  return length;
}

void text_json_string(struct text *text, const char *string) {
  if (!string) {
    text_puts(text, "null");
    return;
  }
  const unsigned char *s = (const unsigned char *)string;
  text_append(text, "\"", 1);
  while (*s) {
    /* a run of characters that need no escape goes in one piece */
    size_t run = 0, step;
    while (s[run] >= 0x20 && s[run] != '"' && s[run] != '\\' && s[run] != 0x7f && (step = utf8_length(s + run)) > 0)
      run += step;
    text_append(text, (const char *)s, run);
    s += run;
    if (!*s) break;
    if (*s == '"' || *s == '\\') {
      text_printf(text, "\\%c", *s);
    } else if (*s == '\n') {
      text_puts(text, "\\n");
    } else if (*s == '\t') {
      text_puts(text, "\\t");
    } else if (*s < 0x20 || *s == 0x7f) {
      text_printf(text, "\\u%04x", *s);
    } else {
      text_puts(text, "\xef\xbf\xbd");
    }
    s++;
  }
  text_append(text, "\"", 1);
}

/* The decimal digits of a value, at the end of a buffer; returns where they begin. */
static char *decimal(char *end, unsigned long long value) {
  do {
    *--end = (char)('0' + value % 10);
    value /= 10;
  } while (value);
  return end;
}

void text_integer(struct text *text, long long value) {
  char digits[24], *end = digits + sizeof digits;
  char *start = decimal(end, value < 0 ? -(unsigned long long)value : (unsigned long long)value);
  if (value < 0) *--start = '-';
  text_append(text, start, (size_t)(end - start));
}

void text_ms(struct text *text, unsigned long long ns) {
  char digits[32], *end = digits + sizeof digits;
  unsigned long long us = ns / 1000 + (ns % 1000 >= 500);
  char *start = decimal(end, us % 1000 + 1000); /* three digits behind a 1, which becomes the point */
  *start = '.';
  start = decimal(start, us / 1000);
  text_append(text, start, (size_t)(end - start));
}

/* Between two neighbouring floats in the middle: rounding to double and then to float may go the wrong way there. */
static bool is_midpoint(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (bits & ((UINT64_C(1) << 29) - 1)) == UINT64_C(1) << 28;
}

/* Probabilities are written by the thousand, and printf and strtof take a microsecond each time. For 1e-4 <= value < 1 whole
 * numbers do: n / 10^places is rounded once as a double and once as a float, which is how the text reads back. False: not
 * decided. */
static bool put_probability(struct text *text, float value) {
  static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
  char digits[24], *end = digits + sizeof digits;
  int zeros = 0; /* between the point and the first digit */
  if (!(value >= 1e-4f && value < 1.0f)) return false;
  while ((double)value * powers[zeros + 1] < 1) zeros++;
  for (int precision = 6; precision <= 9; precision++) {
    int places = zeros + precision;
    double whole = nearbyint((double)value * powers[places]), back = whole / powers[places];
    if (is_midpoint(back)) return false;
    if ((float)back != value) continue;
    unsigned long long n = (unsigned long long)whole;
    while (n % 10 == 0) {
      n /= 10;
      places--;
    }
    char *start = decimal(end, n);
    while (end - start < places) *--start = '0';
    *--start = '.';
    *--start = '0';
    text_append(text, start, (size_t)(end - start));
    return true;
  }
  return false;
}

void text_json_float(struct text *text, float value) {
  char digits[32];
  if (!isfinite(value)) {
    text_puts(text, "null");
    return;
  }
  if (put_probability(text, value)) return;
  for (int precision = 6; precision <= 9; precision++) {
    snprintf(digits, sizeof digits, "%.*g", precision, (double)value);
    if (precision == 9 || strtof(digits, NULL) == value) break;
  }
  text_puts(text, digits);
}

char *text_take(struct text *text) {
  char *data = NULL;
  text_append(text, "", 0);
  if (text->failed) {
    free(text->data);
  } else {
    data = text->data;
  }
  *text = (struct text){0};
  return data;
}

void text_release(struct text *text) {
  free(text->data);
  *text = (struct text){0};
}
