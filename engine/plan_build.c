/* From layers to stages.
 *
 * A stage takes as much as can be computed before anything is written to memory: a convolution or linear layer, then a max
 * pooling (convolutions only), then batch_norm, scale and relu layers, then a quantizer; or such a chain by itself on a float
 * tensor. A layer is folded into a stage only when its input has no other use. Everything else is one stage per layer, on
 * floats or, where it exists, on packed levels. */
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan.h"

/* ---- small steps -------------------------------------------------------------------------------------------------------- */

int plan_tensor_of(const struct plan_builder *builder, int layer) {
  return layer == HWGQ_NETWORK_INPUT ? builder->plan->input_tensor : builder->plan->layer_tensors[layer];
}

int plan_only_consumer(const struct plan_builder *builder, int layer) {
  return builder->consumer_count[layer] == 1 ? builder->consumer[layer] : -1;
}

enum hwgq_status plan_add_layer_stage(struct plan_builder *builder, int layer, const char *kernel, struct plan_stage **stage) {
  enum hwgq_status status = plan_add_stage(builder, stage);
  if (status) return status;
  (*stage)->name = builder->plan->layer_names[layer];
  (*stage)->kernel = kernel;
  (*stage)->last_layer = layer;
  (*stage)->macs = hwgq_layer_macs(builder->network, &builder->network->layers[layer]);
  return HWGQ_OK;
}

enum hwgq_status plan_as_float(struct plan_builder *builder, int layer, int tensor, int *result) {
  if (plan_tensor_at(builder, tensor)->format == PLAN_FLOAT) {
    *result = tensor;
    return HWGQ_OK;
  }
  if (builder->float_version[tensor]) {
    *result = builder->float_version[tensor];
    return HWGQ_OK;
  }
  int unpacked;
  enum hwgq_status status = plan_add_tensor(builder, PLAN_FLOAT, plan_tensor_at(builder, tensor)->shape, NULL, 0, &unpacked);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_layer_stage(builder, layer, "unpack", &stage);
  if (status) return status;
  stage->macs = 0;
  stage->run = run_unpack;
  stage->input_count = 1;
  stage->inputs[0] = tensor;
  stage->output = unpacked;
  builder->float_version[tensor] = unpacked;
  *result = unpacked;
  return HWGQ_OK;
}

enum hwgq_status plan_add_temporary(struct plan_builder *builder, int stage, int which, uint64_t bytes) {
  int tensor;
  if (bytes > SIZE_MAX / 2) return plan_out_of_memory(builder);
  enum hwgq_status status =
      plan_add_tensor(builder, PLAN_TEMPORARY, (struct hwgq_shape){0, 0, 0}, NULL, (size_t)bytes, &tensor);
  if (!status) builder->plan->stages[stage].temporaries[which] = tensor;
  return status;
}

static bool same_shape(struct hwgq_shape a, struct hwgq_shape b) {
  return a.channels == b.channels && a.height == b.height && a.width == b.width;
}

/* ---- everything else ---------------------------------------------------------------------------------------------------- */

/* One stage for one layer. Inputs become floats unless `packed` (then the output has the first input's coding). */
static enum hwgq_status build_simple(struct plan_builder *builder, int index, const char *kernel, bool packed, plan_run *run) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  int inputs[HWGQ_MAX_INPUTS] = {0}, output;
  for (int i = 0; i < layer->input_count; i++) {
    inputs[i] = plan_tensor_of(builder, layer->inputs[i]);
    enum hwgq_status status = packed ? HWGQ_OK : plan_as_float(builder, index, inputs[i], &inputs[i]);
    if (status) return status;
  }
  const struct plan_coding coding = plan_tensor_at(builder, inputs[0])->coding;
  enum hwgq_status status =
      plan_add_tensor(builder, packed ? PLAN_PACKED : PLAN_FLOAT, layer->output, packed ? &coding : NULL, 0, &output);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_layer_stage(builder, index, kernel, &stage);
  if (status) return status;
  stage->run = run;
  stage->input_count = layer->input_count;
  memcpy(stage->inputs, inputs, sizeof stage->inputs);
  stage->output = output;
  stage->window = plan_window_of(layer);
  memcpy(stage->coefficients, layer->coefficients, sizeof stage->coefficients);
  builder->plan->layer_tensors[index] = output;
  return HWGQ_OK;
}

static bool is_packed(const struct plan_builder *builder, const struct hwgq_layer *layer, int i) {
  return plan_tensor_at(builder, plan_tensor_of(builder, layer->inputs[i]))->format == PLAN_PACKED;
}

static bool same_coding(const struct plan_coding *a, const struct plan_coding *b) {
  return a->sign == b->sign && a->levels == b->levels && a->thermometer == b->thermometer &&
         memcmp(a->values, b->values, sizeof a->values) == 0;
}

static bool all_packed_alike(const struct plan_builder *builder, const struct hwgq_layer *layer) {
  const struct plan_tensor *first = plan_tensor_at(builder, plan_tensor_of(builder, layer->inputs[0]));
  for (int i = 0; i < layer->input_count; i++) {
    const struct plan_tensor *other = plan_tensor_at(builder, plan_tensor_of(builder, layer->inputs[i]));
    if (other->format != PLAN_PACKED || !same_coding(&first->coding, &other->coding)) return false;
  }
  return true;
}

/* A flatten is no work when every user takes CHW anyway (linear layers, other flattens, the network's output) or when there is
 * nothing to reorder; then its tensor is its input's. */
static enum hwgq_status build_flatten(struct plan_builder *builder, int index) {
  const struct hwgq_network *network = builder->network;
  const struct hwgq_layer *layer = &network->layers[index];
  const int input = plan_tensor_of(builder, layer->inputs[0]);
  bool alias = true;
  for (int i = index + 1; i < network->layer_count; i++) {
    const struct hwgq_layer *user = &network->layers[i];
    for (int k = 0; k < user->input_count; k++) {
      if (user->inputs[k] == index && user->op != HWGQ_LINEAR && user->op != HWGQ_FLATTEN) alias = false;
    }
  }
  if (alias || same_shape(plan_tensor_at(builder, input)->shape, layer->output)) {
    builder->plan->layer_tensors[index] = input;
    return HWGQ_OK;
  }
  const bool packed = is_packed(builder, layer, 0);
  return build_simple(builder, index, packed ? "flatten_packed" : "flatten", packed, packed ? run_packed_flatten : run_flatten);
}

/* Max pooling; of a joined tensor of levels, when the layers up to the quantizer were folded into what wrote them. */
static enum hwgq_status build_max_pool(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  if (layer->inputs[0] >= 0 && builder->parts[layer->inputs[0]]) {
    struct plan_join join;
    plan_find_join(builder, layer->inputs[0], &join);
    if (join.pool == index) return plan_build_joined_pool(builder, layer->inputs[0], &join);
  }
  const bool packed = is_packed(builder, layer, 0);
  return build_simple(builder, index, packed ? "max_pool_packed" : "max_pool", packed,
                      packed ? run_packed_max_pool : run_max_pool);
}

static enum hwgq_status build_softmax(struct plan_builder *builder, int index) {
  const uint64_t count = hwgq_shape_elements(builder->network->layers[index].output);
  enum hwgq_status status = build_simple(builder, index, "softmax", false, run_softmax);
  if (status) return status;
  return plan_add_temporary(builder, builder->plan->stage_count - 1, TEMP_POWERS, count * sizeof(double));
}

static enum hwgq_status build_layer(struct plan_builder *builder, int index) {
  const struct hwgq_layer *layer = &builder->network->layers[index];
  bool packed;
  switch (layer->op) {
  case HWGQ_CONV2D:
  case HWGQ_LINEAR:
    return plan_build_weighted(builder, index);
  case HWGQ_QUANTIZE:
  case HWGQ_BATCH_NORM:
  case HWGQ_SCALE:
  case HWGQ_RELU:
    return plan_build_chain(builder, index);
  case HWGQ_MAX_POOL:
    return build_max_pool(builder, index);
  case HWGQ_AVG_POOL:
    return build_simple(builder, index, "avg_pool", false, run_avg_pool);
  case HWGQ_ADD:
    return build_simple(builder, index, "add", false, run_add);
  case HWGQ_CONCAT:
    packed = all_packed_alike(builder, layer);
    return build_simple(builder, index, packed ? "concat_packed" : "concat", packed, packed ? run_packed_concat : run_concat);
  case HWGQ_FLATTEN:
    return build_flatten(builder, index);
  case HWGQ_SOFTMAX:
    return build_softmax(builder, index);
  case HWGQ_OP_COUNT:
    break;
  }
  return hwgq_fail(builder->error, HWGQ_ERROR_UNSUPPORTED, "layer '%s': operation %d is not known to the planner", layer->name,
                   (int)layer->op);
}

static enum hwgq_status build_input(struct plan_builder *builder) {
  struct hwgq_plan *plan = builder->plan;
  enum hwgq_status status = plan_add_tensor(builder, PLAN_FLOAT, builder->network->input, NULL, 0, &plan->input_tensor);
  if (status) return status;
  struct plan_stage *stage;
  status = plan_add_stage(builder, &stage);
  if (status) return status;
  stage->name = "input";
  stage->kernel = "preprocess";
  stage->last_layer = HWGQ_NETWORK_INPUT;
  stage->run = run_input;
  stage->output = plan->input_tensor;
  return HWGQ_OK;
}

/* When every stage that reads the input takes pixels, a run on pixels leaves the input tensor out. */
static void skip_input(struct hwgq_plan *plan) {
  plan->only_pixels = !plan->keep_all_layers && plan->output_tensor != plan->input_tensor;
  for (int s = 0; s < plan->stage_count; s++) {
    const struct plan_stage *stage = &plan->stages[s];
    for (int i = 0; i < stage->input_count; i++) {
      const bool first = i == 0 && stage->pixels;
      if (stage->inputs[i] == plan->input_tensor && !first) plan->only_pixels = false;
    }
  }
  if (plan->only_pixels) plan->stages[0].kernel = "pixels";
}

enum hwgq_status plan_build(struct plan_builder *builder) {
  const struct hwgq_network *network = builder->network;
  struct hwgq_plan *plan = builder->plan;
  for (int i = 0; i < network->layer_count; i++) {
    for (int k = 0; k < network->layers[i].input_count; k++) {
      const int source = network->layers[i].inputs[k];
      if (source == HWGQ_NETWORK_INPUT) continue;
      builder->consumer_count[source]++;
      builder->consumer[source] = i;
    }
  }
  enum hwgq_status status = build_input(builder);
  for (int i = 0; i < network->layer_count && !status; i++) {
    if (!builder->folded[i]) status = build_layer(builder, i);
  }
  if (status) return status;
  plan->output_tensor = plan->layer_tensors[network->layer_count - 1];
  plan->output_count = (int)hwgq_shape_elements(network->layers[network->layer_count - 1].output);
  skip_input(plan);
  return HWGQ_OK;
}
