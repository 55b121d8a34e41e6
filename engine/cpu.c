/* Which kernel sets this CPU can run. __builtin_cpu_supports asks CPUID and, for registers that the operating system must save,
 * XCR0. */
#include <string.h>

#include "engine/hwgq.h"
#include "engine/kernels/kernels.h"

bool hwgq_kernels_supported(const struct hwgq_kernels *kernels) {
  if (strcmp(kernels->name, "scalar") == 0) return true;
#if defined(__x86_64__)
  if (strcmp(kernels->name, "avx2") == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
  }
  if (strcmp(kernels->name, "avx512") == 0) {
    return hwgq_kernels_supported(hwgq_kernels_find("avx2")) && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vpopcntdq");
  }
#endif
  return false;
}

const char *hwgq_cpu_best(void) {
  const char *best = "scalar";
  for (int i = 0; hwgq_kernels_get(i); i++) {
    if (hwgq_kernels_supported(hwgq_kernels_get(i))) best = hwgq_kernels_get(i)->name;
  }
  return best;
}

bool hwgq_cpu_supports(const char *cpu) {
  const struct hwgq_kernels *kernels = hwgq_kernels_find(cpu);
  return kernels && hwgq_kernels_supported(kernels);
}
