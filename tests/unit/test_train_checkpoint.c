/* Whole training runs on a tiny set: they learn, they do not depend on the number of threads, they continue exactly from a
 * checkpoint, bad checkpoints are refused, and the exported model computes what the trainer computed. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/safetensors.h"
#include "models/networks/networks.h"
#include "models/train/checkpoint.h"
#include "models/train/export.h"
#include "tests/support/train_run.h"

START_TEST(a_tiny_set_is_learned) {
  struct trainer_options options = default_options(_i == 0 ? OPTIMIZER_ADAM : OPTIMIZER_SGD);
  options.epochs = 12;
  struct run run;
  open_run(&run, options, 2);
  double first = 0, last = 0;
  while (!trainer_finished(run.trainer)) {
    trainer_step(run.trainer);
    if (!trainer_epoch_complete(run.trainer)) continue;
    last = trainer_train_score(run.trainer).loss;
    if (run.trainer->epoch == 0) first = last;
    trainer_next_epoch(run.trainer);
  }
  struct trainer_score score = trainer_evaluate(run.trainer, run.images);
  ck_assert_msg(last < first / 2 && score.accuracy > 0.95, "loss %g to %g, accuracy %g", first, last, score.accuracy);
  ck_assert(score.loss < first);
  close_run(&run);
}
END_TEST

START_TEST(threads_do_not_change_the_result) {
  struct run one, three;
  open_run(&one, default_options(OPTIMIZER_ADAM), 1);
  open_run(&three, default_options(OPTIMIZER_ADAM), 3);
  go(one.trainer, 9);
  go(three.trainer, 9);
  assert_same(one.trainer, three.trainer);
  close_run(&one);
  close_run(&three);
}
END_TEST

START_TEST(seeds_change_the_result) {
  struct run a, b;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  open_run(&a, options, 1);
  options.seed++;
  open_run(&b, options, 1);
  go(a.trainer, 1);
  go(b.trainer, 1);
  ck_assert(memcmp(a.trainer->net->parameters[0].value, b.trainer->net->parameters[0].value, sizeof(float) * 8) != 0);
  close_run(&a);
  close_run(&b);
}
END_TEST

/* The weights stay as they are, so that every batch's statistics can be told from the last layer that was normalized by them.
 */
START_TEST(running_statistics_begin_as_a_plain_average) {
  struct trainer_options options = default_options(OPTIMIZER_SGD);
  options.optimizer.rate = 0;
  struct run run;
  open_run(&run, options, 1);
  const struct net *net = run.trainer->net;
  const struct net_layer *norm = NULL;
  for (int i = 0; i < net->layer_count && norm == NULL; i++)
    if (net->layers[i].op == HWGQ_BATCH_NORM) norm = &net->layers[i];
  ck_assert_ptr_nonnull(norm);
  double sum = 0;
  for (int step = 1; step <= 10; step++) {
    go(run.trainer, 1);
    sum += -(double)norm->offset[0] / (double)norm->slope[0];
    ck_assert_float_eq_tol(norm->mean[0], (float)(sum / step), 1e-4f);
  }
  close_run(&run);
}
END_TEST

/* ---- checkpoints -------------------------------------------------------------------------------------------------------- */

static char *directory, *path;

static void open_directory(void) {
  directory = support_make_directory();
  path = support_path(directory, "run.checkpoint");
}

static void close_directory(void) {
  support_remove_directory(directory);
  free(path);
}

static enum hwgq_status restore(struct trainer *trainer, const char *from) {
  struct checkpoint *checkpoint = NULL;
  memset(&error, 0, sizeof error);
  enum hwgq_status status = checkpoint_read(from, &checkpoint, &error);
  if (status == HWGQ_OK) status = checkpoint_restore(checkpoint, trainer, &error);
  checkpoint_destroy(checkpoint);
  return status;
}

static void resume_after(int steps, enum optimizer_kind kind) {
  struct run straight, stopped, resumed;
  open_run(&straight, default_options(kind), 2);
  go(straight.trainer, 1000);
  ck_assert(trainer_finished(straight.trainer));
  open_run(&stopped, default_options(kind), 2);
  go(stopped.trainer, steps);
  ck_assert_int_eq(checkpoint_write(stopped.trainer, "{\"a\":1}", path, &error), HWGQ_OK);
  open_run(&resumed, default_options(kind), 2);
  go(resumed.trainer, 3); /* whatever it did before is forgotten */
  ck_assert_msg(restore(resumed.trainer, path) == HWGQ_OK, "%s", error.message);
  assert_same(stopped.trainer, resumed.trainer);
  go(resumed.trainer, 1000);
  assert_same(straight.trainer, resumed.trainer);
  close_run(&straight);
  close_run(&stopped);
  close_run(&resumed);
}

/* Stopped after `_i` steps: at once, inside an epoch, at its end, at the end of all. */
START_TEST(a_resumed_run_goes_the_same_way) {
  resume_after(_i, _i % 2 == 0 ? OPTIMIZER_ADAM : OPTIMIZER_SGD);
}
END_TEST

/* In 8 bits, whose gradients are rounded by where in the run a step is; inside an epoch and at its end. */
START_TEST(a_resumed_run_of_narrow_numbers_goes_the_same_way) {
  blas.dot = &dot_kernels_plain;
  resume_after(_i, OPTIMIZER_ADAM);
  blas.dot = NULL;
}
END_TEST

/* Begun without an average, continued with one: of the last epoch's steps (0), of the weights as they are (1). Its tensors may
 * be missing only when the run had none. */
START_TEST(an_average_begins_when_a_run_goes_on) {
  struct run run, with;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  open_run(&run, options, 2);
  options.average = _i == 0 ? (struct average_options){.epochs = 1} : (struct average_options){.batches = 2};
  open_run(&with, options, 2);
  int per_epoch = trainer_steps_per_epoch(run.trainer);
  go(with.trainer, 1000);
  ck_assert(trainer_has_average(with.trainer));
  go(run.trainer, 2 * per_epoch + 1);
  ck_assert_int_eq(checkpoint_write(run.trainer, "{}", path, &error), HWGQ_OK);
  ck_assert_msg(restore(with.trainer, path) == HWGQ_OK, "%s", error.message);
  ck_assert(!trainer_has_average(with.trainer));
  ck_assert_int_eq(with.trainer->average->count, 0);
  go(run.trainer, 1000);
  go(with.trainer, 1000);
  ck_assert(trainer_has_average(with.trainer));
  ck_assert_int_eq(with.trainer->average->count, _i == 0 ? per_epoch : 1);
  for (int i = 0; i < run.trainer->net->parameter_count; i++) {
    const struct net_parameter *p = &run.trainer->net->parameters[i];
    assert_same_floats(p->name, p->value, with.trainer->net->parameters[i].value, p->count);
    if (_i == 1) assert_same_floats(p->name, p->value, with.trainer->average->values[i], p->count);
  }
  /* Without an average once more; and a file that should have one and lacks a tensor of it. */
  ck_assert_int_eq(checkpoint_write(with.trainer, "{}", path, &error), HWGQ_OK);
  ck_assert_msg(restore(run.trainer, path) == HWGQ_OK, "%s", error.message);
  size_t length;
  uint8_t *bytes = support_read_file(path, &length);
  ck_assert_ptr_nonnull(bytes);
  static const char name[] = "conv1.weight.average";
  uint8_t *at = memmem(bytes, length, name, sizeof name - 1);
  ck_assert_ptr_nonnull(at);
  at[0] = 'k';
  support_write_file(path, bytes, length);
  ck_assert_int_eq(restore(with.trainer, path), HWGQ_ERROR_FORMAT);
  ck_assert_msg(strstr(error.message, name) != NULL, "%s", error.message);
  free(bytes);
  close_run(&run);
  close_run(&with);
}
END_TEST

START_TEST(a_checkpoint_knows_its_recipe_and_network) {
  struct run run;
  struct checkpoint *checkpoint = NULL;
  struct hwgq_network *network = NULL;
  char *expected = NULL, *text = NULL;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  ck_assert_int_eq(checkpoint_write(run.trainer, "{\"a\":1}", path, &error), HWGQ_OK);
  ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
  ck_assert_str_eq(checkpoint_recipe(checkpoint), "{\"a\":1}");
  ck_assert_int_eq(checkpoint_network(checkpoint, &network, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_to_json(network, &text, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_to_json(run.network, &expected, &error), HWGQ_OK);
  ck_assert_str_eq(text, expected);
  free(text);
  free(expected);
  hwgq_network_destroy(network);
  checkpoint_destroy(checkpoint);
  close_run(&run);
}
END_TEST

START_TEST(other_networks_and_optimizers_are_refused) {
  struct run adam, sgd, other = {0};
  open_run(&adam, default_options(OPTIMIZER_ADAM), 1);
  open_run(&sgd, default_options(OPTIMIZER_SGD), 1);
  ck_assert_int_eq(checkpoint_write(sgd.trainer, "{}", path, &error), HWGQ_OK);
  ck_assert_int_eq(restore(adam.trainer, path), HWGQ_ERROR_INVALID);
  ck_assert_msg(strstr(error.message, "--optimizer sgd, which stays") != NULL, "%s", error.message);
  ck_assert_int_eq(checkpoint_write(adam.trainer, "{}", path, &error), HWGQ_OK);
  ck_assert_int_eq(restore(sgd.trainer, path), HWGQ_ERROR_INVALID);
  ck_assert_msg(strstr(error.message, "--optimizer adam, which stays") != NULL, "%s", error.message);
  other.images = make_images();
  struct trainer_options options = default_options(OPTIMIZER_SGD);
  ck_assert_int_eq(pool_create(1, &other.pool, &error), HWGQ_OK);
  ck_assert_int_eq(
      networks_build("vgg-small", (struct hwgq_shape){3, SIDE, SIDE}, CLASSES, 0.08, &two_bits, &other.network, &error),
      HWGQ_OK);
  ck_assert_int_eq(trainer_create(&options, other.network, other.images, other.pool, &blas, &other.trainer, &error), HWGQ_OK);
  ck_assert_int_eq(restore(other.trainer, path), HWGQ_ERROR_INVALID);
  ck_assert_msg(strstr(error.message, "another network") != NULL, "%s", error.message);
  close_run(&adam);
  close_run(&sgd);
  close_run(&other);
}
END_TEST

/* A position within an epoch is a number of batches. */
START_TEST(the_batch_size_changes_between_epochs_only) {
  struct run run, other;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  open_run(&run, options, 1);
  options.batch = 8;
  open_run(&other, options, 1);
  int steps = trainer_steps_per_epoch(run.trainer);
  for (int made = steps - 1; made <= steps; made++) {
    struct checkpoint *checkpoint = NULL;
    go(run.trainer, made == steps ? 1 : made);
    ck_assert_int_eq(checkpoint_write(run.trainer, "{}", path, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_check_epoch(checkpoint, run.trainer, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_check_epoch(checkpoint, other.trainer, &error), made == steps ? HWGQ_OK : HWGQ_ERROR_INVALID);
    checkpoint_destroy(checkpoint);
  }
  ck_assert_msg(strstr(error.message, "within epoch 1") && strstr(error.message, "10 images, not 8"), "%s", error.message);
  close_run(&run);
  close_run(&other);
}
END_TEST

/* And a number of images, in an order that follows from it. Older checkpoints do not state it. */
START_TEST(the_number_of_images_changes_between_epochs_only) {
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  struct dataset fewer = *run.images;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  struct trainer *other = NULL;
  fewer.count -= 7;
  ck_assert_int_eq(trainer_create(&options, run.network, &fewer, run.pool, &blas, &other, &error), HWGQ_OK);
  for (int within = 1; within >= 0; within--) {
    struct checkpoint *checkpoint = NULL;
    go(run.trainer, within ? 2 : trainer_steps_per_epoch(run.trainer) - 2);
    ck_assert_int_eq(checkpoint_write(run.trainer, "{}", path, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_check_epoch(checkpoint, run.trainer, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_check_epoch(checkpoint, other, &error), within ? HWGQ_ERROR_INVALID : HWGQ_OK);
    checkpoint_destroy(checkpoint);
    if (!within) continue;
    ck_assert_msg(strstr(error.message, "within epoch 1") && strstr(error.message, "64 images, not 57"), "%s", error.message);
    size_t length;
    uint8_t *bytes = support_read_file(path, &length);
    ck_assert_ptr_nonnull(bytes);
    static const char key[] = "\"images\\\":";
    uint8_t *at = memmem(bytes, length, key, sizeof key - 1);
    ck_assert_ptr_nonnull(at);
    at[1] = 'o';
    support_write_file(path, bytes, length);
    free(bytes);
    ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
    ck_assert_int_eq(checkpoint_check_epoch(checkpoint, other, &error), HWGQ_OK);
    checkpoint_destroy(checkpoint);
  }
  trainer_destroy(other);
  close_run(&run);
}
END_TEST

/* Every truncation and a changed byte anywhere in the header: a message or a success, never a crash, and a trainer that is not
 * restored is not changed. */
START_TEST(damaged_checkpoints_are_refused) {
  struct run run, untouched;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  open_run(&untouched, default_options(OPTIMIZER_ADAM), 1);
  ck_assert_int_eq(checkpoint_write(run.trainer, "{}", path, &error), HWGQ_OK);
  size_t length;
  uint8_t *bytes = support_read_file(path, &length);
  ck_assert_ptr_nonnull(bytes);
  ck_assert_int_eq(restore(run.trainer, "/does/not/exist"), HWGQ_ERROR_IO);
  for (size_t cut = 0; cut < length; cut += 1 + length / 60) {
    support_write_file(path, bytes, cut);
    ck_assert_int_eq(restore(run.trainer, path), HWGQ_ERROR_FORMAT);
    ck_assert_msg(strstr(error.message, "run.checkpoint") != NULL, "%s", error.message);
  }
  uint64_t header = 0;
  memcpy(&header, bytes, sizeof header);
  for (size_t at = 8; at < 8 + header; at += 1 + header / 400) {
    bytes[at] ^= 0x11;
    support_write_file(path, bytes, length);
    if (restore(run.trainer, path) == HWGQ_OK)
      ck_assert_int_eq(checkpoint_write(untouched.trainer, "{}", path, &error), HWGQ_OK);
    else
      ck_assert_int_gt((int)strlen(error.message), 10);
    bytes[at] ^= 0x11;
  }
  support_write_file(path, bytes, length);
  ck_assert_int_eq(restore(run.trainer, path), HWGQ_OK);
  /* A value that is not a number. */
  memset(bytes + length - 4, 0xff, 4);
  support_write_file(path, bytes, length);
  ck_assert_int_eq(restore(run.trainer, path), HWGQ_ERROR_FORMAT);
  ck_assert_msg(strstr(error.message, "not finite") != NULL, "%s", error.message);
  assert_same(run.trainer, untouched.trainer);
  free(bytes);
  close_run(&run);
  close_run(&untouched);
}
END_TEST

START_TEST(other_safetensors_are_not_checkpoints) {
  struct checkpoint *checkpoint = NULL;
  ck_assert_int_eq(hwgq_safetensors_write(path, NULL, 0, NULL, 0, NULL, &error), HWGQ_OK);
  ck_assert_int_eq(checkpoint_read(path, &checkpoint, &error), HWGQ_ERROR_FORMAT);
  ck_assert_msg(strstr(error.message, "not a training checkpoint") != NULL, "%s", error.message);
  static const char *const states[] = {"",
                                       "[]",
                                       "{}",
                                       "{\"epoch\":-1}",
                                       "{\"epoch\":1,\"step\":1,\"right\":1,\"optimizer_step\":1}",
                                       "{\"epoch\":1,\"step\":1,\"right\":1,\"optimizer_step\":1,\"loss_sum\":\"nan\"}"};
  for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
    struct hwgq_metadata metadata[] = {
        {"format", "hwgq training checkpoint 1"}, {"network", "{}"}, {"state", states[i]}, {"recipe", "{}"}};
    ck_assert_int_eq(hwgq_safetensors_write(path, NULL, 0, metadata, 4, NULL, &error), HWGQ_OK);
    ck_assert_int_ne(checkpoint_read(path, &checkpoint, &error), HWGQ_OK);
    ck_assert_msg(strstr(error.message, "run.checkpoint") != NULL, "%s", error.message);
  }
}
END_TEST

START_TEST(a_checkpoint_that_cannot_be_written_is_told) {
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 1);
  ck_assert_int_eq(checkpoint_write(run.trainer, "{}", "/does/not/exist/x", &error), HWGQ_ERROR_IO);
  close_run(&run);
}
END_TEST

/* ---- export ------------------------------------------------------------------------------------------------------------- */

START_TEST(the_model_computes_what_the_trainer_does) {
  struct run run;
  open_run(&run, default_options(OPTIMIZER_ADAM), 2);
  go(run.trainer, 10);
  static const char *const labels[] = {"one", "two", "three", "four"};
  struct hwgq_model *model = NULL;
  const struct hwgq_preprocess *preprocess = &run.trainer->options.preprocess;
  ck_assert_int_eq(export_model(run.trainer->net, preprocess, labels, 3, "{}", &model, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(export_model(run.trainer->net, preprocess, labels, CLASSES, "{\"a\":1}", &model, &error), HWGQ_OK);
  char *file = support_path(directory, "model.hwgq");
  ck_assert_msg(hwgq_model_write(model, file, &error) == HWGQ_OK, "%s", error.message);
  struct hwgq_reference *reference = NULL;
  ck_assert_int_eq(hwgq_reference_create(model->network, &reference, &error), HWGQ_OK);
  ck_assert_str_eq(model->labels[3], "four");
  ck_assert_str_eq(model->provenance, "{\"a\":1}");
  trainer_evaluate(run.trainer, run.images); /* leaves the scores of the last batch: images 60 to 63 */
  const float *scores = net_output(run.trainer->net);
  for (int i = 60; i < IMAGES; i++, scores += CLASSES) {
    float input[3 * SIDE * SIDE];
    hwgq_preprocess_to_float(preprocess, model->network->input, run.images->pixels + i * SIDE * SIDE * 3, input);
    ck_assert_int_eq(hwgq_reference_run(reference, input, &error), HWGQ_OK);
    const double *expected = hwgq_reference_output(reference, model->network->layer_count - 1);
    for (int c = 0; c < CLASSES; c++) ck_assert_double_eq_tol((double)scores[c], expected[c], 1e-4);
  }
  hwgq_reference_destroy(reference);
  hwgq_model_destroy(model);
  free(file);
  close_run(&run);
}
END_TEST

/* ---- what is refused ---------------------------------------------------------------------------------------------------- */

START_TEST(images_that_do_not_fit_are_refused) {
  struct run run;
  struct trainer *trainer = NULL;
  struct trainer_options options = default_options(OPTIMIZER_ADAM);
  open_run(&run, options, 1);
  struct dataset bad = *run.images;
  bad.width = 32;
  ck_assert_int_eq(trainer_create(&options, run.network, &bad, run.pool, &blas, &trainer, &error), HWGQ_ERROR_INVALID);
  bad = *run.images;
  bad.count = 0;
  ck_assert_int_eq(trainer_create(&options, run.network, &bad, run.pool, &blas, &trainer, &error), HWGQ_ERROR_INVALID);
  bad = *run.images;
  bad.class_count = CLASSES + 1;
  ck_assert_int_eq(trainer_create(&options, run.network, &bad, run.pool, &blas, &trainer, &error), HWGQ_ERROR_INVALID);
  options.epochs = 0;
  ck_assert_int_eq(trainer_create(&options, run.network, run.images, run.pool, &blas, &trainer, &error), HWGQ_ERROR_INVALID);
  options = default_options(OPTIMIZER_ADAM);
  options.augmentation.pad = -1;
  ck_assert_int_eq(trainer_create(&options, run.network, run.images, run.pool, &blas, &trainer, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_null(trainer);
  close_run(&run);
}
END_TEST

/* layer 0: conv2d; layer 1: op, from `input`; layer 2: softmax if `softmax` */
static void assert_network_refused(enum hwgq_op op, const char *input, bool softmax, const char *message) {
  struct hwgq_network *network = NULL;
  struct pool *pool = NULL;
  struct net *net = NULL;
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){2, 1, 1}, &network, &error), HWGQ_OK);
  support_add(network, "first", HWGQ_CONV2D, "input")->out_channels = 2;
  struct hwgq_layer *layer = support_add(network, "second", op, input);
  layer->out_channels = 2;
  layer->groups = op == HWGQ_CONV2D ? 2 : 1;
  if (softmax) support_add(network, "prob", HWGQ_SOFTMAX, "second");
  ck_assert_msg(hwgq_network_infer(network, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(pool_create(1, &pool, &error), HWGQ_OK);
  ck_assert_int_eq(net_create(network, 4, pool, &blas, &net, &error), HWGQ_ERROR_UNSUPPORTED);
  ck_assert_msg(strstr(error.message, message) != NULL && strstr(error.message, "second") != NULL, "%s", error.message);
  pool_destroy(pool);
  hwgq_network_destroy(network);
}

START_TEST(networks_beyond_the_trainer_are_refused) {
  assert_network_refused(HWGQ_FLATTEN, "first", true, "flatten");
  assert_network_refused(HWGQ_CONV2D, "first", true, "groups");
  assert_network_refused(HWGQ_RELU, "first", false, "not a softmax");
  assert_network_refused(HWGQ_SOFTMAX, "first", true, "before the end");
}
END_TEST

START_TEST(networks_are_built_by_name) {
  struct hwgq_network *network = NULL;
  ck_assert_int_eq(networks_build("vgg-small", (struct hwgq_shape){3, 32, 32}, 10, 1, &two_bits, &network, &error), HWGQ_OK);
  uint64_t macs = 0;
  for (int i = 0; i < network->layer_count; i++) macs += hwgq_layer_macs(network, &network->layers[i]);
  /* 3.5 million in the first convolution, 603.98 million binary, 81920 in the classifier */
  ck_assert_uint_eq(macs, 3538944u + 603979776u + 81920u);
  ck_assert(!network->layers[0].binary);
  ck_assert_int_eq(network->layers[hwgq_network_find(network, "conv6")].out_channels, 512);
  ck_assert(network->layers[hwgq_network_find(network, "conv6")].binary);
  hwgq_network_destroy(network);
  ck_assert_int_eq(networks_build("lenet", (struct hwgq_shape){1, 28, 28}, 10, 1, &two_bits, &network, &error), HWGQ_OK);
  macs = 0;
  for (int i = 0; i < network->layer_count; i++) macs += hwgq_layer_macs(network, &network->layers[i]);
  ck_assert_uint_eq(macs, 288000u + 1600000u + 400000u + 5000u); /* 2.3 million */
  hwgq_network_destroy(network);
  network = NULL;
  ck_assert_int_eq(networks_build("resnet-2", (struct hwgq_shape){3, 32, 32}, 10, 1, &two_bits, &network, &error),
                   HWGQ_ERROR_INVALID);
  ck_assert_ptr_nonnull(strstr(error.message, "resnet-2"));
  ck_assert_int_eq(networks_build("lenet", (struct hwgq_shape){1, 28, 28}, 10, 0, &two_bits, &network, &error),
                   HWGQ_ERROR_INVALID);
  ck_assert_int_eq(networks_build("lenet", (struct hwgq_shape){1, 28, 28}, 0, 1, &two_bits, &network, &error),
                   HWGQ_ERROR_INVALID);
  ck_assert_int_ne(networks_build("lenet", (struct hwgq_shape){1, 4, 4}, 10, 1, &two_bits, &network, &error), HWGQ_OK);
  ck_assert_ptr_null(network);
  ck_assert_str_eq(networks_names()[0], "lenet");
}
END_TEST

int main(void) {
  enum hwgq_status status = blas_load(NULL, &blas, &error);
  if (status != HWGQ_OK) {
    fprintf(stderr, "%s\n", error.message);
    return 1;
  }
  Suite *suite = suite_create("train_checkpoint");
  TCase *tests = tcase_create("runs");
  tcase_set_timeout(tests, 300);
  tcase_add_checked_fixture(tests, open_directory, close_directory);
  tcase_add_loop_test(tests, a_tiny_set_is_learned, 0, 2);
  tcase_add_test(tests, threads_do_not_change_the_result);
  tcase_add_test(tests, seeds_change_the_result);
  tcase_add_test(tests, running_statistics_begin_as_a_plain_average);
  for (int i = 0; i < 4; i++) {
    static const int stops[] = {0, 5, 12, 24};
    tcase_add_loop_test(tests, a_resumed_run_goes_the_same_way, stops[i], stops[i] + 1);
  }
  tcase_add_loop_test(tests, a_resumed_run_of_narrow_numbers_goes_the_same_way, 5, 7);
  tcase_add_loop_test(tests, an_average_begins_when_a_run_goes_on, 0, 2);
  tcase_add_test(tests, a_checkpoint_knows_its_recipe_and_network);
  tcase_add_test(tests, other_networks_and_optimizers_are_refused);
  tcase_add_test(tests, the_batch_size_changes_between_epochs_only);
  tcase_add_test(tests, the_number_of_images_changes_between_epochs_only);
  tcase_add_test(tests, damaged_checkpoints_are_refused);
  tcase_add_test(tests, other_safetensors_are_not_checkpoints);
  tcase_add_test(tests, a_checkpoint_that_cannot_be_written_is_told);
  tcase_add_test(tests, the_model_computes_what_the_trainer_does);
  tcase_add_test(tests, images_that_do_not_fit_are_refused);
  tcase_add_test(tests, networks_beyond_the_trainer_are_refused);
  tcase_add_test(tests, networks_are_built_by_name);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
