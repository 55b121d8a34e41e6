/* hwgq quantizer: Lloyd's optimum for the positive half of the normal distribution. */
#include <stdio.h>
#include <string.h>

#include "models/classify/text.h"
#include "models/tool/tool.h"

static const struct command_usage usage = {
    .name = "quantizer",
    .operands = "",
    .summary = "Computes the quantizer with the least mean squared error for the positive half of N(0,1).",
    .notes = "Level 0 stands for 0 and level k for center k; the level is the number of thresholds below the value.",
};

struct answer {
  int bits; /* 0: levels were given */
  bool uniform, half;
  struct hwgq_quantizer quantizer;
};

static void print_row(const char *name, const float *values, int count) {
  printf("%-20s", name);
  for (int i = 0; i < count; i++) printf(" %10.7f", (double)values[i]);
  printf("\n");
}

static void print_text(const struct answer *answer) {
  const struct hwgq_quantizer *q = &answer->quantizer;
  printf("%-20s ", "quantizer");
  if (answer->bits) printf("%d bit%s, ", answer->bits, answer->bits > 1 ? "s" : "");
  printf("%d non-zero level%s, %s, zero threshold at %s\n", q->level_count, q->level_count > 1 ? "s" : "",
         answer->uniform ? "uniform" : "non-uniform", answer->half ? "half the first center" : "0");
  if (answer->uniform) print_row("step", q->centers, 1);
  print_row("centers", q->centers, q->level_count);
  print_row("thresholds", q->thresholds, q->level_count);
  printf("%-20s %10.7f\n", "mean squared error", q->mean_squared_error);
}

static void write_array(struct text *text, const float *values, int count) {
  for (int i = 0; i < count; i++) {
    text_puts(text, i ? "," : "[");
    text_json_float(text, values[i]);
  }
  text_puts(text, "]");
}

static int print_json(const struct answer *answer) {
  struct text text = {0};
  const struct hwgq_quantizer *q = &answer->quantizer;
  text_printf(&text, "{\"levels\":%d,\"uniform\":%s,\"zero\":\"%s\",\"centers\":", q->level_count,
              answer->uniform ? "true" : "false", answer->half ? "half" : "0");
  write_array(&text, q->centers, q->level_count);
  text_puts(&text, ",\"thresholds\":");
  write_array(&text, q->thresholds, q->level_count);
  text_printf(&text, ",\"mean_squared_error\":%.9g}", q->mean_squared_error);
  bool failed = text.failed;
  if (!failed) puts(text.data);
  text_release(&text);
  return failed ? tool_failed(&usage, &(struct hwgq_error){"out of memory"}) : EXIT_OK;
}

int command_quantizer(int argc, char **argv) {
  int bits = 0, levels = 0;
  bool uniform = false, nonuniform = false, json = false;
  const char *zero = "0";
  const struct option_spec options[] = {
      {"bits", OPTION_INT, &bits, "N", "1 to 4: 2^N - 1 non-zero levels (default 2)", 1, 4},
      {"levels", OPTION_INT, &levels, "N", "or the number of non-zero levels itself, 1 to 15", 1, HWGQ_MAX_LEVELS},
      {"uniform", OPTION_FLAG, &uniform, NULL, "centers are multiples of one step (the default)", 0, 0},
      {"nonuniform", OPTION_FLAG, &nonuniform, NULL, "every center is free", 0, 0},
      {"zero", OPTION_TEXT, &zero, "half|0", "zero threshold at half the first center, or at 0 (default)", 0, 0},
      {"json", OPTION_FLAG, &json, NULL, "print one JSON object", 0, 0},
      {0},
  };
  struct answer answer = {0};
  struct hwgq_error error;
  int code = options_parse(&usage, options, &argc, argv);
  if (code >= 0) return code;
  if (bits && levels) return tool_usage(&usage, "give --bits or --levels, not both");
  if (uniform && nonuniform) return tool_usage(&usage, "give --uniform or --nonuniform, not both");
  if (strcmp(zero, "half") != 0 && strcmp(zero, "0") != 0) return tool_usage(&usage, "--zero takes half or 0, not '%s'", zero);
  answer.bits = levels ? 0 : bits ? bits : 2;
  answer.uniform = !nonuniform;
  answer.half = !strcmp(zero, "half");
  if (!levels) levels = (1 << answer.bits) - 1;
  if (hwgq_quantizer_design(levels, answer.uniform, answer.half, &answer.quantizer, &error)) return tool_failed(&usage, &error);
  if (json) return print_json(&answer);
  print_text(&answer);
  return EXIT_OK;
}
