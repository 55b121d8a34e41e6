/* A small training run, for the tests of the trainer that need one. */
#ifndef SUPPORT_TRAIN_RUN_H
#define SUPPORT_TRAIN_RUN_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "models/networks/networks.h"
#include "models/train/trainer.h"
#include "tests/support/support.h"

enum { IMAGES = 64, SIDE = 16, CLASSES = 4, EPOCHS = 4 };

static struct hwgq_error error;
static struct blas blas;
static const struct hwgq_quantizer two_bits = {
    .level_count = 3, .centers = {0.538f, 1.076f, 1.614f}, .thresholds = {0, 0.807f, 1.345f}};

/* Each class has its bright quarter, under noise. */
static struct dataset *make_images(void) {
  struct dataset *images = calloc(1, sizeof *images);
  ck_assert_ptr_nonnull(images);
  *images = (struct dataset){.count = IMAGES, .height = SIDE, .width = SIDE, .channels = 3, .class_count = CLASSES};
  images->pixels = malloc(IMAGES * SIDE * SIDE * 3);
  images->labels = malloc(IMAGES * sizeof *images->labels);
  ck_assert_ptr_nonnull(images->pixels);
  ck_assert_ptr_nonnull(images->labels);
  struct support_random random = {.state = 11};
  for (int i = 0; i < IMAGES; i++) {
    images->labels[i] = i % CLASSES;
    for (int p = 0; p < SIDE * SIDE * 3; p++) {
      int quarter = (p / 3 % SIDE >= SIDE / 2) + 2 * (p / 3 / SIDE >= SIDE / 2);
      images->pixels[i * SIDE * SIDE * 3 + p] =
          (uint8_t)(support_random_int(&random, 0, 155) + (quarter == i % CLASSES ? 100 : 0));
    }
  }
  return images;
}

static void free_images(struct dataset *images) {
  free(images->pixels);
  free(images->labels);
  free(images);
}

struct run {
  struct dataset *images;
  struct pool *pool;
  struct hwgq_network *network;
  struct trainer *trainer;
};

static struct trainer_options default_options(enum optimizer_kind kind) {
  return (struct trainer_options){
      .epochs = EPOCHS,
      .batch = 10, /* does not divide the images: some are left over in each epoch */
      .seed = 3,
      .preprocess = {.mean = {100, 100, 100}, .scale = {1.0f / 64, 1.0f / 64, 1.0f / 64}},
      .augmentation = {.mirror = false, .pad = 1, .zoom = 0.1f},
      .optimizer = {.kind = kind,
                    .rate = kind == OPTIMIZER_ADAM ? 0.01 : 0.05,
                    .classifier = 0.5,
                    .momentum = 0.9,
                    .power = 1,
                    .warmup = 0.1},
  };
}

static void open_run_of_variant(struct run *run, const char *name, const struct networks_variant *variant,
                                struct trainer_options options, int threads) {
  run->images = make_images();
  ck_assert_int_eq(pool_create(threads, &run->pool, &error), HWGQ_OK);
  enum hwgq_status status =
      networks_build_variant(name, (struct hwgq_shape){3, SIDE, SIDE}, CLASSES, 0.07, variant, &run->network, &error);
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
  status = trainer_create(&options, run->network, run->images, run->pool, &blas, &run->trainer, &error);
  ck_assert_msg(status == HWGQ_OK, "%s", error.message);
}

static void open_run_of(struct run *run, const char *name, struct trainer_options options, int threads) {
  open_run_of_variant(run, name, &(struct networks_variant){.quantizer = &two_bits}, options, threads);
}

static void open_run(struct run *run, struct trainer_options options, int threads) {
  open_run_of(run, "vgg-small", options, threads);
}

static void close_run(struct run *run) {
  trainer_destroy(run->trainer);
  hwgq_network_destroy(run->network);
  pool_destroy(run->pool);
  free_images(run->images);
}

/* Up to `steps` steps further, through the ends of epochs. */
static void go(struct trainer *trainer, int steps) {
  while (steps-- > 0 && !trainer_finished(trainer)) {
    trainer_step(trainer);
    if (!trainer_epoch_complete(trainer)) continue;
    trainer_measure_average(trainer);
    trainer_next_epoch(trainer);
  }
}

static void assert_same_floats(const char *what, const float *a, const float *b, size_t count) {
  ck_assert_msg(memcmp(a, b, count * sizeof *a) == 0, "%s differs", what);
}

/* Bit for bit: weights, optimizer, statistics, position. */
static void assert_same(const struct trainer *a, const struct trainer *b) {
  ck_assert_int_eq(a->epoch, b->epoch);
  ck_assert_int_eq(a->step, b->step);
  ck_assert_int_eq(a->right, b->right);
  ck_assert(a->loss_sum == b->loss_sum);
  ck_assert_int_eq(a->optimizer->step, b->optimizer->step);
  for (int i = 0; i < a->net->parameter_count; i++) {
    const struct net_parameter *p = &a->net->parameters[i], *q = &b->net->parameters[i];
    assert_same_floats(p->name, p->value, q->value, p->count);
    assert_same_floats(p->name, a->optimizer->first[i], b->optimizer->first[i], p->count);
    if (a->optimizer->second[i] != NULL)
      assert_same_floats(p->name, a->optimizer->second[i], b->optimizer->second[i], p->count);
    if (a->average != NULL) assert_same_floats(p->name, a->average->values[i], b->average->values[i], p->count);
  }
  for (int i = 0; i < a->net->layer_count; i++) {
    const struct net_layer *l = &a->net->layers[i], *k = &b->net->layers[i];
    if (l->op != HWGQ_BATCH_NORM) continue;
    assert_same_floats(l->layer->name, l->mean, k->mean, (size_t)l->out.channels);
    assert_same_floats(l->layer->name, l->variance, k->variance, (size_t)l->out.channels);
    if (a->average == NULL) continue;
    assert_same_floats(l->layer->name, a->average->mean[i], b->average->mean[i], (size_t)l->out.channels);
    assert_same_floats(l->layer->name, a->average->variance[i], b->average->variance[i], (size_t)l->out.channels);
  }
}

#endif
