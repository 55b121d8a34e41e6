/* Averages over windows of float pixels. */
#if defined(__aarch64__)
#define AVERAGE_NAME hwgq_average_neon
#include "engine/kernels/average_body.h"
#endif
