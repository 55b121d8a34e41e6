/* Random numbers for the trainer: xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators"), seeded
 * by splitmix64. Not for secrets. */
#ifndef TRAIN_RNG_H
#define TRAIN_RNG_H

#include <stdint.h>

struct rng {
  uint64_t state[4];
};

/* A generator for a seed and up to two numbers that tell streams apart (an epoch, an image): the same three give the same
 * numbers, so that nothing but counters has to be kept to continue a run. */
struct rng rng_make(uint64_t seed, uint64_t stream, uint64_t substream);
uint64_t rng_next(struct rng *rng);
/* Uniform in [0, 1), 24 bits. */
float rng_uniform(struct rng *rng);
/* Gaussian with mean 0 and variance 1. */
float rng_normal(struct rng *rng);
/* Uniform in [0, bound), bound > 0, without bias. */
uint32_t rng_below(struct rng *rng, uint32_t bound);
/* A random permutation of 0 to count - 1. */
void rng_permutation(struct rng *rng, int *order, int count);

#endif
