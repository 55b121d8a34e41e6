#include "models/tool/bench_bound.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* ---- cores --------------------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Zen 5: measured with loops of independent instructions on a server; mobile cores of the family with 256-bit data paths are
 * not told apart. The others: published instruction tables, not measured by this project. Zen 4 splits 512-bit instructions in
 * two. Intel: servers from Ice Lake on, ports 0 and 5 for 512 bits (0, 1 and 5 for 256), of which 5 alone shuffles 512 bits and
 * counts; its mobile cores multiply 512-bit floats at half of this rate. */
static const struct bound_cpu cpus[] = {
    {"AMD Zen 5", {4, 2, 2, 2, 2, 2}, {4, 2, 2, 2, 2, 2}, 48 << 10, 64},
    {"AMD Zen 4", {2, 1, 1, 1, 1, 1}, {4, 2, 2, 2, 2, 2}, 32 << 10, 32},
    {"AMD Zen 3", {0, 0, 0, 0, 0, 0}, {4, 0, 2, 0, 2, 2}, 32 << 10, 32},
    {"Intel with two 512-bit ports", {2, 1, 1, 1, 2, 2}, {3, 1, 2, 1, 2, 2}, 48 << 10, 64},
};

const struct bound_cpu *bound_cpu_detect(void) {
  enum { ZEN5, ZEN4, ZEN3, INTEL };
  unsigned eax, ebx, ecx, edx;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return NULL;
  const unsigned family = (eax >> 8 & 15) + (eax >> 20 & 255);
  if (__builtin_cpu_is("amd")) {
    if (family >= 0x1a) return &cpus[ZEN5];
    if (family == 0x19) return &cpus[__builtin_cpu_supports("avx512f") ? ZEN4 : ZEN3];
  }
  if (__builtin_cpu_is("intel") && __builtin_cpu_supports("avx512vpopcntdq")) return &cpus[INTEL];
  return NULL;
}
#else
const struct bound_cpu *bound_cpu_detect(void) {
  return NULL;
}
#endif

/* ---- kernels ------------------------------------------------------------------------------------------------------------- */

/* What an inner loop does for `pairs` pairs of a weight and an activation; once per plane of the activations where `per_plane`
 * says so, and per set bit of an activation where `sliced` does. */
struct loop {
  const char *method, *isa; /* the last two words of a kernel's name */
  int width, pairs;
  bool per_plane, sliced;
  double count[BOUND_CLASSES];
};

/* Widening the bytes of a look-up is three operations for 14 codes of six activations, or 16 of four. A row of a bit-sliced
 * kernel is one full adder: two VPTERNLOG, or five logical operations. */
static const struct loop loops[] = {
    {"popcount", "avx512", 512, 512, true, false, {3, 1, 0, 0, 0, 0}},            /* and, count, add */
    {"popcount", "avx2", 256, 256, true, false, {8, 0, 2, 0, 0, 0}},              /* and; two nibbles looked up, added */
    {"lookup6", "avx512", 512, 384, false, false, {2 + 3.0 / 14, 0, 0, 1, 0, 1}}, /* load a table, permute, add */
    {"lookup4", "avx512", 512, 256, false, false, {2 + 3.0 / 16, 0, 1, 0, 0, 1}}, /* the same with shuffle */
    {"lookup4", "avx2", 256, 128, false, false, {2 + 3.0 / 16, 0, 1, 0, 0, 1}},   /* the same */
    {"sliced", "avx512", 512, 512, false, true, {2, 0, 0, 0, 0, 1}},              /* load a row, full adder */
    {"sliced", "avx2", 256, 256, false, true, {5, 0, 0, 0, 0, 1}},                /* the same */
    {"direct", "avx512", 512, 16, false, false, {1, 0, 0, 0, 1, 0}},              /* fused multiply-add */
    {"direct", "avx2", 256, 8, false, false, {1, 0, 0, 0, 1, 0}},                 /* the same */
    {"f32", "avx512", 512, 16, false, false, {1, 0, 0, 0, 1, 1}},                 /* load weights, multiply-add */
    {"f32", "avx2", 256, 8, false, false, {1, 0, 0, 0, 1, 1}},                    /* the same */
    {"dot", "avx512vnni", 512, 32, false, false, {1, 0, 0, 0, 1, 0}},             /* VPDPWSSD */
    {"dot", "avxvnni", 256, 16, false, false, {1, 0, 0, 0, 1, 0}},                /* the same */
    {"bytes", "avx512vnni", 512, 64, false, false, {1, 0, 0, 0, 1, 0}},           /* VPDPBUSD */
    {"bytes", "avxvnni", 256, 32, false, false, {1, 0, 0, 0, 1, 0}},              /* the same */
    {"madd", "avx512", 512, 32, false, false, {2, 0, 0, 0, 1, 0}},                /* VPMADDWD, add */
    {"madd", "avx2", 256, 16, false, false, {2, 0, 0, 0, 1, 0}},                  /* the same */
};

/* "bconv_u2_popcount_avx512" -> "u2", "popcount", "avx512"; "linear_f32_avx2" -> "", "f32", "avx2". */
struct words {
  char levels[16], method[16], isa[16];
};

static bool split(const char *kernel, struct words *words) {
  char what[16];
  words->levels[0] = '\0';
  if (sscanf(kernel, "%15[^_]_%15[^_]_%15[^_]_%15[^_]", what, words->levels, words->method, words->isa) == 4) return true;
  words->levels[0] = '\0';
  return sscanf(kernel, "%15[^_]_%15[^_]_%15[^_]", what, words->method, words->isa) == 3;
}

static const struct loop *find_loop(const char *kernel, struct words *words) {
  if (!split(kernel, words)) return NULL;
  for (size_t i = 0; i < sizeof loops / sizeof *loops; i++) {
    if (strcmp(loops[i].method, words->method) == 0 && strcmp(loops[i].isa, words->isa) == 0) return &loops[i];
  }
  return NULL;
}

/* 0: levels that are not binary digits. */
static int planes_of(const char *levels) {
  if (strcmp(levels, "sign") == 0) return 1;
  return levels[0] == 'u' && levels[1] >= '1' && levels[1] <= '4' && !levels[2] ? levels[1] - '0' : 0;
}

double bound_of(const struct bound_cpu *cpu, const char *kernel, double set_bits) {
  struct words words;
  const struct loop *loop = find_loop(kernel, &words);
  if (!cpu || !loop) return 0;
  const double times = loop->per_plane ? planes_of(words.levels) : loop->sliced ? set_bits : 1;
  double cycles = 0;
  for (int i = 0; i < BOUND_CLASSES; i++) {
    const double rate = loop->width == 512 ? cpu->rate512[i] : cpu->rate256[i];
    if (!(loop->count[i] > 0)) continue;
    if (!(rate > 0)) return 0;
    if (loop->count[i] / rate > cycles) cycles = loop->count[i] / rate;
  }
  return times > 0 ? loop->pairs / (cycles * times) : 0;
}

double bound_cache_of(const struct bound_cpu *cpu, const char *kernel, double set_bits, size_t weight_bytes) {
  struct words words;
  const struct loop *loop = find_loop(kernel, &words);
  if (!cpu || !loop || !loop->sliced || !(set_bits > 0) || weight_bytes <= cpu->first_cache) return 0;
  return loop->pairs * cpu->second_cache_rate / (loop->width / 8 * set_bits);
}

bool bound_is_sliced(const char *kernel) {
  struct words words;
  const struct loop *loop = find_loop(kernel, &words);
  return loop && loop->sliced;
}
