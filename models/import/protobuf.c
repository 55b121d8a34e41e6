#include "models/import/protobuf.h"

struct protobuf_reader protobuf_open(const uint8_t *bytes, size_t length) {
  return (struct protobuf_reader){bytes, length ? bytes + length : bytes};
}

enum protobuf_result protobuf_varint(struct protobuf_reader *reader, uint64_t *value) {
  *value = 0;
  if (reader->at == reader->end) return PROTOBUF_END;
  for (int shift = 0; shift < 70; shift += 7) {
    if (reader->at == reader->end) return PROTOBUF_DAMAGED;
    uint8_t byte = *reader->at++;
    if (shift == 63 && byte > 1) return PROTOBUF_DAMAGED;
    *value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return PROTOBUF_FIELD;
  }
  return PROTOBUF_DAMAGED;
}

static enum protobuf_result fixed(struct protobuf_reader *reader, int bytes, uint64_t *value) {
  if (reader->end - reader->at < bytes) return PROTOBUF_DAMAGED;
  *value = 0;
  for (int i = 0; i < bytes; i++) *value |= (uint64_t)reader->at[i] << 8 * i;
  reader->at += bytes;
  return PROTOBUF_FIELD;
}

enum protobuf_result protobuf_next(struct protobuf_reader *reader, struct protobuf_field *field) {
  uint64_t key;
  enum protobuf_result result = protobuf_varint(reader, &key);
  if (result != PROTOBUF_FIELD) return result;
  if (key >> 3 == 0 || key >> 3 > 0x1fffffff) return PROTOBUF_DAMAGED;
  *field = (struct protobuf_field){.number = (uint32_t)(key >> 3), .wire = (enum protobuf_wire)(key & 7)};
  switch (key & 7) {
  case PROTOBUF_VARINT:
    return protobuf_varint(reader, &field->value) == PROTOBUF_FIELD ? PROTOBUF_FIELD : PROTOBUF_DAMAGED;
  case PROTOBUF_FIXED64:
    return fixed(reader, 8, &field->value);
  case PROTOBUF_FIXED32:
    return fixed(reader, 4, &field->value);
  case PROTOBUF_BYTES:
    if (protobuf_varint(reader, &key) != PROTOBUF_FIELD || key > (uint64_t)(reader->end - reader->at)) return PROTOBUF_DAMAGED;
    field->bytes = reader->at;
    field->length = (size_t)key;
    reader->at += field->length;
    return PROTOBUF_FIELD;
  default:
    return PROTOBUF_DAMAGED;
  }
}
