#include "models/tool/bench_report.h"

#include <string.h>

static double per_cycle(const struct bench_measurement *m, uint64_t macs, const struct bench_spread *spread) {
  return m->hertz > 0 && spread->median > 0 ? (double)macs / (spread->median * 1e-6 * m->hertz) : 0;
}

/* Of the bound of as many cores as there are threads, by the multiply-accumulates that are executed; 0: not known. */
static double share_of(const struct bench_measurement *m, const struct bench_layer *layer, double bound,
                       const struct bench_spread *spread) {
  return bound > 0 ? per_cycle(m, layer->executed, spread) / (bound * m->threads) : 0;
}

/* ---- table --------------------------------------------------------------------------------------------------------------- */

/* A number, or a dash for 0, and what follows it. */
static void cell(struct text *out, int width, int decimals, double number, const char *unit) {
  if (number > 0) {
    text_printf(out, " %*.*f%s", width, decimals, number, unit);
  } else {
    text_printf(out, " %*s%*s", width, "-", (int)strlen(unit), "");
  }
}

static void table_row(struct text *out, const struct bench_measurement *m, const struct bench_layer *layer,
                      const struct bench_spread *spread) {
  text_printf(out, "%-23.23s %-26.26s %11llu %9.1f %9.1f %9.1f", layer->info.name, layer->info.kernel,
              (unsigned long long)layer->info.macs, spread->median, spread->least, spread->most);
  cell(out, 10, 1, per_cycle(m, layer->info.macs, spread), "");
  cell(out, 5, 0, 100 * share_of(m, layer, layer->bound, spread), bound_is_sliced(layer->info.kernel) ? "%*" : "% ");
  cell(out, 4, 0, 100 * share_of(m, layer, layer->cache_bound, spread), "%");
  text_printf(out, " %9.1f\n", (double)layer->touched / 1e3);
}

/* What the table does not say of itself. */
static void write_notes(struct text *out, const struct bench_layer *layers, const struct bench_measurement *m) {
  const struct bound_cpu *cpu = bound_cpu_detect();
  bool bounds = false, sliced = false;
  for (int s = 0; s < m->stages; s++) {
    bounds |= layers[s].bound > 0;
    sliced |= bound_is_sliced(layers[s].info.kernel);
  }
  if (bounds && m->hertz > 0) {
    text_printf(out,
                "ports: share of what the execution ports of %s allow the kernel's inner loop, by the MACs that are\n"
                "executed (padded taps are skipped).\n",
                cpu->name);
    if (sliced) {
      text_puts(out, "* data dependent: rows are added for set bits only; the bounds are those of this image's activations.\n"
                     "L2: the same of what the second-level cache could deliver, where these rows do not fit the first.\n");
    }
  } else if (!cpu) {
    text_puts(out, "ports: no model of this CPU's execution ports.\n");
  }
  text_puts(out, "kB: bytes touched: weights, input and output, each once.\n");
}

void bench_write_warning(struct text *out, const struct bench_noise *noise) {
  static const char other[] = "something else uses this machine; do not trust these times\n";
  switch (bench_noise_kind(noise)) {
  case BENCH_QUIET:
    break;
  case BENCH_SLOW_RUNS:
    text_printf(out, "warning: the median run took %.0f %% longer than the fastest; %s", 100 * (noise->median_over_least - 1),
                other);
    break;
  case BENCH_CLOCK:
    text_printf(out, "warning: the core clock changed by %.0f %% meanwhile; %s", 100 * noise->clock_change, other);
    break;
  case BENCH_CORE_TAKEN:
    text_printf(out, "warning: this program had its cores for %.0f %% of the time; %s", 100 * noise->core_share, other);
    break;
  }
}

void bench_write_table(struct text *out, const char *what, const struct hwgq_plan *plan, const struct bench_layer *layers,
                       const struct bench_measurement *m) {
  const struct bench_spread *total = &m->stage[m->stages];
  text_printf(out, "%s\n%s, ", what, m->cpu);
  if (m->hertz > 0) {
    text_printf(out, "%.2f GHz measured", m->hertz / 1e9);
  } else {
    text_puts(out, "clock not measured");
  }
  text_printf(out, ", kernel set %s, %d thread%s, one image at a time, %d runs\n\n", hwgq_plan_cpu(plan), m->threads,
              m->threads > 1 ? "s" : "", m->runs);
  text_printf(out, "%-23s %-26s %11s %9s %9s %9s %10s %7s %5s %9s\n", "stage", "kernel", "MACs", "us median", "min", "max",
              "MACs/cycle", "ports", "L2", "kB");
  for (int s = 0; s <= m->stages; s++) table_row(out, m, &layers[s], &m->stage[s]);
  text_puts(out, "\n");
  write_notes(out, layers, m);
  text_printf(out, "plan (weights, thresholds) %.0f kB, scratch memory of a run %.0f kB\n", (double)hwgq_plan_bytes(plan) / 1e3,
              (double)hwgq_plan_scratch_bytes(plan) / 1e3);
  if (m->threads > 1) {
    const struct bench_spread *one = &m->stage[m->stages + 1];
    text_printf(out, "one thread, runs taking turns: median %.1f, min %.1f us; %d threads take %.3f and %.3f of that\n",
                one->median, one->least, m->threads, total->median / one->median, total->least / one->least);
  }
  if (m->workers) {
    text_printf(out, "images per second: one worker %.1f, %d workers %.1f, %.3f times as many\n", m->per_second[0], m->workers,
                m->per_second[1], m->per_second[1] / m->per_second[0]);
  }
  bench_write_warning(out, &m->noise);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */

void bench_json_spread(struct text *out, const struct bench_spread *spread) {
  text_printf(out, "{\"median\":%.3f,\"min\":%.3f,\"max\":%.3f}", spread->median, spread->least, spread->most);
}

void bench_json_noise(struct text *out, const struct bench_noise *noise) {
  text_printf(out, "\"noisy\":%s,\"noise\":{\"median_over_min\":%.4f,\"clock_change\":%.4f,\"core_share\":%.4f}",
              bench_noise_kind(noise) ? "true" : "false", noise->median_over_least, noise->clock_change, noise->core_share);
}

static void json_bound(struct text *out, const char *key, double share, const struct bench_layer *layer, double bound) {
  const bool sliced = bound_is_sliced(layer->info.kernel);
  text_puts(out, key);
  if (!(bound > 0)) {
    text_puts(out, "null");
    return;
  }
  text_printf(out, "{\"macs_per_cycle\":%.2f,\"share\":%.4f,\"data_dependent\":%s", bound, share, sliced ? "true" : "false");
  if (sliced) text_printf(out, ",\"set_bits\":%.4f", layer->set_bits);
  text_puts(out, "}");
}

static void json_layer(struct text *out, const struct bench_measurement *m, const struct bench_layer *layer,
                       const struct bench_spread *spread) {
  text_printf(out, "\"macs\":%llu,\"us\":", (unsigned long long)layer->info.macs);
  bench_json_spread(out, spread);
  text_printf(out, ",\"macs_per_cycle\":%.2f,\"executed_macs\":%llu", per_cycle(m, layer->info.macs, spread),
              (unsigned long long)layer->executed);
  json_bound(out, ",\"bound\":", share_of(m, layer, layer->bound, spread), layer, layer->bound);
  json_bound(out, ",\"cache_bound\":", share_of(m, layer, layer->cache_bound, spread), layer, layer->cache_bound);
  text_printf(out, ",\"weight_bytes\":%zu,\"input_bytes\":%zu,\"output_bytes\":%zu,\"touched_bytes\":%llu",
              layer->info.weight_bytes, layer->info.input_bytes, layer->info.output_bytes, (unsigned long long)layer->touched);
}

void bench_write_json(struct text *out, const char *what, const struct hwgq_plan *plan, const struct bench_layer *layers,
                      const struct bench_measurement *m) {
  const struct bound_cpu *cpu = bound_cpu_detect();
  text_puts(out, "{\"network\":");
  text_json_string(out, what);
  text_puts(out, ",\"cpu\":");
  text_json_string(out, m->cpu);
  text_printf(out, ",\"clock_ghz\":%.3f,\"kernels\":\"%s\",\"bounds_of\":", m->hertz / 1e9, hwgq_plan_cpu(plan));
  text_json_string(out, cpu ? cpu->name : NULL);
  text_printf(out, ",\"threads\":%d,\"batch\":1,\"runs\":%d,", m->threads, m->runs);
  bench_json_noise(out, &m->noise);
  text_puts(out, ",\"stages\":[");
  for (int s = 0; s < m->stages; s++) {
    text_puts(out, s ? ",{\"name\":" : "{\"name\":");
    text_json_string(out, layers[s].info.name);
    text_puts(out, ",\"kernel\":");
    text_json_string(out, layers[s].info.kernel);
    text_puts(out, ",");
    json_layer(out, m, &layers[s], &m->stage[s]);
    text_puts(out, "}");
  }
  text_puts(out, "],\"total\":{");
  json_layer(out, m, &layers[m->stages], &m->stage[m->stages]);
  text_puts(out, "}");
  if (m->threads > 1) {
    text_puts(out, ",\"one_thread\":{\"us\":");
    bench_json_spread(out, &m->stage[m->stages + 1]);
    text_puts(out, "}");
  }
  if (m->workers) {
    text_printf(out, ",\"workers\":%d,\"images_per_second\":{\"one_worker\":%.2f,\"workers\":%.2f}", m->workers,
                m->per_second[0], m->per_second[1]);
  }
  text_printf(out, ",\"plan_bytes\":%zu,\"scratch_bytes\":%zu}\n", hwgq_plan_bytes(plan), hwgq_plan_scratch_bytes(plan));
}
