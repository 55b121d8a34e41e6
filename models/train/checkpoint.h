/* A training run on disk, as a safetensors file. Tensors: every parameter ("LAYER.weight", in the trainer's own layout) with
 * the optimizer's state beside it ("LAYER.weight.first", ".second"), and the running statistics ("LAYER.mean", ".variance").
 * Metadata: "format", "network" (JSON description), "state" (JSON: where the run stands, its batch size and number of images)
 * and "recipe" (JSON of the caller's choice, kept as it is). */
#ifndef TRAIN_CHECKPOINT_H
#define TRAIN_CHECKPOINT_H

#include "models/train/trainer.h"

/* Replaces `path` only when everything is written. */
enum hwgq_status checkpoint_write(const struct trainer *trainer, const char *recipe, const char *path,
                                  struct hwgq_error *error);

struct checkpoint;
enum hwgq_status checkpoint_read(const char *path, struct checkpoint **checkpoint, struct hwgq_error *error);
/* Whether a file begins as a checkpoint does, though it may be damaged or cut short. */
bool checkpoint_recognize(const char *path);
void checkpoint_destroy(struct checkpoint *checkpoint);
const char *checkpoint_recipe(const struct checkpoint *checkpoint);
/* The network it belongs to, without trained parameters; to be destroyed by the caller. */
enum hwgq_status checkpoint_network(const struct checkpoint *checkpoint, struct hwgq_network **network,
                                    struct hwgq_error *error);
/* Puts a trainer of the same network where the checkpoint was written. Options may differ; with the same ones the run goes on
 * exactly as if it had not been stopped. To train on, see checkpoint_check_epoch first. */
enum hwgq_status checkpoint_restore(const struct checkpoint *checkpoint, struct trainer *trainer, struct hwgq_error *error);
/* Gives a net the weights and running statistics of a checkpoint to begin with, by the names of layers and under the rules of
 * net_import; averaged ones if the checkpoint has them. */
enum hwgq_status checkpoint_initialize(const struct checkpoint *checkpoint, struct net *net, int *taken,
                                       struct hwgq_error *error);
/* A position within an epoch counts batches of images in an order of its own, so there the number of images and the batch size
 * (trainer->options.batch, which few images lower) must be the checkpoint's, as far as it states them: HWGQ_ERROR_INVALID.
 * Between epochs they may change. */
enum hwgq_status checkpoint_check_epoch(const struct checkpoint *checkpoint, const struct trainer *trainer,
                                        struct hwgq_error *error);

#endif
