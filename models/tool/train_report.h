/* hwgq train --report: curves, and what arrives at every activation, as one HTML page without anything from elsewhere. */
#ifndef TOOL_TRAIN_REPORT_H
#define TOOL_TRAIN_REPORT_H

#include <jansson.h>

#include "models/classify/text.h"
#include "models/train/distribution.h"

struct report {
  const char *title;
  const json_t *facts;   /* object of texts: shown as a table */
  const json_t *history; /* array of objects, one an epoch, as in the log */
  const struct distribution *distributions;
  int distribution_count;
};

/* The page. It has the same figures once more, as JSON, in <script type="application/json" id="data">. */
void report_write(const struct report *report, struct text *text);
/* Accuracy and loss by epoch alone, as an SVG file. */
void report_write_curves(const struct report *report, struct text *text);

#endif
