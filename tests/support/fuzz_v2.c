#include "tests/support/fuzz_v2.h"

#include "server/v2_reply.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3, MAX_BATCH = 1000, MAX_ELEMENTS = 1 << 20 };

static bool inside(const uint8_t *at, size_t length, const uint8_t *body, size_t body_length) {
  return at >= body && at <= body + body_length && length <= body_length - (size_t)(at - body);
}

static const char *check_parsed(const struct v2_request *request, const uint8_t *body, size_t length) {
  const struct v2_input *input = &request->input;
  if (!inside(input->bytes, input->length, body, length)) return "a tensor outside of the body";
  if (input->rank < 1 || input->rank > V2_MAX_RANK || input->batch < 1) return "an impossible shape";
  if (input->datatype != V2_BYTES && (input->height < 1 || input->width < 1 || input->channels < 1)) return "an empty image";
  if (request->output_count < 1 || request->output_count > V2_MAX_OUTPUTS) return "an impossible number of outputs";
  for (int i = 0; i < request->output_count; i++) {
    if (request->outputs[i].kind >= V2_OUTPUTS || request->outputs[i].classification < 0) return "an impossible output";
  }
  return memchr(request->id, 0, sizeof request->id) ? NULL : "an id without an end";
}

static enum hwgq_status read_image(struct v2_reader *reader, float *values, const uint8_t *body, size_t body_length,
                                   const char **problem, struct hwgq_error *error) {
  const struct v2_input *input = reader->input;
  uint8_t *bytes = NULL;
  size_t length = 0, count = (size_t)input->height * (size_t)input->width * (size_t)input->channels;
  uint64_t sum = 0;
  enum hwgq_status status;
  if (input->datatype == V2_FP32) {
    status = v2_read_values(reader, values, error);
    for (size_t i = 0; !status && i < count; i++) {
      if (!isfinite(values[i])) *problem = "a value that is no number";
    }
    return status;
  }
  if (input->datatype == V2_BYTES) {
    status = v2_read_bytes(reader, &bytes, &length, error);
  } else {
    status = v2_read_pixels(reader, &bytes, error);
    length = count;
  }
  if (!status && !inside(bytes, length, body, body_length)) *problem = "an image outside of the body";
  for (size_t i = 0; !status && !*problem && i < length; i++) sum += bytes[i];
  if (sum > 255 * (uint64_t)length) *problem = "bytes that are none"; /* so that every byte is looked at */
  return status;
}

/* As the daemon does: the shape is checked against limits, then against what is there, before anything is allocated. */
static enum hwgq_status read_all(const struct v2_request *request, const uint8_t *body, size_t length, const char **problem,
                                 struct hwgq_error *error) {
  const struct v2_input *input = &request->input;
  struct v2_reader reader;
  uint64_t elements = (uint64_t)input->height * (uint64_t)input->width;
  if (input->batch > MAX_BATCH) return hwgq_fail(error, HWGQ_ERROR_LIMIT, "a large batch");
  enum hwgq_status status = v2_reader_init(&reader, input, error);
  if (status) return status;
  elements *= (uint64_t)input->channels;
  if (elements > MAX_ELEMENTS) return hwgq_fail(error, HWGQ_ERROR_LIMIT, "a large image");
  float *values = malloc((size_t)(elements ? elements : 1) * sizeof *values);
  if (!values) abort();
  for (int i = 0; i < input->batch && !status && !*problem; i++) {
    status = read_image(&reader, values, body, length, problem, error);
  }
  if (!status) status = v2_reader_finish(&reader, error);
  free(values);
  return status;
}

static const char *check_reply(const struct v2_request *request) {
  char first[] = "a", second[] = "b \"\xc3\xa9", third[] = "\xff", *labels[CLASSES] = {first, second, third};
  const struct hwgq_model model = {.class_count = CLASSES, .labels = labels};
  float *scores = calloc((size_t)request->input.batch * CLASSES, sizeof *scores);
  struct text text = {0};
  size_t json_length;
  if (!scores) abort();
  for (int i = 0; i < request->input.batch * CLASSES; i++) scores[i] = (float)(i % 7) / 7;
  const struct v2_result result = {"name", 3, &model, scores, request->input.batch};
  v2_write(request, &result, &text, &json_length);
  json_t *reply = text.failed ? NULL : json_loadb(text.data, json_length ? json_length : text.length, 0, NULL);
  size_t count = json_array_size(json_object_get(reply, "outputs"));
  const char *problem = count == (size_t)request->output_count ? NULL : "a reply that is no JSON";
  json_decref(reply);
  text_release(&text);
  free(scores);
  return problem;
}

const char *fuzz_v2_check(const uint8_t *bytes, size_t length, size_t json_length, bool *accepted) {
  struct v2_request request;
  struct hwgq_error error = {{0}};
  const char *problem = NULL;
  uint8_t *body = malloc(length ? length : 1); /* texts are unescaped in it */
  if (!body) abort();
  if (length) memcpy(body, bytes, length);
  enum hwgq_status status = v2_parse(body, length, json_length, &request, &error);
  if (!status) problem = check_parsed(&request, body, length);
  if (!status && !problem) status = read_all(&request, body, length, &problem, &error);
  if (status && !error.message[0]) problem = "refused without a message";
  if (!status && !problem) problem = check_reply(&request);
  *accepted = !status;
  free(body);
  return problem;
}
