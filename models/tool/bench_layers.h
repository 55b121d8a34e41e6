/* What `hwgq bench` knows of a stage beside its time. */
#ifndef BENCH_LAYERS_H
#define BENCH_LAYERS_H

#include "engine/hwgq.h"
#include "models/tool/bench_bound.h"

struct bench_layer {
  struct hwgq_stage_info info;
  uint64_t executed; /* multiply-accumulates without padded taps, which kernels skip */
  double set_bits;   /* bit-sliced: bits that are set in the codes of an input activation, mean over the image; else 0 */
  double bound, cache_bound; /* multiply-accumulates per cycle (bench_bound.h); 0: not known */
  uint64_t touched;          /* bytes of weights, inputs and outputs */
};

/* Stages of `plan` and the layer of all of them behind (info.name "total"). *layers is malloc'ed. Runs `pixels` once where
 * set bits have to be counted; options: those of the plan. */
enum hwgq_status bench_layers_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                     const struct hwgq_plan_options *options, const struct hwgq_plan *plan,
                                     const uint8_t *pixels, struct bench_layer **layers, struct hwgq_error *error);

#endif
