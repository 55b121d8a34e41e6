/* Helpers that several test programs share. They abort the program when something that must work does not, so that callers
 * need no error handling of their own. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "engine/hwgq.h"

/* ---- random numbers: splitmix64, the same sequence everywhere for a seed ------------------------------------------------ */

struct support_random {
  uint64_t state;
};

uint64_t support_random_next(struct support_random *random);
/* Uniform over low .. high, both included. */
int support_random_int(struct support_random *random, int low, int high);
bool support_random_chance(struct support_random *random, double probability);
double support_random_uniform(struct support_random *random); /* [0, 1) */
double support_random_normal(struct support_random *random);  /* about N(0,1), within +-6 */

/* How many of `rounds` random rounds to do: a quarter when the environment has HWGQ_QUICK, as in an emulator. At least 1. */
int support_rounds(int rounds);

/* ---- networks ----------------------------------------------------------------------------------------------------------- */

/* Appends a layer with one input and returns it. */
struct hwgq_layer *support_add(struct hwgq_network *network, const char *name, enum hwgq_op op, const char *input);
/* A network that looks like HWGQ networks do: convolutions with batch norm and quantizers of every kind, residual and
 * inception blocks, odd channel counts, strides, pads and groups, a classifier and a softmax. Inferred, with random
 * parameters, and its batch norms calibrated so that every level occurs. Small: it runs in well under a millisecond. */
struct hwgq_network *support_random_network(struct support_random *random);
/* Random parameters for an inferred network. Some binary weights rows and scales are degenerate on purpose: gammas may be
 * negative or 0. */
void support_fill_parameters(struct hwgq_network *network, struct support_random *random);
/* Sets mean and variance of every batch norm to about those of its input over the channel's pixels, for one random image. */
void support_calibrate(struct hwgq_network *network, struct support_random *random);
/* CHW values as preprocessing would make them: whole pixels, centered, scaled. malloc'ed. */
float *support_random_input(struct hwgq_shape shape, struct support_random *random);
/* A model around a random network whose input is an image (1 or 3 channels). */
struct hwgq_model *support_random_model(struct support_random *random);

/* ---- files -------------------------------------------------------------------------------------------------------------- */

/* A new empty directory, and its removal with the files in it. */
char *support_make_directory(void);
void support_remove_directory(char *directory);
/* "directory/name", malloc'ed. */
char *support_path(const char *directory, const char *name);
void support_write_file(const char *path, const void *bytes, size_t length);
/* Whole content, malloc'ed and followed by a 0 byte. NULL when it cannot be read. */
uint8_t *support_read_file(const char *path, size_t *length);
/* Peak resident memory of this process (every test has its own), KiB. */
long support_peak_kib(void);

#endif
