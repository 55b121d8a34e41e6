/* Layers on packed levels, and packed levels as values. */
#include <string.h>

#include "engine/plan.h"

/* ---- values ---------------------------------------------------------------------------------------------------------------
 */

static int level_of(const struct plan_coding *coding, const uint32_t *planes, int bit) {
  int level = 0;
  for (int p = 0; p < coding->planes; p++) {
    const int set = (int)(planes[p] >> bit & 1);
    level += coding->thermometer ? set : set << p;
  }
  return level;
}

/* Values of the `count` channels of one word. */
static void unpack_word(const struct plan_coding *coding, const uint32_t *planes, int count, size_t channel_step,
                        float *output) {
  if (coding->planes == 2 && !coding->thermometer) { /* two bits: the common case */
    const uint32_t low = planes[0], high = planes[1];
    for (int bit = 0; bit < count; bit++) {
      output[(size_t)bit * channel_step] = coding->values[(low >> bit & 1) | (high >> bit & 1) << 1];
    }
    return;
  }
  for (int bit = 0; bit < count; bit++) output[(size_t)bit * channel_step] = coding->values[level_of(coding, planes, bit)];
}

/* Value of channel c at pixel i of the slice goes to output[i * pixel_step + c * channel_step]. */
static void unpack(const struct plan_tensor *tensor, const void *data, struct plan_slice pixels, size_t pixel_step,
                   size_t channel_step, float *output) {
  const size_t pixel_words = plan_pixel_words(tensor);
  const uint32_t *pixel = (const uint32_t *)data + pixels.begin * pixel_words;
  for (size_t i = pixels.begin; i < pixels.end; i++, pixel += pixel_words) {
    for (int c = 0; c < tensor->shape.channels; c += 32) {
      const int count = tensor->shape.channels - c < 32 ? tensor->shape.channels - c : 32;
      unpack_word(&tensor->coding, pixel + (size_t)(c / 32) * (size_t)tensor->coding.planes, count, channel_step,
                  output + i * pixel_step + (size_t)c * channel_step);
    }
  }
}

void run_unpack(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                struct plan_units units) {
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]];
  const struct plan_slice part = plan_slice(plan_pixels(input->shape), stage->run_units, units);
  unpack(input, plan_data(plan, frame, stage->inputs[0]), part, (size_t)input->shape.channels, 1,
         plan_data(plan, frame, stage->output));
}

void run_unpack_chw(const struct plan_tensor *tensor, const void *data, float *values) {
  const size_t pixels = plan_pixels(tensor->shape), channels = (size_t)tensor->shape.channels;
  if (tensor->format == PLAN_PACKED) {
    unpack(tensor, data, (struct plan_slice){0, pixels}, 1, pixels, values);
    return;
  }
  const float *from = data;
  for (size_t i = 0; i < pixels; i++) {
    for (size_t c = 0; c < channels; c++) values[c * pixels + i] = from[i * channels + c];
  }
}

/* ---- max pooling ----------------------------------------------------------------------------------------------------------
 */

/* The larger level of 32 channels at once. Thermometer planes (and sign): or. Digits: compared from the highest down. */
static void max_word(const struct plan_coding *coding, const uint32_t *a, uint32_t *best) {
  if (coding->thermometer) {
    for (int p = 0; p < coding->planes; p++) best[p] |= a[p];
    return;
  }
  uint32_t greater = 0, equal = UINT32_MAX;
  for (int p = coding->planes - 1; p >= 0; p--) {
    greater |= equal & a[p] & ~best[p];
    equal &= ~(a[p] ^ best[p]);
  }
  for (int p = 0; p < coding->planes; p++) best[p] ^= (a[p] ^ best[p]) & greater;
}

static void max_pixel(const struct plan_tensor *input, const uint32_t *data, int top, int left, const struct plan_window *w,
                      uint32_t *output) {
  const size_t words = plan_pixel_words(input), planes = (size_t)input->coding.planes;
  const int first_row = top < 0 ? 0 : top, first_column = left < 0 ? 0 : left;
  memcpy(output, data + ((size_t)first_row * (size_t)input->shape.width + (size_t)first_column) * words,
         words * sizeof *output);
  for (int y = first_row; y < top + w->kernel_height && y < input->shape.height; y++) {
    for (int x = first_column; x < left + w->kernel_width && x < input->shape.width; x++) {
      const uint32_t *pixel = data + ((size_t)y * (size_t)input->shape.width + (size_t)x) * words;
      for (size_t word = 0; word < words; word += planes) max_word(&input->coding, pixel + word, output + word);
    }
  }
}

void run_packed_max_pool(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                         struct plan_units units) {
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]], *output = &plan->tensors[stage->output];
  const uint32_t *from = plan_data(plan, frame, stage->inputs[0]);
  uint32_t *to = plan_data(plan, frame, stage->output);
  const struct plan_window *w = &stage->window;
  const struct plan_slice rows = plan_slice((size_t)output->shape.height, stage->run_units, units);
  to += rows.begin * (size_t)output->shape.width * plan_pixel_words(output);
  for (int y = (int)rows.begin; y < (int)rows.end; y++) {
    for (int x = 0; x < output->shape.width; x++, to += plan_pixel_words(output)) {
      max_pixel(input, from, y * w->stride_height - w->pad_height, x * w->stride_width - w->pad_width, w, to);
    }
  }
}

/* ---- reordering -----------------------------------------------------------------------------------------------------------
 */

/* Appends the channels of one pixel's planes at bit `at` of the output pixel, which was cleared. */
static void append_channels(const uint32_t *from, int channels, size_t planes, uint32_t *to, size_t at) {
  const size_t words = ((size_t)channels + 31) / 32, shift = at % 32, last = (at + (size_t)channels - 1) / 32;
  for (size_t word = 0; word < words; word++) {
    for (size_t p = 0; p < planes; p++) {
      const uint32_t bits = from[word * planes + p];
      const size_t target = at / 32 + word;
      to[target * planes + p] |= bits << shift;
      if (shift && target + 1 <= last) to[(target + 1) * planes + p] |= bits >> (32 - shift);
    }
  }
}

void run_packed_concat(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                       struct plan_units units) {
  const struct plan_tensor *output = &plan->tensors[stage->output];
  const size_t planes = (size_t)output->coding.planes;
  const struct plan_slice part = plan_slice(plan_pixels(output->shape), stage->run_units, units);
  uint32_t *to = plan_data(plan, frame, stage->output);
  size_t at = 0;
  memset(to + part.begin * plan_pixel_words(output), 0, (part.end - part.begin) * plan_pixel_words(output) * sizeof *to);
  for (int k = 0; k < stage->input_count; k++) {
    const struct plan_tensor *input = &plan->tensors[stage->inputs[k]];
    const uint32_t *from = plan_data(plan, frame, stage->inputs[k]);
    for (size_t i = part.begin; i < part.end; i++) {
      append_channels(from + i * plan_pixel_words(input), input->shape.channels, planes, to + i * plan_pixel_words(output), at);
    }
    at += (size_t)input->shape.channels;
  }
}

void run_packed_flatten(const struct hwgq_plan *plan, const struct plan_stage *stage, const struct plan_frame *frame,
                        struct plan_units units) {
  (void)units;
  const struct plan_tensor *input = &plan->tensors[stage->inputs[0]], *output = &plan->tensors[stage->output];
  const size_t planes = (size_t)output->coding.planes, pixels = plan_pixels(input->shape);
  const uint32_t *from = plan_data(plan, frame, stage->inputs[0]);
  uint32_t *to = plan_data(plan, frame, stage->output);
  memset(to, 0, plan_pixel_words(output) * sizeof *to);
  for (size_t i = 0; i < pixels; i++) {
    for (size_t c = 0; c < (size_t)input->shape.channels; c++) {
      const size_t index = c * pixels + i;
      for (size_t p = 0; p < planes; p++) {
        const uint32_t bit = from[i * plan_pixel_words(input) + c / 32 * planes + p] >> (c % 32) & 1;
        to[index / 32 * planes + p] |= bit << (index % 32);
      }
    }
  }
}
