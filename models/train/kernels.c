#define KERNELS_TABLE train_kernels_baseline
#define KERNELS_NAME "baseline"
#include "models/train/kernels_body.h"

const struct train_kernels *train_kernels(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq"))
    return &train_kernels_avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    return &train_kernels_avx2;
#endif
  return &train_kernels_baseline;
}
