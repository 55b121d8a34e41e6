/* Body of the bit-sliced kernels: included by one file per instruction set, which defines
 *   V, LANES                             a vector, and its bits: 64, 256 or 512
 *   NAME(x)                              the name of a kernel
 * and, before including it, these functions:
 *   load, store, zero
 *   xor3(a, b, c), majority(a, b, c)     bit by bit: sum and carry of a full adder
 *   borrow_of(n, t, b)                   of n - t - b: majority(not n, t, b)
 *   complement(x)
 *   bit_of(words, i)                     lanes of dword g are all bit i of words[g]
 *   copy_offsets(to, from, add)          to[j] = from[j] + add for 16 offsets
 *   append(to, bits, first)              first + j * LANES / 8 for each set bit j of 32; writes up to 32 offsets, returns how
 *                                        many count
 *   unpack(sums, planes, start, to)      to[lane] = 2 * sum + start, for 32 lanes whose planes are LANES / 8 bytes apart
 *
 * A sum is kept as planes: bit i of every lane's sum, LANES lanes in a vector. Rows of weights are added by full adders that
 * take three vectors of one weight and leave one of that weight and one of twice the weight. */
enum { LOW = 6, ROW_BYTES = LANES / 8 };

/* Planes 0 to LOW - 1 of the sum stay in registers. From there on a level holds its plane and, where the level's bit of `full`
 * is set, one more vector of the same weight that waits for a second one: a binary counter of vectors. */
struct counter {
  V plane[HWGQ_SLICED_PLANES], waiting[HWGQ_SLICED_PLANES];
  uint32_t full;
};

#define FULL_ADD(sum, carry, x, y, z)                                                                                          \
  do {                                                                                                                         \
    const V x_ = x, y_ = y, z_ = z;                                                                                            \
    sum = xor3(x_, y_, z_);                                                                                                    \
    carry = majority(x_, y_, z_);                                                                                              \
  } while (0)

INLINE void push(struct counter *counter, int level, V carry) {
  for (; counter->full >> level & 1; level++) {
    const V plane = counter->plane[level];
    counter->full ^= 1u << level;
    FULL_ADD(counter->plane[level], carry, plane, counter->waiting[level], carry);
  }
  counter->waiting[level] = carry;
  counter->full |= 1u << level;
}

/* Planes `level` to planes - 1 of the sum. */
INLINE void settle(const struct counter *counter, int level, int planes, uint8_t *sums) {
  V carry = zero();
  for (; level < planes; level++, sums += ROW_BYTES) {
    const V waiting = counter->full >> level & 1 ? counter->waiting[level] : zero();
    V sum;
    FULL_ADD(sum, carry, counter->plane[level], waiting, carry);
    store(sums, sum);
  }
}

/* Row number j of the list. Two offsets are read at once: loads are what these loops have least of. */
INLINE void rows2(const uint8_t *weights, const uint32_t *list, int j, V *a, V *b) {
  uint64_t two;
  memcpy(&two, list + j, sizeof two);
  __asm__("" : "+r"(two)); /* or the compiler makes two loads of it again */
  *a = load(weights + (uint32_t)two);
  *b = load(weights + (two >> 32));
}

/* Adds 16, 8, 4 or 2 rows of weight 1, 2, 4 or 8 to planes low[0] .. low[3]; returns the carry, of weight 16. */
INLINE V add16(const uint8_t *weights, const uint32_t *list, V low[LOW]) {
  V w[16], a, b, d, e, f, g, h, t[2], f0, f1, e0, e1, c[8], carry;
  for (int j = 0; j < 6; j += 2) rows2(weights, list, j, &w[j], &w[j + 1]);
  FULL_ADD(a, c[0], w[0], w[1], w[2]);
  FULL_ADD(b, c[1], w[3], w[4], w[5]);
  for (int j = 6; j < 10; j += 2) rows2(weights, list, j, &w[j], &w[j + 1]);
  FULL_ADD(d, c[2], w[6], w[7], w[8]);
  FULL_ADD(e, c[3], a, b, d);
  FULL_ADD(h, t[0], c[0], c[1], c[2]);
  for (int j = 10; j < 16; j += 2) rows2(weights, list, j, &w[j], &w[j + 1]);
  FULL_ADD(a, c[4], w[9], w[10], w[11]);
  FULL_ADD(f, c[5], w[12], w[13], w[14]);
  FULL_ADD(b, c[6], a, e, f);
  FULL_ADD(d, t[1], c[3], c[4], c[5]);
  FULL_ADD(low[0], c[7], low[0], b, w[15]);
  FULL_ADD(g, f0, c[6], c[7], h);
  FULL_ADD(low[1], f1, low[1], d, g);
  FULL_ADD(e, e0, t[0], t[1], f0);
  FULL_ADD(low[2], e1, low[2], e, f1);
  FULL_ADD(low[3], carry, low[3], e0, e1);
  return carry;
}

INLINE V add8(const uint8_t *weights, const uint32_t *list, V low[LOW]) {
  V w[8], a, b, d, t0, t1, f0, f1, e0, e1, carry;
  for (int j = 0; j < 8; j += 2) rows2(weights, list, j, &w[j], &w[j + 1]);
  FULL_ADD(a, t0, w[0], w[1], w[2]);
  FULL_ADD(b, t1, w[3], w[4], w[5]);
  FULL_ADD(d, f0, a, b, w[6]);
  FULL_ADD(low[1], f1, low[1], d, w[7]);
  FULL_ADD(a, e0, t0, t1, f0);
  FULL_ADD(low[2], e1, low[2], a, f1);
  FULL_ADD(low[3], carry, low[3], e0, e1);
  return carry;
}

INLINE V add4(const uint8_t *weights, const uint32_t *list, V low[LOW]) {
  V w[4], a, e0, e1, carry;
  for (int j = 0; j < 4; j += 2) rows2(weights, list, j, &w[j], &w[j + 1]);
  FULL_ADD(a, e0, w[0], w[1], w[2]);
  FULL_ADD(low[2], e1, low[2], a, w[3]);
  FULL_ADD(low[3], carry, low[3], e0, e1);
  return carry;
}

INLINE V add2(const uint8_t *weights, const uint32_t *list, V low[LOW]) {
  V a, b, carry;
  rows2(weights, list, 0, &a, &b);
  FULL_ADD(low[3], carry, low[3], a, b);
  return carry;
}

INLINE V add_leaf(int plane, const uint8_t *weights, const uint32_t *list, V low[LOW]) {
  return plane == 0   ? add16(weights, list, low)
         : plane == 1 ? add8(weights, list, low)
         : plane == 2 ? add4(weights, list, low)
                      : add2(weights, list, low);
}

/* All rows of one plane's list: `plane` is a constant in every call. */
INLINE void add_plane(int plane, const uint8_t *weights, const uint32_t *list, size_t count, V low[LOW],
                      struct counter *counter) {
  const size_t leaf = (size_t)16 >> plane;
  size_t i = 0;
  for (; i + 4 * leaf <= count; i += 4 * leaf) {
    const V a = add_leaf(plane, weights, list + i, low), b = add_leaf(plane, weights, list + i + leaf, low);
    V c, d;
    FULL_ADD(low[4], c, low[4], a, b);
    const V e = add_leaf(plane, weights, list + i + 2 * leaf, low), f = add_leaf(plane, weights, list + i + 3 * leaf, low);
    FULL_ADD(low[4], d, low[4], e, f);
    FULL_ADD(low[5], c, low[5], c, d);
    push(counter, LOW, c);
  }
  if (i == count) return;
  counter->plane[4] = low[4];
  counter->plane[5] = low[5];
  for (; i < count; i += leaf) push(counter, 4, add_leaf(plane, weights, list + i, low));
  low[4] = counter->plane[4];
  low[5] = counter->plane[5];
}

/* ---- the lists of a tile ------------------------------------------------------------------------------------------------- */

/* Appends the sources' offsets of one plane, each with its source's part added, and as many offsets of the row of zeros as make
 * the number divisible by `leaf`. Writes up to HWGQ_SLICED_SLACK offsets too many. */
INLINE size_t join(const struct hwgq_sliced_job *job, int plane, size_t leaf, uint32_t *list) {
  size_t count = 0;
  for (int s = 0; s < job->source_count; s++) {
    const struct hwgq_sliced_source *source = &job->sources[s];
    const uint32_t *from = source->offsets + (size_t)plane * job->offsets_step;
    const size_t n = source->counts[plane];
    uint32_t *to = list + count;
    /* A fixed number of copies takes nearly every list, without a branch that cannot be predicted. */
    size_t i = 0;
    for (; i < job->usual; i += 16) copy_offsets(to + i, from + i, source->add);
    for (; i < n; i += 16) copy_offsets(to + i, from + i, source->add);
    count += n;
  }
  while (count % leaf) list[count++] = job->zero;
  return count;
}

void NAME(hwgq_sliced_sum)(struct hwgq_sliced_job *job) {
  for (int block = 0; block < job->blocks; block++) {
    const uint8_t *weights = job->weights + (size_t)block * job->weight_step;
    struct counter counter;
    V low[LOW];
    counter.full = 0;
    for (int i = 0; i < LOW; i++) low[i] = zero();
    for (int i = LOW; i < job->sum_planes; i++) counter.plane[i] = zero();
    uint32_t *list = job->list;
    for (int p = 0; p < job->planes; p++) {
      if (block == 0) job->counts[p] = join(job, p, (size_t)16 >> p, list);
      const size_t count = job->counts[p];
      switch (p) {
      case 0:
        add_plane(0, weights, list, count, low, &counter);
        break;
      case 1:
        add_plane(1, weights, list, count, low, &counter);
        break;
      case 2:
        add_plane(2, weights, list, count, low, &counter);
        break;
      default:
        add_plane(3, weights, list, count, low, &counter);
        break;
      }
      list += job->list_step;
    }
    for (int i = 4; i < LOW; i++) counter.plane[i] = low[i];
    uint8_t *sums = (uint8_t *)job->sums + (size_t)block * (size_t)job->sum_planes * ROW_BYTES;
    for (int i = 0; i < 4; i++) store(sums + i * ROW_BYTES, low[i]);
    settle(&counter, 4, job->sum_planes, sums + 4 * ROW_BYTES);
  }
}

/* ---- thresholds ---------------------------------------------------------------------------------------------------------- */

/* n = 2 * sum + start, plane by plane, and the borrow of n - threshold for each threshold. */
void NAME(hwgq_sliced_compare)(const struct hwgq_sliced_compare_job *job) {
  const uint8_t *sums = job->sums, *thresholds = job->thresholds;
  V borrow[HWGQ_SLICED_LEVELS], carry = zero();
  for (int j = 0; j < job->levels; j++) borrow[j] = zero();
  for (int i = 0; i < job->sum_planes + 2; i++) {
    V n = bit_of(job->start, i);
    if (i > 0) {
      const V sum = i <= job->sum_planes ? load(sums + (i - 1) * ROW_BYTES) : zero();
      FULL_ADD(n, carry, n, sum, carry);
    }
    for (int j = 0; j < job->levels; j++, thresholds += ROW_BYTES) borrow[j] = borrow_of(n, load(thresholds), borrow[j]);
  }
  uint8_t *masks = job->masks;
  for (int j = 0; j < job->levels; j++) store(masks + j * ROW_BYTES, complement(borrow[j]));
}

/* ---- sums as integers ---------------------------------------------------------------------------------------------------- */

void NAME(hwgq_sliced_unpack)(const struct hwgq_sliced_unpack_job *job) {
  const uint8_t *sums = job->sums;
  for (int g = 0; g < LANES / 32; g++) {
    unpack(sums + 4 * g, job->sum_planes, job->start[g], job->sums_of[g]);
  }
}

/* ---- packed pixels to offsets -------------------------------------------------------------------------------------------- */

void NAME(hwgq_sliced_list)(const struct hwgq_sliced_list_job *job) {
  const uint32_t *pixel = job->input;
  uint32_t *offsets = job->offsets;
  for (size_t i = 0; i < job->pixels; i++, pixel += job->pixel_step) {
    for (int p = 0; p < job->planes; p++, offsets += job->offsets_step) {
      uint32_t count = 0;
      for (int word = 0; word < job->words; word++) {
        count += append(offsets + count, pixel[word * job->planes + p], (uint32_t)word * 32 * ROW_BYTES);
      }
      job->counts[i * (size_t)job->planes + (size_t)p] = (uint16_t)count;
    }
  }
}
