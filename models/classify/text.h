/* Text that grows while it is written, and JSON strings in it. */
#ifndef TEXT_H
#define TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* Zero-initialized is empty. After a failed allocation `failed` is set, further writes do nothing, and what was written must
 * not be used: check once at the end. */
struct text {
  char *data; /* zero-terminated once anything was written; NULL before */
  size_t length, capacity;
  bool failed;
};

void text_append(struct text *text, const char *bytes, size_t length);
void text_puts(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *text, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
/* A JSON string in quotes. Control characters are escaped, bytes that are not UTF-8 become U+FFFD. NULL gives null. */
void text_json_string(struct text *text, const char *string);
/* A float so that it reads back to the same bits, in as few digits (6 to 9) as that takes; null when it is not finite. */
void text_json_float(struct text *text, float value);
void text_integer(struct text *text, long long value);
/* Nanoseconds as milliseconds with three decimals, rounded: 1234567 gives 1.235. */
void text_ms(struct text *text, unsigned long long ns);
/* Hands the string over (to be freed by the caller) and empties the text; NULL when it failed. An empty text gives "". */
char *text_take(struct text *text);
void text_release(struct text *text);

#endif
