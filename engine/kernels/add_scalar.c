/* Weighted sums of tensors and of accumulators. */
#define ADD_NAME hwgq_add_scalar
#define ACCUMULATE_NAME hwgq_accumulate_scalar
#include "engine/kernels/add_body.h"
