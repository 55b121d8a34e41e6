/* Executes a plan: every stage in order, each a function on the scratch memory. Nothing here allocates, locks or calls the
 * system (the profiled run reads the clock). Scores are the same bits on every kernel set: integers are exact, and floats go
 * through the same operations in the same order. */
#include <string.h>
#include <time.h>

#include "engine/plan.h"

static void read_scores(const struct hwgq_plan *plan, const struct plan_frame *frame, float *scores) {
  const struct plan_tensor *output = &plan->tensors[plan->output_tensor];
  run_unpack_chw(output, plan_data(plan, frame, plan->output_tensor), 0, output->shape.channels, scores);
}

static void run_stages(const struct hwgq_plan *plan, const struct plan_frame *frame, float *scores) {
  for (int s = 0; s < plan->stage_count; s++) plan->stages[s].run(plan, &plan->stages[s], frame);
  read_scores(plan, frame, scores);
}

void hwgq_run(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores) {
  const struct plan_frame frame = {.scratch = scratch, .pixels = pixels};
  run_stages(plan, &frame, scores);
}

void hwgq_run_tensor(const struct hwgq_plan *plan, void *scratch, const float *input, float *scores) {
  const struct plan_frame frame = {.scratch = scratch, .input = input};
  run_stages(plan, &frame, scores);
}

static uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void hwgq_run_profiled(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores, uint64_t *stage_ns) {
  const struct plan_frame frame = {.scratch = scratch, .pixels = pixels};
  uint64_t before = nanoseconds();
  for (int s = 0; s < plan->stage_count; s++) {
    plan->stages[s].run(plan, &plan->stages[s], &frame);
    const uint64_t after = nanoseconds();
    stage_ns[s] = after - before;
    before = after;
  }
  read_scores(plan, &frame, scores);
}

enum hwgq_status hwgq_run_output(const struct hwgq_plan *plan, const void *scratch, int layer, float *values,
                                 struct hwgq_error *error) {
  if (layer < HWGQ_NETWORK_INPUT || layer >= plan->layer_count) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "layer %d does not exist: the network has %d layers", layer, plan->layer_count);
  }
  if (!plan->keep_all_layers) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer outputs are not kept: set keep_all_layers when the plan is made");
  }
  const int tensor = layer == HWGQ_NETWORK_INPUT ? plan->input_tensor : plan->layer_tensors[layer];
  if (tensor < 0) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "layer '%s' was folded into the stage after it: its output does not exist",
                     plan->layer_names[layer]);
  }
  const struct plan_tensor *kept = &plan->tensors[tensor];
  const int part = layer == HWGQ_NETWORK_INPUT ? 0 : plan->layer_parts[layer];
  run_unpack_chw(kept, (const uint8_t *)scratch + kept->offset, part ? plan->layer_channels[layer] : 0,
                 part ? part : kept->shape.channels, values);
  return HWGQ_OK;
}

/* ---- the network's input ------------------------------------------------------------------------------------------------- */

void run_input(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame) {
  float *output = plan_data(plan, frame, stage->output);
  const size_t channels = (size_t)plan->input.channels, pixels = plan_pixels(plan->input);
  if (frame->pixels) {
    const uint8_t *pixel = frame->pixels;
    for (size_t i = 0; i < pixels; i++, pixel += channels, output += channels) {
      for (size_t c = 0; c < channels; c++) output[c] = plan->pixel_values[c][pixel[c]];
    }
    return;
  }
  for (size_t c = 0; c < channels; c++) {
    const float *plane = frame->input + c * pixels;
    for (size_t i = 0; i < pixels; i++) output[i * channels + c] = plane[i];
  }
}
