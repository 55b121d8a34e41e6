/* Plans: how a network will be executed. This file creates, frees and describes them; plan_build.c makes the decisions. */
#include "engine/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/parameters.h"
#include "engine/plan_pixels.h"

enum hwgq_status plan_out_of_memory(const struct plan_builder *builder) {
  return hwgq_fail(builder->error, HWGQ_ERROR_MEMORY, "network '%s': out of memory while its plan is made",
                   builder->network->name);
}

/* ---- growing arrays ------------------------------------------------------------------------------------------------------ */

static uint64_t tensor_bytes(const struct plan_tensor *tensor) {
  if (tensor->format == PLAN_FLOAT) return hwgq_shape_elements(tensor->shape) * sizeof(float);
  return (uint64_t)plan_pixels(tensor->shape) * plan_pixel_words(tensor) * sizeof(uint32_t);
}

enum hwgq_status plan_add_tensor(struct plan_builder *builder, enum plan_format format, struct hwgq_shape shape,
                                 const struct plan_coding *coding, size_t bytes, int *tensor) {
  struct hwgq_plan *plan = builder->plan;
  if (plan->tensor_count == plan->tensor_capacity) {
    const int capacity = plan->tensor_capacity * 2 + 64;
    struct plan_tensor *tensors = realloc(plan->tensors, (size_t)capacity * sizeof *tensors);
    if (!tensors) return plan_out_of_memory(builder);
    plan->tensors = tensors;
    int *versions = realloc(builder->float_version, (size_t)capacity * sizeof *versions);
    if (!versions) return plan_out_of_memory(builder);
    memset(versions + plan->tensor_capacity, 0, (size_t)(capacity - plan->tensor_capacity) * sizeof *versions);
    builder->float_version = versions;
    plan->tensor_capacity = capacity;
  }
  struct plan_tensor *added = &plan->tensors[plan->tensor_count];
  *added = (struct plan_tensor){.format = format, .shape = shape, .bytes = bytes, .in_place = -1};
  if (coding) added->coding = *coding;
  if (format != PLAN_TEMPORARY) {
    const uint64_t needed = tensor_bytes(added);
    if (needed > SIZE_MAX / 4) return plan_out_of_memory(builder);
    added->bytes = (size_t)needed;
  }
  *tensor = plan->tensor_count++;
  return HWGQ_OK;
}

enum hwgq_status plan_add_stage(struct plan_builder *builder, struct plan_stage **stage) {
  struct hwgq_plan *plan = builder->plan;
  if (plan->stage_count == plan->stage_capacity) {
    const int capacity = plan->stage_capacity * 2 + 32;
    struct plan_stage *stages = realloc(plan->stages, (size_t)capacity * sizeof *stages);
    if (!stages) return plan_out_of_memory(builder);
    plan->stages = stages;
    plan->stage_capacity = capacity;
  }
  *stage = &plan->stages[plan->stage_count++];
  memset(*stage, 0, sizeof **stage);
  (*stage)->second_output = -1;
  (*stage)->epilogue.floats = (*stage)->epilogue.levels = (*stage)->epilogue.residual = -1;
  for (int i = 0; i < PLAN_TEMPORARIES; i++) (*stage)->temporaries[i] = -1;
  (*stage)->prepare_units = (*stage)->run_units = 1;
  return HWGQ_OK;
}

/* ---- creation ------------------------------------------------------------------------------------------------------------ */

static enum hwgq_status choose_kernels(const struct hwgq_plan_options *options, const struct hwgq_kernels **kernels,
                                       struct hwgq_error *error) {
  const char *name = options ? options->cpu : NULL;
  const bool from_environment = name == NULL;
  if (!name) name = getenv("HWGQ_CPU");
  if (!name || !*name) name = hwgq_cpu_best();
  if (hwgq_cpu_supports(name)) {
    *kernels = hwgq_kernels_find(name);
    return HWGQ_OK;
  }
  char possible[128] = "";
  for (int i = 0; hwgq_kernels_get(i); i++) {
    if (!hwgq_kernels_supported(hwgq_kernels_get(i))) continue;
    const size_t used = strlen(possible);
    snprintf(possible + used, sizeof possible - used, "%s%s", used ? ", " : "", hwgq_kernels_get(i)->name);
  }
  return hwgq_fail(error, hwgq_kernels_find(name) ? HWGQ_ERROR_UNSUPPORTED : HWGQ_ERROR_INVALID,
                   "%s '%.40s' %s: choose one of %s", from_environment ? "HWGQ_CPU:" : "kernel set", name,
                   hwgq_kernels_find(name) ? "needs instructions that this CPU does not have" : "is not known", possible);
}

/* A form that no kernel set has is an error; one that this set or CPU lacks is not used. */
static enum hwgq_status check_form(const char *name, struct hwgq_error *error) {
  /* some architectures have no set with it */
  if (name && (strcmp(name, "sliced") == 0 || strcmp(name, "lookup6") == 0)) return HWGQ_OK;
  for (int i = 0; hwgq_kernels_get(i); i++) {
    for (const struct hwgq_bconv_form *form = hwgq_kernels_get(i)->forms; form->name; form++) {
      if (!name || strcmp(name, form->name) == 0) return HWGQ_OK;
    }
  }
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "form '%.40s' is not known: choose sliced, lookup6, lookup4 or popcount", name);
}

static enum hwgq_status check_first_conv(const char *name, struct hwgq_error *error) {
  if (!name || strcmp(name, "integer") == 0 || strcmp(name, "float") == 0) return HWGQ_OK;
  return hwgq_fail(error, HWGQ_ERROR_INVALID, "first convolution '%.40s' is not known: choose integer or float", name);
}

/* Pixels become network input values by table. Networks of more than three channels take pixels as they are. */
static enum hwgq_status make_pixel_values(struct plan_builder *builder, const struct hwgq_preprocess *preprocess) {
  struct hwgq_plan *plan = builder->plan;
  const int channels = plan->input.channels;
  plan->pixel_values = hwgq_arena_allocate(&plan->arena, (size_t)channels, sizeof *plan->pixel_values);
  if (!plan->pixel_values) return plan_out_of_memory(builder);
  const bool whole = !preprocess || channels > 3;
  uint8_t pixels[3 * 256];
  float values[3 * 256];
  if (whole) {
    for (int c = 0; c < channels; c++) {
      for (int v = 0; v < 256; v++) plan->pixel_values[c][v] = (float)v;
    }
    return HWGQ_OK;
  }
  for (int v = 0; v < 256; v++) memset(pixels + v * channels, v, (size_t)channels);
  hwgq_preprocess_to_float(preprocess, (struct hwgq_shape){channels, 1, 256}, pixels, values);
  for (int c = 0; c < channels; c++) memcpy(plan->pixel_values[c], values + c * 256, sizeof plan->pixel_values[c]);
  return HWGQ_OK;
}

static enum hwgq_status copy_description(struct plan_builder *builder) {
  struct hwgq_plan *plan = builder->plan;
  const struct hwgq_network *network = builder->network;
  plan->layer_count = network->layer_count;
  plan->input = network->input;
  plan->layer_tensors = hwgq_arena_allocate(&plan->arena, (size_t)plan->layer_count, sizeof *plan->layer_tensors);
  plan->layer_names = hwgq_arena_allocate(&plan->arena, (size_t)plan->layer_count, sizeof *plan->layer_names);
  plan->layer_channels = hwgq_arena_allocate(&plan->arena, (size_t)plan->layer_count, sizeof *plan->layer_channels);
  plan->layer_parts = hwgq_arena_allocate(&plan->arena, (size_t)plan->layer_count, sizeof *plan->layer_parts);
  if (!plan->layer_tensors || !plan->layer_names || !plan->layer_channels || !plan->layer_parts)
    return plan_out_of_memory(builder);
  for (int i = 0; i < plan->layer_count; i++) {
    plan->layer_tensors[i] = -1;
    plan->layer_names[i] = hwgq_arena_format(&plan->arena, "%s", network->layers[i].name);
    if (!plan->layer_names[i]) return plan_out_of_memory(builder);
  }
  return HWGQ_OK;
}

static enum hwgq_status fill_plan(struct plan_builder *builder, const struct hwgq_preprocess *preprocess) {
  enum hwgq_status status = copy_description(builder);
  if (!status) status = make_pixel_values(builder, preprocess);
  if (!status) status = plan_build(builder);
  if (!status) plan_set_units(builder->plan);
  if (!status) status = plan_place_buffers(builder);
  return status;
}

enum hwgq_status hwgq_plan_create(const struct hwgq_network *network, const struct hwgq_preprocess *preprocess,
                                  const struct hwgq_plan_options *options, struct hwgq_plan **plan, struct hwgq_error *error) {
  enum hwgq_status status = hwgq_network_check_parameters(network, error);
  if (status) return status;
  const struct hwgq_kernels *kernels = NULL;
  status = choose_kernels(options, &kernels, error);
  if (!status) status = check_form(options ? options->form : NULL, error);
  if (!status) status = check_first_conv(options ? options->first_conv : NULL, error);
  if (status) return status;
  struct plan_builder *builder = calloc(1, sizeof *builder);
  struct hwgq_plan *created = calloc(1, sizeof *created);
  if (!builder || !created) {
    free(builder);
    free(created);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "network '%s': out of memory while its plan is made", network->name);
  }
  created->kernels = kernels;
  created->form = options ? options->form : NULL;
  created->keep_all_layers = options && options->keep_all_layers;
  *builder = (struct plan_builder){.network = network, .preprocess = preprocess, .plan = created, .error = error};
  builder->first_conv = options ? options->first_conv : NULL;
  status = fill_plan(builder, preprocess);
  free(builder->float_version);
  free(builder);
  if (status) {
    hwgq_plan_destroy(created);
    return status;
  }
  *plan = created;
  return HWGQ_OK;
}

void hwgq_plan_destroy(struct hwgq_plan *plan) {
  if (!plan) return;
  hwgq_arena_free(&plan->arena);
  free(plan->stages);
  free(plan->tensors);
  free(plan);
}

/* ---- description --------------------------------------------------------------------------------------------------------- */

size_t hwgq_plan_scratch_bytes(const struct hwgq_plan *plan) {
  return plan->shared_bytes + plan->local_bytes;
}

size_t hwgq_plan_bytes(const struct hwgq_plan *plan) {
  return sizeof *plan + hwgq_arena_bytes(&plan->arena) + (size_t)plan->stage_capacity * sizeof *plan->stages +
         (size_t)plan->tensor_capacity * sizeof *plan->tensors;
}

const char *hwgq_plan_cpu(const struct hwgq_plan *plan) {
  return plan->kernels->name;
}

int hwgq_plan_output_count(const struct hwgq_plan *plan) {
  return plan->output_count;
}

int hwgq_plan_stage_count(const struct hwgq_plan *plan) {
  return plan->stage_count;
}

struct hwgq_stage_info hwgq_plan_stage(const struct hwgq_plan *plan, int stage) {
  const struct plan_stage *s = &plan->stages[stage];
  struct hwgq_stage_info info = {.name = s->name,
                                 .kernel = s->kernel,
                                 .last_layer = s->last_layer,
                                 .macs = s->macs,
                                 .weight_bytes = s->weight_bytes,
                                 .output_bytes = plan->tensors[s->output].bytes};
  if (s->second_output >= 0) info.output_bytes += plan->tensors[s->second_output].bytes;
  for (int i = 0; i < s->input_count; i++) info.input_bytes += plan->tensors[s->inputs[i]].bytes;
  if (s->pixels) info.input_bytes = plan_pixels(plan->input) * (size_t)plan->input.channels;
  return info;
}

struct hwgq_thresholds hwgq_plan_thresholds(const struct hwgq_plan *plan, int stage, int channel) {
  const struct plan_stage *s = &plan->stages[stage];
  const struct plan_epilogue *epilogue = s->pixels ? &s->pixels->epilogue : &s->epilogue;
  struct hwgq_thresholds result = {.constant = true};
  if (!epilogue->thresholds) return result;
  int b = 0;
  for (int i = 0; i < epilogue->block_count; i++) {
    const struct plan_block *block = &epilogue->blocks[i];
    if (channel >= block->channel && channel < block->channel + block->count) b = i;
    result.channels += block->count;
  }
  int lane = channel - epilogue->blocks[b].channel;
  if (lane < 0 || lane >= epilogue->blocks[b].count) lane = 0;
  result.count = epilogue->level_count;
  result.integers = epilogue->threshold_type == PLAN_I32;
  result.reversed = epilogue->negate[b] >> lane & 1;
  for (int j = 0; j < result.count; j++) {
    const size_t at = ((size_t)b * (size_t)result.count + (size_t)j) * HWGQ_LANES + (size_t)lane;
    const double threshold = epilogue->threshold_type == PLAN_I32   ? ((const int32_t *)epilogue->thresholds)[at]
                             : epilogue->threshold_type == PLAN_F32 ? (double)((const float *)epilogue->thresholds)[at]
                                                                    : ((const double *)epilogue->thresholds)[at];
    if (threshold > -epilogue->bound && threshold <= epilogue->bound) result.constant = false;
    result.thresholds[j] = threshold;
  }
  return result;
}
