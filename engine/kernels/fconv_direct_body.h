/* Body of the vector kernels of the float convolution. A file per instruction set defines NAME (of the function), VECTOR, ZERO,
 * LOAD(p), STORE(p, v), BROADCAST(p) (of the float at p), MULTIPLY_ADD(sum, a, b) (rounded once) and
 *   WIDTH                        floats of a VECTOR
 *   TILE_OF_16, TILE_OF_32       pixels of a tile of 16 and of 32 out channels
 *
 * Out channels are in lanes, one broadcast input value per pixel and tap. A tile of T pixels by V registers stays in registers;
 * every accumulator sees the taps in the same order as in the scalar kernel. */
#include "engine/kernels/conv_tile.h"

#define INLINE static inline __attribute__((always_inline))

enum { MAX_TILE = 6, MAX_REGISTERS = HWGQ_LANES / WIDTH };

/* T and V are constants in every call: the loops over them unroll and acc lives in registers. */
INLINE void accumulate(const struct hwgq_conv_job *job, const struct conv_tile *tile, const int T, const int V) {
  VECTOR acc[MAX_TILE][MAX_REGISTERS];
  const float *input[MAX_TILE];
  for (int t = 0; t < T; t++) {
    input[t] = (const float *)(const void *)tile->input[t];
    for (int v = 0; v < V; v++) acc[t][v] = ZERO;
  }
  for (int row = 0; row < job->rows; row++) {
    for (int run = 0; run < job->runs; run++) {
      const float *weights =
          (const float *)job->weights + (size_t)row * job->weight_row_step + (size_t)run * job->weight_run_step;
      const float *const end = weights + (size_t)job->length * WIDTH * (size_t)V;
      size_t at = (size_t)row * job->row_step + (size_t)run * job->run_step;
      for (; weights != end; weights += WIDTH * V, at++) {
        VECTOR w[MAX_REGISTERS];
        for (int v = 0; v < V; v++) w[v] = LOAD(weights + WIDTH * v);
        for (int t = 0; t < T; t++) {
          const VECTOR a = BROADCAST(input[t] + at);
          for (int v = 0; v < V; v++) acc[t][v] = MULTIPLY_ADD(acc[t][v], w[v], a);
        }
      }
    }
  }
  for (int t = 0; t < T; t++) {
    float *accumulators = (float *)(void *)tile->accumulators[t];
    for (int v = 0; v < V; v++) STORE(accumulators + WIDTH * v, acc[t][v]);
  }
}

#define TILE(n)                                                                                                                \
  case n:                                                                                                                      \
    if (n < T) accumulate(job, &tile, n, V);                                                                                   \
    break

/* T pixels at a time, the rest in one smaller tile. */
INLINE void rectangle(const struct hwgq_conv_job *job, const int T, const int V) {
  struct conv_walk walk = conv_walk_of(job);
  struct conv_tile tile;
  for (size_t count; (count = conv_next_tile(job, &walk, (size_t)T, false, &tile)) > 0;) {
    if (count == (size_t)T) {
      accumulate(job, &tile, T, V);
      continue;
    }
    switch (count) {
      TILE(1);
      TILE(2);
      TILE(3);
      TILE(4);
      TILE(5);
    }
  }
}

void NAME(const struct hwgq_conv_job *job) {
  if (job->lanes == HWGQ_LANES) {
    rectangle(job, TILE_OF_32, MAX_REGISTERS);
  } else {
    rectangle(job, TILE_OF_16, MAX_REGISTERS / 2);
  }
}
