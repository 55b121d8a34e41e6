/* Float convolution. Sixteen accumulators either way, as many as the FMA's latency needs, and room for weights. */
#if defined(__aarch64__)
#include <arm_neon.h>

#define NAME hwgq_fconv_direct_neon
#define VECTOR float32x4_t
enum { WIDTH = 4, TILE_OF_16 = 4, TILE_OF_32 = 2 };
#define ZERO vdupq_n_f32(0)
#define LOAD(p) vld1q_f32(p)
#define STORE(p, v) vst1q_f32(p, v)
#define BROADCAST(p) vld1q_dup_f32(p)
#define MULTIPLY_ADD(sum, a, b) vfmaq_f32(sum, a, b)
#include "engine/kernels/fconv_direct_body.h"
#endif
