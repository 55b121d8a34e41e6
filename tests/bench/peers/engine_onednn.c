/* oneDNN as a candidate: engine_onednn MODEL IMAGES float32|int8|int8-float-first */
#include "tests/bench/peers/child.h"
#include "tests/bench/peers/onednn_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
  struct onednn_net net;
  struct child_inputs inputs;
};

static void select_image(void *opaque, int number) {
  struct state *s = opaque;
  const size_t first = (size_t)number * s->inputs.count;
  if (s->net.int8_first)
    memcpy(s->net.input.data, s->inputs.pixels + first, s->inputs.count);
  else
    memcpy(s->net.input.data, s->inputs.values + first, s->inputs.count * sizeof(float));
}

static const float *run(void *opaque) {
  const struct state *s = opaque;
  for (int i = 0; i < s->net.step_count; i++) {
    const struct onednn_step *step = &s->net.steps[i];
    if (step->primitive)
      ONEDNN_CHECK(dnnl_primitive_execute(step->primitive, s->net.stream, step->arg_count, step->args));
    else
      onednn_run_affine(step);
  }
  ONEDNN_CHECK(dnnl_stream_wait(s->net.stream));
  return s->net.values[s->net.graph.count - 1].data;
}

static void prepare(struct onednn_net *net) {
  const struct hwgq_shape shape = net->graph.input;
  const dnnl_dims_t dims = {1, shape.channels, shape.height, shape.width};
  dnnl_memory_desc_t desc;
  ONEDNN_CHECK(dnnl_engine_create(&net->engine, dnnl_cpu, 0));
  ONEDNN_CHECK(dnnl_stream_create(&net->stream, net->engine, dnnl_stream_default_flags));
  ONEDNN_CHECK(dnnl_memory_desc_init_by_tag(&desc, 4, dims, net->int8_first ? dnnl_u8 : dnnl_f32,
                                            net->int8_first ? dnnl_nhwc : dnnl_nchw));
  net->input = onednn_new_value(net, &desc);
  net->values = calloc((size_t)net->graph.count, sizeof *net->values);
  if (!net->values) child_die("out of memory");
  for (int i = 0; i < net->graph.count; i++) onednn_add_node(net, i);
}

static const char *isa_name(void) {
  switch (dnnl_get_effective_cpu_isa()) {
  case dnnl_cpu_isa_avx2:
    return "AVX2";
  case dnnl_cpu_isa_avx2_vnni:
    return "AVX2 + VNNI";
  case dnnl_cpu_isa_avx512_core:
    return "AVX-512";
  case dnnl_cpu_isa_avx512_core_vnni:
    return "AVX-512 + VNNI";
  case dnnl_cpu_isa_avx512_core_bf16:
    return "AVX-512 + VNNI + BF16";
  case dnnl_cpu_isa_avx512_core_amx:
    return "AMX";
  default:
    return "other";
  }
}

int main(int argc, char **argv) {
  struct hwgq_error error;
  struct hwgq_model *model;
  struct state s = {.net = {.step_count = 0}};
  if (argc != 4) child_die("usage: engine_onednn MODEL.hwgq IMAGES float32|int8|int8-float-first");
  if (hwgq_model_read(argv[1], &model, &error) || peer_lower(model, &s.net.graph, &error)) child_die("%s", error.message);
  s.inputs = child_read_inputs(argv[2], model->network->input);
  hwgq_model_destroy(model);
  s.net.int8 = strncmp(argv[3], "int8", 4) == 0;
  s.net.int8_first = strcmp(argv[3], "int8") == 0;
  prepare(&s.net);
  struct child_engine engine = {.classes = s.net.graph.classes, .select = select_image, .run = run, .state = &s};
  const dnnl_version_t *version = dnnl_version();
  snprintf(engine.description, sizeof engine.description, "oneDNN %d.%d.%d %s, %s", version->major, version->minor,
           version->patch, argv[3], isa_name());
  return child_serve(&engine);
}
