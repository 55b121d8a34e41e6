// Makes docs/page.png, the picture in README: tests/browser/run.sh build/release picture.mjs. Shows test images of Fashion-MNIST
// (Debian's dataset-fashion-mnist).
import fs from "node:fs";
import zlib from "node:zlib";
import { cards, launch, openPage, ready, sleep, startDaemon } from "./support.mjs";

const SET = "/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz", SHOWN = [0, 10, 8], SIDE = 28;
const pixels = zlib.gunzipSync(fs.readFileSync(SET)).subarray(16);

const daemon = await startDaemon("--default-model", "fashion-mnist");
const browser = await launch();
const page = await openPage(browser, daemon.url, { viewport: { width: 1000, height: 1000 } });
await ready(page);
// Enlarged without smoothing, so that what the network sees can be seen.
await page.evaluate(async ([images, side]) => {
  const scale = 6, transfer = new DataTransfer();
  for (const [i, image] of images.entries()) {
    const canvas = Object.assign(document.createElement("canvas"), { width: side * scale, height: side * scale });
    const context = canvas.getContext("2d");
    image.forEach((value, at) => {
      context.fillStyle = `rgb(${value} ${value} ${value})`;
      context.fillRect(at % side * scale, Math.floor(at / side) * scale, scale, scale);
    });
    const blob = await new Promise(resolve => canvas.toBlob(resolve));
    transfer.items.add(new File([blob], `image-${i + 1}.png`, { type: "image/png" }));
  }
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}, [SHOWN.map(i => [...pixels.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE)]), SIDE]);
await cards(page, SHOWN.length);
// Once more, when everything is warm.
await page.selectOption("#model", "cifar10");
await sleep(300);
await page.selectOption("#model", "fashion-mnist");
await sleep(500);
fs.mkdirSync("docs", { recursive: true });
const bottom = await page.$eval("#results", list => list.getBoundingClientRect().bottom);
await page.screenshot({ path: "docs/page.png", clip: { x: 0, y: 0, width: 1000, height: Math.ceil(bottom) + 8 } });
await browser.close();
await daemon.stop();
