/* The training loop: epochs of shuffled, augmented batches. Everything random follows from (seed, epoch, image), so a
 * trainer that continues from a checkpoint goes the same way as one that was never stopped. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "models/data/dataset.h"
#include "models/train/augment.h"
#include "models/train/average.h"
#include "models/train/distribution.h"
#include "models/train/net.h"
#include "models/train/optimizer.h"
#include "models/train/teacher.h"

struct trainer_options {
  int epochs, batch;
  uint64_t seed;
  struct hwgq_preprocess preprocess;
  struct augmentation augmentation;
  struct optimizer_options optimizer;
  enum net_backward backward;
  enum net_initializer initializer;
  struct net_objective objective; /* distillation needs a teacher */
  struct average_options average;
};

struct trainer {
  struct trainer_options options;
  const struct dataset *train; /* borrowed */
  struct net *net;
  struct optimizer *optimizer;
  struct teacher *teacher; /* borrowed; NULL without, to be set before the first step */
  struct average *average; /* NULL without */
  int *order;              /* the images of this epoch, shuffled */
  int order_epoch;
  int *labels;     /* of a batch */
  float **scratch; /* [worker], one image each */
  int scratch_count;

  /* Where it stands. */
  int epoch; /* the current one, from 0 */
  int step;  /* steps made in it */
  double loss_sum;
  int64_t right;
  double seconds; /* spent training, in all runs together */
};

/* Both must outlive the trainer: the network (shapes inferred) and the images, which must have its input's shape. The weights
 * are initialized. */
enum hwgq_status trainer_create(const struct trainer_options *options, const struct hwgq_network *network,
                                const struct dataset *train, struct pool *pool, const struct blas *blas,
                                struct trainer **trainer, struct hwgq_error *error);
void trainer_destroy(struct trainer *trainer);

int trainer_steps_per_epoch(const struct trainer *trainer);
bool trainer_finished(const struct trainer *trainer);
/* The rate of the next step. */
double trainer_rate(const struct trainer *trainer);
/* One batch. After the last step of an epoch `epoch` goes up only with trainer_next_epoch. */
void trainer_step(struct trainer *trainer);
bool trainer_epoch_complete(const struct trainer *trainer);
void trainer_next_epoch(struct trainer *trainer);

/* Whether there is an average that can be evaluated and exported: from the first trainer_measure_average on. */
bool trainer_has_average(const struct trainer *trainer);
/* Measures the average's batch statistics, over training images augmented as in this epoch. Does nothing while there is no
 * average; what is in training does not change. */
void trainer_measure_average(struct trainer *trainer);
/* Puts the average into the net, where it can be evaluated and exported, or back. */
void trainer_swap_average(struct trainer *trainer);

struct trainer_score {
  double loss;     /* mean */
  double accuracy; /* 0 to 1 */
};
/* Of this epoch so far, in training mode. */
struct trainer_score trainer_train_score(const struct trainer *trainer);
/* Of other images, with the running statistics. */
struct trainer_score trainer_evaluate(struct trainer *trainer, const struct dataset *images);
/* Adds the activations of up to `most` of these images to a list of distribution_create, with the running statistics. */
void trainer_distributions(struct trainer *trainer, const struct dataset *images, int most, struct distribution *list);

#endif
