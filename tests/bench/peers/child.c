#include "tests/bench/peers/child.h"
#include "tests/bench/peers/images.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void child_die(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

static void *read_file(const char *prefix, const char *ending, size_t bytes) {
  char path[1024];
  snprintf(path, sizeof path, "%s.%s", prefix, ending);
  FILE *file = fopen(path, "rb");
  void *data = malloc(bytes);
  if (!file || !data || fread(data, 1, bytes, file) != bytes) child_die("cannot read %zu bytes of %s", bytes, path);
  fclose(file);
  return data;
}

struct child_inputs child_read_inputs(const char *prefix, struct hwgq_shape shape) {
  struct child_inputs inputs = {.count = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width};
  inputs.pixels = read_file(prefix, "pixels", PEER_IMAGES * inputs.count);
  inputs.values = read_file(prefix, "input", PEER_IMAGES * inputs.count * sizeof *inputs.values);
  return inputs;
}

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec * 1e-3;
}

static void go(const struct child_engine *engine, int runs) {
  double *times = calloc((size_t)runs, sizeof *times);
  if (!times) child_die("out of memory for %d runs", runs);
  for (int i = 0; i < runs; i++) {
    engine->select(engine->state, i % PEER_IMAGES);
    const double start = microseconds();
    engine->run(engine->state);
    times[i] = microseconds() - start;
  }
  printf("{\"us\":[");
  for (int i = 0; i < runs; i++) printf("%s%.3f", i ? "," : "", times[i]);
  printf("]}\n");
  free(times);
}

static void check(const struct child_engine *engine, int number) {
  engine->select(engine->state, number);
  const float *scores = engine->run(engine->state);
  printf("{\"scores\":[");
  for (int i = 0; i < engine->classes; i++) printf("%s%.9g", i ? "," : "", (double)scores[i]);
  printf("]}\n");
}

int child_serve(const struct child_engine *engine) {
  char line[64];
  int number;
  printf("{\"ready\":\"%s\",\"softmax\":%s}\n", engine->description, engine->softmax ? "true" : "false");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "check %d", &number) == 1 && number >= 0 && number < PEER_IMAGES) {
      check(engine, number);
    } else if (sscanf(line, "go %d", &number) == 1 && number > 0 && number <= 1000000) {
      go(engine, number);
    } else {
      child_die("unknown request: %s", line);
    }
    fflush(stdout);
  }
  return 0;
}
