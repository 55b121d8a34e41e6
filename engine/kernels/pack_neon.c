/* Thresholds and packing for NEON: the comparisons of 32 lanes are narrowed to bytes, of which each keeps the bit that its lane
 * has in a byte of the mask; three pairwise additions collect them. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#include "engine/kernels/planes.h"

enum { REGISTERS = HWGQ_LANES / 4 };

/* The registers of a pixel's lanes; lanes that are not valid may not be readable. */
static inline void load_lanes(const void *accumulators, uint32_t valid, uint32x4_t lanes[REGISTERS]) {
  uint32_t copy[HWGQ_LANES];
  if (valid != UINT32_MAX) {
    for (uint32_t i = 0; i < HWGQ_LANES; i++) {
      copy[i] = 0;
      if (valid >> i & 1) memcpy(&copy[i], (const char *)accumulators + 4 * i, sizeof copy[i]);
    }
    accumulators = copy;
  }
  for (int v = 0; v < REGISTERS; v++) lanes[v] = vld1q_u32((const uint32_t *)accumulators + 4 * v);
}

/* Lanes are all ones or all zeros; bit i of the mask is lane i. */
static inline uint32_t mask_of(const uint32x4_t lanes[REGISTERS]) {
  const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201));
  uint8x16_t bytes[2];
  for (int half = 0; half < 2; half++) {
    const uint32x4_t *from = lanes + 4 * half;
    const uint16x8_t low = vuzp1q_u16(vreinterpretq_u16_u32(from[0]), vreinterpretq_u16_u32(from[1]));
    const uint16x8_t high = vuzp1q_u16(vreinterpretq_u16_u32(from[2]), vreinterpretq_u16_u32(from[3]));
    bytes[half] = vandq_u8(vuzp1q_u8(vreinterpretq_u8_u16(low), vreinterpretq_u8_u16(high)), bit);
  }
  uint8x16_t sum = vpaddq_u8(bytes[0], bytes[1]);
  sum = vpaddq_u8(sum, sum);
  sum = vpaddq_u8(sum, sum);
  return vgetq_lane_u32(vreinterpretq_u32_u8(sum), 0);
}

/* Lanes of four bytes: REACHED(lanes, thresholds) compares four of them. */
#define PACK(name, type, REACHED)                                                                                              \
  void name(const struct hwgq_pack_job *job) {                                                                                 \
    const type *accumulators = job->accumulators;                                                                              \
    uint32_t *output = job->output;                                                                                            \
    for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {              \
      uint32_t masks[HWGQ_PACK_MAX_LEVELS];                                                                                    \
      uint32x4_t lanes[REGISTERS], reached[REGISTERS];                                                                         \
      load_lanes(accumulators, job->valid, lanes);                                                                             \
      for (int j = 0; j < job->levels; j++) {                                                                                  \
        const type *thresholds = (const type *)job->thresholds + (size_t)j * HWGQ_LANES;                                       \
        for (int v = 0; v < REGISTERS; v++) reached[v] = REACHED(lanes[v], thresholds + 4 * v);                                \
        masks[j] = (mask_of(reached) ^ job->negate) & job->valid;                                                              \
      }                                                                                                                        \
      hwgq_write_planes(job, masks, output);                                                                                   \
    }                                                                                                                          \
  }
#define REACHED_I32(lanes, thresholds) vcgeq_s32(vreinterpretq_s32_u32(lanes), vld1q_s32(thresholds))
#define REACHED_F32(lanes, thresholds) vcgeq_f32(vreinterpretq_f32_u32(lanes), vld1q_f32(thresholds))

PACK(hwgq_pack_i32_neon, int32_t, REACHED_I32)
PACK(hwgq_pack_f32_neon, float, REACHED_F32)

void hwgq_pack_f64_neon(const struct hwgq_pack_job *job) {
  const double *accumulators = job->accumulators;
  uint32_t *output = job->output;
  for (size_t i = 0; i < job->pixels; i++, accumulators += job->accumulator_step, output += job->output_step) {
    uint32_t masks[HWGQ_PACK_MAX_LEVELS];
    double copy[HWGQ_LANES] = {0};
    if (job->valid != UINT32_MAX) memcpy(copy, accumulators, (size_t)__builtin_popcount(job->valid) * sizeof *copy);
    const double *lanes = job->valid == UINT32_MAX ? accumulators : copy;
    for (int j = 0; j < job->levels; j++) {
      const double *thresholds = (const double *)job->thresholds + (size_t)j * HWGQ_LANES;
      uint32x4_t reached[REGISTERS];
      for (int v = 0; v < REGISTERS; v++) {
        const uint64x2_t low = vcgeq_f64(vld1q_f64(lanes + 4 * v), vld1q_f64(thresholds + 4 * v));
        const uint64x2_t high = vcgeq_f64(vld1q_f64(lanes + 4 * v + 2), vld1q_f64(thresholds + 4 * v + 2));
        reached[v] = vuzp1q_u32(vreinterpretq_u32_u64(low), vreinterpretq_u32_u64(high));
      }
      masks[j] = (mask_of(reached) ^ job->negate) & job->valid;
    }
    hwgq_write_planes(job, masks, output);
  }
}
#endif
