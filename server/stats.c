#include "server/stats.h"

#include "server/clock.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const uint64_t stats_bounds[STATS_BOUNDS] = {
    10000,    25000,    50000,     100000,    250000,    500000,     1000000,    2500000,    5000000,     10000000,
    25000000, 50000000, 100000000, 250000000, 500000000, 1000000000, 2500000000, 5000000000, 10000000000, 30000000000,
};

/* One stage in one slot: as struct histogram, in 32-bit counts because 5 seconds hold no more. */
struct slot_stage {
  uint32_t buckets[HISTOGRAM_BUCKETS];
  uint64_t count, sum, min, max;
};

struct slot {
  uint64_t period; /* clock / STATS_SLOT_SECONDS, plus 1 so that 0 means never used */
  struct stats_counts counts;
  struct slot_stage stages[STATS_STAGES];
};

struct stats {
  pthread_mutex_t mutex;
  struct stats_counts counts;
  struct stats_code codes[STATS_CODES];
  struct histogram stages[STATS_STAGES];
  uint64_t bounds[STATS_STAGES][STATS_BOUNDS];
  /* one more than the window, for the slot that is being filled */
  struct slot slots[STATS_SLOTS + 1];
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

static uint64_t period_of(uint64_t now) {
  return now / (STATS_SLOT_SECONDS * CLOCK_SECOND) + 1;
}

static uint64_t slots_of(int window_seconds) {
  return (uint64_t)(window_seconds + STATS_SLOT_SECONDS - 1) / STATS_SLOT_SECONDS;
}

double stats_window(int window_seconds, uint64_t now) {
  uint64_t slot = STATS_SLOT_SECONDS * CLOCK_SECOND;
  return (double)(slots_of(window_seconds) * slot + now % slot) / (double)CLOCK_SECOND;
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

static void record_stage(struct stats *stats, struct slot *slot, enum stats_stage stage, uint64_t ns) {
  struct slot_stage *recent = &slot->stages[stage];
  histogram_record(&stats->stages[stage], ns);
  if (recent->count == 0 || ns < recent->min) recent->min = ns;
  if (ns > recent->max) recent->max = ns;
  recent->count++;
  recent->sum += ns;
  recent->buckets[histogram_bucket(ns)]++;
  for (int i = 0; i < STATS_BOUNDS; i++) {
    if (ns <= stats_bounds[i]) {
      stats->bounds[stage][i]++;
      break;
    }
  }
}

void stats_record(struct stats *stats, const struct stats_request *request, const struct stats_image *images, int image_count,
                  uint64_t now) {
  uint64_t period = period_of(now);
  struct slot *slot = &stats->slots[period % (STATS_SLOTS + 1)];
  pthread_mutex_lock(&stats->mutex);
  if (slot->period < period) {
    memset(slot, 0, sizeof *slot);
    slot->period = period;
  }
  count_code(stats, request->code);
  count_request(&stats->counts, request->code, images, image_count);
  count_request(&slot->counts, request->code, images, image_count);
  if (request->has_queue) record_stage(stats, slot, STATS_QUEUE, request->queue_ns);
  for (int i = 0; i < image_count; i++) {
    record_stage(stats, slot, STATS_DECODE, images[i].decode_ns);
    record_stage(stats, slot, STATS_PREPROCESS, images[i].preprocess_ns);
    record_stage(stats, slot, STATS_INFERENCE, images[i].inference_ns);
  }
  if (request->has_total) record_stage(stats, slot, STATS_TOTAL, request->total_ns);
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
  uint64_t period = period_of(now);
  uint64_t slots = slots_of(window_seconds);
  memset(counts, 0, sizeof *counts);
  for (int s = 0; s < STATS_STAGES; s++) histogram_clear(&stages[s]);
  pthread_mutex_lock(&stats->mutex);
  for (int i = 0; i < STATS_SLOTS + 1; i++) {
    const struct slot *slot = &stats->slots[i];
    if (slot->period && slot->period + slots >= period) merge_slot(slot, counts, stages);
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
