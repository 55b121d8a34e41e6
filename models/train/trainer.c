#include "models/train/trainer.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static enum hwgq_status check(const struct trainer_options *options, const struct hwgq_network *network,
                              const struct dataset *train, struct hwgq_error *error) {
  struct hwgq_shape in = network->input;
  if (train->count < 1) return hwgq_fail(error, HWGQ_ERROR_INVALID, "there are no images to train on");
  if (train->height != in.height || train->width != in.width || train->channels != in.channels)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "the images are %d x %d with %d channels, network %s takes %d x %d with %d",
                     train->width, train->height, train->channels, network->name, in.width, in.height, in.channels);
  if (in.channels != 1 && in.channels != 3)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "network %s takes %d channels: the trainer has images of 1 or 3",
                     network->name, in.channels);
  for (int c = 0; c < in.channels; c++)
    if (options->preprocess.scale[c] == 0.0f)
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "a scale of 0 leaves nothing of an image");
  int classes = network->layers[network->layer_count - 1].output.channels;
  if (train->class_count > classes)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "the images have %d classes, network %s tells %d apart", train->class_count,
                     network->name, classes);
  if (options->epochs < 1 || options->epochs > 1000000)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%d epochs: give 1 to 1000000", options->epochs);
  const struct average_options *average = &options->average;
  if (!(average->decay >= 0 && average->decay < 1) || average->epochs < 0 || average->batches < 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "the decay of an average lies in [0, 1), epochs and batches are not negative");
  if (average->decay > 0 && average->epochs > 0)
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "give --average or --average-epochs, not both");
  const struct net_objective *o = &options->objective;
  if (!(o->smoothing >= 0 && o->smoothing <= 1) || !(o->distillation >= 0 && o->distillation <= 1) ||
      (o->distillation > 0 && !(o->temperature > 0)))
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "label smoothing and the share of distillation lie in 0 to 1, its temperature "
                     "is above 0");
  return augmentation_check(&options->augmentation, error);
}

static enum hwgq_status allocate_scratch(struct trainer *trainer, struct hwgq_shape shape, int threads,
                                         struct hwgq_error *error) {
  size_t size = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
  trainer->scratch = calloc((size_t)threads, sizeof *trainer->scratch);
  bool enough = trainer->scratch != NULL;
  for (int i = 0; enough && i < threads; i++) {
    trainer->scratch[i] = conv_allocate(size);
    enough = trainer->scratch[i] != NULL;
    trainer->scratch_count = i + 1;
  }
  return enough ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for %d images", threads);
}

enum hwgq_status trainer_create(const struct trainer_options *options, const struct hwgq_network *network,
                                const struct dataset *train, struct pool *pool, const struct blas *blas,
                                struct trainer **result, struct hwgq_error *error) {
  enum hwgq_status status = check(options, network, train, error);
  if (status != HWGQ_OK) return status;
  struct trainer *trainer = calloc(1, sizeof *trainer);
  if (trainer == NULL) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the trainer");
  *trainer = (struct trainer){.options = *options, .train = train, .order_epoch = -1};
  if (trainer->options.batch > train->count) trainer->options.batch = train->count;
  status = net_create(network, trainer->options.batch, pool, blas, &trainer->net, error);
  if (status == HWGQ_OK) status = optimizer_create(&options->optimizer, trainer->net, &trainer->optimizer, error);
  const struct average_options *average = &options->average;
  if (status == HWGQ_OK && (average->decay > 0 || average->epochs > 0 || average->batches > 0))
    status = average_create(trainer->net, &trainer->average, error);
  if (status == HWGQ_OK) status = allocate_scratch(trainer, network->input, pool_threads(pool), error);
  if (status == HWGQ_OK) {
    trainer->order = calloc((size_t)train->count, sizeof *trainer->order);
    trainer->labels = calloc((size_t)trainer->options.batch, sizeof *trainer->labels);
    if (trainer->order == NULL || trainer->labels == NULL)
      status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory for the order of %d images", train->count);
  }
  if (status != HWGQ_OK) {
    trainer_destroy(trainer);
    return status;
  }
  trainer->net->backward = options->backward;
  trainer->net->objective = options->objective;
  net_initialize(trainer->net, options->initializer, options->seed);
  *result = trainer;
  return HWGQ_OK;
}

void trainer_destroy(struct trainer *trainer) {
  if (trainer == NULL) return;
  average_destroy(trainer->average);
  optimizer_destroy(trainer->optimizer);
  net_destroy(trainer->net);
  for (int i = 0; trainer->scratch != NULL && i < trainer->scratch_count; i++) free(trainer->scratch[i]);
  free(trainer->scratch);
  free(trainer->order);
  free(trainer->labels);
  free(trainer);
}

int trainer_steps_per_epoch(const struct trainer *trainer) {
  return trainer->train->count / trainer->options.batch; /* what is left over is another part of the images each epoch */
}

bool trainer_finished(const struct trainer *trainer) {
  return trainer->epoch >= trainer->options.epochs;
}

double trainer_rate(const struct trainer *trainer) {
  int64_t per_epoch = trainer_steps_per_epoch(trainer);
  return optimizer_rate(&trainer->options.optimizer, per_epoch * trainer->epoch + trainer->step,
                        per_epoch * trainer->options.epochs);
}

struct fill {
  struct trainer *trainer;
  const struct dataset *images;
  const int *which; /* NULL: from first on, without augmentation */
  int first, stride;
};

static void fill_task(void *context, int index, int worker) {
  const struct fill *fill = context;
  struct trainer *trainer = fill->trainer;
  const struct dataset *images = fill->images;
  const struct trainer_options *options = &trainer->options;
  int image = fill->which != NULL ? fill->which[index] : (fill->first + index) * fill->stride;
  size_t size = (size_t)images->height * (size_t)images->width * (size_t)images->channels;
  struct rng rng = rng_make(options->seed, (uint64_t)trainer->epoch, (uint64_t)image + 1);
  augment_image(&options->augmentation, &options->preprocess, trainer->net->network->input,
                images->pixels + (size_t)image * size, fill->which != NULL ? &rng : NULL,
                trainer->net->input + (size_t)index * size, trainer->scratch[worker]);
  trainer->labels[index] = images->labels[image];
}

/* Batch number `step` of this epoch into the net. */
static void fill_batch(struct trainer *trainer, int step) {
  int batch = trainer->options.batch;
  if (trainer->order_epoch != trainer->epoch) {
    struct rng rng = rng_make(trainer->options.seed, (uint64_t)trainer->epoch, 0);
    rng_permutation(&rng, trainer->order, trainer->train->count);
    trainer->order_epoch = trainer->epoch;
  }
  struct fill fill = {.trainer = trainer, .images = trainer->train, .which = trainer->order + (size_t)step * (size_t)batch};
  pool_run(trainer->net->pool, batch, fill_task, &fill);
}

static void update_average(struct trainer *trainer) {
  const struct average_options *options = &trainer->options.average;
  struct average *average = trainer->average;
  if (options->decay <= 0 && options->epochs > 0) {
    /* More steps than the last epochs have had: those of earlier ones, which were the last before --epochs was raised. */
    int first = trainer->options.epochs - options->epochs, begun = trainer->epoch - (first > 0 ? first : 0);
    int64_t most = begun < 0 ? 0 : (int64_t)begun * trainer_steps_per_epoch(trainer) + trainer->step;
    if (average->count > most) average_forget(average);
  }
  double count = (double)average->count;
  if (options->decay > 0) { /* begins as a plain average: what the first steps had should not stay */
    double keep = count < 1 ? 0 : (1 + count) / (10 + count);
    average_add(average, 1 - (keep < options->decay ? keep : options->decay));
  } else if (options->epochs > 0 && trainer->epoch >= trainer->options.epochs - options->epochs) {
    average_add(average, 1 / (count + 1));
  }
}

/* Of a batch's statistics in the running ones. They begin as a plain average: for its first dozens of steps a run would else be
 * tested with what they were before any image, mean 0 and variance 1. */
static float statistics_share(int64_t steps) {
  const float settled = 0.1f;
  return steps < 9 ? 1.0f / (float)(steps + 1) : settled;
}

void trainer_step(struct trainer *trainer) {
  double start = now();
  int batch = trainer->options.batch;
  double rate = trainer_rate(trainer);
  fill_batch(trainer, trainer->step);
  const float *teacher = trainer->teacher != NULL ? teacher_scores(trainer->teacher, trainer->net->input, batch) : NULL;
  trainer->net->statistics_momentum = statistics_share(trainer->optimizer->step);
  net_forward(trainer->net, batch, true);
  double loss;
  int right;
  net_score(trainer->net, trainer->labels, batch, &loss, &right);
  struct rng rng = rng_make(trainer->options.seed, (uint64_t)trainer->epoch, UINT64_MAX - (uint64_t)trainer->step);
  net_backward(trainer->net, trainer->labels, teacher, batch, rng_next(&rng));
  optimizer_step(trainer->optimizer, rate);
  if (trainer->average != NULL) update_average(trainer);
  trainer->loss_sum += loss;
  trainer->right += right;
  trainer->step++;
  trainer->seconds += now() - start;
}

bool trainer_epoch_complete(const struct trainer *trainer) {
  return trainer->step >= trainer_steps_per_epoch(trainer);
}

void trainer_next_epoch(struct trainer *trainer) {
  trainer->epoch++;
  trainer->step = 0;
  trainer->loss_sum = 0;
  trainer->right = 0;
}

bool trainer_has_average(const struct trainer *trainer) {
  return trainer->average != NULL && trainer->average->measured;
}

void trainer_measure_average(struct trainer *trainer) {
  struct average *average = trainer->average;
  if (average == NULL) return;
  const struct average_options *options = &trainer->options.average;
  if (options->decay <= 0 && options->epochs == 0) {
    average->count = 0;
    average_add(average, 1); /* the weights as they are */
  }
  if (average->count == 0) return;
  average_swap(average);
  struct net *net = trainer->net;
  float momentum = net->statistics_momentum;
  int steps = trainer_steps_per_epoch(trainer), batches = options->batches > 0 ? options->batches : AVERAGE_BATCHES;
  if (batches > steps) batches = steps;
  /* From 0, so that what was measured before leaves no rounding behind: a run that was stopped has measured once more. */
  for (int i = 0; i < net->layer_count; i++) {
    const struct net_layer *l = &net->layers[i];
    if (l->op != HWGQ_BATCH_NORM) continue;
    memset(l->mean, 0, sizeof(float) * (size_t)l->out.channels);
    memset(l->variance, 0, sizeof(float) * (size_t)l->out.channels);
  }
  for (int i = 0; i < batches; i++) {
    net->statistics_momentum = 1.0f / (float)(i + 1);
    fill_batch(trainer, i);
    net_forward(net, trainer->options.batch, true);
  }
  net->statistics_momentum = momentum;
  average_swap(average);
  average->measured = true;
}

void trainer_swap_average(struct trainer *trainer) {
  average_swap(trainer->average);
}

struct trainer_score trainer_train_score(const struct trainer *trainer) {
  double images = (double)trainer->step * trainer->options.batch;
  if (trainer->step == 0) return (struct trainer_score){0};
  return (struct trainer_score){.loss = trainer->loss_sum / images, .accuracy = (double)trainer->right / images};
}

struct trainer_score trainer_evaluate(struct trainer *trainer, const struct dataset *images) {
  struct trainer_score score = {0};
  int batch = trainer->options.batch;
  for (int first = 0; first < images->count; first += batch) {
    int count = images->count - first < batch ? images->count - first : batch, right;
    struct fill fill = {.trainer = trainer, .images = images, .first = first, .stride = 1};
    double loss;
    pool_run(trainer->net->pool, count, fill_task, &fill);
    net_forward(trainer->net, count, false);
    net_score(trainer->net, trainer->labels, count, &loss, &right);
    score.loss += loss;
    score.accuracy += right;
  }
  score.loss /= images->count > 0 ? images->count : 1;
  score.accuracy /= images->count > 0 ? images->count : 1;
  return score;
}

void trainer_distributions(struct trainer *trainer, const struct dataset *images, int most, struct distribution *list) {
  int batch = trainer->options.batch, end = images->count < most ? images->count : most;
  for (int first = 0; first < end; first += batch) {
    int count = end - first < batch ? end - first : batch;
    /* Spread over the images, which lie class by class. */
    struct fill fill = {.trainer = trainer, .images = images, .first = first, .stride = images->count / end};
    pool_run(trainer->net->pool, count, fill_task, &fill);
    net_forward(trainer->net, count, false);
    distribution_add(trainer->net, count, list);
  }
}
