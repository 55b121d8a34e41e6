// ONNX Runtime as a candidate: node engine_ort.js MODULES MODEL.onnx IMAGES CHANNELS HEIGHT WIDTH
// Speaks the protocol of child.h. The first argument is the folder that onnxruntime-node was installed in.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');

const IMAGES = 8; // as in images.h

async function main() {
  const [modules, model, images, ...dimensions] = process.argv.slice(2);
  const [channels, height, width] = dimensions.map(Number);
  const ort = require(path.resolve(modules, 'onnxruntime-node'));
  const version = require(path.resolve(modules, 'onnxruntime-node', 'package.json')).version;
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ['cpu'],
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    logSeverityLevel: 3,
    graphOptimizationLevel: process.env.PEERS_ORT_LEVEL || 'all',
  });
  const shape = [1, channels, height, width];
  const count = channels * height * width;
  const bytes = session.inputMetadata[0].type === 'uint8';
  const feeds = [];
  const file = fs.readFileSync(`${images}.${bytes ? 'pixels' : 'input'}`);
  for (let i = 0; i < IMAGES; i++) {
    let data;
    if (bytes) {
      // pixels lie channel by channel here
      data = new Uint8Array(count);
      for (let p = 0; p < height * width; p++)
        for (let c = 0; c < channels; c++) data[c * height * width + p] = file[i * count + p * channels + c];
    } else {
      data = new Float32Array(count);
      for (let k = 0; k < count; k++) data[k] = file.readFloatLE((i * count + k) * 4);
    }
    feeds.push({ [session.inputNames[0]]: new ort.Tensor(bytes ? 'uint8' : 'float32', data, shape) });
  }
  const answer = (value) => process.stdout.write(JSON.stringify(value) + '\n');
  answer({ ready: `ONNX Runtime ${version}, ${path.basename(model, '.onnx').replace(/^.*\./, '')}`, softmax: false });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [request, number] = line.split(' ');
    if (request === 'check') {
      const result = await session.run(feeds[Number(number)]);
      answer({ scores: Array.from(result[session.outputNames[0]].data) });
    } else if (request === 'go') {
      const us = [];
      for (let i = 0; i < Number(number); i++) {
        const start = process.hrtime.bigint();
        await session.run(feeds[i % IMAGES]);
        us.push(Number(process.hrtime.bigint() - start) / 1e3);
      }
      answer({ us });
    } else {
      throw new Error(`unknown request: ${line}`);
    }
  }
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
