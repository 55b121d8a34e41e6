/* Larger levels of packed pixels. */
#if defined(__aarch64__)
#define MAX_NAME hwgq_max_neon
#include "engine/kernels/max_body.h"
#endif
