/* The parts of the trainer beside its gradients: pool, random numbers, loops, optimizers and schedules. */
#include <check.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/blas.h"
#include "models/train/kernels.h"
#include "models/train/optimizer.h"
#include "models/train/pool.h"
#include "models/train/rng.h"
#include "tests/support/support.h"

static struct hwgq_error error;

/* ---- pool --------------------------------------------------------------------------------------------------------------- */

enum { TASKS = 1000 };

struct counters {
  atomic_int done[TASKS];
  atomic_int worst_worker;
};

static void count_task(void *context, int index, int worker) {
  struct counters *counters = context;
  atomic_fetch_add(&counters->done[index], 1);
  int worst = atomic_load(&counters->worst_worker);
  while (worker > worst && !atomic_compare_exchange_weak(&counters->worst_worker, &worst, worker)) continue;
}

START_TEST(every_task_runs_once) {
  static const int threads[] = {1, 2, 3, 8};
  struct pool *pool = NULL;
  struct counters counters = {0};
  ck_assert_int_eq(pool_create(threads[_i], &pool, &error), HWGQ_OK);
  ck_assert_int_eq(pool_threads(pool), threads[_i]);
  for (int round = 0; round < 50; round++) pool_run(pool, round % 10 == 0 ? 0 : TASKS - round, count_task, &counters);
  for (int i = 0; i < TASKS; i++) {
    int expected = 0;
    for (int round = 0; round < 50; round++) expected += round % 10 != 0 && i < TASKS - round;
    ck_assert_int_eq(atomic_load(&counters.done[i]), expected);
  }
  ck_assert_int_lt(atomic_load(&counters.worst_worker), threads[_i]);
  pool_destroy(pool);
}
END_TEST

START_TEST(senseless_thread_counts_are_refused) {
  struct pool *pool = NULL;
  ck_assert_int_eq(pool_create(0, &pool, &error), HWGQ_ERROR_INVALID);
  ck_assert_int_eq(pool_create(POOL_MAX_THREADS + 1, &pool, &error), HWGQ_ERROR_INVALID);
  ck_assert_ptr_null(pool);
  pool_destroy(NULL);
}
END_TEST

/* ---- random numbers ----------------------------------------------------------------------------------------------------- */

START_TEST(random_numbers_are_spread_and_repeatable) {
  struct rng a = rng_make(1, 2, 3), b = rng_make(1, 2, 3), c = rng_make(1, 2, 4), d = rng_make(1, 3, 3);
  uint64_t first = rng_next(&a);
  ck_assert_uint_eq(first, rng_next(&b));
  ck_assert_uint_ne(first, rng_next(&c));
  ck_assert_uint_ne(first, rng_next(&d));
  int counts[7] = {0};
  double sum = 0, squares = 0;
  for (int i = 0; i < 70000; i++) {
    counts[rng_below(&a, 7)]++;
    double x = (double)rng_uniform(&a);
    ck_assert(x >= 0 && x < 1);
    sum += x;
    squares += x * x;
  }
  /* Five standard deviations: of a count sqrt(70000 * 6 / 49) = 93, of a mean sqrt(1 / 12 / 70000) = 0.0011. */
  for (int i = 0; i < 7; i++) ck_assert_int_lt(abs(counts[i] - 10000), 463);
  ck_assert_double_eq_tol(sum / 70000, 0.5, 0.0055);
  ck_assert_double_eq_tol(squares / 70000, 1.0 / 3, 0.006);
  ck_assert_uint_eq(rng_below(&a, 1), 0);
}
END_TEST

/* The reference values of xoshiro256**, for the state 1, 2, 3, 4. */
START_TEST(generator_is_xoshiro) {
  struct rng rng = {{1, 2, 3, 4}};
  static const uint64_t expected[] = {11520u, 0u, 1509978240u, 1215971899390074240u};
  for (int i = 0; i < 4; i++) ck_assert_uint_eq(rng_next(&rng), expected[i]);
}
END_TEST

START_TEST(permutations_have_every_number_once) {
  int order[100], seen[100] = {0}, in_place = 0;
  struct rng rng = rng_make(9, 0, 0);
  rng_permutation(&rng, order, 100);
  for (int i = 0; i < 100; i++) {
    ck_assert(order[i] >= 0 && order[i] < 100);
    ck_assert_int_eq(seen[order[i]]++, 0);
    in_place += order[i] == i;
  }
  ck_assert_int_lt(in_place, 10);
}
END_TEST

START_TEST(gaussian_numbers_are_gaussian) {
  enum { COUNT = 20000 };
  struct rng rng = rng_make(5, 6, 7);
  double sum = 0, square = 0, fourth = 0;
  for (int i = 0; i < COUNT; i++) {
    double x = (double)rng_normal(&rng);
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
  }
  ck_assert_double_lt(fabs(sum / COUNT), 0.03);
  ck_assert_double_lt(fabs(square / COUNT - 1), 0.05);
  ck_assert_double_lt(fabs(fourth / COUNT - 3), 0.4);
}
END_TEST

/* ---- loops: every instruction set gives the bits of the baseline --------------------------------------------------------- */

enum { CHANNELS = 37, PIXELS = 530, VALUES = CHANNELS * PIXELS };

struct buffers {
  float a[VALUES], b[VALUES], c[VALUES], d[VALUES];
  double sums[2 * CHANNELS];
  uint8_t which[VALUES];
};

static void run_loops(const struct train_kernels *k, struct buffers *x) {
  static const float centers[] = {0.3f, 0.6f, 0.9f, 1.2f}, thresholds[] = {0, 0.45f, 0.75f, 1.05f};
  struct rng rng = rng_make(4, 4, 4);
  memset(x, 0, sizeof *x);
  for (int i = 0; i < VALUES; i++) {
    x->a[i] = 4 * rng_uniform(&rng) - 2;
    x->b[i] = 4 * rng_uniform(&rng) - 2;
  }
  k->sum_squares(x->a, PIXELS, CHANNELS, x->sums, x->sums + CHANNELS);
  k->sum_products(x->b, x->a, PIXELS, CHANNELS, x->sums, x->sums + CHANNELS);
  k->affine(x->a, PIXELS, CHANNELS, x->b, x->b + CHANNELS, x->c);
  k->normalize_backward(x->c, x->b, PIXELS, CHANNELS, x->a, x->a + CHANNELS, x->a + 2 * CHANNELS);
  k->add_bias(x->c, PIXELS, CHANNELS, x->b);
  k->quantize(x->a, VALUES / 2, 3, thresholds, centers, x->d);
  k->quantize(x->a + VALUES / 2, VALUES - VALUES / 2, 4, thresholds, centers, x->d + VALUES / 2);
  k->add(x->c, x->d, VALUES);
  k->sign(x->a, VALUES, x->d);
  k->add_scaled(x->c, x->d, VALUES, 0.3f);
  k->relu(x->b, VALUES, x->d);
  k->mask_half_open(x->d, x->a, VALUES, 0, 1);
  k->add(x->c, x->d, VALUES);
  k->mask_log_tailed(x->d, x->a, VALUES, 0.7f);
  k->add(x->c, x->d, VALUES);
  k->mask_hard_tanh(x->d, x->b, VALUES);
  k->add(x->c, x->d, VALUES);
  k->max_first(x->a, CHANNELS, x->d, x->which, 3);
  k->max_next(x->b, CHANNELS, x->d, x->which, 4);
  k->max_backward(x->c, CHANNELS, x->d, x->which, 4);
  k->adam(x->a, x->b, x->c, x->d, VALUES, 0.01f, 0.9f, 0.99f, 1e-3f);
  k->momentum(x->a, x->b, x->d, VALUES, 0.01f, 0.9f);
  k->clamp(x->a, VALUES, -1, 1);
}

static void compare_loops(const struct train_kernels *kernels) {
  struct buffers *expected = malloc(sizeof *expected), *got = malloc(sizeof *got);
  ck_assert_ptr_nonnull(expected);
  ck_assert_ptr_nonnull(got);
  run_loops(&train_kernels_baseline, expected);
  run_loops(kernels, got);
  ck_assert_msg(memcmp(expected, got, sizeof *got) == 0, "%s differs", kernels->name);
  free(expected);
  free(got);
}

START_TEST(loops_agree_on_every_instruction_set) {
  compare_loops(train_kernels());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2"))
    compare_loops(&train_kernels_avx2);
#endif
}
END_TEST

START_TEST(loops_do_what_they_say) {
  const struct train_kernels *k = train_kernels();
  static const float centers[] = {0.5f, 1, 1.5f}, thresholds[] = {0, 0.75f, 1.25f};
  static const float x[] = {-1, 0, 0.01f, 0.75f, 0.76f, 1.25f, 1.26f, 1.5f, 1.51f, 9};
  static const float levels[] = {0, 0, 0.5f, 0.5f, 1, 1, 1.5f, 1.5f, 1.5f, 1.5f};
  float y[10], g[10];
  k->quantize(x, 10, 3, thresholds, centers, y);
  for (int i = 0; i < 10; i++) ck_assert_float_eq(y[i], levels[i]);
  for (int i = 0; i < 10; i++) g[i] = 2;
  k->mask_half_open(g, x, 10, 0, 1.5f);
  for (int i = 0; i < 10; i++) ck_assert_float_eq(g[i], i >= 2 && i <= 7 ? 2 : 0);
  for (int i = 0; i < 10; i++) g[i] = 2;
  k->mask_log_tailed(g, x, 10, 0.75f);
  for (int i = 0; i < 10; i++) ck_assert_float_eq_tol(g[i], i < 2 ? 0 : i <= 3 ? 2 : 2 / (x[i] - 0.75f + 1), 1e-6f);
  k->sign(x, 10, y);
  for (int i = 0; i < 10; i++) ck_assert_float_eq(y[i], i == 0 ? -1 : 1);
  for (int i = 0; i < 10; i++) g[i] = 2;
  k->mask_hard_tanh(g, x, 10);
  for (int i = 0; i < 10; i++) ck_assert_float_eq(g[i], i <= 4 ? 2 : 0);
}
END_TEST

/* ---- optimizers --------------------------------------------------------------------------------------------------------- */

struct fixture {
  struct blas blas;
  struct pool *pool;
  struct hwgq_network *network;
  struct net *net;
};

/* input 2 -> linear 2 with bias (binary or not) -> softmax */
static void open_fixture(struct fixture *f, bool binary) {
  ck_assert_int_eq(blas_load(NULL, &f->blas, &error), HWGQ_OK);
  ck_assert_int_eq(pool_create(2, &f->pool, &error), HWGQ_OK);
  ck_assert_int_eq(hwgq_network_create("net", (struct hwgq_shape){2, 1, 1}, &f->network, &error), HWGQ_OK);
  struct hwgq_layer *layer = support_add(f->network, "fc", HWGQ_LINEAR, "input");
  layer->out_channels = 2;
  layer->has_bias = true;
  layer->binary = layer->has_alpha = binary;
  support_add(f->network, "prob", HWGQ_SOFTMAX, "fc");
  ck_assert_int_eq(hwgq_network_infer(f->network, &error), HWGQ_OK);
  ck_assert_int_eq(net_create(f->network, 1, f->pool, &f->blas, &f->net, &error), HWGQ_OK);
  net_initialize(f->net, NET_UNIFORM, 1);
}

static void close_fixture(struct fixture *f) {
  net_destroy(f->net);
  hwgq_network_destroy(f->network);
  pool_destroy(f->pool);
  blas_unload(&f->blas);
}

static void set_gradient(struct net *net, const float weight[4], const float bias[2]) {
  struct conv *conv = &net->layers[0].conv;
  memset(conv->gradient, 0, sizeof(float) * 4 * (size_t)conv->groups);
  memcpy(conv->gradient, weight, sizeof(float) * 4);
  memcpy(conv->bias_gradient, bias, sizeof(float) * 2);
}

START_TEST(adam_steps_as_published) {
  struct fixture f;
  open_fixture(&f, false);
  struct optimizer_options options = {.kind = OPTIMIZER_ADAM, .rate = 0.1, .classifier = 1};
  struct optimizer *optimizer = NULL;
  ck_assert_int_eq(optimizer_create(&options, f.net, &optimizer, &error), HWGQ_OK);
  double weight[4], m[4] = {0}, v[4] = {0};
  for (int i = 0; i < 4; i++) weight[i] = (double)f.net->parameters[0].value[i];
  static const float gradients[][4] = {{0.5f, -2, 1e-3f, 0}, {-0.25f, -1, 2e-3f, 0}, {3, 0.5f, -1e-3f, 0}};
  for (int step = 1; step <= 3; step++) {
    const float *g = gradients[step - 1];
    set_gradient(f.net, g, (float[]){0, 0});
    optimizer_step(optimizer, 0.1);
    for (int i = 0; i < 4; i++) {
      m[i] = 0.9 * m[i] + 0.1 * (double)g[i];
      v[i] = 0.999 * v[i] + 0.001 * (double)g[i] * (double)g[i];
      double corrected_m = m[i] / (1 - pow(0.9, step)), corrected_v = v[i] / (1 - pow(0.999, step));
      weight[i] -= 0.1 * corrected_m / (sqrt(corrected_v) + 1e-8);
      ck_assert_double_eq_tol((double)f.net->parameters[0].value[i], weight[i], 2e-6);
    }
  }
  /* The first step is the rate's size, whatever the gradient's. */
  ck_assert_int_eq(optimizer->step, 3);
  optimizer_destroy(optimizer);
  close_fixture(&f);
}
END_TEST

START_TEST(momentum_and_decay_step_as_by_hand) {
  struct fixture f;
  open_fixture(&f, false);
  struct optimizer_options options = {
      .kind = OPTIMIZER_SGD, .rate = 0.1, .classifier = 1, .momentum = 0.5, .weight_decay = 0.01};
  struct optimizer *optimizer = NULL;
  ck_assert_int_eq(optimizer_create(&options, f.net, &optimizer, &error), HWGQ_OK);
  float *weight = f.net->parameters[0].value, *bias = f.net->parameters[1].value;
  weight[0] = 1;
  weight[1] = -2;
  weight[2] = weight[3] = 0;
  bias[0] = 4;
  bias[1] = 0;
  set_gradient(f.net, (float[]){1, 2, 3, 0}, (float[]){1, 0});
  optimizer_step(optimizer, 0.1);
  /* g + 0.01 w = 1.01, 1.98, 3, 0; biases do not decay */
  ck_assert_float_eq_tol(weight[0], 1 - 0.101f, 1e-6f);
  ck_assert_float_eq_tol(weight[1], -2 - 0.198f, 1e-6f);
  ck_assert_float_eq_tol(weight[2], -0.3f, 1e-6f);
  ck_assert_float_eq_tol(bias[0], 3.9f, 1e-6f);
  set_gradient(f.net, (float[]){0, 0, 0, 0}, (float[]){0, 0});
  optimizer_step(optimizer, 0.2);
  /* velocity = 0.5 * -0.101 - 0.2 * 0.01 * 0.899 */
  ck_assert_float_eq_tol(weight[0], 0.899f - 0.0505f - 0.001798f, 1e-6f);
  ck_assert_float_eq_tol(weight[2], -0.3f - 0.15f + 0.0006f, 1e-6f);
  ck_assert_float_eq_tol(bias[0], 3.85f, 1e-6f);
  ck_assert_float_eq(bias[1], 0);
  optimizer_destroy(optimizer);
  close_fixture(&f);
}
END_TEST

START_TEST(the_classifier_has_its_own_rate) {
  struct optimizer_options options = {.kind = OPTIMIZER_SGD, .classifier = 0.25};
  for (int binary = 0; binary <= 1; binary++) {
    struct fixture f;
    struct optimizer *optimizer = NULL;
    open_fixture(&f, binary == 1);
    ck_assert_int_eq(optimizer_create(&options, f.net, &optimizer, &error), HWGQ_OK);
    f.net->parameters[0].value[1] = 0;
    set_gradient(f.net, (float[]){0, 1, 0, 0}, (float[]){2, 0});
    optimizer_step(optimizer, 0.5);
    ck_assert_float_eq(f.net->parameters[0].value[1], binary == 1 ? -0.5f : -0.125f);
    ck_assert_float_eq(f.net->parameters[1].value[0], binary == 1 ? -1.0f : -0.25f);
    optimizer_destroy(optimizer);
    close_fixture(&f);
  }
}
END_TEST

START_TEST(latent_weights_are_clamped_and_binarized) {
  struct fixture f;
  open_fixture(&f, true);
  struct optimizer_options options = {.kind = OPTIMIZER_SGD};
  struct optimizer *optimizer = NULL;
  ck_assert_int_eq(optimizer_create(&options, f.net, &optimizer, &error), HWGQ_OK);
  struct conv *conv = &f.net->layers[0].conv;
  /* [tap][output]: output 0 gets 0.75 and 0.25, output 1 gets 0 and -0.5 */
  static const float start[] = {0.75f, 0, 0.25f, -0.5f};
  memcpy(conv->weight, start, sizeof start);
  set_gradient(f.net, (float[]){-1, 0, 0, 1}, (float[]){-9, 9});
  optimizer_step(optimizer, 1);
  ck_assert_float_eq(conv->weight[0], 1);
  ck_assert_float_eq(conv->weight[3], -1);
  ck_assert_float_eq(conv->bias[0], 9); /* biases are not */
  ck_assert_float_eq(conv->alpha[0], 0.625f);
  ck_assert_float_eq(conv->alpha[1], 0.5f);
  static const float expected[] = {0.625f, 0.5f, 0.625f, -0.5f}; /* 0 counts as +1 */
  for (int i = 0; i < 4; i++) ck_assert_float_eq(conv->effective[i], expected[i]);
  optimizer_destroy(optimizer);
  close_fixture(&f);
}
END_TEST

START_TEST(rates_rise_and_fall) {
  struct optimizer_options o = {.rate = 2, .power = 1, .warmup = 0.1};
  ck_assert_double_eq_tol(optimizer_rate(&o, 0, 100), 2.0 / 11, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 9, 100), 20.0 / 11, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 10, 100), 2, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 55, 100), 1, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 99, 100), 2.0 / 90, 1e-12);
  ck_assert_double_eq(optimizer_rate(&o, 100, 100), 0);
  ck_assert_double_eq(optimizer_rate(&o, 1000, 100), 0);
  o.power = 2;
  ck_assert_double_eq_tol(optimizer_rate(&o, 55, 100), 0.5, 1e-12);
  o.schedule = SCHEDULE_COSINE;
  ck_assert_double_eq_tol(optimizer_rate(&o, 10, 100), 2, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 55, 100), 1, 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 40, 100), 1 + cos(3.141592653589793 / 3), 1e-12);
  ck_assert_double_eq_tol(optimizer_rate(&o, 100, 100), 0, 1e-12);
  o.schedule = SCHEDULE_CONSTANT;
  ck_assert_double_eq(optimizer_rate(&o, 99, 100), 2);
}
END_TEST

START_TEST(senseless_options_are_refused) {
  struct fixture f;
  open_fixture(&f, false);
  struct optimizer *optimizer = NULL;
  static const struct optimizer_options bad[] = {{.rate = -1},  {.momentum = 1}, {.weight_decay = -1},
                                                 {.warmup = 2}, {.power = -1},   {.rate = NAN}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    ck_assert_int_eq(optimizer_create(&bad[i], f.net, &optimizer, &error), HWGQ_ERROR_INVALID);
  close_fixture(&f);
}
END_TEST

START_TEST(impossible_core_types_are_told) {
  struct blas blas = {0};
  enum hwgq_status status = blas_load("NoSuchCore", &blas, &error);
  /* OpenBLAS may ignore an unknown name and choose by itself: then its products must still be right. */
  if (status == HWGQ_OK) {
    float a[] = {1, 2, 3, 4}, b[] = {5, 6, 7, 8}, c[4];
    blas_gemm(&blas, false, false, 2, 2, 2, a, 2, b, 2, 0, c, 2);
    ck_assert_float_eq(c[3], 50);
    blas_unload(&blas);
  } else {
    ck_assert_ptr_nonnull(strstr(error.message, "NoSuchCore"));
  }
}
END_TEST

int main(void) {
  Suite *suite = suite_create("train");
  TCase *tests = tcase_create("parts");
  tcase_set_timeout(tests, 120);
  tcase_add_loop_test(tests, every_task_runs_once, 0, 4);
  tcase_add_test(tests, senseless_thread_counts_are_refused);
  tcase_add_test(tests, random_numbers_are_spread_and_repeatable);
  tcase_add_test(tests, generator_is_xoshiro);
  tcase_add_test(tests, permutations_have_every_number_once);
  tcase_add_test(tests, gaussian_numbers_are_gaussian);
  tcase_add_test(tests, loops_agree_on_every_instruction_set);
  tcase_add_test(tests, loops_do_what_they_say);
  tcase_add_test(tests, adam_steps_as_published);
  tcase_add_test(tests, momentum_and_decay_step_as_by_hand);
  tcase_add_test(tests, the_classifier_has_its_own_rate);
  tcase_add_test(tests, latent_weights_are_clamped_and_binarized);
  tcase_add_test(tests, rates_rise_and_fall);
  tcase_add_test(tests, senseless_options_are_refused);
  tcase_add_test(tests, impossible_core_types_are_told);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
