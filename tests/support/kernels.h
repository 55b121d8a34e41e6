/* What test programs of the kernels share. Functions, with the assertions of Check, in a header: the support library must not
 * need Check. */
#ifndef SUPPORT_KERNELS_H
#define SUPPORT_KERNELS_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "tests/support/support.h"

enum { LANES = HWGQ_LANES, SETS = 3 };

/* NULL when this CPU lacks it. */
static inline const struct hwgq_kernels *set_at(int index) {
  const struct hwgq_kernels *kernels = hwgq_kernels_get(index);
  return kernels && hwgq_kernels_supported(kernels) ? kernels : NULL;
}

static inline void *reserve(size_t count) {
  void *memory = calloc(count + 1, 8);
  ck_assert_ptr_nonnull(memory);
  return memory;
}

static inline void fill_bits(struct support_random *random, uint32_t *words, size_t count) {
  for (size_t i = 0; i < count; i++) words[i] = (uint32_t)support_random_next(random);
}

static inline void fill_floats(struct support_random *random, float *values, size_t count) {
  for (size_t i = 0; i < count; i++) values[i] = (float)support_random_normal(random);
}

#endif
