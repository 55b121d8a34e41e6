/* Binary convolutions by look-up: encoding, arranging and the kernels together, on random jobs against counts of the bits.
 * Whole layers are in test_kernels_layers.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "tests/support/support.h"

enum { LANES = HWGQ_LANES };

static const struct hwgq_kernels *set_at(int index) {
  const struct hwgq_kernels *kernels = hwgq_kernels_get(index);
  return kernels && hwgq_kernels_supported(kernels) ? kernels : NULL;
}

static void *reserve(size_t count) {
  void *memory = calloc(count + 1, 8);
  ck_assert_ptr_nonnull(memory);
  return memory;
}

static void fill_bits(struct support_random *random, uint32_t *words, size_t count) {
  for (size_t i = 0; i < count; i++) words[i] = (uint32_t)support_random_next(random);
}

/* A job for a form with codes, made from the bits that the contract speaks of. */
struct code_fixture {
  int words, planes, rows, taps; /* a pixel's words and planes; taps per row */
  size_t width, pixels;          /* of the image that is encoded */
  uint32_t *bits, *weights;      /* [pixel][word][plane], [span][tap][word][lane] */
  struct hwgq_conv_job job;
  uint32_t *codes, *arranged;
  uint8_t *tables;
  int32_t base[HWGQ_MAX_SPAN * LANES], corrections[64];
};

static void random_codes(struct support_random *random, const struct hwgq_bconv_form *form, bool full, struct code_fixture *f) {
  f->words = support_random_chance(random, 0.05) ? 128 : support_random_int(random, 1, 9);
  f->planes = support_random_int(random, 1, form->max_planes);
  f->rows = support_random_int(random, 0, 4);
  f->taps = support_random_int(random, 1, 3);
  f->width = (size_t)support_random_int(random, 12, 20);
  f->pixels = f->width * 8;
  const size_t words = (size_t)f->words, taps = (size_t)f->rows * (size_t)f->taps, span = (size_t)form->span;
  const size_t elements = hwgq_code_elements(form, f->words), units = hwgq_code_units(form, f->words);
  const size_t bits = f->pixels * words * (size_t)f->planes, unit_weights = hwgq_code_unit_weights(form);
  f->bits = reserve(bits);
  f->weights = reserve(span * taps * words * LANES);
  f->codes = reserve(f->pixels * elements);
  f->arranged = reserve(taps * units * unit_weights);
  f->tables = aligned_alloc(64, hwgq_code_table_bytes(form));
  fill_bits(random, f->bits, bits);
  fill_bits(random, f->weights, span * taps * words * LANES);
  if (full) { /* the largest sums */
    memset(f->bits, 0xff, bits * sizeof *f->bits);
    memset(f->weights, 0xff, span * taps * words * LANES * sizeof *f->weights);
  }
  hwgq_code_make_tables(form, f->tables);
  form->encode(&(struct hwgq_encode_job){f->bits, f->pixels, f->words, f->planes, f->codes});
  for (size_t part = 0; part < span; part++) {
    for (size_t tap = 0; tap < taps; tap++) {
      hwgq_code_arrange(form, f->weights + (part * taps + tap) * words * LANES, f->words, (int)part,
                        (uint8_t *)(f->arranged + tap * units * unit_weights));
    }
  }
  for (size_t i = 0; i < span * LANES; i++) f->base[i] = support_random_int(random, -1000, 1000);
  for (int i = 0; i < 64; i++) f->corrections[i] = support_random_int(random, -1000, 1000);
  const bool whole = support_random_chance(random, 0.5); /* one run per row or one per tap */
  f->job = (struct hwgq_conv_job){.lines = support_random_int(random, 1, 3),
                                  .columns = support_random_int(random, 1, 9),
                                  .input = f->codes,
                                  .line_step = f->width * elements,
                                  .column_step = elements,
                                  .rows = f->rows,
                                  .runs = whole ? 1 : f->taps,
                                  .length = (whole ? f->taps : 1) * (int)units,
                                  .row_step = f->width * elements,
                                  .run_step = elements,
                                  .weights = f->arranged,
                                  .weight_row_step = (size_t)f->taps * units * unit_weights,
                                  .weight_run_step = units * unit_weights,
                                  .lanes = (form->span == 1 || support_random_chance(random, 0.5) ? 1 : 2) * LANES,
                                  .accumulator_line_step = 10 * LANES,
                                  .accumulator_block_step = 30 * LANES,
                                  .planes = f->planes,
                                  .plane_step = (int)(elements / units),
                                  .shift = support_random_int(random, 1, 2),
                                  .base = f->base,
                                  .correction = f->corrections,
                                  .correction_line_step = 12,
                                  .tables = f->tables};
}

static int32_t naive_codes(const struct code_fixture *f, size_t line, size_t column, size_t lane) {
  const size_t words = (size_t)f->words, planes = (size_t)f->planes, taps = (size_t)f->rows * (size_t)f->taps;
  uint32_t sum = 0;
  for (size_t tap = 0; tap < taps; tap++) {
    const size_t pixel = (line + tap / (size_t)f->taps) * f->width + column + tap % (size_t)f->taps;
    for (size_t word = 0; word < words; word++) {
      const uint32_t w = f->weights[((lane / LANES * taps + tap) * words + word) * LANES + lane % LANES];
      for (size_t p = 0; p < planes; p++) {
        sum += (uint32_t)__builtin_popcount(w & f->bits[(pixel * words + word) * planes + p]) << p;
      }
    }
  }
  return (int32_t)(sum << f->job.shift) + f->base[lane] + f->corrections[line * 12 + column];
}

static void check_codes(struct support_random *random, const struct hwgq_bconv_form *form, int round) {
  static const int32_t untouched = 0x7a7a7a7a;
  struct code_fixture f;
  random_codes(random, form, round % 10 == 0, &f);
  int32_t *accumulators = malloc(60 * LANES * sizeof *accumulators);
  memset(accumulators, 0x7a, 60 * LANES * sizeof *accumulators);
  f.job.accumulators = accumulators;
  form->bconv(&f.job);
  for (size_t line = 0; line < 3; line++) {
    for (size_t column = 0; column < 10; column++) {
      for (size_t lane = 0; lane < 2 * LANES; lane++) {
        const int32_t got = accumulators[line * 10 * LANES + column * LANES + lane / LANES * 30 * LANES + lane % LANES];
        const bool computed = line < (size_t)f.job.lines && column < (size_t)f.job.columns && lane < (size_t)f.job.lanes;
        const int32_t expected = computed ? naive_codes(&f, line, column, lane) : untouched;
        if (got != expected) ck_abort_msg("%s round %d lane %zu: %d, not %d", form->name, round, lane, (int)got, (int)expected);
      }
    }
  }
  free(accumulators);
  free(f.bits);
  free(f.weights);
  free(f.codes);
  free(f.arranged);
  free(f.tables);
}

/* Forms that look sums up, through encoding and arranging. */
START_TEST(lookups) {
  const struct hwgq_kernels *kernels = set_at(_i);
  if (!kernels) return;
  for (const struct hwgq_bconv_form *form = kernels->forms; form->name; form++) {
    if (!form->code) continue;
    const bool supported = hwgq_form_supported(form);
    printf("%s: %s of kernel set %s on this CPU\n", supported ? "tested" : "SKIPPED", form->name, kernels->name);
    struct support_random random = {23};
    for (int round = 0; supported && round < 400; round++) check_codes(&random, form, round);
  }
}
END_TEST

int main(void) {
  enum { SETS = 3 };
  Suite *suite = suite_create("lookup");
  TCase *tests = tcase_create("lookup");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, lookups, 0, SETS);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
