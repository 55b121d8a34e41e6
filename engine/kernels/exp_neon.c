/* Exponentials for softmax. */
#if defined(__aarch64__)
#define EXP_NAME hwgq_exp_neon
#include "engine/kernels/exp_body.h"
#endif
