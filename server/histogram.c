#include "server/histogram.h"

#include <math.h>
#include <string.h>

enum { SUB_BUCKETS = 1 << HISTOGRAM_BITS };

int histogram_bucket(uint64_t ns) {
  if (ns < SUB_BUCKETS) return (int)ns;
  if (ns >> HISTOGRAM_OCTAVES) return HISTOGRAM_BUCKETS - 1;
  int octave = 63 - __builtin_clzll(ns) - HISTOGRAM_BITS; /* 0: values 64 to 127 */
  return (octave << HISTOGRAM_BITS) + (int)(ns >> octave);
}

uint64_t histogram_bucket_start(int bucket) {
  if (bucket < SUB_BUCKETS) return (uint64_t)bucket;
  int octave = (bucket >> HISTOGRAM_BITS) - 1;
  return (uint64_t)(bucket - (octave << HISTOGRAM_BITS)) << octave;
}

void histogram_clear(struct histogram *histogram) {
  memset(histogram, 0, sizeof *histogram);
}

void histogram_record(struct histogram *histogram, uint64_t ns) {
  if (histogram->count == 0 || ns < histogram->min) histogram->min = ns;
  if (ns > histogram->max) histogram->max = ns;
  histogram->count++;
  histogram->sum += ns;
  histogram->buckets[histogram_bucket(ns)]++;
}

uint64_t histogram_quantile(const struct histogram *histogram, double quantile) {
  if (histogram->count == 0) return 0;
  double wanted = ceil(quantile * (double)histogram->count);
  uint64_t rank = wanted < 1 ? 1 : wanted >= (double)histogram->count ? histogram->count : (uint64_t)wanted;
  uint64_t seen = 0;
  for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
    seen += histogram->buckets[i];
    if (seen < rank) continue;
    uint64_t value = (histogram_bucket_start(i) + histogram_bucket_start(i + 1) - 1) / 2;
    /* the open last bucket, and the edges of the range */
    if (value > histogram->max || i == HISTOGRAM_BUCKETS - 1) value = histogram->max;
    return value < histogram->min ? histogram->min : value;
  }
  return histogram->max;
}
