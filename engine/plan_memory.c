/* Describes the scratch memory of a plan. */
#include "engine/plan.h"

static const char *const temporary_names[PLAN_TEMPORARIES] = {
    [TEMP_ACCUMULATORS] = "accumulators", [TEMP_POOLED] = "pooled accumulators", [TEMP_SUMS] = "sums of levels",
    [TEMP_CORRECTIONS] = "corrections",   [TEMP_PLANE] = "sums of one plane",    [TEMP_BITS] = "bits before alignment",
    [TEMP_CODES] = "codes of look-ups",   [TEMP_SLICED] = "bit-sliced sums",     [TEMP_POWERS] = "exponentials",
    [TEMP_PIXELS] = "padded pixels",
};

/* Tensors that some stage uses. */
static bool is_used(const struct plan_tensor *tensor) {
  return tensor->last >= tensor->first;
}

int hwgq_plan_memory_count(const struct hwgq_plan *plan) {
  int count = 0;
  for (int i = 0; i < plan->tensor_count; i++) count += is_used(&plan->tensors[i]);
  return count;
}

static const char *layer_of(const struct hwgq_plan *plan, int tensor) {
  if (tensor == plan->input_tensor) return "input";
  for (int i = 0; i < plan->layer_count; i++) {
    if (plan->layer_tensors[i] == tensor) return plan->layer_names[i];
  }
  const int first = plan->tensors[tensor].first;
  return plan->stages[first < plan->stage_count ? first : plan->stage_count - 1].name;
}

static const char *what_of(const struct hwgq_plan *plan, int tensor) {
  const struct plan_tensor *t = &plan->tensors[tensor];
  if (t->format != PLAN_TEMPORARY) return t->format == PLAN_FLOAT ? "float32" : "levels";
  for (int i = 0; t->first < plan->stage_count && i < PLAN_TEMPORARIES; i++) {
    if (plan->stages[t->first].temporaries[i] == tensor && temporary_names[i]) return temporary_names[i];
  }
  return "temporary";
}

struct hwgq_memory_info hwgq_plan_memory(const struct hwgq_plan *plan, int place) {
  int tensor = 0;
  for (int i = 0; i < plan->tensor_count; i++) {
    if (!is_used(&plan->tensors[i])) continue;
    tensor = i;
    if (place-- == 0) break;
  }
  const struct plan_tensor *t = &plan->tensors[tensor];
  return (struct hwgq_memory_info){.name = layer_of(plan, tensor),
                                   .what = what_of(plan, tensor),
                                   .bytes = t->bytes,
                                   .offset = t->offset,
                                   .local = t->local,
                                   .first = t->first,
                                   .last = t->last};
}
