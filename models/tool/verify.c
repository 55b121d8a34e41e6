/* hwgq verify: does the engine compute what the definitions say? */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/storage.h"
#include "models/classify/classify.h"
#include "models/data/index.h"
#include "models/tool/tool.h"
#include "models/verify/verify.h"

enum { MAX_IMAGE_BYTES = 256 << 20 };

static const struct command_usage usage = {
    .name = "verify",
    .operands = "MODEL IMAGE... | --golden DIR [--model FILE.caffemodel]",
    .summary = "Compares the engine with the reference executor (double precision, one layer at a time), layer by layer.",
    .notes =
        "Level codes behind a quantizer must be equal. A code that differs counts as a failure when the reference's value "
        "lies\n"
        "farther than the tolerance (1e-5) from a threshold, relative to the largest of the quantizer's inputs and "
        "thresholds;\n"
        "nearer ones are counted. Float layers fail when an error exceeds the tolerance, relative to the layer's largest\n"
        "magnitude (softmax: times its input's largest magnitude, if above 1). Every layer is judged by itself: where codes\n"
        "differ, the reference goes on from the engine's. All kernel sets must give the same bits in every layer, and the "
        "plan\n"
        "that serves the same scores. 'nearest' is the smallest distance of any value to a threshold: how safe the codes are.\n"
        "\n"
        "--golden reads a folder that another program recorded: model.prototxt, model.caffemodel, model_bw.caffemodel (when\n"
        "there), index.json and the blobs that it names, and further inputs in subfolders with an index.json of their own.\n"
        "Reference and engine are compared with every blob, and the engine with the reference as well. Recorded codes must be\n"
        "equal at any distance from a threshold, unless --tolerance is given.\n"
        "\n"
        "Exit status: 0 everything passed, 1 something failed or could not be read, 2 wrong usage.",
    .min_operands = 0,
    .max_operands = 1 << 30,
};

struct arguments {
  const char *golden, *weights, *cpu;
  double tolerance; /* negative: not given */
  bool layers, json;
};

static double float_tolerance(const struct arguments *arguments) {
  return arguments->tolerance < 0 ? VERIFY_TOLERANCE : arguments->tolerance;
}

/* Prints what was written; false without memory. */
static bool print(struct text *text) {
  const bool good = !text->failed;
  if (good && text->data) fputs(text->data, stdout);
  if (!good) fprintf(stderr, "hwgq verify: out of memory\n");
  text_release(text);
  return good;
}

static void write_result(const struct hwgq_network *network, const struct verify_result *result,
                         const struct arguments *arguments, struct text *text) {
  verify_write_text(network, result, text);
  if (arguments->layers) verify_write_layers(network, result, text);
}

/* ---- images -------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status prepare(const struct classifier *classifier, struct classify_scratch *scratch, const char *path,
                                struct classify_result *prepared, struct hwgq_error *error) {
  uint8_t *bytes;
  size_t length;
  enum hwgq_status status = hwgq_storage_read(path, MAX_IMAGE_BYTES, &bytes, &length, error);
  if (status) return status;
  status = classify_prepare(classifier, scratch, bytes, length, NULL, prepared, error);
  free(bytes);
  return status;
}

/* Returns whether it passed. */
static bool verify_image(const struct classifier *classifier, struct classify_scratch *scratch, struct verifier *verifier,
                         const char *path, const struct arguments *arguments) {
  const struct hwgq_network *network = classifier->model->network;
  struct classify_result prepared;
  struct verify_result result;
  struct hwgq_error error;
  struct text text = {0};
  enum hwgq_status status = prepare(classifier, scratch, path, &prepared, &error);
  if (!status) status = verifier_run_pixels(verifier, prepared.pixels, &result, &error);
  if (status) {
    fprintf(stderr, "hwgq verify: %s: %s\n", path, error.message);
    return false;
  }
  if (arguments->json) {
    text_puts(&text, "{\"file\":");
    text_json_string(&text, path);
    text_puts(&text, ",\"result\":");
    verify_write_json(network, &result, &text);
    text_puts(&text, "}\n");
  } else {
    text_printf(&text, "%s: %s\n", path, result.passed ? "pass" : "FAIL");
    write_result(network, &result, arguments, &text);
  }
  const bool passed = result.passed;
  verify_result_release(&result);
  return print(&text) && passed;
}

static int verify_images(const char *model, char **paths, int count, const struct arguments *arguments) {
  struct classifier *classifier = NULL;
  struct classify_scratch *scratch = NULL;
  struct verifier *verifier = NULL;
  struct hwgq_error error;
  int failed = 0;
  enum hwgq_status status = classifier_open(model, NULL, &classifier, &error);
  if (!status) status = classify_scratch_create(classifier, &scratch, &error);
  if (!status) {
    status = verifier_create(classifier->model->network, &classifier->model->preprocess, arguments->cpu,
                             float_tolerance(arguments), &verifier, &error);
  }
  for (int i = 0; i < count && !status; i++) failed += !verify_image(classifier, scratch, verifier, paths[i], arguments);
  if (!status && !arguments->json && count > 1) printf("%d of %d images passed\n", count - failed, count);
  verifier_destroy(verifier);
  classify_scratch_destroy(scratch);
  classifier_destroy(classifier);
  if (status) return tool_failed(&usage, &error);
  return failed ? EXIT_FAILED : EXIT_OK;
}

/* ---- recordings ---------------------------------------------------------------------------------------------------------- */

static enum hwgq_status verify_recording(const struct hwgq_model *model, struct verifier *verifier, const char *weights,
                                         const char *folder, const struct arguments *arguments, bool *passed,
                                         struct hwgq_error *error) {
  struct golden *golden;
  struct verify_result recorded = {0}, engine = {0};
  struct text text = {0};
  enum hwgq_status status = golden_open(folder, &golden, error);
  if (status) return status;
  status = verifier_run_golden(verifier, golden, NULL, &recorded, error);
  if (!status) status = verifier_run_input(verifier, golden->input, &engine, error);
  if (!status) {
    *passed = recorded.passed && engine.passed;
    if (arguments->json) {
      text_puts(&text, "{\"folder\":");
      text_json_string(&text, folder);
      text_puts(&text, ",\"weights\":");
      text_json_string(&text, weights);
      text_printf(&text, ",\"passed\":%s,\"recording\":", *passed ? "true" : "false");
      verify_write_json(model->network, &recorded, &text);
      text_puts(&text, ",\"result\":");
      verify_write_json(model->network, &engine, &text);
      text_puts(&text, "}\n");
    } else {
      text_printf(&text, "%s, %s: %s\n", folder, weights, *passed ? "pass" : "FAIL");
      write_result(model->network, &recorded, arguments, &text);
      write_result(model->network, &engine, arguments, &text);
    }
    if (!print(&text)) *passed = false;
  }
  verify_result_release(&recorded);
  verify_result_release(&engine);
  golden_close(golden);
  return status;
}

/* Subfolders, in order, with an index.json: other inputs of the same network. */
static bool has_recording(const char *folder, const char *name, char **path) {
  char *inner = name[0] == '.' ? NULL : dataset_join(folder, name);
  char *index = inner ? dataset_join(inner, "index.json") : NULL;
  const bool there = index && access(index, F_OK) == 0;
  free(index);
  if (!there) free(inner);
  *path = there ? inner : NULL;
  return there;
}

static enum hwgq_status verify_weights(const char *weights, const struct arguments *arguments, int *passed, int *count,
                                       struct hwgq_error *error) {
  struct hwgq_model *model = NULL;
  struct verifier *verifier = NULL;
  struct dirent **entries = NULL;
  bool good = false;
  int entry_count = scandir(arguments->golden, &entries, NULL, alphasort);
  enum hwgq_status status = golden_import(arguments->golden, weights, &model, error);
  if (!status) {
    status = verifier_create(model->network, &model->preprocess, arguments->cpu, float_tolerance(arguments), &verifier, error);
  }
  if (!status && arguments->tolerance >= 0) verifier_tolerate_recorded_codes(verifier, arguments->tolerance);
  if (!status) status = verify_recording(model, verifier, weights, arguments->golden, arguments, &good, error);
  *passed += good;
  *count += 1;
  for (int i = 0; i < entry_count; i++) {
    char *path = NULL;
    if (!status && has_recording(arguments->golden, entries[i]->d_name, &path)) {
      good = false;
      status = verify_recording(model, verifier, weights, path, arguments, &good, error);
      *passed += good;
      *count += 1;
    }
    free(path);
    free(entries[i]);
  }
  free(entries);
  verifier_destroy(verifier);
  hwgq_model_destroy(model);
  return status;
}

static int verify_golden(const struct arguments *arguments) {
  static const char *const names[] = {"model.caffemodel", "model_bw.caffemodel"};
  struct hwgq_error error;
  int passed = 0, count = 0;
  enum hwgq_status status = HWGQ_OK;
  if (arguments->weights) status = verify_weights(arguments->weights, arguments, &passed, &count, &error);
  for (int i = 0; i < 2 && !arguments->weights && !status; i++) {
    char *path = dataset_join(arguments->golden, names[i]);
    if (!path) {
      status = hwgq_fail(&error, HWGQ_ERROR_MEMORY, "out of memory");
    } else if (i == 0 || access(path, F_OK) == 0) {
      status = verify_weights(path, arguments, &passed, &count, &error);
    }
    free(path);
  }
  if (status) return tool_failed(&usage, &error);
  if (!arguments->json) printf("%d of %d recordings passed\n", passed, count);
  return passed == count ? EXIT_OK : EXIT_FAILED;
}

int command_verify(int argc, char **argv) {
  struct arguments arguments = {.cpu = "all", .tolerance = -1};
  const struct option_spec options[] = {
      {"golden", OPTION_TEXT, &arguments.golden, "DIR", "check a recording instead of a model and images", 0, 0},
      {"model", OPTION_TEXT, &arguments.weights, "FILE", "with --golden: another file of weights", 0, 0},
      {"cpu", OPTION_TEXT, &arguments.cpu, "NAME", "kernel set: scalar, avx2, avx512, neon or all (default: all that run here)",
       0, 0},
      {"tolerance", OPTION_NUMBER, &arguments.tolerance, "X", "relative (default 1e-5)", 0, 1},
      {"layers", OPTION_FLAG, &arguments.layers, NULL, "print a table of all layers", 0, 0},
      {"json", OPTION_FLAG, &arguments.json, NULL, "print one JSON object per image or recording", 0, 0},
      {0},
  };
  int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  if (arguments.golden && argc) return tool_usage(&usage, "--golden takes no further arguments: '%s'", argv[0]);
  if (arguments.golden) return verify_golden(&arguments);
  if (arguments.weights) return tool_usage(&usage, "--model belongs to --golden");
  if (argc < 2) return tool_usage(&usage, "something is missing: expected %s", usage.operands);
  return verify_images(argv[0], argv + 1, argc - 1, &arguments);
}
