/* Larger levels of packed pixels. */
#define MAX_NAME hwgq_max_scalar
#include "engine/kernels/max_body.h"
