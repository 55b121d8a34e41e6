/* Codes of activations, and weights in the order in which the look-up kernels read them.
 *
 * A code holds K activations of one or two bits: K bits of plane 0, then K bits of plane 1. Its table has one byte for each
 * subset of the K activations, their sum; 16 bytes for K = 4 (256 tables, 4 KB), 64 bytes for K = 6 (4096 tables, 256 KB).
 * Codes are stored as the table's offset in bytes.
 *
 *   K = 4  uint16, eight per word: code j holds channels 4j .. 4j + 3. A unit is a word. Its weights: four times one byte per
 *          lane; byte b holds channels 8b .. 8b + 7.
 *   K = 6  uint32, five per word (channels 6j .. 6j + 5), then one for every three words with their channels 30 and 31. A unit
 *          is a code. Its weights: one byte per lane, 64 lanes. */
#include <string.h>

#include "engine/kernels/kernels.h"

size_t hwgq_code_elements(const struct hwgq_bconv_form *form, int words) {
  return form->code == 4 ? 4 * (size_t)words : 5 * (size_t)words + ((size_t)words + 2) / 3;
}

size_t hwgq_code_units(const struct hwgq_bconv_form *form, int words) {
  return form->code == 4 ? (size_t)words : hwgq_code_elements(form, words);
}

size_t hwgq_code_unit_weights(const struct hwgq_bconv_form *form) {
  const size_t lanes = (size_t)form->span * HWGQ_LANES;
  return form->code == 4 ? lanes : lanes / 4;
}

size_t hwgq_code_table_bytes(const struct hwgq_bconv_form *form) {
  return (size_t)1 << 3 * form->code;
}

void hwgq_code_make_tables(const struct hwgq_bconv_form *form, uint8_t *tables) {
  const size_t bytes = hwgq_code_table_bytes(form);
  const unsigned k = (unsigned)form->code, mask = (1u << k) - 1;
  for (size_t i = 0; i < bytes; i++) {
    const unsigned subset = (unsigned)i & mask, code = (unsigned)(i >> k);
    tables[i] = (uint8_t)(__builtin_popcount(code & subset) + 2 * __builtin_popcount(code >> k & subset));
  }
}

void hwgq_code_arrange(const struct hwgq_bconv_form *form, const uint32_t *bits, int words, int part, uint8_t *weights) {
  const size_t lanes = (size_t)form->span * HWGQ_LANES, rest = 5 * (size_t)words;
  weights += (size_t)part * HWGQ_LANES;
  for (size_t word = 0; word < (size_t)words; word++, bits += HWGQ_LANES) {
    for (size_t lane = 0; lane < HWGQ_LANES; lane++) {
      if (form->code == 4) {
        for (size_t b = 0; b < 4; b++) weights[(4 * word + b) * lanes + lane] = (uint8_t)(bits[lane] >> 8 * b);
        continue;
      }
      for (size_t j = 0; j < 5; j++) weights[(5 * word + j) * lanes + lane] = (uint8_t)(bits[lane] >> 6 * j & 63);
      weights[(rest + word / 3) * lanes + lane] |= (uint8_t)(bits[lane] >> 30 << 2 * (word % 3));
    }
  }
}
