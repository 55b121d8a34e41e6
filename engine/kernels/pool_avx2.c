/* Max pooling of accumulators. */
#if defined(__x86_64__)
#include "engine/kernels/kernels.h"

#define POOL_NAME hwgq_pool_i32_avx2
#define POOL_TYPE int32_t
#include "engine/kernels/pool_body.h"
#undef POOL_NAME
#undef POOL_TYPE
#define POOL_NAME hwgq_pool_f32_avx2
#define POOL_TYPE float
#include "engine/kernels/pool_body.h"
#undef POOL_NAME
#undef POOL_TYPE
#define POOL_NAME hwgq_pool_f64_avx2
#define POOL_TYPE double
#include "engine/kernels/pool_body.h"
#endif
