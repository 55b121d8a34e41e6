/* Float convolution. */
#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre") /* see bconv_popcount_avx512.c */
#endif

#define NAME hwgq_fconv_direct_avx2
#define VECTOR __m256
enum { WIDTH = 8, TILE_OF_16 = 2, TILE_OF_32 = 2 };
#define ZERO _mm256_setzero_ps()
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, v) _mm256_storeu_ps(p, v)
#define BROADCAST(p) _mm256_set1_ps(*(p))
#define MULTIPLY_ADD(sum, a, b) _mm256_fmadd_ps(a, b, sum)
#include "engine/kernels/fconv_direct_body.h"
#endif
