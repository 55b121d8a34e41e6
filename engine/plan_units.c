/* How stages are cut into units. More units than participants let one that came late, or whose core was taken away, leave the
 * rest to the others; units that are too small cost more in claiming and in cache lines that move between cores than they
 * spread. */
#include "engine/plan.h"

enum {
  UNIT_BYTES = 32768, /* of input and output, of stages that are memory traffic: about a microsecond */
  FEWEST = 4,         /* what would be fewer units is not worth sharing */
  UNIT_SUMS = 4096,   /* additions and population counts in a unit of `prepare`: about as long */
};

static int limit(uint64_t units, size_t most) {
  if (units > most) units = most;
  if (units > INT16_MAX) units = INT16_MAX;
  return units < FEWEST ? 1 : (int)units;
}

static uint64_t stage_bytes(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  uint64_t bytes = plan->tensors[stage->output].bytes;
  if (stage->second_output >= 0) bytes += plan->tensors[stage->second_output].bytes;
  for (int i = 0; i < stage->input_count; i++) bytes += plan->tensors[stage->inputs[i]].bytes;
  return bytes;
}

/* Units of whole pixels, and of whole rows. */
static int by_pixels(const struct hwgq_plan *plan, struct plan_stage *stage) {
  return limit(stage_bytes(plan, stage) / UNIT_BYTES, plan_pixels(plan->tensors[stage->output].shape));
}
static int by_rows(const struct hwgq_plan *plan, struct plan_stage *stage) {
  return limit(stage_bytes(plan, stage) / UNIT_BYTES, (size_t)plan->tensors[stage->output].shape.height);
}

/* Slices of a layer's bands. Bands whose pooling windows overlap compute the rows that they share twice when they belong to
 * different slices: slices are as high as keeps that below a tenth. */
static int slices(const struct plan_conv *conv) {
  const int twice = conv->pooled ? conv->pool.kernel_height - conv->pool.stride_height : 0;
  if (twice <= 0) return conv->bands;
  int count = 16;
  while (count > 1 && (count > conv->bands || 10 * twice * count > conv->out.height)) count /= 2;
  return count;
}

static int conv_units(const struct hwgq_plan *plan, struct plan_stage *stage) {
  (void)plan;
  stage->conv.slices = slices(&stage->conv);
  if (stage->epilogue.unaligned) return stage->conv.slices; /* blocks share words of the output */
  return stage->conv.slices * plan_span_count(&stage->conv);
}

/* Slices of several rows: the input rows of a slice are prepared, and pairs of rows computed, within it. */
static int first_units(const struct hwgq_plan *plan, struct plan_stage *stage) {
  const int units = conv_units(plan, stage), spans = units / stage->conv.slices;
  while (stage->conv.slices > 16) stage->conv.slices /= 2;
  return stage->conv.slices * spans;
}

/* Final rows, or parts of them where there are few and no pooling window crosses them. */
static int sliced_units(const struct hwgq_plan *plan, struct plan_stage *stage) {
  (void)plan;
  const struct plan_conv *conv = &stage->conv;
  const int rows = conv->final.height / (conv->pooled ? 1 : conv->sliced->tile_rows);
  const int twice = conv->pooled ? conv->pool.kernel_height - conv->pool.stride_height : 0;
  int count = rows > 0 ? rows : 1;
  while (twice > 0 && count > 1 && 10 * twice * count > conv->out.height) count /= 2;
  conv->sliced->column_units = conv->pooled || count >= 16 || conv->final.width < 4 ? 1 : 2;
  return count * conv->sliced->column_units;
}

static int linear_units(const struct hwgq_plan *plan, struct plan_stage *stage) {
  (void)plan;
  return stage->epilogue.unaligned ? 1 : stage->epilogue.block_count; /* unaligned blocks share words of the output */
}

/* Rows of corrections; input rows that two units need are summed twice. */
static int prepare_units(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  const struct plan_conv *conv = &stage->conv;
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  const uint64_t taps = (uint64_t)conv->window.kernel_height + (uint64_t)conv->window.kernel_width;
  const uint64_t sums = plan_pixels(conv->in) * plan_pixel_words(input) + plan_pixels(conv->out) * taps;
  return limit(sums / UNIT_SUMS, (size_t)conv->out.height);
}

/* Kinds of stages that are not here have one unit. */
static const struct {
  plan_run *run;
  int (*units)(const struct hwgq_plan *plan, struct plan_stage *stage);
} kinds[] = {
    {run_conv, conv_units},         {run_first_conv, first_units},  {run_sliced, sliced_units}, {run_linear, linear_units},
    {run_input, by_pixels},         {run_chain, by_pixels},         {run_unpack, by_pixels},    {run_add, by_pixels},
    {run_concat, by_pixels},        {run_packed_concat, by_pixels}, {run_max_pool, by_rows},    {run_avg_pool, by_rows},
    {run_packed_max_pool, by_rows},
};

static uint64_t cost_ns(const struct hwgq_plan *plan, const struct plan_stage *stage) {
  enum { BINARY_MACS = 1000, FLOAT_MACS = 110, BYTES = 32 }; /* per nanosecond */
  return stage->macs / (stage->conv.binary ? BINARY_MACS : FLOAT_MACS) +
         (stage_bytes(plan, stage) + stage->weight_bytes) / BYTES;
}

void plan_set_units(struct hwgq_plan *plan) {
  for (int s = 0; s < plan->stage_count; s++) {
    struct plan_stage *stage = &plan->stages[s];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
      if (stage->run == kinds[k].run) stage->run_units = kinds[k].units(plan, stage);
    }
    if (stage->prepare) stage->prepare_units = prepare_units(plan, stage);
    stage->cost_ns = cost_ns(plan, stage);
  }
}
