/* From the two files of a Caffe network to a model. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/file.h"
#include "engine/storage.h"
#include "models/import/caffe.h"
#include "models/import/labels.h"

void caffe_note(const struct caffe_import *import, const char *format, ...) {
  if (!import->options->note) return;
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  import->options->note(import->options->context, text);
}

char *caffe_network_name(const char *name) {
  if (name[0] == '\0') name = "caffe";
  if (strcmp(name, "input") == 0) name = "input.layer";
  char *copy = strdup(name);
  for (char *at = copy; at && *at; at++)
    if (*at == '/') *at = '.';
  return copy;
}

static void note_renaming(struct caffe_import *import) {
  int renamed = 0;
  const struct caffe_layer *example = NULL;
  for (int i = 0; i < import->graph.layer_count; i++) {
    const struct caffe_layer *layer = &import->graph.layers[i];
    if (!layer->needed || !strcmp(layer->name, layer->network_name)) continue;
    example = layer;
    renamed++;
  }
  if (renamed)
    caffe_note(import, "%d layers have new names, as '/' cannot be in one: '%s' is now '%s'", renamed, example->name,
               example->network_name);
}

/* A network whose scores are not probabilities yet gets a softmax: top-1 does not change. */
static enum hwgq_status add_softmax(struct caffe_import *import, struct hwgq_network *network) {
  const struct caffe_layer *output = &import->graph.layers[import->graph.output];
  if (!strcmp(output->type, "Softmax") || !strcmp(output->type, "SoftmaxWithLoss")) return HWGQ_OK;
  const char *inputs[1] = {output->network_name}, *name = "softmax";
  for (int tail = 0; tail < 3 && hwgq_network_find(network, name) >= HWGQ_NETWORK_INPUT; tail++)
    name = (const char *const[]){"softmax_added", "softmax_of_the_import", "softmax_by_hwgq_import"}[tail];
  caffe_note(import, "the net ends with layer '%s' (%s): a softmax is added, so that scores are probabilities", output->name,
             output->type);
  struct hwgq_layer *layer;
  return hwgq_network_add(network, name, HWGQ_SOFTMAX, 1, inputs, &layer, import->error);
}

static enum hwgq_status build_network(struct caffe_import *import, struct hwgq_model *model) {
  struct caffe_graph *graph = &import->graph;
  struct hwgq_shape shape;
  if (graph->data_input < 0) return hwgq_fail(import->error, HWGQ_ERROR_INVALID, "prototxt: the output depends on no input");
  enum hwgq_status status = caffe_input_shape(import, &shape);
  if (!status) status = caffe_preprocess(import, shape, &model->preprocess);
  char *name = caffe_network_name(graph->name);
  if (!status && !name) status = hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "import: out of memory");
  if (!status) status = hwgq_network_create(name, shape, &model->network, import->error);
  free(name);
  for (int i = 0; !status && i < graph->layer_count; i++)
    if (graph->layers[i].needed) status = caffe_layer_add(import, model->network, &graph->layers[i]);
  if (!status) note_renaming(import);
  if (!status) status = add_softmax(import, model->network);
  if (!status) status = hwgq_network_infer(model->network, import->error);
  if (status) return status;
  import->about = import->options->caffemodel_name;
  status = caffe_weights_load(import, model->network);
  if (!status) import->about = import->options->prototxt_name;
  return status;
}

static enum hwgq_status add_labels(struct caffe_import *import, struct hwgq_model *model) {
  const struct hwgq_network *network = model->network;
  const struct import_options *options = import->options;
  const char *note;
  enum hwgq_status status = labels_fill(model, network->layers[network->layer_count - 1].output.channels, options->labels,
                                        options->label_count, &note, import->error);
  if (!status && note) caffe_note(import, "%s", note);
  return status;
}

static enum hwgq_status add_provenance(struct caffe_import *import, const uint8_t *caffemodel, size_t length,
                                       struct hwgq_model *model) {
  const struct hwgq_tensor files[2] = {{.data = import->document.text, .bytes = import->document.length},
                                       {.data = caffemodel, .bytes = length}};
  char net[40], weights[40];
  enum hwgq_status status = hwgq_model_digest(&files[0], 1, net, import->error);
  if (!status) status = hwgq_model_digest(&files[1], 1, weights, import->error);
  if (status) return status;
  json_t *object = json_pack("{s:s, s:s, s:s, s:s}", "source", "caffe", "importer", "hwgq " HWGQ_VERSION, "prototxt", net,
                             "caffemodel", weights);
  model->provenance = object ? json_dumps(object, JSON_COMPACT) : NULL;
  json_decref(object);
  return model->provenance ? HWGQ_OK : hwgq_fail(import->error, HWGQ_ERROR_MEMORY, "provenance: out of memory");
}

static enum hwgq_status check_lengths(struct caffe_import *import, size_t prototxt_length, size_t caffemodel_length) {
  if (prototxt_length > IMPORT_MAX_PROTOTXT)
    return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "the prototxt has %zu bytes; at most %d are read", prototxt_length,
                     IMPORT_MAX_PROTOTXT);
  if (caffemodel_length <= IMPORT_MAX_CAFFEMODEL) return HWGQ_OK;
  import->about = import->options->caffemodel_name;
  return hwgq_fail(import->error, HWGQ_ERROR_LIMIT, "the caffemodel has %zu bytes; at most %d are read", caffemodel_length,
                   IMPORT_MAX_CAFFEMODEL);
}

static enum hwgq_status parse_caffemodel(struct caffe_import *import, const uint8_t *bytes, size_t length) {
  import->about = import->options->caffemodel_name;
  enum hwgq_status status = caffemodel_parse(bytes, length, &import->model, import->error);
  if (!status) import->about = import->options->prototxt_name;
  return status;
}

enum hwgq_status import_caffe(const char *prototxt, size_t prototxt_length, const uint8_t *caffemodel, size_t caffemodel_length,
                              const struct import_options *options, struct hwgq_model **model, struct hwgq_error *error) {
  static const struct import_options defaults = {.resize = IMPORT_DECIDE};
  struct hwgq_error inner = {{0}};
  struct caffe_import import = {.options = options ? options : &defaults, .error = &inner};
  import.about = import.options->prototxt_name;
  struct hwgq_model *made = calloc(1, sizeof *made);
  if (!made) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "import: out of memory");
  enum hwgq_status status = check_lengths(&import, prototxt_length, caffemodel_length);
  if (!status) status = prototxt_parse(prototxt, prototxt_length, &import.document, &inner);
  if (!status) status = caffe_graph_build(&import);
  if (!status) status = parse_caffemodel(&import, caffemodel, caffemodel_length);
  if (!status) status = build_network(&import, made);
  if (!status) status = add_labels(&import, made);
  if (!status) status = add_provenance(&import, caffemodel, caffemodel_length, made);
  caffe_graph_release(&import.graph);
  caffemodel_release(&import.model);
  prototxt_release(&import.document);
  if (!status) {
    *model = made;
    return HWGQ_OK;
  }
  hwgq_model_destroy(made);
  if (!import.about) return hwgq_fail(error, status, "%s", inner.message);
  return hwgq_fail(error, status, "%s: %s", hwgq_storage_label(import.about), inner.message);
}
