// Throughput, queue and latency, drawn from what /stats says every two seconds.
import { byId, make, ms, say } from "./common.js";
import { draw, SPAN_S } from "./plot.js";

const STAGES = ["queue", "decode", "preprocess", "inference", "total"];
const QUANTILES = ["p50", "p90", "p99"];
const MOST = 8; // networks that are drawn
let samples = []; // {t, depth, models: {name: {rate, total: {p50, p90, p99} or null}}}
let latest = null;
let plots = null;

export const problem = text => say(byId("live-problem"), text);

function reduce(stats) {
  const models = {};
  for (const [name, model] of Object.entries(stats.models)) {
    const all = model.latency_ms.total;
    models[name] = { rate: model.images / stats.window_s, total: all.count ? Object.fromEntries(QUANTILES.map(q => [q, all[q]])) : null };
  }
  return { t: Date.now() / 1000, depth: stats.queue.depth, models };
}

export function add(stats) {
  latest = stats;
  samples.push(reduce(stats));
  while (samples.length && samples[0].t < Date.now() / 1000 - SPAN_S) samples.shift();
  if (!byId("live-view").hidden) shown();
}

// A reload of the page, or a look at /docs, loses nothing.
export function keep() {
  try {
    sessionStorage.setItem("samples", JSON.stringify(samples));
  } catch { /* full or forbidden: the plots begin anew */ }
}

export function restore() {
  try {
    samples = JSON.parse(sessionStorage.getItem("samples") || "[]").filter(sample => sample.t > Date.now() / 1000 - SPAN_S);
  } catch {
    samples = [];
  }
}

// ---- the frame, made when the set of networks changes ----
function panel(title, names) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "plot");
  svg.setAttribute("role", "img");
  const legend = make("ul", { className: "legend" });
  if (names.length > 1) {
    names.forEach((name, i) => legend.append(make("li", {}, make("span", { className: "swatch b" + i % 6, "aria-hidden": "true" }), name)));
  }
  return { svg, title, element: make("div", { className: "panel" }, make("h3", { textContent: title }), svg, legend) };
}

function quantileTable(name) {
  const cells = {}, body = make("tbody");
  for (const stage of STAGES) {
    const row = make("tr", {}, make("th", { scope: "row", textContent: stage === "inference" ? "network" : stage }));
    for (const q of QUANTILES) row.append(cells[stage + q] = make("td", { className: "number", textContent: "-" }));
    body.append(row);
  }
  const head = make("tr", {}, make("th", { scope: "col", textContent: "Stage" }),
    ...["median", "90 %", "99 %"].map(text => make("th", { scope: "col", className: "number", textContent: text })));
  return { cells, table: make("table", {}, make("caption", { textContent: `${name}: latency by stage, last seconds` }), make("thead", {}, head), body) };
}

function build(names) {
  plots = { names: names.join(), rate: panel("Images per second", names), depth: panel("Requests in the queue", []), latency: {}, tables: {} };
  const parts = [plots.rate.element, plots.depth.element];
  for (const name of names) {
    const one = panel(`${name}: milliseconds per request`, ["median", "90 %", "99 %"]);
    plots.latency[name] = one;
    plots.tables[name] = quantileTable(name);
    one.element.append(plots.tables[name].table);
    parts.push(one.element);
  }
  byId("plots").replaceChildren(...parts);
}

// ---- what changes ----
function tile(name, value) {
  return make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value }));
}

function uptime(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [size, unit] of units) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

function showTiles(now) {
  const rate = Object.values(now.models).reduce((sum, model) => sum + model.rate, 0);
  const requests = Object.values(latest.models).reduce((sum, model) => sum + model.requests.rejected + model.requests.expired, 0);
  byId("tiles").replaceChildren(tile("Images per second", rate.toFixed(rate < 10 ? 1 : 0)),
    tile("In the queue", `${latest.queue.depth} of ${latest.queue.capacity}`), tile("Turned away lately", String(requests)),
    tile("Workers", String(latest.workers)), tile("Running for", uptime(latest.uptime_s)));
}

function label(plot, text) {
  plot.svg.setAttribute("aria-label", `${plot.title}: ${text}`);
}

function showLatency(name, now) {
  const plot = plots.latency[name], total = now.models[name].total, stages = latest.models[name].latency_ms;
  draw(plot.svg, QUANTILES.map((q, style) => ({ style, points: samples.map(s => [s.t, s.models[name]?.total?.[q] ?? null]) })), now.t, 0.1);
  label(plot, total ? `median ${ms(total.p50)}, 99 % ${ms(total.p99)}` : "no requests in the last seconds");
  for (const stage of STAGES) {
    for (const q of QUANTILES) plots.tables[name].cells[stage + q].textContent = stages[stage].count ? ms(stages[stage][q]) : "-";
  }
}

export function shown() {
  if (!latest || !samples.length) return;
  const now = samples[samples.length - 1], every = Object.keys(now.models), names = every.slice(0, MOST);
  say(byId("live-note"), every.length > MOST ? `The first ${MOST} of ${every.length} networks; /stats has the others.` : "");
  if (!plots || plots.names !== names.join()) build(names);
  showTiles(now);
  draw(plots.rate.svg, names.map((name, i) => ({ style: i % 6, points: samples.map(s => [s.t, s.models[name]?.rate ?? null]) })), now.t);
  label(plots.rate, names.map(name => `${name} ${now.models[name].rate.toFixed(1)}`).join(", "));
  draw(plots.depth.svg, [{ style: 0, points: samples.map(s => [s.t, s.depth]) }], now.t);
  label(plots.depth, String(now.depth));
  for (const name of names) showLatency(name, now);
}
