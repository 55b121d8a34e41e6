/* What happened to the requests of one network: counts by status code and durations by stage, since the start and over the last
 * seconds to minutes. /stats and /metrics read the same numbers. Writers and readers hold a short mutex; no one waits for
 * inference. */
#ifndef STATS_H
#define STATS_H

#include "server/histogram.h"

#include <stdbool.h>

enum stats_stage { STATS_QUEUE, STATS_DECODE, STATS_PREPROCESS, STATS_INFERENCE, STATS_TOTAL, STATS_STAGES };
const char *stats_stage_name(enum stats_stage stage);

enum {
  STATS_MAX_WINDOW = 300, /* seconds */
  STATS_FINE_WINDOW = 60, /* up to here a window is made of slots of 5 s, above of slots of 30 s */
  STATS_FINE_SECONDS = 5,
  STATS_COARSE_SECONDS = 30,
  STATS_BOUNDS = 20,    /* upper bounds of the Prometheus histogram, see stats_bounds */
  STATS_CODES = 16,     /* distinct status codes */
  STATS_CODE_GONE = 499 /* the client closed the connection before it had its answer */
};

/* Upper bounds (inclusive) of the Prometheus buckets, nanoseconds, increasing. */
extern const uint64_t stats_bounds[STATS_BOUNDS];

struct stats_counts {
  uint64_t ok, failed, rejected, expired, images;
  uint64_t shared; /* images that idle workers had a part in */
};

struct stats_code {
  int code; /* HTTP status; 0 ends the list */
  uint64_t count;
};

struct stats_stage_metrics {
  uint64_t count, sum, bounds[STATS_BOUNDS]; /* bounds[i]: values in (stats_bounds[i-1], stats_bounds[i]] */
};

/* One finished request. Durations of stages that did not happen are left out with `has`. */
struct stats_request {
  int code;
  bool has_queue, has_total;
  uint64_t queue_ns, total_ns;
};

struct stats_image {
  uint64_t decode_ns, preprocess_ns, inference_ns;
  bool shared; /* idle workers had a part in it */
};

struct stats_sum {
  uint64_t count, ns;
};

/* Sums since the start, as the statistics extension of the Open Inference Protocol has them. */
struct stats_totals {
  struct stats_sum success, failure; /* requests, with their total time as far as it is known */
  struct stats_sum queue;
  struct stats_sum input, inference; /* images: decoding and preprocessing; the network */
  uint64_t last;                     /* clock_now() of the last request with an image; 0: none */
};

struct stats;
struct stats *stats_create(void); /* NULL: no memory */
void stats_destroy(struct stats *stats);
uint64_t stats_bytes(void); /* of one struct stats */
/* Nanoseconds of work (all stages but waiting) that an image takes: the mean of the last 16 or so; 0: there was none. Waits for
 * nobody. */
uint64_t stats_image_ns(const struct stats *stats);
/* What to think of it until there was one. */
void stats_expect(struct stats *stats, uint64_t image_ns);
/* Adds one request and its `image_count` classified images at once, so that a reader sees all of it or nothing. `now`:
 * clock_now(). */
void stats_record(struct stats *stats, const struct stats_request *request, const struct stats_image *images, int image_count,
                  uint64_t now);

/* What stats_read covers at `now` when it is asked for the last `window_seconds`: whole slots that are at least so long, and as
 * much of the slot that is being filled as has passed; but nothing from before `started` (clock_now()). In seconds. */
double stats_window(int window_seconds, uint64_t started, uint64_t now);
/* A consistent copy. window_seconds 0: since the start; else the last stats_window seconds, for 1 to STATS_MAX_WINDOW.
 * stages[STATS_STAGES] must have room; it is overwritten. */
void stats_read(struct stats *stats, int window_seconds, uint64_t now, struct stats_counts *counts, struct histogram *stages);
/* As above for /metrics: codes[STATS_CODES], stages[STATS_STAGES]; always since the start. */
void stats_read_metrics(struct stats *stats, struct stats_code *codes, struct stats_stage_metrics *stages,
                        struct stats_counts *counts);

/* As above. */
void stats_read_totals(struct stats *stats, struct stats_totals *totals);

#endif
