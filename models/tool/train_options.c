#include "models/tool/train_options.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cores.h"
#include "engine/json.h"
#include "models/tool/train_presets.h"
#include "models/tool/train_values.h"
#include "models/train/checkpoint.h"

enum kind { FLAG, YES, WORD, INT, SEED, NUMBER, THREE, SHAPE, TEXT };

/* Where a value is kept, in struct train_options. */
#define AT(field) offsetof(struct train_options, field)

static const char *const precisions[] = {"auto", "float32", "mixed", NULL};
static const char *const weights[] = {"binary", "float", NULL}, *const zeros[] = {"0", "half", NULL};
static const char *const levels[] = {"uniform", "free", "sign", "relu", NULL};
static const char *const backwards[] = {"clipped", "vanilla", "log-tailed", NULL};
static const char *const initializers[] = {"uniform", "msra", NULL}, *const optimizers[] = {"adam", "sgd", NULL};
static const char *const schedules[] = {"poly", "constant", "cosine", NULL}, *const orders[] = {"rgb", "bgr", "gray", NULL};

/* The recipe's come first, in the order of enum train_option. Words are kept as their index, which is the enum's. */
static const struct {
  const char *name;
  enum kind kind;
  size_t at;
  double least, most;
  const char *const *words;
} options_table[] = {
    [TRAIN_NETWORK] = {"network", TEXT, AT(network), 0, 0, NULL},
    [TRAIN_DATA] = {"data", TEXT, AT(data), 0, 0, NULL},
    [TRAIN_PRESET] = {"preset", TEXT, AT(preset), 0, 0, NULL},
    [TRAIN_WIDTH] = {"width", NUMBER, AT(width), 0.001, 64, NULL},
    [TRAIN_WEIGHTS] = {"weights", WORD, AT(weights), 0, 0, weights},
    [TRAIN_BITS] = {"bits", INT, AT(bits), 1, 4, NULL},
    [TRAIN_LEVEL_COUNT] = {"level-count", INT, AT(level_count), 1, HWGQ_MAX_LEVELS, NULL},
    [TRAIN_LEVELS] = {"levels", WORD, AT(levels), 0, 0, levels},
    [TRAIN_ZERO] = {"zero", WORD, AT(zero), 0, 0, zeros},
    [TRAIN_STEP] = {"step", NUMBER, AT(step), 1e-6, 1e6, NULL},
    [TRAIN_BACKWARD] = {"backward", WORD, AT(trainer.backward), 0, 0, backwards},
    [TRAIN_AFFINE] = {"affine", YES, AT(affine), 0, 0, NULL},
    [TRAIN_INPUT] = {"input", SHAPE, AT(input), 0, 0, NULL},
    [TRAIN_INITIAL] = {"initial", TEXT, AT(initial), 0, 0, NULL},
    [TRAIN_INITIALIZER] = {"initializer", WORD, AT(trainer.initializer), 0, 0, initializers},
    [TRAIN_EPOCHS] = {"epochs", INT, AT(trainer.epochs), 1, 1000000, NULL},
    [TRAIN_BATCH] = {"batch", INT, AT(trainer.batch), 1, 1 << 16, NULL},
    [TRAIN_OPTIMIZER] = {"optimizer", WORD, AT(trainer.optimizer.kind), 0, 0, optimizers},
    [TRAIN_LR] = {"lr", NUMBER, AT(trainer.optimizer.rate), 0, 1000, NULL},
    [TRAIN_CLASSIFIER_RATE] = {"classifier-rate", NUMBER, AT(trainer.optimizer.classifier), 0, 1000, NULL},
    [TRAIN_MOMENTUM] = {"momentum", NUMBER, AT(trainer.optimizer.momentum), 0, 0.999999, NULL},
    [TRAIN_WEIGHT_DECAY] = {"weight-decay", NUMBER, AT(trainer.optimizer.weight_decay), 0, 1, NULL},
    [TRAIN_SCHEDULE] = {"schedule", WORD, AT(trainer.optimizer.schedule), 0, 0, schedules},
    [TRAIN_POWER] = {"power", NUMBER, AT(trainer.optimizer.power), 0, 100, NULL},
    [TRAIN_WARMUP] = {"warmup", NUMBER, AT(trainer.optimizer.warmup), 0, 1, NULL},
    [TRAIN_LABEL_SMOOTHING] = {"label-smoothing", NUMBER, AT(trainer.objective.smoothing), 0, 1, NULL},
    [TRAIN_TEACHER] = {"teacher", TEXT, AT(teacher), 0, 0, NULL},
    [TRAIN_DISTILL_WEIGHT] = {"distill-weight", NUMBER, AT(trainer.objective.distillation), 0, 1, NULL},
    [TRAIN_DISTILL_TEMPERATURE] = {"distill-temperature", NUMBER, AT(trainer.objective.temperature), 0.01, 1000, NULL},
    [TRAIN_AVERAGE] = {"average", NUMBER, AT(trainer.average.decay), 0, 0.999999, NULL},
    [TRAIN_AVERAGE_EPOCHS] = {"average-epochs", INT, AT(trainer.average.epochs), 0, 1000000, NULL},
    [TRAIN_STATISTICS_BATCHES] = {"statistics-batches", INT, AT(trainer.average.batches), 0, 1000000, NULL},
    [TRAIN_SEED] = {"seed", SEED, AT(trainer.seed), 0, 0, NULL},
    [TRAIN_PRECISION] = {"precision", WORD, AT(precision), 0, 0, precisions},
    [TRAIN_MIRROR] = {"mirror", YES, AT(trainer.augmentation.mirror), 0, 0, NULL},
    [TRAIN_PAD] = {"pad", INT, AT(trainer.augmentation.pad), 0, HWGQ_MAX_KERNEL, NULL},
    [TRAIN_ZOOM] = {"zoom", NUMBER, AT(trainer.augmentation.zoom), 0, 4, NULL},
    [TRAIN_CROP] = {"crop", NUMBER, AT(trainer.augmentation.crop), 0, 0.95, NULL},
    [TRAIN_ASPECT] = {"aspect", NUMBER, AT(trainer.augmentation.aspect), 0, 4, NULL},
    [TRAIN_BLUR] = {"blur", NUMBER, AT(trainer.augmentation.blur), 0, 8, NULL},
    [TRAIN_SOFTEN] = {"soften", NUMBER, AT(trainer.augmentation.soften), 0, 4, NULL},
    [TRAIN_BRIGHTNESS] = {"brightness", NUMBER, AT(trainer.augmentation.brightness), 0, 4, NULL},
    [TRAIN_CONTRAST] = {"contrast", NUMBER, AT(trainer.augmentation.contrast), 0, 4, NULL},
    [TRAIN_SATURATION] = {"saturation", NUMBER, AT(trainer.augmentation.saturation), 0, 4, NULL},
    [TRAIN_CUTOUT] = {"cutout", INT, AT(trainer.augmentation.cutout), 0, HWGQ_MAX_DIMENSION, NULL},
    [TRAIN_MEAN] = {"mean", THREE, AT(trainer.preprocess.mean), 0, 0, NULL},
    [TRAIN_SCALE] = {"scale", THREE, AT(trainer.preprocess.scale), 0, 0, NULL},
    [TRAIN_ORDER] = {"order", WORD, AT(trainer.preprocess.order), 0, 0, orders},
    [TRAIN_RESIZE] = {"resize", INT, AT(trainer.preprocess.resize), 0, 4096, NULL},
    [TRAIN_INVERT] = {"invert", YES, AT(trainer.preprocess.invert), 0, 0, NULL},
    [TRAIN_LIMIT] = {"limit", INT, AT(limit), 0, INT32_MAX, NULL},
    [TRAIN_LABELS] = {"labels", TEXT, AT(labels_file), 0, 0, NULL},
    [TRAIN_NO_TEST] = {"no-test", FLAG, AT(no_test), 0, 0, NULL},
    [TRAIN_OUTPUT] = {"output", TEXT, AT(output), 0, 0, NULL},
    [TRAIN_CHECKPOINT] = {"checkpoint", TEXT, AT(checkpoint), 0, 0, NULL},
    [TRAIN_RESUME] = {"resume", TEXT, AT(resume), 0, 0, NULL},
    [TRAIN_LOG] = {"log", TEXT, AT(log), 0, 0, NULL},
    [TRAIN_REPORT] = {"report", TEXT, AT(report), 0, 0, NULL},
    [TRAIN_THREADS] = {"threads", INT, AT(threads), 1, POOL_MAX_THREADS, NULL},
    [TRAIN_BLAS_CORE] = {"blas-core", TEXT, AT(blas_core), 0, 0, NULL},
    [TRAIN_EXPORT_ONLY] = {"export-only", FLAG, AT(export_only), 0, 0, NULL},
    [TRAIN_HELP] = {"help", FLAG, AT(help), 0, 0, NULL},
};

static int find_option(const char *name, size_t length) {
  for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
    if (strlen(options_table[i].name) == length && strncmp(options_table[i].name, name, length) == 0) return i;
  }
  return -1;
}

static bool keep_text(const char *text, char **value) {
  char *copy = strdup(text);
  if (copy == NULL) return false;
  free(*value);
  *value = copy;
  return true;
}

static bool parse_value(struct train_options *o, enum train_option option, const char *text) {
  static const char *const yes[] = {"no", "yes", NULL};
  double least = options_table[option].least, most = options_table[option].most;
  void *at = (char *)o + options_table[option].at;
  long long number;
  int word;
  switch (options_table[option].kind) {
  case FLAG:
    return *(bool *)at = true;
  case YES:
    if (!train_parse_word(text, yes, &word)) return false;
    *(bool *)at = word == 1;
    return true;
  case WORD:
    return train_parse_word(text, options_table[option].words, at);
  case INT:
    if (!train_parse_integer(text, (long long)least, (long long)most, &number)) return false;
    *(int *)at = (int)number;
    return true;
  case SEED:
    if (!train_parse_integer(text, 0, INT64_MAX, &number)) return false;
    *(uint64_t *)at = (uint64_t)number;
    return true;
  case NUMBER:
    return train_parse_double(text, least, most, at);
  case THREE:
    return train_parse_three(text, at);
  case SHAPE:
    return train_parse_shape(text, at);
  default:
    return keep_text(text, at);
  }
}

/* What an option takes, for messages. */
static void describe_values(enum train_option option, char *text, size_t size) {
  double least = options_table[option].least, most = options_table[option].most;
  size_t length = 0;
  switch (options_table[option].kind) {
  case YES:
    snprintf(text, size, "yes or no");
    break;
  case WORD:
    text[0] = '\0';
    for (const char *const *word = options_table[option].words; *word != NULL && length < size; word++)
      length += (size_t)snprintf(text + length, size - length, "%s%s",
                                 length == 0       ? ""
                                 : word[1] != NULL ? ", "
                                                   : " or ",
                                 *word);
    break;
  case INT:
    snprintf(text, size, "a whole number from %.0f to %.0f", least, most);
    break;
  case SEED:
    snprintf(text, size, "a whole number from 0");
    break;
  case NUMBER:
    snprintf(text, size, "a number from %g to %g", least, most);
    break;
  case THREE:
    snprintf(text, size, "one number, or three with commas");
    break;
  case SHAPE:
    snprintf(text, size, "channels x height x width, such as 3x32x32");
    break;
  default:
    snprintf(text, size, "a text");
  }
}

static enum hwgq_status set_option(struct train_options *o, enum train_option option, const char *text,
                                   struct hwgq_error *error) {
  if (options_table[option].kind == TEXT && text[0] == '\0')
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s is empty: give a value (was a variable of the shell not set?)",
                     options_table[option].name);
  bool good = parse_value(o, option, text);
  if (good && option < TRAIN_RECIPE_COUNT) good = keep_text(text, &o->given[option]);
  if (good) return HWGQ_OK;
  char values[128];
  describe_values(option, values, sizeof values);
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s cannot be \"%.100s\": give %s", options_table[option].name, text, values);
}

/* argv[*i], and the word after it when it is an option's value. */
static enum hwgq_status parse_argument(int argc, char **argv, int *i, int *position, struct train_options *o,
                                       struct hwgq_error *error) {
  const char *argument = argv[*i];
  if (argument[0] != '-' || argument[1] == '\0') {
    if (*position >= 2)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "one argument too many, \"%.100s\": hwgq train takes NETWORK and DATA",
                       argument);
    return set_option(o, (*position)++ == 0 ? TRAIN_NETWORK : TRAIN_DATA, argument, error);
  }
  const char *name = argument + 2, *value = NULL;
  if (argument[1] != '-') name = strcmp(argument, "-o") == 0 ? "output" : strcmp(argument, "-h") == 0 ? "help" : "";
  size_t length = strcspn(name, "=");
  if (name[length] == '=') value = name + length + 1;
  int option = find_option(name, length);
  if (option < 0 || option == TRAIN_NETWORK || option == TRAIN_DATA)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "there is no option %.100s: hwgq train --help lists them", argument);
  if (options_table[option].kind == FLAG) {
    if (value != NULL) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s takes no value", options_table[option].name);
    return set_option(o, (enum train_option)option, "yes", error);
  }
  if (value == NULL) {
    if (*i + 1 >= argc) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s needs a value", options_table[option].name);
    value = argv[++*i];
  }
  return set_option(o, (enum train_option)option, value, error);
}

/* The preset's options, wherever on the command line it is named: the others are on top of it. */
static enum hwgq_status apply_preset(int argc, char **argv, struct train_options *o, struct hwgq_error *error) {
  const char *name = NULL;
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], "--preset=", 9) == 0) name = argv[i] + 9;
    if (strcmp(argv[i], "--preset") == 0 && i + 1 < argc) name = argv[i + 1];
  }
  if (name == NULL) return HWGQ_OK;
  const struct train_preset_option *options = train_preset(name);
  if (options == NULL) {
    char names[256] = "";
    for (int i = 0; train_preset_name(i) != NULL; i++) {
      size_t length = strlen(names);
      snprintf(names + length, sizeof names - length, "%s%s", length > 0 ? ", " : "", train_preset_name(i));
    }
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "there is no preset \"%.60s\": choose one of %s", name, names);
  }
  enum hwgq_status status = HWGQ_OK;
  for (; status == HWGQ_OK && options->value != NULL; options++) status = set_option(o, options->option, options->value, error);
  return status;
}

static enum hwgq_status parse_all(int argc, char **argv, struct train_options *o, struct hwgq_error *error) {
  int position = 0;
  enum hwgq_status status = apply_preset(argc, argv, o, error);
  for (int i = 1; status == HWGQ_OK && i < argc && !o->help; i++) status = parse_argument(argc, argv, &i, &position, o, error);
  return status;
}

static enum hwgq_status apply_recipe(struct train_options *o, const char *path, struct hwgq_error *error) {
  struct checkpoint *checkpoint = NULL;
  enum hwgq_status status = checkpoint_read(path, &checkpoint, error);
  if (status != HWGQ_OK) return status;
  json_t *recipe = NULL;
  const char *text = checkpoint_recipe(checkpoint);
  status = hwgq_json_parse_object(text, strlen(text), "the checkpoint's recipe", &recipe, error);
  const char *key;
  json_t *value;
  if (status == HWGQ_OK) {
    json_object_foreach(json_object_get(recipe, "options"), key, value) {
      int option = find_option(key, strlen(key));
      if (option < 0 || option >= TRAIN_RECIPE_COUNT || !json_is_string(value))
        status = hwgq_fail(error, HWGQ_ERROR_FORMAT,
                           "the recipe of checkpoint %.200s has an option \"%.60s\" that is unknown here", path, key);
      /* bf16: mixed, as it was before its gradients were of 8 bits */
      bool renamed = status == HWGQ_OK && option == TRAIN_PRECISION && strcmp(json_string_value(value), "bf16") == 0;
      if (status == HWGQ_OK)
        status = set_option(o, (enum train_option)option, renamed ? "mixed" : json_string_value(value), error);
      if (status != HWGQ_OK) break;
    }
  }
  json_decref(recipe);
  checkpoint_destroy(checkpoint);
  return status;
}

static void set_defaults(struct train_options *o) {
  *o = (struct train_options){
      .width = 1,
      .bits = 2,
      .threads = hwgq_cores_available(POOL_MAX_THREADS),
      .trainer = {.epochs = 30,
                  .batch = 100,
                  .seed = 1,
                  .preprocess = {.order = HWGQ_RGB, .scale = {1.0f / 64, 1.0f / 64, 1.0f / 64}},
                  .objective = {.distillation = 0.5, .temperature = 2},
                  .augmentation = {.mirror = true, .pad = 4},
                  .optimizer =
                      {.kind = OPTIMIZER_ADAM, .rate = 0.003, .classifier = 0.1, .momentum = 0.9, .power = 1, .warmup = 0.05}},
  };
}

/* A resumed run writes where the checkpoint's first run was to: OUT.hwgq.checkpoint leads to OUT.hwgq. */
static bool choose_output(struct train_options *o) {
  static const char ending[] = ".checkpoint";
  size_t length = o->resume != NULL ? strlen(o->resume) : 0, tail = sizeof ending - 1;
  if (o->output != NULL || length <= tail || strcmp(o->resume + length - tail, ending) != 0) return true;
  o->output = strndup(o->resume, length - tail);
  return o->output != NULL;
}

/* Options that say something about quantization, of a network without it. Not of a resumed run: its checkpoint may be of a
 * version that took them, in vain. */
static enum hwgq_status check_unquantized(const struct train_options *o, struct hwgq_error *error) {
  static const enum train_option options[] = {TRAIN_BITS, TRAIN_LEVEL_COUNT, TRAIN_ZERO, TRAIN_BACKWARD};
  if (o->resume != NULL || o->levels == TRAIN_UNIFORM || o->levels == TRAIN_FREE) return HWGQ_OK;
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
    if (o->given[options[i]] != NULL)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s goes with --levels uniform or free, not with %s",
                       options_table[options[i]].name, levels[o->levels]);
  return HWGQ_OK;
}

static enum hwgq_status check(const struct train_options *o, struct hwgq_error *error) {
  if (o->network == NULL || o->data == NULL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "give a network and data, as in hwgq train lenet DATA -o OUT.hwgq");
  if (o->output == NULL && o->checkpoint == NULL && o->resume == NULL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "say where the model goes: -o OUT.hwgq");
  if (o->export_only && (o->resume == NULL || o->output == NULL))
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "--export-only needs --resume CHECKPOINT, and -o OUT.hwgq unless that is OUT.hwgq.checkpoint");
  if (o->export_only && o->report != NULL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--report needs data and training, --export-only has none");
  if (o->given[TRAIN_BITS] != NULL && o->level_count > 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "give one of --bits and --level-count");
  if (o->step > 0 && o->levels != TRAIN_UNIFORM)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--step goes with --levels uniform");
  if (o->teacher == NULL && (o->given[TRAIN_DISTILL_WEIGHT] != NULL || o->given[TRAIN_DISTILL_TEMPERATURE] != NULL))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--distill-weight and --distill-temperature go with --teacher MODEL");
  return check_unquantized(o, error);
}

enum hwgq_status train_options_parse(int argc, char **argv, struct train_options *o, struct hwgq_error *error) {
  set_defaults(o);
  enum hwgq_status status = parse_all(argc, argv, o, error);
  const bool labels_given = o->labels_file != NULL;
  if (status == HWGQ_OK && o->resume != NULL && !o->help) {
    /* The command line once more, on top of the checkpoint's recipe. */
    char *path = strdup(o->resume);
    train_options_release(o);
    set_defaults(o);
    o->precision = PRECISION_FLOAT32; /* what checkpoints without a precision were made with */
    status = path != NULL ? apply_recipe(o, path, error) : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for options");
    free(path);
    if (status == HWGQ_OK) status = parse_all(argc, argv, o, error);
  }
  if (status == HWGQ_OK && !choose_output(o)) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for options");
  if (status == HWGQ_OK && !o->help) status = check(o, error);
  if (o->teacher == NULL) o->trainer.objective.distillation = 0;
  o->labels_given = labels_given;
  if (status != HWGQ_OK) train_options_release(o);
  return status;
}

void train_options_release(struct train_options *o) {
  for (int i = 0; i < TRAIN_RECIPE_COUNT; i++) free(o->given[i]);
  for (int i = 0; i < TRAIN_OPTION_COUNT; i++)
    if (options_table[i].kind == TEXT) free(*(char **)((char *)o + options_table[i].at));
  *o = (struct train_options){0};
}

json_t *train_options_recipe(const struct train_options *o) {
  json_t *recipe = json_object();
  for (int i = 0; i < TRAIN_RECIPE_COUNT; i++) {
    if (o->given[i] != NULL) json_object_set_new(recipe, options_table[i].name, json_string(o->given[i]));
  }
  return recipe;
}
