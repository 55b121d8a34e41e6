/* OpenBLAS as a candidate: im2col and one sgemm per convolution, in CHW order: engine_blas MODEL IMAGES. */
#include "models/train/blas.h"
#include "tests/bench/peers/child.h"
#include "tests/bench/peers/lower.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct state {
  struct peer_graph graph;
  struct blas blas;
  struct child_inputs inputs;
  const float *input;
  float **values; /* [nodes] CHW */
  float *columns;
  float **scale, **bias; /* [nodes][channels], float32 copies */
};

static size_t elements(struct hwgq_shape shape) {
  return (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
}

static const float *value(const struct state *s, int node) {
  return node == PEER_INPUT ? s->input : s->values[node];
}

/* One row of output positions of one tap. */
static void copy_taps(const struct peer_node *n, const float *row, int tap, float *columns) {
  for (int x = 0; x < n->out.width; x++) {
    const int at = x * n->stride_w + tap - n->pad_w;
    columns[x] = row && at >= 0 && at < n->in.width ? row[at] : 0;
  }
}

/* [channels * kernel_h * kernel_w][output positions] of one group */
static void im2col(const struct peer_node *n, const float *x, float *columns) {
  const int channels = n->in.channels / n->groups;
  for (int c = 0; c < channels; c++) {
    for (int tap = 0; tap < n->kernel_h * n->kernel_w; tap++) {
      for (int y = 0; y < n->out.height; y++, columns += n->out.width) {
        const int at = y * n->stride_h + tap / n->kernel_w - n->pad_h;
        const bool inside = at >= 0 && at < n->in.height;
        const float *row = inside ? x + ((size_t)c * (size_t)n->in.height + (size_t)at) * (size_t)n->in.width : NULL;
        copy_taps(n, row, tap % n->kernel_w, columns);
      }
    }
  }
}

static bool is_pointwise(const struct peer_node *n) {
  return n->kernel_h == 1 && n->kernel_w == 1 && n->stride_h == 1 && n->stride_w == 1 && !n->pad_h && !n->pad_w;
}

static void convolve(const struct state *s, const struct peer_node *n, const float *x, float *y) {
  const int rows = n->out.channels / n->groups, positions = n->op == PEER_LINEAR ? 1 : n->out.height * n->out.width;
  for (int g = 0; g < n->groups; g++) {
    const float *columns = x + (size_t)g * (elements(n->in) / (size_t)n->groups);
    if (n->op == PEER_CONV && !is_pointwise(n)) {
      im2col(n, columns, s->columns);
      columns = s->columns;
    }
    blas_gemm(&s->blas, false, false, rows, positions, (int)n->fan_in, n->weight + (size_t)g * (size_t)rows * n->fan_in,
              (int)n->fan_in, columns, positions, 0, y + (size_t)g * (size_t)rows * (size_t)positions, positions);
  }
}

/* y = activation(scale * x + bias + addend), in place too */
static void finish(const struct peer_node *n, const float *scale, const float *bias, const float *x, const float *addend,
                   float *y) {
  const size_t positions = (size_t)n->out.height * (size_t)n->out.width;
  const float top = (float)n->levels;
  for (int c = 0; c < n->out.channels; c++, x += positions, y += positions) {
    const float a = scale[c], b = bias[c];
    for (size_t i = 0; i < positions; i++) y[i] = a * x[i] + b;
    if (addend)
      for (size_t i = 0; i < positions; i++) y[i] += addend[(size_t)c * positions + i];
    if (n->activation == PEER_RELU)
      for (size_t i = 0; i < positions; i++) y[i] = y[i] > 0 ? y[i] : 0;
    if (n->activation == PEER_LEVELS)
      for (size_t i = 0; i < positions; i++) y[i] = rintf(y[i] < 0 ? 0 : y[i] > top ? top : y[i]);
  }
}

static void max_pool(const struct peer_node *n, const float *x, float *y) {
  for (int c = 0; c < n->in.channels; c++, x += (size_t)n->in.height * (size_t)n->in.width) {
    for (int oy = 0; oy < n->out.height; oy++) {
      for (int ox = 0; ox < n->out.width; ox++) {
        float best = -INFINITY;
        for (int ky = 0; ky < n->kernel_h; ky++) {
          const int iy = oy * n->stride_h + ky - n->pad_h;
          for (int kx = 0; kx < n->kernel_w && iy >= 0 && iy < n->in.height; kx++) {
            const int ix = ox * n->stride_w + kx - n->pad_w;
            if (ix >= 0 && ix < n->in.width) best = fmaxf(best, x[iy * n->in.width + ix]);
          }
        }
        *y++ = best;
      }
    }
  }
}

static void average(const struct peer_node *n, const float *x, float *y) {
  const int positions = n->in.height * n->in.width;
  for (int c = 0; c < n->in.channels; c++, x += positions) {
    float sum = 0;
    for (int i = 0; i < positions; i++) sum += x[i];
    y[c] = sum / (float)positions;
  }
}

static const float *run(void *opaque) {
  struct state *s = opaque;
  for (int i = 0; i < s->graph.count; i++) {
    const struct peer_node *n = &s->graph.nodes[i];
    const float *x = value(s, n->inputs[0]), *addend = n->addend == PEER_INPUT ? NULL : s->values[n->addend];
    float *y = s->values[i];
    switch (n->op) {
    case PEER_CONV:
    case PEER_LINEAR:
      convolve(s, n, x, y);
      finish(n, s->scale[i], s->bias[i], y, addend, y);
      break;
    case PEER_AFFINE:
      finish(n, s->scale[i], s->bias[i], x, addend, y);
      break;
    case PEER_MAX_POOL:
      max_pool(n, x, y);
      break;
    case PEER_GLOBAL_AVERAGE:
      average(n, x, y);
      break;
    case PEER_CONCAT:
      for (int k = 0; k < n->input_count; k++) {
        const size_t count = elements(s->graph.nodes[n->inputs[k]].out);
        memcpy(y, value(s, n->inputs[k]), count * sizeof *y);
        y += count;
      }
      break;
    }
  }
  return s->values[s->graph.count - 1];
}

static void select_image(void *opaque, int number) {
  struct state *s = opaque;
  s->input = s->inputs.values + (size_t)number * s->inputs.count;
}

static void *allocate(size_t count, size_t size) {
  void *memory = aligned_alloc(64, (count * size + 63) / 64 * 64 + 64);
  if (!memory) child_die("out of memory");
  return memset(memory, 0, count * size);
}

static void prepare(struct state *s) {
  size_t columns = 1;
  const size_t count = (size_t)s->graph.count;
  s->values = allocate(count, sizeof *s->values);
  s->scale = allocate(count, sizeof *s->scale);
  s->bias = allocate(count, sizeof *s->bias);
  for (size_t i = 0; i < count; i++) {
    const struct peer_node *n = &s->graph.nodes[i];
    const size_t channels = (size_t)n->out.channels, needed = n->fan_in * (size_t)n->out.height * (size_t)n->out.width;
    s->values[i] = allocate(elements(n->out), sizeof(float));
    s->scale[i] = allocate(channels, sizeof(float));
    s->bias[i] = allocate(channels, sizeof(float));
    for (size_t c = 0; n->scale && c < channels; c++) {
      s->scale[i][c] = (float)n->scale[c];
      s->bias[i][c] = (float)n->bias[c];
    }
    if (n->op == PEER_CONV && needed > columns) columns = needed;
  }
  s->columns = allocate(columns, sizeof(float));
}

/* "OpenBLAS 0.3.21 ..." cut after the version, where the library says so. */
static void describe(const struct blas *blas, char *text, size_t size) {
  char *(*get_config)(void) = NULL;
  void *symbol = dlsym(blas->library, "openblas_get_config");
  memcpy(&get_config, &symbol, sizeof symbol);
  const char *config = get_config ? get_config() : "OpenBLAS";
  const char *end = strchr(config, ' ');
  if (end && strchr(end + 1, ' ')) end = strchr(end + 1, ' ');
  snprintf(text, size, "%.*s, core type %s", end ? (int)(end - config) : (int)strlen(config), config, blas->core);
}

int main(int argc, char **argv) {
  struct hwgq_error error;
  struct hwgq_model *model;
  struct state state = {.input = NULL};
  if (argc != 3) child_die("usage: engine_blas MODEL.hwgq IMAGES");
  if (hwgq_model_read(argv[1], &model, &error) || peer_lower(model, &state.graph, &error) ||
      blas_load(getenv("PEERS_BLAS_CORE"), &state.blas, &error))
    child_die("%s", error.message);
  state.inputs = child_read_inputs(argv[2], model->network->input);
  hwgq_model_destroy(model);
  prepare(&state);
  struct child_engine engine = {.classes = state.graph.classes, .select = select_image, .run = run, .state = &state};
  describe(&state.blas, engine.description, sizeof engine.description);
  return child_serve(&engine);
}
