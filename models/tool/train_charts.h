/* Charts as SVG, inline in a page that has the classes of train_report.c. */
#ifndef TOOL_TRAIN_CHARTS_H
#define TOOL_TRAIN_CHARTS_H

#include <jansson.h>

#include "models/classify/text.h"
#include "models/train/distribution.h"

/* Text for HTML. Bytes that are not UTF-8 become U+FFFD. */
void chart_escaped(struct text *text, const char *string);

struct chart_series {
  const char *key, *name; /* of the objects of a history; NULL ends a list of at most 3 */
  double factor;
};
/* One line a series over the epochs. Values that are missing leave gaps out. from_zero: the axis of the values has 0 on it,
 * where it otherwise shows a small range enlarged. */
void chart_curves(struct text *text, const json_t *history, const char *title, const struct chart_series *series,
                  bool from_zero);
/* The inputs' density with N(0,1), thresholds and levels. */
void chart_histogram(struct text *text, const struct distribution *distribution);
/* Shares of the levels, and those that N(0,1) would give. */
void chart_levels(struct text *text, const struct distribution *distribution);

#endif
