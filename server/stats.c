#include "server/stats.h"

#include "server/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

const uint64_t stats_bounds[STATS_BOUNDS] = {
    10000,    25000,    50000,     100000,    250000,    500000,     1000000,    2500000,    5000000,     10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 2500000000, 5000000000, 10000000000, 30000000000,
};

/* One stage in one slot: as struct histogram, in 32-bit counts because half a minute holds no more. */
struct slot_stage {
  uint32_t buckets[HISTOGRAM_BUCKETS];
  uint64_t count, sum, min, max;
};

struct slot {
  uint64_t period; /* clock / the slot's length, plus 1 so that 0 means never used */
  struct stats_counts counts;
  struct slot_stage stages[STATS_STAGES];
};

/* One more slot than the longest window has, for the slot that is being filled. */
enum {
  FINE_SLOTS = STATS_FINE_WINDOW / STATS_FINE_SECONDS + 1,
  COARSE_SLOTS = STATS_MAX_WINDOW / STATS_COARSE_SECONDS + 1,
};

struct stats {
  pthread_mutex_t mutex;
  struct stats_counts counts;
  struct stats_code codes[STATS_CODES];
  struct histogram stages[STATS_STAGES];
  uint64_t bounds[STATS_STAGES][STATS_BOUNDS];
  struct stats_sum success, failure;
  uint64_t last;
  _Atomic uint64_t image_ns; /* changes under the mutex, is read without it */
  struct slot fine[FINE_SLOTS], coarse[COARSE_SLOTS];
};

const char *stats_stage_name(enum stats_stage stage) {
  static const char *const names[STATS_STAGES] = {"queue", "decode", "preprocess", "inference", "total"};
  return names[stage];
}

struct stats *stats_create(void) {
  struct stats *stats = calloc(1, sizeof *stats);
  if (stats && pthread_mutex_init(&stats->mutex, NULL)) {
    free(stats);
    stats = NULL;
  }
  return stats;
}

void stats_destroy(struct stats *stats) {
  if (!stats) return;
  pthread_mutex_destroy(&stats->mutex);
  free(stats);
}

uint64_t stats_bytes(void) {
  return sizeof(struct stats);
}

uint64_t stats_image_ns(const struct stats *stats) {
  return atomic_load_explicit(&stats->image_ns, memory_order_relaxed);
}

void stats_expect(struct stats *stats, uint64_t image_ns) {
  pthread_mutex_lock(&stats->mutex);
  if (!stats_image_ns(stats)) atomic_store_explicit(&stats->image_ns, image_ns, memory_order_relaxed);
  pthread_mutex_unlock(&stats->mutex);
}

/* The images of one request count as one: their mean. */
static void average(struct stats *stats, const struct stats_image *images, int count) {
  enum { SMOOTHING = 16 };
  uint64_t before = stats_image_ns(stats), sum = 0;
  for (int i = 0; i < count; i++) sum += images[i].decode_ns + images[i].preprocess_ns + images[i].inference_ns;
  if (count == 0) return;
  uint64_t mean = sum / (uint64_t)count;
  atomic_store_explicit(&stats->image_ns, before ? before - before / SMOOTHING + mean / SMOOTHING : mean, memory_order_relaxed);
}

static uint64_t seconds_of(int window_seconds) {
  return window_seconds <= STATS_FINE_WINDOW ? STATS_FINE_SECONDS : STATS_COARSE_SECONDS;
}

static uint64_t period_of(uint64_t now, uint64_t slot_seconds) {
  return now / (slot_seconds * CLOCK_SECOND) + 1;
}

static uint64_t slots_of(int window_seconds) {
  uint64_t seconds = seconds_of(window_seconds);
  return ((uint64_t)window_seconds + seconds - 1) / seconds;
}

double stats_window(int window_seconds, uint64_t started, uint64_t now) {
  uint64_t slot = seconds_of(window_seconds) * CLOCK_SECOND;
  uint64_t window = slots_of(window_seconds) * slot + now % slot, age = now - started;
  return (double)(window < age ? window : age) / (double)CLOCK_SECOND;
}

static void count_request(struct stats_counts *counts, int code, const struct stats_image *images, int image_count) {
  if (code == 200) {
    counts->ok++;
  } else if (code == 503 || code == 429) {
    counts->rejected++;
  } else if (code == 504) {
    counts->expired++;
  } else {
    counts->failed++;
  }
  counts->images += (uint64_t)image_count;
  for (int i = 0; i < image_count; i++) counts->shared += images[i].shared;
}

static void count_code(struct stats *stats, int code) {
  for (int i = 0; i < STATS_CODES; i++) {
    if (stats->codes[i].code == 0) stats->codes[i].code = code;
    if (stats->codes[i].code == code) {
      stats->codes[i].count++;
      return;
    }
  }
}

static void record_recent(struct slot_stage *recent, int bucket, uint64_t ns) {
  if (recent->count == 0 || ns < recent->min) recent->min = ns;
  if (ns > recent->max) recent->max = ns;
  recent->count++;
  recent->sum += ns;
  recent->buckets[bucket]++;
}

/* slots: the current fine and coarse one. */
static void record_stage(struct stats *stats, struct slot *const *slots, enum stats_stage stage, uint64_t ns) {
  int bucket = histogram_bucket(ns);
  histogram_record(&stats->stages[stage], ns);
  for (int i = 0; i < 2; i++) record_recent(&slots[i]->stages[stage], bucket, ns);
  for (int i = 0; i < STATS_BOUNDS; i++) {
    if (ns <= stats_bounds[i]) {
      stats->bounds[stage][i]++;
      break;
    }
  }
}

/* The slot of the period that `now` is in, emptied when it held an earlier one. */
static struct slot *current_slot(struct slot *slots, uint64_t count, uint64_t slot_seconds, uint64_t now) {
  uint64_t period = period_of(now, slot_seconds);
  struct slot *slot = &slots[period % count];
  if (slot->period < period) {
    if (slot->period) memset(slot, 0, sizeof *slot);
    slot->period = period;
  }
  return slot;
}

static void count_outcome(struct stats *stats, const struct stats_request *request, int image_count, uint64_t now) {
  struct stats_sum *sum = request->code == 200 ? &stats->success : &stats->failure;
  sum->count++;
  if (request->has_total) sum->ns += request->total_ns;
  if (image_count) stats->last = now;
}

void stats_record(struct stats *stats, const struct stats_request *request, const struct stats_image *images, int image_count,
                  uint64_t now) {
  pthread_mutex_lock(&stats->mutex);
  struct slot *const slots[2] = {current_slot(stats->fine, FINE_SLOTS, STATS_FINE_SECONDS, now),
                                 current_slot(stats->coarse, COARSE_SLOTS, STATS_COARSE_SECONDS, now)};
  average(stats, images, image_count);
  count_code(stats, request->code);
  count_outcome(stats, request, image_count, now);
  count_request(&stats->counts, request->code, images, image_count);
  for (int i = 0; i < 2; i++) count_request(&slots[i]->counts, request->code, images, image_count);
  if (request->has_queue) record_stage(stats, slots, STATS_QUEUE, request->queue_ns);
  for (int i = 0; i < image_count; i++) {
    record_stage(stats, slots, STATS_DECODE, images[i].decode_ns);
    record_stage(stats, slots, STATS_PREPROCESS, images[i].preprocess_ns);
    record_stage(stats, slots, STATS_INFERENCE, images[i].inference_ns);
  }
  if (request->has_total) record_stage(stats, slots, STATS_TOTAL, request->total_ns);
  pthread_mutex_unlock(&stats->mutex);
}

static void merge_slot(const struct slot *slot, struct stats_counts *counts, struct histogram *stages) {
  counts->ok += slot->counts.ok;
  counts->failed += slot->counts.failed;
  counts->rejected += slot->counts.rejected;
  counts->expired += slot->counts.expired;
  counts->images += slot->counts.images;
  counts->shared += slot->counts.shared;
  for (int s = 0; s < STATS_STAGES; s++) {
    const struct slot_stage *from = &slot->stages[s];
    struct histogram *to = &stages[s];
    if (from->count == 0) continue;
    if (to->count == 0 || from->min < to->min) to->min = from->min;
    if (from->max > to->max) to->max = from->max;
    to->count += from->count;
    to->sum += from->sum;
    for (int i = 0; i < HISTOGRAM_BUCKETS; i++) to->buckets[i] += from->buckets[i];
  }
}

void stats_read(struct stats *stats, int window_seconds, uint64_t now, struct stats_counts *counts, struct histogram *stages) {
  if (window_seconds == 0) {
    pthread_mutex_lock(&stats->mutex);
    *counts = stats->counts;
    memcpy(stages, stats->stages, sizeof stats->stages);
    pthread_mutex_unlock(&stats->mutex);
    return;
  }
  bool is_fine = window_seconds <= STATS_FINE_WINDOW;
  const struct slot *slots = is_fine ? stats->fine : stats->coarse;
  int count = is_fine ? FINE_SLOTS : COARSE_SLOTS;
  uint64_t period = period_of(now, seconds_of(window_seconds)), wanted = slots_of(window_seconds);
  memset(counts, 0, sizeof *counts);
  for (int s = 0; s < STATS_STAGES; s++) histogram_clear(&stages[s]);
  pthread_mutex_lock(&stats->mutex);
  for (int i = 0; i < count; i++) {
    if (slots[i].period && slots[i].period + wanted >= period) merge_slot(&slots[i], counts, stages);
  }
  pthread_mutex_unlock(&stats->mutex);
}

void stats_read_metrics(struct stats *stats, struct stats_code *codes, struct stats_stage_metrics *stages,
                        struct stats_counts *counts) {
  pthread_mutex_lock(&stats->mutex);
  memcpy(codes, stats->codes, sizeof stats->codes);
  *counts = stats->counts;
  for (int s = 0; s < STATS_STAGES; s++) {
    stages[s].count = stats->stages[s].count;
    stages[s].sum = stats->stages[s].sum;
    memcpy(stages[s].bounds, stats->bounds[s], sizeof stages[s].bounds);
  }
  pthread_mutex_unlock(&stats->mutex);
}

static struct stats_sum sum_of(const struct histogram *histogram) {
  return (struct stats_sum){histogram->count, histogram->sum};
}

void stats_read_totals(struct stats *stats, struct stats_totals *totals) {
  pthread_mutex_lock(&stats->mutex);
  *totals = (struct stats_totals){
      .success = stats->success,
      .failure = stats->failure,
      .queue = sum_of(&stats->stages[STATS_QUEUE]),
      .input = sum_of(&stats->stages[STATS_DECODE]),
      .inference = sum_of(&stats->stages[STATS_INFERENCE]),
      .last = stats->last,
  };
  totals->input.ns += stats->stages[STATS_PREPROCESS].sum;
  pthread_mutex_unlock(&stats->mutex);
}
