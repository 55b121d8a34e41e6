/* Population counts of packed pixels. */
#include "engine/kernels/kernels.h"

/* Without a popcount instruction: pairs, nibbles and bytes are added in parallel. */
static uint32_t popcount32(uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  return (x * 0x01010101u) >> 24;
}

#define SUMS_NAME hwgq_sums_scalar
#define POPCOUNT(x) popcount32(x)
#include "engine/kernels/sums_body.h"
