/* Weighted sums of tensors and of accumulators. */
#if defined(__x86_64__)
#define ADD_NAME hwgq_add_avx2
#define ACCUMULATE_NAME hwgq_accumulate_avx2
#include "engine/kernels/add_body.h"
#endif
