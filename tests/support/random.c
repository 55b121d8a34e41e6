/* Seeded random numbers. */
#include <stdlib.h>

#include "tests/support/support.h"

uint64_t support_random_next(struct support_random *random) {
  uint64_t z = random->state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

int support_random_int(struct support_random *random, int low, int high) {
  uint64_t range = (uint64_t)((int64_t)high - low) + 1;
  return (int)((int64_t)low + (int64_t)(support_random_next(random) % range));
}

double support_random_uniform(struct support_random *random) {
  return (double)(support_random_next(random) >> 11) * 0x1p-53;
}

bool support_random_chance(struct support_random *random, double probability) {
  return support_random_uniform(random) < probability;
}

double support_random_normal(struct support_random *random) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += support_random_uniform(random);
  return sum;
}

int support_rounds(int rounds) {
  return getenv("HWGQ_QUICK") ? (rounds + 3) / 4 : rounds;
}
