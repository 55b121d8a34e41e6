/* Whole 3x3 convolution layers (2-bit levels in, thresholds and 2-bit levels out) of the paper's shapes on every kernel set
 * that this CPU has, first convolutions of pixels in float32 and in integers, and OpenBLAS's float matrix product of the same
 * size where OpenBLAS can be loaded. All of them take turns in one loop, so that a busy machine slows all alike. Prints the
 * best of the rounds. usage: bench_kernels [ROUNDS] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/hwgq.h"
#include "models/train/blas.h"

enum { MAX_COLUMNS = 8, WARM_UP = 5 };

/* Kernel sets, and the forms of binary convolution that each of them has. */
static const struct {
  const char *set, *form, *title;
} forms[] = {{"scalar", "popcount", "scalar popcount"}, {"avx2", "popcount", "avx2 popcount"},
             {"avx2", "lookup4", "avx2 lookup4"},       {"avx512", "popcount", "avx512 popcount"},
             {"avx512", "lookup4", "avx512 lookup4"},   {"avx512", "lookup6", "avx512 lookup6"},
             {"neon", "popcount", "neon popcount"},     {"neon", "lookup4", "neon lookup4"}};

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* Core clock by dependent multiplications of three cycles each. */
static double core_clock(void) {
  double best = 0;
  for (int t = 0; t < 5; t++) {
    uint64_t x = 3;
    const double start = seconds();
    for (int i = 0; i < 1000000; i++) {
      x *= 0x9e3779b97f4a7c15u;
      __asm__ volatile("" : "+r"(x));
    }
    best = fmax(best, 3e6 / (seconds() - start));
  }
  return best;
}

static void must(enum hwgq_status status, const struct hwgq_error *error) {
  if (status == HWGQ_OK) return;
  fprintf(stderr, "bench_kernels: %s\n", error->message);
  exit(1);
}

static uint64_t next_random(void) {
  static uint64_t state = 1;
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  return z ^ (z >> 27);
}

static struct hwgq_layer *append(struct hwgq_network *network, const char *name, enum hwgq_op op, const char *input) {
  struct hwgq_layer *layer;
  struct hwgq_error error;
  must(hwgq_network_add(network, name, op, 1, &input, &layer, &error), &error);
  return layer;
}

static void two_bits(struct hwgq_layer *layer) {
  layer->level_count = 3;
  for (int j = 0; j < 3; j++) {
    layer->centers[j] = 0.5f * (float)(j + 1);
    layer->thresholds[j] = j ? 0.5f * (float)j + 0.25f : 0;
  }
}

/* quantize -> conv -> batch norm -> quantize: the last three are one stage, the one that is timed. */
static struct hwgq_network *layer_network(int channels, int size) {
  struct hwgq_network *network;
  struct hwgq_error error;
  must(hwgq_network_create("layer", (struct hwgq_shape){channels, size, size}, &network, &error), &error);
  two_bits(append(network, "levels", HWGQ_QUANTIZE, "input"));
  struct hwgq_layer *conv = append(network, "conv", HWGQ_CONV2D, "levels");
  conv->binary = true;
  conv->out_channels = channels;
  conv->kernel_height = conv->kernel_width = 3;
  conv->pad_height = conv->pad_width = 1;
  append(network, "bn", HWGQ_BATCH_NORM, "conv");
  two_bits(append(network, "out", HWGQ_QUANTIZE, "bn"));
  must(hwgq_network_infer(network, &error), &error);
  must(hwgq_network_allocate_parameters(network, &error), &error);
  conv = &network->layers[1];
  const size_t bytes = (size_t)channels * (size_t)channels * 9 / 8; /* channels are a multiple of 8 */
  for (size_t i = 0; i < bytes; i++) conv->weight_bits[i] = (uint8_t)next_random();
  for (int c = 0; c < channels; c++) network->layers[2].variance[c] = 9.0f * (float)channels * 0.5f;
  return network;
}

/* What is timed in one column. */
struct column {
  const char *name;
  struct hwgq_plan *plan; /* NULL: OpenBLAS */
  void *scratch;
  double best; /* seconds */
};

struct product {
  const struct blas *blas;
  float *a, *b, *c;
};

static double time_plan(const struct column *column, const uint8_t *pixels, float *scores) {
  uint64_t stage_ns[8];
  hwgq_run_profiled(column->plan, column->scratch, pixels, scores, stage_ns);
  return (double)stage_ns[hwgq_plan_stage_count(column->plan) - 1] * 1e-9;
}

static double time_product(const struct product *product, int channels, int pixels) {
  const double start = seconds();
  blas_gemm(product->blas, false, false, pixels, channels, 9 * channels, product->a, 9 * channels, product->b, channels, 0,
            product->c, channels);
  return seconds() - start;
}

static int make_columns(const struct hwgq_network *network, const struct blas *blas, struct column *columns) {
  struct hwgq_error error;
  int count = 0;
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (!hwgq_cpu_supports(forms[i].set)) continue;
    struct column *column = &columns[count++];
    const struct hwgq_plan_options options = {.cpu = forms[i].set, .form = forms[i].form};
    column->name = forms[i].title;
    must(hwgq_plan_create(network, NULL, &options, &column->plan, &error), &error);
    column->scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(column->plan));
  }
  if (blas) columns[count++] = (struct column){.name = "OpenBLAS"};
  for (int i = 0; i < count; i++) columns[i].best = (double)INFINITY;
  return count;
}

static void bench_shape(int channels, int size, int rounds, double hertz, const struct blas *blas) {
  struct hwgq_network *network = layer_network(channels, size);
  struct column columns[MAX_COLUMNS] = {{NULL, NULL, NULL, 0}};
  const size_t pixels = (size_t)size * (size_t)size, inputs = pixels * (size_t)channels, taps = 9 * (size_t)channels;
  const int count = make_columns(network, blas, columns);
  uint8_t *image = malloc(inputs);
  float *scores = malloc(inputs * sizeof *scores);
  const struct product product = {blas, calloc(pixels * taps, sizeof(float)), calloc(taps * (size_t)channels, sizeof(float)),
                                  calloc(inputs, sizeof(float))};
  if (!image || !scores || !product.a || !product.b || !product.c) exit(1);
  for (size_t i = 0; i < inputs; i++) image[i] = (uint8_t)(next_random() % 3);
  for (int round = -WARM_UP; round < rounds; round++) {
    for (int i = 0; i < count; i++) {
      const double time =
          columns[i].plan ? time_plan(&columns[i], image, scores) : time_product(&product, channels, (int)pixels);
      if (round >= 0 && time < columns[i].best) columns[i].best = time;
    }
  }
  const double macs = (double)hwgq_layer_macs(network, &network->layers[1]);
  printf("%4d channels %2dx%-2d", channels, size, size);
  for (int i = 0; i < count; i++) {
    printf("  %8.1f us %6.1f", columns[i].best * 1e6, macs / columns[i].best / hertz);
    free(columns[i].scratch);
    hwgq_plan_destroy(columns[i].plan);
  }
  printf("\n");
  free(product.a);
  free(product.b);
  free(product.c);
  free(scores);
  free(image);
  hwgq_network_destroy(network);
}

/* ---- the first convolution ------------------------------------------------------------------------------------------------
 */

static const struct {
  const char *name;
  int size, kernel, stride, pad, out_channels;
} first_shapes[] = {{"7x7 stride 2", 224, 7, 2, 3, 64}, {"3x3", 32, 3, 1, 1, 128}, {"11x11 stride 4", 227, 11, 4, 0, 96}};

/* conv -> batch norm -> quantize on three channels of pixels: one stage. */
static struct hwgq_network *first_network(size_t shape) {
  struct hwgq_network *network;
  struct hwgq_error error;
  const int size = first_shapes[shape].size;
  must(hwgq_network_create("first", (struct hwgq_shape){3, size, size}, &network, &error), &error);
  struct hwgq_layer *conv = append(network, "conv", HWGQ_CONV2D, "input");
  conv->out_channels = first_shapes[shape].out_channels;
  conv->kernel_height = conv->kernel_width = first_shapes[shape].kernel;
  conv->stride_height = conv->stride_width = first_shapes[shape].stride;
  conv->pad_height = conv->pad_width = first_shapes[shape].pad;
  append(network, "bn", HWGQ_BATCH_NORM, "conv");
  two_bits(append(network, "out", HWGQ_QUANTIZE, "bn"));
  must(hwgq_network_infer(network, &error), &error);
  must(hwgq_network_allocate_parameters(network, &error), &error);
  conv = &network->layers[0];
  const size_t weights = (size_t)conv->out_channels * 3 * (size_t)conv->kernel_height * (size_t)conv->kernel_width;
  for (size_t i = 0; i < weights; i++) conv->weight[i] = (float)(next_random() % 2001) * 1e-3f - 1;
  return network;
}

static double time_first(const struct column *column, const uint8_t *pixels, float *scores) {
  uint64_t stage_ns[8];
  hwgq_run_profiled(column->plan, column->scratch, pixels, scores, stage_ns);
  return (double)stage_ns[1] * 1e-9;
}

/* Float form and integer forms, with 16-bit and 8-bit weights, of every kernel set. The scalar set's rounds are few: it is
 * slow. */
static void bench_first(size_t shape, int rounds, double hertz) {
  static const char *const sets[] = {"scalar", "avx2", "avx512"};
  const struct hwgq_preprocess preprocess = {.mean = {124, 116, 104}, .scale = {0.0171f, 0.0175f, 0.0174f}};
  const size_t elements = 3 * (size_t)first_shapes[shape].size * (size_t)first_shapes[shape].size;
  uint8_t *image = malloc(elements);
  if (!image) exit(1);
  for (size_t i = 0; i < elements; i++) image[i] = (uint8_t)next_random();
  printf("%s, 3 -> %d channels, input %dx%d\n", first_shapes[shape].name, first_shapes[shape].out_channels,
         first_shapes[shape].size, first_shapes[shape].size);
  for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
    enum { FORMS = 3 };
    struct column columns[FORMS] = {{.name = "float"}, {.name = "integer"}, {.name = "integer"}};
    struct hwgq_error error;
    if (!hwgq_cpu_supports(sets[i])) continue;
    struct hwgq_network *network = first_network(shape);
    for (int k = 0; k < FORMS; k++) {
      if (k == 2) must(hwgq_network_round_pixels(network, &preprocess, 8, &error), &error); /* the last plan has these */
      const struct hwgq_plan_options options = {.cpu = sets[i], .first_conv = columns[k].name};
      must(hwgq_plan_create(network, &preprocess, &options, &columns[k].plan, &error), &error);
      columns[k].scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(columns[k].plan));
      columns[k].best = (double)INFINITY;
    }
    float *scores = malloc((size_t)hwgq_plan_output_count(columns[0].plan) * sizeof *scores);
    if (!scores) exit(1);
    for (int round = 0; round < (i == 0 ? 2 : rounds + WARM_UP); round++) {
      for (int k = 0; k < FORMS; k++) columns[k].best = fmin(columns[k].best, time_first(&columns[k], image, scores));
    }
    for (int k = 0; k < FORMS; k++) {
      const double macs = (double)hwgq_layer_macs(network, &network->layers[0]);
      printf("  %-24s %10.1f us %6.1f\n", hwgq_plan_stage(columns[k].plan, 1).kernel, columns[k].best * 1e6,
             macs / columns[k].best / hertz);
      free(columns[k].scratch);
      hwgq_plan_destroy(columns[k].plan);
    }
    free(scores);
    hwgq_network_destroy(network);
  }
  free(image);
}

int main(int argc, char **argv) {
  static const int shapes[][2] = {{128, 32}, {256, 16}, {512, 8}, {64, 56}, {128, 28}, {256, 14}, {512, 7}};
  const int rounds = argc > 1 ? atoi(argv[1]) : 21;
  struct blas blas;
  struct hwgq_error error;
  if (rounds < 1 || rounds > 100000) {
    fprintf(stderr, "usage: bench_kernels [ROUNDS]\n");
    return 2;
  }
  const bool has_blas = blas_load(NULL, &blas, &error) == HWGQ_OK;
  if (!has_blas) printf("no OpenBLAS column: %s\n", error.message);
  const double hertz = core_clock();
  printf("3x3 convolution, 2-bit in and out, batch 1, one core at %.2f GHz, best of %d rounds: time, MACs/cycle\n", hertz / 1e9,
         rounds);
  printf("%-18s", "");
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (hwgq_cpu_supports(forms[i].set)) printf("  %18s", forms[i].title);
  }
  if (has_blas) printf("  %8s %9.9s", "OpenBLAS", blas.core);
  printf("\n");
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    bench_shape(shapes[i][0], shapes[i][1], rounds, hertz, has_blas ? &blas : NULL);
  }
  if (has_blas) blas_unload(&blas);
  printf("\nfirst convolution of pixels, 2-bit out, batch 1, best of %d rounds: time, MACs/cycle\n", rounds);
  for (size_t i = 0; i < sizeof first_shapes / sizeof *first_shapes; i++) bench_first(i, rounds, hertz);
  return 0;
}
