#include "models/train/net_layers.h"

#include <string.h>

/* ---- max pool ------------------------------------------------------------------------------------------------------------ */

static void max_pool_image(const struct net *net, const struct net_layer *l, const float *in, float *out, uint8_t *which) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, out += channels, which += channels) {
      bool first = true;
      for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
        int y = oy * p->stride_height - p->pad_height + k / p->kernel_width;
        int x = ox * p->stride_width - p->pad_width + k % p->kernel_width;
        if (y < 0 || y >= l->in.height || x < 0 || x >= l->in.width) continue;
        const float *cell = in + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
        if (first)
          net->kernels->max_first(cell, channels, out, which, (uint8_t)k);
        else
          net->kernels->max_next(cell, channels, out, which, (uint8_t)k);
        first = false;
      }
    }
  }
}

void net_max_pool(const struct net *net, const struct net_layer *l, int first, int count) {
  for (int i = first; i < first + count; i++)
    max_pool_image(net, l, l->in_value + (size_t)i * l->in_size, l->value + (size_t)i * l->out_size,
                   l->which + (size_t)i * l->out_size);
}

static void max_pool_backward_image(const struct net *net, const struct net_layer *l, const float *gradient,
                                    const uint8_t *which, float *in_gradient) {
  const struct hwgq_layer *p = l->layer;
  int channels = l->in.channels;
  memset(in_gradient, 0, sizeof(float) * l->in_size);
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, gradient += channels, which += channels) {
      for (int k = 0; k < p->kernel_height * p->kernel_width; k++) {
        int y = oy * p->stride_height - p->pad_height + k / p->kernel_width;
        int x = ox * p->stride_width - p->pad_width + k % p->kernel_width;
        if (y < 0 || y >= l->in.height || x < 0 || x >= l->in.width) continue;
        float *cell = in_gradient + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
        net->kernels->max_backward(cell, channels, gradient, which, (uint8_t)k);
      }
    }
  }
}

void net_max_pool_backward(const struct net *net, const struct net_layer *l, int first, int count) {
  for (int i = first; i < first + count; i++)
    max_pool_backward_image(net, l, l->gradient + (size_t)i * l->out_size, l->which + (size_t)i * l->out_size,
                            l->in_gradient + (size_t)i * l->in_size);
}

/* ---- average pool -------------------------------------------------------------------------------------------------------- */

/* Cells of the input under one window, and the divisor: padding counts, what hangs over beyond it does not. */
struct window {
  int top, bottom, left, right;
  float share;
};

static struct window average_window(const struct net_layer *l, int oy, int ox) {
  const struct hwgq_layer *p = l->layer;
  int top = oy * p->stride_height - p->pad_height, left = ox * p->stride_width - p->pad_width;
  int bottom = top + p->kernel_height, right = left + p->kernel_width;
  if (bottom > l->in.height + p->pad_height) bottom = l->in.height + p->pad_height;
  if (right > l->in.width + p->pad_width) right = l->in.width + p->pad_width;
  struct window window = {.top = top < 0 ? 0 : top,
                          .bottom = bottom > l->in.height ? l->in.height : bottom,
                          .left = left < 0 ? 0 : left,
                          .right = right > l->in.width ? l->in.width : right,
                          .share = 1.0f / (float)((bottom - top) * (right - left))};
  return window;
}

static void average_image(const struct net_layer *l, const float *in, float *out) {
  int channels = l->in.channels;
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, out += channels) {
      struct window w = average_window(l, oy, ox);
      memset(out, 0, sizeof(float) * (size_t)channels);
      for (int y = w.top; y < w.bottom; y++) {
        for (int x = w.left; x < w.right; x++) {
          const float *cell = in + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
          for (int c = 0; c < channels; c++) out[c] += cell[c];
        }
      }
      for (int c = 0; c < channels; c++) out[c] *= w.share;
    }
  }
}

void net_average_pool(const struct net_layer *l, int first, int count) {
  for (int i = first; i < first + count; i++)
    average_image(l, l->in_value + (size_t)i * l->in_size, l->value + (size_t)i * l->out_size);
}

static void average_backward_image(const struct net_layer *l, const float *gradient, float *in_gradient) {
  int channels = l->in.channels;
  memset(in_gradient, 0, sizeof(float) * l->in_size);
  for (int oy = 0; oy < l->out.height; oy++) {
    for (int ox = 0; ox < l->out.width; ox++, gradient += channels) {
      struct window w = average_window(l, oy, ox);
      for (int y = w.top; y < w.bottom; y++) {
        for (int x = w.left; x < w.right; x++) {
          float *cell = in_gradient + ((size_t)y * (size_t)l->in.width + (size_t)x) * (size_t)channels;
          for (int c = 0; c < channels; c++) cell[c] += w.share * gradient[c];
        }
      }
    }
  }
}

void net_average_pool_backward(const struct net_layer *l, int first, int count) {
  for (int i = first; i < first + count; i++)
    average_backward_image(l, l->gradient + (size_t)i * l->out_size, l->in_gradient + (size_t)i * l->in_size);
}

/* ---- add, concat: several sources ---------------------------------------------------------------------------------------- */

static void accumulate(float *target, const float *values, size_t count, float factor, bool overwrite) {
  if (overwrite) {
    for (size_t i = 0; i < count; i++) target[i] = factor * values[i];
  } else {
    for (size_t i = 0; i < count; i++) target[i] += factor * values[i];
  }
}

void net_add(const struct net_layer *l, int first, int count) {
  size_t at = (size_t)first * l->out_size, values = (size_t)count * l->out_size;
  for (int k = 0; k < l->source_count; k++)
    accumulate(l->value + at, l->sources[k].value + at, values, l->layer->coefficients[k], k == 0);
}

void net_add_backward(const struct net_layer *l, int first, int count) {
  size_t at = (size_t)first * l->out_size, values = (size_t)count * l->out_size;
  for (int k = 0; k < l->source_count; k++) {
    const struct net_source *source = &l->sources[k];
    if (source->gradient != NULL)
      accumulate(source->gradient + at, l->gradient + at, values, l->layer->coefficients[k], source->overwrites);
  }
}

void net_concat(const struct net_layer *l, int first, int count) {
  size_t places = (size_t)count * net_pixels(l->out), channels = (size_t)l->out.channels;
  float *out = l->value + (size_t)first * l->out_size;
  for (int k = 0; k < l->source_count; k++) {
    size_t part = (size_t)l->sources[k].shape.channels;
    const float *in = l->sources[k].value + (size_t)first * l->sources[k].size;
    for (size_t p = 0; p < places; p++) memcpy(out + p * channels, in + p * part, sizeof(float) * part);
    out += part;
  }
}

void net_concat_backward(const struct net_layer *l, int first, int count) {
  size_t places = (size_t)count * net_pixels(l->out), channels = (size_t)l->out.channels;
  const float *gradient = l->gradient + (size_t)first * l->out_size;
  for (int k = 0; k < l->source_count; k++) {
    const struct net_source *source = &l->sources[k];
    size_t part = (size_t)source->shape.channels;
    float *target = source->gradient != NULL ? source->gradient + (size_t)first * source->size : NULL;
    for (size_t p = 0; target != NULL && p < places; p++)
      accumulate(target + p * part, gradient + p * channels, part, 1.0f, source->overwrites);
    gradient += part;
  }
}

void net_pass_on(const struct net_layer *l, int first, int count) {
  const struct net_source *source = &l->sources[0];
  if (l->in_gradient == NULL || l->in_gradient == source->gradient) return;
  size_t at = (size_t)first * l->in_size;
  accumulate(source->gradient + at, l->in_gradient + at, (size_t)count * l->in_size, 1.0f, source->overwrites);
}
