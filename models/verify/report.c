/* Results of a verification, as text for people and as JSON. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "models/verify/verify.h"

static const char *against(const struct verify_result *result) {
  return result->recording ? "the recording" : "the reference";
}

static void write_place(struct verify_place place, struct text *text) {
  text_printf(text, "channel %d, y %d, x %d", place.channel, place.y, place.x);
}

/* What is wrong in the first layer that is. */
static void write_failure(const struct hwgq_network *network, const struct verify_result *result,
                          const struct verify_comparison *c, struct text *text) {
  const struct verify_layer *layer = &c->layers[c->first_failed];
  text_printf(text, "FAIL at layer '%s' (%s): ", network->layers[c->first_failed].name,
              hwgq_op_name(network->layers[c->first_failed].op));
  if (layer->differs_from >= 0) {
    text_printf(text, "not the bits of %s; against %s: ", result->comparisons[layer->differs_from].who, against(result));
  }
  if (!layer->codes) {
    text_printf(text, "error %.3g at ", layer->error);
    write_place(layer->place, text);
    text_printf(text, ": %.9g instead of %.9g", layer->found, layer->expected);
    return;
  }
  text_printf(text, "%" PRIu64 " of %" PRIu64 " codes differ, %" PRIu64 " of them wrong", layer->differing, layer->values,
              layer->wrong);
  if (!layer->differing) return;
  text_printf(text, "; first at ");
  write_place(layer->place, text);
  text_printf(text, ": %g instead of %g", layer->found, layer->expected);
  if (isfinite(layer->distance)) {
    text_printf(text, "; the reference quantizes %.9g, %.3g from the threshold", layer->value, layer->distance);
  }
}

static bool fails(const struct verify_comparison *c) {
  return c->first_failed >= 0 || c->scores_differ >= 0 || c->serving_differs || c->top_classes_differ;
}

/* Nothing to tell them apart. */
static bool alike(const struct verify_comparison *a, const struct verify_comparison *b) {
  return !fails(a) && !fails(b) && a->compared == b->compared && a->tolerated == b->tolerated && a->followers == b->followers &&
         a->worst_layer == b->worst_layer && a->largest_error == b->largest_error;
}

static void write_comparison(const struct hwgq_network *network, const struct verify_result *result,
                             const struct verify_comparison *c, const char *names, struct text *text) {
  text_printf(text, "  %s: ", names);
  if (c->first_failed >= 0) {
    write_failure(network, result, c, text);
    text_puts(text, "\n    ");
  }
  text_printf(text, "%d layers against %s, %d of them codes (%" PRIu64 " values)", c->compared, against(result), c->code_layers,
              c->code_values);
  if (c->tolerated) text_printf(text, ", %" PRIu64 " codes differ at a threshold", c->tolerated);
  if (c->followers) text_printf(text, ", %d layers after a difference not judged", c->followers);
  if (c->worst_layer >= 0) {
    text_printf(text, "; largest float error %.2g (%s)", c->largest_error, network->layers[c->worst_layer].name);
  }
  text_puts(text, "\n");
  if (c->scores_differ >= 0) {
    text_printf(text, "    FAIL: other scores than %s\n", result->comparisons[c->scores_differ].who);
  }
  if (c->serving_differs) text_puts(text, "    FAIL: other scores when buffers are reused, as when serving\n");
  if (c->top_classes_differ) text_puts(text, "    FAIL: the best classes are not the recorded ones\n");
}

void verify_write_text(const struct hwgq_network *network, const struct verify_result *result, struct text *text) {
  const struct verify_nearest *nearest = &result->nearest;
  for (int k = 0; k < result->count;) {
    const struct verify_comparison *first = &result->comparisons[k];
    char names[128];
    int used = snprintf(names, sizeof names, "%s", first->who);
    for (k++; k < result->count && alike(first, &result->comparisons[k]) && used < 64; k++)
      used += snprintf(names + used, sizeof names - (size_t)used, ", %s", result->comparisons[k].who);
    write_comparison(network, result, first, names, text);
  }
  if (nearest->layer < 0 || result->recording) return;
  text_printf(text, "  nearest: %.3g, layer '%s', ", nearest->distance, network->layers[nearest->layer].name);
  write_place(nearest->place, text);
  text_printf(text, ", quantizes %.9g at threshold %.9g", nearest->value, nearest->threshold);
  if (nearest->on_threshold) text_printf(text, "; %" PRIu64 " values lie exactly on one", nearest->on_threshold);
  text_puts(text, "\n");
}

static void write_cell(const struct verify_layer *layer, struct text *text) {
  char cell[40];
  if (!layer->compared) {
    snprintf(cell, sizeof cell, "-");
  } else if (layer->codes) {
    snprintf(cell, sizeof cell, "%" PRIu64 " differ%s", layer->differing, layer->failed ? " !" : layer->follows ? " *" : "");
  } else {
    snprintf(cell, sizeof cell, "%.2g%s", layer->error, layer->failed ? " !" : layer->follows ? " *" : "");
  }
  text_printf(text, " %14s", cell);
}

void verify_write_layers(const struct hwgq_network *network, const struct verify_result *result, struct text *text) {
  text_printf(text, "  %-24s %-10s", "layer", "kind");
  for (int k = 0; k < result->count; k++) text_printf(text, " %14s", result->comparisons[k].who);
  text_puts(text, "\n");
  for (int i = 0; i < network->layer_count; i++) {
    bool any = false;
    for (int k = 0; k < result->count; k++) any |= result->comparisons[k].layers[i].compared;
    if (!any) continue;
    text_printf(text, "  %-24s %-10s", network->layers[i].name, hwgq_op_name(network->layers[i].op));
    for (int k = 0; k < result->count; k++) write_cell(&result->comparisons[k].layers[i], text);
    text_puts(text, "\n");
  }
  text_puts(text, "  codes: how many differ; floats: largest error; - not there by itself; ! fails; * after a difference\n");
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */

static void write_number(double value, struct text *text) {
  if (isfinite(value)) {
    text_printf(text, "%.9g", value);
  } else {
    text_puts(text, "null");
  }
}

static void write_named(const char *name, double value, struct text *text) {
  text_printf(text, ",\"%s\":", name);
  write_number(value, text);
}

static void write_place_json(struct verify_place place, struct text *text) {
  text_printf(text, ",\"channel\":%d,\"y\":%d,\"x\":%d", place.channel, place.y, place.x);
}

static void write_layer_json(const struct hwgq_network *network, int index, const struct verify_layer *layer,
                             struct text *text) {
  text_puts(text, "{\"layer\":");
  text_json_string(text, network->layers[index].name);
  text_printf(text, ",\"kind\":\"%s\",\"passed\":%s,\"judged\":%s,\"values\":%" PRIu64, hwgq_op_name(network->layers[index].op),
              layer->failed ? "false" : "true", layer->follows && !layer->failed ? "false" : "true", layer->values);
  if (layer->codes) {
    text_printf(text, ",\"codes\":true,\"differing\":%" PRIu64 ",\"wrong\":%" PRIu64, layer->differing, layer->wrong);
  } else {
    write_named("error", layer->error, text);
  }
  if (!layer->codes || layer->differing) {
    write_place_json(layer->place, text);
    write_named("expected", layer->expected, text);
    write_named("found", layer->found, text);
  }
  if (layer->differing) {
    write_named("value", layer->value, text);
    write_named("distance", layer->distance, text);
  }
  text_puts(text, "}");
}

static void write_comparison_json(const struct hwgq_network *network, const struct verify_comparison *c, struct text *text) {
  text_puts(text, "{\"name\":");
  text_json_string(text, c->who);
  text_printf(text, ",\"first_failed\":");
  text_json_string(text, c->first_failed < 0 ? NULL : network->layers[c->first_failed].name);
  text_printf(text, ",\"same_scores\":%s,\"same_when_serving\":%s,\"same_top_classes\":%s",
              c->scores_differ < 0 ? "true" : "false", c->serving_differs ? "false" : "true",
              c->top_classes_differ ? "false" : "true");
  text_printf(text, ",\"compared\":%d,\"codes\":%" PRIu64 ",\"tolerated\":%" PRIu64 ",\"largest_error\":", c->compared,
              c->code_values, c->tolerated);
  write_number(c->largest_error, text);
  text_puts(text, ",\"largest_error_layer\":");
  text_json_string(text, c->worst_layer < 0 ? NULL : network->layers[c->worst_layer].name);
  text_puts(text, ",\"layers\":[");
  bool first = true;
  for (int i = 0; i < c->layer_count; i++) {
    if (!c->layers[i].compared) continue;
    if (!first) text_puts(text, ",");
    first = false;
    write_layer_json(network, i, &c->layers[i], text);
  }
  text_puts(text, "]}");
}

void verify_write_json(const struct hwgq_network *network, const struct verify_result *result, struct text *text) {
  const struct verify_nearest *nearest = &result->nearest;
  text_printf(text, "{\"passed\":%s,\"executors\":[", result->passed ? "true" : "false");
  for (int k = 0; k < result->count; k++) {
    if (k) text_puts(text, ",");
    write_comparison_json(network, &result->comparisons[k], text);
  }
  text_puts(text, "],\"nearest\":");
  if (nearest->layer < 0) {
    text_puts(text, "null}");
    return;
  }
  text_puts(text, "{\"layer\":");
  text_json_string(text, network->layers[nearest->layer].name);
  write_place_json(nearest->place, text);
  write_named("value", nearest->value, text);
  write_named("threshold", nearest->threshold, text);
  write_named("distance", nearest->distance, text);
  text_printf(text, ",\"on_threshold\":%" PRIu64 "}}", nearest->on_threshold);
}
