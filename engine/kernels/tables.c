/* The kernel sets, worst first. One object, compiled for the baseline: choosing a set must not need its instructions. */
#include <string.h>

#include "engine/kernels/kernels.h"

#define ICONV(form)                                                                                                            \
  { "iconv_" #form, false, hwgq_iconv_##form, hwgq_iconv_widen_##form, hwgq_iconv_subtract_##form }
#define ICONV_BYTES(form)                                                                                                      \
  { "iconv_" #form, true, hwgq_iconv_##form, NULL, NULL }
#define ICONVS(...)                                                                                                            \
  { __VA_ARGS__ }

enum {
  HWGQ_SLICED_LANES_scalar = 64,
  HWGQ_SLICED_LANES_avx2 = 256,
  HWGQ_SLICED_LANES_avx512 = 512,
  HWGQ_SLICED_LANES_neon = 128
};

#define TABLE(isa, pixels, ...)                                                                                                \
  {                                                                                                                            \
    .name = #isa, .forms = {__VA_ARGS__},                                                                                      \
    .sliced = {HWGQ_SLICED_LANES_##isa, hwgq_sliced_list_##isa, hwgq_sliced_sum_##isa, hwgq_sliced_compare_##isa,              \
               hwgq_sliced_unpack_##isa},                                                                                      \
    .fconv = hwgq_fconv_direct_##isa, .iconvs = pixels, .sums = hwgq_sums_##isa, .pack_i32 = hwgq_pack_i32_##isa,              \
    .pack_f32 = hwgq_pack_f32_##isa, .affine_i32 = hwgq_affine_i32_##isa, .affine_f32 = hwgq_affine_f32_##isa,                 \
    .add = hwgq_add_##isa, .pool_i32 = hwgq_pool_i32_##isa, .pool_f32 = hwgq_pool_f32_##isa, .linear = hwgq_linear_##isa,      \
    .max = hwgq_max_##isa, .exp = hwgq_exp_##isa, .pack_f64 = hwgq_pack_f64_##isa, .affine_f64 = hwgq_affine_f64_##isa,        \
    .pool_f64 = hwgq_pool_f64_##isa, .accumulate = hwgq_accumulate_##isa, .average = hwgq_average_##isa,                       \
  }

static const struct hwgq_kernels tables[] = {
    TABLE(scalar, ICONVS(ICONV(direct_scalar)), {"popcount", 0, HWGQ_MAX_PLANES, 1, hwgq_bconv_popcount_scalar, NULL}),
#if defined(__x86_64__)
    TABLE(avx2, ICONVS(ICONV_BYTES(bytes_avxvnni), ICONV(dot_avxvnni), ICONV(madd_avx2)),
          {"lookup4", 4, 2, 1, hwgq_bconv_lookup4_avx2, hwgq_encode4_avx2},
          {"popcount", 0, HWGQ_MAX_PLANES, 1, hwgq_bconv_popcount_avx2, NULL}),
    TABLE(avx512, ICONVS(ICONV_BYTES(bytes_avx512vnni), ICONV(dot_avx512vnni), ICONV(madd_avx512)),
          {"lookup6", 6, 2, 2, hwgq_bconv_lookup6_avx512vbmi, hwgq_encode6_avx512},
          {"lookup4", 4, 2, 2, hwgq_bconv_lookup4_avx512, hwgq_encode4_avx2},
          {"popcount", 0, HWGQ_MAX_PLANES, 1, hwgq_bconv_popcount_avx512, NULL}),
#elif defined(__aarch64__)
    TABLE(neon, ICONVS(ICONV(mlal_neon)), {"lookup4", 4, 2, 1, hwgq_bconv_lookup4_neon, hwgq_encode4_neon},
          {"popcount", 0, HWGQ_MAX_PLANES, 1, hwgq_bconv_popcount_neon, NULL}),
#endif
};

const struct hwgq_kernels *hwgq_kernels_get(int index) {
  if (index < 0 || (size_t)index >= sizeof tables / sizeof *tables) return NULL;
  return &tables[index];
}

const struct hwgq_kernels *hwgq_kernels_find(const char *name) {
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
    if (strcmp(tables[i].name, name) == 0) return &tables[i];
  }
  return NULL;
}
