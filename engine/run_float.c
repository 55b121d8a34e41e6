/* Layers on float tensors (HWC). Sums run in double, in the reference executor's order, and are rounded to float32 once. */
#include <math.h>
#include <string.h>

#include "engine/math.h"
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

typedef void pool_function(const float *pixels, size_t channels, size_t width, struct window rows, struct window columns,
                           float *output);

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

static void average_cell(const float *pixels, size_t channels, size_t width, struct window rows, struct window columns,
                         float *output) {
  enum { STRIP = 64 };
  const double divisor = (double)rows.divisor * columns.divisor;
  for (size_t first = 0; first < channels; first += STRIP) {
    const size_t count = channels - first < STRIP ? channels - first : STRIP;
    double sums[STRIP] = {0};
    for (int y = rows.begin; y < rows.end; y++) {
      for (int x = columns.begin; x < columns.end; x++) {
        const float *pixel = pixels + ((size_t)y * width + (size_t)x) * channels + first;
        for (size_t c = 0; c < count; c++) sums[c] += (double)pixel[c];
      }
    }
    for (size_t c = 0; c < count; c++) output[first + c] = (float)(sums[c] / divisor);
  }
}

static void pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                 struct plan_units units, pool_function *cell) {
  const struct hwgq_shape in = plan->tensors[stage->inputs[0]].shape, out = plan->tensors[stage->output].shape;
  const struct plan_window *w = &stage->window;
  const float *input = plan_data(plan, frame, stage->inputs[0]);
  const struct plan_slice part = plan_slice((size_t)out.height, stage->run_units, units);
  float *output = plan_data(plan, frame, stage->output);
  output += part.begin * (size_t)out.width * (size_t)out.channels;
  for (int y = (int)part.begin; y < (int)part.end; y++) {
    const struct window rows = window(y, in.height, w->kernel_height, w->stride_height, w->pad_height);
    for (int x = 0; x < out.width; x++, output += out.channels) {
      const struct window columns = window(x, in.width, w->kernel_width, w->stride_width, w->pad_width);
      cell(input, (size_t)in.channels, (size_t)in.width, rows, columns, output);
    }
  }
}

void run_max_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                  struct plan_units units) {
  pool(plan, stage, frame, units, max_cell);
}

void run_avg_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                  struct plan_units units) {
  pool(plan, stage, frame, units, average_cell);
}

void run_add(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
             struct plan_units units) {
  const struct hwgq_shape shape = plan->tensors[stage->output].shape;
  const struct plan_slice part = plan_slice(plan_pixels(shape), stage->run_units, units);
  const size_t first = part.begin * (size_t)shape.channels;
  const float *inputs[HWGQ_MAX_INPUTS];
  for (int k = 0; k < stage->input_count; k++) {
    inputs[k] = (const float *)plan_data(plan, frame, stage->inputs[k]) + first;
  }
  const struct hwgq_add_job job = {.inputs = inputs,
                                   .coefficients = stage->coefficients,
                                   .input_count = stage->input_count,
                                   .count = (part.end - part.begin) * (size_t)shape.channels,
                                   .output = (float *)plan_data(plan, frame, stage->output) + first};
  plan->kernels->add(&job);
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
  run_unpack_chw(&plan->tensors[stage->inputs[0]], plan_data(plan, frame, stage->inputs[0]),
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
  double sum = 0;
  for (size_t c = 0; c < count; c++) sum += hwgq_exp((double)input[c] - (double)highest);
  for (size_t c = 0; c < count; c++) output[c] = (float)(hwgq_exp((double)input[c] - (double)highest) / sum);
}
