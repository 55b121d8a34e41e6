/* This project's engine as a candidate: peers-engine_hwgq MODEL IMAGES */
#include "tests/bench/peers/child.h"

#include <stdio.h>
#include <stdlib.h>

struct state {
  struct hwgq_plan *plan;
  struct child_inputs inputs;
  void *scratch;
  float *scores;
  const uint8_t *pixels;
};

static void select_image(void *opaque, int number) {
  struct state *state = opaque;
  state->pixels = state->inputs.pixels + (size_t)number * state->inputs.count;
}

static const float *run(void *opaque) {
  struct state *state = opaque;
  hwgq_run(state->plan, state->scratch, state->pixels, state->scores);
  return state->scores;
}

int main(int argc, char **argv) {
  struct hwgq_error error;
  struct hwgq_model *model;
  struct state state = {0};
  if (argc != 3) child_die("usage: engine_hwgq MODEL.hwgq IMAGES");
  if (hwgq_model_read(argv[1], &model, &error)) child_die("%s", error.message);
  const struct hwgq_plan_options options = {0};
  if (hwgq_plan_create(model->network, &model->preprocess, &options, &state.plan, &error)) child_die("%s", error.message);
  state.inputs = child_read_inputs(argv[2], model->network->input);
  state.scratch = aligned_alloc(64, (hwgq_plan_scratch_bytes(state.plan) + 63) / 64 * 64);
  state.scores = calloc((size_t)model->class_count, sizeof *state.scores);
  if (!state.scratch || !state.scores) child_die("out of memory");
  struct child_engine engine = {
      .softmax = true, .classes = model->class_count, .select = select_image, .run = run, .state = &state};
  snprintf(engine.description, sizeof engine.description, "hwgq, kernel set %s", hwgq_plan_cpu(state.plan));
  const int code = child_serve(&engine);
  free(state.scores);
  free(state.scratch);
  free(state.inputs.pixels);
  free(state.inputs.values);
  hwgq_plan_destroy(state.plan);
  hwgq_model_destroy(model);
  return code;
}
