/* How stages are cut into units. More units than participants let one that came late, or whose core was taken away, leave the
 * rest to the others; units that are too small cost more in claiming and in cache lines that move between cores than they
 * spread. */
#include "engine/plan.h"

enum {
  UNIT_BYTES = 8192, /* of input and output, of stages that are memory traffic: one to two microseconds */
  UNIT_WINDOWS = 512 /* corrections, of kernels of nine taps: about as long */
};

static int limit(uint64_t units, int most) {
  if (units < 1) return 1;
  return units < (uint64_t)most ? (int)units : most;
}

static uint64_t stage_bytes(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  uint64_t bytes = plan->tensors[stage->output].bytes;
  for (int i = 0; i < stage->input_count; i++) bytes += plan->tensors[stage->inputs[i]].bytes;
  return bytes;
}

/* Units of whole pixels, and of whole rows. */
static int by_pixels(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  const size_t pixels = plan_pixels(plan->tensors[stage->output].shape);
  return limit(stage_bytes(plan, stage) / UNIT_BYTES, pixels < INT16_MAX ? (int)pixels : INT16_MAX);
}
static int by_rows(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  const int rows = plan->tensors[stage->output].shape.height;
  return limit(stage_bytes(plan, stage) / UNIT_BYTES, rows < INT16_MAX ? rows : INT16_MAX);
}

static int conv_units(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  const struct plan_conv *conv = &stage->conv;
  (void)plan;
  return stage->epilogue.pack && stage->epilogue.unaligned ? conv->bands : conv->bands * plan_span_count(conv);
}

static int linear_units(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  (void)plan;
  return stage->epilogue.block_count;
}

/* Rows of corrections; input rows that two units need are summed twice. */
static int prepare_units(const struct plan_stage *stage) {
  const struct plan_conv *conv = &stage->conv;
  const uint64_t taps = (uint64_t)conv->window.kernel_height * (uint64_t)conv->window.kernel_width;
  const uint64_t work = (plan_pixels(conv->in) + plan_pixels(conv->out) * taps) / 10;
  return limit(work / UNIT_WINDOWS, conv->out.height);
}

/* Kinds of stages that are not here have one unit. */
static const struct {
  plan_run *run;
  int (*units)(const struct hwgq_plan *plan, const struct plan_stage *stage);
} kinds[] = {
    {run_conv, conv_units},  {run_linear, linear_units}, {run_input, by_pixels},         {run_chain, by_pixels},
    {run_unpack, by_pixels}, {run_add, by_pixels},       {run_concat, by_pixels},        {run_packed_concat, by_pixels},
    {run_max_pool, by_rows}, {run_avg_pool, by_rows},    {run_packed_max_pool, by_rows},
};

static uint64_t cost_ns(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  enum { BINARY_MACS = 500, FLOAT_MACS = 100, BYTES = 16 }; /* per nanosecond */
  return stage->macs / (stage->conv.form ? BINARY_MACS : FLOAT_MACS) + (stage_bytes(plan, stage) + stage->weight_bytes) / BYTES;
}

void plan_set_units(struct hwgq_plan *plan) {
  for (int s = 0; s < plan->stage_count; s++) {
    struct plan_stage *stage = &plan->stages[s];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      if (stage->run == kinds[k].run) stage->run_units = kinds[k].units(plan, stage);
    }
    if (stage->prepare) stage->prepare_units = prepare_units(stage);
    stage->cost_ns = cost_ns(plan, stage);
  }
}
