// The networks in the browser. Layers and activations are channels last, as in JAX; batch
// normalisation is folded into the weights. Double precision: V8 would convert single precision
// before and after each product.

// Reads the arrays of all layers from base64 of little-endian float32.
function readWeights(encoded, layers) {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const values = new Float64Array(new Float32Array(bytes.buffer));
  let start = 0;
  const take = (length) => values.subarray(start, (start += length));
  for (const layer of layers) {
    layer.kernel = take(layer.taps * layer.inputs * layer.outputs);
    layer.bias = take(layer.outputs);
  }
}

function dense(input, { inputs, outputs, kernel, bias }) {
  const output = Float64Array.from(bias);
  for (let i = 0; i < inputs; i++) {
    const value = input[i];
    if (value === 0) continue; // after a ReLU, every second one is
    const row = i * outputs;
    for (let o = 0; o < outputs; o++) output[o] += value * kernel[row + o];
  }
  return output;
}

// Adds the product of a pixel's channels and the kernel of a tap to a pixel of the output.
function addProduct(input, from, output, to, kernel, tap, inputs, outputs) {
  for (let i = 0; i < inputs; i++) {
    const value = input[from + i];
    if (value === 0) continue;
    const row = (tap * inputs + i) * outputs;
    for (let o = 0; o < outputs; o++) output[to + o] += value * kernel[row + o];
  }
}

// Stride-2 4x4 convolution with padding 1, or its transpose. Height and width are those of the
// smaller image; a tap connects its pixel (y, x) with pixel (2y - 1 + row, 2x - 1 + column) of the
// larger one.
function connect(input, layer, isTransposed) {
  const { height, width, inputs, outputs, kernel, bias } = layer;
  const pixels = height * width * (isTransposed ? 4 : 1);
  const output = new Float64Array(pixels * outputs);
  for (let pixel = 0; pixel < pixels; pixel++) output.set(bias, pixel * outputs);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const small = y * width + x;
      for (let tap = 0; tap < 16; tap++) {
        const row = 2 * y - 1 + (tap >> 2);
        const column = 2 * x - 1 + (tap & 3);
        if (row < 0 || row >= 2 * height || column < 0 || column >= 2 * width) continue;
        const large = row * 2 * width + column;
        const [from, to] = isTransposed ? [small, large] : [large, small];
        // JAX's transposed kernels are flipped.
        const flipped = isTransposed ? 15 - tap : tap;
        addProduct(input, from * inputs, output, to * outputs, kernel, flipped, inputs, outputs);
      }
    }
  }
  return output;
}

const convolution = (input, layer) => connect(input, layer, false);
const transposedConvolution = (input, layer) => connect(input, layer, true);

const OPERATIONS = { dense, convolution, transposedConvolution };

function applyLayers(input, layers) {
  for (const layer of layers) {
    input = OPERATIONS[layer.operation](input, layer);
    if (layer.relu) for (let i = 0; i < input.length; i++) if (input[i] < 0) input[i] = 0;
  }
  return input;
}

// Copies an image into another one; where they overlap, with its corner at (top, left).
function place(image, height, width, channels, target, rows, columns, top, left) {
  for (let y = Math.max(0, -top); y < Math.min(height, rows - top); y++) {
    for (let x = Math.max(0, -left); x < Math.min(width, columns - left); x++) {
      for (let channel = 0; channel < channels; channel++) {
        target[((y + top) * columns + x + left) * channels + channel] =
          image[(y * width + x) * channels + channel];
      }
    }
  }
  return target;
}

function oneHot(index, length) {
  return Float64Array.from({ length }, (_, other) => Number(other === index));
}

function sigmoid(logit) {
  return 1 / (1 + Math.exp(-logit));
}

function logit(probability) {
  return Math.log(probability / (1 - probability));
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

function argmax(values) {
  return values.indexOf(Math.max(...values));
}

// A trained model: logits of images from (z, class), and (z, probabilities) from images.
class Model {
  constructor(data, weights) {
    Object.assign(this, data);
    const { networks } = data;
    readWeights(weights, Object.values(networks).flat());
  }

  // Image logits, height x width x channels, of a style; label is null without classes.
  decode(z, label) {
    const classes = label === null ? [] : oneHot(label, this.classes.length);
    const padded = applyLayers([...z, ...classes], this.networks.decoder);
    const [height, width, channels] = this.imageShape;
    const [rows, columns, top, left] = this.padding;
    const logits = new Float64Array(height * width * channels);
    return place(padded, rows, columns, channels, logits, height, width, -top, -left);
  }

  // The mean of q(z|x) and the probabilities of the classes of an image in [0, 1].
  encode(image) {
    const [height, width, channels] = this.imageShape;
    const [rows, columns, top, left] = this.padding;
    const padded = new Float64Array(rows * columns * channels);
    place(image, height, width, channels, padded, rows, columns, top, left);
    const { classifier, trunk, hidden, mean, logits } = this.networks;
    let features = applyLayers(padded, trunk);
    let probabilities = [];
    if (classifier) {
      // A conditional encoder takes the most probable class.
      probabilities = softmax(applyLayers(padded, classifier));
      features = [...features, ...oneHot(argmax(probabilities), this.classes.length)];
    }
    features = applyLayers(features, hidden);
    if (logits) probabilities = softmax(applyLayers(features, logits));
    return { z: applyLayers(features, mean), probabilities };
  }
}
