/* hwgq eval: accuracy of a model on a labelled data set, through the engine, and through the reference executor beside it. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/cores.h"
#include "models/classify/classify.h"
#include "models/data/dataset.h"
#include "models/tool/eval_classes.h"
#include "models/tool/eval_first.h"
#include "models/tool/tool.h"

/* Binary layers are exact in both executors. The float layers at both ends round to float32 in the engine, which moves a
 * probability by far less than this; more means that a value behind the first layer lay within that rounding of a quantizer's
 * threshold and got the neighbouring level, as hwgq verify --layers shows. */
static const double score_tolerance = 1e-4;

enum { MAX_THREADS = 256 };

static const char *const split_names[] = {[DATASET_TRAIN] = "train", [DATASET_TEST] = "test", [DATASET_VAL] = "val"};

static const struct command_usage usage = {
    .name = "eval",
    .operands = "MODEL DATA",
    .summary = "Prints top-1 and top-5 accuracy and the mean loss of a model on labelled images.",
    .notes =
        "DATA: a folder or an archive (.tar, .tar.xz, .tar.gz, .zip) with train/CLASS/IMAGE and test/CLASS/IMAGE, or just\n"
        "CLASS/IMAGE; a folder of MNIST or Fashion-MNIST IDX files; a folder of CIFAR-10 binary batches.\n"
        "Classes are those of the same name; where the model knows none of the names and has as many, those at the same "
        "place.\n"
        "\n"
        "--reference counts images of which a probability differs by more than 1e-4. There can be a few: a value of the float\n"
        "first layer that lies within float32 rounding of a quantizer's threshold may get the neighbouring level. hwgq verify\n"
        "--layers shows such an image's. A different top-1 is a failure.\n"
        "\n"
        "--first-conv runs every image with the first convolution in integers and in float32, whatever the model asks for "
        "(its\n"
        "weights are rounded if need be), and counts what differs: levels of the first quantizer, scores, best classes.\n"
        "\n"
        "Exit status: 0 done, 1 something could not be read or a top-1 differs from the reference's, 2 wrong usage.",
    .min_operands = 2,
    .max_operands = 2,
};

struct outcome {
  int predicted, rank; /* rank of the true class: 0 when it is the first */
  float probability;   /* of the predicted class */
  double loss;         /* -ln of the true class's probability */
  int reference_predicted;
  double difference; /* largest, between the scores of engine and reference */
};

struct evaluation {
  const char *model_path, *data_path;
  enum dataset_split split; /* the one asked for */
  struct classifier *classifier;
  struct dataset *data;
  int *class_of; /* label of the data set -> class of the model */
  bool reference;
  int threads;
  struct outcome *outcomes;             /* [data->count] */
  const struct first_comparison *first; /* NULL: not asked for */
  atomic_int next;
  atomic_bool failed;
  double seconds;
};

struct choice {
  const char *split, *predictions;
  int limit, threads;
  bool reference, first_conv, json, verbose, confusion;
};

struct worker {
  struct evaluation *evaluation;
  pthread_t thread;
  enum hwgq_status status;
  struct hwgq_error error;
};

/* What the outcomes add up to. Sums run in the order of the images, so they are the same for every number of threads. */
struct totals {
  int top1, top5, reference_top1, changed, over_tolerance, worst;
  double loss;
  struct class_counts classes;
};

/* ---- running ------------------------------------------------------------------------------------------------------------- */

/* Ties break by class index, as in hwgq_top_k. */
static void judge(const float *scores, int count, int truth, struct outcome *outcome) {
  int best = 0, rank = 0;
  for (int c = 0; c < count; c++) {
    if (scores[c] > scores[best]) best = c;
    if (scores[c] > scores[truth] || (scores[c] == scores[truth] && c < truth)) rank++;
  }
  outcome->predicted = best;
  outcome->rank = rank;
  outcome->probability = scores[best];
  outcome->loss = -log(fmax((double)scores[truth], 1e-30));
}

static void compare(const float *scores, const double *reference, int count, struct outcome *outcome) {
  int best = 0;
  for (int c = 0; c < count; c++) {
    if (reference[c] > reference[best]) best = c;
    double difference = fabs((double)scores[c] - reference[c]);
    if (!(difference <= outcome->difference)) outcome->difference = difference;
  }
  outcome->reference_predicted = best;
}

static enum hwgq_status evaluate_image(struct evaluation *e, int i, struct classify_scratch *scratch,
                                       struct hwgq_reference *reference, float *input, struct hwgq_error *error) {
  const struct hwgq_model *model = e->classifier->model;
  const struct dataset *data = e->data;
  const uint8_t *pixels = data->pixels + (size_t)i * (size_t)data->height * (size_t)data->width * (size_t)data->channels;
  struct outcome *outcome = &e->outcomes[i];
  struct classify_result result;
  enum hwgq_status status = classify_pixels(e->classifier, scratch, pixels, &result, error);
  if (status) return status;
  judge(result.scores, e->classifier->class_count, e->class_of[data->labels[i]], outcome);
  if (!reference) return HWGQ_OK;
  hwgq_preprocess_to_float(&model->preprocess, e->classifier->input, pixels, input);
  status = hwgq_reference_run(reference, input, error);
  if (status) return status;
  compare(result.scores, hwgq_reference_output(reference, model->network->layer_count - 1), e->classifier->class_count,
          outcome);
  return HWGQ_OK;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct evaluation *e = worker->evaluation;
  const struct hwgq_shape shape = e->classifier->input;
  struct classify_scratch *scratch = NULL;
  struct hwgq_reference *reference = NULL;
  float *input = malloc((size_t)shape.channels * (size_t)shape.height * (size_t)shape.width * sizeof *input);
  enum hwgq_status status = input ? classify_scratch_create(e->classifier, &scratch, &worker->error)
                                  : hwgq_fail(&worker->error, HWGQ_ERROR_MEMORY, "out of memory");
  if (!status && e->reference) status = hwgq_reference_create(e->classifier->model->network, &reference, &worker->error);
  while (!status && !atomic_load(&e->failed)) {
    int i = atomic_fetch_add(&e->next, 1);
    if (i >= e->data->count) break;
    status = evaluate_image(e, i, scratch, reference, input, &worker->error);
  }
  if (status) atomic_store(&e->failed, true);
  worker->status = status;
  hwgq_reference_destroy(reference);
  classify_scratch_destroy(scratch);
  free(input);
  return NULL;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static enum hwgq_status run(struct evaluation *e, struct hwgq_error *error) {
  struct worker *workers = calloc((size_t)e->threads, sizeof *workers);
  enum hwgq_status status = HWGQ_OK;
  int started = 0;
  if (!workers) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  double start = now();
  for (int i = 0; i < e->threads; i++) workers[i].evaluation = e;
  while (started < e->threads - 1 && !pthread_create(&workers[started].thread, NULL, work, &workers[started])) started++;
  work(&workers[started]);
  for (int i = 0; i < started; i++) pthread_join(workers[i].thread, NULL);
  e->seconds = now() - start;
  e->threads = started + 1; /* fewer when the system refused some */
  for (int i = 0; i <= started && !status; i++) {
    status = workers[i].status;
    if (status && error) *error = workers[i].error;
  }
  free(workers);
  return status;
}

static enum hwgq_status add_up(const struct evaluation *e, struct totals *totals, struct hwgq_error *error) {
  size_t classes = (size_t)e->classifier->class_count;
  *totals = (struct totals){.classes = {.classes = e->classifier->class_count,
                                        .labels = e->classifier->model->labels,
                                        .counts = calloc(classes * classes, sizeof(int))}};
  if (!totals->classes.counts) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  for (int i = 0; i < e->data->count; i++) {
    const struct outcome *outcome = &e->outcomes[i];
    int truth = e->class_of[e->data->labels[i]];
    totals->top1 += outcome->rank == 0;
    totals->top5 += outcome->rank < 5;
    totals->loss += outcome->loss / e->data->count;
    totals->classes.counts[(size_t)truth * classes + (size_t)outcome->predicted]++;
    totals->reference_top1 += outcome->reference_predicted == truth;
    totals->changed += outcome->reference_predicted != outcome->predicted;
    totals->over_tolerance += outcome->difference > score_tolerance;
    if (outcome->difference > e->outcomes[totals->worst].difference) totals->worst = i;
  }
  return HWGQ_OK;
}

/* ---- classes ------------------------------------------------------------------------------------------------------------- */

static int find_label(const struct hwgq_model *model, const char *name) {
  for (int c = 0; c < model->class_count; c++) {
    if (!strcmp(model->labels[c], name)) return c;
  }
  return -1;
}

/* "'a', 'b' and 3 more": the names of the classes that are marked, as far as there is room. */
static void list_classes(char *text, size_t size, char *const *names, const bool *marked, int count) {
  size_t used = 0;
  int left = 0;
  for (int c = 0; c < count; c++) left += marked[c];
  text[0] = '\0';
  for (int c = 0; c < count && left > 0; c++) {
    if (!marked[c]) continue;
    const char *between = used == 0 ? "" : left == 1 ? " and " : ", ";
    int length = snprintf(text + used, size - used, "%s'%.40s'", between, names[c]);
    if (length < 0 || used + (size_t)length + sizeof " and 16777216 more" > size) break;
    used += (size_t)length;
    left--;
  }
  if (left > 0) snprintf(text + used, size - used, "%s%d more", used > 0 ? " and " : "", left);
}

/* Which names each side has alone. */
static enum hwgq_status refuse_classes(const struct evaluation *e, const bool *unknown, const bool *missing,
                                       struct hwgq_error *error) {
  const struct hwgq_model *model = e->classifier->model;
  char strangers[120], absent[120];
  list_classes(strangers, sizeof strangers, e->data->class_names, unknown, e->data->class_count);
  list_classes(absent, sizeof absent, model->labels, missing, model->class_count);
  return hwgq_fail(error, HWGQ_ERROR_INVALID,
                   "'%.120s' has classes that the model does not know: %s%s%s: name them as the model does (hwgq inspect lists "
                   "its labels), or leave them out",
                   e->data_path, strangers, absent[0] ? "; labels without a class there: " : "", absent);
}

/* By name. By position, when there are equally many, only where not one name is known, as with numbers for names. */
static enum hwgq_status match_classes(struct evaluation *e, struct hwgq_error *error) {
  const struct hwgq_model *model = e->classifier->model;
  const struct dataset *data = e->data;
  int known = 0;
  e->class_of = calloc((size_t)data->class_count + 1, sizeof *e->class_of);
  bool *unknown = calloc((size_t)data->class_count + 1, sizeof *unknown);
  bool *missing = calloc((size_t)model->class_count + 1, sizeof *missing);
  enum hwgq_status status = HWGQ_OK;
  if (!e->class_of || !unknown || !missing) {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  } else {
    memset(missing, 1, (size_t)model->class_count * sizeof *missing);
    for (int c = 0; c < data->class_count; c++) {
      int found = e->class_of[c] = find_label(model, data->class_names[c]);
      unknown[c] = found < 0;
      known += found >= 0;
      if (found >= 0) missing[found] = false;
    }
    if (known == 0 && data->class_count == model->class_count) {
      for (int c = 0; c < data->class_count; c++) e->class_of[c] = c;
    } else if (known < data->class_count) {
      status = refuse_classes(e, unknown, missing, error);
    }
  }
  free(unknown);
  free(missing);
  return status;
}

/* ---- results ------------------------------------------------------------------------------------------------------------- */

static double percent(int part, int whole) {
  return whole > 0 ? 100.0 * part / whole : 0;
}

static void print_first(const struct first_comparison *first) {
  printf("first convolution, integers and float32: %d image%s with another best class, %d with other scores\n",
         first->predictions, first->predictions == 1 ? "" : "s", first->scores);
  if (first->layer) {
    printf("           levels of '%s' that differ: %llu of %llu, in %d image%s\n", first->layer,
           (unsigned long long)first->levels, (unsigned long long)first->level_count, first->images,
           first->images == 1 ? "" : "s");
  }
}

static void print_text(const struct evaluation *e, const struct totals *totals) {
  int count = e->data->count;
  printf("model      %s (%s)\n", e->model_path, e->classifier->model->network->name);
  printf("data       %s, %s, %d images\n", e->data_path, split_names[e->data->split], count);
  printf("top-1      %.2f %% (%d)\n", percent(totals->top1, count), totals->top1);
  printf("top-5      %.2f %% (%d)\n", percent(totals->top5, count), totals->top5);
  printf("loss       %.4f\n", totals->loss);
  if (e->first) print_first(e->first);
  if (!e->reference) {
    printf("speed      %.0f images/s, %d thread%s, %s\n", count / e->seconds, e->threads, e->threads > 1 ? "s" : "",
           hwgq_plan_cpu(e->classifier->plan));
    return;
  }
  printf("reference  top-1 %.2f %% (%d), differs from the engine's on %d image%s\n", percent(totals->reference_top1, count),
         totals->reference_top1, totals->changed, totals->changed == 1 ? "" : "s");
  printf("           largest difference of a probability %.3g (%s)\n", e->outcomes[totals->worst].difference,
         e->data->file_names[totals->worst]);
  printf("           %d image%s over the tolerance of %g%s\n", totals->over_tolerance, totals->over_tolerance == 1 ? "" : "s",
         score_tolerance, totals->over_tolerance ? ": rounding at a threshold (see --help)" : "");
}

static int print_json(const struct evaluation *e, const struct totals *totals, const struct choice *choice) {
  struct text text = {0};
  double count = e->data->count;
  text_puts(&text, "{\"model\":");
  text_json_string(&text, e->model_path);
  text_puts(&text, ",\"digest\":");
  text_json_string(&text, e->classifier->model->digest);
  text_puts(&text, ",\"data\":");
  text_json_string(&text, e->data_path);
  text_printf(&text, ",\"split\":\"%s\",\"images\":%d,\"top1\":%.6f,\"top5\":%.6f,\"loss\":%.6f,\"threads\":%d",
              split_names[e->data->split], e->data->count, totals->top1 / count, totals->top5 / count, totals->loss,
              e->threads);
  if (!e->reference) {
    text_printf(&text, ",\"images_per_s\":%.1f,\"cpu\":\"%s\"", count / e->seconds, hwgq_plan_cpu(e->classifier->plan));
  } else {
    text_printf(&text, ",\"reference\":{\"top1\":%.6f,\"top1_differs\":%d,\"largest_difference\":%.9g",
                totals->reference_top1 / count, totals->changed, e->outcomes[totals->worst].difference);
    text_printf(&text, ",\"tolerance\":%g,\"over_tolerance\":%d}", score_tolerance, totals->over_tolerance);
  }
  if (e->first) {
    text_printf(&text, ",\"first_conv\":{\"top1_differs\":%d,\"scores_differ\":%d,\"images_with_other_levels\":%d",
                e->first->predictions, e->first->scores, e->first->images);
    text_printf(&text, ",\"levels_differ\":%llu,\"levels\":%llu}", (unsigned long long)e->first->levels,
                (unsigned long long)e->first->level_count);
  }
  class_counts_json(&totals->classes, choice->verbose, choice->confusion, &text);
  text_puts(&text, "}\n");
  bool failed = text.failed;
  if (!failed) fputs(text.data, stdout);
  text_release(&text);
  return failed ? tool_failed(&usage, &(struct hwgq_error){"out of memory"}) : EXIT_OK;
}

/* One line per image: file, true class, predicted class, probability of the predicted class (written as `hwgq classify` does);
 * tabs between. */
static enum hwgq_status write_predictions(const struct evaluation *e, const char *path, struct hwgq_error *error) {
  struct text text = {0};
  FILE *file = fopen(path, "w");
  if (!file) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
  for (int i = 0; i < e->data->count; i++) {
    const struct outcome *outcome = &e->outcomes[i];
    text_printf(&text, "%s\t%d\t%d\t", e->data->file_names[i], e->class_of[e->data->labels[i]], outcome->predicted);
    text_json_float(&text, outcome->probability);
    text_puts(&text, "\n");
  }
  bool written = !text.failed && fwrite(text.data, 1, text.length, file) == text.length;
  text_release(&text);
  if (fclose(file) || !written) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write '%s': %s", path, strerror(errno));
  return HWGQ_OK;
}

/* ---- the command --------------------------------------------------------------------------------------------------------- */

static enum hwgq_status prepare(struct evaluation *e, const struct choice *choice, struct hwgq_error *error) {
  enum hwgq_status status = classifier_open(e->model_path, NULL, &e->classifier, error);
  if (status) return status;
  status = dataset_open(e->data_path, e->split, &e->classifier->model->preprocess, e->classifier->input, choice->limit,
                        &e->data, error);
  if (!status) status = match_classes(e, error);
  if (status) return status;
  e->outcomes = calloc((size_t)e->data->count, sizeof *e->outcomes);
  return e->outcomes ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
}

static int evaluate(struct evaluation *e, const struct choice *choice) {
  struct totals totals = {0};
  struct first_comparison first;
  struct hwgq_error error;
  enum hwgq_status status = prepare(e, choice, &error);
  if (!status) status = run(e, &error);
  if (!status) status = add_up(e, &totals, &error);
  if (!status && choice->first_conv) {
    status = first_compare(e->classifier->model, e->data, &first, &error);
    e->first = &first;
  }
  if (!status && choice->predictions) status = write_predictions(e, choice->predictions, &error);
  int code = status ? tool_failed(&usage, &error) : EXIT_OK;
  if (!status && choice->json) {
    code = print_json(e, &totals, choice);
  } else if (!status) {
    print_text(e, &totals);
    if (choice->verbose) class_counts_print(&totals.classes);
    if (choice->confusion) class_counts_print_matrix(&totals.classes);
  }
  if (code == EXIT_OK && e->reference && totals.changed > 0) code = EXIT_FAILED;
  e->first = NULL;
  free(totals.classes.counts);
  return code;
}

int command_eval(int argc, char **argv) {
  struct choice choice = {.split = "test", .threads = hwgq_cores_available(MAX_THREADS)};
  const struct option_spec options[] = {
      {"split", OPTION_TEXT, &choice.split, "NAME",
       "train, test (default) or val; of the last two the other where there is but one", 0, 0},
      {"limit", OPTION_INT, &choice.limit, "N", "only the first N images, evenly over the classes", 1, 1 << 30},
      {"threads", OPTION_INT, &choice.threads, "N", "threads to use (default: one per core it may use)", 1, MAX_THREADS},
      {"reference", OPTION_FLAG, &choice.reference, NULL, "run the double-precision executor too and compare (slow)", 0, 0},
      {"first-conv", OPTION_FLAG, &choice.first_conv, NULL, "compare integers and float32 in the first convolution", 0, 0},
      {"predictions", OPTION_TEXT, &choice.predictions, "FILE", "write file, true class, predicted class and probability", 0,
       0},
      {"verbose", OPTION_FLAG, &choice.verbose, NULL, "accuracy of every class, and what it is taken for", 0, 0},
      {"confusion", OPTION_FLAG, &choice.confusion, NULL, "how often each class is taken for each", 0, 0},
      {"json", OPTION_FLAG, &choice.json, NULL, "print one JSON object", 0, 0},
      {0},
  };
  int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  int split = DATASET_VAL;
  while (split >= 0 && strcmp(choice.split, split_names[split]) != 0) split--;
  if (split < 0) return tool_usage(&usage, "--split takes train, test or val, not '%s'", choice.split);
  struct evaluation evaluation = {.model_path = argv[0],
                                  .data_path = argv[1],
                                  .split = (enum dataset_split)split,
                                  .reference = choice.reference,
                                  .threads = choice.threads};
  code = evaluate(&evaluation, &choice);
  free(evaluation.outcomes);
  free(evaluation.class_of);
  dataset_destroy(evaluation.data);
  classifier_destroy(evaluation.classifier);
  return code;
}
