// What all views share: elements, numbers, and questions to the daemon.

// make("p", {className: "quiet"}, "text", element, ...)
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "scope") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

export const byId = id => document.getElementById(id);

// Text only when it changed: a live region that is written again is read again.
export function say(element, text, hide = true) {
  if (element.textContent !== text) element.textContent = text;
  if (hide) element.hidden = !text;
}

// A message as a sentence: it begins with a capital letter and ends with a full stop.
export function sentence(text) {
  const trimmed = String(text).trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}

export const percent = (share, digits = 1) => (100 * share).toFixed(digits) + " %";

export function ms(value) {
  return (value < 1 ? value.toFixed(3) : value < 100 ? value.toFixed(2) : value.toFixed(0)) + " ms";
}

export function count(value) {
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (value >= size) return (value / size).toFixed(value >= 100 * size ? 0 : 1) + unit;
  }
  return String(value);
}

export function bytes(value) {
  return value >= 1e6 ? (value / 1e6).toFixed(2) + " MB" : value >= 1e3 ? (value / 1e3).toFixed(0) + " kB" : value + " bytes";
}

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const NO_ANSWER = "The server does not answer. Check that hwgqd is running and that this machine reaches it, then try again.";
const HINTS = { undecodable_image: "Open it in an image program and save it again, or send another one." };

// fetch with the API key; throws a Refused whose message is a sentence for people. Where a key is missing or unknown, the key form
// is shown.
export async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { ...options.headers, ...(key ? { "X-API-Key": key } : {}) } });
  } catch {
    throw new Refused(0, "no_answer", NO_ANSWER);
  }
  if (reply.ok) return reply;
  let problem = {};
  try {
    problem = (await reply.json()).error;
  } catch { /* not JSON: a proxy's page, say */ }
  if (reply.status === 401) dispatchEvent(new CustomEvent("keywanted", { detail: problem.code }));
  const hint = HINTS[problem.code];
  const text = problem.message ? sentence(problem.message) : `The server answered ${reply.status} ${reply.statusText}.`;
  throw new Refused(reply.status, problem.code, hint ? text + " " + hint : text);
}

export const askJson = async (path, options) => (await ask(path, options)).json();

export function copyButton(button, text) {
  if (!navigator.clipboard) return; // only on localhost and over HTTPS
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}
