/* Population counts of packed pixels: CNT counts the bits of 16 bytes. */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/kernels.h"

#define SUMS_NAME sums_any
#define POPCOUNT(x) vaddv_u8(vcnt_u8(vcreate_u8(x)))
static void sums_any(const struct hwgq_sums_job *job);
#include "engine/kernels/sums_body.h"

/* Two planes, nothing between the words: what HWGQ networks have. Two words at a time; counts of plane 1 are shifted. */
static int32_t sum_two_planes(const uint32_t *pixel, const uint32_t *masks, int words) {
  const int8x16_t shifts = vreinterpretq_s8_u64(vdupq_n_u64(0x0101010100000000));
  uint32x4_t sums = vdupq_n_u32(0);
  int word = 0;
  for (; word + 2 <= words; word += 2) {
    const uint32x2_t mask = masks ? vld1_u32(masks + word) : vdup_n_u32(UINT32_MAX);
    const uint32x4_t bits =
        vandq_u32(vld1q_u32(pixel + 2 * word), vcombine_u32(vdup_lane_u32(mask, 0), vdup_lane_u32(mask, 1)));
    const uint8x16_t counts = vshlq_u8(vcntq_u8(vreinterpretq_u8_u32(bits)), shifts);
    sums = vpadalq_u16(sums, vpaddlq_u8(counts));
  }
  if (word < words) {
    const uint32x2_t bits = vand_u32(vld1_u32(pixel + 2 * word), vdup_n_u32(masks ? masks[word] : UINT32_MAX));
    const uint8x8_t counts = vshl_u8(vcnt_u8(vreinterpret_u8_u32(bits)), vget_low_s8(shifts));
    sums = vaddw_u16(sums, vpaddl_u8(counts));
  }
  return (int32_t)vaddvq_u32(sums);
}

void hwgq_sums_neon(const struct hwgq_sums_job *job) {
  if (job->planes != 2 || job->plane_step != 2) {
    sums_any(job);
    return;
  }
  for (size_t i = 0; i < job->pixels; i++)
    job->sums[i] = sum_two_planes(job->input + i * job->pixel_step, job->masks, job->words);
}
#endif
