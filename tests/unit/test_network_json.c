/* The network description as JSON: what is written comes back exactly, and every mistake is refused by name. */
#include "tests/support/support.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct hwgq_error error;

static struct hwgq_network *network_of(int channels, int height, int width) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){channels, height, width}, &network, &error), HWGQ_OK);
  return network;
}

static void assert_shape(struct hwgq_shape shape, int channels, int height, int width) {
  ck_assert_int_eq(shape.channels, channels);
  ck_assert_int_eq(shape.height, height);
  ck_assert_int_eq(shape.width, width);
}

START_TEST(random_networks_survive_json) {
  struct support_random random = {(uint64_t)_i};
  struct hwgq_network *network = support_random_network(&random), *again = NULL;
  char *text = NULL, *text_again = NULL;
  ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), HWGQ_OK);
  ck_assert_msg(hwgq_network_from_json(text, strlen(text), &again, &error) == HWGQ_OK, "%s in %s", error.message, text);
  ck_assert_int_eq(hwgq_network_to_json(again, &text_again, &error), HWGQ_OK);
  ck_assert_str_eq(text, text_again);
  ck_assert_int_eq(again->layer_count, network->layer_count);
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *a = &network->layers[i], *b = &again->layers[i];
    ck_assert_str_eq(a->name, b->name);
    ck_assert_int_eq(a->op, b->op);
    ck_assert_mem_eq(&a->output, &b->output, sizeof a->output);
    ck_assert_mem_eq(a->inputs, b->inputs, (size_t)a->input_count * sizeof a->inputs[0]);
    ck_assert_mem_eq(a->coefficients, b->coefficients, sizeof a->coefficients);
    ck_assert_mem_eq(&a->eps, &b->eps, sizeof a->eps);
    ck_assert_int_eq(a->level_count, b->level_count);
    ck_assert_mem_eq(a->centers, b->centers, sizeof a->centers);
    ck_assert_mem_eq(a->thresholds, b->thresholds, sizeof a->thresholds);
  }
  free(text);
  free(text_again);
  hwgq_network_destroy(network);
  hwgq_network_destroy(again);
}
END_TEST

/* Random bit patterns of floats come back from JSON exactly. */
START_TEST(floats_survive_json) {
  struct support_random random = {7};
  for (int i = 0; i < 300; i++) {
    struct hwgq_network *network = network_of(1, 1, 1), *again = NULL;
    struct hwgq_layer *layer = support_add(network, "bn", HWGQ_BATCH_NORM, "input");
    uint32_t bits = (uint32_t)support_random_next(&random) & 0x7fffffff;
    if (bits >= 0x7f800000) bits -= 0x40000000;
    if (i == 0) bits = 1;          /* the smallest subnormal */
    if (i == 1) bits = 0x7f7fffff; /* FLT_MAX */
    if (bits == 0) bits = 2;
    memcpy(&layer->eps, &bits, sizeof bits);
    char *text = NULL;
    ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), HWGQ_OK);
    ck_assert_msg(hwgq_network_from_json(text, strlen(text), &again, &error) == HWGQ_OK, "%s in %s", error.message, text);
    ck_assert_mem_eq(&again->layers[0].eps, &bits, sizeof bits);
    free(text);
    hwgq_network_destroy(network);
    hwgq_network_destroy(again);
  }
}
END_TEST

/* The example in network_json.c. */
static const char example[] =
    "{\"name\":\"tiny\",\"input\":[3,8,8],\"layers\":["
    "{\"name\":\"conv1\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":64,\"kernel\":3,\"pad\":1},"
    "{\"name\":\"bn1\",\"op\":\"batch_norm\",\"inputs\":[\"conv1\"]},"
    "{\"name\":\"q1\",\"op\":\"quantize\",\"inputs\":[\"bn1\"],\"centers\":[0.538,1.076,1.614],\"thresholds\":[0,0.807,1.345]},"
    "{\"name\":\"conv2\",\"op\":\"conv2d\",\"inputs\":[\"q1\"],\"out_channels\":64,\"kernel\":[3,1],\"pad\":[1,0],"
    "\"binary\":true,\"alpha\":true},"
    "{\"name\":\"pool\",\"op\":\"avg_pool\",\"inputs\":[\"conv2\"],\"global\":true},"
    "{\"name\":\"fc\",\"op\":\"linear\",\"inputs\":[\"pool\"],\"out_channels\":10,\"bias\":true},"
    "{\"name\":\"prob\",\"op\":\"softmax\",\"inputs\":[\"fc\"]}]}";

START_TEST(the_documented_example_is_read) {
  struct hwgq_network *network = NULL;
  ck_assert_msg(hwgq_network_from_json(example, strlen(example), &network, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(network->layer_count, 7);
  ck_assert_int_eq(network->layers[0].stride_height, 1);
  ck_assert(network->layers[1].eps == 1e-5f);
  ck_assert(network->layers[2].centers[2] == 1.614f && network->layers[2].thresholds[0] == 0);
  ck_assert(network->layers[3].binary && network->layers[3].has_alpha && !network->layers[3].has_bias);
  ck_assert_int_eq(network->layers[3].kernel_width, 1);
  ck_assert_int_eq(network->layers[3].pad_height, 1);
  assert_shape(network->layers[6].output, 10, 1, 1);
  hwgq_network_destroy(network);
}
END_TEST

/* The layer of one network: {"name":"n","input":[8,6,6],"layers":[<text>]}; or a whole text, when it starts with '{{'. */
static const struct {
  const char *text, *message;
} bad_json[] = {
    {"{{", "network: not valid JSON, line 1"},
    {"{{\"name\":\"n\",\"input\":[8,6,6],\"layers\":[]} x", "not valid JSON"},
    {"{{\"name\":\"n\",\"input\":[8,6,6],\"layers\":[]}", "no layers"},
    {"{{\"name\":\"n\",\"input\":[8,6],\"layers\":[]}", "'input' must be [channels, height, width]"},
    {"{{\"name\":\"n\",\"input\":[8,6,99999],\"layers\":[]}", "each 1 to 65536"},
    {"{{\"name\":\"n\",\"input\":[8,6,6.5],\"layers\":[]}", "'input' must be"},
    {"{{\"name\":\"n\",\"layers\":[]}", "'input' must be"},
    {"{{\"name\":5,\"input\":[8,6,6],\"layers\":[]}", "'name' must be a string"},
    {"{{\"name\":\"a/b\",\"input\":[8,6,6],\"layers\":[]}", "contains '/'"},
    {"{{\"name\":\"n\",\"input\":[8,6,6],\"layers\":{}}", "'layers' must be an array"},
    {"{{\"name\":\"n\",\"input\":[8,6,6],\"layers\":[],\"version\":1}", "unknown key 'version'"},
    {"{{\"name\":\"n\",\"name\":\"m\",\"input\":[8,6,6],\"layers\":[]}", "duplicate"},
    {"5", "layer number 0: must be a JSON object"},
    {"{\"op\":\"relu\"}", "layer number 0: 'name' must be a string"},
    {"{\"name\":\"\"}", "layer name is empty"},
    {"{\"name\":\"a\"}", "layer 'a': 'op' is missing"},
    {"{\"name\":\"a\",\"op\":7}", "layer 'a': 'op' must be a string"},
    {"{\"name\":\"a\",\"op\":\"rely\"}", "layer 'a': unknown operation 'rely'"},
    {"{\"name\":\"a\",\"op\":\"relu\"}", "layer 'a': 'inputs' must be an array of 1 to 16 names"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[]}", "'inputs' must be an array"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[3]}", "'inputs' element 0 must be a string"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[\"a\"]}", "input 'a' is not an earlier layer"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[\"input\"],\"kernel\":3}", "layer 'a': unknown key 'kernel'"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[\"input\"],\"name op\":3}", "layer 'a': unknown key 'name op'"},
    {"{\"name\":\"a\",\"op\":\"relu\",\"inputs\":[\"input\"],\"\":3}", "layer 'a': unknown key ''"},
    {"{\"name\":\"a\",\"op\":\"linear\",\"inputs\":[\"input\"],\"out_channels\":4,\"groups\":1}", "unknown key 'groups'"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"]}", "layer 'a': 'out_channels' is missing"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":1e3}", "'out_channels' must be a whole number"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4294967297}", "from 1 to 65536"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4,\"kernel\":[3]}",
     "'kernel' must be a whole number"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4,\"kernel\":-1}",
     "'kernel' must be a whole number"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4,\"pad\":[1,65]}", "from 0 to 64"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4,\"binary\":1}",
     "'binary' must be true or false"},
    {"{\"name\":\"a\",\"op\":\"conv2d\",\"inputs\":[\"input\"],\"out_channels\":4,\"alpha\":true}",
     "has alpha but is not binary"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"]}", "needs 'sign', or as many 'thresholds' as 'centers'"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"],\"centers\":[1,2],\"thresholds\":[0]}", "(1 and 2 given)"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"],\"centers\":[1],\"thresholds\":[0],\"sign\":true}",
     "'sign' goes without"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"],\"centers\":[],\"thresholds\":[]}",
     "array of 1 to 15 numbers"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"],\"centers\":[1,\"2\"],\"thresholds\":[0,1]}",
     "'centers' element 1"},
    {"{\"name\":\"a\",\"op\":\"quantize\",\"inputs\":[\"input\"],\"centers\":[1e39],\"thresholds\":[0]}", "fits 32-bit floats"},
    {"{\"name\":\"a\",\"op\":\"batch_norm\",\"inputs\":[\"input\"],\"eps\":true}", "'eps' must be a number"},
    {"{\"name\":\"a\",\"op\":\"batch_norm\",\"inputs\":[\"input\"],\"eps\":1e-60}", "eps is 0"},
    {"{\"name\":\"a\",\"op\":\"max_pool\",\"inputs\":[\"input\"],\"global\":true,\"kernel\":2}", "'global' goes without"},
    {"{\"name\":\"a\",\"op\":\"add\",\"inputs\":[\"input\",\"input\"],\"coefficients\":[1]}",
     "'coefficients' must be an array of 2 numbers"},
};

START_TEST(bad_json_is_refused) {
  char text[512];
  const char *given = bad_json[_i].text;
  if (given[0] == '{' && given[1] == '{')
    snprintf(text, sizeof text, "%s", given + 1);
  else
    snprintf(text, sizeof text, "{\"name\":\"n\",\"input\":[8,6,6],\"layers\":[%s]}", given);
  struct hwgq_network *network = NULL;
  ck_assert_int_ne(hwgq_network_from_json(text, strlen(text), &network, &error), HWGQ_OK);
  ck_assert_ptr_null(network);
  ck_assert_msg(strstr(error.message, bad_json[_i].message) != NULL, "'%s' lacks '%s'", error.message, bad_json[_i].message);
}
END_TEST

START_TEST(deep_and_large_json_is_refused) {
  size_t length = 5u << 20;
  char *text = malloc(length);
  struct hwgq_network *network = NULL;
  ck_assert_ptr_nonnull(text);
  memset(text, '[', length);
  ck_assert_int_eq(hwgq_network_from_json(text, length, &network, &error), HWGQ_ERROR_LIMIT);
  ck_assert_int_eq(hwgq_network_from_json(text, 1u << 20, &network, &error), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(hwgq_network_from_json("[]", 2, &network, &error), HWGQ_ERROR_FORMAT);
  ck_assert_int_eq(hwgq_network_from_json("", 0, &network, &error), HWGQ_ERROR_FORMAT);
  free(text);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void) {
  Suite *suite = suite_create("network_json");
  TCase *json = tcase_create("json");
  tcase_add_loop_test(json, random_networks_survive_json, 1, 60);
  tcase_add_test(json, floats_survive_json);
  tcase_add_test(json, the_documented_example_is_read);
  tcase_add_loop_test(json, bad_json_is_refused, 0, COUNT(bad_json));
  tcase_add_test(json, deep_and_large_json_is_refused);
  suite_add_tcase(suite, json);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
