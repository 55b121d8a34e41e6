/* Affine steps and rounding to float32, two doubles in a register, four lanes at a time. The multiplication and the addition
 * round separately, as in portable C (-ffp-contract=off holds for these intrinsics too). */
#if defined(__aarch64__)
#include <arm_neon.h>

#include "engine/kernels/kernels.h"

struct doubles {
  float64x2_t low, high;
};

static inline struct doubles widen(float32x4_t x) {
  return (struct doubles){vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)};
}
static inline float32x4_t narrow(struct doubles x) {
  return vcvt_high_f32_f64(vcvt_f32_f64(x.low), x.high);
}

static inline float32x4_t affine(const struct hwgq_affine_job *job, struct doubles x, int lane) {
  const double *factors = job->factors + lane;
  for (int s = 0; s < job->steps; s++, factors += 2 * HWGQ_LANES) {
    x.low = vaddq_f64(vmulq_f64(vld1q_f64(factors), x.low), vld1q_f64(factors + HWGQ_LANES));
    x.high = vaddq_f64(vmulq_f64(vld1q_f64(factors + 2), x.high), vld1q_f64(factors + HWGQ_LANES + 2));
    if (job->relu >> s & 1) { /* the maximum number: 0 for a NaN, as in portable C */
      x.low = vmaxnmq_f64(x.low, vdupq_n_f64(0));
      x.high = vmaxnmq_f64(x.high, vdupq_n_f64(0));
    }
    if (job->round >> s & 1) x = widen(narrow(x));
  }
  return narrow(x);
}

static inline float32x4_t add_residual(const struct hwgq_affine_job *job, float32x4_t y, float32x4_t residual) {
  if (job->scale == 1 && job->residual_scale == 1) { /* the same: rounding a sum in double once more changes nothing */
    y = vaddq_f32(y, residual);
    return job->residual_relu ? vmaxnmq_f32(y, vdupq_n_f32(0)) : y;
  }
  const struct doubles a = widen(y), b = widen(residual);
  const float64x2_t scale = vdupq_n_f64(job->scale), residual_scale = vdupq_n_f64(job->residual_scale);
  y = narrow((struct doubles){vaddq_f64(vmulq_f64(scale, a.low), vmulq_f64(residual_scale, b.low)),
                              vaddq_f64(vmulq_f64(scale, a.high), vmulq_f64(residual_scale, b.high))});
  return job->residual_relu ? vmaxnmq_f32(y, vdupq_n_f32(0)) : y;
}

/* 1 to 4 floats; others are neither read nor written. */
static inline float32x4_t load_floats(const float *from, int count) {
  if (count >= 4) return vld1q_f32(from);
  float copy[4] = {0};
  for (int i = 0; i < count; i++) copy[i] = from[i];
  return vld1q_f32(copy);
}
static inline struct doubles load_integers(const int32_t *from, int count) {
  int32_t copy[4] = {0};
  if (count < 4) {
    for (int i = 0; i < count; i++) copy[i] = from[i];
    from = copy;
  }
  const int32x4_t x = vld1q_s32(from);
  return (struct doubles){vcvtq_f64_s64(vmovl_s32(vget_low_s32(x))), vcvtq_f64_s64(vmovl_high_s32(x))};
}

static inline struct doubles load_doubles(const double *from, int count) {
  double copy[4] = {0};
  if (count < 4) {
    for (int i = 0; i < count; i++) copy[i] = from[i];
    from = copy;
  }
  return (struct doubles){vld1q_f64(from), vld1q_f64(from + 2)};
}

/* Lanes lane .. lane + 3 of pixel i, or as many as are left. */
static inline void finish(const struct hwgq_affine_job *job, struct doubles x, size_t i, int lane) {
  const int left = job->lanes - lane;
  float32x4_t y = affine(job, x, lane);
  if (job->residual) y = add_residual(job, y, load_floats(job->residual + i * job->residual_step + lane, left));
  float *output = job->output + i * job->output_step + lane;
  if (left >= 4) {
    vst1q_f32(output, y);
    return;
  }
  float copy[4];
  vst1q_f32(copy, y);
  for (int k = 0; k < left; k++) output[k] = copy[k];
}

void hwgq_affine_i32_neon(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy; /* stores to the output cannot change it */
  for (size_t i = 0; i < job->pixels; i++) {
    const int32_t *accumulators = (const int32_t *)job->accumulators + i * job->accumulator_step;
    for (int lane = 0; lane < job->lanes; lane += 4)
      finish(job, load_integers(accumulators + lane, job->lanes - lane), i, lane);
  }
}

void hwgq_affine_f32_neon(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy;
  for (size_t i = 0; i < job->pixels; i++) {
    const float *accumulators = (const float *)job->accumulators + i * job->accumulator_step;
    for (int lane = 0; lane < job->lanes; lane += 4) {
      finish(job, widen(load_floats(accumulators + lane, job->lanes - lane)), i, lane);
    }
  }
}

void hwgq_affine_f64_neon(const struct hwgq_affine_job *given) {
  const struct hwgq_affine_job copy = *given, *job = &copy;
  for (size_t i = 0; i < job->pixels; i++) {
    const double *accumulators = (const double *)job->accumulators + i * job->accumulator_step;
    for (int lane = 0; lane < job->lanes; lane += 4) finish(job, load_doubles(accumulators + lane, job->lanes - lane), i, lane);
  }
}
#endif
