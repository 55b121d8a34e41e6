/* Population counts of packed pixels. */
#if defined(__x86_64__)
#include "engine/kernels/kernels.h"

#define SUMS_NAME hwgq_sums_avx2
#define POPCOUNT(x) __builtin_popcount(x)
#include "engine/kernels/sums_body.h"
#endif
