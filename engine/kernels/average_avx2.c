/* Averages over windows of float pixels. */
#if defined(__x86_64__)
#define AVERAGE_NAME hwgq_average_avx2
#include "engine/kernels/average_body.h"
#endif
