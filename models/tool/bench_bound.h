/* How fast a kernel could be at best: the bound that a core's execution ports set on its inner loop.
 *
 * The model: a kernel's inner loop does a fixed number of vector instructions of each class for a fixed number of
 * weight-activation pairs (bench_bound.c has the table). A core executes so many of each class per cycle, and so many vector
 * instructions in all. The class that takes longest gives the bound, in multiply-accumulates per cycle. Left out is what is
 * shared by more pixels or channels the larger a tile is (loads of weights and activations, masks of weights) and everything
 * outside the inner loop (codes, lists, thresholds, packing, stores, memory): so 100 % cannot be reached. */
#ifndef BENCH_BOUND_H
#define BENCH_BOUND_H

#include <stdbool.h>
#include <stddef.h>

/* Classes of vector instructions; every one but a load counts as BOUND_ANY too. */
enum bound_class {
  BOUND_ANY,      /* all that the vector ports execute: logic and additions are nothing else */
  BOUND_POPCOUNT, /* VPOPCNTD */
  BOUND_SHUFFLE,  /* VPSHUFB */
  BOUND_PERMUTE,  /* VPERMB */
  BOUND_MULTIPLY, /* float FMA, VPDPWSSD, VPMADDWD */
  BOUND_LOAD,
  BOUND_CLASSES
};

struct bound_cpu {
  const char *name;
  double rate512[BOUND_CLASSES], rate256[BOUND_CLASSES]; /* instructions per cycle; 0: does not have them */
  size_t first_cache;                                    /* bytes of the first-level cache for data */
  double second_cache_rate;                              /* bytes per cycle from the second-level cache to the first */
};

/* The kind of CPU that this program runs on; NULL: unknown, there are no bounds. */
const struct bound_cpu *bound_cpu_detect(void);

/* Multiply-accumulates per cycle of a kernel, named as in struct hwgq_stage_info; 0: not known, or nothing to multiply. Of
 * bit-sliced kernels it depends on the data: `set_bits` is the mean number of bits that are set in the codes of an activation.
 * It is used for them alone, and must be known (above 0). */
double bound_of(const struct bound_cpu *cpu, const char *kernel, double set_bits);
/* The same for what second-level cache can deliver to a bit-sliced kernel, whose rows of weights pass by once per pixel; 0:
 * they fit the first level, or another kernel, which reads the weights that it needs for many pixels from there. Only rows in
 * order come so fast: of a list that leaves out every second one, Zen 5 was measured to read 32 to 42 bytes per cycle, not 64.
 */
double bound_cache_of(const struct bound_cpu *cpu, const char *kernel, double set_bits, size_t weight_bytes);
bool bound_is_sliced(const char *kernel);

#endif
