/* Protocol-buffer messages of an ONNX model, written by hand: field numbers are those of onnx.proto. */
#ifndef PEERS_ONNX_PROTO_H
#define PEERS_ONNX_PROTO_H

#include <stddef.h>
#include <stdint.h>

struct proto {
  uint8_t *data;
  size_t length, room;
};

enum onnx_type { ONNX_FLOAT = 1, ONNX_UINT8 = 2, ONNX_INT8 = 3, ONNX_INT32 = 6 };

void proto_integer(struct proto *message, int field, uint64_t value);
void proto_bytes(struct proto *message, int field, const void *data, size_t length);
void proto_text(struct proto *message, int field, const char *text);
/* Appends `part` as a field and releases it. */
void proto_message(struct proto *message, int field, struct proto *part);

/* A model's graph. Names are copied. */
void onnx_tensor(struct proto *graph, const char *name, enum onnx_type type, int rank, const int64_t *dims, const void *data,
                 size_t bytes);
void onnx_scalar(struct proto *graph, const char *name, float value);
void onnx_value(struct proto *graph, int field, const char *name, enum onnx_type type, int rank, const int64_t *dims);
/* A node to which attributes can be added until onnx_end. Inputs: names with blanks between; "-" is an absent one. */
struct proto onnx_node(const char *op, const char *domain, const char *inputs, const char *output);
void onnx_integers(struct proto *node, const char *name, int count, const int64_t *values);
void onnx_integer(struct proto *node, const char *name, int64_t value);
void onnx_end(struct proto *graph, struct proto *node);
/* The whole file; returns 0 when it was written. */
int onnx_write(struct proto *graph, const char *path);

#endif
