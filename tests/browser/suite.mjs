// The page as people use it: suite.mjs BUILD_DIR FOLDER NODE_MODULES (see run.sh).
import fs from "node:fs";
import path from "node:path";
import { axe, build, cards, check, chooserOf, counts, fileOf, folder, give, launch, openPage, PHONE, ready, requireTool, startDaemon, until } from "./support.mjs";
import { execFileSync } from "node:child_process";

// Real photographs, named by what they show, where there are some; else test patterns, whose class is what the daemon says.
const PHOTOS = "../shared/photos", named = fs.existsSync(path.join(PHOTOS, "cat-1.jpg"));
const [CAT, SHIP, DOG, TRUCK] = named ? ["cat", "ship", "dog", "truck"].map(name => path.join(PHOTOS, name + "-1.jpg"))
  : ["baseline.jpg", "exif-6.png", "gray.jpg", "lossy.webp"].map(name => path.join("tests/images", name));
const SENTENCE = /^[A-Z].{20,}\.$/;

const browser = await launch();
let daemon;

async function expected(file, model = "cifar10") {
  const reply = await fetch(`${daemon.url}v1/models/${model}/classify`, { method: "POST", body: fs.readFileSync(file), headers: { "Content-Type": "application/octet-stream" } });
  return (await reply.json()).predictions[0];
}

async function done(page, what) {
  check(what + ": nothing went wrong in the page", page.problems.length === 0, page.problems);
  await page.context().close();
}

async function classify() {
  const page = await openPage(browser, daemon.url);
  await ready(page);
  await give(page, "drop", fileOf(CAT));
  const first = await expected(CAT);
  let [card] = await cards(page, 1);
  check("a dropped photograph's class appears", card.title === first.label && (!named || card.title === "cat"), card);
  check("with probability, times and network", card.text.includes((100 * first.probability).toFixed(1) + " %") &&
    /decoding [\d.]+ ms/.test(card.text) && /network [\d.]+ ms/.test(card.text) && card.text.includes("by cifar10"), card.text);
  check("a screen reader is told", await until(async () => (await page.textContent("#announce")).includes(first.label)), await page.textContent("#announce"));
  const bars = await page.$$eval(".classes .fill", all => all.map(bar => bar.getBoundingClientRect().width));
  check("bars fall", bars.length === 5 && bars[0] > 0 && bars.every((width, i) => i === 0 || width <= bars[i - 1]), bars);
  await give(page, "paste", fileOf(SHIP));
  [card] = await cards(page, 2);
  check("a pasted photograph's class appears", card.title === (await expected(SHIP)).label && (!named || card.title === "ship"), card);
  await page.setInputFiles("#file", [DOG, TRUCK]);
  const all = await cards(page, 4);
  check("picked photographs, too", all[0].title === (await expected(DOG)).label && all[1].title === (await expected(TRUCK)).label, all);
  const tops = await page.$$eval("#results .card", found => found.map(one => Math.round(one.getBoundingClientRect().top)));
  check("several images are a grid", tops[0] === tops[1] && tops[1] === tops[2], tops);
  await page.selectOption("#model", "fashion-mnist");
  check("another network classifies them again", await until(() => page.$$eval("#results .card", found =>
    found.every(one => one.innerText.includes("by fashion-mnist")))));
  check("and stands in the curl line", (await page.textContent("#curl")).endsWith("/v1/models/fashion-mnist/classify"), await page.textContent("#curl"));
  const line = (await page.textContent("#curl")).replace("cat.jpg", CAT);
  check("the curl line works", execFileSync("sh", ["-c", line.replace("curl", "curl -sS")], { encoding: "utf8" }).includes('"predictions"'), line);
  await give(page, "paste");
  check("an empty clipboard is a sentence", await until(async () => SENTENCE.test(await page.textContent("#problem"))), await page.textContent("#problem"));
  await page.click("#clear");
  await cards(page, 0);
  await done(page, "classify");
}

async function badImages() {
  const small = await startDaemon("--max-body-bytes", "200000");
  const page = await openPage(browser, small.url);
  await ready(page);
  const bytes = fs.readFileSync(CAT);
  await give(page, "drop", { name: "broken.jpg", type: "image/jpeg", bytes: [...bytes.subarray(0, 400)] });
  let [card] = await cards(page, 1);
  check("a broken image is a sentence that says what to do", card.title === "No answer" && /^[A-Z].*\. .*again.*\.$/.test(card.error), card);
  await give(page, "drop", { name: "text.jpg", type: "image/jpeg", bytes: [...Buffer.from("this is no image".repeat(20))] });
  [card] = await cards(page, 2);
  check("what is no image is a sentence", SENTENCE.test(card.error), card);
  for (const [megabytes, count] of [[0.3, 3], [30, 4]]) {
    const file = path.join(folder, `large-${count}.jpg`);
    fs.writeFileSync(file, Buffer.concat([bytes, Buffer.alloc(megabytes * 1e6)]));
    await page.setInputFiles("#file", file);
    [card] = await cards(page, count);
    check(`an image of ${megabytes} MB is a sentence that says what to do`, SENTENCE.test(card.error) && /smaller/.test(card.error) && /large/.test(card.error), card);
  }
  await axe(page, "errors");
  await done(page, "bad images");
  await small.stop();
}

async function views() {
  for (const scheme of ["light", "dark"]) {
    const page = await openPage(browser, daemon.url, { colorScheme: scheme });
    const rules = scheme === "light" ? undefined : ["color-contrast"]; // all that differs
    await ready(page);
    await page.setInputFiles("#file", [CAT, SHIP]);
    await cards(page, 2);
    await axe(page, `classify, ${scheme}`, rules);
    await page.click("nav a[href='#networks']");
    await page.waitForSelector("#networks article:nth-of-type(2) table");
    const text = await page.textContent("#networks article");
    check("a network's facts", /vgg-small/.test(text) && /\d\d\.\d\d %/.test(text) && /32 × 32/.test(text) && /[kM]B in memory/.test(text), text);
    const shares = await page.$$eval("#networks article:first-of-type tbody td:last-child span", all => all.map(one => parseFloat(one.textContent)));
    check("shares of time add up", shares.length > 6 && Math.abs(shares.reduce((a, b) => a + b, 0) - 100) < 1, shares);
    await axe(page, `networks, ${scheme}`, rules);
    await page.click("nav a[href='#live']");
    await page.waitForSelector("#plots table");
    await axe(page, `live, ${scheme}`, rules);
    const origin = daemon.url;
    await page.goto(origin + "docs");
    await page.waitForSelector("#docs details");
    const api = await (await fetch(origin + "openapi.json")).json();
    const operations = Object.values(api.paths).flatMap(item => ["get", "put", "post"].filter(method => item[method])).length;
    check("/docs has every operation", await page.locator("#docs details.operation").count() === operations, operations);
    await page.$$eval("#docs details.operation", all => all.forEach((one, i) => { one.open = i < 2; }));
    const lines = await page.$$eval("#docs pre", all => all.map(one => one.textContent));
    check("its curl lines are for this daemon", lines.some(line => line.startsWith(`curl -F image=@cat.jpg ${origin}classify`)) &&
      !lines.some(line => line.includes("localhost:8080")), lines.slice(0, 3));
    if (scheme === "light") await axe(page, "docs"); // in the dark it has no colors that the other views have not
    await done(page, "views");
  }
}

async function liveUnderLoad() {
  const page = await openPage(browser, daemon.url + "#live");
  await page.waitForSelector("#plots table");
  const line = () => page.getAttribute("#plots .panel:first-child path", "d");
  const rate = async () => parseFloat(await page.textContent("#tiles div:first-child dd"));
  const before = [await line(), await rate()];
  const body = fs.readFileSync(CAT);
  let load = true;
  const client = async () => {
    while (load) await (await fetch(daemon.url + "classify", { method: "POST", body, headers: { "Content-Type": "image/jpeg" } })).arrayBuffer();
  };
  const clients = [1, 2, 3, 4].map(client);
  check("throughput moves under load", await until(async () => await rate() > 1 && await line() !== before[0]), [before, await rate()]);
  check("so do the quantiles", await until(async () => /\d ms/.test(await page.textContent("#plots table tbody tr:last-child"))));
  load = false;
  await Promise.all(clients);
  const [samples, seconds] = await page.evaluate(() =>
    [performance.getEntriesByType("resource").filter(entry => entry.name.includes("/stats")).length, performance.now() / 1000]);
  check("it asks every two seconds, not more", samples <= 3 + seconds / 2, [samples, seconds]);
  await page.reload();
  await page.waitForSelector("#plots path");
  check("a reload keeps the plot", (await line()).length >= before[0].length, [before, await line()]);
  await done(page, "live");
}

async function stopped() {
  let other = await startDaemon();
  const page = await openPage(browser, other.url);
  await ready(page);
  check("a daemon with an open page stops", await other.stop() === 0);
  check("the page says that it does not answer", await until(async () => (await page.textContent("#state")) === "The server does not answer."));
  await give(page, "drop", fileOf(CAT));
  const [card] = await cards(page, 1);
  check("a sentence that says what to do", SENTENCE.test(card.error) && /hwgqd is running/.test(card.error), card);
  await page.click("nav a[href='#live']");
  check("the live view, too", await until(async () => SENTENCE.test(await page.textContent("#live-problem"))), await page.textContent("#live-problem"));
  other = await startDaemon("--listen", `127.0.0.1:${other.port}`);
  check("and is good again with the daemon", await until(async () => /2 networks/.test(await page.textContent("#state"))), await page.textContent("#state"));
  await done(page, "stopped");
  await other.stop();
}

async function phone() {
  const page = await openPage(browser, daemon.url, PHONE);
  await ready(page);
  const chooser = await chooserOf(page, () => page.tap("label[for=camera]"));
  await chooser.setFiles(CAT);
  const [card] = await cards(page, 1);
  check("a photograph is taken and classified", card.title === (await expected(CAT)).label, card);
  check("the camera is asked for", await page.getAttribute("#camera", "capture") === "environment");
  for (const view of ["classify", "networks", "live"]) {
    await page.tap(`nav a[href='#${view}']`);
    await page.waitForSelector({ classify: ".card", networks: "#networks table", live: "#plots table" }[view]);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    check(`${view} fits a phone`, width <= 360, width);
    const low = await page.$$eval("nav a, button:not([hidden]), select, .button", all => all.map(one => one.getBoundingClientRect()).filter(box => box.height && box.height < 32).length);
    check(`${view}: what is tapped is large enough`, low === 0, low);
    await axe(page, `${view}, phone`);
  }
  await page.goto(daemon.url + "docs");
  await page.waitForSelector("#docs details");
  await page.$$eval("#docs details.operation", all => all.forEach(one => { one.open = true; }));
  check("docs fits a phone", await page.evaluate(() => document.documentElement.scrollWidth) <= 360, await page.evaluate(() => document.documentElement.scrollWidth));
  await done(page, "phone");
}

async function keyboard() {
  const page = await openPage(browser, daemon.url);
  await ready(page);
  const focused = () => page.evaluate(() => {
    const one = document.activeElement, outline = getComputedStyle(one).outlineStyle;
    return { id: one.id, text: one.textContent.trim().slice(0, 30), href: one.getAttribute("href"), outline };
  });
  const tabTo = async good => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press("Tab");
      const at = await focused();
      if (good(at)) return at;
    }
    return {};
  };
  check("the first stop skips to the content", (await tabTo(() => true)).href === "#main");
  let at = await tabTo(one => one.id === "file");
  check("the file field is reached and seen", at.id === "file" && at.outline !== "none", at);
  const chooser = await chooserOf(page, () => page.keyboard.press("Enter"));
  await chooser.setFiles(CAT);
  const [card] = await cards(page, 1);
  check("the class appears", card.title === (await expected(CAT)).label, card);
  at = await tabTo(one => one.id === "model");
  await page.keyboard.press("ArrowDown");
  check("another network by arrow key", at.id === "model" && await until(async () => (await page.innerText("#results")).includes("by fashion-mnist")));
  at = await tabTo(one => one.id === "clear");
  await page.keyboard.press("Enter");
  check("clear, and back to the files", (await focused()).id === "file" && await page.locator(".card").count() === 0, await focused());
  for (const view of ["networks", "live"]) {
    await page.reload();
    await page.waitForSelector("#choices:not([hidden])", { state: "attached" });
    at = await tabTo(one => one.href === "#" + view);
    await page.keyboard.press("Enter");
    check(`${view} by key`, at.outline !== "none" && await until(async () => await page.locator(`#${view}-view`).isVisible() &&
      (await focused()).id === "main"), [at, await focused()]);
  }
  await done(page, "keyboard");
}

async function withoutJavaScript() {
  const page = await openPage(browser, daemon.url, { javaScriptEnabled: false });
  await page.setInputFiles("#file", CAT);
  await page.click("noscript button, form#form button[type=submit]");
  await page.waitForURL("**/classify");
  const answer = JSON.parse(await page.innerText("body"));
  check("a form classifies without JavaScript", answer.predictions[0].label === (await expected(CAT)).label, answer);
  await done(page, "without JavaScript");
}

async function withKey() {
  const keys = path.join(folder, "keys");
  const key = execFileSync(path.join(build, "hwgqd"), ["--add-key", "user", "--keys-file", keys], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim();
  const locked = await startDaemon("--keys-file", keys);
  const page = await openPage(browser, locked.url);
  await page.waitForSelector("#key-form:not([hidden])");
  await axe(page, "key");
  await page.fill("#key", "hwgqd_wrong");
  await page.keyboard.press("Enter");
  check("a wrong key is a sentence", await until(async () => /does not know this API key/.test(await page.textContent("#key-message"))), await page.textContent("#key-message"));
  await page.waitForSelector("#key-form:not([hidden])");
  await page.fill("#key", key);
  await page.keyboard.press("Enter");
  await ready(page);
  check("the field goes", !await page.locator("#key-form").isVisible());
  await give(page, "drop", fileOf(CAT));
  const [card] = await cards(page, 1);
  check("and images are classified", card.title === (await expected(CAT)).label, card);
  check("the curl line names the key", (await page.textContent("#curl")).includes('-H "X-API-Key: $KEY"'), await page.textContent("#curl"));
  check("the key is only in this tab", await page.evaluate(() => localStorage.length === 0 && document.cookie === ""));
  await done(page, "key");
  await locked.stop();
}

async function manyNetworks() {
  const flags = Array.from({ length: 12 }, (_, i) => ["--models", `n${i}=models/zoo/fashion-mnist.hwgq`]).flat();
  const many = await startDaemon(...flags);
  const page = await openPage(browser, many.url + "#live");
  await page.waitForSelector("#plots table");
  check("eight of many networks are drawn, and said so", await page.locator("#plots table").count() === 8 &&
    /first 8 of 14/.test(await page.textContent("#live-note")), await page.textContent("#live-note"));
  await page.click("nav a[href='#networks']");
  check("all are listed", await until(async () => await page.locator("#networks article").count() === 14));
  await done(page, "many networks");
  await many.stop();
}

async function linter() {
  const { createConfig, lint } = requireTool("@redocly/openapi-core");
  const config = await createConfig({ extends: ["recommended-strict"], rules: {
    "no-server-example.com": "off", "security-defined": "off", // some paths need no key, as the document says
    "operation-4xx-response": "error", "no-ambiguous-paths": "off", // /v2/models/stats and /v2/models/{name} are the protocol's
    "info-license-url": "off", "info-license-strict": "off", "tag-description": "error", "no-unused-components": "error" } });
  const problems = await lint({ ref: path.resolve("server/page/openapi.json"), config });
  check("the linter finds nothing in openapi.json", problems.length === 0, problems.slice(0, 6).map(one => `${one.ruleId}: ${one.message} ${one.location?.[0]?.pointer}`).join("\n"));
}

daemon = await startDaemon();
for (const part of [classify, badImages, views, liveUnderLoad, stopped, phone, keyboard, withoutJavaScript, withKey, manyNetworks, linter]) {
  const start = Date.now();
  try {
    await part();
  } catch (error) {
    check(part.name, false, error.stack);
  }
  console.log(`${part.name.padEnd(20)} ${((Date.now() - start) / 1000).toFixed(1).padStart(5)} s`);
}
await browser.close();
check("exit code", await daemon.stop() === 0);
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed ? 1 : 0);
