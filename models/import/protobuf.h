/* A bounded reader of protobuf's wire format (protobuf.dev/programming-guides/encoding): one message's fields in order, without
 * a schema and without copies. */
#ifndef PROTOBUF_H
#define PROTOBUF_H

#include <stddef.h>
#include <stdint.h>

enum protobuf_wire { PROTOBUF_VARINT = 0, PROTOBUF_FIXED64 = 1, PROTOBUF_BYTES = 2, PROTOBUF_FIXED32 = 5 };

struct protobuf_reader {
  const uint8_t *at, *end;
};

struct protobuf_field {
  uint32_t number;
  enum protobuf_wire wire;
  uint64_t value;       /* of a varint or a fixed-size field, little-endian bits */
  const uint8_t *bytes; /* of a length-delimited field */
  size_t length;
};

enum protobuf_result { PROTOBUF_FIELD, PROTOBUF_END, PROTOBUF_DAMAGED };

/* The next field. PROTOBUF_DAMAGED: the field runs over the message's end, its number is 0, or its wire type is one that
 * proto2 and proto3 files do not use (groups, 6, 7). */
enum protobuf_result protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field);
/* One varint, as in packed lists. */
enum protobuf_result protobuf_varint(struct protobuf_reader *reader, uint64_t *value);
struct protobuf_reader protobuf_open(const uint8_t *bytes, size_t length);

#endif
