/* Weighted sums of tensors. */
#define ADD_NAME hwgq_add_scalar
#include "engine/kernels/add_body.h"
