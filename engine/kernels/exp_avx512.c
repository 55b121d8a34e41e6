/* Exponentials for softmax. */
#if defined(__x86_64__)
#define EXP_NAME hwgq_exp_avx512
#include "engine/kernels/exp_body.h"
#endif
