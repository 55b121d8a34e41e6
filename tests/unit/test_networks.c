/* The built-in networks: are they the paper's, do they run alike everywhere, and do their random weights look trained. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "models/networks/networks.h"
#include "tests/support/support.h"

static const struct hwgq_quantizer *two_bits(void) {
  static struct hwgq_quantizer quantizer;
  ck_assert_int_eq(hwgq_quantizer_design(3, true, false, &quantizer, NULL), HWGQ_OK);
  return &quantizer;
}

static struct hwgq_network *build(const char *name, int size, int classes, double width, const struct hwgq_quantizer *q) {
  struct hwgq_network *network = NULL;
  struct hwgq_error error = {""};
  const struct networks_entry *entry = networks_find(name);
  ck_assert_ptr_nonnull(entry);
  const struct hwgq_shape input = {entry->input.channels, size, size};
  ck_assert_msg(networks_build(name, input, classes, width, q, &network, &error) == HWGQ_OK, "%s", error.message);
  return network;
}

/* As the paper has it. */
static struct hwgq_network *build_whole(const char *name) {
  const struct networks_entry *entry = networks_find(name);
  ck_assert_ptr_nonnull(entry);
  return build(name, entry->input.height, entry->class_count, 1, two_bits());
}

static const struct hwgq_layer *find(const struct hwgq_network *network, const char *name) {
  const int index = hwgq_network_find(network, name);
  ck_assert_msg(index >= 0, "%s has no layer %s", network->name, name);
  return &network->layers[index];
}

static size_t elements(const struct hwgq_layer *layer) {
  return (size_t)hwgq_shape_elements(layer->output);
}

/* ---- counts ----------------------------------------------------------------------------------------------------------------
 */

struct counts {
  double float_macs, binary_macs, binary_weights; /* millions */
  int binary_convs, quantizers;
};

static struct counts count(const struct hwgq_network *network) {
  struct counts counts = {0};
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    counts.quantizers += layer->op == HWGQ_QUANTIZE;
    if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) continue;
    *(layer->binary ? &counts.binary_macs : &counts.float_macs) += (double)hwgq_layer_macs(network, layer) / 1e6;
    if (!layer->binary) continue;
    counts.binary_weights += (double)hwgq_layer_fan_in(network, layer) * layer->out_channels / 1e6;
    counts.binary_convs += layer->op == HWGQ_CONV2D;
  }
  return counts;
}

/* Multiply-accumulates to the printed precision of the measurements of the authors' program; `binary_weights` 0: not stated. */
static const struct published {
  const char *name;
  double unit, float_macs, binary_macs, binary_weights;
  int binary_convs, quantizers;
} published[] = {
    {"lenet", 0.1, 0, 2.3, 0, 2, 3},
    {"vgg-small", 0.1, 3.6, 604, 0, 5, 6},
    {"vgg-small-relu", 0.1, 3.6, 604, 0, 5, 5},
    {"alexnet", 1, 110, 1026, 58, 4, 6},
    {"vgg-variant", 1, 181, 10524, 134, 9, 11},
    {"darknet-19", 1, 44, 3931, 0, 17, 17},
    {"googlenet", 1, 119, 3065, 0, 47, 29},
    {"resnet-18", 1, 119, 1696, 0, 19, 16},
    {"resnet-34", 1, 119, 3545, 0, 35, 32},
    {"resnet-50", 1, 120, 3738, 0, 52, 48},
    {"resnet-18-small", 0.1, 1.9, 553.6, 0, 19, 16}, /* not the paper's */
};

START_TEST(counts_are_the_papers) {
  const struct published *p = &published[_i];
  struct hwgq_network *network = build_whole(p->name);
  const struct counts counts = count(network);
  ck_assert_double_le(fabs(counts.float_macs - p->float_macs), p->unit / 2);
  ck_assert_double_le(fabs(counts.binary_macs - p->binary_macs), p->unit / 2);
  if (p->binary_weights > 0) ck_assert_double_le(fabs(counts.binary_weights - p->binary_weights), 0.5);
  ck_assert_int_eq(counts.binary_convs, p->binary_convs);
  ck_assert_int_eq(counts.quantizers, p->quantizers);
  ck_assert_str_eq(networks_names()[_i], p->name);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(the_list_of_names_is_complete) {
  int names = 0;
  while (networks_names()[names]) names++;
  ck_assert_int_eq(names, (int)(sizeof published / sizeof *published));
}
END_TEST

/* ---- structure -------------------------------------------------------------------------------------------------------------
 */

/* The trainer's checkpoints name these layers. Digests (FNV-1a) of the descriptions as they were when the first shipped
 * networks were trained. */
START_TEST(trained_networks_stay_as_they_were) {
  static const struct {
    const char *name;
    int size;
    uint64_t digest;
  } cases[] = {{"vgg-small", 32, 0x4d81f76ac37aeae9u}, {"lenet", 28, 0x020f547421ba71d1u}};
  const struct hwgq_quantizer steps = {.level_count = 3, .centers = {0.5f, 1, 1.5f}, .thresholds = {0, 0.75f, 1.25f}};
  struct hwgq_network *network = build(cases[_i].name, cases[_i].size, 10, 1, &steps);
  char *text = NULL;
  uint64_t digest = 0xcbf29ce484222325u;
  ck_assert_int_eq(hwgq_network_to_json(network, &text, NULL), HWGQ_OK);
  for (const char *at = text; *at; at++) digest = (digest ^ (uint8_t)*at) * 0x100000001b3u;
  ck_assert_msg(digest == cases[_i].digest, "%s is another network now (%016llx): %s", cases[_i].name,
                (unsigned long long)digest, text);
  free(text);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(first_and_last_layers_are_float) {
  for (int i = 1; networks_names()[i]; i++) { /* but lenet's */
    struct hwgq_network *network = build(networks_names()[i], 67, 5, 0.1, NULL);
    int first = -1, last = -1;
    for (int j = 0; j < network->layer_count; j++) {
      const struct hwgq_layer *layer = &network->layers[j];
      if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) continue;
      if (first < 0) first = j;
      last = j;
    }
    for (int j = 0; j < network->layer_count; j++) {
      const struct hwgq_layer *layer = &network->layers[j];
      if (layer->op != HWGQ_CONV2D && layer->op != HWGQ_LINEAR) continue;
      ck_assert_int_eq(layer->binary, j != first && j != last);
      ck_assert_int_eq(layer->has_alpha, layer->binary);
      ck_assert_int_eq(layer->has_bias, j == last || (j == first && strncmp(network->name, "resnet", 6) == 0));
      if (!layer->binary) continue;
      ck_assert_int_eq(network->layers[layer->inputs[0]].op, HWGQ_QUANTIZE);
      ck_assert(network->layers[layer->inputs[0]].sign);
    }
    hwgq_network_destroy(network);
  }
}
END_TEST

START_TEST(darknet_has_only_three_by_three) {
  struct hwgq_network *network = build_whole("darknet-19");
  for (int i = 0; i < network->layer_count; i++) {
    if (network->layers[i].op == HWGQ_CONV2D) ck_assert_int_eq(network->layers[i].kernel_height, 3);
  }
  ck_assert_int_eq(find(network, "relu18")->output.height, 7);
  hwgq_network_destroy(network);
}
END_TEST

/* 112 -> 56 without padding needs pooling that rounds up. */
START_TEST(resnet_stream) {
  struct hwgq_network *network = build_whole("resnet-50");
  ck_assert_int_eq(find(network, "pool1")->output.height, 56);
  ck_assert_int_eq(find(network, "res3a_conv1")->stride_height, 2);
  ck_assert_int_eq(find(network, "res3a_conv1")->kernel_height, 1);
  ck_assert_int_eq(find(network, "res3a_conv2")->stride_height, 1);
  ck_assert_int_eq(find(network, "res3a_proj")->stride_height, 2);
  ck_assert_int_eq(find(network, "res2a_proj")->stride_height, 1);
  ck_assert_int_eq(find(network, "res5c")->output.channels, 2048);
  hwgq_network_destroy(network);
  network = build_whole("resnet-18");
  const struct hwgq_layer *sum = find(network, "res2a");
  ck_assert_int_eq(sum->inputs[0], hwgq_network_find(network, "bn1")); /* the shortcut is normalized there, and only there */
  ck_assert_int_eq(find(network, "res2a_quant")->inputs[0], hwgq_network_find(network, "bn1"));
  ck_assert_int_eq(find(network, "res2b")->inputs[0], hwgq_network_find(network, "res2a"));
  ck_assert_int_eq(find(network, "res3a")->inputs[0], hwgq_network_find(network, "res3a_proj_scale"));
  ck_assert_int_eq(find(network, "relu5")->inputs[0], hwgq_network_find(network, "res5b"));
  ck_assert_int_eq(hwgq_network_find(network, "res2a_proj"), -2);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(wrong_arguments_are_refused) {
  struct hwgq_network *network = NULL;
  struct hwgq_error error = {""};
  const struct hwgq_shape color = {3, 32, 32}, deep = {4, 32, 32};
  ck_assert_int_eq(networks_build("alexnet-2", color, 10, 1, NULL, &network, &error), HWGQ_ERROR_INVALID);
  ck_assert_msg(strstr(error.message, "resnet-50"), "%s", error.message);
  ck_assert_int_eq(networks_build("vgg-small", color, 10, 0, NULL, &network, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(networks_build("vgg-small", color, 0, 1, NULL, &network, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_ne(networks_build("alexnet", (struct hwgq_shape){3, 9, 9}, 10, 1, NULL, &network, &error), HWGQ_OK);
  ck_assert_ptr_null(network);
  ck_assert_int_eq(networks_build("vgg-small", deep, 10, 0.1, NULL, &network, &error), HWGQ_OK);
  const struct hwgq_preprocess *preprocess = &networks_find("vgg-small")->preprocess;
  ck_assert_int_eq(networks_randomize(network, preprocess, 1, 1, &error), HWGQ_ERROR_INVALID);
  hwgq_network_destroy(network);
  network = build("vgg-small", 32, 10, 0.1, NULL);
  ck_assert_int_eq(networks_randomize(network, preprocess, 1, 0, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(networks_randomize(network, preprocess, 1, 65, &error), HWGQ_ERROR_INVALID);
  hwgq_network_destroy(network);
}
END_TEST

START_TEST(descriptions_survive_json) {
  struct hwgq_network *network = build_whole(networks_names()[_i]), *copy = NULL;
  char *text = NULL, *again = NULL;
  struct hwgq_error error = {""};
  ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), HWGQ_OK);
  ck_assert_msg(hwgq_network_from_json(text, strlen(text), &copy, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_msg(hwgq_network_infer(copy, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(hwgq_network_to_json(copy, &again, &error), HWGQ_OK);
  ck_assert_str_eq(text, again);
  free(text);
  free(again);
  hwgq_network_destroy(network);
  hwgq_network_destroy(copy);
}
END_TEST

START_TEST(class_names_are_in_order) {
  static const struct {
    int index;
    const char *name;
  } known[] = {{0, "tench"},          {151, "Chihuahua"},  {207, "golden retriever"}, {281, "tabby"},  {340, "zebra"},
               {388, "giant panda"},  {407, "ambulance"},  {555, "fire engine"},      {609, "jeep"},   {671, "mountain bike"},
               {779, "school bus"},   {817, "sports car"}, {867, "trailer truck"},    {954, "banana"}, {963, "pizza"},
               {999, "toilet tissue"}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    ck_assert_str_eq(networks_imagenet_labels[known[i].index], known[i].name);
  }
  for (int i = 0; i < NETWORKS_IMAGENET_CLASSES; i++) {
    ck_assert_ptr_nonnull(networks_imagenet_labels[i]);
    for (int j = 0; j < i; j++) ck_assert_str_ne(networks_imagenet_labels[i], networks_imagenet_labels[j]);
  }
}
END_TEST

/* ---- running ---------------------------------------------------------------------------------------------------------------
 */

enum { SIZE = 67, VARIANTS = 4 };

/* Two bits; sign; 2 levels of their own; four bits. */
static struct hwgq_network *small_network(const char *name, int variant) {
  static const int levels[VARIANTS] = {3, 0, 2, 15};
  const int size = networks_find(name)->input.height < SIZE ? networks_find(name)->input.height : SIZE;
  struct hwgq_quantizer q;
  struct hwgq_error error = {""};
  if (variant != 1) ck_assert_int_eq(hwgq_quantizer_design(levels[variant], variant != 2, false, &q, &error), HWGQ_OK);
  struct hwgq_network *network = build(name, size, 11, 0.15, variant == 1 ? NULL : &q);
  ck_assert_msg(networks_randomize(network, &networks_find(name)->preprocess, 5, 4, &error) == HWGQ_OK, "%s", error.message);
  return network;
}

static float *input_of(const struct hwgq_network *network, int number) {
  const size_t count = (size_t)hwgq_shape_elements(network->input);
  uint8_t *pixels = malloc(count);
  float *input = malloc(count * sizeof *input);
  networks_image(network->input, 5, number, pixels);
  hwgq_preprocess_to_float(&networks_find(network->name)->preprocess, network->input, pixels, input);
  free(pixels);
  return input;
}

struct outcome {
  float *scores, **layers; /* layers: NULL where folded */
};

static struct outcome run_plan(const struct hwgq_network *network, const char *cpu, const float *input) {
  struct outcome outcome;
  struct hwgq_plan *plan = NULL;
  struct hwgq_error error = {""};
  const struct hwgq_plan_options options = {.cpu = cpu, .keep_all_layers = true};
  ck_assert_msg(hwgq_plan_create(network, NULL, &options, &plan, &error) == HWGQ_OK, "%s", error.message);
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
  outcome.scores = calloc((size_t)hwgq_plan_output_count(plan), sizeof(float));
  outcome.layers = calloc((size_t)network->layer_count, sizeof *outcome.layers);
  hwgq_run_tensor(plan, scratch, input, outcome.scores);
  for (int i = 0; i < network->layer_count; i++) {
    outcome.layers[i] = malloc(elements(&network->layers[i]) * sizeof(float));
    if (hwgq_run_output(plan, scratch, i, outcome.layers[i], NULL) == HWGQ_OK) continue;
    free(outcome.layers[i]);
    outcome.layers[i] = NULL;
  }
  free(scratch);
  hwgq_plan_destroy(plan);
  return outcome;
}

static void release(const struct hwgq_network *network, struct outcome *outcome) {
  for (int i = 0; i < network->layer_count; i++) free(outcome->layers[i]);
  free(outcome->layers);
  free(outcome->scores);
}

static bool near_threshold(const struct hwgq_layer *layer, double x) {
  const double tolerance = 1e-4 * (1 + fabs(x));
  if (layer->sign) return fabs(x) < tolerance;
  for (int j = 0; j < layer->level_count; j++) {
    if (fabs(x - (double)layer->thresholds[j]) < tolerance) return true;
  }
  return false;
}

/* Layer by layer, until float32 has moved a value across a threshold that lies very close to it: false then, since all that
 * follows may differ. */
static bool agrees_with_reference(const struct hwgq_network *network, const struct hwgq_reference *reference,
                                  const struct outcome *outcome) {
  int quantizers = 0;
  for (int i = 0; i < network->layer_count; i++) {
    const struct hwgq_layer *layer = &network->layers[i];
    const double *expected = hwgq_reference_output(reference, i);
    bool moved = false;
    if (!outcome->layers[i]) continue;
    double largest = 0;
    for (size_t k = 0; k < elements(layer); k++) largest = fmax(largest, fabs(expected[k]));
    for (size_t k = 0; k < elements(layer); k++) {
      const double value = (double)outcome->layers[i][k];
      if (layer->op != HWGQ_QUANTIZE) {
        ck_assert_msg(fabs(value - expected[k]) <= 2e-5 * largest + 1e-7, "%s, layer %s, element %zu: %.9g, not %.9g",
                      network->name, layer->name, k, value, expected[k]);
      } else if (value != expected[k]) {
        const double x = hwgq_reference_output(reference, layer->inputs[0])[k];
        ck_assert_msg(near_threshold(layer, x), "%s, layer %s, element %zu: level %.9g, not %.9g, for %.9g", network->name,
                      layer->name, k, value, expected[k], x);
        moved = true;
      }
    }
    if (moved) return false;
    quantizers += layer->op == HWGQ_QUANTIZE;
  }
  ck_assert_int_eq(quantizers, count(network).quantizers);
  return true;
}

static void check_sets(const char *name, int variant) {
  static const char *const sets[] = {"scalar", "avx2", "avx512", "neon"};
  struct hwgq_network *network = small_network(name, variant);
  const int classes = 11;
  float *input = input_of(network, 100);
  struct hwgq_reference *reference = NULL;
  struct outcome first = run_plan(network, sets[0], input);
  ck_assert_int_eq(hwgq_reference_create(network, &reference, NULL), HWGQ_OK);
  ck_assert_int_eq(hwgq_reference_run(reference, input, NULL), HWGQ_OK);
  agrees_with_reference(network, reference, &first);
  double sum = 0;
  for (int c = 0; c < classes; c++) sum += (double)first.scores[c];
  ck_assert_double_le(fabs(sum - 1), 1e-5);
  for (size_t s = 1; s < sizeof sets / sizeof *sets; s++) {
    if (!hwgq_cpu_supports(sets[s])) continue;
    struct outcome other = run_plan(network, sets[s], input);
    ck_assert_mem_eq(first.scores, other.scores, (size_t)classes * sizeof(float));
    for (int i = 0; i < network->layer_count; i++) {
      ck_assert_int_eq(first.layers[i] != NULL, other.layers[i] != NULL);
      if (!first.layers[i]) continue;
      ck_assert_msg(memcmp(first.layers[i], other.layers[i], elements(&network->layers[i]) * sizeof(float)) == 0,
                    "%s: layer %s differs between scalar and %s", name, network->layers[i].name, sets[s]);
    }
    release(network, &other);
  }
  release(network, &first);
  hwgq_reference_destroy(reference);
  free(input);
  hwgq_network_destroy(network);
}

START_TEST(plans_agree_with_the_reference) {
  check_sets(networks_names()[_i], 0);
}
END_TEST

/* Variants of a plain network, of branches, and of a float stream. */
START_TEST(variants_agree_with_the_reference) {
  static const char *const names[] = {"alexnet", "googlenet", "resnet-18"};
  check_sets(names[_i / (VARIANTS - 1)], 1 + _i % (VARIANTS - 1));
}
END_TEST

/* Half of all activations 0, and the rest spread as the half-normal distribution has it: about 50, 28, 13, 9 percent. */
START_TEST(activations_are_spread_over_the_levels) {
  static const char *const names[] = {"vgg-small", "googlenet", "resnet-50"};
  struct hwgq_network *network = small_network(names[_i], 0);
  struct hwgq_reference *reference = NULL;
  size_t found[4] = {0}, all = 0;
  ck_assert_int_eq(hwgq_reference_create(network, &reference, NULL), HWGQ_OK);
  for (int image = 0; image < 2; image++) {
    float *input = input_of(network, image);
    ck_assert_int_eq(hwgq_reference_run(reference, input, NULL), HWGQ_OK);
    for (int i = 0; i < network->layer_count; i++) {
      const struct hwgq_layer *layer = &network->layers[i];
      if (layer->op != HWGQ_QUANTIZE) continue;
      for (size_t k = 0; k < elements(layer); k++, all++) {
        const double value = hwgq_reference_output(reference, i)[k];
        found[value <= 0 ? 0 : value < 0.8 ? 1 : value < 1.3 ? 2 : 3]++;
      }
    }
    free(input);
  }
  static const double share[4] = {0.51, 0.28, 0.13, 0.08};
  for (int level = 0; level < 4; level++) ck_assert_double_le(fabs((double)found[level] / (double)all - share[level]), 0.05);
  hwgq_reference_destroy(reference);
  hwgq_network_destroy(network);
}
END_TEST

/* Every parameter array of two networks of the same kind. */
static bool same_parameters(const struct hwgq_network *a, const struct hwgq_network *b) {
  for (int i = 0; i < a->layer_count; i++) {
    struct hwgq_parameter x[HWGQ_MAX_PARAMETERS], y[HWGQ_MAX_PARAMETERS];
    const int parameters = hwgq_layer_parameters(a, &a->layers[i], x);
    hwgq_layer_parameters(b, &b->layers[i], y);
    for (int j = 0; j < parameters; j++) {
      if (memcmp(hwgq_parameter_data(&x[j]), hwgq_parameter_data(&y[j]), (size_t)hwgq_parameter_bytes(&x[j])) != 0)
        return false;
    }
  }
  return true;
}

START_TEST(models_are_repeatable_and_survive_the_file) {
  const char *name = networks_names()[_i];
  const struct networks_entry *entry = networks_find(name);
  struct hwgq_network *again = small_network(name, 0);
  struct hwgq_model model = {.network = small_network(name, 0), .preprocess = entry->preprocess, .class_count = 11};
  struct hwgq_model *loaded = NULL;
  struct hwgq_error error = {""};
  char *labels[11], provenance[] = "{}", *folder = support_make_directory(), *path = support_path(folder, "model.hwgq");
  char text[11][2];
  for (int i = 0; i < 11; i++) {
    text[i][0] = (char)('a' + i);
    text[i][1] = '\0';
    labels[i] = text[i];
  }
  model.labels = labels;
  model.provenance = provenance;
  ck_assert(same_parameters(model.network, again));
  ck_assert_msg(hwgq_model_write(&model, path, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_msg(hwgq_model_read(path, &loaded, &error) == HWGQ_OK, "%s", error.message);
  ck_assert(same_parameters(model.network, loaded->network));
  ck_assert_int_eq(networks_randomize(again, &entry->preprocess, 6, 4, &error), HWGQ_OK);
  ck_assert(!same_parameters(model.network, again));
  hwgq_model_destroy(loaded);
  hwgq_network_destroy(again);
  hwgq_network_destroy(model.network);
  free(path);
  support_remove_directory(folder);
}
END_TEST

int main(void) {
  const int networks = (int)(sizeof published / sizeof *published);
  Suite *suite = suite_create("networks");
  TCase *structure = tcase_create("structure"), *running = tcase_create("running");
  tcase_set_timeout(structure, 120);
  tcase_set_timeout(running, 120);
  tcase_add_loop_test(structure, counts_are_the_papers, 0, networks);
  tcase_add_test(structure, the_list_of_names_is_complete);
  tcase_add_loop_test(structure, trained_networks_stay_as_they_were, 0, 2);
  tcase_add_test(structure, first_and_last_layers_are_float);
  tcase_add_test(structure, darknet_has_only_three_by_three);
  tcase_add_test(structure, resnet_stream);
  tcase_add_test(structure, wrong_arguments_are_refused);
  tcase_add_loop_test(structure, descriptions_survive_json, 0, networks);
  tcase_add_test(structure, class_names_are_in_order);
  tcase_add_loop_test(running, plans_agree_with_the_reference, 0, networks);
  tcase_add_loop_test(running, variants_agree_with_the_reference, 0, 3 * (VARIANTS - 1));
  tcase_add_loop_test(running, activations_are_spread_over_the_levels, 0, 3);
  tcase_add_loop_test(running, models_are_repeatable_and_survive_the_file, 0, networks);
  suite_add_tcase(suite, structure);
  suite_add_tcase(suite, running);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
