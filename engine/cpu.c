/* Which kernel sets this CPU can run. __builtin_cpu_supports asks CPUID and, for registers that the operating system must save,
 * XCR0. */
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

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

bool hwgq_form_supported(const struct hwgq_bconv_form *form) {
#if defined(__x86_64__)
  if (form->code == 6) return __builtin_cpu_supports("avx512vbmi");
#endif
  return form->name != NULL;
}

/* AMD families from 1Ah (Zen 5) on execute twice as many 512-bit instructions per cycle as Zen 4, but not more table loads:
 * there, population counts win (262-285 multiply-accumulates per cycle against 180-215, 3x3 convolutions of 128 to 512
 * channels). For Zen 4 and Intel's cores the choice rests on stand-alone measurements of such loops, about 150-165 against
 * 230-275; these kernels have not been timed there yet: tests/bench/bench_kernels.c does. */
bool hwgq_form_preferred(const struct hwgq_bconv_form *form) {
#if defined(__x86_64__)
  if (form->span == 1) return true; /* not AVX-512 look-up */
  unsigned eax, ebx, ecx, edx;
  if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return true;
  const unsigned family = (eax >> 8 & 15) + (eax >> 20 & 255);
  return family < 0x1a;
#else
  (void)form;
  return true;
#endif
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
