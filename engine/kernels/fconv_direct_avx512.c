/* Float convolution. */
#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre") /* see bconv_popcount_avx512.c */
#endif

#define NAME hwgq_fconv_direct_avx512
#define VECTOR __m512
enum { WIDTH = 16, TILE_OF_16 = 6, TILE_OF_32 = 6 };
#define ZERO _mm512_setzero_ps()
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, v) _mm512_storeu_ps(p, v)
#define BROADCAST(p) _mm512_set1_ps(*(p))
#define MULTIPLY_ADD(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#include "engine/kernels/fconv_direct_body.h"
#endif
