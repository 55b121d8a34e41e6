#include "models/tool/bench_layers.h"

#include <math.h>
#include <stdlib.h>

/* ---- padded taps --------------------------------------------------------------------------------------------------------- */

/* Taps inside the input, summed over the outputs along one axis. */
static uint64_t valid_taps(int in, int out, int kernel, int stride, int pad) {
  uint64_t taps = 0;
  for (int o = 0; o < out; o++) {
    const int start = o * stride - pad, end = start + kernel;
    const int first = start < 0 ? 0 : start, last = end > in ? in : end;
    if (last > first) taps += (uint64_t)(last - first);
  }
  return taps;
}

static uint64_t executed_macs(const struct hwgq_network *network, const struct hwgq_layer *layer) {
  if (layer->op != HWGQ_CONV2D) return hwgq_layer_macs(network, layer);
  const struct hwgq_shape in = hwgq_network_input_shape(network, layer, 0);
  return (uint64_t)(in.channels / layer->groups) * (uint64_t)layer->out_channels *
         valid_taps(in.height, layer->output.height, layer->kernel_height, layer->stride_height, layer->pad_height) *
         valid_taps(in.width, layer->output.width, layer->kernel_width, layer->stride_width, layer->pad_width);
}

/* ---- set bits ------------------------------------------------------------------------------------------------------------ */

/* The quantizer whose levels a layer's output has; NULL: not of one. */
static const struct hwgq_layer *quantizer_of(const struct hwgq_network *network, int layer) {
  while (layer >= 0 && network->layers[layer].op != HWGQ_QUANTIZE) {
    const enum hwgq_op op = network->layers[layer].op;
    if (op != HWGQ_MAX_POOL && op != HWGQ_CONCAT && op != HWGQ_FLATTEN) return NULL;
    layer = network->layers[layer].inputs[0];
  }
  return layer >= 0 ? &network->layers[layer] : NULL;
}

static int bits_of(const struct hwgq_layer *quantize, float value) {
  for (int level = 1; level <= quantize->level_count; level++) {
    if (value == quantize->centers[level - 1]) return __builtin_popcount((unsigned)level);
  }
  return 0;
}

/* Mean number of bits that are set in the codes of a layer's input; 0 when it cannot be told. `plan` keeps all layers and has
 * run in `scratch`. */
static double mean_set_bits(const struct hwgq_network *network, const struct hwgq_layer *layer, const struct hwgq_plan *plan,
                            const void *scratch) {
  const struct hwgq_layer *quantize = quantizer_of(network, layer->inputs[0]);
  const struct hwgq_shape shape = hwgq_network_input_shape(network, layer, 0);
  const size_t count = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
  float *values = quantize ? malloc(count * sizeof *values) : NULL;
  uint64_t bits = 0;
  if (values && hwgq_run_output(plan, scratch, layer->inputs[0], values, NULL) == HWGQ_OK) {
    for (size_t i = 0; i < count; i++) bits += (uint64_t)bits_of(quantize, values[i]);
  }
  free(values);
  return (double)bits / (double)count;
}

static enum hwgq_status count_set_bits(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                       const struct hwgq_plan_options *options, const uint8_t *pixels, int stages,
                                       struct bench_layer *layers, struct hwgq_error *error) {
  struct hwgq_plan_options keep = *options;
  keep.keep_all_layers = true;
  struct hwgq_plan *plan;
  enum hwgq_status status = hwgq_plan_create(network, preprocess, &keep, &plan, error);
  if (status) return status;
  void *scratch = aligned_alloc(64, hwgq_plan_scratch_bytes(plan));
  float *scores = malloc((size_t)hwgq_plan_output_count(plan) * sizeof *scores);
  if (scratch && scores) {
    hwgq_run(plan, scratch, pixels, scores);
    for (int s = 0; s < stages; s++) {
      const int layer = hwgq_network_find(network, layers[s].info.name);
      if (layer < 0 || !bound_is_sliced(layers[s].info.kernel)) continue;
      layers[s].set_bits = mean_set_bits(network, &network->layers[layer], plan, scratch);
    }
  } else {
    status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: no memory to keep all layers");
  }
  free(scores);
  free(scratch);
  hwgq_plan_destroy(plan);
  return status;
}

/* ---- all ----------------------------------------------------------------------------------------------------------------- */

enum hwgq_status bench_layers_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                     const struct hwgq_plan_options *options, const struct hwgq_plan *plan,
                                     const uint8_t *pixels, struct bench_layer **layers, struct hwgq_error *error) {
  const int stages = hwgq_plan_stage_count(plan);
  const struct bound_cpu *cpu = bound_cpu_detect();
  struct bench_layer *made = calloc((size_t)stages + 1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: out of memory");
  struct bench_layer *total = &made[stages];
  bool sliced = false;
  total->info = (struct hwgq_stage_info){.name = "total", .kernel = ""};
  for (int s = 0; s < stages; s++) {
    struct bench_layer *layer = &made[s];
    layer->info = hwgq_plan_stage(plan, s);
    layer->touched = layer->info.weight_bytes + layer->info.input_bytes + layer->info.output_bytes;
    const int index = hwgq_network_find(network, layer->info.name);
    if (layer->info.macs && index >= 0) layer->executed = executed_macs(network, &network->layers[index]);
    total->info.macs += layer->info.macs;
    total->info.weight_bytes += layer->info.weight_bytes;
    total->info.input_bytes += layer->info.input_bytes;
    total->info.output_bytes += layer->info.output_bytes;
    total->executed += layer->executed;
    total->touched += layer->touched;
    sliced |= bound_is_sliced(layer->info.kernel);
  }
  enum hwgq_status status = sliced ? count_set_bits(network, preprocess, options, pixels, stages, made, error) : HWGQ_OK;
  if (status) {
    free(made);
    return status;
  }
  for (int s = 0; s < stages; s++) {
    if (!made[s].executed) continue;
    made[s].bound = bound_of(cpu, made[s].info.kernel, made[s].set_bits);
    made[s].cache_bound = bound_cache_of(cpu, made[s].info.kernel, made[s].set_bits, made[s].info.weight_bytes);
  }
  *layers = made;
  return HWGQ_OK;
}
