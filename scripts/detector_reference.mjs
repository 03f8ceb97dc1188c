// Runs a TensorFlow.js graph on stored inputs. scripts/compare_detector.py calls it and installs the packages that it needs.
//
//     node detector_reference.mjs FOLDER SIDE OUTPUT...
//
// FOLDER has model.json, model.bin and inputs.bin (float32 [N, 3, SIDE, SIDE]). Writes scores.bin (float32 [N, K]): the
// maximum for each image and class over all positions of all outputs [1, K, height, width].
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [folder, side, ...outputs] = process.argv.slice(2);
const require = createRequire(join(process.cwd(), 'package.json'));
const tf = require('@tensorflow/tfjs');

const readBytes = (name) => {
  const data = readFileSync(join(folder, name));
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.length);
};
const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
const artifacts = {
  ...model,
  weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
  weightData: readBytes('model.bin'),
};
await tf.setBackend('cpu');
const network = await tf.loadGraphModel({ load: async () => artifacts });
const inputs = new Float32Array(readBytes('inputs.bin'));
const shape = [1, 3, Number(side), Number(side)];
const size = shape.reduce((one, other) => one * other);
const scores = [];
for (let start = 0; start < inputs.length; start += size) {
  const pixels = tf.tensor(inputs.subarray(start, start + size), shape);
  const maps = [network.execute({ [network.inputs[0].name]: pixels }, outputs)].flat();
  scores.push(...tf.stack(maps.map((each) => each.max([0, 2, 3]))).max(0).dataSync());
  console.error(`${scores.length / maps[0].shape[1]} images, tfjs ${tf.version.tfjs}, backend ${tf.getBackend()}`);
}
writeFileSync(join(folder, 'scores.bin'), new Float32Array(scores));
