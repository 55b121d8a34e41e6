#include "models/tool/bench_end.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/classify/classify.h"
#include "models/tool/bench_jpeg.h"
#include "models/tool/bench_report.h"

enum { ROUNDS = 5, MAX_FILE_BYTES = 64 << 20 };

/* ---- image files --------------------------------------------------------------------------------------------------------- */

struct file {
  const char *name;
  uint8_t *bytes;
  size_t length;
};

static enum hwgq_status read_image(const char *path, struct file *file, struct hwgq_error *error) {
  FILE *stream = fopen(path, "rb");
  if (!stream) return hwgq_fail(error, HWGQ_ERROR_IO, "%s: %s", path, strerror(errno));
  enum hwgq_status status = HWGQ_OK;
  long length = fseek(stream, 0, SEEK_END) ? -1 : ftell(stream);
  if (length < 0) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "%s: not a regular file", path);
  } else if (length > MAX_FILE_BYTES) {
    status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: larger than %d MiB", path, MAX_FILE_BYTES >> 20);
  } else if (!(file->bytes = malloc((size_t)length + 1))) {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", path);
  } else {
    rewind(stream);
    file->length = fread(file->bytes, 1, (size_t)length, stream);
    if (file->length != (size_t)length) status = hwgq_fail(error, HWGQ_ERROR_IO, "%s: cannot be read", path);
  }
  fclose(stream);
  return status;
}

static void release_files(struct file *files, int count) {
  for (int i = 0; i < count; i++) free(files[i].bytes);
  free(files);
}

static enum hwgq_status read_files(const struct bench_end_options *options, struct file **files, int *count,
                                   struct hwgq_error *error) {
  *count = options->image_count ? options->image_count : 1;
  *files = calloc((size_t)*count, sizeof **files);
  if (!*files) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  enum hwgq_status status = HWGQ_OK;
  for (int i = 0; i < *count; i++) (*files)[i].name = options->image_count ? options->images[i] : "the made up image";
  for (int i = 0; i < options->image_count && !status; i++) status = read_image(options->images[i], &(*files)[i], error);
  if (!options->image_count) status = bench_jpeg(32, 32, &(*files)[0].bytes, &(*files)[0].length, error);
  if (status) release_files(*files, *count);
  return status;
}

/* ---- workers ------------------------------------------------------------------------------------------------------------- */

enum { WAIT, GO, CANCEL };

/* What all workers of a round share. */
struct round {
  const struct classifier *classifier;
  const struct file *files;
  int file_count;
  atomic_int ready, signal;
  double end; /* bench_seconds; written before GO */
};

struct worker {
  struct round *round;
  struct classify_scratch *scratch;
  pthread_t thread;
  uint64_t images, decode_ns, preprocess_ns, inference_ns;
  double cpu_seconds;
  enum hwgq_status status;
  struct hwgq_error error;
};

static void classify_one(struct worker *worker, uint64_t number) {
  const struct file *file = &worker->round->files[number % (uint64_t)worker->round->file_count];
  struct classify_result result;
  struct hwgq_error error;
  worker->status = classify_bytes(worker->round->classifier, worker->scratch, file->bytes, file->length, NULL, &result, &error);
  if (worker->status) {
    hwgq_fail(&worker->error, worker->status, "%.200s: %.300s", file->name, error.message);
    return;
  }
  worker->decode_ns += result.decode_ns;
  worker->preprocess_ns += result.preprocess_ns;
  worker->inference_ns += result.inference_ns;
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct round *round = worker->round;
  worker->status = classify_scratch_create(round->classifier, &worker->scratch, &worker->error);
  for (int i = 0; i < round->file_count && !worker->status; i++) classify_one(worker, (uint64_t)i); /* warm */
  atomic_fetch_add(&round->ready, 1);
  while (atomic_load(&round->signal) == WAIT) sched_yield();
  if (atomic_load(&round->signal) == GO && !worker->status) {
    worker->decode_ns = worker->preprocess_ns = worker->inference_ns = 0;
    const double start = bench_cpu_seconds();
    do { /* one at least, however busy the machine */
      classify_one(worker, worker->images++);
    } while (bench_seconds() < round->end && !worker->status);
    worker->cpu_seconds = bench_cpu_seconds() - start;
  }
  classify_scratch_destroy(worker->scratch);
  return NULL;
}

/* Of one number of workers, over its rounds. */
struct totals {
  int workers;
  double rates[ROUNDS], seconds;
  double images, decode_us, preprocess_us, inference_us, cpu_us; /* sums over all images */
};

static void add_worker(struct totals *totals, const struct worker *worker) {
  totals->images += (double)worker->images;
  totals->decode_us += (double)worker->decode_ns * 1e-3;
  totals->preprocess_us += (double)worker->preprocess_ns * 1e-3;
  totals->inference_us += (double)worker->inference_ns * 1e-3;
  totals->cpu_us += worker->cpu_seconds * 1e6;
}

static enum hwgq_status run_round(struct round *round, struct totals *totals, int number, double seconds,
                                  struct hwgq_error *error) {
  struct worker *workers = calloc((size_t)totals->workers, sizeof *workers);
  if (!workers) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  int started = 0;
  atomic_store(&round->ready, 0);
  atomic_store(&round->signal, WAIT);
  for (; started < totals->workers; started++) {
    workers[started].round = round;
    if (pthread_create(&workers[started].thread, NULL, work, &workers[started])) break;
  }
  const bool all = started == totals->workers;
  while (atomic_load(&round->ready) < started) sched_yield();
  const double start = bench_seconds();
  round->end = start + seconds;
  atomic_store(&round->signal, all ? GO : CANCEL);
  for (int i = 0; i < started; i++) pthread_join(workers[i].thread, NULL);
  const double took = bench_seconds() - start, before = totals->images;
  enum hwgq_status status = HWGQ_OK;
  if (!all) status = hwgq_fail(error, HWGQ_ERROR_IO, "bench: cannot start %d threads: use fewer --workers", totals->workers);
  for (int i = 0; i < started && !status; i++) {
    status = workers[i].status;
    if (status && error) *error = workers[i].error;
    add_worker(totals, &workers[i]);
  }
  totals->seconds += took;
  totals->rates[number] = (totals->images - before) / took;
  free(workers);
  return status;
}

/* ---- report -------------------------------------------------------------------------------------------------------------- */

/* Noisy by the rule of bench_measure.h, with rounds in the place of runs, and the worst of the numbers of workers. */
static struct bench_noise noise_of(const struct totals *totals, const struct bench_spread *rate, int count, double before,
                                   double after) {
  struct bench_noise noise = {.core_share = 1};
  for (int i = 0; i < count; i++) {
    const double ratio = rate[i].most / rate[i].median;
    const double share = totals[i].cpu_us * 1e-6 / (totals[i].seconds * totals[i].workers);
    if (ratio > noise.median_over_least) noise.median_over_least = ratio;
    if (share < noise.core_share) noise.core_share = share;
  }
  if (before > 0 && after > 0) noise.clock_change = (before > after ? before / after : after / before) - 1;
  return noise;
}

struct report {
  const struct bench_end_options *options;
  char cpu[128];
  double hertz;
  const char *kernels;
  struct totals *totals; /* one worker, and all when they are several */
  struct bench_spread rate[2];
  int count;
  struct bench_noise noise;
};

static void write_text(struct text *out, const struct report *r) {
  text_printf(out, "%s\n%s, ", r->options->what, r->cpu);
  if (r->hertz > 0) text_printf(out, "%.2f GHz measured, ", r->hertz / 1e9);
  text_printf(out, "kernel set %s, %d rounds that take turns; from image bytes to scores, without HTTP: ", r->kernels, ROUNDS);
  if (r->options->image_count) {
    text_printf(out, "%d image file%s\n\n", r->options->image_count, r->options->image_count > 1 ? "s" : "");
  } else {
    text_puts(out, "a JPEG of 32x32 pixels\n\n");
  }
  text_printf(out, "%7s %10s %9s %9s %12s %9s %11s %10s\n", "workers", "images/s", "min", "max", "us of a core", "decoding",
              "preprocess", "inference");
  for (int i = 0; i < r->count; i++) {
    const struct totals *t = &r->totals[i];
    text_printf(out, "%7d %10.1f %9.1f %9.1f %12.1f %9.1f %11.1f %10.1f\n", t->workers, r->rate[i].median, r->rate[i].least,
                r->rate[i].most, t->cpu_us / t->images, t->decode_us / t->images, t->preprocess_us / t->images,
                t->inference_us / t->images);
  }
  if (r->count > 1) {
    text_printf(out, "\n%d workers reach %.3f times the throughput of one\n", r->totals[1].workers,
                r->rate[1].median / r->rate[0].median);
  }
  bench_write_warning(out, &r->noise);
}

static void write_json(struct text *out, const struct report *r) {
  text_puts(out, "{\"network\":");
  text_json_string(out, r->options->what);
  text_puts(out, ",\"cpu\":");
  text_json_string(out, r->cpu);
  text_printf(out, ",\"clock_ghz\":%.3f,\"kernels\":\"%s\",\"batch\":1,\"rounds\":%d,\"images\":%d,", r->hertz / 1e9,
              r->kernels, ROUNDS, r->options->image_count);
  bench_json_noise(out, &r->noise);
  text_puts(out, ",\"end_to_end\":[");
  for (int i = 0; i < r->count; i++) {
    const struct totals *t = &r->totals[i];
    text_printf(out, "%s{\"workers\":%d,\"images_per_second\":", i ? "," : "", t->workers);
    bench_json_spread(out, &r->rate[i]);
    text_printf(out, ",\"us\":{\"cpu\":%.3f,\"decode\":%.3f,\"preprocess\":%.3f,\"inference\":%.3f}}", t->cpu_us / t->images,
                t->decode_us / t->images, t->preprocess_us / t->images, t->inference_us / t->images);
  }
  text_puts(out, "]}\n");
}

/* ---- all ----------------------------------------------------------------------------------------------------------------- */

static enum hwgq_status measure(const struct bench_end_options *options, const struct classifier *classifier,
                                const struct file *files, int file_count, struct text *out, struct hwgq_error *error) {
  struct round round = {.classifier = classifier, .files = files, .file_count = file_count};
  struct totals totals[2] = {{.workers = 1}, {.workers = options->workers}};
  struct report report = {
      .options = options, .kernels = hwgq_plan_cpu(classifier->plan), .totals = totals, .count = options->workers > 1 ? 2 : 1};
  enum hwgq_status status = HWGQ_OK;
  const double before = bench_core_clock(), seconds = options->seconds / (ROUNDS * report.count);
  for (int number = 0; number < ROUNDS; number++) {
    for (int i = 0; i < report.count && !status; i++) status = run_round(&round, &totals[i], number, seconds, error);
  }
  if (status) return status;
  const double after = bench_core_clock();
  for (int i = 0; i < report.count; i++) report.rate[i] = bench_spread_of(totals[i].rates, ROUNDS);
  report.noise = noise_of(totals, report.rate, report.count, before, after);
  report.hertz = before > after ? before : after;
  bench_cpu_model(report.cpu);
  if (options->json) {
    write_json(out, &report);
  } else {
    write_text(out, &report);
  }
  return HWGQ_OK;
}

enum hwgq_status bench_end_to_end(const struct bench_end_options *options, struct text *out, struct hwgq_error *error) {
  struct classifier *classifier;
  struct file *files;
  int file_count;
  enum hwgq_status status = classifier_open(options->model, options->cpu, &classifier, error);
  if (status) return status;
  status = read_files(options, &files, &file_count, error);
  if (!status) {
    status = measure(options, classifier, files, file_count, out, error);
    release_files(files, file_count);
  }
  classifier_destroy(classifier);
  return status;
}
