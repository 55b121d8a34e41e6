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

static uint16_t load(const void *p) {
  uint16_t value;
  memcpy(&value, p, sizeof value);
  return value;
}

static void windows_u8(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
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

static void windows_bf16(const struct dot_windows *w, const uint8_t *const row[DOT_ROWS]) {
  for (int m = 0; m < w->rows; m++) {
    for (int n = 0; n < w->columns; n++) {
      const uint16_t *b = (const uint16_t *)w->panel + 2 * n;
      float sum = 0;
      for (int t = 0; t < w->taps; t++) {
        const uint8_t *a = row[m] + w->tap_offsets[t];
        for (int s = 0; s < w->steps; s++, a += 4, b += 2 * DOT_COLUMNS)
          for (int i = 0; i < 2; i++) sum += dot_widen(load(a + 2 * i)) * dot_widen(b[i]);
      }
      w->out[m * w->stride + n] = sum;
    }
  }
}

static void gradient(const uint16_t *a, const int32_t *offsets, int pairs, const uint16_t *b, int rows, int columns, float *out,
                     ptrdiff_t stride) {
  for (int m = 0; m < rows; m++) {
    for (int n = 0; n < columns; n++) {
      float sum = 0;
      for (int k = 0; k < pairs; k++) {
        const uint16_t *x = a + offsets[k] / 2 + 2 * m, *y = b + (k * DOT_COLUMNS + n) * 2;
        for (int i = 0; i < 2; i++) sum += dot_widen(x[i]) * dot_widen(y[i]);
      }
      out[m * stride + n] += sum;
    }
  }
}

static void levels(const float *x, size_t count, float inverse_step, int zero, uint8_t *y) {
  for (size_t i = 0; i < count; i++) y[i] = (uint8_t)((int)lrintf(x[i] * inverse_step) + zero);
}

static void round_scaled(const float *x, const float *scale, int count, uint16_t *y) {
  for (int i = 0; i < count; i++) y[i] = dot_round(x[i] * scale[i]);
}

static void pair(const float *first, const float *second, int count, float scale, uint16_t *y) {
  memset(y, 0, sizeof *y * 2 * DOT_COLUMNS);
  for (int i = 0; i < count; i++) {
    y[2 * i] = dot_round(first[i] * scale);
    if (second != NULL) y[2 * i + 1] = dot_round(second[i] * scale);
  }
}

static void spread(const struct dot_spread *s, const uint8_t *pixels, uint16_t *y) {
  for (int p = 0; p < s->pixels; p++, pixels += s->pixel_bytes, y += 2 * DOT_BLOCK) {
    for (int c = 0; c < s->blocks * DOT_BLOCK; c++) {
      uint16_t *target = y + c / DOT_BLOCK * s->block_stride + 2 * (c % DOT_BLOCK);
      target[0] = dot_round((float)(pixels[c] - s->zero));
      target[1] = p < s->partners ? dot_round((float)(pixels[c + s->partner_bytes] - s->zero)) : 0;
    }
  }
}

static void signs(const float *weights, ptrdiff_t stride, int channels, int columns, int8_t *forward, uint16_t *backward) {
  for (int c = 0; c < DOT_SIGN_CHANNELS; c++) {
    for (int o = 0; o < DOT_COLUMNS; o++) {
      int sign = c >= channels || o >= columns ? 0 : weights[c * stride + o] >= 0.0f ? 1 : -1;
      forward[(c / 4 * DOT_COLUMNS + o) * 4 + c % 4] = (int8_t)sign;
      if (backward != NULL) backward[(o / 2 * DOT_COLUMNS + c) * 2 + o % 2] = dot_round((float)sign);
    }
  }
}

const struct dot_kernels dot_kernels_plain = {
    .name = "plain",
    .windows_u8 = windows_u8,
    .windows_bf16 = windows_bf16,
    .gradient = gradient,
    .levels = levels,
    .round = round_scaled,
    .pair = pair,
    .spread = spread,
    .signs = signs,
};

const struct dot_kernels *dot_kernels_fast(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return &dot_kernels_avx512bf16;
#endif
  return NULL;
}
