/* What the engine makes of a network: stages, kernels, memory, thresholds after folding. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "models/tool/inspect.h"

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

enum hwgq_status inspect_stage(const struct hwgq_plan *plan, int stage, struct inspect_thresholds *summary,
                               struct hwgq_error *error) {
  const struct hwgq_thresholds first = hwgq_plan_thresholds(plan, stage, 0);
  *summary = (struct inspect_thresholds){.channels = first.channels, .integers = first.integers};
  if (!first.channels) return HWGQ_OK;
  double *values = malloc((size_t)first.channels * (size_t)first.count * sizeof *values);
  if (!values) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory for the thresholds of a stage");
  for (int c = 0; c < first.channels; c++) {
    const struct hwgq_thresholds folded = hwgq_plan_thresholds(plan, stage, c);
    summary->reversed += folded.reversed;
    summary->constant += folded.constant;
    for (int j = 0; j < folded.count && !folded.constant; j++) {
      if (isfinite(folded.thresholds[j])) values[summary->count++] = folded.thresholds[j];
    }
  }
  if (summary->count) {
    qsort(values, summary->count, sizeof *values, compare_doubles);
    summary->least = values[0];
    summary->median = values[summary->count / 2];
    summary->largest = values[summary->count - 1];
  }
  free(values);
  return HWGQ_OK;
}

/* "12 conv3", "end" for what is read after the last stage. */
static const char *stage_text(const struct hwgq_plan *plan, int stage, char text[40]) {
  if (stage >= hwgq_plan_stage_count(plan)) return "end";
  snprintf(text, 40, "%d %.24s", stage, hwgq_plan_stage(plan, stage).name);
  return text;
}

static void print_memory(const struct hwgq_plan *plan) {
  printf("\nscratch memory of a run: what lies where from which stage to which; of (own) each further thread of a run has its "
         "own\n");
  printf("%-20s %-28s %10s %10s  %-24s %s\n", "tensor", "what", "bytes", "offset", "first stage", "last stage");
  for (int i = 0; i < hwgq_plan_memory_count(plan); i++) {
    const struct hwgq_memory_info place = hwgq_plan_memory(plan, i);
    char what[32], first[40], last[40];
    snprintf(what, sizeof what, "%s%s", place.what, place.local ? " (own)" : "");
    printf("%-20.20s %-28s %10zu %10zu  %-24s %s\n", place.name, what, place.bytes, place.offset,
           stage_text(plan, place.first, first), stage_text(plan, place.last, last));
  }
}

enum hwgq_status inspect_print_plan(const struct hwgq_plan *plan, struct hwgq_error *error) {
  const int stages = hwgq_plan_stage_count(plan);
  printf("\nplan         %d stages on %s kernels, %zu bytes, and %zu bytes of scratch per run\n", stages, hwgq_plan_cpu(plan),
         hwgq_plan_bytes(plan), hwgq_plan_scratch_bytes(plan));
  printf("%-20s %-26s %14s %8s %8s %8s  %s\n", "stage", "kernel", "macs", "channels", "reversed", "constant",
         "thresholds: least, median, largest");
  for (int s = 0; s < stages; s++) {
    const struct hwgq_stage_info info = hwgq_plan_stage(plan, s);
    struct inspect_thresholds t;
    enum hwgq_status status = inspect_stage(plan, s, &t, error);
    if (status) return status;
    char macs[24] = "";
    if (info.macs) snprintf(macs, sizeof macs, "%" PRIu64, info.macs);
    printf("%-20s %-26s %14s", info.name, info.kernel, macs);
    if (t.channels) printf(" %8d %8d %8d", t.channels, t.reversed, t.constant);
    if (t.count) printf("  %.6g, %.6g, %.6g%s", t.least, t.median, t.largest, t.integers ? " (integers)" : "");
    printf("\n");
  }
  print_memory(plan);
  return HWGQ_OK;
}

static json_t *memory_json(const struct hwgq_plan *plan) {
  json_t *places = json_array();
  for (int i = 0; i < hwgq_plan_memory_count(plan); i++) {
    const struct hwgq_memory_info place = hwgq_plan_memory(plan, i);
    json_array_append_new(places, json_pack("{s:s,s:s,s:I,s:I,s:b,s:i,s:i}", "tensor", place.name, "what", place.what, "bytes",
                                            (json_int_t)place.bytes, "offset", (json_int_t)place.offset, "own",
                                            (int)place.local, "first_stage", place.first, "last_stage", place.last));
  }
  return places;
}

static json_t *thresholds_json(const struct inspect_thresholds *t) {
  if (!t->channels) return json_null();
  json_t *json = json_pack("{s:i,s:i,s:i,s:b}", "channels", t->channels, "reversed", t->reversed, "constant", t->constant,
                           "integers", (int)t->integers);
  if (json && t->count) {
    json_object_set_new(json, "least", json_real(t->least));
    json_object_set_new(json, "median", json_real(t->median));
    json_object_set_new(json, "largest", json_real(t->largest));
  }
  return json;
}

enum hwgq_status inspect_plan_json(const struct hwgq_plan *plan, json_t **json, struct hwgq_error *error) {
  json_t *stages = json_array();
  for (int s = 0; s < hwgq_plan_stage_count(plan); s++) {
    const struct hwgq_stage_info info = hwgq_plan_stage(plan, s);
    struct inspect_thresholds t;
    enum hwgq_status status = inspect_stage(plan, s, &t, error);
    if (status) {
      json_decref(stages);
      return status;
    }
    json_array_append_new(stages, json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:o}", "name", info.name, "kernel", info.kernel, "macs",
                                            (json_int_t)info.macs, "weight_bytes", (json_int_t)info.weight_bytes, "input_bytes",
                                            (json_int_t)info.input_bytes, "output_bytes", (json_int_t)info.output_bytes,
                                            "thresholds", thresholds_json(&t)));
  }
  *json = json_pack("{s:s,s:I,s:I,s:o,s:o}", "kernels", hwgq_plan_cpu(plan), "bytes", (json_int_t)hwgq_plan_bytes(plan),
                    "scratch_bytes", (json_int_t)hwgq_plan_scratch_bytes(plan), "stages", stages, "memory", memory_json(plan));
  return *json ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
}
