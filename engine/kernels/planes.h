/* From threshold masks to planes, shared by the pack kernels. */
#ifndef HWGQ_PLANES_H
#define HWGQ_PLANES_H

#include "engine/kernels/kernels.h"

/* masks[j]: lanes whose level is above j. Digit p of a level is the parity of floor(level / 2^p), the number of multiples of
 * 2^p up to the level: the exclusive or of the masks of those multiples. */
static inline void hwgq_write_planes(const struct hwgq_pack_job *job, const uint32_t *masks, uint32_t *output) {
  if (job->thermometer) {
    for (int j = 0; j < job->levels; j++) output[j] = masks[j];
    return;
  }
  for (int p = 0; p < job->planes; p++) {
    uint32_t bits = 0;
    for (int multiple = 1 << p; multiple <= job->levels; multiple += 1 << p) bits ^= masks[multiple - 1];
    output[p] = bits;
  }
}

enum { HWGQ_PACK_MAX_LEVELS = 15 };

#endif
