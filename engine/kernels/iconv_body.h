/* Body of the vector kernels of iconv.h. A file per instruction set defines ICONV(prefix) (the name of a function), VECTOR,
 * LANES_OF_VECTOR, MAX_TILE (pixels), MAX_VECTORS (of weights), ZERO, LOAD(p), STORE(p, v), ADD(a, b), BROADCAST(int32) and
 * DOT(sum, weights, pixels); BYTES for a form of bytes.
 *
 * A tile of T pixels by V vectors of out channels stays in registers. Pixels are addressed from one pointer for every three of
 * them, so that pointers stay in registers too. */
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#define POINTERS(pixels) (((pixels) + POINTER_PIXELS - 1) / POINTER_PIXELS)
enum { POINTER_PIXELS = 3, MAX_POINTERS = POINTERS(MAX_TILE), WORD = 4 /* bytes */ };

INLINE VECTOR start_of(const struct hwgq_iconv_job *job, size_t column, size_t lane) {
  VECTOR sum = ZERO;
  if (job->base) sum = LOAD(job->base + job->base_index[column] * job->base_step + lane);
  if (job->add) sum = ADD(sum, LOAD(job->add + column * HWGQ_LANES + lane));
  return sum;
}

INLINE VECTOR word_at(const uint8_t *pixel) {
  int32_t word;
  memcpy(&word, pixel, sizeof word);
  return BROADCAST(word);
}

/* Columns column .. column + T - 1, lanes lane .. lane + V * LANES_OF_VECTOR - 1. */
INLINE void tile(const struct hwgq_iconv_job *job, size_t column, size_t lane, const int T, const int V) {
  const size_t step = job->column_step, weight_step = (size_t)job->lanes * WORD;
  const uint8_t *const input = job->input + column * step;
  const uint8_t *weights = job->weights + lane * WORD;
  const uint8_t *inputs[MAX_POINTERS];
  UNROLL
  for (int p = 0; p < POINTERS(T); p++) inputs[p] = input + (size_t)(p * POINTER_PIXELS) * step;
  VECTOR sums[MAX_TILE][MAX_VECTORS];
  UNROLL
  for (int t = 0; t < T; t++) {
    UNROLL
    for (int v = 0; v < V; v++) sums[t][v] = start_of(job, column + (size_t)t, lane + (size_t)v * LANES_OF_VECTOR);
  }
  const size_t *offset = job->offsets, *const end = offset + job->words;
  for (; offset != end; offset++, weights += weight_step) {
    const uint8_t *pixels[MAX_POINTERS];
    VECTOR w[MAX_VECTORS];
    UNROLL
    for (int p = 0; p < POINTERS(T); p++) pixels[p] = inputs[p] + *offset;
    UNROLL
    for (int v = 0; v < V; v++) w[v] = LOAD(weights + (size_t)v * LANES_OF_VECTOR * WORD);
    UNROLL
    for (int t = 0; t < T; t++) {
      const VECTOR word = word_at(pixels[t / POINTER_PIXELS] + (size_t)(t % POINTER_PIXELS) * step);
      UNROLL
      for (int v = 0; v < V; v++) sums[t][v] = DOT(sums[t][v], w[v], word);
    }
  }
  UNROLL
  for (int t = 0; t < T; t++) {
    int32_t *to = job->accumulators + (column + (size_t)t) * HWGQ_LANES + lane;
    UNROLL
    for (int v = 0; v < V; v++) STORE(to + (size_t)v * LANES_OF_VECTOR, sums[t][v]);
  }
}

#define TILE(T)                                                                                                                \
  case T:                                                                                                                      \
    tile(job, column, lane, T, V);                                                                                             \
    break

/* Tiles of nearly equal width. */
INLINE void lanes_of(const struct hwgq_iconv_job *job, size_t lane, const int V) {
  const int tiles = (job->columns + MAX_TILE - 1) / MAX_TILE;
  size_t column = 0;
  for (int i = 0; i < tiles; i++) {
    const int count = (job->columns - (int)column) / (tiles - i);
    switch (count) {
      TILE(1);
      TILE(2);
      TILE(3);
      TILE(4);
      TILE(5);
#if MAX_TILE_CASES > 6
      TILE(6);
      TILE(7);
      TILE(8);
      TILE(9);
      TILE(10);
      TILE(11);
      TILE(12);
#endif
#if MAX_TILE_CASES > 12
      TILE(13);
#endif
    default:
      tile(job, column, lane, MAX_TILE, V);
      break;
    }
    column += (size_t)count;
  }
}

void ICONV(hwgq_iconv)(const struct hwgq_iconv_job *given) {
  const struct hwgq_iconv_job copy = *given; /* stores to the accumulators cannot change it */
  const size_t step = MAX_VECTORS * LANES_OF_VECTOR, lanes = (size_t)copy.lanes;
  size_t lane = 0;
  for (; lane + step <= lanes; lane += step) lanes_of(&copy, lane, MAX_VECTORS);
  if (lane < lanes) lanes_of(&copy, lane, MAX_VECTORS / 2);
}

#ifndef BYTES
void ICONV(hwgq_iconv_widen)(const uint8_t *pixels, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = pixels[i];
}

void ICONV(hwgq_iconv_subtract)(const int16_t *a, const int16_t *b, size_t count, int16_t *output) {
  for (size_t i = 0; i < count; i++) output[i] = (int16_t)(a[i] - b[i]);
}
#endif
