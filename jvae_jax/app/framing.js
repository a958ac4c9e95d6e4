// Finds the character on a drawing or photograph and frames it as the training images are: the
// method of jvae_jax/data/framing.py, which says why.

const WORKING_SIZE = 256;
const STRONG = 0.7;
const WEAK = 0.4;
const MIN_CONTRAST = 24;
const PEN_CONTRAST = 110;
const WIDEST_STROKE = 85;
const NARROW_STROKE = 25;
const FAINT = 70;
const GAP = 20;
const STRAIGHT = 3;
const FLAT = 0.25;
const LIKE_LARGEST = 0.3;

function quantile(values, fraction) {
  const sorted = Float64Array.from(values).sort();
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (position - below) * (sorted[above] - sorted[below]);
}

// Applies a function to each row and then to each column of a square image.
function separably(image, size, transform) {
  const result = new Float64Array(image.length);
  for (let y = 0; y < size; y++) {
    result.set(transform(image.subarray(y * size, (y + 1) * size)), y * size);
  }
  for (let x = 0; x < size; x++) {
    const column = Float64Array.from({ length: size }, (_, y) => result[y * size + x]);
    transform(column).forEach((value, y) => (result[y * size + x] = value));
  }
  return result;
}

function clampIndex(index, size) {
  return Math.max(0, Math.min(size - 1, index));
}

function gaussianBlur(image, size) {
  const weights = [-4, -3, -2, -1, 0, 1, 2, 3, 4].map((x) => [x, Math.exp((-x * x) / 2)]);
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  return separably(image, size, (line) =>
    line.map((_, i) =>
      weights.reduce((total, [x, w]) => total + (w / sum) * line[clampIndex(i + x, size)], 0),
    ),
  );
}

// Running maximum over a window that is centred on each pixel; beyond the image, edges repeat.
function runningMaximum(line, window) {
  const half = Math.floor(window / 2);
  return line.map((_, i) => {
    let highest = -Infinity;
    const end = Math.min(line.length - 1, i + half);
    for (let j = Math.max(0, i - half); j <= end; j++) highest = Math.max(highest, line[j]);
    return highest;
  });
}

// Closing: what is darker than its surroundings and narrower than the window is filled.
function closing(image, size, window) {
  // Padded, so that the minimum is taken over the maxima beyond the image too.
  const side = size + 2 * window;
  const padded = Float64Array.from({ length: side * side }, (_, i) => {
    const [y, x] = [Math.floor(i / side), i % side].map((k) => clampIndex(k - window, size));
    return image[y * size + x];
  });
  const maximum = (line) => runningMaximum(line, window);
  const closed = negative(separably(negative(separably(padded, side, maximum)), side, maximum));
  return Float64Array.from({ length: size * size }, (_, i) => {
    return closed[(Math.floor(i / size) + window) * side + (i % size) + window];
  });
}

function negative(image) {
  return image.map((value) => -value);
}

// Every fourth pixel of an image, and the median of those around each.
function coarseAndMedians(smooth) {
  const size = WORKING_SIZE / 4;
  const half = Math.floor(WIDEST_STROKE / 8);
  const at = (y, x) => smooth[4 * (clampIndex(y, size) * WORKING_SIZE + clampIndex(x, size))];
  const around = new Float64Array((2 * half + 1) ** 2);
  const coarse = new Float64Array(size * size);
  const medians = coarse.map((_, i) => {
    const [y, x] = [Math.floor(i / size), i % size];
    coarse[i] = at(y, x);
    let count = 0;
    for (let row = y - half; row <= y + half; row++) {
      for (let column = x - half; column <= x + half; column++) around[count++] = at(row, column);
    }
    around.sort();
    return around[(count - 1) / 2];
  });
  return [coarse, medians];
}

// Contrast of ink with the ground around it, 0 to 255.
function contrast(pixels) {
  const smooth = gaussianBlur(pixels, WORKING_SIZE);
  const [coarse, medians] = coarseAndMedians(smooth);
  // Ink differs most from its surroundings.
  const isDark = coarse.reduce((sum, value, i) => sum + (value - medians[i]) ** 3, 0) < 0;
  const [narrow, wide] = [NARROW_STROKE, WIDEST_STROKE].map((w) => filled(smooth, isDark, w));
  const highest = strength(wide);
  const strong = (_, i) => wide[i] > STRONG * highest;
  const missing = narrow.filter((value, i) => strong(value, i) && value < WEAK * highest).length;
  const hasWideStrokes = missing > 0.02 * wide.filter(strong).length;
  const unevenness = 255 * (1 - Math.min(...medians) / Math.max(1, ...medians));
  return hasWideStrokes && highest > Math.min(FAINT, 0.75 * unevenness) ? wide : narrow;
}

// What a closing, or an opening for bright ink, fills, above its median.
function filled(smooth, isDark, window) {
  const ground = isDark
    ? closing(smooth, WORKING_SIZE, window)
    : negative(closing(negative(smooth), WORKING_SIZE, window));
  const ink = smooth.map((value, i) =>
    isDark ? (255 * (ground[i] - value)) / Math.max(ground[i], MIN_CONTRAST) : value - ground[i],
  );
  const median = quantile(ink, 0.5);
  return ink.map((value) => Math.max(0, value - median));
}

// Highest contrast but for single pixels.
function strength(ink) {
  return quantile(ink, 0.999);
}

// Numbers the connected components of a mask from 1.
function labelComponents(mask, size, diagonal) {
  const labels = new Int32Array(mask.length);
  let count = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++count;
    const pending = [start];
    while (pending.length) {
      const pixel = pending.pop();
      const [y, x] = [Math.floor(pixel / size), pixel % size];
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if ((!diagonal && dy && dx) || y + dy < 0 || y + dy >= size) continue;
          if (x + dx < 0 || x + dx >= size) continue;
          const other = pixel + dy * size + dx;
          if (mask[other] && !labels[other]) {
            labels[other] = count;
            pending.push(other);
          }
        }
      }
    }
  }
  return { labels, count };
}

// Dilation by a diamond: pixels at most this many steps from the mask.
function dilate(mask, size, steps) {
  for (let step = 0; step < steps; step++) {
    const grown = Uint8Array.from(mask);
    for (let i = 0; i < mask.length; i++) {
      if (!mask[i]) continue;
      if (i % size) grown[i - 1] = 1;
      if ((i + 1) % size) grown[i + 1] = 1;
      if (i >= size) grown[i - size] = 1;
      if (i + size < mask.length) grown[i + size] = 1;
    }
    mask = grown;
  }
  return mask;
}

function hysteresis(ink, low, high) {
  const { labels, count } = labelComponents(ink.map((value) => Number(value > low)), WORKING_SIZE);
  const strong = new Uint8Array(count + 1);
  ink.forEach((value, i) => value > high && (strong[labels[i]] = 1));
  return Uint8Array.from(labels, (label) => Number(label > 0 && strong[label]));
}

// Removes flat straight lines that cross the image or its border.
function withoutRuledLines(mask) {
  const size = WORKING_SIZE;
  const joined = new Uint8Array(mask.length);
  mask.forEach((value, i) => {
    if (!value) return;
    const x = i % size;
    const row = i - x;
    joined.fill(1, row + Math.max(0, x - GAP / 2), row + Math.min(size, x + GAP / 2));
  });
  const { labels, count } = labelComponents(joined, size, true);
  const kept = Uint8Array.from(mask);
  const groups = Array.from({ length: count + 1 }, () => []);
  mask.forEach((value, i) => value && groups[labels[i]].push(i));
  for (const pixels of groups) {
    if (!pixels.length) continue;
    const rows = pixels.map((i) => Math.floor(i / size));
    const columns = pixels.map((i) => i % size);
    const [first, last] = [columns.reduce((a, b) => Math.min(a, b)), columns.reduce((a, b) => Math.max(a, b))];
    const edges = [first, last, rows[0], rows[rows.length - 1]];
    const crosses = last - first > size / 2 || edges.some((edge) => edge === 0 || edge === size - 1);
    if (!crosses || last === first) continue;
    const meanRow = mean(rows);
    const meanColumn = mean(columns);
    const covariance = mean(rows.map((row, i) => (row - meanRow) * (columns[i] - meanColumn)));
    const slope = covariance / mean(columns.map((column) => (column - meanColumn) ** 2));
    const distances = rows.map((row, i) => row - meanRow - slope * (columns[i] - meanColumn));
    const deviation = Math.sqrt(mean(distances.map((distance) => distance ** 2)));
    if (Math.abs(slope) < FLAT && deviation < STRAIGHT) pixels.forEach((i) => (kept[i] = 0));
  }
  return kept;
}

function mean(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

// The number of a group that is near enough to the mask to belong to it, or 0.
function nearGroup(mask, groups, amounts, gap) {
  for (const number of amounts.keys()) {
    if (!amounts[number]) continue;
    const both = mask.map((value, i) => Number(value || groups[i] === number));
    const reach = Math.ceil(gap * WORKING_SIZE * inkPlace(both).extent);
    if (!reach) continue;
    const grown = dilate(mask, WORKING_SIZE, reach);
    if (groups.some((group, i) => group === number && grown[i])) return number;
  }
  return 0;
}

// The ink of the largest group of strokes and those near it, their mask, and the number of groups.
function segment(pixels, gap = 0) {
  const size = WORKING_SIZE;
  const ink = contrast(pixels);
  const highest = strength(ink);
  if (highest <= MIN_CONTRAST) throw new Error("no ink stands out from the background");
  const strokes = hysteresis(ink, WEAK * highest, STRONG * highest);
  let mask = withoutRuledLines(strokes);
  if (!mask.includes(1) && highest > PEN_CONTRAST) mask = strokes;
  if (!mask.includes(1)) throw new Error("there is nothing but straight lines");
  const { labels, count } = labelComponents(dilate(mask, size, GAP / 2), size);
  const amounts = new Float64Array(count + 1);
  mask.forEach((value, i) => value && (amounts[labels[i]] += ink[i]));
  // Shadows and other objects reach beyond the image; a character seldom does.
  const inside = Float64Array.from(amounts);
  for (let i = 0; i < size; i++) {
    for (const pixel of [i, (size - 1) * size + i, i * size, i * size + size - 1]) {
      inside[labels[pixel]] = 0;
    }
  }
  const chosen = Math.max(...inside) > LIKE_LARGEST * Math.max(...amounts) ? inside : amounts;
  const largest = chosen.indexOf(Math.max(...chosen));
  const most = chosen[largest];
  const groups = labels.map((label, i) => label * mask[i]);
  mask = mask.map((_, i) => Number(groups[i] === largest));
  chosen[largest] = 0;
  for (let number; (number = nearGroup(mask, groups, chosen, gap)); ) {
    mask = mask.map((value, i) => Number(value || groups[i] === number));
    chosen[number] = 0;
  }
  const near = dilate(mask, size, 4); // strokes keep their soft edges
  return {
    ink: ink.map((value, i) => (near[i] ? value : 0)),
    mask,
    groups: 1 + chosen.filter((amount) => amount >= LIKE_LARGEST * most).length,
  };
}

// Extent, row and column of the ink, as fractions of the working size.
function inkPlace(mask) {
  let [top, bottom, left, right] = [Infinity, -Infinity, Infinity, -Infinity];
  let [rows, columns, count] = [0, 0, 0];
  mask.forEach((value, i) => {
    if (!value) return;
    const [y, x] = [Math.floor(i / WORKING_SIZE), i % WORKING_SIZE];
    [top, bottom, left, right] = [Math.min(top, y), Math.max(bottom, y), Math.min(left, x), Math.max(right, x)];
    rows += y;
    columns += x;
    count++;
  });
  return {
    extent: (Math.max(bottom - top, right - left) + 1) / WORKING_SIZE,
    row: (rows / count + 0.5) / WORKING_SIZE,
    column: (columns / count + 0.5) / WORKING_SIZE,
  };
}

// Squared distances of each pixel from the nearest one that isn't in the mask (Felzenszwalb and
// Huttenlocher 2012). Beyond the image, nothing is.
function squaredDistances(mask) {
  const side = WORKING_SIZE + 2;
  const far = 2 * side * side;
  const padded = Float64Array.from({ length: side * side }, (_, i) => {
    const [y, x] = [Math.floor(i / side) - 1, (i % side) - 1];
    const isInside = y >= 0 && y < WORKING_SIZE && x >= 0 && x < WORKING_SIZE;
    return isInside && mask[y * WORKING_SIZE + x] ? far : 0;
  });
  // The lower envelope of the parabolas with their minima at the values of a line.
  const distances = separably(padded, side, (line) => {
    const vertices = [];
    const starts = [];
    line.forEach((value, i) => {
      let start = -Infinity;
      while (vertices.length) {
        const other = vertices[vertices.length - 1];
        start = (value + i * i - line[other] - other * other) / (2 * (i - other));
        if (start > starts[starts.length - 1]) break;
        vertices.pop();
        starts.pop();
        start = -Infinity;
      }
      vertices.push(i);
      starts.push(start);
    });
    let k = 0;
    return line.map((_, i) => {
      while (k + 1 < starts.length && starts[k + 1] < i) k++;
      return (i - vertices[k]) ** 2 + line[vertices[k]];
    });
  });
  return (pixel) => {
    const [y, x] = [Math.floor(pixel / WORKING_SIZE) + 1, (pixel % WORKING_SIZE) + 1];
    return distances[y * side + x];
  };
}

// Pixels of the skeleton of a mask, by the thinning of Zhang and Suen (1984).
function skeletonOf(mask) {
  const size = WORKING_SIZE;
  const kept = Uint8Array.from(mask);
  const at = (y, x) => (y < 0 || y >= size || x < 0 || x >= size ? 0 : kept[y * size + x]);
  let pixels = [...kept.keys()].filter((i) => kept[i]);
  for (let isChanged = true; isChanged; ) {
    isChanged = false;
    for (const pass of [0, 1]) {
      const removed = pixels.filter((i) => {
        const [y, x] = [Math.floor(i / size), i % size];
        // From the north, clockwise.
        const [n, ne, e, se, s, sw, w, nw] = [
          at(y - 1, x), at(y - 1, x + 1), at(y, x + 1), at(y + 1, x + 1),
          at(y + 1, x), at(y + 1, x - 1), at(y, x - 1), at(y - 1, x - 1),
        ];
        const around = [n, ne, e, se, s, sw, w, nw, n];
        const count = n + ne + e + se + s + sw + w + nw;
        if (count < 2 || count > 6) return false;
        let starts = 0;
        for (let k = 0; k < 8; k++) starts += Number(!around[k] && around[k + 1]);
        if (starts !== 1) return false;
        return pass === 0 ? !(n * e * s) && !(e * s * w) : !(n * e * w) && !(n * s * w);
      });
      for (const i of removed) kept[i] = 0;
      isChanged ||= removed.length > 0;
      pixels = pixels.filter((i) => kept[i]);
    }
  }
  return pixels;
}

// Mean thickness of strokes: twice the distance of their skeleton from the ground.
function strokeThickness(mask) {
  const squared = squaredDistances(mask);
  return (2 * mean(skeletonOf(mask).map((pixel) => Math.sqrt(squared(pixel))))) / WORKING_SIZE;
}

// Grey dilation by a disk.
function thicken(ink, radius) {
  const size = WORKING_SIZE;
  const offsets = [];
  for (let dy = -radius; dy <= radius; dy++) {
    for (let dx = -radius; dx <= radius; dx++) {
      if (dy * dy + dx * dx <= radius * radius) offsets.push([dy, dx]);
    }
  }
  const result = new Float64Array(ink.length);
  ink.forEach((value, i) => {
    if (!value) return;
    const [y, x] = [Math.floor(i / size), i % size];
    for (const [dy, dx] of offsets) {
      if (y + dy < 0 || y + dy >= size || x + dx < 0 || x + dx >= size) continue;
      const other = i + dy * size + dx;
      if (result[other] < value) result[other] = value;
    }
  });
  return result;
}

// Weights of a line's pixels, [[index, weight], ...], in each of the resized pixels: Pillow's
// bilinear filter, which averages on downscaling. The crop may exceed the line.
function resizeWeights(start, length, size) {
  const scale = length / size;
  const support = Math.max(1, scale);
  return Array.from({ length: size }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const weights = [];
    for (let j = Math.floor(centre - support); j <= Math.ceil(centre + support); j++) {
      const weight = 1 - Math.abs(j + 0.5 - centre) / support;
      if (weight > 0) weights.push([j, weight]);
    }
    const sum = weights.reduce((total, [, weight]) => total + weight, 0);
    return weights.map(([j, weight]) => [j, weight / sum]);
  });
}

function resizeCrop(image, top, left, side, size) {
  const rows = resizeWeights(top, side, size);
  const columns = resizeWeights(left, side, size);
  const at = (y, x) =>
    y < 0 || y >= WORKING_SIZE || x < 0 || x >= WORKING_SIZE ? 0 : image[y * WORKING_SIZE + x];
  return Float64Array.from({ length: size * size }, (_, i) => {
    let value = 0;
    for (const [y, weight] of rows[Math.floor(i / size)]) {
      for (const [x, other] of columns[i % size]) value += weight * other * at(y, x);
    }
    return value;
  });
}

// Frames the character on a grey image of the working size, 0 to 255. Returns the image, in [0, 1],
// and the number of groups of strokes, of which the largest was taken.
function frameCharacter(pixels, framing, size) {
  let { ink, mask, groups } = segment(pixels, framing.gap / framing.extent);
  const { extent: found } = inkPlace(mask);
  const missing = (framing.thickness * found) / framing.extent - strokeThickness(mask);
  const radius = Math.round((missing * WORKING_SIZE) / 2);
  if (radius >= 1) {
    ink = thicken(ink, radius);
    mask = thicken(mask, radius);
  }
  const { extent, row, column } = inkPlace(mask);
  const side = (WORKING_SIZE * extent) / framing.extent;
  const top = WORKING_SIZE * row - side * framing.row;
  const left = WORKING_SIZE * column - side * framing.column;
  const gain =
    (framing.ink - framing.background) / quantile(ink.filter((_, i) => mask[i]), 0.9);
  const image = resizeCrop(ink, top, left, side, size).map((value) => {
    const level = framing.background + value * gain;
    return Math.round(Math.max(0, Math.min(255, level))) / 255;
  });
  return { image, groups };
}
