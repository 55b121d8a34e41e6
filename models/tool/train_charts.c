#include "models/tool/train_charts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All in the SVG's own units, from the top left. */
enum { WIDTH = 480, HEIGHT = 240, LEFT = 60, RIGHT = 12, TOP = 34, BOTTOM = 26 };
#define CHARACTER 7.0 /* about the width of one; the margin at the left has room for 0.00088 */

struct frame {
  double x0, x1, y0, y1; /* what the axes show */
};

static double to_x(const struct frame *f, double x) {
  return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double to_y(const struct frame *f, double y) {
  return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

void chart_escaped(struct text *text, const char *string) {
  /* jansson has refused what is not UTF-8 in labels and options; the rest are names of layers. */
  for (const char *at = string != NULL ? string : ""; *at != '\0'; at++) {
    const char *entity = *at == '<' ? "&lt;" : *at == '>' ? "&gt;" : *at == '&' ? "&amp;" : *at == '"' ? "&quot;" : NULL;
    if (entity != NULL)
      text_puts(text, entity);
    else if ((unsigned char)*at >= 0x20)
      text_append(text, at, 1);
  }
}

/* 1, 2 or 5 times a power of ten, about a fifth of the range. */
static double tick_step(double range) {
  double power = pow(10, floor(log10(range / 5))), rest = range / 5 / power;
  return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

static void open_chart(struct text *text, const char *title) {
  text_printf(text, "<svg class=\"chart\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
  chart_escaped(text, title);
  text_printf(text, "\">\n<text x=\"%d\" y=\"14\">", LEFT);
  chart_escaped(text, title);
  text_puts(text, "</text>\n");
}

static void axes(struct text *text, const struct frame *f, double x_step) {
  double y_step = tick_step(f->y1 - f->y0);
  int x_ticks = (int)floor((f->x1 - f->x0) / x_step + 1e-9), y_ticks = (int)floor((f->y1 - f->y0) / y_step + 1e-9);
  for (int i = 0; i <= y_ticks + 1; i++) {
    double y = (ceil(f->y0 / y_step - 1e-9) + i) * y_step;
    if (y > f->y1 + 1e-9 * y_step) break;
    text_printf(text, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, WIDTH - RIGHT, to_y(f, y),
                to_y(f, y));
    text_printf(text, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 6, to_y(f, y) + 4,
                fabs(y) < 1e-9 * y_step ? 0 : y);
  }
  if (x_step > f->x1 - f->x0) return;
  for (int i = 0; i <= x_ticks; i++) {
    double x = (ceil(f->x0 / x_step - 1e-9) + i) * x_step;
    if (x > f->x1 + 1e-9 * x_step) break;
    text_printf(text, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n", to_x(f, x), HEIGHT - 8, x);
  }
}

/* ---- curves ------------------------------------------------------------------------------------------------------------- */

static bool value_at(const json_t *history, size_t i, const struct chart_series *series, double *epoch, double *value) {
  const json_t *line = json_array_get(history, i);
  if (!json_is_number(json_object_get(line, "epoch")) || !json_is_number(json_object_get(line, series->key))) return false;
  *epoch = json_number_value(json_object_get(line, "epoch"));
  *value = series->factor * json_number_value(json_object_get(line, series->key));
  return isfinite(*value);
}

/* False: there is nothing to show. */
static bool find_frame(const json_t *history, const struct chart_series *series, bool from_zero, struct frame *f) {
  bool any = false;
  for (const struct chart_series *s = series; s->key != NULL; s++) {
    for (size_t i = 0; i < json_array_size(history); i++) {
      double x, y;
      if (!value_at(history, i, s, &x, &y)) continue;
      f->x0 = any && f->x0 < x ? f->x0 : x;
      f->x1 = any && f->x1 > x ? f->x1 : x;
      f->y0 = any && f->y0 < y ? f->y0 : y;
      f->y1 = any && f->y1 > y ? f->y1 : y;
      any = true;
    }
  }
  if (!any) return false;
  if (f->x1 <= f->x0) f->x0 = f->x1 - 1;
  if (f->y0 > 0 && (from_zero || f->y0 < 0.6 * f->y1)) f->y0 = 0;
  if (f->y1 <= f->y0) f->y1 = f->y0 + (f->y0 != 0 ? fabs(f->y0) / 10 : 1);
  double step = tick_step(f->y1 - f->y0);
  f->y0 = floor(f->y0 / step + 1e-9) * step;
  f->y1 = ceil(f->y1 / step - 1e-9) * step;
  return true;
}

void chart_curves(struct text *text, const json_t *history, const char *title, const struct chart_series *series,
                  bool from_zero) {
  struct frame f = {0};
  if (!find_frame(history, series, from_zero, &f)) return;
  open_chart(text, title);
  double step = tick_step(f.x1 - f.x0);
  axes(text, &f, step < 1 ? 1 : step);
  double legend = LEFT;
  for (int k = 0; series[k].key != NULL; k++) {
    bool first = true;
    double x = 0, y = 0;
    for (size_t i = 0; i < json_array_size(history); i++) {
      if (!value_at(history, i, &series[k], &x, &y)) continue;
      if (first) text_printf(text, "<path class=\"curve s%d\" d=\"M", k + 1);
      text_printf(text, first ? "%.1f %.1f" : " L%.1f %.1f", to_x(&f, x), to_y(&f, y));
      first = false;
    }
    if (first) continue;
    text_printf(text, "\"/>\n<circle class=\"k%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", k + 1, to_x(&f, x), to_y(&f, y));
    if (k == 0 && series[1].key == NULL) continue; /* the title names a single one */
    text_printf(text, "<text class=\"k%d\" x=\"%.0f\" y=\"28\">%s %.2f</text>\n", k + 1, legend, series[k].name, y);
    legend += CHARACTER * (double)strlen(series[k].name) + 48;
  }
  text_puts(text, "</svg>\n");
}

/* ---- activations -------------------------------------------------------------------------------------------------------- */

static double normal_density(double x) {
  return exp(-x * x / 2) / sqrt(2 * 3.141592653589793);
}

void chart_histogram(struct text *text, const struct distribution *d) {
  struct frame f = {.x0 = DISTRIBUTION_LOW, .x1 = DISTRIBUTION_HIGH, .y0 = 0, .y1 = 0.45};
  double width = (DISTRIBUTION_HIGH - DISTRIBUTION_LOW) / DISTRIBUTION_BINS;
  double unit = d->count > 0 ? 1 / ((double)d->count * width) : 0;
  for (int i = 0; i < DISTRIBUTION_BINS; i++) f.y1 = fmax(f.y1, (double)d->bins[i] * unit);
  open_chart(text, "Density of the inputs");
  axes(text, &f, 1);
  for (int i = 0; i < DISTRIBUTION_BINS; i++) {
    double x = DISTRIBUTION_LOW + i * width, top = to_y(&f, (double)d->bins[i] * unit);
    text_printf(text, "<rect class=\"bar\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"/>\n", to_x(&f, x), top,
                to_x(&f, x + width) - to_x(&f, x), HEIGHT - BOTTOM - top);
  }
  text_puts(text, "<path class=\"curve s2\" d=\"M");
  for (int i = 0; i <= 100; i++) {
    double x = DISTRIBUTION_LOW + (DISTRIBUTION_HIGH - DISTRIBUTION_LOW) * i / 100;
    text_printf(text, i > 0 ? " L%.1f %.1f" : "%.1f %.1f", to_x(&f, x), to_y(&f, normal_density(x)));
  }
  text_puts(text, "\"/>\n");
  bool plain = d->layer->op == HWGQ_RELU || d->layer->sign;
  for (int k = 0; k < distribution_levels(d); k++) {
    double at = plain ? 0 : (double)d->layer->thresholds[k];
    text_printf(text, "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", to_x(&f, at), to_x(&f, at), TOP,
                HEIGHT - BOTTOM);
    if (!plain && (double)d->layer->centers[k] <= DISTRIBUTION_HIGH)
      text_printf(text, "<circle class=\"k1\" cx=\"%.1f\" cy=\"%d\" r=\"3\"/>\n", to_x(&f, (double)d->layer->centers[k]),
                  HEIGHT - BOTTOM);
  }
  text_puts(text, "</svg>\n");
}

enum { NAME_SIZE = 16 };

static void level_name(char name[NAME_SIZE], const struct distribution *d, int level) {
  if (d->layer->sign)
    snprintf(name, NAME_SIZE, level > 0 ? "+1" : "-1");
  else if (d->layer->op == HWGQ_RELU)
    snprintf(name, NAME_SIZE, level > 0 ? "above 0" : "0");
  else
    snprintf(name, NAME_SIZE, "%.3g", level > 0 ? (double)d->layer->centers[level - 1] : 0.0);
}

/* Of the first and the last level, and of those between that there is room for. */
static void level_names(struct text *text, const struct distribution *d, const struct frame *f) {
  int last = distribution_levels(d);
  char name[NAME_SIZE];
  level_name(name, d, last);
  double end = -INFINITY, last_start = to_x(f, last + 0.5) - CHARACTER / 2 * (double)strlen(name);
  for (int k = 0; k <= last; k++) {
    level_name(name, d, k);
    double middle = to_x(f, k + 0.5), half = CHARACTER / 2 * (double)strlen(name);
    bool fits = middle - half > end + CHARACTER && middle + half < last_start - CHARACTER;
    if (k > 0 && k < last && !fits) continue;
    text_printf(text, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n", middle, HEIGHT - 8, name);
    end = middle + half;
  }
}

void chart_levels(struct text *text, const struct distribution *d) {
  int levels = distribution_levels(d) + 1;
  struct frame f = {.x0 = 0, .x1 = levels, .y0 = 0, .y1 = 10};
  double unit = d->count > 0 ? 100 / (double)d->count : 0;
  for (int k = 0; k < levels; k++) f.y1 = fmax(f.y1, fmax((double)d->levels[k] * unit, 100 * distribution_expected(d, k)));
  f.y1 *= 1.1;
  open_chart(text, "Share of each level, %");
  axes(text, &f, 1e9);
  for (int k = 0; k < levels; k++) {
    double share = (double)d->levels[k] * unit, top = to_y(&f, share), expected = to_y(&f, 100 * distribution_expected(d, k));
    double left = to_x(&f, k + 0.15), right = to_x(&f, k + 0.85), middle = to_x(&f, k + 0.5);
    text_printf(text, "<rect class=\"bar\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", left, top, right - left,
                HEIGHT - BOTTOM - top);
    text_printf(text, "<path class=\"curve s2\" d=\"M%.1f %.1f L%.1f %.1f\"/>", left, expected, right, expected);
    if (levels <= 8)
      text_printf(text, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.1f</text>", middle, fmin(top, expected) - 4,
                  share);
    text_puts(text, "\n");
  }
  level_names(text, d, &f);
  text_puts(text, "</svg>\n");
}
