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

static void spread(const uint8_t *first, const uint8_t *second, int blocks, int zero, uint16_t *y, ptrdiff_t block_stride) {
  for (int b = 0; b < blocks; b++, y += block_stride) {
    for (int i = 0; i < DOT_BLOCK; i++) {
      y[2 * i] = dot_round((float)(first[b * DOT_BLOCK + i] - zero));
      y[2 * i + 1] = second != NULL ? dot_round((float)(second[b * DOT_BLOCK + i] - zero)) : 0;
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
};

const struct dot_kernels *dot_kernels_fast(void) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return &dot_kernels_avx512bf16;
#endif
  return NULL;
}
