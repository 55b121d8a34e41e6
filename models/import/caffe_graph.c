/* Which layers the TEST phase has, what each blob name means at each place, and which layer is the network's output.
 *
 * A blob name means the last layer above that wrote it: an in-place layer takes the name over, as Caffe's own splitting of
 * shared blobs does. */
#include <stdlib.h>
#include <string.h>

#include "models/import/caffe.h"

struct named_blob {
  char *name;
  caffe_source source;
};

/* Grows while the graph is walked; one entry per name. */
struct blob_table {
  struct named_blob *blobs;
  int count, capacity;
};

static enum hwgq_status blob_set(struct caffe_import *import, struct blob_table *table, const char *name, caffe_source source) {
  for (int i = 0; i < table->count; i++)
    if (strcmp(table->blobs[i].name, name) == 0) {
      table->blobs[i].source = source;
      return HWGQ_OK;
    }
  if (table->count == CAFFE_MAX_BLOBS)
    return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "prototxt: more than %d blobs", CAFFE_MAX_BLOBS);
  if (table->count == table->capacity) {
    int capacity = table->capacity ? 2 * table->capacity : 64;
    struct named_blob *blobs = realloc(table->blobs, (size_t)capacity * sizeof *blobs);
    if (!blobs) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
    table->blobs = blobs;
    table->capacity = capacity;
  }
  char *copy = strdup(name);
  if (!copy) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
  table->blobs[table->count++] = (struct named_blob){copy, source};
  return HWGQ_OK;
}

static const struct named_blob *blob_get(const struct blob_table *table, const char *name) {
  for (int i = 0; i < table->count; i++)
    if (strcmp(table->blobs[i].name, name) == 0) return &table->blobs[i];
  return NULL;
}

static void blob_table_release(struct blob_table *table) {
  for (int i = 0; i < table->count; i++) free(table->blobs[i].name);
  free(table->blobs);
}

/* One include or exclude rule against Caffe's deploy state: phase TEST, level 0, no stages. */
static enum hwgq_status rule_matches(struct caffe_import *import, int rule, bool *matches) {
  struct prototxt *document = &import->document;
  char phase[PROTOTXT_STRING_SIZE] = "TEST";
  int minimum = 0, maximum = 0;
  enum hwgq_status status = prototxt_get_word(document, rule, "phase", phase, import->error);
  if (!status) status = prototxt_get_integer(document, rule, "min_level", INT32_MIN, INT32_MAX, &minimum, import->error);
  if (!status) status = prototxt_get_integer(document, rule, "max_level", INT32_MIN, INT32_MAX, &maximum, import->error);
  if (status) return status;
  bool test = !strcmp(phase, "TEST") || !strcmp(phase, "1");
  if (!test && strcmp(phase, "TRAIN") && strcmp(phase, "0"))
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: phase must be TRAIN or TEST, not %s",
                     prototxt_line(document, rule), phase);
  bool stage = prototxt_ignore(document, rule, "stage"); /* a stage that is not set here */
  prototxt_ignore(document, rule, "not_stage");          /* always true then */
  *matches = test && minimum <= 0 && maximum >= 0 && !stage;
  return HWGQ_OK;
}

/* Is the layer part of the TEST phase's net? With include rules: if one matches; else: unless an exclude rule matches. */
static enum hwgq_status layer_is_kept(struct caffe_import *import, int layer, bool *kept) {
  struct prototxt *document = &import->document;
  int include = prototxt_find(document, layer, "include"), exclude = prototxt_find(document, layer, "exclude");
  enum hwgq_status status = HWGQ_OK;
  if (include != PROTOTXT_NONE && exclude != PROTOTXT_NONE)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                     "prototxt line %d: a layer has include and exclude rules; Caffe allows one kind",
                     prototxt_line(document, layer));
  bool any = false, matches = false;
  int rule = include != PROTOTXT_NONE ? include : exclude;
  for (; !status && rule != PROTOTXT_NONE; rule = prototxt_find_next(document, rule)) {
    status = rule_matches(import, rule, &matches);
    any = any || matches;
  }
  *kept = include != PROTOTXT_NONE ? any : !any;
  return status;
}

/* V1 prototxt files name types by an enum; these are the ones with a meaning here. */
static const char *modern_type(const char *type) {
  static const char *const names[][2] = {
      {"ACCURACY", "Accuracy"},
      {"CONCAT", "Concat"},
      {"CONVOLUTION", "Convolution"},
      {"DATA", "Data"},
      {"DROPOUT", "Dropout"},
      {"ELTWISE", "Eltwise"},
      {"FLATTEN", "Flatten"},
      {"IMAGE_DATA", "ImageData"},
      {"POOLING", "Pooling"},
      {"INNER_PRODUCT", "InnerProduct"},
      {"MEMORY_DATA", "MemoryData"},
      {"RELU", "ReLU"},
      {"SILENCE", "Silence"},
      {"SOFTMAX", "Softmax"},
      {"SOFTMAX_LOSS", "SoftmaxWithLoss"},
      {"SPLIT", "Split"},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(type, names[i][0]) == 0) return names[i][1];
  return type;
}

static enum hwgq_status read_name_and_type(struct caffe_import *import, int field, char *name, char *type) {
  struct prototxt *document = &import->document;
  bool v1 = prototxt_is(document, field, "layers");
  name[0] = type[0] = '\0';
  enum hwgq_status status = prototxt_get_string(document, field, "name", name, import->error);
  if (!status && v1)
    status = prototxt_get_word(document, field, "type", type, import->error);
  else if (!status)
    status = prototxt_get_string(document, field, "type", type, import->error);
  if (status) return status;
  if (!name[0] || !type[0])
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: a layer has no %s", prototxt_line(document, field),
                     name[0] ? "type" : "name");
  return HWGQ_OK;
}

/* Appends an empty layer; its strings belong to the graph from then on. */
static enum hwgq_status append_layer(struct caffe_import *import, int field, const char *name, const char *type) {
  struct caffe_graph *graph = &import->graph;
  if (graph->layer_count == CAFFE_MAX_LAYERS)
    return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "prototxt: more than %d layers", CAFFE_MAX_LAYERS);
  if (graph->layer_count == graph->layer_capacity) {
    int capacity = graph->layer_capacity ? 2 * graph->layer_capacity : 32;
    struct caffe_layer *layers = realloc(graph->layers, (size_t)capacity * sizeof *layers);
    if (!layers) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
    graph->layers = layers;
    graph->layer_capacity = capacity;
  }
  struct caffe_layer *layer = &graph->layers[graph->layer_count++];
  *layer = (struct caffe_layer){.field = field, .name = strdup(name), .type = strdup(type)};
  if (!layer->name || !layer->type) return hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "prototxt: out of memory");
  return HWGQ_OK;
}

static enum hwgq_status resolve_bottoms(struct caffe_import *import, const struct blob_table *table,
                                        struct caffe_layer *layer) {
  struct prototxt *document = &import->document;
  char blob[PROTOTXT_STRING_SIZE];
  for (int at = prototxt_find(document, layer->field, "bottom"); at != PROTOTXT_NONE; at = prototxt_find_next(document, at)) {
    enum hwgq_status status = prototxt_string(document, at, blob, import->error);
    if (status) return status;
    if (layer->bottom_count == HWGQ_MAX_INPUTS)
      return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "layer '%.80s' has more than %d bottoms", layer->name, HWGQ_MAX_INPUTS);
    const struct named_blob *found = blob_get(table, blob);
    if (!found)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID,
                       "layer '%.80s' reads blob '%.80s', which no layer above it and no input of the TEST phase gives",
                       layer->name, blob);
    layer->bottoms[layer->bottom_count++] = found->source;
  }
  if (layer->bottom_count == 0)
    return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED,
                     "layer '%.80s' of type %.80s has no bottom; inputs are read from layers of type Input, Data, ImageData or "
                     "MemoryData and from the net's input fields",
                     layer->name, layer->type);
  return HWGQ_OK;
}

/* Two layers may write a blob of one name only if the later one works in place. */
static bool is_in_place(struct prototxt *document, const struct caffe_layer *layer, const char *blob) {
  char bottom[PROTOTXT_STRING_SIZE];
  for (int at = prototxt_find(document, layer->field, "bottom"); at != PROTOTXT_NONE; at = prototxt_find_next(document, at))
    if (prototxt_string(document, at, bottom, NULL) == HWGQ_OK && strcmp(bottom, blob) == 0) return true;
  return false;
}

static enum hwgq_status resolve_tops(struct caffe_import *import, struct blob_table *table, struct caffe_layer *layer,
                                     caffe_source source) {
  struct prototxt *document = &import->document;
  char blob[PROTOTXT_STRING_SIZE];
  for (int at = prototxt_find(document, layer->field, "top"); at != PROTOTXT_NONE; at = prototxt_find_next(document, at)) {
    enum hwgq_status status = prototxt_string(document, at, blob, import->error);
    if (!status && blob_get(table, blob) && !is_in_place(document, layer, blob))
      status = hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt line %d: blob '%.80s' is written by two layers",
                         prototxt_line(document, at), blob);
    if (!status) status = blob_set(import, table, blob, source);
    if (status) return status;
    layer->top_count++;
  }
  return HWGQ_OK;
}

/* Layers whose output is their input at test time, and layers that only report. */
static bool is_identity(const char *type) {
  return !strcmp(type, "Dropout") || !strcmp(type, "Split");
}

static bool is_report(const char *type) {
  return !strcmp(type, "Accuracy") || !strcmp(type, "Silence");
}

static enum hwgq_status add_computing_layer(struct caffe_import *import, struct blob_table *table, int field, const char *name,
                                            const char *type) {
  struct caffe_graph *graph = &import->graph;
  enum hwgq_status status = append_layer(import, field, name, type);
  if (status) return status;
  int index = graph->layer_count - 1;
  struct caffe_layer *layer = &graph->layers[index];
  status = resolve_bottoms(import, table, layer);
  if (status) return status;
  caffe_source source = index;
  if (is_identity(type)) {
    if (layer->bottom_count != 1)
      return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "layer '%.80s': a %s layer has one bottom", name, type);
    layer->dropped = true;
    source = layer->bottoms[0];
  } else if (is_report(type)) {
    layer->dropped = true;
  } else {
    if (!strcmp(type, "SoftmaxWithLoss")) layer->bottom_count = 1; /* the second is the label */
    for (int i = 0; i < layer->bottom_count; i++)
      if (layer->bottoms[i] >= 0) graph->layers[layer->bottoms[i]].consumed = true;
  }
  return resolve_tops(import, table, layer, source);
}

static enum hwgq_status add_layer(struct caffe_import *import, struct blob_table *table, int field) {
  struct prototxt *document = &import->document;
  if (document->fields[field].kind != PROTOTXT_MESSAGE)
    return hwgq_fail(import->error, HWGQ_ERROR_FORMAT, "prototxt line %d: a layer must be a message: { ... }",
                     prototxt_line(document, field));
  bool kept = false;
  char name[PROTOTXT_STRING_SIZE], type[PROTOTXT_STRING_SIZE];
  enum hwgq_status status = layer_is_kept(import, field, &kept);
  if (status || !kept) return status;
  status = read_name_and_type(import, field, name, type);
  if (status) return status;
  const char *modern = modern_type(type);
  if (!caffe_is_input_type(modern)) return add_computing_layer(import, table, field, name, modern);
  int first = import->graph.input_count;
  status = caffe_graph_input_layer(import, field, modern);
  for (int i = first; !status && i < import->graph.input_count; i++)
    status = blob_set(import, table, import->graph.inputs[i].blob, -1 - i);
  return status;
}

/* The last softmax that nothing reads, else the last layer that nothing reads. */
static enum hwgq_status choose_output(struct caffe_import *import) {
  struct caffe_graph *graph = &import->graph;
  int last = -1, last_softmax = -1;
  for (int i = 0; i < graph->layer_count; i++) {
    const struct caffe_layer *layer = &graph->layers[i];
    if (layer->dropped || layer->consumed) continue;
    last = i;
    if (!strcmp(layer->type, "Softmax") || !strcmp(layer->type, "SoftmaxWithLoss")) last_softmax = i;
  }
  graph->output = last_softmax >= 0 ? last_softmax : last;
  if (graph->output < 0)
    return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt: there is no layer that computes anything");
  return HWGQ_OK;
}

static enum hwgq_status mark_needed(struct caffe_import *import) {
  struct caffe_graph *graph = &import->graph;
  graph->data_input = -1;
  graph->layers[graph->output].needed = true;
  for (int i = graph->output; i >= 0; i--) {
    const struct caffe_layer *layer = &graph->layers[i];
    if (!layer->needed) continue;
    for (int b = 0; b < layer->bottom_count; b++) {
      caffe_source source = layer->bottoms[b];
      if (source >= 0) {
        graph->layers[source].needed = true;
      } else if (graph->data_input >= 0 && graph->data_input != -1 - source) {
        return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED,
                         "the output depends on two inputs, '%.80s' and '%.80s'; a network here has one input",
                         graph->inputs[graph->data_input].blob, graph->inputs[-1 - source].blob);
      } else {
        graph->data_input = -1 - source;
      }
    }
  }
  for (int i = 0; i < graph->layer_count; i++) {
    const struct caffe_layer *layer = &graph->layers[i];
    if (!layer->needed && !is_identity(layer->type))
      caffe_note(import, "layer '%s' (%s) is left out: the output '%s' does not depend on it", layer->name, layer->type,
                 graph->layers[graph->output].name);
    else if (!strcmp(layer->type, "Dropout"))
      caffe_note(import, "layer '%s' (Dropout) is left out: it does nothing at test time", layer->name);
  }
  return HWGQ_OK;
}

/* Fields of the net itself. */
static enum hwgq_status check_net_fields(struct caffe_import *import) {
  static const char *const harmless[] = {"state", "force_backward", "debug_info"};
  struct prototxt *document = &import->document;
  for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++) prototxt_ignore(document, PROTOTXT_ROOT, harmless[i]);
  for (int at = document->fields[PROTOTXT_ROOT].child; at != PROTOTXT_NONE; at = document->fields[at].next) {
    if (document->fields[at].used) continue;
    char name[64];
    prototxt_name(document, at, name, sizeof name);
    return hwgq_fail(import->error, HWGQ_ERROR_UNSUPPORTED,
                     "prototxt line %d: the net's field %s is not known here; if it does not change results, delete it",
                     prototxt_line(document, at), name);
  }
  return HWGQ_OK;
}

enum hwgq_status caffe_graph_build(struct caffe_import *import) {
  struct prototxt *document = &import->document;
  struct caffe_graph *graph = &import->graph;
  struct blob_table table = {0};
  enum hwgq_status status = prototxt_get_string(document, PROTOTXT_ROOT, "name", graph->name, import->error);
  if (!status) status = caffe_graph_net_inputs(import);
  for (int i = 0; !status && i < graph->input_count; i++) status = blob_set(import, &table, graph->inputs[i].blob, -1 - i);
  for (int at = document->fields[PROTOTXT_ROOT].child; !status && at != PROTOTXT_NONE; at = document->fields[at].next) {
    if (!prototxt_is(document, at, "layer") && !prototxt_is(document, at, "layers")) continue;
    document->fields[at].used = true;
    status = add_layer(import, &table, at);
  }
  blob_table_release(&table);
  if (!status) status = check_net_fields(import);
  if (!status) status = choose_output(import);
  return status ? status : mark_needed(import);
}

void caffe_graph_release(struct caffe_graph *graph) {
  for (int i = 0; i < graph->layer_count; i++) {
    free(graph->layers[i].name);
    free(graph->layers[i].type);
    free(graph->layers[i].network_name);
  }
  free(graph->layers);
  for (int i = 0; i < graph->input_count; i++) free(graph->inputs[i].blob);
}
