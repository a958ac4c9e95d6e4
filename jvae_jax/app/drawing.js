// Characters as pixels and as outlines. A layout is {width, height, items: [{logits, x, y}]}, in
// pixels of the model.

// Bicubic interpolation (Catmull-Rom) of a height x width x channels image; edges repeat.
function enlarge(image, height, width, channels, scale) {
  if (scale === 1) return image;
  const taps = (size) =>
    Array.from({ length: size * scale }, (_, i) => {
      const position = (i + 0.5) / scale - 0.5;
      const first = Math.floor(position);
      const t = position - first;
      const weights = [
        ((2 - t) * t - 1) * t * 0.5,
        (t * t * (3 * t - 5) + 2) * 0.5,
        ((4 - 3 * t) * t + 1) * t * 0.5,
        (t - 1) * t * t * 0.5,
      ];
      return weights.map((weight, k) => [clampIndex(first - 1 + k, size), weight]);
    });
  const wide = new Float64Array(height * width * scale * channels);
  taps(width).forEach(([[a, wa], [b, wb], [c, wc], [d, wd]], x) => {
    for (let y = 0; y < height; y++) {
      const row = y * width;
      for (let k = 0; k < channels; k++) {
        wide[(row * scale + x) * channels + k] =
          wa * image[(row + a) * channels + k] + wb * image[(row + b) * channels + k] +
          wc * image[(row + c) * channels + k] + wd * image[(row + d) * channels + k];
      }
    }
  });
  const line = width * scale * channels;
  const result = new Float64Array(line * height * scale);
  taps(height).forEach(([[a, wa], [b, wb], [c, wc], [d, wd]], y) => {
    for (let i = 0; i < line; i++) {
      result[y * line + i] =
        wa * wide[a * line + i] + wb * wide[b * line + i] +
        wc * wide[c * line + i] + wd * wide[d * line + i];
    }
  });
  return result;
}

// Brightness of an image's ground, the median of its border, and what ink adds to it.
function inkRange(logits, { imageShape: [height, width], framing }) {
  const border = [];
  for (let y = 0; y < height; y++) {
    const step = y === 0 || y === height - 1 ? 1 : width - 1;
    for (let x = 0; x < width; x += step) border.push(sigmoid(logits[y * width + x]));
  }
  return { ground: quantile(border, 0.5), contrast: (framing.ink - framing.background) / 255 };
}

// Logits that are above 0 where there is ink: half of its contrast, or more.
function inkLogits(logits, model) {
  const { ground, contrast } = inkRange(logits, model);
  const level = logit(Math.max(0.01, Math.min(0.99, ground + contrast / 2)));
  return logits.map((value) => Math.sign(contrast) * (value - level));
}

// Draws a layout, of a scale of whole pixels: grey characters as black ink on a transparent ground.
function paint(canvas, layout, model, scale) {
  const [height, width, channels] = model.imageShape;
  canvas.width = Math.max(1, Math.ceil(layout.width * scale));
  canvas.height = Math.max(1, Math.ceil(layout.height * scale));
  const context = canvas.getContext("2d");
  const cell = document.createElement("canvas");
  cell.width = width * scale;
  cell.height = height * scale;
  const cellContext = cell.getContext("2d");
  const pixels = cellContext.createImageData(cell.width, cell.height);
  for (const { logits, x, y } of layout.items) {
    const values = enlarge(logits, height, width, channels, scale);
    const { ground, contrast } = channels === 1 ? inkRange(logits, model) : {};
    for (let i = 0; i < cell.width * cell.height; i++) {
      if (channels === 1) {
        pixels.data[4 * i + 3] = (255 * (sigmoid(values[i]) - ground)) / contrast; // clamped
      } else {
        for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = 255 * sigmoid(values[3 * i + k]);
        pixels.data[4 * i + 3] = 255;
      }
    }
    cellContext.putImageData(pixels, 0, 0);
    context.drawImage(cell, Math.round(x * scale), Math.round(y * scale));
  }
}

// Closed polygons along which values, interpolated linearly, are 0; values are below 0 beyond.
function contours(values, height, width) {
  const at = (y, x) => (y < 0 || y >= height || x < 0 || x >= width ? -10 : values[y * width + x]);
  const next = new Map(); // end of each directed segment by its start, with ink on the left
  const crossing = (y, x, otherY, otherX) => {
    // From a fixed end, so that both cells of an edge compute the same point.
    if (y > otherY || x > otherX) [y, x, otherY, otherX] = [otherY, otherX, y, x];
    const t = at(y, x) / (at(y, x) - at(otherY, otherX));
    return [x + t * (otherX - x) + 0.5, y + t * (otherY - y) + 0.5];
  };
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      const corners = [[y, x], [y, x + 1], [y + 1, x + 1], [y + 1, x]];
      const leaves = []; // edges, clockwise, where ink ends
      const enters = [];
      corners.forEach(([cy, cx], i) => {
        const [oy, ox] = corners[(i + 1) % 4];
        if (at(cy, cx) > 0 && at(oy, ox) <= 0) leaves.push([i, crossing(cy, cx, oy, ox)]);
        if (at(cy, cx) <= 0 && at(oy, ox) > 0) enters.push([i, crossing(cy, cx, oy, ox)]);
      });
      for (const [edge, start] of leaves) {
        // The nearest edge against the clock, where this corner's ink begins.
        const distance = ([other]) => (edge - other + 4) % 4;
        const [, end] = enters.reduce((a, b) => (distance(b) < distance(a) ? b : a));
        next.set(start.join(), { start, end });
      }
    }
  }
  const polygons = [];
  while (next.size) {
    const polygon = [];
    let [key] = next.keys();
    while (next.has(key)) {
      const { start, end } = next.get(key);
      next.delete(key);
      polygon.push(start);
      key = end.join();
    }
    polygons.push(polygon);
  }
  return polygons;
}

// The outlines of the ink of a layout as an SVG file, with quadratic curves.
function toSVG(layout, model) {
  const [height, width] = model.imageShape;
  const paths = layout.items.map(({ logits, x, y }) => {
    const fine = enlarge(inkLogits(logits, model), height, width, 1, 2);
    const curves = contours(fine, 2 * height, 2 * width).map((polygon) => {
      const points = polygon.map(([px, py]) => [px / 2 + x, py / 2 + y]);
      const format = (point) => point.map((value) => +value.toFixed(2)).join(" ");
      const middle = (i) => {
        const [a, b] = [points[i % points.length], points[(i + 1) % points.length]];
        return format([(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]);
      };
      const segments = points.map((_, i) => `Q${format(points[(i + 1) % points.length])} ${middle(i + 1)}`);
      return `M${middle(0)}${segments.join("")}Z`;
    });
    return `<path d="${curves.join("")}"/>`;
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${layout.width} ${layout.height}" ` +
    `fill-rule="evenodd">${paths.join("")}</svg>`
  );
}

// First and last column with ink, or null.
function inkColumns(logits, model) {
  const [height, width] = model.imageShape;
  const ink = inkLogits(logits, model);
  let [first, last] = [width, -1];
  for (let i = 0; i < height * width; i++) {
    if (ink[i] <= 0) continue;
    first = Math.min(first, i % width);
    last = Math.max(last, i % width);
  }
  return last < 0 ? null : [first, last];
}
