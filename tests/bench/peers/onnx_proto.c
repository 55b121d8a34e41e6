#include "tests/bench/peers/onnx_proto.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t *extend(struct proto *message, size_t bytes) {
  if (message->room - message->length < bytes) {
    message->room = message->room * 2 + bytes + 64;
    message->data = realloc(message->data, message->room);
    if (!message->data) {
      fprintf(stderr, "out of memory\n");
      exit(1);
    }
  }
  message->length += bytes;
  return message->data + message->length - bytes;
}

static void varint(struct proto *message, uint64_t value) {
  for (; value >= 128; value >>= 7) *extend(message, 1) = (uint8_t)(value | 128);
  *extend(message, 1) = (uint8_t)value;
}

void proto_integer(struct proto *message, int field, uint64_t value) {
  varint(message, (uint64_t)field << 3);
  varint(message, value);
}

void proto_bytes(struct proto *message, int field, const void *data, size_t length) {
  varint(message, (uint64_t)field << 3 | 2);
  varint(message, length);
  if (length) memcpy(extend(message, length), data, length);
}

void proto_text(struct proto *message, int field, const char *text) {
  proto_bytes(message, field, text, strlen(text));
}

void proto_message(struct proto *message, int field, struct proto *part) {
  proto_bytes(message, field, part->data, part->length);
  free(part->data);
  *part = (struct proto){0};
}

void onnx_tensor(struct proto *graph, const char *name, enum onnx_type type, int rank, const int64_t *dims, const void *data,
                 size_t bytes) {
  struct proto tensor = {0};
  for (int i = 0; i < rank; i++) proto_integer(&tensor, 1, (uint64_t)dims[i]);
  proto_integer(&tensor, 2, type);
  proto_text(&tensor, 8, name);
  proto_bytes(&tensor, 9, data, bytes);
  proto_message(graph, 5, &tensor);
}

void onnx_scalar(struct proto *graph, const char *name, float value) {
  onnx_tensor(graph, name, ONNX_FLOAT, 0, NULL, &value, sizeof value);
}

void onnx_value(struct proto *graph, int field, const char *name, enum onnx_type type, int rank, const int64_t *dims) {
  struct proto value = {0}, any = {0}, tensor = {0}, shape = {0};
  for (int i = 0; i < rank; i++) {
    struct proto dim = {0};
    proto_integer(&dim, 1, (uint64_t)dims[i]);
    proto_message(&shape, 1, &dim);
  }
  proto_integer(&tensor, 1, type);
  proto_message(&tensor, 2, &shape);
  proto_message(&any, 1, &tensor);
  proto_text(&value, 1, name);
  proto_message(&value, 2, &any);
  proto_message(graph, field, &value);
}

struct proto onnx_node(const char *op, const char *domain, const char *inputs, const char *output) {
  struct proto node = {0};
  while (*inputs) {
    const size_t length = strcspn(inputs, " ");
    proto_bytes(&node, 1, inputs, length == 1 && *inputs == '-' ? 0 : length);
    inputs += length + strspn(inputs + length, " ");
  }
  proto_text(&node, 2, output);
  proto_text(&node, 3, output);
  proto_text(&node, 4, op);
  if (domain) proto_text(&node, 7, domain);
  return node;
}

void onnx_integers(struct proto *node, const char *name, int count, const int64_t *values) {
  struct proto attribute = {0};
  proto_text(&attribute, 1, name);
  for (int i = 0; i < count; i++) proto_integer(&attribute, 8, (uint64_t)values[i]);
  proto_integer(&attribute, 20, 7);
  proto_message(node, 5, &attribute);
}

void onnx_integer(struct proto *node, const char *name, int64_t value) {
  struct proto attribute = {0};
  proto_text(&attribute, 1, name);
  proto_integer(&attribute, 3, (uint64_t)value);
  proto_integer(&attribute, 20, 2);
  proto_message(node, 5, &attribute);
}

void onnx_end(struct proto *graph, struct proto *node) {
  proto_message(graph, 1, node);
}

int onnx_write(struct proto *graph, const char *path) {
  static const struct {
    const char *domain;
    int version;
  } sets[] = {{"", 13}, {"com.microsoft", 1}};
  struct proto model = {0};
  proto_integer(&model, 1, 8);
  proto_text(&graph[0], 2, "network");
  proto_message(&model, 7, graph);
  for (int i = 0; i < 2; i++) {
    struct proto set = {0};
    proto_text(&set, 1, sets[i].domain);
    proto_integer(&set, 2, (uint64_t)sets[i].version);
    proto_message(&model, 8, &set);
  }
  FILE *file = fopen(path, "wb");
  int failed = !file || fwrite(model.data, 1, model.length, file) != model.length;
  if (file && fclose(file)) failed = 1;
  free(model.data);
  return failed;
}
