/* Convolutions of pixels by 8-bit weights for AVX-VNNI, the form of VPDPBUSD that does not need AVX-512. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#include "engine/kernels/iconv.h"
#include "engine/kernels/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-tree-pre") /* see bconv_popcount_avx512.c */
#endif

#define BYTES
#define ICONV(prefix) prefix##_bytes_avxvnni
#define VECTOR __m256i
#define MAX_TILE_CASES 6
enum { LANES_OF_VECTOR = 8, MAX_TILE = MAX_TILE_CASES, MAX_VECTORS = 2 };
#define ZERO _mm256_setzero_si256()
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define ADD(a, b) _mm256_add_epi32(a, b)
#define BROADCAST(x) _mm256_set1_epi32(x)
#define DOT(sum, weights, pixels) _mm256_dpbusd_avx_epi32(sum, pixels, weights)
#include "engine/kernels/iconv_body.h"
#endif
