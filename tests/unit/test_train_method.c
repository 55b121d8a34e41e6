/* What a run may have beside the plain recipe: every way of training continues exactly from a checkpoint and gives the same
 * bits on any number of threads; averages, teachers and beginnings are what they say. */
#include <math.h>
#include <stdio.h>

#include "engine/parameters.h"
#include "models/train/checkpoint.h"
#include "models/train/export.h"
#include "tests/support/train_run.h"

/* ---- ways of training --------------------------------------------------------------------------------------------------- */

static const struct way {
  const char *network;
  bool taught;
  struct trainer_options change; /* of these, what is not zero */
} ways[] = {
    {"vgg-small", false, {.backward = NET_VANILLA, .average = {.decay = 0.9}}},
    {"vgg-small", false, {.backward = NET_LOG_TAILED, .average = {.epochs = 2, .batches = 3}, .initializer = NET_MSRA}},
    {"vgg-small", true, {.objective = {.smoothing = 0.1, .distillation = 0.6, .temperature = 2}}},
    {"resnet-18-small", false, {.average = {.batches = 2}, .objective = {.smoothing = 0.2}}},
    {"resnet-50", false, {.average = {.decay = 0.5, .batches = 1}}},
    {"vgg-small",
     false,
     {.augmentation = {.mirror = true,
                       .crop = 0.3,
                       .aspect = 0.2,
                       .blur = 1,
                       .soften = 1,
                       .brightness = 0.2,
                       .contrast = 0.2,
                       .saturation = 0.2,
                       .cutout = 4},
      .optimizer = {.schedule = SCHEDULE_COSINE}}},
};

static struct trainer_options options_of(const struct way *way) {
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  const struct trainer_options *change = &way->change;
  options.epochs = 3;
  options.backward = change->backward;
  options.initializer = change->initializer;
  options.objective = change->objective;
  options.average = change->average;
  options.optimizer.schedule = change->optimizer.schedule;
  if (change->augmentation.cutout > 0) options.augmentation = change->augmentation;
  return options;
}

/* The network of a run with its parameters as they are, as a model. */
static struct hwgq_model *model_of(struct run *run) {
  static const char *const labels[CLASSES] = {"a", "b", "c", "d"};
  struct hwgq_model *model = NULL;
  enum hwgq_status status =
      export_model(run->trainer->net, &run->trainer->options.preprocess, labels, CLASSES, "{}", &model, &error);
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
  return model;
}

struct taught {
  struct hwgq_model *model;
  struct teacher *teacher;
};

static void teach(struct run *run, struct taught *taught) {
  struct run other;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  options.seed = 77;
  options.preprocess.mean[1] = 90; /* another preprocessing than the student's */
  options.preprocess.scale[2] = 1.0f / 50;
  open_run(&other, options, 1);
  go(other.trainer, 10);
  taught->model = model_of(&other);
  close_run(&other);
  const struct trainer_options *own = &run->trainer->options;
  ck_assert_int_eq(
      teacher_create(taught->model, run->network, &own->preprocess, own->batch, run->pool, &blas, &taught->teacher, &error),
      HWGQ_OK);
  run->trainer->teacher = taught->teacher;
}

static void forget(struct taught *taught) {
  teacher_destroy(taught->teacher);
  hwgq_model_destroy(taught->model);
}

static void open_way(struct run *run, const struct way *way, int threads, struct taught *taught) {
  *taught = (struct taught){0};
  open_run_of(run, way->network, options_of(way), threads);
  if (way->taught) teach(run, taught);
}

START_TEST(every_way_goes_on_exactly) {
  const struct way *way = &ways[_i];
  char *folder = support_make_directory(), *path = support_path(folder, "checkpoint");
  struct run whole, part, rest;
  struct taught taught[3];
  open_way(&whole, way, 1, &taught[0]);
  open_way(&part, way, 3, &taught[1]);
  open_way(&rest, way, 2, &taught[2]);
  go(part.trainer, 15);                  /* in the third of three epochs of six steps */
  trainer_measure_average(part.trainer); /* as a run that is stopped does */
  ck_assert_int_eq(checkpoint_write(part.trainer, "{}", path, &error), HWGQ_OK);
  struct checkpoint *checkpoint = NULL;
  ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
  enum hwgq_status status = checkpoint_restore(checkpoint, rest.trainer, &error);
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
  assert_same(part.trainer, rest.trainer);
  go(rest.trainer, 100);
  go(whole.trainer, 100);
  ck_assert(trainer_finished(whole.trainer));
  assert_same(whole.trainer, rest.trainer);
  checkpoint_destroy(checkpoint);
  for (int i = 0; i < 3; i++) forget(&taught[i]);
  close_run(&whole);
  close_run(&part);
  close_run(&rest);
  free(path);
  support_remove_directory(folder);
}
END_TEST

/* Another way is another result: nothing of the above is ignored. */
START_TEST(every_way_matters) {
  const struct way *way = &ways[_i];
  struct run run, plain;
  struct taught taught;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  options.epochs = 3;
  open_way(&run, way, 2, &taught);
  open_run_of(&plain, way->network, options, 2);
  go(run.trainer, 100);
  go(plain.trainer, 100);
  if (trainer_has_average(run.trainer)) trainer_swap_average(run.trainer);
  const struct net_parameter *p = &run.trainer->net->parameters[0], *q = &plain.trainer->net->parameters[0];
  const struct net_layer *l = &run.trainer->net->layers[1], *k = &plain.trainer->net->layers[1];
  bool weights = memcmp(p->value, q->value, sizeof(float) * p->count) != 0;
  bool statistics = l->op == HWGQ_BATCH_NORM && memcmp(l->mean, k->mean, sizeof(float) * (size_t)l->out.channels) != 0;
  ck_assert(weights || statistics);
  forget(&taught);
  close_run(&run);
  close_run(&plain);
}
END_TEST

/* ---- averages ----------------------------------------------------------------------------------------------------------- */

/* By hand, over the weights after each step. */
START_TEST(averages_are_averages) {
  struct trainer_options options = default_options(OPTIMIZER_SGD);
  options.epochs = 3;
  options.average = _i == 0 ? (struct average_options){.decay = 0.8} : (struct average_options){.epochs = 2};
  struct run run;
  open_run(&run, options, 2);
  struct trainer *t = run.trainer;
  const struct net_parameter *p = &t->net->parameters[2];
  double *expected = calloc(p->count, sizeof *expected);
  ck_assert_ptr_nonnull(expected);
  int steps = 0, counted = 0;
  while (!trainer_finished(t)) {
    bool counts = _i == 0 || t->epoch >= 1;
    trainer_step(t);
    steps++;
    double keep = steps == 1 ? 0 : (double)steps / (9 + steps); /* its first steps count more */
    if (keep > 0.8) keep = 0.8;
    if (_i == 1) keep = (double)counted / (counted + 1);
    for (size_t i = 0; counts && i < p->count; i++) expected[i] = keep * expected[i] + (1 - keep) * (double)p->value[i];
    counted += counts;
    if (trainer_epoch_complete(t)) trainer_next_epoch(t);
  }
  ck_assert_int_eq(t->average->count, counted);
  for (size_t i = 0; i < p->count; i++) ck_assert_double_eq_tol(expected[i], (double)t->average->values[2][i], 1e-5);
  free(expected);
  close_run(&run);
}
END_TEST

/* A run that goes on for more epochs than it was begun with has other last epochs: what was averaged before is forgotten. At
 * 0 there are epochs in between, at 1 the last epochs then and now have one in common. */
START_TEST(averages_begin_again_with_more_epochs) {
  struct trainer_options options = default_options(OPTIMIZER_SGD);
  options.epochs = 3;
  options.average = (struct average_options){.epochs = 2, .batches = 1};
  struct run run;
  open_run(&run, options, 2);
  struct trainer *t = run.trainer;
  int per_epoch = trainer_steps_per_epoch(t);
  go(t, 1000);
  ck_assert_int_eq(t->average->count, 2 * per_epoch);
  ck_assert(trainer_has_average(t));
  t->options.epochs = _i == 0 ? 6 : 4;
  if (_i == 0) {
    go(t, per_epoch);
    ck_assert(!trainer_has_average(t));
    ck_assert_int_eq(t->average->count, 0);
  }
  const struct net_parameter *p = &t->net->parameters[2];
  double *sum = calloc(p->count, sizeof *sum);
  ck_assert_ptr_nonnull(sum);
  int counted = 0;
  while (!trainer_finished(t)) {
    bool counts = _i == 1 || t->epoch >= 4;
    go(t, 1);
    for (size_t i = 0; counts && i < p->count; i++) sum[i] += (double)p->value[i];
    counted += counts;
  }
  ck_assert_int_eq(t->average->count, counted);
  ck_assert(trainer_has_average(t));
  for (size_t i = 0; i < p->count; i++) ck_assert_double_eq_tol(sum[i] / counted, (double)t->average->values[2][i], 1e-5);
  free(sum);
  close_run(&run);
}
END_TEST

/* With one batch, statistics are that batch's; training does not notice that they were measured; and the average can be put
 * in and taken out. */
START_TEST(statistics_are_measured_anew) {
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  options.average = (struct average_options){.decay = 0.9, .batches = 1};
  struct run run, other;
  open_run(&run, options, 2);
  open_run(&other, options, 2);
  struct trainer *t = run.trainer;
  for (int i = 0; i < 6; i++) {
    trainer_step(t);
    trainer_step(other.trainer);
  }
  ck_assert(!trainer_has_average(t));
  trainer_measure_average(t);
  ck_assert(trainer_has_average(t));
  const struct net_layer *l = &t->net->layers[1];
  ck_assert_int_eq(l->op, HWGQ_BATCH_NORM);
  size_t bytes = sizeof(float) * (size_t)l->out.channels;
  float *live = malloc(bytes);
  ck_assert_ptr_nonnull(live);
  memcpy(live, l->mean, bytes);
  trainer_swap_average(t);
  ck_assert(memcmp(live, l->mean, bytes) != 0);
  memcpy(live, l->mean, bytes);
  /* The same batch once more, with all of its statistics taken over. */
  t->net->statistics_momentum = 1;
  int step = t->step;
  net_forward(t->net, t->options.batch, true);
  ck_assert_int_eq(t->step, step);
  for (int c = 0; c < l->out.channels; c++) ck_assert_float_eq_tol(live[c], l->mean[c], 1e-6f);
  t->net->statistics_momentum = other.trainer->net->statistics_momentum;
  trainer_swap_average(t);
  for (int i = 0; i < t->net->parameter_count; i++) {
    const struct net_parameter *p = &t->net->parameters[i];
    assert_same_floats(p->name, p->value, other.trainer->net->parameters[i].value, p->count);
  }
  free(live);
  close_run(&run);
  close_run(&other);
}
END_TEST

START_TEST(an_average_is_as_good_as_its_weights) {
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  options.epochs = 12;
  options.average = (struct average_options){.decay = 0.9};
  struct run run;
  open_run(&run, options, 2);
  go(run.trainer, 1000);
  double plain = trainer_evaluate(run.trainer, run.images).accuracy;
  trainer_swap_average(run.trainer);
  double averaged = trainer_evaluate(run.trainer, run.images).accuracy;
  ck_assert_msg(averaged > 0.95 && plain > 0.9, "averaged %g, plain %g", averaged, plain);
  /* What is exported is what was evaluated. */
  struct hwgq_model *model = model_of(&run);
  ck_assert_float_eq(model->network->layers[1].mean[0], run.trainer->net->layers[1].mean[0]);
  hwgq_model_destroy(model);
  close_run(&run);
}
END_TEST

/* ---- teachers ----------------------------------------------------------------------------------------------------------- */

/* A teacher with the student's own weights and another preprocessing says what the student says. Without quantizers, of which a
 * level could change where a pixel is rounded otherwise. */
START_TEST(teachers_see_the_same_images) {
  const struct networks_variant relu = {.quantizer = &two_bits, .relu = true};
  struct run run, other;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  open_run_of_variant(&run, "vgg-small", &relu, options, 2);
  options.preprocess.mean[0] = 120;
  options.preprocess.scale[1] = 1.0f / 30;
  open_run_of_variant(&other, "vgg-small", &relu, options, 2);
  go(other.trainer, 5);
  struct hwgq_model *model = model_of(&other);
  struct teacher *teacher = NULL;
  ck_assert_int_eq(teacher_create(model, run.network, &run.trainer->options.preprocess, 10, run.pool, &blas, &teacher, &error),
                   HWGQ_OK);
  trainer_evaluate(other.trainer, run.images); /* leaves the last batch, of four images, in the net's input */
  trainer_evaluate(run.trainer, run.images);
  const float *scores = teacher_scores(teacher, run.trainer->net->input, 4), *expected = net_class_scores(other.trainer->net);
  for (int i = 0; i < 4 * CLASSES; i++) ck_assert_float_eq_tol(scores[i], expected[i], 0.002f * fabsf(expected[i]) + 0.002f);
  model->preprocess.order = HWGQ_BGR;
  struct teacher *refused = NULL;
  ck_assert_int_eq(teacher_create(model, run.network, &run.trainer->options.preprocess, 10, run.pool, &blas, &refused, &error),
                   HWGQ_ERROR_INVALID);
  model->preprocess.order = HWGQ_RGB;
  model->class_count--;
  ck_assert_int_eq(teacher_create(model, run.network, &run.trainer->options.preprocess, 10, run.pool, &blas, &refused, &error),
                   HWGQ_ERROR_INVALID);
  model->class_count++;
  teacher_destroy(teacher);
  hwgq_model_destroy(model);
  close_run(&run);
  close_run(&other);
}
END_TEST

/* ---- beginnings --------------------------------------------------------------------------------------------------------- */

/* A network of a variant, exported and imported, computes the same. */
static void check_transfer(const struct networks_variant *variant, const char *name) {
  struct run run;
  open_run_of(&run, name, default_options(OPTIMIZER_ADAM), 2);
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(networks_build_variant(name, run.network->input, CLASSES, 0.07, variant, &network, &error), HWGQ_OK);
  struct trainer *a = NULL, *b = NULL;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  ck_assert_int_eq(trainer_create(&options, network, run.images, run.pool, &blas, &a, &error), HWGQ_OK);
  go(a, 7);
  struct trainer_score expected = trainer_evaluate(a, run.images);
  net_export(a->net, network);
  options.seed++;
  ck_assert_int_eq(trainer_create(&options, network, run.images, run.pool, &blas, &b, &error), HWGQ_OK);
  ck_assert(fabs(trainer_evaluate(b, run.images).loss - expected.loss) > 1e-3);
  int taken = 0;
  ck_assert_int_eq(net_import(b->net, network, &taken, &error), HWGQ_OK);
  ck_assert_int_gt(taken, 10);
  ck_assert_double_eq(trainer_evaluate(b, run.images).loss, expected.loss);
  trainer_destroy(a);
  trainer_destroy(b);
  hwgq_network_destroy(network);
  close_run(&run);
}

START_TEST(models_come_back_as_they_went) {
  check_transfer(&(struct networks_variant){.quantizer = &two_bits}, "vgg-small");
  check_transfer(&(struct networks_variant){.quantizer = &two_bits, .affine = true}, "resnet-18-small");
  check_transfer(&(struct networks_variant){.relu = true, .float_weights = true}, "vgg-small");
  check_transfer(&(struct networks_variant){.float_weights = true}, "resnet-50");
}
END_TEST

/* A network from elsewhere may have alphas above 1. As a teacher it keeps them; what is to be trained cannot. */
START_TEST(alphas_above_1_come_back) {
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  go(run.trainer, 2);
  struct hwgq_model *model = model_of(&run), *back = NULL;
  struct hwgq_layer *layer = &model->network->layers[hwgq_network_find(model->network, "conv2")];
  ck_assert(layer->binary && layer->has_alpha);
  layer->alpha[0] = 2.5f;
  int taken = 0;
  ck_assert_int_eq(net_import(run.trainer->net, model->network, &taken, &error), HWGQ_OK);
  back = model_of(&run);
  const struct hwgq_layer *other = &back->network->layers[hwgq_network_find(back->network, "conv2")];
  for (int c = 0; c < layer->output.channels; c++) ck_assert_float_eq_tol(other->alpha[c], layer->alpha[c], 1e-5f);
  hwgq_model_destroy(back);
  ck_assert_int_eq(net_clamp_latent(run.trainer->net), run.trainer->net->layers[layer - model->network->layers].conv.taps);
  back = model_of(&run);
  ck_assert_float_eq(back->network->layers[layer - model->network->layers].alpha[0], 1);
  hwgq_model_destroy(back);
  hwgq_model_destroy(model);
  close_run(&run);
}
END_TEST

/* Float first, then quantized: latent weights are the float ones, within their bounds. */
START_TEST(a_run_begins_with_another_ones_weights) {
  char *folder = support_make_directory(), *path = support_path(folder, "checkpoint");
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 2);
  struct hwgq_network *network = NULL;
  const struct networks_variant floats = {.relu = true, .float_weights = true};
  ck_assert_int_eq(networks_build_variant("vgg-small", run.network->input, CLASSES, 0.07, &floats, &network, &error), HWGQ_OK);
  struct trainer *first = NULL;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  ck_assert_int_eq(trainer_create(&options, network, run.images, run.pool, &blas, &first, &error), HWGQ_OK);
  go(first, 7);
  first->net->parameters[1].value[0] = 1.5f;
  first->net->parameters[1].value[1] = -7;
  ck_assert_int_eq(checkpoint_write(first, "{}", path, &error), HWGQ_OK);
  net_export(first->net, network);
  for (int from_model = 0; from_model <= 1; from_model++) {
    struct checkpoint *checkpoint = NULL;
    int taken = 0;
    net_initialize(run.trainer->net, NET_UNIFORM, 99);
    ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
    enum hwgq_status status = from_model ? net_import(run.trainer->net, network, &taken, &error)
                                         : checkpoint_initialize(checkpoint, run.trainer->net, &taken, &error);
    ck_assert_msg(status == HWGQ_OK, "%s", error.message);
    ck_assert_int_ge(net_clamp_latent(run.trainer->net), 2);
    ck_assert_int_eq(net_clamp_latent(run.trainer->net), 0);
    ck_assert_int_eq(taken, 13); /* 6 convolutions, 6 batch norms, the classifier */
    for (int i = 0; i < first->net->parameter_count; i++) {
      const struct net_parameter *p = &first->net->parameters[i], *q = &run.trainer->net->parameters[i];
      for (size_t k = 0; k < p->count; k++)
        ck_assert_float_eq(q->value[k], !q->latent ? p->value[k] : fminf(1, fmaxf(-1, p->value[k])));
    }
    assert_same_floats("mean", first->net->layers[1].mean, run.trainer->net->layers[1].mean,
                       (size_t)first->net->layers[1].out.channels);
    checkpoint_destroy(checkpoint);
  }
  trainer_destroy(first);
  hwgq_network_destroy(network);
  close_run(&run);
  free(path);
  support_remove_directory(folder);
}
END_TEST

/* Other classes leave the classifier to chance; another width is refused, and changes nothing. */
START_TEST(beginnings_must_fit) {
  char *folder = support_make_directory(), *path = support_path(folder, "checkpoint");
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  struct hwgq_network *seven = NULL, *wide = NULL;
  ck_assert_int_eq(networks_build("vgg-small", run.network->input, 7, 0.07, &two_bits, &seven, &error), HWGQ_OK);
  ck_assert_int_eq(networks_build("vgg-small", run.network->input, CLASSES, 0.09, &two_bits, &wide, &error), HWGQ_OK);
  ck_assert_int_eq(checkpoint_write(run.trainer, "{}", path, &error), HWGQ_OK);
  struct checkpoint *checkpoint = NULL;
  ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
  struct net *net = NULL;
  int taken = 0;
  ck_assert_int_eq(net_create(seven, 2, run.pool, &blas, &net, &error), HWGQ_OK);
  net_initialize(net, NET_UNIFORM, 5);
  float before = net->parameters[net->parameter_count - 2].value[0];
  ck_assert_int_eq(checkpoint_initialize(checkpoint, net, &taken, &error), HWGQ_OK);
  ck_assert_int_eq(taken, 12);
  ck_assert_float_eq(net->parameters[net->parameter_count - 2].value[0], before);
  net_destroy(net);
  net = NULL;
  ck_assert_int_eq(net_create(wide, 2, run.pool, &blas, &net, &error), HWGQ_OK);
  net_initialize(net, NET_UNIFORM, 5);
  before = net->parameters[0].value[0];
  ck_assert_int_eq(checkpoint_initialize(checkpoint, net, &taken, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "conv1"));
  ck_assert_int_eq(net_import(net, run.network, &taken, &error), HWGQ_ERROR_INVALID);
  ck_assert_float_eq(net->parameters[0].value[0], before);
  net_destroy(net);
  checkpoint_destroy(checkpoint);
  hwgq_network_destroy(seven);
  hwgq_network_destroy(wide);
  close_run(&run);
  free(path);
  support_remove_directory(folder);
}
END_TEST

/* ---- what arrives at activations ----------------------------------------------------------------------------------------- */

START_TEST(distributions_count_every_value) {
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 2);
  go(run.trainer, 6);
  int count = 0;
  struct distribution *list = distribution_create(run.trainer->net, &count);
  ck_assert_ptr_nonnull(list);
  ck_assert_int_eq(count, 6);
  trainer_distributions(run.trainer, run.images, 30, list);
  for (int i = 0; i < count; i++) {
    const struct distribution *d = &list[i];
    uint64_t binned = d->below + d->above, levels = 0, negative = 0;
    double expected = 0;
    for (int b = 0; b < DISTRIBUTION_BINS; b++) {
      binned += d->bins[b];
      if (b < DISTRIBUTION_BINS / 2) negative += d->bins[b];
    }
    for (int k = 0; k <= distribution_levels(d); k++) {
      levels += d->levels[k];
      expected += distribution_expected(d, k);
    }
    ck_assert_uint_eq(d->count, 30 * (uint64_t)hwgq_shape_elements(d->layer->output));
    ck_assert_uint_eq(binned, d->count);
    ck_assert_uint_eq(levels, d->count);
    ck_assert_uint_ge(d->levels[0], d->below + negative); /* level 0 is for x <= 0 */
    ck_assert_double_eq_tol(expected, 1, 1e-12);
    ck_assert_double_eq_tol(distribution_expected(d, 0), 0.5, 1e-12);
    ck_assert_double_eq_tol(distribution_expected(d, 1), erf(0.807 / sqrt(2)) / 2, 1e-6); /* Phi(0.807) - Phi(0) */
  }
  free(list);
  close_run(&run);
}
END_TEST

int main(void) {
  enum hwgq_status status = blas_load(NULL, &blas, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  Suite *suite = suite_create("train_method");
  TCase *tests = tcase_create("ways");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, every_way_goes_on_exactly, 0, sizeof ways / sizeof ways[0]);
  tcase_add_loop_test(tests, every_way_matters, 0, sizeof ways / sizeof ways[0]);
  tcase_add_loop_test(tests, averages_are_averages, 0, 2);
  tcase_add_loop_test(tests, averages_begin_again_with_more_epochs, 0, 2);
  tcase_add_test(tests, statistics_are_measured_anew);
  tcase_add_test(tests, an_average_is_as_good_as_its_weights);
  tcase_add_test(tests, teachers_see_the_same_images);
  tcase_add_test(tests, models_come_back_as_they_went);
  tcase_add_test(tests, alphas_above_1_come_back);
  tcase_add_test(tests, a_run_begins_with_another_ones_weights);
  tcase_add_test(tests, beginnings_must_fit);
  tcase_add_test(tests, distributions_count_every_value);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
