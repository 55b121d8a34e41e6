/* The images of an input tensor, one after another, from JSON or binary data. */
#include "server/v2_request.h"

#include <math.h>
#include <string.h>

static enum hwgq_status fail(const struct v2_reader *reader, const char *what, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_FORMAT, "input '%s': %s", v2_input_name(reader->input->datatype), what);
}

static enum hwgq_status json_failure(const struct v2_reader *reader, struct hwgq_error *error) {
  return fail(reader, reader->scan.problem ? reader->scan.problem : "data has fewer elements than the shape says", error);
}

/* Elements of one image. */
static uint64_t image_elements(const struct v2_input *input) {
  if (input->datatype == V2_BYTES) return 1;
  return (uint64_t)input->height * (uint64_t)input->width * (uint64_t)input->channels;
}

/* Dimensions are at most 2^24, so three of them fit 72 bits: each product is checked against what can follow. */
static bool elements_fit(const struct v2_input *input) {
  uint64_t total = 1;
  for (int i = 0; i < input->rank; i++) {
    if (total > UINT64_C(1) << 32) return false;
    total *= (uint64_t)input->shape[i];
  }
  return total <= UINT64_C(1) << 32;
}

enum hwgq_status v2_reader_init(struct v2_reader *reader, const struct v2_input *input, struct hwgq_error *error) {
  *reader = (struct v2_reader){.input = input, .at = input->bytes};
  if (!elements_fit(input)) return fail(reader, "the shape has too many elements", error);
  uint64_t total = image_elements(input) * (uint64_t)input->batch;
  if (input->binary) {
    uint64_t bytes = total * (input->datatype == V2_FP32 ? sizeof(float) : 1);
    if (input->datatype != V2_BYTES && bytes != input->length) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "input '%s': the shape needs %llu bytes, and there are %zu",
                       v2_input_name(input->datatype), (unsigned long long)bytes, input->length);
    }
    return HWGQ_OK;
  }
  /* An element takes two characters at least, with its comma or bracket. */
  if (total > input->length / 2) return fail(reader, "data has fewer elements than the shape says", error);
  scan_init(&reader->scan, input->bytes, input->length);
  scan_open(&reader->scan, '[');
  reader->nested = scan_peek(&reader->scan) == SCAN_ARRAY && input->rank > 1;
  return HWGQ_OK;
}

/* Enters the arrays that begin with the next element. */
static bool before_element(struct v2_reader *reader) {
  struct scan *scan = &reader->scan;
  const struct v2_input *input = reader->input;
  uint64_t block = 1; /* elements of an array of the dimension at hand */
  int begin = input->rank;
  while (reader->nested && begin > 1 && reader->index % (block * (uint64_t)input->shape[begin - 1]) == 0) {
    block *= (uint64_t)input->shape[--begin];
  }
  for (int i = begin; reader->nested && i < input->rank; i++) {
    if (!scan_more(scan, ']') || !scan_open(scan, '[')) return false;
  }
  return scan_more(scan, ']');
}

/* Leaves the arrays that end with the last element. */
static bool after_element(struct v2_reader *reader) {
  const struct v2_input *input = reader->input;
  uint64_t block = 1;
  reader->index++;
  for (int i = input->rank - 1; reader->nested && i > 0; i--) {
    block *= (uint64_t)input->shape[i];
    if (reader->index % block != 0) break;
    if (scan_more(&reader->scan, ']')) return scan_fail(&reader->scan, "an array of data is longer than the shape says");
  }
  return !reader->scan.problem;
}

/* {"b64": "..."} */
static bool b64_object(struct scan *scan, struct scan_string *text) {
  struct scan_string key;
  bool found = false;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    scan_unescape(&key);
    if (!scan_equals(&key, "b64")) return scan_fail(scan, "an element of BYTES that is an object must be {\"b64\": \"...\"}");
    if (found || !scan_string(scan, text)) return scan_fail(scan, "b64 must be one string");
    found = true;
  }
  return found ? !scan->problem : scan_fail(scan, "an element of BYTES that is an object must be {\"b64\": \"...\"}");
}

enum hwgq_status v2_read_bytes(struct v2_reader *reader, uint8_t **bytes, size_t *length, struct hwgq_error *error) {
  const struct v2_input *input = reader->input;
  if (!input->binary) {
    struct scan_string text = {0};
    struct scan *scan = &reader->scan;
    bool good = before_element(reader) &&
                (scan_peek(scan) == SCAN_OBJECT ? b64_object(scan, &text) : scan_string(scan, &text)) && after_element(reader);
    if (!good) return json_failure(reader, error);
    scan_unescape(&text);
    *bytes = text.bytes;
    *length = text.length;
    return scan_base64(text.bytes, length) ? HWGQ_OK : fail(reader, "an element is no base64", error);
  }
  size_t left = input->length - (size_t)(reader->at - input->bytes);
  if (input->whole) {
    *length = left;
  } else {
    if (left < 4) return fail(reader, "the binary data end before the length of an element", error);
    *length = reader->at[0] | (size_t)reader->at[1] << 8 | (size_t)reader->at[2] << 16 | (size_t)reader->at[3] << 24;
    reader->at += 4;
    if (*length > left - 4) return fail(reader, "the binary data end before their element does", error);
  }
  *bytes = reader->at;
  reader->at += *length;
  return HWGQ_OK;
}

/* JSON is turned into pixels where it lies: each takes two characters at least, so what is written never reaches what is still
 * to be read, also in the images after the first. */
enum hwgq_status v2_read_pixels(struct v2_reader *reader, uint8_t **pixels, struct hwgq_error *error) {
  uint64_t count = image_elements(reader->input);
  *pixels = reader->at;
  if (reader->input->binary) {
    reader->at += count;
    return HWGQ_OK;
  }
  for (uint64_t i = 0; i < count; i++) {
    int64_t value = 0;
    if (!before_element(reader) || !scan_integer(&reader->scan, &value)) return json_failure(reader, error);
    if (value < 0 || value > 255) return fail(reader, "an element is not from 0 to 255", error);
    if (!after_element(reader)) return json_failure(reader, error);
    reader->at[i] = (uint8_t)value;
  }
  return HWGQ_OK;
}

enum hwgq_status v2_read_values(struct v2_reader *reader, float *values, struct hwgq_error *error) {
  uint64_t count = image_elements(reader->input);
  bool finite = true;
  if (reader->input->binary) {
    memcpy(values, reader->at, (size_t)count * sizeof *values);
    reader->at += count * sizeof *values;
  }
  for (uint64_t i = 0; !reader->input->binary && i < count; i++) {
    double value = 0;
    if (!before_element(reader) || !scan_number(&reader->scan, &value) || !after_element(reader)) {
      return json_failure(reader, error);
    }
    values[i] = (float)value;
  }
  for (uint64_t i = 0; i < count; i++) finite &= isfinite(values[i]) != 0;
  return finite ? HWGQ_OK : fail(reader, "an element is no finite FP32 number", error);
}

enum hwgq_status v2_reader_finish(struct v2_reader *reader, struct hwgq_error *error) {
  const struct v2_input *input = reader->input;
  if (input->binary) {
    bool all = reader->at == input->bytes + input->length;
    return all ? HWGQ_OK : fail(reader, "there are more binary data than the shape says", error);
  }
  if (scan_more(&reader->scan, ']')) return fail(reader, "data has more elements than the shape says", error);
  return scan_finish(&reader->scan) ? HWGQ_OK : json_failure(reader, error);
}
