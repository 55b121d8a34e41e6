/* The text: tokens and nesting. The values of fields are in prototxt_value.c. */
#include "models/import/prototxt.h"

#include <stdlib.h>
#include <string.h>

struct parser {
  struct prototxt *document;
  size_t at;
  struct hwgq_error *error;
};

static int line_at(const char *text, size_t offset) {
  int line = 1;
  for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
  return line;
}

static enum hwgq_status syntax(const struct parser *parser, const char *what) {
  return hwgq_fail(parser->error, HWGQ_ERROR_FORMAT, "prototxt line %d: %s", line_at(parser->document->text, parser->at), what);
}

static int peek(const struct parser *parser) {
  return parser->at < parser->document->length ? (unsigned char)parser->document->text[parser->at] : -1;
}

static void skip_space(struct parser *parser) {
  for (;;) {
    int c = peek(parser);
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v') {
      parser->at++;
    } else if (c == '#') {
      while (peek(parser) != -1 && peek(parser) != '\n') parser->at++;
    } else {
      return;
    }
  }
}

static bool take(struct parser *parser, char wanted) {
  skip_space(parser);
  if (peek(parser) != (unsigned char)wanted) return false;
  parser->at++;
  return true;
}

static bool is_word_byte(int c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '+' || c == '-' ||
         c == '.';
}

static enum hwgq_status add_field(struct parser *parser, int *previous, int parent, int *index) {
  struct prototxt *document = parser->document;
  if (document->count == document->capacity)
    return hwgq_fail(parser->error, HWGQ_ERROR_LIMIT,
                     "prototxt: more than %d fields in %zu bytes; no network of this kind needs so many", document->capacity,
                     document->length);
  *index = document->count++;
  document->fields[*index] = (struct prototxt_field){.child = PROTOTXT_NONE, .next = PROTOTXT_NONE};
  if (*previous != PROTOTXT_NONE)
    document->fields[*previous].next = *index;
  else if (parent != PROTOTXT_NONE)
    document->fields[parent].child = *index;
  *previous = *index;
  return HWGQ_OK;
}

/* One or more adjacent strings. */
static enum hwgq_status parse_strings(struct parser *parser, struct prototxt_field *field) {
  field->kind = PROTOTXT_STRING;
  field->value_offset = (uint32_t)parser->at;
  size_t end;
  do {
    int quote = peek(parser);
    for (parser->at++; peek(parser) != quote; parser->at++) {
      int c = peek(parser);
      if (c == -1 || c == '\n') return syntax(parser, "a string does not end on its line");
      if (c == '\\') parser->at++;
      if (peek(parser) == -1 || peek(parser) == '\n') return syntax(parser, "a string does not end on its line");
    }
    end = ++parser->at;
    skip_space(parser);
  } while (peek(parser) == '"' || peek(parser) == '\'');
  field->value_length = (uint32_t)(end - field->value_offset);
  return HWGQ_OK;
}

static enum hwgq_status parse_scalar(struct parser *parser, struct prototxt_field *field) {
  skip_space(parser);
  if (peek(parser) == '"' || peek(parser) == '\'') return parse_strings(parser, field);
  field->kind = PROTOTXT_WORD;
  field->value_offset = (uint32_t)parser->at;
  while (is_word_byte(peek(parser))) parser->at++;
  field->value_length = (uint32_t)(parser->at - field->value_offset);
  return field->value_length ? HWGQ_OK : syntax(parser, "expected a value: a number, a word, a string or { ... }");
}

static enum hwgq_status parse_fields(struct parser *parser, int parent, char close, int depth);

/* A value after the field's name; `colon` says whether a colon was read. */
static enum hwgq_status parse_value(struct parser *parser, int index, bool colon, int depth) {
  bool brace = take(parser, '{');
  if (brace || take(parser, '<')) {
    if (depth == PROTOTXT_MAX_DEPTH) return syntax(parser, "messages are nested too deep");
    parser->document->fields[index].kind = PROTOTXT_MESSAGE;
    return parse_fields(parser, index, brace ? '}' : '>', depth + 1);
  }
  if (!colon) return syntax(parser, "expected ':' or '{' after a field's name");
  return parse_scalar(parser, &parser->document->fields[index]);
}

/* [a, b]: as if the field had been written once for each element. */
static enum hwgq_status parse_list(struct parser *parser, int parent, int *previous, uint32_t name_offset, uint16_t name_length,
                                   int depth) {
  if (take(parser, ']')) return HWGQ_OK;
  do {
    int index = 0;
    enum hwgq_status status = add_field(parser, previous, parent, &index);
    if (status) return status;
    parser->document->fields[index].name_offset = name_offset;
    parser->document->fields[index].name_length = name_length;
    status = parse_value(parser, index, true, depth);
    if (status) return status;
  } while (take(parser, ','));
  return take(parser, ']') ? HWGQ_OK : syntax(parser, "expected ',' or ']' in a list");
}

static enum hwgq_status parse_field(struct parser *parser, int parent, int *previous, int depth) {
  const char *text = parser->document->text;
  size_t name = parser->at;
  while (is_word_byte(peek(parser)) && !strchr("+-.", text[parser->at])) parser->at++;
  size_t length = parser->at - name;
  if (length == 0) return syntax(parser, "expected a field's name or the end of the message");
  if (length > 128) return syntax(parser, "a field's name has more than 128 letters");
  bool colon = take(parser, ':');
  if (colon && take(parser, '[')) return parse_list(parser, parent, previous, (uint32_t)name, (uint16_t)length, depth);
  int index = 0;
  enum hwgq_status status = add_field(parser, previous, parent, &index);
  if (status) return status;
  parser->document->fields[index].name_offset = (uint32_t)name;
  parser->document->fields[index].name_length = (uint16_t)length;
  return parse_value(parser, index, colon, depth);
}

/* Fields up to the closing brace; close 0: up to the end of the text. */
static enum hwgq_status parse_fields(struct parser *parser, int parent, char close, int depth) {
  int previous = PROTOTXT_NONE;
  for (;;) {
    skip_space(parser);
    if (peek(parser) == -1) return close ? syntax(parser, "the file ends inside a message: it is cut short") : HWGQ_OK;
    if (close && take(parser, close)) return HWGQ_OK;
    enum hwgq_status status = parse_field(parser, parent, &previous, depth);
    if (status) return status;
    if (!take(parser, ',')) (void)take(parser, ';');
  }
}

/* No more fields than the text can have, the root and an unfinished one at its end included: every other needs one of these
 * bytes. Never more than the limit. */
static int bound_fields(const char *text, size_t length) {
  size_t most = PROTOTXT_SOME_FIELDS + length / PROTOTXT_FIELD_BYTES, count = 2;
  if (most > PROTOTXT_MAX_FIELDS) most = PROTOTXT_MAX_FIELDS;
  for (size_t i = 0; i < length && count < most; i++)
    count += text[i] == ':' || text[i] == '{' || text[i] == '<' || text[i] == '[' || text[i] == ',';
  return (int)count;
}

enum hwgq_status prototxt_parse(const char *text, size_t length, struct prototxt *document, struct hwgq_error *error) {
  if (length > UINT32_MAX / 2) return hwgq_fail(error, HWGQ_ERROR_LIMIT, "prototxt: the text is too long");
  *document = (struct prototxt){.text = text, .length = length};
  struct parser parser = {document, 0, error};
  document->capacity = bound_fields(text, length);
  document->fields = malloc((size_t)document->capacity * sizeof *document->fields);
  if (!document->fields) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
  int previous = PROTOTXT_NONE, root;
  enum hwgq_status status = add_field(&parser, &previous, PROTOTXT_NONE, &root);
  if (!status) status = parse_fields(&parser, root, 0, 0);
  if (status) prototxt_release(document);
  return status;
}

void prototxt_release(struct prototxt *document) {
  free(document->fields);
  *document = (struct prototxt){0};
}

int prototxt_line(const struct prototxt *document, int field) {
  return line_at(document->text, document->fields[field].name_offset);
}
