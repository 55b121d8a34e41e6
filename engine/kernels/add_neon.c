/* Weighted sums of tensors and of accumulators. */
#if defined(__aarch64__)
#define ADD_NAME hwgq_add_neon
#define ACCUMULATE_NAME hwgq_accumulate_neon
#include "engine/kernels/add_body.h"
#endif
