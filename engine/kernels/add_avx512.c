/* Weighted sums of tensors and of accumulators. */
#if defined(__x86_64__)
#define ADD_NAME hwgq_add_avx512
#define ACCUMULATE_NAME hwgq_accumulate_avx512
#include "engine/kernels/add_body.h"
#endif
