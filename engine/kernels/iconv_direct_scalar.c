/* Convolutions of pixels in portable C. Sums are unsigned: they may wrap on the way. */
#include "engine/kernels/iconv.h"
#include "engine/kernels/kernels.h"

static void pixel(const struct hwgq_iconv_job *job, const uint8_t *input, uint32_t sums[HWGQ_LANES]) {
  const int16_t *weights = (const int16_t *)(const void *)job->weights;
  const size_t lanes = (size_t)job->lanes;
  for (int i = 0; i < job->words; i++, weights += 2 * lanes) {
    const int16_t *pair = (const int16_t *)(const void *)(input + job->offsets[i]);
    const int32_t a = pair[0], b = pair[1];
    for (size_t lane = 0; lane < lanes; lane++) sums[lane] += (uint32_t)(weights[2 * lane] * a + weights[2 * lane + 1] * b);
  }
}

void hwgq_iconv_direct_scalar(const struct hwgq_iconv_job *job) {
  for (size_t x = 0; x < (size_t)job->columns; x++) {
    uint32_t sums[HWGQ_LANES] = {0};
    const int32_t *base = job->base ? job->base + job->base_index[x] * job->base_step : NULL;
    const int32_t *add = job->add ? job->add + x * HWGQ_LANES : NULL;
    for (int lane = 0; lane < job->lanes; lane++) {
      sums[lane] = (base ? (uint32_t)base[lane] : 0) + (add ? (uint32_t)add[lane] : 0);
    }
    pixel(job, job->input + x * job->column_step, sums);
    for (int lane = 0; lane < job->lanes; lane++) job->accumulators[x * HWGQ_LANES + (size_t)lane] = (int32_t)sums[lane];
  }
}

void hwgq_iconv_widen_direct_scalar(const uint8_t *pixels, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = pixels[i];
}

void hwgq_iconv_subtract_direct_scalar(const int16_t *a, const int16_t *b, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = (int16_t)(a[i] - b[i]);
}
