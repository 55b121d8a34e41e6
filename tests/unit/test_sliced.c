/* Bit-sliced kernels on random jobs, against counts of bits one by one. Whole layers are in test_kernels.c. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernels/kernels.h"
#include "tests/support/support.h"

/* A tile: sources, their lists, and weights with the same bits. */
struct fixture {
  const struct hwgq_sliced *kernels;
  int words, planes, sources, parts, blocks, part_sources;
  size_t channels, row_bytes, offsets_step;
  uint32_t *pixels; /* [source][word][plane] */
  uint16_t *offsets, *counts, *list;
  uint8_t *weights, *sums;
  struct hwgq_sliced_source *of;
  struct hwgq_sliced_job job;
};

static void *reserve(size_t bytes) {
  void *memory = aligned_alloc(64, (bytes + 127) / 64 * 64);
  ck_assert_ptr_nonnull(memory);
  memset(memory, 0, (bytes + 127) / 64 * 64);
  return memory;
}

static void fill(struct support_random *random, void *memory, size_t bytes, bool full) {
  uint8_t *to = memory;
  for (size_t i = 0; i < bytes; i++) to[i] = full ? 0xff : (uint8_t)support_random_next(random);
}

static void make_lists(struct fixture *f) {
  const struct hwgq_sliced_list_job job = {.input = f->pixels,
                                           .pixels = (size_t)f->sources,
                                           .pixel_step = (size_t)(f->words * f->planes),
                                           .words = f->words,
                                           .planes = f->planes,
                                           .offsets = f->offsets,
                                           .offsets_step = f->offsets_step,
                                           .counts = f->counts};
  f->kernels->list(&job);
}

static void random_fixture(struct support_random *random, const struct hwgq_sliced *kernels, bool full, struct fixture *f) {
  *f = (struct fixture){.kernels = kernels,
                        .words = support_random_int(random, 1, 9),
                        .planes = support_random_int(random, 1, HWGQ_MAX_PLANES),
                        .sources = support_random_int(random, 0, 12),
                        .blocks = support_random_int(random, 1, 3),
                        .part_sources = support_random_int(random, 1, 12)};
  f->parts = f->sources / f->part_sources + 1;
  f->channels = (size_t)f->words * 32;
  f->row_bytes = (size_t)kernels->lanes / 8;
  f->offsets_step = f->channels + HWGQ_SLICED_SLACK;
  const size_t lists = (size_t)(f->sources * f->planes), rows = (size_t)f->part_sources * f->channels;
  const size_t part_bytes = (rows + 1) * f->row_bytes, pixel_bytes = (size_t)(f->sources * f->words * f->planes) * 4;
  f->pixels = reserve(pixel_bytes);
  f->offsets = reserve(lists * f->offsets_step * 2);
  f->counts = reserve(lists * 2);
  f->list = reserve((rows + 2 * f->channels + 2 * HWGQ_SLICED_SLACK) * 2);
  f->weights = reserve((size_t)(f->blocks * f->parts) * part_bytes);
  f->of = reserve((size_t)f->sources * sizeof *f->of);
  fill(random, f->pixels, pixel_bytes, full);
  fill(random, f->weights, (size_t)(f->blocks * f->parts) * part_bytes, full);
  for (int i = 0; i < f->blocks * f->parts; i++)
    memset(f->weights + (size_t)(i + 1) * part_bytes - f->row_bytes, 0, f->row_bytes);
  make_lists(f);
  for (int s = 0; s < f->sources; s++) {
    f->of[s] = (struct hwgq_sliced_source){
        .offsets = f->offsets + (size_t)(s * f->planes) * f->offsets_step,
        .counts = f->counts + s * f->planes,
        .part = (uint16_t)(s / f->part_sources),
        .add = (uint16_t)((size_t)(s % f->part_sources) * f->channels * f->row_bytes / HWGQ_SLICED_UNIT)};
  }
  f->job = (struct hwgq_sliced_job){.sources = f->of,
                                    .source_count = f->sources,
                                    .planes = f->planes,
                                    .offsets_step = f->offsets_step,
                                    .usual = (size_t)(32 * support_random_int(random, 0, f->words)),
                                    .weights = f->weights,
                                    .weight_step = (size_t)f->parts * part_bytes,
                                    .part_step = part_bytes,
                                    .zero = (uint16_t)(rows * f->row_bytes / HWGQ_SLICED_UNIT),
                                    .blocks = f->blocks,
                                    .list = f->list,
                                    .sum_planes = 6};
  while ((size_t)f->sources * f->channels * ((1u << f->planes) - 1) >> f->job.sum_planes) f->job.sum_planes++;
  f->job.sum_planes += support_random_int(random, 0, 1);
  f->sums = reserve((size_t)(f->blocks * f->job.sum_planes) * f->row_bytes);
  f->job.sums = f->sums;
}

static void release(struct fixture *f) {
  free(f->pixels);
  free(f->offsets);
  free(f->counts);
  free(f->list);
  free(f->weights);
  free(f->of);
  free(f->sums);
}

/* The sum that lane `lane` of block `block` must have. */
static uint32_t expected_sum(const struct fixture *f, int block, size_t lane) {
  uint32_t sum = 0;
  for (int s = 0; s < f->sources; s++) {
    const uint8_t *rows = f->weights + (size_t)block * f->job.weight_step + (size_t)f->of[s].part * f->job.part_step +
                          (size_t)f->of[s].add * HWGQ_SLICED_UNIT;
    for (size_t c = 0; c < f->channels; c++) {
      if (!(rows[c * f->row_bytes + lane / 8] >> lane % 8 & 1)) continue;
      const uint32_t *word = f->pixels + ((size_t)s * (size_t)f->words + c / 32) * (size_t)f->planes;
      for (int p = 0; p < f->planes; p++) sum += (word[p] >> c % 32 & 1) << p;
    }
  }
  return sum;
}

static uint32_t sum_of(const struct fixture *f, int block, size_t lane) {
  uint32_t sum = 0;
  for (int i = 0; i < f->job.sum_planes; i++) {
    const uint8_t *plane = f->sums + (size_t)(block * f->job.sum_planes + i) * f->row_bytes;
    sum |= (uint32_t)(plane[lane / 8] >> lane % 8 & 1) << i;
  }
  return sum;
}

/* Thresholds around the sums, some that nothing and some that everything reaches. */
static void check_compare(struct support_random *random, const struct fixture *f) {
  const int levels = support_random_int(random, 1, HWGQ_SLICED_LEVELS), planes = f->job.sum_planes + 2;
  const size_t lanes = (size_t)f->kernels->lanes;
  uint8_t *thresholds = reserve((size_t)(planes * levels) * f->row_bytes), *masks = reserve((size_t)levels * f->row_bytes);
  uint32_t *values = reserve((size_t)levels * lanes * 4), start[HWGQ_SLICED_MAX_DWORDS];
  for (size_t g = 0; g < lanes / 32; g++) start[g] = (uint32_t)support_random_int(random, 0, (1 << f->job.sum_planes) - 1);
  for (int j = 0; j < levels; j++) {
    for (size_t lane = 0; lane < lanes; lane++) {
      const uint32_t number = 2 * sum_of(f, 0, lane) + start[lane / 32], most = (1u << planes) - 1;
      const int near = (int)number + support_random_int(random, -2, 2);
      const uint32_t t = support_random_chance(random, 0.8)   ? (near < 0 ? 0 : (uint32_t)near)
                         : support_random_chance(random, 0.5) ? 0
                                                              : most;
      values[(size_t)j * lanes + lane] = t;
      for (int i = 0; i < planes; i++) {
        thresholds[(size_t)(i * levels + j) * f->row_bytes + lane / 8] |= (uint8_t)((t >> i & 1) << lane % 8);
      }
    }
  }
  const struct hwgq_sliced_compare_job job = {f->sums, f->job.sum_planes, levels, start, thresholds, masks};
  f->kernels->compare(&job);
  for (int j = 0; j < levels; j++) {
    for (size_t lane = 0; lane < lanes; lane++) {
      const bool reached = 2 * sum_of(f, 0, lane) + start[lane / 32] >= values[(size_t)j * lanes + lane];
      ck_assert_int_eq(masks[(size_t)j * f->row_bytes + lane / 8] >> lane % 8 & 1, reached);
    }
  }
  free(thresholds);
  free(masks);
  free(values);
}

static void check_unpack(struct support_random *random, const struct fixture *f) {
  const int dwords = f->kernels->lanes / 32;
  int32_t sums[HWGQ_SLICED_MAX_DWORDS][32], *to[HWGQ_SLICED_MAX_DWORDS];
  uint32_t start[HWGQ_SLICED_MAX_DWORDS];
  for (int g = 0; g < dwords; g++) {
    to[g] = sums[dwords - 1 - g];
    start[g] = (uint32_t)-support_random_int(random, 0, 100000);
  }
  const struct hwgq_sliced_unpack_job job = {f->sums, f->job.sum_planes, start, to};
  f->kernels->unpack(&job);
  for (int g = 0; g < dwords; g++) {
    for (size_t lane = 0; lane < 32; lane++) {
      ck_assert_int_eq(to[g][lane], (int32_t)(2 * sum_of(f, 0, (size_t)g * 32 + lane) + start[g]));
    }
  }
}

START_TEST(tiles) {
  const struct hwgq_kernels *set = hwgq_kernels_get(_i);
  if (!set || !hwgq_kernels_supported(set) || !hwgq_sliced_supported(set)) {
    printf("SKIPPED: bit-sliced kernels of set %d, which this CPU cannot run\n", _i);
    return;
  }
  struct support_random random = {77};
  for (int round = 0; round < support_rounds(150); round++) {
    struct fixture f;
    random_fixture(&random, &set->sliced, round % 10 == 0, &f);
    f.kernels->sum(&f.job);
    for (int block = 0; block < f.blocks; block++) {
      for (size_t lane = 0; lane < (size_t)f.kernels->lanes; lane += 1 + (size_t)support_random_int(&random, 0, 20)) {
        ck_assert_msg(sum_of(&f, block, lane) == expected_sum(&f, block, lane),
                      "%s, round %d, block %d lane %zu: %u, not %u (%d sources of %zu channels, %d planes)", set->name, round,
                      block, lane, sum_of(&f, block, lane), expected_sum(&f, block, lane), f.sources, f.channels, f.planes);
      }
    }
    check_compare(&random, &f);
    check_unpack(&random, &f);
    release(&f);
  }
}
END_TEST

/* Tiles of several pixels that are far apart may read more than the counter of a lane holds: such layers are computed
 * otherwise, here also when everything is set. */
START_TEST(large_tiles) {
  struct hwgq_network *network;
  struct hwgq_error error;
  struct support_random random = {5};
  struct hwgq_quantizer quantizer;
  ck_assert_int_eq(hwgq_network_create("far", (struct hwgq_shape){1024, 49, 49}, &network, &error), HWGQ_OK);
  struct hwgq_layer *quantize = support_add(network, "levels", HWGQ_QUANTIZE, "input");
  ck_assert_int_eq(hwgq_quantizer_design(15, true, false, &quantizer, &error), HWGQ_OK);
  quantize->level_count = quantizer.level_count;
  memcpy(quantize->centers, quantizer.centers, sizeof quantize->centers);
  memcpy(quantize->thresholds, quantizer.thresholds, sizeof quantize->thresholds);
  struct hwgq_layer *conv = support_add(network, "far", HWGQ_CONV2D, "levels");
  conv->out_channels = 32;
  conv->stride_height = conv->stride_width = 16;
  conv->binary = conv->has_alpha = true;
  ck_assert_int_eq(hwgq_network_infer(network, &error), HWGQ_OK);
  support_fill_parameters(network, &random);
  float *input = malloc(sizeof *input * 1024 * 49 * 49), scores[2][32 * 16];
  for (int i = 0; i < 1024 * 49 * 49; i++) input[i] = 100;
  const char *const forms[] = {"sliced", "popcount"};
  for (int i = 0; i < 2; i++) {
    struct hwgq_plan *plan;
    const struct hwgq_plan_options options = {.form = forms[i]};
    ck_assert_int_eq(hwgq_plan_create(network, NULL, &options, &plan, &error), HWGQ_OK);
    void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
    ck_assert_int_eq(hwgq_plan_output_count(plan), 32 * 16);
    hwgq_run_tensor(plan, scratch, input, scores[i]);
    free(scratch);
    hwgq_plan_destroy(plan);
  }
  ck_assert_mem_eq(scores[0], scores[1], sizeof scores[0]);
  free(input);
  hwgq_network_destroy(network);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("sliced");
  TCase *tests = tcase_create("sliced");
  tcase_set_timeout(tests, 300);
  tcase_add_loop_test(tests, tiles, 0, 3);
  tcase_add_test(tests, large_tiles);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  const int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
