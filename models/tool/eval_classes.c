#include "models/tool/eval_classes.h"

#include <stdio.h>

static const int *row_of(const struct class_counts *c, int truth) {
  return c->counts + (size_t)truth * (size_t)c->classes;
}

static int images_of(const struct class_counts *c, int truth) {
  int sum = 0;
  for (int p = 0; p < c->classes; p++) sum += row_of(c, truth)[p];
  return sum;
}

/* The wrong class that comes after `last` (how often, and which; ties by index) when they are ordered by how often; -1: none.
 */
static int next_wrong(const struct class_counts *c, int truth, int last_count, int last) {
  const int *row = row_of(c, truth);
  int best = -1;
  for (int p = 0; p < c->classes; p++) {
    bool later = last < 0 || row[p] < last_count || (row[p] == last_count && p > last);
    if (p != truth && row[p] > 0 && later && (best < 0 || row[p] > row[best])) best = p;
  }
  return best;
}

void class_counts_print(const struct class_counts *c) {
  enum { WRONG = 3 };
  int width = 5;
  for (int t = 0; t < c->classes; t++) {
    int length = snprintf(NULL, 0, "%s", c->labels[t]);
    if (images_of(c, t) > 0 && length > width) width = length;
  }
  printf("\n%-6s %9s %9s  %-*s  taken for\n", "class", "images", "top-1", width, "label");
  for (int t = 0; t < c->classes; t++) {
    int images = images_of(c, t);
    if (images == 0) continue;
    printf("%-6d %9d %7.2f %%  %-*s", t, images, 100.0 * row_of(c, t)[t] / images, width, c->labels[t]);
    int wrong = -1;
    for (int k = 0; k < WRONG; k++) {
      wrong = next_wrong(c, t, wrong < 0 ? 0 : row_of(c, t)[wrong], wrong);
      if (wrong < 0) break;
      printf("%s%s %d", k > 0 ? ", " : "  ", c->labels[wrong], row_of(c, t)[wrong]);
    }
    putchar('\n');
  }
}

void class_counts_print_matrix(const struct class_counts *c) {
  printf("\nrows: what images are; columns: what they were taken for\n%6s", "");
  for (int p = 0; p < c->classes; p++) printf(" %5d", p);
  putchar('\n');
  for (int t = 0; t < c->classes; t++) {
    if (images_of(c, t) == 0) continue;
    printf("%6d", t);
    for (int p = 0; p < c->classes; p++) printf(" %5d", row_of(c, t)[p]);
    printf("  %s\n", c->labels[t]);
  }
}

void class_counts_json(const struct class_counts *c, bool classes, bool matrix, struct text *text) {
  if (classes) {
    text_puts(text, ",\"classes\":[");
    for (int t = 0; t < c->classes; t++) {
      text_printf(text, "%s{\"class\":%d,\"label\":", t > 0 ? "," : "", t);
      text_json_string(text, c->labels[t]);
      text_printf(text, ",\"images\":%d,\"correct\":%d}", images_of(c, t), row_of(c, t)[t]);
    }
    text_puts(text, "]");
  }
  if (!matrix) return;
  text_puts(text, ",\"confusion\":[");
  for (int t = 0; t < c->classes; t++) {
    for (int p = 0; p < c->classes; p++) text_printf(text, "%s%d", p > 0 ? "," : t > 0 ? ",[" : "[", row_of(c, t)[p]);
    text_puts(text, "]");
  }
  text_puts(text, "]");
}
