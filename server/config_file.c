/* The configuration file: JSON, read with jansson, whose values carry no line numbers; the line of a key is found by scanning
 * the text once more when a message needs it. */
#include "server/config.h"

#include "server/config_keys.h"

#include <errno.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct source {
  const char *bytes, *file, *folder;
  size_t length;
};

/* Line (from 1) on which the object key `outer`, or the key `inner` within outer's value, stands; 0 when it is not found. The
 * text is valid JSON. */
static int line_of(const struct source *source, const char *outer, const char *inner) {
  const char *s = source->bytes, *end = s + source->length;
  int line = 1, depth = 0, outer_line = 0;
  for (; s < end; s++) {
    if (*s == '\n') line++;
    if (*s == '{' || *s == '[') depth++;
    if (*s == '}' || *s == ']') depth--;
    if (*s != '"') continue;
    const char *start = ++s;
    while (s < end && *s != '"') s += *s == '\\' ? 2 : 1;
    const char *after = s + 1;
    while (after < end && strchr(" \t\r\n", *after)) after++;
    if (after >= end || *after != ':') continue;
    size_t length = (size_t)(s - start);
    if (depth == 1) {
      if (outer_line) break;
      if (strlen(outer) == length && memcmp(outer, start, length) == 0) outer_line = line;
      if (outer_line && !inner) return outer_line;
    } else if (depth == 2 && outer_line && strlen(inner) == length && memcmp(inner, start, length) == 0) {
      return line;
    }
  }
  return outer_line;
}

/* "FILE:LINE: KEY: what is wrong" */
static enum hwgq_status fail_at(const struct source *source, const char *key, const char *inner, enum hwgq_status status,
                                const char *what, struct hwgq_error *error) {
  return hwgq_fail(error, status, "%s:%d: %.64s%s%.64s: %s", source->file, line_of(source, key, inner), key, inner ? "." : "",
                   inner ? inner : "", what);
}

static const char *type_name(const json_t *value) {
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    return "an object";
  case JSON_ARRAY:
    return "a list";
  case JSON_STRING:
    return "a text";
  case JSON_INTEGER:
    return "a whole number";
  case JSON_REAL:
    return "a fraction";
  case JSON_TRUE:
  case JSON_FALSE:
    return "true or false";
  case JSON_NULL:
    return "null";
  }
  return "unknown";
}

/* models: "path", ["path", ...] or {"name": "path", ...} */
static enum hwgq_status read_models(const struct source *source, json_t *value, struct config *config,
                                    struct hwgq_error *error) {
  struct hwgq_error what;
  enum hwgq_status status = HWGQ_OK;
  const char *name;
  size_t index;
  json_t *item;
  config_clear_models(config);
  if (json_is_string(value)) {
    status = config_add_model(config, NULL, source->folder, json_string_value(value), &what);
    return status ? fail_at(source, "models", NULL, status, what.message, error) : HWGQ_OK;
  }
  if (json_is_array(value)) {
    json_array_foreach(value, index, item) {
      if (!json_is_string(item)) {
        return fail_at(source, "models", NULL, HWGQ_ERROR_INVALID, "every entry must be a path in quotes", error);
      }
      status = config_add_model(config, NULL, source->folder, json_string_value(item), &what);
      if (status) return fail_at(source, "models", NULL, status, what.message, error);
    }
    return HWGQ_OK;
  }
  if (!json_is_object(value)) {
    return fail_at(source, "models", NULL, HWGQ_ERROR_INVALID,
                   "must be a path, a list of paths, or an object of names and paths", error);
  }
  json_object_foreach(value, name, item) {
    if (!json_is_string(item)) return fail_at(source, "models", name, HWGQ_ERROR_INVALID, "must be a path in quotes", error);
    status = config_add_model(config, name, source->folder, json_string_value(item), &what);
    if (status) return fail_at(source, "models", name, status, what.message, error);
  }
  return HWGQ_OK;
}

static enum hwgq_status set_text(const struct source *source, const struct config_key *key, const char *value,
                                 struct config *config, struct hwgq_error *error) {
  struct text path = {0};
  if (key->kind != CONFIG_PATH || !source->folder || !*value || *value == '/') {
    return config_set_string(config, key, value, error);
  }
  text_printf(&path, "%s/%s", source->folder, value);
  enum hwgq_status status =
      path.failed ? hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory") : config_set_string(config, key, path.data, error);
  text_release(&path);
  return status;
}

static enum hwgq_status read_key(const struct source *source, const char *name, json_t *value, struct config *config,
                                 struct hwgq_error *error) {
  const struct config_key *key = strchr(name, '-') ? NULL : config_key_find(name, strlen(name));
  struct hwgq_error what;
  enum hwgq_status status;
  if (!key) {
    return fail_at(source, name, NULL, HWGQ_ERROR_INVALID, "unknown key; hwgqd --help lists all of them", error);
  }
  if (key->kind == CONFIG_MODELS) return read_models(source, value, config, error);
  if (key->kind == CONFIG_INTEGER) {
    if (!json_is_integer(value)) {
      hwgq_fail(&what, HWGQ_ERROR_INVALID, "must be a whole number, not %s", type_name(value));
      return fail_at(source, name, NULL, HWGQ_ERROR_INVALID, what.message, error);
    }
    status = config_set_integer(config, key, json_integer_value(value), &what);
  } else {
    if (!json_is_string(value)) {
      hwgq_fail(&what, HWGQ_ERROR_INVALID, "must be a text in quotes, not %s", type_name(value));
      return fail_at(source, name, NULL, HWGQ_ERROR_INVALID, what.message, error);
    }
    status = set_text(source, key, json_string_value(value), config, &what);
  }
  return status ? fail_at(source, name, NULL, status, what.message, error) : HWGQ_OK;
}

enum hwgq_status config_parse(const char *bytes, size_t length, const char *file, const char *folder, struct config *config,
                              struct hwgq_error *error) {
  const struct source source = {.bytes = bytes, .length = length, .file = file, .folder = folder};
  enum hwgq_status status = HWGQ_OK;
  json_error_t json_error;
  const char *name;
  json_t *value;
  if (length > CONFIG_MAX_FILE_BYTES) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: a configuration file may have %d bytes, this has %zu", file,
                     CONFIG_MAX_FILE_BYTES, length);
  }
  json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &json_error);
  if (!root) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s:%d: not valid JSON: %s", file, json_error.line, json_error.text);
  }
  if (!json_is_object(root)) {
    status = hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s:1: must be a JSON object: { \"listen\": ..., \"models\": ... }", file);
  } else {
    json_object_foreach(root, name, value) {
      if (strcmp(name, "$schema") == 0) continue;
      status = read_key(&source, name, value, config, error);
      if (status) break;
    }
  }
  json_decref(root);
  return status;
}

static char *read_file(const char *path, size_t *length, struct hwgq_error *error) {
  FILE *stream = fopen(path, "rb");
  char *bytes = malloc(CONFIG_MAX_FILE_BYTES + 1);
  size_t count = stream && bytes ? fread(bytes, 1, CONFIG_MAX_FILE_BYTES + 1, stream) : 0;
  if (!bytes || !stream || ferror(stream)) {
    hwgq_fail(error, HWGQ_ERROR_IO, "%s: cannot read the configuration file: %s", path, strerror(errno));
    free(bytes);
    bytes = NULL;
  }
  if (stream) fclose(stream);
  *length = count;
  return bytes;
}

enum hwgq_status config_read(const char *path, struct config *config, struct hwgq_error *error) {
  size_t length;
  char *bytes = read_file(path, &length, error);
  char *copy = strdup(path), *file = strdup(path);
  enum hwgq_status status = HWGQ_ERROR_IO;
  if (bytes && copy && file) {
    status = config_parse(bytes, length, path, dirname(copy), config, error);
    free(config->file);
    config->file = file;
    file = NULL;
  }
  free(bytes);
  free(copy);
  free(file);
  return status;
}
