/* A bounded reader of protobuf's text format, as Caffe's prototxt files use it:
 *   name: value   name { ... }   name: { ... }   name: [v, v]   name < ... >   # comment   fields may end in , or ;
 * Values are strings ("..." or '...', adjacent ones join) or words (numbers, true, false, enum names).
 *
 * The document is a flat array of fields that point into the text, which must outlive it. Every getter marks what it read:
 * prototxt_unused then finds what nobody asked for, so that nothing is ignored by accident. */
#ifndef PROTOTXT_H
#define PROTOTXT_H

#include "engine/hwgq.h"

enum {
  PROTOTXT_MAX_FIELDS = 1 << 16,
  /* A file of n bytes may have PROTOTXT_SOME_FIELDS + n / PROTOTXT_FIELD_BYTES fields, so that they take 3 n bytes beside a
   * constant. Networks that people and Caffe write have some 20 bytes a field. */
  PROTOTXT_FIELD_BYTES = 8,
  PROTOTXT_SOME_FIELDS = 64,
  PROTOTXT_MAX_DEPTH = 16,
  PROTOTXT_STRING_SIZE = 256, /* of a string value, its NUL included */
};

enum prototxt_kind { PROTOTXT_MESSAGE, PROTOTXT_WORD, PROTOTXT_STRING };

struct prototxt_field {
  uint32_t name_offset, value_offset, value_length; /* a string's span includes its quotes */
  int32_t child, next;                              /* field indices; -1: none */
  uint16_t name_length;
  uint8_t kind; /* enum prototxt_kind */
  bool used;
};

struct prototxt {
  const char *text;
  size_t length;
  struct prototxt_field *fields; /* [0] is the file itself, a message without a name */
  int count, capacity;
};

enum { PROTOTXT_ROOT = 0, PROTOTXT_NONE = -1 };

/* On failure there is nothing to release. */
enum hwgq_status prototxt_parse(const char *text, size_t length, struct prototxt *document, struct hwgq_error *error);
void prototxt_release(struct prototxt *document);

/* The first field `name` of a message, and the next one of the same name; PROTOTXT_NONE: none. Both mark the field as read. */
int prototxt_find(struct prototxt *document, int message, const char *name);
int prototxt_find_next(struct prototxt *document, int field);
bool prototxt_is(const struct prototxt *document, int field, const char *name);
/* A field's name, cut to the buffer. */
void prototxt_name(const struct prototxt *document, int field, char *buffer, size_t size);
int prototxt_line(const struct prototxt *document, int field);

/* The value of one field. A string must be printable ASCII of less than PROTOTXT_STRING_SIZE bytes. */
enum hwgq_status prototxt_string(const struct prototxt *document, int field, char *value, struct hwgq_error *error);
enum hwgq_status prototxt_word(const struct prototxt *document, int field, char *value, struct hwgq_error *error);
enum hwgq_status prototxt_integer(const struct prototxt *document, int field, int64_t minimum, int64_t maximum, int64_t *value,
                                  struct hwgq_error *error);
enum hwgq_status prototxt_float(const struct prototxt *document, int field, float *value, struct hwgq_error *error);

/* The value of an optional field that may occur once; *value keeps what it has when the field is absent. */
enum hwgq_status prototxt_get_message(struct prototxt *document, int message, const char *name, int *value,
                                      struct hwgq_error *error); /* absent: PROTOTXT_NONE */
enum hwgq_status prototxt_get_string(struct prototxt *document, int message, const char *name, char *value,
                                     struct hwgq_error *error);
enum hwgq_status prototxt_get_word(struct prototxt *document, int message, const char *name, char *value,
                                   struct hwgq_error *error);
enum hwgq_status prototxt_get_integer(struct prototxt *document, int message, const char *name, int64_t minimum,
                                      int64_t maximum, int *value, struct hwgq_error *error);
enum hwgq_status prototxt_get_float(struct prototxt *document, int message, const char *name, float *value,
                                    struct hwgq_error *error);
enum hwgq_status prototxt_get_bool(struct prototxt *document, int message, const char *name, bool *value,
                                   struct hwgq_error *error);

/* Marks every field `name` of a message, with all that is in it, as read. Returns whether there was one. */
bool prototxt_ignore(struct prototxt *document, int message, const char *name);
/* The first field in a message, at any depth, that nobody read. */
int prototxt_unused(const struct prototxt *document, int message);

#endif
