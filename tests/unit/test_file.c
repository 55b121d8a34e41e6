/* The .hwgq file and the safetensors container under it: what is written comes back, other tools would accept it, and every
 * kind of damage is refused with a message that says what and where. */
#include "engine/file.h"
#include "engine/parameters.h"
#include "engine/safetensors.h"
#include "engine/storage.h"
#include "tests/support/support.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct hwgq_error error;

/* ---- a small fixed model: conv (binary, 5 inputs: 3 unused bits), bn, quantizer, linear, softmax ------------------------ */

static struct hwgq_network *fixed_network(void) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("fixed", (struct hwgq_shape){1, 5, 4}, &network, &error), HWGQ_OK);
  struct hwgq_layer *layer = support_add(network, "conv", HWGQ_CONV2D, "input");
  layer->out_channels = 3;
  layer->kernel_height = 5;
  layer->binary = layer->has_alpha = true;
  support_add(network, "bn", HWGQ_BATCH_NORM, "conv");
  layer = support_add(network, "q", HWGQ_QUANTIZE, "bn");
  layer->level_count = 1;
  layer->centers[0] = 0.8f;
  layer = support_add(network, "fc", HWGQ_LINEAR, "q");
  layer->out_channels = 2;
  layer->has_bias = true;
  support_add(network, "prob", HWGQ_SOFTMAX, "fc");
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  support_fill_parameters(network, &(struct support_random){5});
  return network;
}

static struct hwgq_model *fixed_model(void) {
  struct hwgq_model *model = calloc(1, sizeof *model);
  ck_assert_ptr_nonnull(model);
  model->network = fixed_network();
  model->preprocess = (struct hwgq_preprocess){.order = HWGQ_GRAY, .mean = {33}, .scale = {0.0078125f}, .invert = true};
  model->class_count = 2;
  model->labels = calloc(2, sizeof model->labels[0]);
  ck_assert_ptr_nonnull(model->labels);
  model->labels[0] = strdup("cat");
  model->labels[1] = strdup("dog, \xc3\xbc"
                            "ber");
  model->provenance = strdup("{\"epochs\":3}");
  return model;
}

static uint8_t *fixed_bytes(size_t *length) {
  struct hwgq_model *model = fixed_model();
  uint8_t *bytes = NULL;
  ck_assert_msg(hwgq_model_build(model, &bytes, length, &error) == HWGQ_OK, "%s", error.message);
  hwgq_model_destroy(model);
  return bytes;
}

static void assert_parse_fails(const uint8_t *bytes, size_t length, const char *text) {
  struct hwgq_model *model = NULL;
  memset(&error, 0, sizeof error);
  ck_assert_int_ne(hwgq_model_parse(bytes, length, "some.hwgq", &model, &error), HWGQ_OK);
  ck_assert_ptr_null(model);
  ck_assert_msg(strncmp(error.message, "some.hwgq: ", 11) == 0 && strstr(error.message, text), "'%s' lacks '%s'", error.message,
                text);
}

/* ---- round trips -------------------------------------------------------------------------------------------------------- */

static void assert_same_model(const struct hwgq_model *a, const struct hwgq_model *b) {
  ck_assert_str_eq(a->network->name, b->network->name);
  ck_assert_mem_eq(&a->preprocess, &b->preprocess, sizeof a->preprocess);
  ck_assert_int_eq(a->class_count, b->class_count);
  for (int i = 0; i < a->class_count; i++) ck_assert_str_eq(a->labels[i], b->labels[i]);
  ck_assert_str_eq(a->provenance, b->provenance);
  ck_assert_str_eq(a->digest, b->digest);
  ck_assert_uint_eq(a->file_bytes, b->file_bytes);
  ck_assert_int_eq(a->network->layer_count, b->network->layer_count);
  for (int i = 0; i < a->network->layer_count; i++) {
    struct hwgq_parameter of_a[HWGQ_MAX_PARAMETERS], of_b[HWGQ_MAX_PARAMETERS];
    int count = hwgq_layer_parameters(a->network, &a->network->layers[i], of_a);
    ck_assert_int_eq(hwgq_layer_parameters(b->network, &b->network->layers[i], of_b), count);
    for (int j = 0; j < count; j++) {
      ck_assert_str_eq(of_a[j].name, of_b[j].name);
      ck_assert_uint_eq(hwgq_parameter_bytes(&of_a[j]), hwgq_parameter_bytes(&of_b[j]));
      ck_assert_mem_eq(hwgq_parameter_data(&of_a[j]), hwgq_parameter_data(&of_b[j]), hwgq_parameter_bytes(&of_a[j]));
    }
  }
}

START_TEST(random_models_survive_a_file) {
  struct support_random random = {(uint64_t)_i};
  struct hwgq_model *model = support_random_model(&random), *again = NULL;
  char *directory = support_make_directory(), *path = support_path(directory, "model.hwgq");
  ck_assert_msg(hwgq_model_write(model, path, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_msg(hwgq_model_read(path, &again, &error) == HWGQ_OK, "%s", error.message);
  assert_same_model(model, again);
  size_t length = 0, built_length = 0;
  uint8_t *bytes = support_read_file(path, &length), *built = NULL;
  ck_assert_int_eq(hwgq_model_build(again, &built, &built_length, &error), HWGQ_OK);
  ck_assert_uint_eq(length, built_length);
  ck_assert_mem_eq(bytes, built, length);
  free(bytes);
  free(built);
  free(path);
  support_remove_directory(directory);
  hwgq_model_destroy(model);
  hwgq_model_destroy(again);
}
END_TEST

/* What the format promises other tools, read with nothing but a JSON parser. */
START_TEST(the_layout_is_as_documented) {
  size_t length = 0;
  uint8_t *bytes = fixed_bytes(&length);
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | bytes[i];
  ck_assert_uint_eq((header_bytes + 8) % 64, 0);
  json_t *header = json_loadb((const char *)bytes + 8, (size_t)header_bytes, 0, NULL);
  ck_assert_ptr_nonnull(header);
  const json_t *metadata = json_object_get(header, "__metadata__");
  ck_assert_str_eq(json_string_value(json_object_get(metadata, "format")), "hwgq");
  ck_assert_str_eq(json_string_value(json_object_get(metadata, "format_version")), "1");
  ck_assert_str_eq(json_string_value(json_object_get(metadata, "labels")), "[\"cat\",\"dog, \xc3\xbc"
                                                                           "ber\"]");
  ck_assert_str_eq(json_string_value(json_object_get(metadata, "provenance")), "{\"epochs\":3}");
  ck_assert_uint_eq(strlen(json_string_value(json_object_get(metadata, "digest"))), 5 + 32);
  static const struct {
    const char *name, *entry;
  } expected[] = {
      {"conv.alpha", "{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}"},
      {"bn.mean", "{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[12,24]}"},
      {"bn.variance", "{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[24,36]}"},
      {"fc.weight", "{\"dtype\":\"F32\",\"shape\":[2,12,1,1],\"data_offsets\":[36,132]}"},
      {"fc.bias", "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[132,140]}"},
      {"conv.weight_bits", "{\"dtype\":\"U8\",\"shape\":[3,1],\"data_offsets\":[140,143]}"},
  };
  ck_assert_uint_eq(json_object_size(header), 1 + sizeof expected / sizeof expected[0]);
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
    char *entry = json_dumps(json_object_get(header, expected[i].name), JSON_COMPACT);
    ck_assert_msg(entry && strcmp(entry, expected[i].entry) == 0, "%s is %s", expected[i].name, entry);
    free(entry);
  }
  ck_assert_uint_eq(length, 8 + header_bytes + 143);
  json_decref(header);
  free(bytes);
}
END_TEST

/* The digest of known bytes, so that other implementations can be checked against it: XXH3-128 of nothing, and of "hwgq". */
START_TEST(the_digest_is_xxh3_128) {
  char digest[40];
  struct hwgq_tensor parts[2] = {{.data = "hw", .bytes = 2}, {.data = "gq", .bytes = 2}};
  char whole[40];
  struct hwgq_tensor one = {.data = "hwgq", .bytes = 4};
  ck_assert_int_eq(hwgq_model_digest(NULL, 0, digest, &error), HWGQ_OK);
  ck_assert_str_eq(digest, "xxh3:99aa06d3014798d86001c324468d497f");
  ck_assert_int_eq(hwgq_model_digest(parts, 2, digest, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_model_digest(&one, 1, whole, &error), HWGQ_OK);
  ck_assert_str_eq(digest, whole);
}
END_TEST

/* ---- damage: every truncation, every flipped byte ----------------------------------------------------------------------- */

START_TEST(every_truncation_is_refused) {
  size_t length = 0;
  uint8_t *bytes = fixed_bytes(&length);
  for (size_t kept = 0; kept < length; kept++) {
    uint8_t *copy = malloc(kept ? kept : 1); /* exactly as long, so that reading beyond is noticed */
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, kept);
    assert_parse_fails(copy, kept, "");
    free(copy);
  }
  uint8_t *longer = calloc(1, length + 1);
  ck_assert_ptr_nonnull(longer);
  memcpy(longer, bytes, length);
  assert_parse_fails(longer, length + 1, "1 bytes after the last tensor belong to none");
  free(longer);
  free(bytes);
}
END_TEST

START_TEST(every_changed_byte_of_data_is_refused) {
  size_t length = 0;
  uint8_t *bytes = fixed_bytes(&length);
  for (size_t i = length - 143; i < length; i++) {
    bytes[i] ^= 0x10;
    assert_parse_fails(bytes, length, "digest");
    bytes[i] ^= 0x10;
  }
  struct hwgq_model *model = NULL;
  ck_assert_int_eq(hwgq_model_parse(bytes, length, "some.hwgq", &model, &error), HWGQ_OK);
  hwgq_model_destroy(model);
  free(bytes);
}
END_TEST

START_TEST(impossible_headers_are_refused) {
  uint8_t bytes[64] = {0};
  assert_parse_fails(bytes, 0, "has 0 bytes, too few");
  assert_parse_fails(bytes, 7, "has 7 bytes, too few");
  assert_parse_fails(bytes, 64, "does not start with '{'");
  memset(bytes, 0xff, 8);
  assert_parse_fails(bytes, 64, "header length is 18446744073709551615");
  memset(bytes, 0, 8);
  bytes[0] = 57;
  assert_parse_fails(bytes, 64, "should have 57 bytes, but only 56 follow: truncated?");
  bytes[0] = 56;
  bytes[8] = '[';
  assert_parse_fails(bytes, 64, "does not start with '{'");
  bytes[8] = '{';
  assert_parse_fails(bytes, 64, "not valid JSON");
  memset(bytes + 8, ' ', 56);
  memcpy(bytes + 8, "{}", 2);
  assert_parse_fails(bytes, 64, "does not say \"format\": \"hwgq\"");
}
END_TEST

/* ---- changed headers: one text in the JSON is replaced, the length field is made right again ---------------------------- */

static const struct {
  const char *from, *to, *message;
} edits[] = {
    {"\"format\":\"hwgq\"", "\"format\":\"pt\"", "does not say \"format\": \"hwgq\""},
    {"\"format\":\"hwgq\"", "\"format\":7", "__metadata__ 'format' must be a string"},
    {"{\"__metadata__\":{", "{\"__metadata__\":5,\"x\":{", "__metadata__ must be an object of strings"},
    {"\"format_version\":\"1\"", "\"format_version\":\"2\"", "format_version is '2', this program reads version 1"},
    {"\"format_version\":\"1\",", "", "format_version is 'missing'"},
    {"\"preprocess\":", "\"preprocessing\":", "metadata 'preprocess' is missing"},
    {"\"format\":\"hwgq\"", "\"format\":\"hwgq\",\"author\":\"me\"", "metadata 'author' is not known"},
    {"\"format\":\"hwgq\"", "\"format\":\"hwgq\",\"format\":\"hwgq\"", "duplicate"},
    {"xxh3:", "md5:", "digest is xxh3:"},
    {"conv.alpha", "conv.beta", "tensor 'conv.alpha' is missing"},
    {"\"conv.alpha\"", "\"bn.mean\"", "duplicate"},
    {"\"shape\":[3],\"data_offsets\":[0,12]", "\"shape\":[3,1],\"data_offsets\":[0,12]",
     "tensor 'conv.alpha': has 2 dimensions"},
    {"\"shape\":[2,12,1,1]", "\"shape\":[12,2,1,1]", "tensor 'fc.weight': dimension 0 is 12, the network needs 2"},
    {"\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]", "\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[0,12]",
     "tensor 'conv.alpha': dtype is I32, must be F32"},
    {"\"dtype\":\"U8\"", "\"dtype\":\"F8_E4M3\"", "tensor 'conv.weight_bits': dtype 'F8_E4M3' is not known"},
    {"\"dtype\":\"U8\"", "\"dtype\":8", "must have exactly dtype, shape and data_offsets"},
    {"\"dtype\":\"U8\"", "\"dtype\":\"U8\",\"x\":1", "must have exactly dtype, shape and data_offsets"},
    {"\"shape\":[3,1]", "\"shape\":3", "tensor 'conv.weight_bits': shape must be an array"},
    {"\"shape\":[3,1]", "\"shape\":[3,-1]", "shape element 1 must be a whole number"},
    {"\"shape\":[3,1]", "\"shape\":[4294967296,4294967296]", "impossibly large"},
    {"\"shape\":[3,1]", "\"shape\":[3,1,1,1,1,1,1,1,1]", "at most 8"},
    {"\"shape\":[2,12,1,1]", "\"shape\":[4611686018427387904]", "impossibly large"},
    {"\"shape\":[3,1]", "\"shape\":[3,2]", "has 3 bytes of data, its shape needs 6"},
    {"[140,143]", "[140,144]", "not within the 143 bytes of data"},
    {"[140,143]", "[143,140]", "not within"},
    {"[140,143]", "[-3,0]", "not within"},
    {"[140,143]", "[140]", "must be two whole numbers"},
    {"[140,143]", "[140,143.0]", "must be two whole numbers"},
    {"[140,143]", "[139,142]", "starts at 139, inside the tensor before it (140)"},
    {"[12,24]", "[24,36]", "starts at 24, with a gap"},
    /* the network, inside a JSON string */
    {"\\\"op\\\":\\\"softmax\\\"", "\\\"op\\\":\\\"relu\\\"", "layer 'prob': the last layer of a model must be softmax"},
    {"\\\"out_channels\\\":3", "\\\"out_channels\\\":4", "tensor 'conv.weight_bits': dimension 0 is 3, the network needs 4"},
    {"\\\"binary\\\":true", "\\\"binary\\\":7", "layer 'conv': 'binary' must be true or false"},
    {"\\\"binary\\\":true,\\\"alpha\\\":true", "\\\"binary\\\":true", "tensor 'conv.alpha' belongs to no layer"},
    {"{\\\"name\\\":\\\"fixed\\\"", "{\\\"name\\\":\\\"fixed", "network: not valid JSON"},
    /* preprocessing */
    {"\\\"order\\\":\\\"gray\\\"", "\\\"order\\\":\\\"grey\\\"", "preprocess: 'order' must be"},
    {"\\\"order\\\":\\\"gray\\\"", "\\\"order\\\":\\\"rgb\\\"", "order 'rgb' needs 'mean' and 'scale' of 3 numbers"},
    {"\\\"order\\\":\\\"gray\\\",", "", "preprocess: 'order' must be"},
    {"\\\"resize\\\":0", "\\\"resize\\\":4", "preprocess: resize is 4, must be 0 or 5"},
    {"\\\"resize\\\":0", "\\\"resize\\\":4097", "from 0 to 4096"},
    {"\\\"scale\\\":[0.0078125]", "\\\"scale\\\":[0.0]", "scale of channel 0 is 0"},
    {"\\\"scale\\\":[0.0078125]", "\\\"scale\\\":[3e38]", "make infinite values"},
    {"\\\"scale\\\":[0.0078125]", "\\\"scale\\\":[1,2]", "'mean' and 'scale' of 1 numbers"},
    {"\\\"mean\\\":[33.0]", "\\\"mean\\\":[1e40]", "fits 32-bit floats"},
    {"\\\"invert\\\":true", "\\\"invert\\\":true,\\\"flip\\\":true", "preprocess: unknown key 'flip'"},
    /* labels, provenance */
    {"[\\\"cat\\\",", "[", "labels: 1 given, the network has 2 classes"},
    {"[\\\"cat\\\",", "[\\\"\\\",", "labels: label 0 must have 1 to 256 bytes"},
    {"[\\\"cat\\\",", "[5,", "labels: label 0 must be a string"},
    {"[\\\"cat\\\",", "[\\\"a\\\\u0007b\\\",", "label 0 contains a control character"},
    {"\"labels\":\"[", "\"labels\":\"", "labels: not valid JSON"},
    {"{\\\"epochs\\\":3}", "[3]", "provenance: must be a JSON object"},
    {"{\\\"epochs\\\":3}", "{\\\"epochs\\\":}", "provenance: not valid JSON"},
};

/* A copy of a file in which the header's first `from` is `to`. */
static uint8_t *edited(const uint8_t *bytes, size_t length, const char *from, const char *to, size_t *new_length) {
  uint64_t header_bytes = 0;
  memcpy(&header_bytes, bytes, 8);
  const uint8_t *end = bytes + 8 + header_bytes, *found = memmem(bytes + 8, (size_t)header_bytes, from, strlen(from));
  ck_assert_msg(found != NULL, "no '%s' in %.*s", from, (int)header_bytes, (const char *)bytes + 8);
  *new_length = length - strlen(from) + strlen(to);
  uint8_t *result = malloc(*new_length), *at = result;
  ck_assert_ptr_nonnull(result);
  header_bytes = header_bytes - strlen(from) + strlen(to);
  memcpy(at, &header_bytes, 8), at += 8;
  memcpy(at, bytes + 8, (size_t)(found - bytes - 8)), at += found - bytes - 8;
  memcpy(at, to, strlen(to)), at += strlen(to);
  found += strlen(from);
  memcpy(at, found, (size_t)(end - found)), at += end - found;
  memcpy(at, end, (size_t)(bytes + length - end));
  return result;
}

START_TEST(changed_headers_are_refused) {
  size_t length = 0, new_length = 0;
  uint8_t *bytes = fixed_bytes(&length);
  uint8_t *changed = edited(bytes, length, edits[_i].from, edits[_i].to, &new_length);
  assert_parse_fails(changed, new_length, edits[_i].message);
  free(changed);
  free(bytes);
}
END_TEST

/* Values that a digest cannot catch, because it was made with them. The fixed model's data: see the_layout_is_as_documented. */
static const struct {
  size_t offset;
  uint32_t bits;
  const char *message;
} values[] = {
    {0, 0x7fc00000, "layer 'conv': alpha element 0 is not a number"},
    {16, 0x7f800000, "layer 'bn': mean element 1 is infinite"},
    {24, 0xbf800000, "layer 'bn': variance of channel 0 is -1"},
    {128, 0xff800000, "layer 'fc': weight element 23 is infinite"},
    {136, 0x7f800001, "layer 'fc': bias element 1 is not a number"},
    {139, 0x20000000, "layer 'conv': weight_bits of output channel 2 has bits set beyond its 5 weights"},
};

START_TEST(impossible_values_are_refused) {
  size_t length = 0, new_length = 0;
  uint8_t *bytes = fixed_bytes(&length);
  char digest[40], before[40];
  struct hwgq_tensor data = {.data = bytes + length - 143, .bytes = 143};
  ck_assert_int_eq(hwgq_model_digest(&data, 1, before, &error), HWGQ_OK);
  memcpy(bytes + length - 143 + values[_i].offset, &values[_i].bits, 4);
  ck_assert_int_eq(hwgq_model_digest(&data, 1, digest, &error), HWGQ_OK);
  uint8_t *changed = edited(bytes, length, before, digest, &new_length);
  assert_parse_fails(changed, new_length, values[_i].message);
  free(changed);
  free(bytes);
}
END_TEST

/* ---- models that must not be written ------------------------------------------------------------------------------------ */

static void assert_not_written(struct hwgq_model *model, const char *text) {
  char *directory = support_make_directory(), *path = support_path(directory, "model.hwgq");
  ck_assert_int_ne(hwgq_model_write(model, path, &error), HWGQ_OK);
  ck_assert_msg(strstr(error.message, path) && strstr(error.message, text), "'%s' lacks '%s'", error.message, text);
  ck_assert_int_eq(rmdir(directory), 0); /* neither the file nor a temporary one is there */
  free(directory);
  free(path);
  hwgq_model_destroy(model);
}

START_TEST(impossible_models_are_not_written) {
  struct hwgq_model *model = fixed_model();
  model->network->layers[3].weight[0] = NAN;
  assert_not_written(model, "layer 'fc': weight element 0 is not a number");
  model = fixed_model();
  model->labels[0][1] = (char)0xff;
  assert_not_written(model, "label 0 is not valid UTF-8");
  model = fixed_model();
  free(model->labels[1]);
  model->class_count = 1;
  assert_not_written(model, "labels: 1 given, the network has 2 classes");
  model = fixed_model();
  model->preprocess.order = HWGQ_BGR;
  assert_not_written(model, "needs a network with 3 input channels, this one has 1");
  model = fixed_model();
  free(model->provenance);
  model->provenance = strdup("because");
  assert_not_written(model, "provenance: not valid JSON");
  model = fixed_model();
  model->network->layers[2].centers[0] = -1;
  assert_not_written(model, "layer 'q'");
  model = fixed_model();
  free(model->network->layers[1].variance);
  model->network->layers[1].variance = NULL;
  assert_not_written(model, "layer 'bn' has no variance");
}
END_TEST

/* ---- files -------------------------------------------------------------------------------------------------------------- */

START_TEST(unreadable_files_are_refused) {
  char *directory = support_make_directory(), *path = support_path(directory, "missing.hwgq");
  struct hwgq_model *model = NULL;
  ck_assert_int_eq(hwgq_model_read(path, &model, &error), HWGQ_ERROR_IO);
  ck_assert_ptr_nonnull(strstr(error.message, "missing.hwgq: cannot open: No such file"));
  ck_assert_int_eq(hwgq_model_read(directory, &model, &error), HWGQ_ERROR_IO);
  ck_assert_ptr_nonnull(strstr(error.message, "is a directory"));
  ck_assert_int_eq(mkfifo(path, 0600), 0);
  ck_assert_int_eq(hwgq_model_read(path, &model, &error), HWGQ_ERROR_IO); /* and does not wait for a writer */
  ck_assert_ptr_nonnull(strstr(error.message, "pipe"));
  ck_assert_int_eq(unlink(path), 0);
  support_write_file(path, "", 0);
  ck_assert_int_eq(hwgq_model_read(path, &model, &error), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(truncate(path, ((off_t)2 << 30) + 1), 0); /* a hole: takes no space */
  ck_assert_int_eq(hwgq_model_read(path, &model, &error), HWGQ_ERROR_LIMIT);
  ck_assert_ptr_null(model);
  free(path);
  support_remove_directory(directory);
}
END_TEST

START_TEST(replacing_keeps_the_old_file_on_failure) {
  char *directory = support_make_directory(), *path = support_path(directory, "file"), *below = support_path(path, "file");
  const struct hwgq_chunk chunks[] = {{"new ", 4}, {"", 0}, {"content", 7}};
  size_t length = 0;
  ck_assert_int_eq(hwgq_storage_replace(directory, chunks, 3, &error), HWGQ_ERROR_IO);
  ck_assert_ptr_nonnull(strstr(error.message, "is a directory"));
  support_write_file(path, "old", 3);
  ck_assert_int_eq(hwgq_storage_replace(below, chunks, 3, &error), HWGQ_ERROR_IO); /* "file" is no directory */
  ck_assert_ptr_nonnull(strstr(error.message, "cannot create a file in its directory"));
  ck_assert_int_eq(hwgq_storage_replace(path, chunks, 3, &error), HWGQ_OK);
  uint8_t *bytes = support_read_file(path, &length);
  ck_assert_uint_eq(length, 11);
  ck_assert_mem_eq(bytes, "new content", 11);
  struct stat info;
  ck_assert_int_eq(stat(path, &info), 0);
  mode_t mask = umask(0);
  umask(mask);
  ck_assert_uint_eq(info.st_mode & 0777, 0666 & ~mask);
  free(bytes);
  ck_assert_int_eq(unlink(path), 0);
  ck_assert_int_eq(rmdir(directory), 0); /* nothing else was left in it */
  free(directory);
  free(path);
  free(below);
}
END_TEST

/* The container alone, as checkpoints use it. */
START_TEST(safetensors_hold_any_tensors) {
  const float matrix[2][3] = {{1, 2, 3}, {4, 5, 6}};
  const uint8_t octets[3] = {7, 8, 9};
  const struct hwgq_tensor tensors[] = {
      {.name = "scalar", .dtype = "F32", .rank = 0, .data = &matrix[1][2], .bytes = 4},
      {.name = "matrix", .dtype = "F32", .rank = 2, .extents = {2, 3}, .data = matrix, .bytes = sizeof matrix},
      {.name = "empty", .dtype = "I64", .rank = 2, .extents = {0, 5}, .data = NULL, .bytes = 0},
      {.name = "octets", .dtype = "U8", .rank = 1, .extents = {3}, .data = octets, .bytes = 3}};
  const struct hwgq_metadata metadata[] = {{"epoch", "3"}, {"text", "a \"quoted\" line\n"}};
  uint8_t *bytes = NULL;
  size_t length = 0;
  struct hwgq_safetensors *parsed = NULL;
  ck_assert_int_eq(hwgq_safetensors_build(tensors, 4, metadata, 2, &bytes, &length, &error), HWGQ_OK);
  ck_assert_msg(hwgq_safetensors_parse(bytes, length, "x", &parsed, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(parsed->tensor_count, 4);
  ck_assert_str_eq(hwgq_safetensors_text(parsed, "text"), metadata[1].text);
  ck_assert_ptr_null(hwgq_safetensors_text(parsed, "nothing"));
  ck_assert_ptr_null(hwgq_safetensors_find(parsed, "nothing"));
  for (int i = 0; i < 4; i++) {
    const struct hwgq_tensor *found = hwgq_safetensors_find(parsed, tensors[i].name);
    ck_assert_ptr_nonnull(found);
    ck_assert_int_eq(found->rank, tensors[i].rank);
    ck_assert_uint_eq(found->bytes, tensors[i].bytes);
    if (found->bytes) ck_assert_mem_eq(found->data, tensors[i].data, found->bytes);
  }
  hwgq_safetensors_destroy(parsed);
  free(bytes);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void) {
  Suite *suite = suite_create("file");
  TCase *good = tcase_create("good"), *damage = tcase_create("damage"), *files = tcase_create("files");
  tcase_add_loop_test(good, random_models_survive_a_file, 1, 40);
  tcase_add_test(good, the_layout_is_as_documented);
  tcase_add_test(good, the_digest_is_xxh3_128);
  tcase_add_test(good, safetensors_hold_any_tensors);
  tcase_add_test(damage, every_truncation_is_refused);
  tcase_add_test(damage, every_changed_byte_of_data_is_refused);
  tcase_add_test(damage, impossible_headers_are_refused);
  tcase_add_loop_test(damage, changed_headers_are_refused, 0, COUNT(edits));
  tcase_add_loop_test(damage, impossible_values_are_refused, 0, COUNT(values));
  tcase_add_test(damage, impossible_models_are_not_written);
  tcase_add_test(files, unreadable_files_are_refused);
  tcase_add_test(files, replacing_keeps_the_old_file_on_failure);
  suite_add_tcase(suite, good);
  suite_add_tcase(suite, damage);
  suite_add_tcase(suite, files);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
