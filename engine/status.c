/* Status words and error messages. */
#include "engine/hwgq.h"

#include <stdarg.h>
#include <stdio.h>

enum hwgq_status hwgq_fail(struct hwgq_error *error, enum hwgq_status status, const char *format, ...) {
  if (error) {
    va_list arguments;
    va_start(arguments, format);
    /* A message that is too long is cut: it is for people, and the front of it says what and where. */
    vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
  }
  return status;
}

const char *hwgq_status_name(enum hwgq_status status) {
  switch (status) {
  case HWGQ_OK:
    return "ok";
  case HWGQ_ERROR_IO:
    return "io";
  case HWGQ_ERROR_FORMAT:
    return "format";
  case HWGQ_ERROR_INVALID:
    return "invalid";
  case HWGQ_ERROR_LIMIT:
    return "limit";
  case HWGQ_ERROR_MEMORY:
    return "memory";
  case HWGQ_ERROR_UNSUPPORTED:
    return "unsupported";
  }
  return "unknown";
}
