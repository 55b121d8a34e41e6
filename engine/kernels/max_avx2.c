/* Larger levels of packed pixels. */
#if defined(__x86_64__)
#define MAX_NAME hwgq_max_avx2
#include "engine/kernels/max_body.h"
#endif
