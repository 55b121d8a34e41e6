/* Convolutions of pixels by 8-bit weights for AVX-512 VNNI: VPDPBUSD multiplies, adds four products and the sum. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/iconv.h"
#include "engine/kernels/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre") /* see bconv_popcount_avx512.c */
#endif

#define BYTES
#define ICONV(prefix) prefix##_bytes_avx512vnni
#define VECTOR __m512i
#define MAX_TILE_CASES 14
enum { LANES_OF_VECTOR = 16, MAX_TILE = MAX_TILE_CASES, MAX_VECTORS = 2 };
#define ZERO _mm512_setzero_si512()
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, v) _mm512_storeu_si512(p, v)
#define ADD(a, b) _mm512_add_epi32(a, b)
#define BROADCAST(x) _mm512_set1_epi32(x)
#define DOT(sum, weights, pixels) _mm512_dpbusd_epi32(sum, pixels, weights)
#include "engine/kernels/iconv_body.h"
#endif
