/* Gives every tensor its place in the scratch memory: largest first, each at the lowest offset where it does not overlap a
 * placed tensor that exists during one of the same stages. Local temporaries have memory of their own, one copy for each
 * participant of a run. */
#include <stdlib.h>

#include "engine/plan.h"

enum { ALIGNMENT = 64 };

/* Scratch memory of one run: far above every sensible network, and what a worker could still get. */
#define MAX_SCRATCH_BYTES ((uint64_t)4 << 30)

static void use(struct hwgq_plan *plan, int tensor, int stage) {
  struct plan_tensor *t = &plan->tensors[tensor];
  if (stage < t->first) t->first = stage;
  if (stage > t->last) t->last = stage;
}

static void set_lifetimes(struct hwgq_plan *plan) {
  for (int i = 0; i < plan->tensor_count; i++) {
    plan->tensors[i].first = plan->stage_count;
    plan->tensors[i].last = -1;
  }
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    for (int i = 0; i < stage->input_count; i++) use(plan, stage->inputs[i], s);
    use(plan, stage->output, s);
    if (stage->second_output >= 0) use(plan, stage->second_output, s);
    for (int i = 0; i < PLAN_TEMPORARIES; i++) {
      if (stage->temporaries[i] < 0) continue;
      use(plan, stage->temporaries[i], s);
      plan->tensors[stage->temporaries[i]].local = !(PLAN_SHARED_TEMPORARIES >> i & 1);
    }
  }
  use(plan, plan->output_tensor, plan->stage_count);
  if (!plan->keep_all_layers) return;
  for (int i = 0; i < plan->tensor_count; i++) {
    if (plan->tensors[i].format == PLAN_TEMPORARY) continue;
    use(plan, i, 0);
    use(plan, i, plan->stage_count);
  }
}

/* A tensor takes over another one's memory when that is read for the last time by the stage that begins it. Both then exist as
 * long as the first of them, whose place counts. */
static void share_places(struct hwgq_plan *plan) {
  for (int i = 0; i < plan->tensor_count; i++) {
    struct plan_tensor *tensor = &plan->tensors[i];
    if (tensor->in_place < 0) continue;
    const struct plan_tensor *before = &plan->tensors[tensor->in_place];
    const bool same = tensor->bytes == before->bytes && tensor->blocked == before->blocked;
    if (!same || before->last != tensor->first) {
      tensor->in_place = -1;
      continue;
    }
    int owner = tensor->in_place; /* tensors share with earlier ones only, which are settled */
    while (plan->tensors[owner].in_place >= 0) owner = plan->tensors[owner].in_place;
    tensor->in_place = owner;
  }
  for (int i = 0; i < plan->tensor_count; i++) {
    const struct plan_tensor *tensor = &plan->tensors[i];
    if (tensor->in_place >= 0 && tensor->last > plan->tensors[tensor->in_place].last) {
      plan->tensors[tensor->in_place].last = tensor->last;
    }
  }
}

static int by_size(const void *a, const void *b) {
  const struct plan_tensor *x = *(struct plan_tensor *const *)a, *y = *(struct plan_tensor *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x < y ? -1 : 1; /* the same layout every time */
}

/* `placed` is sorted by offset. */
static size_t lowest_gap(const struct plan_tensor *tensor, struct plan_tensor *const *placed, size_t count) {
  size_t offset = 0;
  for (size_t i = 0; i < count; i++) {
    const struct plan_tensor *other = placed[i];
    if (other->last < tensor->first || other->first > tensor->last) continue;
    if (offset + tensor->bytes <= other->offset) break;
    if (other->offset + other->bytes > offset) offset = other->offset + other->bytes;
  }
  return offset;
}

/* Keeps `placed` sorted by offset. */
static void insert(struct plan_tensor **placed, size_t count, struct plan_tensor *tensor) {
  size_t i = count;
  for (; i > 0 && placed[i - 1]->offset > tensor->offset; i--) placed[i] = placed[i - 1];
  placed[i] = tensor;
}

/* Places the local tensors, or the others, in memory of their own. `order` and `placed`: room for all tensors. Returns its
 * bytes, above MAX_SCRATCH_BYTES as soon as they are too many. */
static uint64_t place(struct hwgq_plan *plan, bool local, struct plan_tensor **order, struct plan_tensor **placed) {
  uint64_t all = 0;
  size_t count = 0, placed_count = 0;
  for (int i = 0; i < plan->tensor_count; i++) {
    struct plan_tensor *tensor = &plan->tensors[i];
    if (tensor->local != local) continue;
    if (tensor->bytes > MAX_SCRATCH_BYTES) return MAX_SCRATCH_BYTES + 1;
    tensor->bytes = (tensor->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    order[count++] = tensor;
  }
  qsort(order, count, sizeof *order, by_size);
  for (size_t i = 0; i < count && all <= MAX_SCRATCH_BYTES; i++) {
    if (order[i]->in_place >= 0) continue;
    order[i]->offset = lowest_gap(order[i], placed, placed_count);
    if (order[i]->offset + order[i]->bytes > all) all = order[i]->offset + order[i]->bytes;
    insert(placed, placed_count++, order[i]);
  }
  return all;
}

enum hwgq_status plan_place_buffers(struct plan_builder *builder) {
  struct hwgq_plan *plan = builder->plan;
  const size_t count = (size_t)plan->tensor_count;
  set_lifetimes(plan);
  share_places(plan);
  struct plan_tensor **order = malloc(count * 2 * sizeof *order);
  if (!order) return plan_out_of_memory(builder);
  const uint64_t shared = place(plan, false, order, order + count), local = place(plan, true, order, order + count);
  free(order);
  for (size_t i = 0; i < count; i++) {
    if (plan->tensors[i].in_place >= 0) plan->tensors[i].offset = plan->tensors[plan->tensors[i].in_place].offset;
  }
  if (shared + local > MAX_SCRATCH_BYTES) {
    return hwgq_fail(builder->error, HWGQ_ERROR_LIMIT,
                     "network '%s' needs more than %llu MB of memory for one image: use a smaller input or fewer channels",
                     builder->network->name, (unsigned long long)(MAX_SCRATCH_BYTES >> 20));
  }
  plan->shared_bytes = shared > 0 ? (size_t)shared : ALIGNMENT;
  plan->local_bytes = (size_t)local;
  return HWGQ_OK;
}
