// The page's frame: views, the API key, the line of state, the list of networks.
import { ask, askJson, byId, say } from "./common.js";
import * as classify from "./classify.js";
import * as networks from "./networks.js";
import * as live from "./live.js";

const VIEWS = { classify, networks, live };
const PERIOD_MS = 2000;

function current() {
  const name = location.hash.slice(1);
  return name in VIEWS ? name : "classify";
}

function show() {
  const name = current();
  for (const view of Object.keys(VIEWS)) {
    byId(view + "-view").hidden = view !== name;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = (name === "classify" ? "" : document.querySelector(`nav a[href="#${name}"]`).textContent + " - ") + "hwgqd";
  VIEWS[name].shown?.();
}

// ---- API key ----
addEventListener("keywanted", event => {
  say(byId("key-message"), event.detail === "key_unknown"
    ? "The server does not know this API key. Enter another one." : "This server asks for an API key. It is kept only in this tab.");
  byId("key-form").hidden = false;
});

byId("key-form").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value.trim());
  byId("key").value = "";
  byId("key-form").hidden = true;
  start();
});

// ---- state ----
function state(text, bad = false) {
  say(byId("state"), text, false);
  byId("state").classList.toggle("bad", bad);
}

let known = "";
async function loadNetworks() {
  const models = (await askJson("v1/models")).models;
  const ready = models.filter(model => model.state === "ready");
  const text = JSON.stringify(models);
  if (text !== known) {
    known = text;
    classify.setNetworks(ready);
    networks.setNetworks(models);
    if (current() === "networks") networks.shown();
  }
  return ready.length;
}

let listed = 0, asking = false;
const networksText = () => `${listed} ${listed === 1 ? "network" : "networks"}`;

async function refresh() {
  if (asking) return; // the last question has no answer yet
  asking = true;
  try {
    const stats = await askJson("stats?window=5", { signal: AbortSignal.timeout(5 * PERIOD_MS) });
    live.add(stats);
    const names = Object.keys(stats.models).sort().join();
    if (names !== refresh.names) {
      listed = await loadNetworks();
      refresh.names = names;
    }
    state(`${networksText()}, ${stats.kernels} kernels`);
    live.problem("");
  } catch (error) {
    if (error.status === 0) {
      state("The server does not answer.", true);
      live.problem(error.message);
    } else if (error.status === 401 || error.status === 403) {
      state(networksText());
      live.problem("Statistics are for other keys here: " + error.message);
    } else {
      live.problem(error.message);
    }
    refresh.names = null;
  }
  asking = false;
}

async function start() {
  try {
    listed = await loadNetworks();
    state(networksText());
    classify.problem("");
  } catch (error) {
    if (error.status !== 401) classify.problem(error.message);
    if (error.code === "loading" || error.status === 0) setTimeout(start, PERIOD_MS);
  }
}

addEventListener("hashchange", () => {
  if (!(location.hash.slice(1) in VIEWS)) return; // the skip link
  show();
  byId("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});
live.restore();
show();
await start();
await refresh();
// A page that nobody looks at asks for nothing.
setInterval(() => { if (!document.hidden && byId("key-form").hidden) refresh(); }, PERIOD_MS);
addEventListener("pagehide", live.keep);
