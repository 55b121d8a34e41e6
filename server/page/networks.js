// What is served: a card for each network, with its layers.
import { askJson, byId, bytes, count, make, percent, say } from "./common.js";

let models = [];
let drawn = null;

export function setNetworks(list) {
  models = list;
  drawn = null;
}

function facts(model) {
  const input = model.input, list = make("dl", { className: "facts" });
  const add = (name, value) => { if (value) list.append(make("dt", { textContent: name }), make("dd", {}, value)); };
  add("Network", model.network);
  add("Version", model.versions.length > 1 ? `${model.version} (also ${model.versions.filter(v => v !== model.version).join(", ")})` : model.version);
  add("Accuracy", model.provenance?.test_accuracy && `${percent(model.provenance.test_accuracy, 2)} of the test images, says its file`);
  add("Input", `${input.width} × ${input.height}, ${{ rgb: "color", bgr: "color (BGR)", gray: "gray" }[input.order]}; ` +
    `the shorter side is resized to ${input.resize}, the center is seen`);
  add("Size", `${bytes(model.bytes)} file, ${bytes(model.memory_bytes)} in memory`);
  add("Kernels", model.kernels);
  add("Classes", make("details", {}, make("summary", { textContent: String(model.classes) }), model.labels.filter(Boolean).join(", ")));
  add("Digest", make("code", { textContent: model.digest }));
  return list;
}

function stageRow(stage, total) {
  const share = total ? stage.time_ns / total : 0, fill = make("div", { className: "fill" });
  fill.style.width = percent(share, 2).replace(" ", "");
  return make("tr", {}, make("th", { scope: "row", textContent: stage.name }), make("td", {}, make("code", { textContent: stage.kernel || "" })),
    make("td", { className: "number", textContent: stage.macs ? count(stage.macs) : "" }),
    make("td", { className: "number", textContent: stage.weight_bytes ? bytes(stage.weight_bytes) : "" }),
    make("td", { className: "number", textContent: (stage.time_ns / 1e3).toFixed(1) }),
    make("td", {}, make("span", { className: "hidden", textContent: percent(share) }), make("div", { className: "track", "aria-hidden": "true" }, fill)));
}

function layers(model) {
  const total = model.stages.reduce((sum, stage) => sum + stage.time_ns, 0);
  const head = make("tr", {}, ...["Layer", "Kernel", "MACs", "Weights", "µs", "Share of time"].map((text, i) =>
    make("th", { scope: "col", className: i >= 2 && i <= 4 ? "number" : "", textContent: text })));
  const table = make("table", {}, make("caption", { textContent:
    `Layers as they run, one image on one core when it was loaded: ${(total / 1e6).toFixed(3)} ms` }),
    make("thead", {}, head), make("tbody", {}, ...model.stages.map(stage => stageRow(stage, total))));
  return make("div", { className: "scroll", tabIndex: 0, role: "group", "aria-label": "Layers of " + model.name }, table);
}

function card(model) {
  const title = make("h3", { textContent: model.name });
  if (model.default) title.append(make("span", { className: "badge", textContent: "default" }));
  if (model.state !== "ready") title.append(make("span", { className: "badge", textContent: model.state }));
  const panel = make("article", { className: "panel", "aria-label": "Network " + model.name }, title);
  if (model.reload_error) panel.append(make("p", { className: "error", textContent: "Its file could not be read again: " + model.reload_error }));
  if (model.stages) panel.append(facts(model), layers(model));
  return panel;
}

export async function shown() {
  if (drawn === models) return;
  const wanted = drawn = models;
  try {
    const all = await Promise.all(wanted.map(async model =>
      model.state === "ready" ? { ...model, ...await askJson("v1/models/" + encodeURIComponent(model.name)) } : model));
    if (drawn !== wanted) return;
    say(byId("networks-problem"), "");
    byId("networks").replaceChildren(...all.map(card));
  } catch (error) {
    drawn = null;
    say(byId("networks-problem"), error.message);
  }
}
