/* The bits of a network's scores, as text: what tests/scores/run.sh compares between kernel sets and architectures.
 *   scores                            lists 'SET FORM' of what this CPU runs; 'missing SET' of what it does not
 *   scores SET FORM MODEL INPUT...    each score as a hexadecimal float, and a digest of each layer's values that a plan which
 *                                     keeps them has. INPUT: a JPEG, or NAME.bin, the network's float32 input (CHW).
 * Nothing that is printed names the set or the form: all outputs must be equal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "engine/kernels/kernels.h"
#include "engine/parameters.h"
#include "models/classify/classify.h"
#include "tests/support/support.h"

static struct hwgq_error error;

static void must(enum hwgq_status status) {
  if (status == HWGQ_OK) return;
  fprintf(stderr, "scores: %s\n", error.message);
  exit(1);
}

static void list(void) {
  for (int i = 0; hwgq_kernels_get(i); i++) {
    const struct hwgq_kernels *set = hwgq_kernels_get(i);
    if (!hwgq_kernels_supported(set)) printf("missing %s\n", set->name);
    for (const struct hwgq_bconv_form *form = set->forms; hwgq_kernels_supported(set) && form->name; form++) {
      if (hwgq_form_supported(form)) printf("%s %s\n", set->name, form->name);
    }
    if (hwgq_kernels_supported(set) && hwgq_sliced_supported(set)) printf("%s sliced\n", set->name);
  }
}

/* A network in two plans: as it serves, and with all layers kept. */
struct subject {
  const struct hwgq_model *model;
  struct hwgq_plan *plans[2];
  void *scratch[2];
};

static struct subject subject_of(const struct hwgq_model *model, const char *set, const char *form) {
  struct subject subject = {.model = model};
  for (int i = 0; i < 2; i++) {
    const struct hwgq_plan_options options = {.cpu = set, .form = form, .keep_all_layers = i == 1};
    must(hwgq_plan_create(model->network, &model->preprocess, &options, &subject.plans[i], &error));
    subject.scratch[i] = aligned_alloc(64, hwgq_plan_scratch_bytes(subject.plans[i]));
    if (!subject.scratch[i]) abort();
  }
  return subject;
}

static void release(struct subject *subject) {
  for (int i = 0; i < 2; i++) {
    free(subject->scratch[i]);
    hwgq_plan_destroy(subject->plans[i]);
  }
}

static void print_layers(const struct subject *subject) {
  const struct hwgq_network *network = subject->model->network;
  for (int i = 0; i < network->layer_count; i++) {
    const size_t bytes = (size_t)hwgq_shape_elements(network->layers[i].output) * sizeof(float);
    float *values = malloc(bytes);
    if (!values) abort();
    if (hwgq_run_output(subject->plans[1], subject->scratch[1], i, values, &error) == HWGQ_OK) {
      printf("  layer %s %016llx\n", network->layers[i].name, (unsigned long long)XXH3_64bits(values, bytes));
    }
    free(values);
  }
}

/* One of pixels and values is NULL. */
static void print_run(const struct subject *subject, const uint8_t *pixels, const float *values) {
  const size_t count = (size_t)subject->model->class_count;
  float *scores = calloc(2 * count, sizeof *scores);
  if (!scores) abort();
  for (size_t i = 0; i < 2; i++) {
    if (pixels) {
      hwgq_run(subject->plans[i], subject->scratch[i], pixels, scores + i * count);
    } else {
      hwgq_run_tensor(subject->plans[i], subject->scratch[i], values, scores + i * count);
    }
  }
  for (size_t c = 0; c < count; c++) printf("  score %zu %a\n", c, (double)scores[c]);
  if (memcmp(scores, scores + count, count * sizeof *scores) != 0) puts("  other scores when all layers are kept");
  print_layers(subject);
  free(scores);
}

int main(int argc, char **argv) {
  if (argc == 1) {
    list();
    return 0;
  }
  if (argc < 5) {
    fprintf(stderr, "usage: scores [SET FORM MODEL INPUT...]\n");
    return 2;
  }
  struct hwgq_model *model = NULL;
  struct classifier *classifier = NULL;
  struct classify_scratch *scratch = NULL;
  must(hwgq_model_read(argv[3], &model, &error));
  must(classifier_create(model, argv[1], &classifier, &error));
  must(classify_scratch_create(classifier, &scratch, &error));
  struct subject subject = subject_of(model, argv[1], argv[2]);
  for (int i = 4; i < argc; i++) {
    size_t length = 0;
    uint8_t *bytes = support_read_file(argv[i], &length);
    if (!bytes) must(hwgq_fail(&error, HWGQ_ERROR_IO, "cannot read %s", argv[i]));
    printf("%s\n", argv[i]);
    if (strstr(argv[i], ".bin")) {
      if (length != (size_t)hwgq_shape_elements(classifier->input) * sizeof(float))
        must(hwgq_fail(&error, HWGQ_ERROR_INVALID, "%s is not of the network's input size", argv[i]));
      print_run(&subject, NULL, (const float *)(const void *)bytes);
    } else {
      struct classify_result result;
      must(classify_prepare(classifier, scratch, bytes, length, NULL, &result, &error));
      print_run(&subject, result.pixels, NULL);
    }
    free(bytes);
  }
  release(&subject);
  classify_scratch_destroy(scratch);
  classifier_destroy(classifier);
  return 0;
}
