/* Convolutions of 8-bit pixels in integers: what the kernels of every instruction set agree on.
 *
 * Input and weights are words of 4 bytes: two int16 by two int16, or four uint8 by four int8 (a form says which). The products
 * of a word are added to one 32-bit sum, which may wrap on the way; the final ones fit (plan_pixels.c). The input words of a
 * sum may stand anywhere. */
#ifndef HWGQ_KERNELS_ICONV_H
#define HWGQ_KERNELS_ICONV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One row of output pixels of one block of out channels:
 *   accumulators[x][lane] = base[base_index[x] * base_step + lane] + add[x][lane]
 *                           + sum over words and i of value i at input + x * column_step + offsets[word]
 *                                                   * weights[word][lane][i] */
struct hwgq_iconv_job {
  int columns;
  const uint8_t *input; /* values of the form's type */
  size_t column_step;   /* of `input`, in bytes: those of stride * channels values */
  int words;
  const size_t *offsets;  /* [words] from the pixel's first value, in bytes */
  const uint8_t *weights; /* [words][lanes] words */
  int lanes;              /* 16 or 32 */
  const int32_t *base;    /* NULL: 0 */
  size_t base_step;
  const uint16_t *base_index; /* [columns] */
  const int32_t *add;         /* [columns][HWGQ_LANES], NULL: 0 */
  int32_t *accumulators;      /* [columns][HWGQ_LANES] */
};

/* int16 rows from pixels: output[i] = pixels[i]; and differences: output[i] = a[i] - b[i]. Both NULL in a form of bytes, whose
 * rows are pixels. */
struct hwgq_iconv_form {
  const char *name; /* of the kernel: iconv_method_isa */
  bool bytes;       /* uint8 by int8, else int16 by int16 */
  void (*iconv)(const struct hwgq_iconv_job *job);
  void (*widen)(const uint8_t *pixels, size_t count, int16_t *output);
  void (*subtract)(const int16_t *a, const int16_t *b, size_t count, int16_t *output);
};

/* Whether this CPU has the instructions that a form of a supported kernel set needs beyond the set's (cpu.c). */
bool hwgq_iconv_supported(const struct hwgq_iconv_form *form);

#define HWGQ_DECLARE_ICONV(form)                                                                                               \
  void hwgq_iconv_##form(const struct hwgq_iconv_job *job);                                                                    \
  void hwgq_iconv_widen_##form(const uint8_t *pixels, size_t count, int16_t *output);                                          \
  void hwgq_iconv_subtract_##form(const int16_t *a, const int16_t *b, size_t count, int16_t *output)

HWGQ_DECLARE_ICONV(direct_scalar);
HWGQ_DECLARE_ICONV(madd_avx2);
HWGQ_DECLARE_ICONV(dot_avxvnni);
HWGQ_DECLARE_ICONV(madd_avx512);
HWGQ_DECLARE_ICONV(dot_avx512vnni);
HWGQ_DECLARE_ICONV(mlal_neon);
void hwgq_iconv_bytes_avxvnni(const struct hwgq_iconv_job *job);
void hwgq_iconv_bytes_avx512vnni(const struct hwgq_iconv_job *job);

#endif
