#include "models/train/dot.h"

#include <math.h>
#include <string.h>

uint16_t dot_round(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (isnan(x)) return (uint16_t)(bits >> 16 | 0x40);
  if ((bits & 0x7f800000) == 0) return (uint16_t)(bits >> 16 & 0x8000);
  return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float dot_widen(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* ---- 8 bits -------------------------------------------------------------------------------------------------------------- */

static void int8_windows(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  for (int m = 0; m < w->rows; m++) {
    for (int n = 0; n < w->columns; n++) {
      const int8_t *b = (const int8_t *)w->panel + 4 * n;
      int32_t sum = w->start[n];
      for (int t = 0; t < w->taps; t++) {
        const uint8_t *a = row[m] + w->tap_offsets[t];
        for (int s = 0; s < w->steps; s++, a += 4, b += 4 * DOT_COLUMNS)
          for (int i = 0; i < 4; i++) sum += a[i] * b[i];
      }
      w->out[m * w->stride + n] = (float)sum * w->scale[n];
    }
  }
}

static void int8_gradient(const struct dot_gradient *g, const uint8_t *a) {
  for (int m = 0; m < g->rows; m++) {
    for (int n = 0; n < g->columns; n++) {
      int32_t sum = g->start[n];
      for (int s = 0; s < g->steps; s++) {
        const uint8_t *x = a + g->offsets[s] + 4 * m;
        const int8_t *y = (const int8_t *)g->b + (s * DOT_COLUMNS + n) * 4;
        for (int i = 0; i < 4; i++) sum += x[i] * y[i];
      }
      g->out[m * g->stride + n] += (float)sum * g->scale[n];
    }
  }
}

static void int8_keep(const float *x, size_t count, float inverse_step, int zero, void *y) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)y)[i] = (uint8_t)((int)lrintf(x[i] * inverse_step) + zero);
}

static int8_t dithered(float x, uint32_t noise) {
  float value = fmaf((float)(int32_t)noise, 0x1p-32f, x);
  return isnan(value) ? 0 : (int8_t)lrintf(value);
}

static void int8_pad(const float *x, const float *alpha, int count, float factor, uint32_t noise, void *y) {
  for (int i = 0; i < count; i++, noise += DOT_NOISE_CHANNEL)
    ((uint8_t *)y)[i] = (uint8_t)(dithered(x[i] * (alpha[i] * factor), noise) + 128);
}

static void int8_group(const float *x, ptrdiff_t stride, int pixels, int count, const float *factor, uint32_t noise, void *y) {
  int8_t *out = y;
  memset(out, 0, 4 * DOT_COLUMNS);
  for (int p = 0; p < pixels; p++, x += stride, noise += DOT_NOISE_PIXEL)
    for (int i = 0; i < count; i++) out[4 * i + p] = dithered(x[i] * factor[i], noise + (uint32_t)i * DOT_NOISE_CHANNEL);
}

/* Without their signs, the bits of floats are ordered as unsigned integers, NaN above all. */
static void int8_largest(const float *x, ptrdiff_t stride, int pixels, int count, float *largest) {
  uint32_t most[DOT_COLUMNS] = {0};
  for (int p = 0; p < pixels; p++, x += stride) {
    for (int c = 0; c < count; c++) {
      uint32_t bits;
      memcpy(&bits, &x[c], sizeof bits);
      bits &= 0x7fffffff;
      most[c] = bits > most[c] ? bits : most[c];
    }
  }
  memcpy(largest, most, sizeof *largest * (size_t)count);
}

static void int8_weights(const float *weights, ptrdiff_t stride, int channels, int columns, bool signs, void *forward,
                         void *backward, int32_t *sums) {
  (void)signs;
  for (int c = 0; c < DOT_TILE_CHANNELS; c++) {
    for (int o = 0; o < DOT_COLUMNS; o++) {
      int sign = c >= channels || o >= columns ? 0 : weights[c * stride + o] >= 0.0f ? 1 : -1;
      ((int8_t *)forward)[(c / 4 * DOT_COLUMNS + o) * 4 + c % 4] = (int8_t)sign;
      if (backward != NULL) ((int8_t *)backward)[(o / 4 * DOT_COLUMNS + c) * 4 + o % 4] = (int8_t)sign;
      if (sums != NULL && c < channels) sums[c] += sign;
    }
  }
}

/* ---- bfloat16 ------------------------------------------------------------------------------------------------------------ */

static uint16_t load(const void *p) {
  uint16_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

static void bf16_windows(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  for (int m = 0; m < w->rows; m++) {
    for (int n = 0; n < w->columns; n++) {
      const uint16_t *b = (const uint16_t *)w->panel + 2 * n;
      float sum = 0;
      for (int t = 0; t < w->taps; t++) {
        const uint8_t *a = row[m] + w->tap_offsets[t];
        for (int s = 0; s < w->steps; s++, a += 4, b += 2 * DOT_COLUMNS)
          for (int i = 0; i < 2; i++) sum += dot_widen(load(a + 2 * i)) * dot_widen(b[i]);
      }
      w->out[m * w->stride + n] = sum * w->scale[n];
    }
  }
}

static void bf16_gradient(const struct dot_gradient *g, const uint8_t *a) {
  for (int m = 0; m < g->rows; m++) {
    for (int n = 0; n < g->columns; n++) {
      float sum = 0;
      for (int s = 0; s < g->steps; s++) {
        const uint8_t *x = a + g->offsets[s] + 4 * m;
        const uint16_t *y = (const uint16_t *)g->b + (s * DOT_COLUMNS + n) * 2;
        for (int i = 0; i < 2; i++) sum += dot_widen(load(x + 2 * i)) * dot_widen(y[i]);
      }
      g->out[m * g->stride + n] += sum * g->scale[n];
    }
  }
}

static void bf16_keep(const float *x, size_t count, float inverse_step, int zero, void *y) {
  (void)inverse_step;
  (void)zero;
  for (size_t i = 0; i < count; i++) ((uint16_t *)y)[i] = dot_round(x[i]);
}

static void bf16_pad(const float *x, const float *alpha, int count, float factor, uint32_t noise, void *y) {
  (void)noise;
  for (int i = 0; i < count; i++) ((uint16_t *)y)[i] = dot_round(x[i] * (alpha[i] * factor));
}

static void bf16_group(const float *x, ptrdiff_t stride, int pixels, int count, const float *factor, uint32_t noise, void *y) {
  uint16_t *out = y;
  (void)factor;
  (void)noise;
  memset(out, 0, sizeof *out * 2 * DOT_COLUMNS);
  for (int p = 0; p < pixels; p++, x += stride)
    for (int i = 0; i < count; i++) out[2 * i + p] = dot_round(x[i]);
}

static void bf16_weights(const float *weights, ptrdiff_t stride, int channels, int columns, bool signs, void *forward,
                         void *backward, int32_t *sums) {
  (void)sums;
  for (int c = 0; c < DOT_TILE_CHANNELS; c++) {
    for (int o = 0; o < DOT_COLUMNS; o++) {
      float w = c >= channels || o >= columns ? 0.0f : weights[c * stride + o];
      if (signs && c < channels && o < columns) w = w >= 0.0f ? 1.0f : -1.0f;
      ((uint16_t *)forward)[(c / 2 * DOT_COLUMNS + o) * 2 + c % 2] = dot_round(w);
      if (backward != NULL) ((uint16_t *)backward)[(o / 2 * DOT_COLUMNS + c) * 2 + o % 2] = dot_round(w);
    }
  }
}

/* ---- both ---------------------------------------------------------------------------------------------------------------- */

static void spread(const struct dot_spread *s, const uint8_t *pixels, int bytes, uint8_t *y) {
  for (int p = 0; p < s->pixels; p++) {
    for (int c = 0; c < DOT_TILE_CHANNELS; c++) {
      uint8_t *target = y + c / DOT_BLOCK * s->block_bytes + (p * DOT_BLOCK + c % DOT_BLOCK) * DOT_STEP_BYTES;
      for (int k = 0; k < DOT_STEP_BYTES / bytes; k++, target += bytes) {
        int from = p + k * s->stride;
        if (from < s->pixels)
          memcpy(target, pixels + from * s->pixel_bytes + c * bytes, (size_t)bytes);
        else
          memset(target, 0, (size_t)bytes);
      }
    }
  }
}

static void int8_spread(const struct dot_spread *s, const uint8_t *pixels, uint8_t *y) {
  spread(s, pixels, 1, y);
}

static void bf16_spread(const struct dot_spread *s, const uint8_t *pixels, uint8_t *y) {
  spread(s, pixels, 2, y);
}

const struct dot_format dot_int8_plain = {.name = "int8 plain",
                                          .bytes = 1,
                                          .fill = 0x80,
                                          .windows = int8_windows,
                                          .gradient = int8_gradient,
                                          .keep = int8_keep,
                                          .spread = int8_spread,
                                          .pad = int8_pad,
                                          .group = int8_group,
                                          .largest = int8_largest,
                                          .weights = int8_weights};

const struct dot_format dot_bf16_plain = {.name = "bf16 plain",
                                          .bytes = 2,
                                          .fill = 0,
                                          .windows = bf16_windows,
                                          .gradient = bf16_gradient,
                                          .keep = bf16_keep,
                                          .spread = bf16_spread,
                                          .pad = bf16_pad,
                                          .group = bf16_group,
                                          .weights = bf16_weights};

const struct dot_kernels dot_kernels_plain = {.int8 = &dot_int8_plain, .bf16 = &dot_bf16_plain};

const struct dot_kernels *dot_kernels_fast(void) {
#if defined(__x86_64__)
  static const struct dot_kernels vnni = {.int8 = &dot_int8_avx512vnni};
  static const struct dot_kernels both = {.int8 = &dot_int8_avx512vnni, .bf16 = &dot_bf16_avx512bf16};
  if (__builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return __builtin_cpu_supports("avx512bf16") ? &both : &vnni;
#endif
  return NULL;
}
