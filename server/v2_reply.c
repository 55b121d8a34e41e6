#include "server/v2_reply.h"

#include <stdlib.h>
#include <string.h>

static const float *row(const struct v2_result *result, int i) {
  return result->scores + (size_t)i * (size_t)result->model->class_count;
}

static const char *label(const struct v2_result *result, int class_index) {
  const char *name = result->model->labels ? result->model->labels[class_index] : NULL;
  return name ? name : "";
}

static int best(const struct v2_result *result, int i) {
  struct hwgq_prediction first = {0};
  hwgq_top_k(row(result, i), result->model->class_count, 1, &first);
  return first.class_index;
}

/* Elements of one image in this output. */
static int columns(const struct v2_output *output, const struct v2_result *result) {
  int classes = result->model->class_count;
  if (output->kind != V2_PROBABILITIES) return 1;
  return output->classification && output->classification < classes ? output->classification : classes;
}

static void put_u32(struct text *text, uint32_t value) {
  const char bytes[4] = {(char)value, (char)(value >> 8), (char)(value >> 16), (char)(value >> 24)};
  text_append(text, bytes, sizeof bytes);
}

/* Where the elements of one output go. */
struct sink {
  struct text *text;
  bool binary, first;
};

static void separate(struct sink *sink) {
  if (!sink->first) text_puts(sink->text, ",");
  sink->first = false;
}

static void put_float(struct sink *sink, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (sink->binary) {
    put_u32(sink->text, bits);
  } else {
    separate(sink);
    text_json_float(sink->text, value);
  }
}

static void put_integer(struct sink *sink, int value) {
  if (sink->binary) {
    put_u32(sink->text, (uint32_t)value);
  } else {
    separate(sink);
    text_integer(sink->text, value);
  }
}

static void put_string(struct sink *sink, const char *string) {
  if (sink->binary) {
    put_u32(sink->text, (uint32_t)strlen(string));
    text_puts(sink->text, string);
  } else {
    separate(sink);
    text_json_string(sink->text, string);
  }
}

/* "value:index:label" of the best `count` classes of every image. */
static void write_classification(const struct v2_result *result, int count, struct sink *sink) {
  struct hwgq_prediction *predictions = malloc((size_t)count * sizeof *predictions);
  if (!predictions) sink->text->failed = true;
  for (int i = 0; predictions && i < result->batch; i++) {
    hwgq_top_k(row(result, i), result->model->class_count, count, predictions);
    for (int k = 0; k < count; k++) {
      struct text element = {0};
      text_json_float(&element, predictions[k].probability);
      text_printf(&element, ":%d:%s", predictions[k].class_index, label(result, predictions[k].class_index));
      if (element.failed) {
        sink->text->failed = true;
      } else {
        put_string(sink, element.data);
      }
      text_release(&element);
    }
  }
  free(predictions);
}

static void write_elements(const struct v2_output *output, const struct v2_result *result, struct sink *sink) {
  if (output->classification) {
    write_classification(result, columns(output, result), sink);
    return;
  }
  for (int i = 0; i < result->batch; i++) {
    if (output->kind == V2_CLASS) {
      put_integer(sink, best(result, i));
    } else if (output->kind == V2_LABEL) {
      put_string(sink, label(result, best(result, i)));
    } else {
      for (int c = 0; c < result->model->class_count; c++) put_float(sink, row(result, i)[c]);
    }
  }
}

/* `binary` collects what goes behind the object. */
static void write_output(const struct v2_output *output, const struct v2_result *result, struct text *text,
                         struct text *binary) {
  bool strings = output->classification || output->kind == V2_LABEL;
  const char *datatype = strings ? "BYTES" : output->kind == V2_CLASS ? "INT32" : "FP32";
  text_printf(text, "{\"name\":\"%s\",\"datatype\":\"%s\",\"shape\":[%d", v2_output_name(output->kind), datatype,
              result->batch);
  if (output->kind == V2_PROBABILITIES) text_printf(text, ",%d", columns(output, result));
  text_puts(text, "]");
  struct sink sink = {.text = output->binary ? binary : text, .binary = output->binary, .first = true};
  if (output->binary) {
    size_t before = binary->length;
    write_elements(output, result, &sink);
    text_printf(text, ",\"parameters\":{\"binary_data_size\":%zu}}", binary->length - before);
  } else {
    text_puts(text, ",\"data\":[");
    write_elements(output, result, &sink);
    text_puts(text, "]}");
  }
}

void v2_write(const struct v2_request *request, const struct v2_result *result, struct text *text, size_t *json_length) {
  struct text binary = {0};
  size_t before = text->length;
  text_printf(text, "{\"model_name\":\"%s\",\"model_version\":\"%d\"", result->model_name, result->model_version);
  if (request->has_id) {
    text_puts(text, ",\"id\":");
    text_json_string(text, request->id);
  }
  text_puts(text, ",\"outputs\":[");
  for (int i = 0; i < request->output_count; i++) {
    if (i) text_puts(text, ",");
    write_output(&request->outputs[i], result, text, &binary);
  }
  text_puts(text, "]}");
  *json_length = binary.length ? text->length - before : 0;
  if (binary.failed) text->failed = true;
  if (binary.length) text_append(text, binary.data, binary.length);
  text_release(&binary);
}
