// Images in, cards with classes and stage times out.
import { ask, byId, copyButton, make, ms, percent, say } from "./common.js";

const STAGES = [["queue", "waiting"], ["decode", "decoding"], ["preprocess", "resizing"], ["inference", "network"], ["rest", "rest"]];
const AT_ONCE = 4, MOST = 64;
const cards = [];
const waiting = [];
let running = 0;

export const problem = text => say(byId("problem"), text);

// ---- networks ----
export function setNetworks(models) {
  const select = byId("model"), chosen = select.value;
  select.replaceChildren(...models.map(model => make("option", { value: model.name, textContent: model.name,
    selected: chosen ? model.name === chosen : model.default })));
  byId("choices").hidden = models.length === 0;
  standard = models.find(model => model.default)?.name;
  showCurl();
}
let standard;

function path() {
  const name = byId("model").value;
  return !name || name === standard ? "classify" : `v1/models/${encodeURIComponent(name)}/classify`;
}

function showCurl() {
  const key = sessionStorage.getItem("key") ? ' -H "X-API-Key: $KEY"' : "";
  byId("curl").textContent = `curl${key} -F image=@cat.jpg ${new URL(path(), location.href).href}`;
}

// ---- cards ----
function bars(predictions) {
  return make("ul", { className: "classes", "aria-label": "Classes" }, ...predictions.map(prediction => {
    const fill = make("div", { className: "fill" });
    fill.style.width = percent(prediction.probability, 2).replace(" ", "");
    return make("li", {}, make("span", { textContent: prediction.label || "class " + prediction.class }),
      make("span", { className: "number", textContent: percent(prediction.probability) }),
      make("div", { className: "track", "aria-hidden": "true" }, fill));
  }));
}

function times(timing) {
  const known = timing.queue + timing.decode + timing.preprocess + timing.inference;
  const values = { ...timing, rest: Math.max(0, timing.total - known) };
  const stack = make("div", { className: "stack", "aria-hidden": "true" });
  const legend = make("ul", { className: "legend", "aria-label": "Times of this request" });
  STAGES.forEach(([stage, name], i) => {
    const part = make("div", { className: "b" + i });
    part.style.flexGrow = values[stage] / Math.max(timing.total, 1e-9);
    stack.append(part);
    legend.append(make("li", {}, make("span", { className: "swatch b" + i, "aria-hidden": "true" }), `${name} ${ms(values[stage])}`));
  });
  return [make("p", { className: "quiet", textContent: `Answered in ${ms(timing.total)}:` }), stack, legend];
}

function showAnswer(card, answer) {
  const first = answer.predictions[0], name = first.label || "class " + first.class;
  card.title.textContent = name;
  card.rest.replaceChildren(
    make("p", { className: "quiet", textContent:
      `${card.file.name}, ${answer.image.width} × ${answer.image.height} ${answer.image.format.toUpperCase()}, by ${answer.model}` }),
    bars(answer.predictions), ...times(answer.timing_ms));
  say(byId("announce"), `${card.file.name}: ${name}, ${percent(first.probability)}.`, false);
}

function showProblem(card, text) {
  card.title.textContent = "No answer";
  card.rest.replaceChildren(make("p", { className: "quiet", textContent: card.file.name }),
    make("p", { className: "error", role: "alert", textContent: text }));
}

function makeCard(file) {
  const card = { file, title: make("h3", { textContent: "…" }), rest: make("div") };
  const image = make("img", { alt: "", src: URL.createObjectURL(file) });
  const view = make("div", { className: "view" }, image);
  image.addEventListener("error", () => view.replaceChildren("This browser cannot show the file."));
  card.item = make("li", { className: "card" }, view, make("div", { className: "body" }, card.title, card.rest));
  card.end = () => { URL.revokeObjectURL(image.src); card.item.remove(); };
  return card;
}

// ---- requests ----
// A server that refuses a body early closes the connection, and a browser then tells no more than that.
async function explain(error, file) {
  if (error.status !== 0) return error.message;
  try {
    await fetch("healthz");
  } catch {
    return error.message;
  }
  return `The server broke off the upload of ${(file.size / 1e6).toFixed(1)} MB: the file is too large for it. Send a smaller image.`;
}

async function classifyCard(card) {
  card.title.textContent = "…";
  const turn = card.turn = (card.turn || 0) + 1; // an answer that another network's has overtaken is not shown
  try {
    const body = new FormData();
    body.append("image", card.file);
    const reply = await ask(path(), { method: "POST", body });
    const answer = await reply.json();
    if (turn === card.turn) showAnswer(card, answer);
  } catch (error) {
    const text = await explain(error, card.file);
    if (turn === card.turn) showProblem(card, text);
  }
}

async function work() {
  running++;
  while (waiting.length) await classifyCard(waiting.shift());
  running--;
}

function enqueue(some) {
  waiting.push(...some.filter(card => !waiting.includes(card)));
  while (running < AT_ONCE && waiting.length) work();
}

function take(files) {
  const all = [...files], some = all.slice(0, MOST);
  problem(all.length > MOST ? `Only the first ${MOST} of these ${all.length} images are classified. Send the others afterwards.` : "");
  if (!some.length) return;
  if (location.hash && location.hash !== "#classify") location.hash = "#classify";
  const added = some.map(makeCard);
  byId("results").prepend(...added.map(card => card.item));
  cards.unshift(...added);
  for (const old of cards.splice(MOST)) old.end();
  byId("clear").hidden = false;
  enqueue(added);
}

for (const id of ["file", "camera"]) {
  byId(id).addEventListener("change", event => take(event.target.files));
  byId(id).addEventListener("click", event => { event.target.value = ""; }); // so that the same file may be chosen again
}
byId("form").addEventListener("submit", event => { event.preventDefault(); take(byId("file").files); });
byId("model").addEventListener("change", () => { showCurl(); enqueue(cards); });
byId("clear").addEventListener("click", () => {
  for (const card of cards.splice(0)) card.end();
  waiting.length = 0;
  byId("form").reset();
  byId("clear").hidden = true;
  byId("file").focus();
});

addEventListener("paste", event => {
  const files = [...(event.clipboardData?.files || [])];
  if (files.length) take(files);
  else if (event.target.id !== "key") problem("There is no image in the clipboard. Copy one and paste it again.");
});
addEventListener("dragover", event => { event.preventDefault(); byId("form").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) byId("form").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  byId("form").classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  else problem("This is no file. Save the image first, then drop the file here.");
});

byId("invite").textContent = matchMedia("(pointer: coarse)").matches
  ? "Choose images or take a photograph: JPEG, PNG or WebP."
  : "Drop images anywhere on this page, paste one, or choose files: JPEG, PNG or WebP.";
byId("camera-part").hidden = !matchMedia("(pointer: coarse)").matches;
copyButton(byId("copy"), () => byId("curl").textContent);
