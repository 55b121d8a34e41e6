#include "models/train/rng.h"

#include <math.h>

static uint64_t splitmix(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static uint64_t rotate_left(uint64_t x, int bits) {
  return x << bits | x >> (64 - bits);
}

struct rng rng_make(uint64_t seed, uint64_t stream, uint64_t substream) {
  uint64_t state = seed;
  state = splitmix(&state) ^ stream;
  state = splitmix(&state) ^ substream;
  struct rng rng;
  for (int i = 0; i < 4; i++) rng.state[i] = splitmix(&state);
  return rng;
}

uint64_t rng_next(struct rng *rng) {
  uint64_t *s = rng->state;
  uint64_t result = rotate_left(s[1] * 5, 7) * 9;
  uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = rotate_left(s[3], 45);
  return result;
}

float rng_uniform(struct rng *rng) {
  return (float)(rng_next(rng) >> 40) * 0x1p-24f;
}

float rng_normal(struct rng *rng) {
  /* Box and Muller; 1 - u lies in (0, 1]. */
  double radius = sqrt(-2 * log(1 - (double)rng_uniform(rng)));
  return (float)(radius * cos(6.283185307179586 * (double)rng_uniform(rng)));
}

uint32_t rng_below(struct rng *rng, uint32_t bound) {
  /* Values below 2^32 mod bound would make small results more likely: draw again. */
  uint32_t reject = -bound % bound;
  for (;;) {
    uint64_t product = (rng_next(rng) >> 32) * bound;
    if ((uint32_t)product >= reject) return (uint32_t)(product >> 32);
  }
}

void rng_permutation(struct rng *rng, int *order, int count) {
  for (int i = 0; i < count; i++) {
    int j = (int)rng_below(rng, (uint32_t)i + 1);
    order[i] = order[j];
    order[j] = i;
  }
}
