/* Body of the bit-sliced kernels: included by one file per instruction set, which defines
 *   V, LANES                             a vector, and its bits: 64 to 512
 *   NAME(x)                              the name of a kernel
 * and, before including it, these functions:
 *   load, store, zero
 *   xor3(a, b, c), majority(a, b, c)     bit by bit: sum and carry of a full adder
 *   borrow_of(n, t, b)                   of n - t - b: majority(not n, t, b)
 *   complement(x)
 *   bit_of(words, i)                     lanes of dword g are all bit i of words[g]
 *   copy_offsets(to, from, add)          to[j] = from[j] + add for 32 offsets
 *   append(to, bits, first)              first + j * LANES / 64 for each set bit j of 32; may write all 32 offsets
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

/* `count` rows (4, or 2) from entry j of the list on. Entries are read four at a time: loads are what these loops have least
 * of. */
INLINE void read_rows(const uint8_t *weights, const uint16_t *list, int j, int count, V *rows) {
  uint64_t four = 0;
  memcpy(&four, list + j, (size_t)count * sizeof *list);
  for (int k = 0; k < count; k++, four >>= 16) {
    __asm__("" : "+r"(four)); /* or the compiler makes four loads, or copies, of it */
    rows[k] = load(weights + HWGQ_SLICED_UNIT * (size_t)(k == 3 ? four : (uint16_t)four));
  }
}

/* Adds 16, 8, 4 or 2 rows of weight 1, 2, 4 or 8 to planes low[0] .. low[3]; returns the carry, of weight 16. */
INLINE V add16(const uint8_t *weights, const uint16_t *list, V low[LOW]) {
  V w[16], a, b, d, e, f, g, h, t[2], f0, f1, e0, e1, c[8], carry;
  for (int j = 0; j < 8; j += 4) read_rows(weights, list, j, 4, w + j);
  FULL_ADD(a, c[0], w[0], w[1], w[2]);
  FULL_ADD(b, c[1], w[3], w[4], w[5]);
  read_rows(weights, list, 8, 4, w + 8);
  FULL_ADD(d, c[2], w[6], w[7], w[8]);
  FULL_ADD(e, c[3], a, b, d);
  FULL_ADD(h, t[0], c[0], c[1], c[2]);
  read_rows(weights, list, 12, 4, w + 12);
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

INLINE V add8(const uint8_t *weights, const uint16_t *list, V low[LOW]) {
  V w[8], a, b, d, t0, t1, f0, f1, e0, e1, carry;
  for (int j = 0; j < 8; j += 4) read_rows(weights, list, j, 4, w + j);
  FULL_ADD(a, t0, w[0], w[1], w[2]);
  FULL_ADD(b, t1, w[3], w[4], w[5]);
  FULL_ADD(d, f0, a, b, w[6]);
  FULL_ADD(low[1], f1, low[1], d, w[7]);
  FULL_ADD(a, e0, t0, t1, f0);
  FULL_ADD(low[2], e1, low[2], a, f1);
  FULL_ADD(low[3], carry, low[3], e0, e1);
  return carry;
}

INLINE V add4(const uint8_t *weights, const uint16_t *list, V low[LOW]) {
  V w[4], a, e0, e1, carry;
  read_rows(weights, list, 0, 4, w);
  FULL_ADD(a, e0, w[0], w[1], w[2]);
  FULL_ADD(low[2], e1, low[2], a, w[3]);
  FULL_ADD(low[3], carry, low[3], e0, e1);
  return carry;
}

INLINE V add2(const uint8_t *weights, const uint16_t *list, V low[LOW]) {
  V w[2], carry;
  read_rows(weights, list, 0, 2, w);
  FULL_ADD(low[3], carry, low[3], w[0], w[1]);
  return carry;
}

INLINE V add_leaf(int plane, const uint8_t *weights, const uint16_t *list, V low[LOW]) {
  return plane == 0   ? add16(weights, list, low)
         : plane == 1 ? add8(weights, list, low)
         : plane == 2 ? add4(weights, list, low)
                      : add2(weights, list, low);
}

/* All rows of one plane's list: `plane` is a constant in every call. */
INLINE void add_plane(int plane, const uint8_t *weights, const uint16_t *list, size_t count, V low[LOW],
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

/* Appends the offsets of one plane of sources first .. end - 1, each with its source's part added, and as many offsets of the
 * row of zeros as make the number divisible by `leaf`. */
INLINE size_t join(const struct hwgq_sliced_job *job, int plane, int first, int end, uint16_t *list) {
  const size_t usual = job->usual, leaf = (size_t)16 >> plane;
  size_t count = 0;
  for (int s = first; s < end; s++) {
    const struct hwgq_sliced_source *source = &job->sources[s];
    const uint16_t *from = source->offsets + (size_t)plane * job->offsets_step;
    const size_t n = source->counts[plane];
    uint16_t *to = list + count;
    /* A fixed number of copies takes nearly every list, without a branch that cannot be predicted. */
    size_t i = 0;
    for (; i < usual; i += 32) copy_offsets(to + i, from + i, source->add);
    for (; i < n; i += 32) copy_offsets(to + i, from + i, source->add);
    count += n;
  }
  const size_t padding = (0 - count) % leaf;
  for (size_t i = 0; i < padding; i++) list[count + i] = job->zero;
  return count + padding;
}

INLINE void add_sources(const struct hwgq_sliced_job *job, const uint8_t *weights, int first, int end, V low[LOW],
                        struct counter *counter) {
  for (int p = 0; p < job->planes; p++) {
    const size_t count = join(job, p, first, end, job->list);
    switch (p) {
    case 0:
      add_plane(0, weights, job->list, count, low, counter);
      break;
    case 1:
      add_plane(1, weights, job->list, count, low, counter);
      break;
    case 2:
      add_plane(2, weights, job->list, count, low, counter);
      break;
    default:
      add_plane(3, weights, job->list, count, low, counter);
      break;
    }
  }
}

void NAME(hwgq_sliced_sum)(const struct hwgq_sliced_job *job) {
  uint8_t *sums = job->sums;
  for (int block = 0; block < job->blocks; block++, sums += job->sum_planes * ROW_BYTES) {
    const uint8_t *weights = job->weights + (size_t)block * job->weight_step;
    struct counter counter;
    V low[LOW];
    counter.full = 0;
    for (int i = 0; i < LOW; i++) low[i] = zero();
    /* Also those above the sum: carries that are zero ripple into them. */
    for (int i = LOW; i < HWGQ_SLICED_PLANES; i++) counter.plane[i] = zero();
    for (int first = 0, end; first < job->source_count; first = end) {
      const struct hwgq_sliced_source *source = &job->sources[first];
      for (end = first + 1; end < job->source_count && job->sources[end].part == source->part;) end++;
      add_sources(job, weights + source->part * job->part_step, first, end, low, &counter);
    }
    for (int i = 4; i < LOW; i++) counter.plane[i] = low[i];
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
  uint16_t *offsets = job->offsets, *counts = job->counts;
  for (size_t i = 0; i < job->pixels; i++, pixel += job->pixel_step) {
    for (int p = 0; p < job->planes; p++, offsets += job->offsets_step) {
      uint32_t count = 0;
      for (int word = 0; word < job->words; word++) {
        const uint32_t bits = pixel[word * job->planes + p];
        append(offsets + count, bits, (uint16_t)(word * 32 * (ROW_BYTES / HWGQ_SLICED_UNIT)));
        count += (uint32_t)__builtin_popcount(bits);
      }
      *counts++ = (uint16_t)count;
    }
  }
}
