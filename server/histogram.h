/* A log-linear histogram of durations. Values below 2^HISTOGRAM_BITS nanoseconds have a bucket each; every octave above has
 * 2^HISTOGRAM_BITS buckets of equal width, so the middle of a bucket is at most 2^-(HISTOGRAM_BITS + 1), 0.8 %, away from any
 * value in it. Counting is exact; quantiles are true ones (nearest rank), not estimates from a model. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum {
  HISTOGRAM_BITS = 6,
  HISTOGRAM_OCTAVES = 37, /* up to 2^37 ns, 137 s; longer durations count in the last bucket */
  HISTOGRAM_BUCKETS = (HISTOGRAM_OCTAVES - HISTOGRAM_BITS + 1) << HISTOGRAM_BITS,
};

struct histogram {
  uint64_t count, sum, min, max; /* nanoseconds; min and max are 0 while count is 0 */
  uint64_t buckets[HISTOGRAM_BUCKETS];
};

int histogram_bucket(uint64_t ns);
/* Lowest value of a bucket, and of the one after it. */
uint64_t histogram_bucket_start(int bucket);
void histogram_clear(struct histogram *histogram);
void histogram_record(struct histogram *histogram, uint64_t ns);
/* The value of rank ceil(quantile * count) to within half a bucket, and never outside [min, max]; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double quantile);

#endif
