/* Fuzzes the Caffe importer: whatever the two files hold, it refuses with a message or makes a valid model. One input is both
 * files: four bytes, the prototxt's length (least significant first), the prototxt, the caffemodel. Run from the repository's
 * root. */
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/import/import.h"
#include "models/import/protobuf.h"
#include "tests/support/fuzz.h"

enum { LENGTH_BYTES = 4, MAX_FIELDS = 4096 };

/* ---- the two files in one buffer ------------------------------------------------------------------------------------------
 */

/* False: the length field is wrong. */
static bool split(const uint8_t *bytes, size_t length, size_t *prototxt_length) {
  if (length < LENGTH_BYTES) return false;
  *prototxt_length = bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16 | (size_t)bytes[3] << 24;
  return *prototxt_length <= length - LENGTH_BYTES;
}

static void set_prototxt(struct fuzz_buffer *buffer, size_t old_length, const struct fuzz_buffer *prototxt) {
  fuzz_splice(buffer, LENGTH_BYTES, old_length, prototxt->bytes, prototxt->length);
  for (int i = 0; i < LENGTH_BYTES; i++) buffer->bytes[i] = (uint8_t)(prototxt->length >> 8 * i);
}

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  static const char *const weights[] = {"tests/golden/mini/model.caffemodel", "tests/golden/mini/model_bw.caffemodel"};
  if (index >= 2) return false;
  struct fuzz_buffer prototxt = {0};
  size_t length = 0;
  prototxt.bytes = support_read_file("tests/golden/mini/model.prototxt", &prototxt.length);
  uint8_t *caffemodel = support_read_file(weights[index], &length);
  if (!prototxt.bytes || !caffemodel) abort();
  fuzz_set(buffer, "\0\0\0", LENGTH_BYTES);
  fuzz_splice(buffer, LENGTH_BYTES, 0, caffemodel, length);
  set_prototxt(buffer, 0, &prototxt);
  free(prototxt.bytes);
  free(caffemodel);
  return true;
}

/* ---- mutations ------------------------------------------------------------------------------------------------------------
 */

static const char *const words[] = {"TRAIN",
                                    "TEST",
                                    "AVE",
                                    "MAX",
                                    "SUM",
                                    "{",
                                    "}",
                                    "[1, 2]",
                                    "\"",
                                    "'x'",
                                    "\"input\"",
                                    "\"Softmax\"",
                                    "\"Data\"",
                                    "\"Split\"",
                                    "\"Dropout\"",
                                    "\"Eltwise\"",
                                    "\"Concat\"",
                                    "\"Flatten\"",
                                    "\"Scale\"",
                                    "\"Input\"",
                                    "global_pooling: true",
                                    "kernel_size: 64",
                                    "num_output: 65536",
                                    "bottom: \"pix\"",
                                    "top: \"pix\"",
                                    "group: 7",
                                    "stride: 64",
                                    "axis: 1",
                                    "#",
                                    "<",
                                    ">",
                                    ";",
                                    "input: \"y\"",
                                    "dim: 70000",
                                    "layer {",
                                    "layers {",
                                    "centers: 0.1",
                                    "use_alpha: false",
                                    "eps: 0",
                                    "pad: 63",
                                    "input_dim: 3",
                                    "include { phase: TRAIN }",
                                    "type: RELU",
                                    "exclude { }",
                                    "transform_param { crop_size: 9 }",
                                    "coeff: 1e38",
                                    "pool: AVE",
                                    "forward_func: \"sign\""};

static void insert_word(struct support_random *random, struct fuzz_buffer *prototxt) {
  const char *word = words[support_random_int(random, 0, (int)(sizeof words / sizeof *words) - 1)];
  size_t at = (size_t)(support_random_next(random) % (prototxt->length + 1));
  while (at < prototxt->length && prototxt->bytes[at] > ' ') at++;
  fuzz_splice(prototxt, at, 0, " ", 1);
  fuzz_splice(prototxt, at, 0, word, strlen(word));
  fuzz_splice(prototxt, at, 0, " ", 1);
}

static void mutate_prototxt(struct support_random *random, struct fuzz_buffer *buffer, size_t length,
                            const struct fuzz_buffer *other) {
  struct fuzz_buffer prototxt = {0}, others = {0};
  size_t other_length = 0;
  fuzz_set(&prototxt, buffer->bytes + LENGTH_BYTES, length);
  if (split(other->bytes, other->length, &other_length)) fuzz_set(&others, other->bytes + LENGTH_BYTES, other_length);
  if (support_random_chance(random, 0.3))
    insert_word(random, &prototxt);
  else
    fuzz_mutate(random, &prototxt, &others);
  set_prototxt(buffer, length, &prototxt);
  free(prototxt.bytes);
  free(others.bytes);
}

/* Where fields begin, as almost all other bytes are weights. The wire format does not say which bytes are messages: those with
 * the numbers of layers, blobs and shapes are entered. */
static void find_fields(const uint8_t *file, const uint8_t *bytes, size_t length, int depth, size_t *offsets, int *count) {
  struct protobuf_reader reader = protobuf_open(bytes, length);
  struct protobuf_field field;
  for (;;) {
    size_t offset = (size_t)(reader.at - file);
    if (*count == MAX_FIELDS || protobuf_next(&reader, &field) != PROTOBUF_FIELD) return;
    offsets[(*count)++] = offset;
    bool nested = field.number == 100 || field.number == 2 || field.number == 7 || field.number == 6;
    if (field.wire == PROTOBUF_BYTES && nested && depth < 3)
      find_fields(file, field.bytes, field.length, depth + 1, offsets, count);
  }
}

static void mutate_caffemodel(struct support_random *random, struct fuzz_buffer *buffer, size_t start) {
  static const uint8_t extremes[] = {0, 1, 0x7f, 0x80, 0xff};
  size_t offsets[MAX_FIELDS];
  int count = 0;
  find_fields(buffer->bytes, buffer->bytes + start, buffer->length - start, 0, offsets, &count);
  if (count == 0) return;
  size_t at = offsets[support_random_int(random, 0, count - 1)] + (size_t)support_random_int(random, 0, 8);
  size_t some = (size_t)support_random_int(random, 1, 8);
  if (at + some > buffer->length) return;
  switch (support_random_int(random, 0, 4)) {
  case 0:
    buffer->bytes[at] ^= (uint8_t)(1u << support_random_int(random, 0, 7));
    break;
  case 1:
    buffer->bytes[at] = extremes[support_random_int(random, 0, (int)sizeof extremes - 1)];
    break;
  case 2:
    fuzz_splice(buffer, at, some, NULL, 0);
    break;
  case 3:
    memset(buffer->bytes + at, support_random_chance(random, 0.5) ? 0xff : 0, some);
    break;
  default: { /* another field's beginning over this one's */
    size_t from = offsets[support_random_int(random, 0, count - 1)];
    if (from + some <= buffer->length) memmove(buffer->bytes + at, buffer->bytes + from, some);
  }
  }
}

static void mutate(struct support_random *random, struct fuzz_buffer *buffer, const struct fuzz_buffer *other) {
  size_t prototxt_length;
  int kind = support_random_int(random, 0, 9);
  if (!split(buffer->bytes, buffer->length, &prototxt_length) || kind == 0)
    fuzz_mutate(random, buffer, other);
  else if (kind <= 5)
    mutate_prototxt(random, buffer, prototxt_length, other);
  else
    mutate_caffemodel(random, buffer, LENGTH_BYTES + prototxt_length);
}

/* ---- the check ------------------------------------------------------------------------------------------------------------
 */

static void forget(void *context, const char *text) {
  *(size_t *)context += strlen(text);
}

static const char *check_model(const struct hwgq_model *model) {
  if (!model->network || model->class_count < 1 || !model->labels || !model->provenance)
    return "a part of the model is missing";
  if (hwgq_network_infer(model->network, NULL)) return "the imported network is not valid";
  return hwgq_network_check_parameters(model->network, NULL) ? "the imported parameters are not valid" : NULL;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  size_t prototxt_length, notes = 0;
  if (!split(bytes, length, &prototxt_length)) return NULL;
  struct import_options options = IMPORT_OPTIONS_DEFAULT;
  options.note = forget;
  options.context = &notes;
  /* A block of its own for each file, so that a read beyond either is noticed. */
  char *prototxt = malloc(prototxt_length ? prototxt_length : 1);
  if (!prototxt) abort();
  memcpy(prototxt, bytes + LENGTH_BYTES, prototxt_length);
  size_t start = LENGTH_BYTES + prototxt_length;
  struct hwgq_model *model = NULL;
  struct hwgq_error error = {{0}};
  enum hwgq_status status = import_caffe(prototxt, prototxt_length, bytes + start, length - start, &options, &model, &error);
  free(prototxt);
  if (status) return model ? "refused, but a model was made" : error.message[0] ? NULL : "refused without a message";
  *accepted = true;
  const char *wrong = check_model(model);
  hwgq_model_destroy(model);
  return wrong;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "caffe", .runs = 20000, .make_seed = make_seed, .mutate = mutate, .check = check};
  return fuzz_main(argc, argv, &target);
}
