/* The body of an inference request of the Open Inference Protocol v2: a JSON object, and with the binary tensor data extension
 * the bytes of tensors behind it. Parsed where it lies, into spans; no sockets, no networks, no allocation. */
#ifndef V2_REQUEST_H
#define V2_REQUEST_H

#include "engine/hwgq.h"
#include "server/scan.h"

enum {
  V2_MAX_ID = 256,
  V2_MAX_NAME = 64,
  V2_MAX_RANK = 4,
  V2_MAX_OUTPUTS = 8,
  V2_MAX_DIMENSION = 1 << 24,
  V2_MAX_SIDE = 65535, /* of an image, as of a JPEG file */
};

/* What this server takes: FP32 [N, C, H, W], the network's own preprocessed input; UINT8 [N, height, width, 1 or 3], decoded
 * images of any size, gray or RGB, rows from the top; BYTES [N] or [N, 1], image files. N may be left out of the first two. */
enum v2_datatype { V2_FP32, V2_UINT8, V2_BYTES };

struct v2_input {
  enum v2_datatype datatype;
  int rank, shape[V2_MAX_RANK];
  bool binary; /* `bytes` are the tensor, else they are the JSON array of `data` */
  bool whole;  /* a BYTES tensor of one element, without the length before it */
  uint8_t *bytes;
  size_t length;
  int batch, height, width, channels; /* of the shape; height and width are 0 for BYTES */
};

enum v2_output_kind { V2_PROBABILITIES, V2_CLASS, V2_LABEL, V2_OUTPUTS };

struct v2_output {
  enum v2_output_kind kind;
  int classification; /* that many "value:index:label" instead of all values; 0: no */
  bool binary;
};

struct v2_request {
  char id[V2_MAX_ID + 1];
  bool has_id;
  struct v2_input input;
  struct v2_output outputs[V2_MAX_OUTPUTS]; /* all kinds in their order when the request names none */
  int output_count;
};

/* Names of input and outputs, as metadata tells them. */
const char *v2_input_name(enum v2_datatype datatype);
const char *v2_datatype_name(enum v2_datatype datatype);
const char *v2_output_name(enum v2_output_kind kind);

/* json_length: bytes of the body that are JSON; the rest are binary tensors. 0: the whole body is one image file (a raw binary
 * request). Texts are unescaped in the body. Every failure is HWGQ_ERROR_FORMAT, the client's mistake. */
enum hwgq_status v2_parse(uint8_t *body, size_t length, size_t json_length, struct v2_request *request,
                          struct hwgq_error *error);

/* Reads the images of a tensor one after another. */
struct v2_reader {
  const struct v2_input *input;
  struct scan scan; /* data as JSON */
  bool nested;      /* an array in an array for each dimension; otherwise one flat array */
  uint64_t index;   /* elements that were read */
  uint8_t *at;      /* binary: the next byte */
};

enum hwgq_status v2_reader_init(struct v2_reader *reader, const struct v2_input *input, struct hwgq_error *error);
/* The next image of a BYTES tensor, in the body. */
enum hwgq_status v2_read_bytes(struct v2_reader *reader, uint8_t **bytes, size_t *length, struct hwgq_error *error);
/* Of a UINT8 tensor: height * width * channels bytes, in the body. */
enum hwgq_status v2_read_pixels(struct v2_reader *reader, uint8_t **pixels, struct hwgq_error *error);
/* Of an FP32 tensor: channels * height * width finite values into `values`. */
enum hwgq_status v2_read_values(struct v2_reader *reader, float *values, struct hwgq_error *error);
/* After the last image: nothing may be left. */
enum hwgq_status v2_reader_finish(struct v2_reader *reader, struct hwgq_error *error);

#endif
