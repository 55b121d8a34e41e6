/* Layers on float tensors (HWC). Sums run in double, in the reference executor's order, and are rounded to float32 once. */
#include <string.h>

#include "engine/plan.h"

/* A pooling window along one axis: cells begin .. end - 1; the average divides by `divisor` cells. */
struct window {
  int begin, end, divisor;
};

static struct window window(int position, int in, int kernel, int stride, int pad) {
  const int start = position * stride - pad;
  const int stop = start + kernel < in + pad ? start + kernel : in + pad;
  return (struct window){start < 0 ? 0 : start, stop < in ? stop : in, stop - start};
}

static struct window row_window(const struct plan_stage *stage, int y, struct hwgq_shape in) {
  const struct plan_window *w = &stage->window;
  return window(y, in.height, w->kernel_height, w->stride_height, w->pad_height);
}

static struct window column_window(const struct plan_stage *stage, int x, struct hwgq_shape in) {
  const struct plan_window *w = &stage->window;
  return window(x, in.width, w->kernel_width, w->stride_width, w->pad_width);
}

static void max_cell(const float *pixels, size_t channels, size_t width, struct window rows, struct window columns,
                     float *output) {
  memcpy(output, pixels + ((size_t)rows.begin * width + (size_t)columns.begin) * channels, channels * sizeof *output);
  for (int y = rows.begin; y < rows.end; y++) {
    for (int x = columns.begin; x < columns.end; x++) {
      const float *pixel = pixels + ((size_t)y * width + (size_t)x) * channels;
      for (size_t c = 0; c < channels; c++) output[c] = pixel[c] > output[c] ? pixel[c] : output[c];
    }
  }
}

void run_max_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                  struct plan_units units) {
  const struct hwgq_shape in = plan->tensors[stage->inputs[0]].shape, out = plan->tensors[stage->output].shape;
  const float *input = plan_data(plan, frame, stage->inputs[0]);
  const struct plan_slice part = plan_slice((size_t)out.height, stage->run_units, units);
  float *output = plan_data(plan, frame, stage->output);
  output += part.begin * (size_t)out.width * (size_t)out.channels;
  for (int y = (int)part.begin; y < (int)part.end; y++) {
    for (int x = 0; x < out.width; x++, output += out.channels) {
      max_cell(input, (size_t)in.channels, (size_t)in.width, row_window(stage, y, in), column_window(stage, x, in), output);
    }
  }
}

/* All channels of one cell at once or, of a blocked input, block by block. */
static void average_cell(const struct hwgq_plan *plan, const struct plan_tensor *input, const float *data, struct window rows,
                         struct window columns, float *output) {
  const size_t channels = (size_t)input->shape.channels, step = plan_float_step(input), width = (size_t)input->shape.width;
  const size_t at_once = input->blocked ? HWGQ_LANES : channels;
  struct hwgq_average_job job = {.row_step = width * step,
                                 .column_step = step,
                                 .rows = rows.end - rows.begin,
                                 .columns = columns.end - columns.begin,
                                 .channels = at_once,
                                 .divisor = (double)rows.divisor * columns.divisor};
  for (size_t c = 0; c < channels; c += at_once) {
    job.input = data + plan_float_index(input, (size_t)rows.begin * width + (size_t)columns.begin, c);
    job.output = output + c;
    plan->kernels->average(&job);
  }
}

void run_avg_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                  struct plan_units units) {
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  const struct hwgq_shape out = plan->tensors[stage->output].shape;
  const float *data = plan_data(plan, frame, stage->inputs[0]);
  const struct plan_slice part = plan_slice((size_t)out.height, stage->run_units, units);
  float *output = plan_data(plan, frame, stage->output);
  output += part.begin * (size_t)out.width * (size_t)out.channels;
  for (int y = (int)part.begin; y < (int)part.end; y++) {
    for (int x = 0; x < out.width; x++, output += out.channels) {
      average_cell(plan, input, data, row_window(stage, y, input->shape), column_window(stage, x, input->shape), output);
    }
  }
}

/* Inputs and output of one layout are added in a run, wherever a slice of them begins; else pixel by pixel in the blocks of the
 * blocked ones. */
void run_add(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
             struct plan_units units) {
  const struct plan_tensor *output = &plan->tensors[stage->output];
  const size_t channels = (size_t)output->shape.channels;
  const struct plan_slice part = plan_slice(plan_pixels(output->shape), stage->run_units, units);
  const float *inputs[HWGQ_MAX_INPUTS];
  float *to = plan_data(plan, frame, stage->output);
  struct hwgq_add_job job = {.inputs = inputs,
                             .coefficients = stage->coefficients,
                             .input_count = stage->input_count,
                             .count = (part.end - part.begin) * channels,
                             .output = to + part.begin * channels};
  bool alike = true;
  for (int k = 0; k < stage->input_count; k++) {
    inputs[k] = (const float *)plan_data(plan, frame, stage->inputs[k]) + part.begin * channels;
    if (plan->tensors[stage->inputs[k]].blocked != output->blocked) alike = false;
  }
  if (alike) {
    plan->kernels->add(&job);
    return;
  }
  job.count = HWGQ_LANES; /* blocked tensors have whole blocks */
  for (size_t i = part.begin; i < part.end; i++) {
    for (size_t c = 0; c < channels; c += HWGQ_LANES) {
      for (int k = 0; k < stage->input_count; k++) {
        const float *data = plan_data(plan, frame, stage->inputs[k]);
        inputs[k] = data + plan_float_index(&plan->tensors[stage->inputs[k]], i, c);
      }
      job.output = to + plan_float_index(output, i, c);
      plan->kernels->add(&job);
    }
  }
}

void run_concat(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                struct plan_units units) {
  const struct plan_tensor *output = &plan->tensors[stage->output];
  const size_t step = (size_t)output->shape.channels;
  const struct plan_slice part = plan_slice(plan_pixels(output->shape), stage->run_units, units);
  float *to = plan_data(plan, frame, stage->output);
  for (int k = 0; k < stage->input_count; k++) {
    const size_t channels = (size_t)plan->tensors[stage->inputs[k]].shape.channels;
    const float *from = plan_data(plan, frame, stage->inputs[k]);
    for (size_t i = part.begin; i < part.end; i++) memcpy(to + i * step, from + i * channels, channels * sizeof *to);
    to += channels;
  }
}

void run_flatten(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                 struct plan_units units) {
  (void)units;
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  run_unpack_chw(input, plan_data(plan, frame, stage->inputs[0]), 0, input->shape.channels,
                 plan_data(plan, frame, stage->output));
}

void run_softmax(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                 struct plan_units units) {
  (void)units;
  const size_t count = (size_t)plan->tensors[stage->output].shape.channels;
  const float *input = plan_data(plan, frame, stage->inputs[0]);
  float *output = plan_data(plan, frame, stage->output);
  float highest = input[0];
  for (size_t c = 1; c < count; c++) highest = input[c] > highest ? input[c] : highest;
  double sum = 0, *powers = plan_data(plan, frame, stage->temporaries[TEMP_POWERS]);
  plan->kernels->exp(input, count, highest, powers);
  for (size_t c = 0; c < count; c++) sum += powers[c];
  for (size_t c = 0; c < count; c++) output[c] = (float)(powers[c] / sum);
}
