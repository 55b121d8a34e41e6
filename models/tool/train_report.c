#include "models/tool/train_report.h"

#include <math.h>
#include <stdlib.h>

#include "models/tool/train_charts.h"

static const char head[] = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>";
static const char colors[] =
    ":root { --ground: #fff; --ink: #1b1f24; --soft: #667080; --line: #dfe3e8; --one: #2a6fdb; --two: #d9730d; --three: "
    "#17845b; "
    "--bar: #b9cdee; }\n"
    "@media (prefers-color-scheme: dark) { :root { --ground: #15181c; --ink: #e6e9ed; --soft: #98a2af; --line: #323942; "
    "--one: #6ea8ff; --two: #f0a050; --three: #58c79a; --bar: #33517f; } }\n";
static const char layout[] =
    "body { background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; "
    "margin: 0 auto; padding: 24px; }\n"
    "h1 { font-size: 24px; margin: 0 0 8px; } h2 { font-size: 18px; margin: 32px 0 4px; } h3 { font-size: 15px; margin: 20px 0 "
    "0; }\n"
    "p { margin: 4px 0 8px; } .soft { color: var(--soft); }\n"
    "table { border-collapse: collapse; font-size: 14px; } td, th { padding: 2px 16px 2px 0; text-align: left; vertical-align: "
    "top; "
    "font-weight: normal; } th { color: var(--soft); } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }\n"
    /* 34 %: never three in a row, so that text is as large in all charts. */
    ".pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(max(min(340px, 100%), 34%), 1fr)); gap: 24px; }\n"
    "details { margin-top: 24px; } summary { cursor: pointer; }\n";
static const char charts[] =
    ".chart { width: 100%; height: auto; display: block; } .chart text { fill: var(--soft); font: 12px system-ui, sans-serif; "
    "}\n"
    ".axis { stroke: var(--line); fill: none; } .grid { stroke: var(--line); stroke-width: 1; }\n"
    ".s1 { stroke: var(--one); } .s2 { stroke: var(--two); } .s3 { stroke: var(--three); } .curve { fill: none; stroke-width: "
    "2; }\n"
    ".k1 { fill: var(--one) !important; } .k2 { fill: var(--two) !important; } .k3 { fill: var(--three) !important; }\n"
    ".bar { fill: var(--bar); } .mark { stroke: var(--soft); stroke-dasharray: 3 3; }\n";

static void table_of_facts(const struct report *report, struct text *text) {
  const char *key;
  json_t *value;
  text_puts(text, "<table>\n");
  json_object_foreach((json_t *)report->facts, key, value) {
    text_puts(text, "<tr><th>");
    chart_escaped(text, key);
    text_puts(text, "</th><td>");
    chart_escaped(text, json_string_value(value));
    text_puts(text, "</td></tr>\n");
  }
  text_puts(text, "</table>\n");
}

static const struct chart_series loss[] = {{"loss", "training loss", 1}, {0}};
static const struct chart_series accuracy[] = {{"train_accuracy", "training", 100},
                                               {"test_accuracy", "test", 100},
                                               {"unaveraged_test_accuracy", "test, weights in training", 100},
                                               {0}};
static const char accuracy_title[] = "Accuracy by epoch, % (training: of augmented images)";

static void curves(const struct report *report, struct text *text) {
  static const struct chart_series rate[] = {{"lr", "learning rate", 1}, {0}};
  static const struct chart_series speed[] = {{"images_per_second", "images per second", 1}, {0}};
  text_puts(text, "<h2>Training</h2>\n<div class=\"pair\">\n");
  chart_curves(text, report->history, accuracy_title, accuracy, false);
  chart_curves(text, report->history, "Loss by epoch", loss, false);
  chart_curves(text, report->history, "Learning rate at the end of an epoch", rate, true);
  chart_curves(text, report->history, "Speed, images per second", speed, true);
  text_puts(text, "</div>\n");
}

static const struct column {
  const char *key, *name;
  double factor;
  int digits;
} columns[] = {{"epoch", "epoch", 1, 0},
               {"loss", "loss", 1, 4},
               {"train_accuracy", "training %", 100, 2},
               {"test_accuracy", "test %", 100, 2},
               {"unaveraged_test_accuracy", "test, weights in training %", 100, 2},
               {"lr", "rate", 1, 6},
               {"images_per_second", "images/s", 1, 0}};

static bool has_number(const json_t *history, const char *key) {
  bool found = false;
  for (size_t i = 0; !found && i < json_array_size(history); i++)
    found = json_is_number(json_object_get(json_array_get(history, i), key));
  return found;
}

/* Columns that no epoch has a number for are left out. line: NULL for the names. */
static void row(struct text *text, const json_t *history, const json_t *line) {
  text_puts(text, "<tr>");
  for (const struct column *c = columns; c < columns + sizeof columns / sizeof columns[0]; c++) {
    const json_t *value = json_object_get(line, c->key);
    if (!has_number(history, c->key)) continue;
    if (line == NULL)
      text_printf(text, "<th class=\"n\">%s</th>", c->name);
    else if (json_is_number(value))
      text_printf(text, "<td class=\"n\">%.*f</td>", c->digits, c->factor * json_number_value(value));
    else
      text_puts(text, "<td></td>");
  }
  text_puts(text, "</tr>\n");
}

static void table_of_epochs(const struct report *report, struct text *text) {
  text_puts(text, "<details><summary>All epochs as a table</summary>\n<table>\n");
  row(text, report->history, NULL);
  for (size_t i = 0; i < json_array_size(report->history); i++) row(text, report->history, json_array_get(report->history, i));
  text_puts(text, "</table></details>\n");
}

static double mean_of(const struct distribution *d) {
  return d->count > 0 ? d->sum / (double)d->count : 0;
}

static double deviation_of(const struct distribution *d) {
  double mean = mean_of(d), variance = d->count > 0 ? d->square / (double)d->count - mean * mean : 0;
  return variance > 0 ? sqrt(variance) : 0;
}

static void layer(const struct distribution *d, struct text *text) {
  text_puts(text, "<h3>");
  chart_escaped(text, d->layer->name);
  text_printf(text,
              "</h3>\n<p class=\"soft\">mean %.3f, standard deviation %.3f, %.2f %% beyond -4 to 4</p>\n<div class=\"pair\">\n",
              mean_of(d), deviation_of(d), d->count > 0 ? 100 * (double)(d->below + d->above) / (double)d->count : 0);
  chart_histogram(text, d);
  chart_levels(text, d);
  text_puts(text, "</div>\n");
}

static void layers(const struct report *report, struct text *text) {
  if (report->distribution_count == 0) return;
  text_puts(
      text,
      "<h2>What arrives at the activations</h2>\n<p>Left: inputs of an activation (bars) against N(0,1) (line), which the "
      "quantizer was made for. Dashed lines are its thresholds, dots its levels. Right: how often each level is taken (bars), "
      "and "
      "how often it would be from N(0,1) (marks).</p>\n");
  for (int i = 0; i < report->distribution_count; i++) layer(&report->distributions[i], text);
}

static json_t *counts(const uint64_t *values, int count) {
  json_t *array = json_array();
  for (int i = 0; array != NULL && i < count; i++) json_array_append_new(array, json_integer((json_int_t)values[i]));
  return array;
}

static void data(const struct report *report, struct text *text) {
  json_t *list = json_array();
  for (int i = 0; i < report->distribution_count; i++) {
    const struct distribution *d = &report->distributions[i];
    json_array_append_new(list, json_pack("{s:s, s:I, s:f, s:f, s:I, s:I, s:o, s:o}", "layer", d->layer->name, "count",
                                          (json_int_t)d->count, "mean", mean_of(d), "deviation", deviation_of(d), "below",
                                          (json_int_t)d->below, "above", (json_int_t)d->above, "bins",
                                          counts(d->bins, DISTRIBUTION_BINS), "levels",
                                          counts(d->levels, distribution_levels(d) + 1)));
  }
  json_t *all = json_pack("{s:O, s:O, s:o}", "facts", report->facts, "history", report->history, "activations", list);
  char *json = all != NULL ? json_dumps(all, JSON_COMPACT | JSON_REAL_PRECISION(8)) : NULL;
  json_decref(all);
  if (json == NULL) text->failed = true;
  text_puts(text, "<script type=\"application/json\" id=\"data\">");
  /* "</script>" inside a text would end it. */
  for (const char *at = json; at != NULL && *at != '\0'; at++) {
    if (*at == '<')
      text_puts(text, "\\u003c");
    else
      text_append(text, at, 1);
  }
  text_puts(text, "</script>\n");
  free(json);
}

void report_write(const struct report *report, struct text *text) {
  text_puts(text, head);
  chart_escaped(text, report->title);
  text_puts(text, "</title>\n<style>\n");
  text_puts(text, colors);
  text_puts(text, charts);
  text_puts(text, layout);
  text_puts(text, "</style>\n</head>\n<body>\n<h1>");
  chart_escaped(text, report->title);
  text_puts(text, "</h1>\n");
  table_of_facts(report, text);
  curves(report, text);
  table_of_epochs(report, text);
  layers(report, text);
  data(report, text);
  text_puts(text, "</body>\n</html>\n");
}

void report_write_curves(const struct report *report, struct text *text) {
  text_puts(text, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 240\" width=\"960\" height=\"240\">\n<style>\n");
  text_puts(text, colors);
  text_puts(text, charts);
  text_puts(text,
            "</style>\n<rect width=\"960\" height=\"240\" fill=\"var(--ground)\"/>\n<svg width=\"480\" height=\"240\">\n");
  chart_curves(text, report->history, accuracy_title, accuracy, false);
  text_puts(text, "</svg>\n<svg x=\"480\" width=\"480\" height=\"240\">\n");
  chart_curves(text, report->history, "Loss by epoch", loss, false);
  text_puts(text, "</svg>\n</svg>\n");
}
