/* Histogram, statistics and queue of the daemon. */
#include "server/clock.h"
#include "server/histogram.h"
#include "server/queue.h"
#include "server/stats.h"
#include "tests/support/support.h"

#include <check.h>
#include <stdlib.h>

START_TEST(buckets_follow_each_other_without_gaps) {
  for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
    uint64_t start = histogram_bucket_start(i), next = histogram_bucket_start(i + 1);
    ck_assert_uint_lt(start, next);
    ck_assert_int_eq(histogram_bucket(start), i);
    ck_assert_int_eq(histogram_bucket(next - 1), i);
    /* half a bucket is at most 1 % of any value in it */
    ck_assert(next - start == 1 || (double)(next - start) / 2 <= 0.01 * (double)start);
  }
  ck_assert_uint_eq(histogram_bucket_start(HISTOGRAM_BUCKETS), UINT64_C(1) << HISTOGRAM_OCTAVES);
  ck_assert_int_eq(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}
END_TEST

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

START_TEST(quantiles_are_true_within_one_percent) {
  enum { COUNT = 20000 };
  static const double quantiles[] = {0, 0.001, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
  struct support_random random = {(uint64_t)_i};
  static uint64_t values[COUNT];
  struct histogram *histogram = malloc(sizeof *histogram);
  uint64_t sum = 0;
  histogram_clear(histogram);
  for (int i = 0; i < COUNT; i++) {
    int octave = support_random_int(&random, 0, 36); /* all magnitudes, from nanoseconds to minutes */
    values[i] = support_random_next(&random) >> (64 - 1 - octave);
    histogram_record(histogram, values[i]);
    sum += values[i];
  }
  qsort(values, COUNT, sizeof values[0], compare);
  ck_assert_uint_eq(histogram->count, COUNT);
  ck_assert_uint_eq(histogram->sum, sum);
  ck_assert_uint_eq(histogram->min, values[0]);
  ck_assert_uint_eq(histogram->max, values[COUNT - 1]);
  for (size_t i = 0; i < sizeof quantiles / sizeof quantiles[0]; i++) {
    int rank = (int)(quantiles[i] * COUNT + 0.9999999);
    double truth = (double)values[rank > 0 ? rank - 1 : 0], found = (double)histogram_quantile(histogram, quantiles[i]);
    ck_assert_double_eq_tol(found, truth, 0.01 * truth + 0.5);
  }
  free(histogram);
}
END_TEST

START_TEST(quantiles_of_few_values) {
  struct histogram *histogram = malloc(sizeof *histogram);
  histogram_clear(histogram);
  ck_assert_uint_eq(histogram_quantile(histogram, 0.5), 0);
  histogram_record(histogram, 1000003);
  /* one value is every quantile, exactly: a quantile never leaves [min, max] */
  ck_assert_uint_eq(histogram_quantile(histogram, 0.01), 1000003);
  ck_assert_uint_eq(histogram_quantile(histogram, 0.999), 1000003);
  histogram_record(histogram, UINT64_C(1) << 40); /* beyond the last bucket */
  ck_assert_uint_eq(histogram_quantile(histogram, 1), UINT64_C(1) << 40);
  ck_assert_double_eq_tol((double)histogram_quantile(histogram, 0.5), 1000003.0, 10000.0);
  free(histogram);
}
END_TEST

static struct histogram stages[STATS_STAGES];

START_TEST(sums_tell_success_from_failure) {
  struct stats *stats = stats_create();
  struct stats_totals totals;
  const struct stats_image images[2] = {{1000, 200, 3000, false}, {1500, 250, 3500, true}};
  const int codes[] = {200, 422, 200, 503, 499};
  uint64_t now = 77 * CLOCK_SECOND;
  stats_read_totals(stats, &totals);
  ck_assert_uint_eq(totals.last, 0);
  for (uint64_t i = 0; i < 5; i++) {
    bool queued = codes[i] != 503, done = queued && codes[i] != 499;
    struct stats_request request = {
        .code = codes[i], .has_queue = queued, .has_total = done, .queue_ns = 10, .total_ns = 1000 * (i + 1)};
    stats_record(stats, &request, images, codes[i] == 200 ? 2 : 0, now + i);
  }
  stats_read_totals(stats, &totals);
  ck_assert_uint_eq(totals.success.count, 2);
  ck_assert_uint_eq(totals.success.ns, 1000 + 3000);
  ck_assert_uint_eq(totals.failure.count, 3);
  ck_assert_uint_eq(totals.failure.ns, 2000);
  ck_assert_uint_eq(totals.queue.count, 4);
  ck_assert_uint_eq(totals.queue.ns, 40);
  ck_assert_uint_eq(totals.input.count, 4);
  ck_assert_uint_eq(totals.input.ns, 2 * (1000 + 200 + 1500 + 250));
  ck_assert_uint_eq(totals.inference.ns, 2 * (3000 + 3500));
  ck_assert_uint_eq(totals.last, now + 2);
  stats_destroy(stats);
}
END_TEST

START_TEST(requests_are_counted_by_what_became_of_them) {
  struct stats *stats = stats_create();
  struct stats_counts counts;
  struct stats_code codes[STATS_CODES];
  struct stats_stage_metrics metrics[STATS_STAGES];
  const struct stats_image images[2] = {{1000, 2000, 3000, true}, {1500, 2500, 3500, false}};
  const int sent[] = {200, 200, 415, 422, 503, 504, 499};
  struct stats_counts metric_counts;
  uint64_t now = 1000 * CLOCK_SECOND;
  for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
    struct stats_request request = {
        .code = sent[i], .has_queue = true, .has_total = true, .queue_ns = 10000, .total_ns = 30000};
    stats_record(stats, &request, images, sent[i] == 200 ? 2 : 0, now);
  }
  stats_read(stats, 0, now, &counts, stages);
  ck_assert_uint_eq(counts.ok, 2);
  ck_assert_uint_eq(counts.failed, 3);
  ck_assert_uint_eq(counts.rejected, 1);
  ck_assert_uint_eq(counts.expired, 1);
  ck_assert_uint_eq(counts.images, 4);
  ck_assert_uint_eq(counts.shared, 2);
  ck_assert_uint_eq(stages[STATS_DECODE].count, 4);
  ck_assert_uint_eq(stages[STATS_DECODE].min, 1000);
  ck_assert_uint_eq(stages[STATS_INFERENCE].max, 3500);
  ck_assert_uint_eq(stages[STATS_TOTAL].count, 7);
  /* /metrics tells the same */
  stats_read_metrics(stats, codes, metrics, &metric_counts);
  uint64_t total = 0;
  for (int i = 0; i < STATS_CODES && codes[i].code; i++) {
    total += codes[i].count;
    if (codes[i].code == 200) ck_assert_uint_eq(codes[i].count, 2);
  }
  ck_assert_uint_eq(total, 7);
  ck_assert_uint_eq(metric_counts.images, 4);
  ck_assert_uint_eq(metric_counts.shared, 2);
  for (int s = 0; s < STATS_STAGES; s++) {
    ck_assert_uint_eq(metrics[s].count, stages[s].count);
    ck_assert_uint_eq(metrics[s].sum, stages[s].sum);
  }
  ck_assert_uint_eq(metrics[STATS_QUEUE].bounds[0], 7); /* 10000 ns is the first bound, inclusive */
  ck_assert_uint_eq(metrics[STATS_TOTAL].bounds[0], 0);
  ck_assert_uint_eq(metrics[STATS_TOTAL].bounds[2], 7); /* 25 to 50 us */
  stats_destroy(stats);
}
END_TEST

START_TEST(the_window_forgets) {
  struct stats *stats = stats_create();
  struct stats_counts counts;
  uint64_t start = 12345 * CLOCK_SECOND;
  /* one request a second, for ten minutes: the ring of slots turns many times */
  for (uint64_t second = 0; second < 600; second++) {
    struct stats_request request = {.code = 200, .has_total = true, .total_ns = second * 1000};
    stats_record(stats, &request, NULL, 0, start + second * CLOCK_SECOND);
  }
  uint64_t now = start + 599 * CLOCK_SECOND;
  stats_read(stats, 0, now, &counts, stages);
  ck_assert_uint_eq(counts.ok, 600);
  stats_read(stats, 60, now, &counts, stages);
  ck_assert_uint_ge(counts.ok, 60);
  ck_assert_uint_le(counts.ok, 65);
  ck_assert_uint_eq(stages[STATS_TOTAL].max, 599000);
  ck_assert_uint_ge(stages[STATS_TOTAL].min, 534000);
  ck_assert_uint_eq(stages[STATS_TOTAL].count, counts.ok);
  stats_read(stats, 5, now, &counts, stages);
  ck_assert_uint_ge(counts.ok, 5);
  ck_assert_uint_le(counts.ok, 10);
  /* and says what it covers: whole slots and the one being filled, of a request a second each */
  for (int window = 1; window <= STATS_MAX_WINDOW; window++) {
    double covered = stats_window(window, start, now);
    int slot = window <= STATS_FINE_WINDOW ? STATS_FINE_SECONDS : STATS_COARSE_SECONDS;
    stats_read(stats, window, now, &counts, stages);
    ck_assert_double_ge(covered, window);
    ck_assert_double_lt(covered, window + 2 * slot);
    ck_assert_uint_eq(counts.ok, (uint64_t)covered + 1); /* both ends count */
  }
  /* but never more than there has been */
  ck_assert_double_eq(stats_window(60, now, now + 7 * CLOCK_SECOND), 7);
  ck_assert_double_eq(stats_window(300, now, now + 299 * CLOCK_SECOND), 299);
  ck_assert_double_ge(stats_window(60, now, now + 100 * CLOCK_SECOND), 60);
  ck_assert_double_lt(stats_window(60, now, now + 100 * CLOCK_SECOND), 70);
  stats_read(stats, 300, now + 400 * CLOCK_SECOND, &counts, stages);
  ck_assert_uint_eq(counts.ok, 0);
  /* a minute of silence empties it, without anyone turning the slots */
  stats_read(stats, 60, now + 66 * CLOCK_SECOND, &counts, stages);
  ck_assert_uint_eq(counts.ok, 0);
  ck_assert_uint_eq(stages[STATS_TOTAL].count, 0);
  stats_destroy(stats);
}
END_TEST

enum { THREADS = 4, EACH = 20000 };

static void *record_many(void *argument) {
  const struct stats_image image = {100, 200, 300, false};
  for (int i = 0; i < EACH; i++) {
    struct stats_request request = {.code = 200, .has_queue = true, .has_total = true, .queue_ns = 5, .total_ns = 7};
    stats_record(argument, &request, &image, 1, clock_now());
  }
  return NULL;
}

/* A reader sees whole requests only: images, stages and counts always agree. */
START_TEST(readers_and_writers_agree) {
  struct stats *stats = stats_create();
  struct stats_counts counts = {0};
  pthread_t threads[THREADS];
  for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_create(&threads[i], NULL, record_many, stats), 0);
  while (counts.ok < (uint64_t)THREADS * EACH) {
    stats_read(stats, 0, clock_now(), &counts, stages);
    ck_assert_uint_eq(counts.images, counts.ok);
    ck_assert_uint_eq(stages[STATS_TOTAL].count, counts.ok);
    ck_assert_uint_eq(stages[STATS_DECODE].count, counts.ok);
  }
  for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  stats_destroy(stats);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_stats");
  TCase *tests = tcase_create("stats");
  tcase_set_timeout(tests, 60);
  tcase_add_test(tests, buckets_follow_each_other_without_gaps);
  tcase_add_loop_test(tests, quantiles_are_true_within_one_percent, 0, 5);
  tcase_add_test(tests, quantiles_of_few_values);
  tcase_add_test(tests, requests_are_counted_by_what_became_of_them);
  tcase_add_test(tests, sums_tell_success_from_failure);
  tcase_add_test(tests, the_window_forgets);
  tcase_add_test(tests, readers_and_writers_agree);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
