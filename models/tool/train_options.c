#include "models/tool/train_options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/json.h"
#include "models/train/checkpoint.h"

static const char usage[] =
    "usage: hwgq train NETWORK DATA -o OUT.hwgq [options]\n"
    "       hwgq train --resume CHECKPOINT [-o OUT.hwgq] [options]\n"
    "\n"
    "Trains a network and writes it as a .hwgq model.\n"
    "  NETWORK   lenet (28x28 gray images), vgg-small (32x32 color images) or another network without branches that\n"
    "            hwgq new --help names\n"
    "  DATA      a folder or archive (.tar, .tar.xz, .tar.gz, .zip) with train/CLASS/IMAGE and test/CLASS/IMAGE, a folder of\n"
    "            MNIST or Fashion-MNIST IDX files, or a folder of CIFAR-10 binary batches\n"
    "\n"
    "What is trained\n"
    "  --width W            factor on the channels of every hidden layer (default 1)\n"
    "  --bits N             bits of an activation, 1 to 4 (default 2)\n"
    "  --levels KIND        uniform (multiples of one step), free, or sign (+1 and -1, whatever --bits) (default uniform)\n"
    "  --input CxHxW        size of the network's input (default: the network's usual one)\n"
    "How\n"
    "  --epochs N           times through the images (default 30)\n"
    "  --batch N            images a step (default 100)\n"
    "  --optimizer NAME     adam or sgd (default adam)\n"
    "  --lr R               highest learning rate (default 0.003)\n"
    "  --classifier-rate F  factor on it in float linear layers (default 0.1)\n"
    "  --momentum M         of sgd (default 0.9)\n"
    "  --weight-decay D     adds D * weight to the gradient (default 0)\n"
    "  --schedule NAME      poly or constant (default poly)\n"
    "  --power P            of poly: rate * (1 - progress)^P (default 1: a straight line to 0)\n"
    "  --warmup S           share of all steps in which the rate rises from 0 (default 0.05)\n"
    "  --seed N             of everything random (default 1)\n"
    "  --precision NAME     float32; bf16: gradients of binary layers rounded to bfloat16, several times as fast, on CPUs\n"
    "                       with AVX512-BF16; or auto: bf16 where the CPU has it (default auto; a resumed run keeps its own)\n"
    "Images\n"
    "  --mirror yes|no      mirror every other image (default yes)\n"
    "  --pad N              shift by up to N pixels each way (default 4)\n"
    "  --zoom Z             enlarge or shrink by a factor of up to 1 + Z (default 0: off)\n"
    "  --mean M[,M,M]       subtracted from pixels, per channel (default: the mean of the training images)\n"
    "  --scale S[,S,S]      factor on (pixel - mean); 1/64 is understood (default 1/64)\n"
    "  --order NAME         channels of the network: rgb, bgr or gray (default: by the network's input)\n"
    "  --resize N           shorter side of an image before the center is cropped (default 0: the input's size)\n"
    "  --invert yes|no      255 - pixel first (default no)\n"
    "  --limit N            use the first N images only, spread over the classes (default 0: all)\n"
    "  --labels FILE        class names, one a line (default: as the data says)\n"
    "  --no-test            there are no test images\n"
    "Running\n"
    "  -o, --output FILE    the model to write (default with --resume OUT.checkpoint: OUT)\n"
    "  --checkpoint FILE    written after every epoch and when interrupted (default: OUTPUT.checkpoint)\n"
    "  --resume FILE        continue from a checkpoint, with its recipe; options given beside it change the recipe (--batch\n"
    "                       only between epochs)\n"
    "  --export-only        with --resume: write the model of the checkpoint, train nothing, need no data\n"
    "  --log FILE           one JSON object a line after every epoch; appended to with --resume\n"
    "  --threads N          default: all processors\n"
    "  --blas-core NAME     kernels of OpenBLAS, such as Haswell or SkylakeX (default: OPENBLAS_CORETYPE, else chosen by CPU)\n"
    "\n"
    "Control-C saves a checkpoint and stops; a second one stops at once.\n";

const char *train_options_usage(void) {
  return usage;
}

/* ---- values ------------------------------------------------------------------------------------------------------------- */

static bool parse_integer(const char *text, long long least, long long most, long long *value) {
  char *end;
  errno = 0;
  long long number = strtoll(text, &end, 10);
  if (end == text || *end != '\0' || errno != 0 || number < least || number > most) return false;
  *value = number;
  return true;
}

static bool parse_int(const char *text, int least, int most, int *value) {
  long long number;
  if (!parse_integer(text, least, most, &number)) return false;
  *value = (int)number;
  return true;
}

/* A number or a fraction of two, up to the end or to a comma. */
static bool parse_fraction(const char **text, double *value) {
  char *end;
  *value = strtod(*text, &end);
  if (end == *text) return false;
  if (*end == '/') {
    const char *divisor = end + 1;
    *value /= strtod(divisor, &end);
    if (end == divisor) return false;
  }
  if (!isfinite(*value) || (*end != '\0' && *end != ',')) return false;
  *text = *end == ',' ? end + 1 : end;
  return true;
}

static bool parse_double(const char *text, double least, double most, double *value) {
  double number;
  if (strchr(text, ',') != NULL || !parse_fraction(&text, &number) || !(number >= least && number <= most)) return false;
  *value = number;
  return true;
}

static bool parse_three(const char *text, float values[3]) {
  int count = 0;
  double number;
  do {
    if (count == 3 || !parse_fraction(&text, &number) || fabs(number) > 1e6) return false;
    values[count++] = (float)number;
  } while (*text != '\0');
  if (count == 1) values[1] = values[2] = values[0];
  return count != 2;
}

static bool parse_word(const char *text, const char *const *words, int *value) {
  for (int i = 0; words[i] != NULL; i++) {
    if (strcmp(text, words[i]) != 0) continue;
    *value = i;
    return true;
  }
  return false;
}

static bool parse_yes(const char *text, bool *value) {
  static const char *const words[] = {"no", "yes", NULL};
  int which;
  if (!parse_word(text, words, &which)) return false;
  *value = which == 1;
  return true;
}

static bool parse_shape(const char *text, struct hwgq_shape *shape) {
  int *values[] = {&shape->channels, &shape->height, &shape->width};
  for (int i = 0; i < 3; i++) {
    char *end;
    long number = strtol(text, &end, 10);
    if (end == text || number < 1 || number > HWGQ_MAX_DIMENSION || *end != (i < 2 ? 'x' : '\0')) return false;
    *values[i] = (int)number;
    text = end + 1;
  }
  return true;
}

static bool keep_text(const char *text, char **value) {
  char *copy = strdup(text);
  if (copy == NULL) return false;
  free(*value);
  *value = copy;
  return true;
}

/* ---- options ------------------------------------------------------------------------------------------------------------ */

/* The recipe's come first, in the order of enum train_recipe. */
static const struct {
  const char *name;
  bool flag;
} options_table[] = {
    [TRAIN_NETWORK] = {"network", false},
    [TRAIN_DATA] = {"data", false},
    [TRAIN_WIDTH] = {"width", false},
    [TRAIN_BITS] = {"bits", false},
    [TRAIN_LEVELS] = {"levels", false},
    [TRAIN_INPUT] = {"input", false},
    [TRAIN_EPOCHS] = {"epochs", false},
    [TRAIN_BATCH] = {"batch", false},
    [TRAIN_OPTIMIZER] = {"optimizer", false},
    [TRAIN_LR] = {"lr", false},
    [TRAIN_CLASSIFIER_RATE] = {"classifier-rate", false},
    [TRAIN_MOMENTUM] = {"momentum", false},
    [TRAIN_WEIGHT_DECAY] = {"weight-decay", false},
    [TRAIN_SCHEDULE] = {"schedule", false},
    [TRAIN_POWER] = {"power", false},
    [TRAIN_WARMUP] = {"warmup", false},
    [TRAIN_SEED] = {"seed", false},
    [TRAIN_PRECISION] = {"precision", false},
    [TRAIN_MIRROR] = {"mirror", false},
    [TRAIN_PAD] = {"pad", false},
    [TRAIN_ZOOM] = {"zoom", false},
    [TRAIN_MEAN] = {"mean", false},
    [TRAIN_SCALE] = {"scale", false},
    [TRAIN_ORDER] = {"order", false},
    [TRAIN_RESIZE] = {"resize", false},
    [TRAIN_INVERT] = {"invert", false},
    [TRAIN_LIMIT] = {"limit", false},
    [TRAIN_LABELS] = {"labels", false},
    [TRAIN_NO_TEST] = {"no-test", true},
    [TRAIN_OUTPUT] = {"output", false},
    [TRAIN_CHECKPOINT] = {"checkpoint", false},
    [TRAIN_RESUME] = {"resume", false},
    [TRAIN_LOG] = {"log", false},
    [TRAIN_THREADS] = {"threads", false},
    [TRAIN_BLAS_CORE] = {"blas-core", false},
    [TRAIN_EXPORT_ONLY] = {"export-only", true},
    [TRAIN_HELP] = {"help", true},
};

static int find_option(const char *name, size_t length) {
  for (int i = 0; i < TRAIN_OPTION_COUNT; i++) {
    if (strlen(options_table[i].name) == length && strncmp(options_table[i].name, name, length) == 0) return i;
  }
  return -1;
}

static bool parse_word_option(struct train_options *o, enum train_option option, const char *text) {
  static const char *const levels[] = {"free", "uniform", "sign", NULL}, *const optimizers[] = {"adam", "sgd", NULL};
  static const char *const schedules[] = {"poly", "constant", NULL}, *const orders[] = {"rgb", "bgr", "gray", NULL};
  static const char *const precisions[] = {"auto", "float32", "bf16", NULL};
  const char *const *words = option == TRAIN_LEVELS      ? levels
                             : option == TRAIN_OPTIMIZER ? optimizers
                             : option == TRAIN_SCHEDULE  ? schedules
                             : option == TRAIN_PRECISION ? precisions
                                                         : orders;
  int which;
  if (!parse_word(text, words, &which)) return false;
  if (option == TRAIN_LEVELS) {
    o->uniform = which == 1;
    o->sign = which == 2;
  }
  if (option == TRAIN_OPTIMIZER) o->trainer.optimizer.kind = (enum optimizer_kind)which;
  if (option == TRAIN_SCHEDULE) o->trainer.optimizer.schedule = (enum schedule_kind)which;
  if (option == TRAIN_PRECISION) o->precision = (enum train_precision)which;
  if (option == TRAIN_ORDER) {
    o->trainer.preprocess.order = (enum hwgq_channel_order)which;
    o->order_given = true;
  }
  return true;
}

static bool parse_recipe_option(struct train_options *o, enum train_option option, const char *text) {
  struct trainer_options *t = &o->trainer;
  double number = 0;
  long long seed;
  switch (option) {
  case TRAIN_NETWORK:
    return keep_text(text, &o->network);
  case TRAIN_DATA:
    return keep_text(text, &o->data);
  case TRAIN_LABELS:
    return keep_text(text, &o->labels_file);
  case TRAIN_WIDTH:
    return parse_double(text, 0.001, 64, &o->width);
  case TRAIN_BITS:
    return parse_int(text, 1, 4, &o->bits);
  case TRAIN_INPUT:
    return parse_shape(text, &o->input);
  case TRAIN_EPOCHS:
    return parse_int(text, 1, 1000000, &t->epochs);
  case TRAIN_BATCH:
    return parse_int(text, 1, 1 << 16, &t->batch);
  case TRAIN_LR:
    return parse_double(text, 0, 1000, &t->optimizer.rate);
  case TRAIN_CLASSIFIER_RATE:
    return parse_double(text, 0, 1000, &t->optimizer.classifier);
  case TRAIN_MOMENTUM:
    return parse_double(text, 0, 0.999999, &t->optimizer.momentum);
  case TRAIN_WEIGHT_DECAY:
    return parse_double(text, 0, 1, &t->optimizer.weight_decay);
  case TRAIN_POWER:
    return parse_double(text, 0, 100, &t->optimizer.power);
  case TRAIN_WARMUP:
    return parse_double(text, 0, 1, &t->optimizer.warmup);
  case TRAIN_MIRROR:
    return parse_yes(text, &t->augmentation.mirror);
  case TRAIN_PAD:
    return parse_int(text, 0, HWGQ_MAX_KERNEL, &t->augmentation.pad);
  case TRAIN_RESIZE:
    return parse_int(text, 0, 4096, &t->preprocess.resize);
  case TRAIN_INVERT:
    return parse_yes(text, &t->preprocess.invert);
  case TRAIN_LIMIT:
    return parse_int(text, 0, INT32_MAX, &o->limit);
  case TRAIN_SCALE:
    return parse_three(text, t->preprocess.scale);
  case TRAIN_MEAN:
    return o->mean_given = parse_three(text, t->preprocess.mean);
  case TRAIN_NO_TEST:
    return o->no_test = true;
  case TRAIN_ZOOM:
    if (!parse_double(text, 0, 4, &number)) return false;
    t->augmentation.zoom = (float)number;
    return true;
  case TRAIN_SEED:
    if (!parse_integer(text, 0, INT64_MAX, &seed)) return false;
    t->seed = (uint64_t)seed;
    return true;
  default:
    return parse_word_option(o, option, text);
  }
}

static bool parse_run_option(struct train_options *o, enum train_option option, const char *text) {
  switch (option) {
  case TRAIN_OUTPUT:
    return keep_text(text, &o->output);
  case TRAIN_CHECKPOINT:
    return keep_text(text, &o->checkpoint);
  case TRAIN_RESUME:
    return keep_text(text, &o->resume);
  case TRAIN_LOG:
    return keep_text(text, &o->log);
  case TRAIN_BLAS_CORE:
    return keep_text(text, &o->blas_core);
  case TRAIN_THREADS:
    return parse_int(text, 1, POOL_MAX_THREADS, &o->threads);
  case TRAIN_EXPORT_ONLY:
    return o->export_only = true;
  default:
    return o->help = true;
  }
}

static enum hwgq_status set_option(struct train_options *o, enum train_option option, const char *text,
                                   struct hwgq_error *error) {
  bool recipe = option < TRAIN_RECIPE_COUNT;
  bool good = recipe ? parse_recipe_option(o, option, text) : parse_run_option(o, option, text);
  if (good && recipe) good = keep_text(text, &o->given[option]);
  if (good) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "%s cannot be \"%.100s\": hwgq train --help says what it takes",
                   options_table[option].name, text);
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
  if (options_table[option].flag) {
    if (value != NULL) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s takes no value", options_table[option].name);
    return set_option(o, (enum train_option)option, "yes", error);
  }
  if (value == NULL) {
    if (*i + 1 >= argc) return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s needs a value", options_table[option].name);
    value = argv[++*i];
  }
  return set_option(o, (enum train_option)option, value, error);
}

static enum hwgq_status parse_all(int argc, char **argv, struct train_options *o, struct hwgq_error *error) {
  int position = 0;
  enum hwgq_status status = HWGQ_OK;
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
      if (status == HWGQ_OK) status = set_option(o, (enum train_option)option, json_string_value(value), error);
      if (status != HWGQ_OK) break;
    }
  }
  json_decref(recipe);
  checkpoint_destroy(checkpoint);
  return status;
}

static void set_defaults(struct train_options *o) {
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  *o = (struct train_options){
      .width = 1,
      .bits = 2,
      .uniform = true,
      .threads = processors < 1                  ? 1
                 : processors > POOL_MAX_THREADS ? POOL_MAX_THREADS
                                                 : (int)processors,
      .trainer = {.epochs = 30,
                  .batch = 100,
                  .seed = 1,
                  .preprocess = {.order = HWGQ_RGB, .scale = {1.0f / 64, 1.0f / 64, 1.0f / 64}},
                  .augmentation = {.mirror = true, .pad = 4},
                  .optimizer =
                      {.kind = OPTIMIZER_ADAM, .rate = 0.003, .classifier = 0.1, .momentum = 0.9, .power = 1, .warmup = 0.05}},
  };
}

/* A resumed run writes where the checkpoint's first run was to: OUT.hwgq.checkpoint leads to OUT.hwgq. */
static bool choose_output(struct train_options *o) {
  static const char ending[] = ".checkpoint";
  size_t length = o->resume != NULL ? strlen(o->resume) : 0, tail = sizeof ending - 1;
  if (o->output != NULL || o->export_only || length <= tail || strcmp(o->resume + length - tail, ending) != 0) return true;
  o->output = strndup(o->resume, length - tail);
  return o->output != NULL;
}

static enum hwgq_status check(const struct train_options *o, struct hwgq_error *error) {
  if (o->network == NULL || o->data == NULL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "give a network and data, as in hwgq train lenet DATA -o OUT.hwgq");
  if (o->output == NULL && o->checkpoint == NULL && o->resume == NULL)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "say where the model goes: -o OUT.hwgq");
  if (o->export_only && (o->resume == NULL || o->output == NULL))
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "--export-only needs --resume CHECKPOINT and -o OUT.hwgq");
  return HWGQ_OK;
}

enum hwgq_status train_options_parse(int argc, char **argv, struct train_options *o, struct hwgq_error *error) {
  set_defaults(o);
  enum hwgq_status status = parse_all(argc, argv, o, error);
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
  if (status != HWGQ_OK) train_options_release(o);
  return status;
}

void train_options_release(struct train_options *o) {
  for (int i = 0; i < TRAIN_RECIPE_COUNT; i++) free(o->given[i]);
  char *texts[] = {o->network, o->data, o->labels_file, o->output, o->checkpoint, o->resume, o->log, o->blas_core};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) free(texts[i]);
  *o = (struct train_options){0};
}

json_t *train_options_recipe(const struct train_options *o) {
  json_t *recipe = json_object();
  for (int i = 0; i < TRAIN_RECIPE_COUNT; i++) {
    if (o->given[i] != NULL) json_object_set_new(recipe, options_table[i].name, json_string(o->given[i]));
  }
  return recipe;
}
