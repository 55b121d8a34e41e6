// A daemon, a browser, and checks that count.
import { spawn } from "node:child_process";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

export const [build, folder, modules] = process.argv.slice(2);
export const requireTool = createRequire(path.resolve(modules, "x.js"));
const { chromium } = requireTool("playwright-core");

export const ZOO = ["--models", "models/zoo/cifar10.hwgq", "--models", "models/zoo/fashion-mnist.hwgq", "--default-model", "cifar10"];
export const counts = { passed: 0, failed: 0 };

export function check(what, good, detail = "") {
  counts[good ? "passed" : "failed"]++;
  if (!good) console.log(`FAILED: ${what} ${String(typeof detail === "string" ? detail : JSON.stringify(detail)).slice(0, 900)}`);
}

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

// What a test waits for ends the waiting at once, so this says nothing about how fast it is.
export const PATIENCE_MS = 120000;

export async function until(condition, ms = PATIENCE_MS) {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(50)) if (await condition()) return true;
  return false;
}

let started = 0;
const living = new Set();
process.on("exit", () => living.forEach(child => child.kill("SIGKILL")));

// Flags later in the list win, so that --listen can name a port.
export async function startDaemon(...flags) {
  const file = path.join(folder, `port-${started++}`);
  const child = spawn(path.join(build, "hwgqd"), ["--listen", "127.0.0.1:0", "--port-file", file, ...ZOO, ...flags], { stdio: ["ignore", "ignore", "ignore"] });
  const ended = new Promise(resolve => child.on("exit", resolve));
  living.add(child);
  ended.then(() => living.delete(child));
  const port = () => fs.existsSync(file) && fs.readFileSync(file, "utf8").trim();
  if (!await until(port)) throw new Error("hwgqd did not start");
  return {
    url: `http://127.0.0.1:${port()}/`,
    port: port(),
    async stop() {
      child.kill("SIGTERM");
      return ended;
    },
  };
}

export const launch = () => chromium.launch({
  executablePath: "/usr/bin/chromium", timeout: PATIENCE_MS, chromiumSandbox: process.getuid() !== 0,
  args: ["--force-color-profile=srgb", "--disable-background-networking"] });

export const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true };

// A page that notes what went wrong in it and what it asked other hosts for.
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.problems = [];
  page.on("pageerror", error => page.problems.push("error: " + error.message));
  page.on("console", message => {
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) page.problems.push(message.text());
  });
  page.on("request", request => {
    if (!request.url().startsWith(new URL(url).origin + "/") && !request.url().startsWith("blob:")) page.problems.push("asked for " + request.url());
  });
  await page.goto(url);
  return page;
}

export const ready = page => page.waitForSelector("#choices:not([hidden])");

// A file as the page gets it from outside: {name, bytes, type}.
export const fileOf = file => ({ name: path.basename(file), bytes: [...fs.readFileSync(file)], type: "image/jpeg" });

export async function give(page, event, ...files) {
  await page.evaluate(([kind, list]) => {
    const transfer = new DataTransfer();
    for (const one of list) transfer.items.add(new File([new Uint8Array(one.bytes)], one.name, { type: one.type }));
    document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
      : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }, [event, files]);
}

// The file dialog that an action opens. A busy browser may lose the first one.
export async function chooserOf(page, act) {
  for (let tries = 1; ; tries++) {
    const waiting = page.waitForEvent("filechooser", { timeout: 10000 });
    waiting.catch(() => {});
    await act();
    try {
      return await waiting;
    } catch (error) {
      if (tries === 12) throw error;
    }
  }
}

// The cards' texts, when all have an answer.
export async function cards(page, count) {
  const good = await until(() => page.evaluate(n => {
    const titles = [...document.querySelectorAll("#results .card h3")].map(title => title.textContent);
    return titles.length === n && !titles.includes("…");
  }, count));
  const found = await page.$$eval("#results .card", all => all.map(card => ({
    title: card.querySelector("h3").textContent, text: card.innerText, error: card.querySelector(".error")?.textContent || "" })));
  check(`${count} cards`, good, found);
  return found;
}

const axeSource = fs.readFileSync(requireTool.resolve("axe-core/axe.min.js"), "utf8");
// rules: all, or the names of some.
export async function axe(page, what, rules) {
  await page.evaluate(axeSource);
  const found = await page.evaluate(names => axe.run(document, { resultTypes: ["violations"], ...(names ? { runOnly: names } : {}) }), rules);
  check(`axe-core finds nothing: ${what}`, found.violations.length === 0,
    found.violations.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.target.join(" ") + " " + (n.any[0]?.message || "")).slice(0, 3).join("; ")}`).join("\n"));
}
