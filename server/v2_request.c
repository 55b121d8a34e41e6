#include "server/v2_request.h"

#include <string.h>

static const struct { const char *datatype, *input; } inputs[] = {{"FP32", "tensor"}, {"UINT8", "pixels"}, {"BYTES", "image"}};
static const char *const output_names[V2_OUTPUTS] = {"probabilities", "class", "label"};

enum { INPUTS = sizeof inputs / sizeof inputs[0] };

const char *v2_input_name(enum v2_datatype datatype) {
  return inputs[datatype].input;
}

const char *v2_datatype_name(enum v2_datatype datatype) {
  return inputs[datatype].datatype;
}

const char *v2_output_name(enum v2_output_kind kind) {
  return output_names[kind];
}

/* Members of an object that may stand once: bits of a set. */
enum member {
  NAME = 1,
  DATATYPE = 2,
  SHAPE = 4,
  DATA = 8,
  BINARY_SIZE = 16,
  INPUTS_MEMBER = 32,
  OUTPUTS_MEMBER = 64,
  ID = 128
};

/* What is parsed, and where. */
struct parse {
  struct scan scan;
  struct v2_request *request;
  uint8_t *binary; /* tensors that no input has taken yet */
  size_t binary_length;
  unsigned seen; /* members of the outer object */
  bool binary_output;
  bool own_binary[V2_MAX_OUTPUTS]; /* the output says itself whether it is binary */
};

static bool once(struct scan *scan, unsigned *seen, enum member member) {
  if (*seen & member) return scan_fail(scan, "a member stands twice");
  *seen |= member;
  return true;
}

static bool parse_shape(struct scan *scan, struct v2_input *input) {
  int64_t value;
  if (!scan_open(scan, '[')) return false;
  while (scan_more(scan, ']')) {
    if (!scan_integer(scan, &value)) return false;
    if (value < 1 || value > V2_MAX_DIMENSION) return scan_fail(scan, "a dimension of a shape must be 1 or more, and sensible");
    if (input->rank == V2_MAX_RANK) return scan_fail(scan, "a shape has more than 4 dimensions");
    input->shape[input->rank++] = (int)value;
  }
  return !scan->problem;
}

static bool parse_datatype(struct scan *scan, struct v2_input *input) {
  struct scan_string text;
  if (!scan_string(scan, &text)) return false;
  scan_unescape(&text);
  for (int i = 0; i < INPUTS; i++) {
    if (!scan_equals(&text, inputs[i].datatype)) continue;
    input->datatype = (enum v2_datatype)i;
    return true;
  }
  return scan_fail(scan,
                   "this datatype is not taken here: send BYTES (image files), UINT8 (pixels) or FP32 (the network's input)");
}

static bool parse_input_parameters(struct scan *scan, unsigned *seen, int64_t *binary_size) {
  struct scan_string key;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    scan_unescape(&key);
    if (scan_equals(&key, "binary_data_size")) {
      if (!once(scan, seen, BINARY_SIZE) || !scan_integer(scan, binary_size)) return false;
      if (*binary_size < 0) return scan_fail(scan, "binary_data_size is negative");
    } else if (scan_equals(&key, "shared_memory_region")) {
      return scan_fail(scan, "shared memory is not offered here: send the tensor itself");
    } else if (!scan_skip(scan)) {
      return false;
    }
  }
  return !scan->problem;
}

static bool parse_data_span(struct scan *scan, struct v2_input *input) {
  if (scan_peek(scan) != SCAN_ARRAY) return scan_fail(scan, "data must be an array");
  input->bytes = scan->at;
  if (!scan_skip(scan)) return false;
  input->length = (size_t)(scan->at - input->bytes);
  return true;
}

static bool take_binary(struct parse *parse, struct v2_input *input, int64_t size) {
  if ((uint64_t)size > parse->binary_length) {
    return scan_fail(&parse->scan, "binary_data_size is more than the bytes behind the JSON (Inference-Header-Content-Length)");
  }
  input->binary = true;
  input->bytes = parse->binary;
  input->length = (size_t)size;
  parse->binary += size;
  parse->binary_length -= (size_t)size;
  return true;
}

static bool check_name(struct scan *scan, const struct scan_string *name, const struct v2_input *input) {
  static const char *const problems[INPUTS] = {"an FP32 input must be called 'tensor'", "a UINT8 input must be called 'pixels'",
                                               "a BYTES input must be called 'image'"};
  return scan_equals(name, inputs[input->datatype].input) ? true : scan_fail(scan, problems[input->datatype]);
}

static bool parse_input(struct parse *parse) {
  struct scan *scan = &parse->scan;
  struct v2_input *input = &parse->request->input;
  struct scan_string key, name = {0};
  int64_t size = 0;
  unsigned seen = 0;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    bool good;
    scan_unescape(&key);
    if (scan_equals(&key, "name")) {
      good = once(scan, &seen, NAME) && scan_string(scan, &name);
      scan_unescape(&name);
    } else if (scan_equals(&key, "datatype")) {
      good = once(scan, &seen, DATATYPE) && parse_datatype(scan, input);
    } else if (scan_equals(&key, "shape")) {
      good = once(scan, &seen, SHAPE) && parse_shape(scan, input);
    } else if (scan_equals(&key, "data")) {
      good = once(scan, &seen, DATA) && parse_data_span(scan, input);
    } else if (scan_equals(&key, "parameters")) {
      good = parse_input_parameters(scan, &seen, &size);
    } else {
      good = scan_skip(scan);
    }
    if (!good) return false;
  }
  if (scan->problem) return false;
  if (~seen & (NAME | DATATYPE | SHAPE)) return scan_fail(scan, "an input needs name, shape and datatype");
  if (!(seen & DATA) == !(seen & BINARY_SIZE)) {
    return scan_fail(scan, "an input needs data, or the parameter binary_data_size, and not both");
  }
  return check_name(scan, &name, input) && (seen & DATA ? true : take_binary(parse, input, size));
}

static bool parse_inputs(struct parse *parse) {
  struct scan *scan = &parse->scan;
  int count = 0;
  if (!scan_open(scan, '[')) return false;
  while (scan_more(scan, ']')) {
    if (count++) return scan_fail(scan, "the networks here have one input: send it alone");
    if (!parse_input(parse)) return false;
  }
  if (!scan->problem && count == 0) scan_fail(scan, "inputs is empty");
  return !scan->problem;
}

static bool parse_output_parameters(struct parse *parse, struct v2_output *output, bool *own_binary) {
  struct scan *scan = &parse->scan;
  struct scan_string key;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    scan_unescape(&key);
    if (scan_equals(&key, "classification")) {
      int64_t count = 0;
      if (!scan_integer(scan, &count)) return false;
      if (count < 1) return scan_fail(scan, "classification must be 1 or more");
      output->classification = count < HWGQ_MAX_CLASSES ? (int)count : HWGQ_MAX_CLASSES;
    } else if (scan_equals(&key, "binary_data")) {
      if (!scan_bool(scan, &output->binary)) return false;
      *own_binary = true;
    } else if (scan_equals(&key, "shared_memory_region")) {
      return scan_fail(scan, "shared memory is not offered here");
    } else if (!scan_skip(scan)) {
      return false;
    }
  }
  return !scan->problem;
}

static bool parse_output(struct parse *parse) {
  struct scan *scan = &parse->scan;
  struct v2_request *request = parse->request;
  struct scan_string key, name = {0};
  if (request->output_count == V2_MAX_OUTPUTS) return scan_fail(scan, "more than 8 outputs are asked for");
  struct v2_output *output = &request->outputs[request->output_count];
  bool *own_binary = &parse->own_binary[request->output_count++];
  *output = (struct v2_output){.kind = V2_OUTPUTS};
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    scan_unescape(&key);
    bool good = scan_equals(&key, "name")         ? scan_string(scan, &name)
                : scan_equals(&key, "parameters") ? parse_output_parameters(parse, output, own_binary)
                                                  : scan_skip(scan);
    if (!good) return false;
  }
  if (scan->problem) return false;
  scan_unescape(&name);
  for (int i = 0; name.bytes && i < V2_OUTPUTS; i++) {
    if (scan_equals(&name, output_names[i])) output->kind = (enum v2_output_kind)i;
  }
  if (output->kind == V2_OUTPUTS) return scan_fail(scan, "an output must be called 'probabilities', 'class' or 'label'");
  if (output->classification && output->kind != V2_PROBABILITIES) {
    return scan_fail(scan, "classification is for the output 'probabilities'");
  }
  return true;
}

static bool parse_outputs(struct parse *parse) {
  struct scan *scan = &parse->scan;
  if (!scan_open(scan, '[')) return false;
  while (scan_more(scan, ']')) {
    if (!parse_output(parse)) return false;
  }
  return !scan->problem;
}

static bool parse_parameters(struct parse *parse) {
  struct scan *scan = &parse->scan;
  struct scan_string key;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    scan_unescape(&key);
    if (!(scan_equals(&key, "binary_data_output") ? scan_bool(scan, &parse->binary_output) : scan_skip(scan))) return false;
  }
  return !scan->problem;
}

static bool parse_id(struct parse *parse) {
  struct scan_string text;
  parse->request->has_id = true;
  if (!scan_string(&parse->scan, &text)) return false;
  if (scan_copy(&text, parse->request->id, sizeof parse->request->id)) return true;
  return scan_fail(&parse->scan, "id may have 256 bytes and no zero");
}

static bool parse_request(struct parse *parse) {
  struct scan *scan = &parse->scan;
  struct scan_string key;
  if (!scan_open(scan, '{')) return false;
  while (scan_more(scan, '}') && scan_key(scan, &key)) {
    bool good;
    scan_unescape(&key);
    if (scan_equals(&key, "inputs")) {
      good = once(scan, &parse->seen, INPUTS_MEMBER) && parse_inputs(parse);
    } else if (scan_equals(&key, "outputs")) {
      good = once(scan, &parse->seen, OUTPUTS_MEMBER) && parse_outputs(parse);
    } else if (scan_equals(&key, "id")) {
      good = once(scan, &parse->seen, ID) && parse_id(parse);
    } else if (scan_equals(&key, "parameters")) {
      good = parse_parameters(parse);
    } else {
      good = scan_skip(scan);
    }
    if (!good) return false;
  }
  if (!scan_finish(scan)) return false;
  if (!(parse->seen & INPUTS_MEMBER)) return scan_fail(scan, "the request has no inputs");
  if (parse->binary_length) return scan_fail(scan, "there are bytes behind the JSON that belong to no input");
  return true;
}

/* What the shape means. */
static enum hwgq_status check_shape(struct v2_input *input, struct hwgq_error *error) {
  const int *shape = input->shape;
  int rank = input->rank;
  if (input->datatype == V2_BYTES) {
    if (rank < 1 || rank > 2 || (rank == 2 && shape[1] != 1)) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                       "input 'image': the shape of BYTES must be [N] or [N, 1], one image file each");
    }
    input->batch = shape[0];
    return HWGQ_OK;
  }
  if (rank < 3) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "input '%s': the shape must be %s", inputs[input->datatype].input,
                     input->datatype == V2_FP32 ? "[N, channels, height, width]" : "[N, height, width, channels]");
  }
  input->batch = rank == 4 ? shape[0] : 1;
  shape += rank - 3;
  bool planes = input->datatype == V2_FP32;
  input->channels = shape[planes ? 0 : 2];
  input->height = shape[planes ? 1 : 0];
  input->width = shape[planes ? 2 : 1];
  if (!planes && input->channels != 1 && input->channels != 3) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT,
                     "input 'pixels': the last dimension of UINT8 must be 3 (RGB) or 1 (gray), and is %d", input->channels);
  }
  if (!planes && (input->width > V2_MAX_SIDE || input->height > V2_MAX_SIDE)) {
    return hwgq_fail(error, HWGQ_ERROR_FORMAT, "input 'pixels': an image may have %d rows and columns", V2_MAX_SIDE);
  }
  return HWGQ_OK;
}

static void all_outputs(struct parse *parse) {
  struct v2_request *request = parse->request;
  for (int i = 0; request->output_count < V2_OUTPUTS && i < V2_OUTPUTS; i++) {
    request->outputs[request->output_count++] = (struct v2_output){.kind = (enum v2_output_kind)i};
  }
}

enum hwgq_status v2_parse(uint8_t *body, size_t length, size_t json_length, struct v2_request *request,
                          struct hwgq_error *error) {
  struct parse parse = {.request = request};
  *request = (struct v2_request){0};
  if (json_length == 0) {
    request->input =
        (struct v2_input){.datatype = V2_BYTES, .rank = 1, .shape = {1}, .binary = true, .whole = true, .batch = 1};
    request->input.bytes = body;
    request->input.length = length;
    parse.binary_output = true;
  } else {
    scan_init(&parse.scan, body, json_length);
    parse.binary = body + json_length;
    parse.binary_length = length - json_length;
    if (!parse_request(&parse)) {
      return hwgq_fail(error, HWGQ_ERROR_FORMAT, "the request is not what the protocol says, at byte %zu: %s",
                       (size_t)(parse.scan.at - parse.scan.start), parse.scan.problem);
    }
    enum hwgq_status status = check_shape(&request->input, error);
    if (status) return status;
  }
  if (request->output_count == 0) all_outputs(&parse);
  for (int i = 0; i < request->output_count; i++) {
    if (!parse.own_binary[i]) request->outputs[i].binary = parse.binary_output;
  }
  return HWGQ_OK;
}
