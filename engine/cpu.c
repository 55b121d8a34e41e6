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
#elif defined(__aarch64__)
  if (strcmp(kernels->name, "neon") == 0) return true; /* part of the architecture */
#endif
  return false;
}

bool hwgq_form_supported(const struct hwgq_bconv_form *form) {
#if defined(__x86_64__)
  if (form->code == 6) return __builtin_cpu_supports("avx512vbmi");
#endif
  return form->name != NULL;
}

bool hwgq_iconv_supported(const struct hwgq_iconv_form *form) {
#if defined(__x86_64__)
  unsigned eax, ebx, ecx, edx;
  if (form->iconv == hwgq_iconv_dot_avx512vnni || form->iconv == hwgq_iconv_bytes_avx512vnni)
    return __builtin_cpu_supports("avx512vnni");
  if (form->iconv == hwgq_iconv_dot_avxvnni || form->iconv == hwgq_iconv_bytes_avxvnni)
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
#endif
  return form->name != NULL;
}

#if defined(__x86_64__)
/* AMD families from 1Ah on: four 512-bit operations per cycle. */
static bool is_zen5(void) {
  unsigned eax, ebx, ecx, edx;
  if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return false;
  return (eax >> 8 & 15) + (eax >> 20 & 255) >= 0x1a;
}
#endif

/* Zen 5 executes twice as many 512-bit instructions per cycle as Zen 4, but not more table loads: there, population counts win
 * (262-285 multiply-accumulates per cycle against 180-215, 3x3 convolutions of 128 to 512 channels). For Zen 4 and Intel's
 * cores the choice rests on stand-alone measurements of such loops, about 150-165 against 230-275; these kernels have not been
 * timed there yet: tests/bench/bench_kernels.c does. */
bool hwgq_form_preferred(const struct hwgq_bconv_form *form, int planes) {
#if defined(__x86_64__)
  (void)planes;
  return form->span == 1 /* not AVX-512 look-up */ || !is_zen5();
#else
  /* NEON's instructions per multiply-accumulate of one plane: 1/32 by look-up, 1/43 by AND and CNT; of two: 1/32, 1/21. */
  return form->code == 0 || planes > 1;
#endif
}

bool hwgq_sliced_supported(const struct hwgq_kernels *kernels) {
#if defined(__x86_64__)
  if (kernels->sliced.lanes == 512) return __builtin_cpu_supports("avx512vbmi2");
#endif
  return kernels->sliced.lanes > 0;
}

/* 3x3 convolutions of as many channels in as out, multiply-accumulates per cycle of a core of Zen 5, best form / bit-sliced
 * with 512, 256 and 128 out channels (all lanes in use, 3/4, 9/16): AVX-512 285 / 400, 285 / 300, 265 / 190, and 10 % less
 * where the sums are wanted; AVX2 (256 lanes) 130 / 190 with all lanes in use, 125 / 125 with 3/4. For Zen 4 and Intel's cores
 * stand-alone measurements of such loops say 400-500 against 230-275 of the best form. NEON has not been timed: it needs three
 * operations for 128 lanes of a set bit, 1/72 per multiply-accumulate with all lanes in use, against 1/29 by look-up. */
double hwgq_sliced_share(const struct hwgq_kernels *kernels, bool floats) {
#if defined(__x86_64__)
  if (kernels->sliced.lanes == 512) return !is_zen5() ? 0.6 : floats ? 0.9 : 0.7;
  if (kernels->sliced.lanes == 256) return 0.9;
#endif
  (void)kernels;
  (void)floats;
  return 0.5;
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
