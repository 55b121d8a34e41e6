/* Exponentials for softmax. */
#define EXP_NAME hwgq_exp_scalar
#include "engine/kernels/exp_body.h"
