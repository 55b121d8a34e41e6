/* Max pooling of accumulators. */
#if defined(__aarch64__)
#include "engine/kernels/kernels.h"

#define POOL_NAME hwgq_pool_i32_neon
#define POOL_TYPE int32_t
#include "engine/kernels/pool_body.h"
#undef POOL_NAME
#undef POOL_TYPE
#define POOL_NAME hwgq_pool_f32_neon
#define POOL_TYPE float
#include "engine/kernels/pool_body.h"
#undef POOL_NAME
#undef POOL_TYPE
#define POOL_NAME hwgq_pool_f64_neon
#define POOL_TYPE double
#include "engine/kernels/pool_body.h"
#endif
