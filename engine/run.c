/* Executes a plan: every stage in order, each a function on the scratch memory. Nothing here allocates, locks or calls the
 * system (the profiled run reads the clock). Scores are the same bits on every kernel set: integers are exact, and floats go
 * through the same operations in the same order. */
#include <string.h>
#include <time.h>

#include "engine/team.h"

static void read_scores(const struct hwgq_plan *plan, const struct plan_frame *frame, float *scores) {
  const struct plan_tensor *output = &plan->tensors[plan->output_tensor];
  run_unpack_chw(output, plan_data(plan, frame, plan->output_tensor), 0, output->shape.channels, scores);
}

static void run_stage(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame) {
  if (stage->prepare) stage->prepare(plan, stage, frame, (struct plan_units){0, stage->prepare_units});
  stage->run(plan, stage, frame, (struct plan_units){0, stage->run_units});
}

static void run_stages(const struct hwgq_plan *plan, const struct plan_frame *frame, float *scores) {
  for (int s = 0; s < plan->stage_count; s++) run_stage(plan, &plan->stages[s], frame);
  read_scores(plan, frame, scores);
}

/* Local temporaries lie behind the shared memory. */
static struct plan_frame frame_in(const struct hwgq_plan *plan, void *scratch) {
  return (struct plan_frame){.scratch = scratch, .local = (uint8_t *)scratch + plan->shared_bytes};
}

void hwgq_run(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores) {
  struct plan_frame frame = frame_in(plan, scratch);
  frame.pixels = pixels;
  run_stages(plan, &frame, scores);
}

void hwgq_run_tensor(const struct hwgq_plan *plan, void *scratch, const float *input, float *scores) {
  struct plan_frame frame = frame_in(plan, scratch);
  frame.input = input;
  run_stages(plan, &frame, scores);
}

static uint64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void hwgq_run_profiled(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores, uint64_t *stage_ns) {
  struct plan_frame frame = frame_in(plan, scratch);
  frame.pixels = pixels;
  uint64_t before = nanoseconds();
  for (int s = 0; s < plan->stage_count; s++) {
    run_stage(plan, &plan->stages[s], &frame);
    const uint64_t after = nanoseconds();
    stage_ns[s] = after - before;
    before = after;
  }
  read_scores(plan, &frame, scores);
}

int hwgq_run_team(const struct hwgq_plan *plan, void *scratch, const uint8_t *pixels, float *scores, struct hwgq_team *team,
                  uint64_t *stage_ns) {
  struct plan_frame frame = frame_in(plan, scratch);
  frame.pixels = pixels;
  uint64_t before = stage_ns ? nanoseconds() : 0;
  team_begin(team);
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    if (stage->prepare) team_step(team, plan, stage, &frame, stage->prepare, stage->prepare_units);
    team_step(team, plan, stage, &frame, stage->run, stage->run_units);
    if (!stage_ns) continue;
    const uint64_t after = nanoseconds();
    stage_ns[s] = after - before;
    before = after;
  }
  const int helpers = team_end(team);
  read_scores(plan, &frame, scores);
  return helpers;
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

void run_input(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
               struct plan_units units) {
  if (frame->pixels && plan->only_pixels) return;
  const size_t channels = (size_t)plan->input.channels, pixels = plan_pixels(plan->input);
  const struct plan_slice part = plan_slice(pixels, stage->run_units, units);
  float *output = (float *)plan_data(plan, frame, stage->output) + part.begin * channels;
  if (frame->pixels) {
    const uint8_t *pixel = frame->pixels + part.begin * channels;
    for (size_t i = part.begin; i < part.end; i++, pixel += channels, output += channels) {
      for (size_t c = 0; c < channels; c++) output[c] = plan->pixel_values[c][pixel[c]];
    }
    return;
  }
  for (size_t c = 0; c < channels; c++) {
    const float *plane = frame->input + c * pixels;
    for (size_t i = part.begin; i < part.end; i++) output[(i - part.begin) * channels + c] = plane[i];
  }
}
