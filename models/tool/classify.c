/* hwgq classify: the daemon's answer without the daemon. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/classify/classify.h"
#include "models/tool/tool.h"

enum { MAX_IMAGE_BYTES = 256 << 20 };

static const struct command_usage usage = {
    .name = "classify",
    .operands = "MODEL IMAGE...",
    .summary = "Prints the most probable classes of each image. The daemon gives the same probabilities, bit for bit.",
    .notes = "IMAGE may be - for standard input. An image that cannot be read is reported, and the others are still done.",
    .min_operands = 2,
    .max_operands = 1 << 30,
};

/* Any readable thing, pipes included. malloc'ed. */
static enum hwgq_status read_bytes(const char *path, uint8_t **bytes, size_t *length, struct hwgq_error *error) {
  FILE *file = strcmp(path, "-") ? fopen(path, "rb") : stdin;
  if (!file) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot open: %s", strerror(errno));
  uint8_t *buffer = NULL;
  size_t capacity = 0, used = 0;
  enum hwgq_status status = HWGQ_OK;
  while (!status && !feof(file)) {
    if (used == capacity) {
      capacity = capacity ? capacity * 2 : 256 << 10;
      uint8_t *larger = capacity <= MAX_IMAGE_BYTES ? realloc(buffer, capacity) : NULL;
      if (!larger) {
        status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "larger than the %d MiB that are read here", MAX_IMAGE_BYTES >> 20);
        break;
      }
      buffer = larger;
    }
    used += fread(buffer + used, 1, capacity - used, file);
    if (ferror(file)) status = hwgq_fail(error, HWGQ_ERROR_IO, "cannot read: %s", strerror(errno));
  }
  if (file != stdin) fclose(file);
  if (status) {
    free(buffer);
    return status;
  }
  *bytes = buffer;
  *length = used;
  return HWGQ_OK;
}

static enum hwgq_status classify_file(const struct classifier *classifier, struct classify_scratch *scratch, const char *path,
                                      struct classify_result *result, struct hwgq_error *error) {
  uint8_t *bytes = NULL;
  size_t length = 0;
  *result = (struct classify_result){0};
  enum hwgq_status status = read_bytes(path, &bytes, &length, error);
  if (status) return status;
  status = classify_bytes(classifier, scratch, bytes, length, NULL, result, error);
  free(bytes);
  return status;
}

/* {"file":...,"predictions":[...],"image":{...}}, or "error" in place of both. */
static void write_json(const struct classifier *classifier, const char *path, const struct classify_result *result, int top_k,
                       const char *message, struct text *text) {
  text_puts(text, "{\"file\":");
  text_json_string(text, path);
  if (message) {
    text_puts(text, ",\"error\":");
    text_json_string(text, message);
  } else {
    text_puts(text, ",\"predictions\":");
    classify_write_predictions(classifier->model, result->scores, top_k, text);
    text_puts(text, ",\"image\":");
    classify_write_image(&result->image, text);
  }
  text_puts(text, "}\n");
}

static void write_text(const struct classifier *classifier, const char *path, const struct classify_result *result, int top_k,
                       struct text *text) {
  struct hwgq_prediction *predictions = calloc((size_t)top_k, sizeof *predictions);
  if (!predictions) {
    text->failed = true;
    return;
  }
  int count = hwgq_top_k(result->scores, classifier->class_count, top_k, predictions);
  text_printf(text, "%s (%s, %dx%d)\n", path, image_format_name(result->image.format), result->image.width,
              result->image.height);
  for (int i = 0; i < count; i++) {
    text_printf(text, "  %9.5f %%  %s\n", 100 * (double)predictions[i].probability,
                classifier->model->labels[predictions[i].class_index]);
  }
  free(predictions);
}

static int classify_all(const struct classifier *classifier, char **paths, int count, int top_k, bool json) {
  struct classify_scratch *scratch;
  struct hwgq_error error;
  int failed = 0;
  if (classify_scratch_create(classifier, &scratch, &error)) return tool_failed(&usage, &error);
  for (int i = 0; i < count; i++) {
    struct classify_result result;
    struct text text = {0};
    bool bad = classify_file(classifier, scratch, paths[i], &result, &error) != HWGQ_OK;
    if (json) {
      write_json(classifier, paths[i], &result, top_k, bad ? error.message : NULL, &text);
    } else if (!bad) {
      write_text(classifier, paths[i], &result, top_k, &text);
    }
    if (!bad && text.failed) {
      bad = true;
      hwgq_fail(&error, HWGQ_ERROR_MEMORY, "out of memory");
    } else if (text.data) {
      fputs(text.data, stdout);
    }
    if (bad) fprintf(stderr, "hwgq classify: %s: %s\n", paths[i], error.message);
    failed += bad;
    text_release(&text);
  }
  classify_scratch_destroy(scratch);
  return failed ? EXIT_FAILED : EXIT_OK;
}

int command_classify(int argc, char **argv) {
  int top_k = 5;
  bool json = false;
  const struct option_spec options[] = {
      {"top-k", OPTION_INT, &top_k, "N", "classes to print for each image (default 5)", 1, CLASSIFY_MAX_TOP_K},
      {"json", OPTION_FLAG, &json, NULL, "print one JSON object per image", 0, 0},
      {0},
  };
  struct classifier *classifier;
  struct hwgq_error error;
  int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  if (classifier_open(argv[0], NULL, &classifier, &error)) return tool_failed(&usage, &error);
  if (top_k > classifier->class_count) top_k = classifier->class_count;
  code = classify_all(classifier, argv + 1, argc - 1, top_k, json);
  classifier_destroy(classifier);
  return code;
}
