// The page: a style, which sliders, a drawing, a file or a link set, and the characters in it.

const MAX_Z = 3; // of the sliders, in standard deviations of the prior
const MIN_KL = 0.01; // nats; below it, a dimension of z is unused
const MAX_SHOWN = 100; // classes, at first
const LOW_CONFIDENCE = 0.8;
// Of style controls, as in jvae_jax/style_controls.py, which says why.
const CORRECTIONS = 4;
const MAX_CHANGE = 1;
const MARGIN = 1;
const HOLD = 0.2;
const MIN_SPREAD = 0.5;
const RIDGE = 0.01;
const MAX_SIZE = 160; // of a character on the sheet, in CSS pixels
const TEXT_GAP = 0.1; // between the ink of characters of a line, in heights of an image
const SPACE = 0.4;
const PNG_SCALE = 4;

const element = (id) => document.getElementById(id);
const model = new Model(JSON.parse(element("model").textContent), element("weights").textContent);
element("weights").remove();

const labels = model.classes.length ? [...model.classes.keys()] : [null];
const style = { z: new Float64Array(model.latents), factors: {} };
const shown = new Set(labels.slice(0, MAX_SHOWN));
const layouts = {};

// Named factors of the style ---------------------------------------------------------------------

// A factor of the decoded character, as the quadratic map of the class estimates it, and its
// derivatives by z.
function estimate({ intercepts, weights, quadratic }, z, label) {
  let value = intercepts[label];
  const slopes = weights[label].map((weight, i) => {
    const product = quadratic[label][i].reduce((sum, entry, k) => sum + entry * z[k], 0);
    value += (weight + product) * z[i];
    return weight + 2 * product;
  });
  return { value, slopes };
}

// Solves a symmetric positive definite system.
function solve(matrix, vector) {
  const rows = matrix.map((row, i) => [...row, vector[i]]);
  const size = rows.length;
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) {
      if (j === i) continue;
      const ratio = rows[j][i] / rows[i][i];
      for (let k = i; k <= size; k++) rows[j][k] -= ratio * rows[i][k];
    }
  }
  return rows.map((row, i) => row[size] / row[i]);
}

function norm(z) {
  return Math.sqrt(z.reduce((sum, value) => sum + value * value, 0));
}

// The style of a class: the shared one, changed so that the class has the requested factors.
function styleOf(label, requested = style.factors) {
  if (!Object.keys(requested).length || !model.fitted.includes(label)) return style.z;
  const scales = model.factors.map(
    ({ name, spread }) => Math.max(spread, MIN_SPREAD) / (name in requested ? 1 : HOLD),
  );
  let z = style.z;
  let target;
  const radius = Math.max(norm(z), Math.sqrt(model.latents) + MARGIN);
  for (let step = 0; step < CORRECTIONS; step++) {
    const estimates = model.factors.map((factor) => estimate(factor, z, label));
    target ??= model.factors.map(({ name, lowest, highest }, f) =>
      name in requested
        ? Math.max(lowest[label], Math.min(highest[label], requested[name]))
        : estimates[f].value,
    );
    const slopes = estimates.map((each, f) => each.slopes.map((slope) => slope / scales[f]));
    const gram = slopes.map((a, f) =>
      slopes.map((b, g) => a.reduce((sum, slope, i) => sum + slope * b[i], f === g ? RIDGE : 0)),
    );
    const missing = estimates.map(({ value }, f) => (target[f] - value) / scales[f]);
    const amounts = solve(gram, missing);
    z = z.map((value, i) => {
      const change = slopes.reduce((sum, row, f) => sum + row[i] * amounts[f], 0);
      return value + Math.max(-MAX_CHANGE, Math.min(MAX_CHANGE, change));
    });
    const shrink = Math.min(1, radius / norm(z));
    z = z.map((value) => shrink * value);
  }
  return z;
}

const decodeInStyle = (label, requested) => model.decode(styleOf(label, requested), label);

// Characters in the current style, each decoded once.
const decoded = new Map();

function characterOf(label) {
  if (!decoded.has(label)) decoded.set(label, decodeInStyle(label));
  return decoded.get(label);
}

const shownLabels = () => labels.filter((label) => shown.has(label));
const nameOf = (label) => (label === null ? "a character" : model.classes[label]);

// The sheet and the line of text -----------------------------------------------------------------

function sheetLayout() {
  const [height, width] = model.imageShape;
  const chosen = shownLabels();
  const limit = heightLimit();
  const room = Math.max(1, element("sheet").parentElement.clientWidth);
  // The number of columns that leaves the largest characters.
  let [columns, largest] = [1, 0];
  for (let count = 1; count <= chosen.length; count++) {
    const rows = Math.ceil(chosen.length / count);
    const size = Math.min(room / (count * width), limit / (rows * height), MAX_SIZE / width);
    // Few full rows look better than somewhat larger characters.
    const value = size * (chosen.length % count || count < rows ? 0.6 : 1);
    if (value > largest) [columns, largest] = [count, value];
  }
  return {
    width: columns * width,
    height: Math.ceil(chosen.length / columns) * height,
    items: chosen.map((label, i) => ({
      logits: characterOf(label),
      x: (i % columns) * width,
      y: Math.floor(i / columns) * height,
    })),
  };
}

// Characters with natural spacing; those that the model doesn't have are returned as missing.
function lineLayout(text) {
  const [height] = model.imageShape;
  const items = [];
  const missing = new Set();
  let x = TEXT_GAP * height;
  for (const character of text) {
    const label = model.classes.indexOf(character);
    if (/\s/.test(character)) x += SPACE * height;
    else if (label < 0) missing.add(character);
    else {
      const logits = characterOf(label);
      const columns = inkColumns(logits, model);
      if (!columns) continue;
      items.push({ logits, x: x - columns[0], y: 0 });
      x += columns[1] - columns[0] + 1 + TEXT_GAP * height;
    }
  }
  return { width: Math.max(1, Math.ceil(x)), height, items, missing: [...missing] };
}

// Height of the sheet, which stays in view beside the controls or above them.
function heightLimit() {
  const isWide = window.matchMedia("(min-width: 900px)").matches;
  return window.innerHeight * (isWide ? 0.72 : 0.3);
}

// Draws a layout at the resolution of the screen, as large as the limits allow.
function show(canvas, layout, maxWidth, maxHeight, maxScale) {
  const scale = Math.min(maxWidth / layout.width, maxHeight / layout.height, maxScale);
  const density = Math.ceil(scale * window.devicePixelRatio);
  paint(canvas, layout, model, Math.max(1, Math.min(PNG_SCALE, density)));
  canvas.style.width = `${layout.width * scale}px`;
  canvas.style.maxHeight = "none";
}

function drawSheet() {
  const canvas = element("sheet");
  const layout = (layouts.sheet = sheetLayout());
  const scale = MAX_SIZE / model.imageShape[1];
  show(canvas, layout, canvas.parentElement.clientWidth, heightLimit(), scale);
  const factors = describeFactors();
  canvas.setAttribute(
    "aria-label",
    `Generated: ${shownLabels().map(nameOf).join(" ")}${factors && `; ${factors}`}`,
  );
}

function drawLine() {
  const text = element("text").value;
  const layout = (layouts.line = lineLayout(text));
  const canvas = element("line");
  show(canvas, layout, canvas.parentElement.clientWidth, 120, 120 / layout.height);
  canvas.setAttribute("aria-label", `Handwritten: ${text}`);
  element("text-message").textContent = layout.missing.length
    ? `This model has no ${layout.missing.join(" ")}. It has ${model.classes.join(" ")}.`
    : "";
}

let isScheduled = false;

// Draws what has changed, once for all events before the next frame.
function redraw() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    showStyle();
    drawSheet();
    if (hasText) drawLine();
  });
}

// Sliders ----------------------------------------------------------------------------------------

function slider(id, label, min, max, step, onInput, withEnds = false) {
  const row = document.createElement("div");
  row.className = withEnds ? "slider with-ends" : "slider";
  const caption = document.createElement("label");
  caption.htmlFor = id;
  caption.textContent = label;
  const output = document.createElement("span"); // not an <output>, which would be read aloud
  output.className = "value";
  const input = Object.assign(document.createElement("input"), { type: "range", id });
  Object.assign(input, { min, max, step });
  input.addEventListener("input", () => onInput(Number(input.value)));
  const ends = withEnds ? [0, 1].map(() => document.createElement("canvas")) : [];
  for (const end of ends) {
    end.setAttribute("aria-hidden", "true");
    if (model.imageShape[2] === 1) end.className = "ink";
  }
  row.append(caption, output, ...ends.slice(0, 1), input, ...ends.slice(1));
  return { row, input, output, ends };
}

const factorSliders = model.factors
  .filter(({ isControlled }) => isControlled)
  .map((factor) => {
    const lowest = Math.floor(Math.min(...model.fitted.map((label) => factor.lowest[label])) * 2) / 2;
    const highest = Math.ceil(Math.max(...model.fitted.map((label) => factor.highest[label])) * 2) / 2;
    const title = factor.name[0].toUpperCase() + factor.name.slice(1);
    const step = factor.unit === "degrees" ? 0.5 : 0.05;
    const parts = slider(
      `factor-${factor.name}`,
      title,
      lowest,
      highest,
      step,
      (value) => {
        style.factors[factor.name] = value;
        styleChanged();
      },
      true,
    );
    element("factors").append(parts.row);
    return { ...parts, factor, lowest, highest };
  });

const latentSliders = new Map();

function addLatentSliders() {
  const order = [...style.z.keys()].sort((a, b) => model.kl[b] - model.kl[a]);
  const used = order.filter((dimension) => model.kl[dimension] >= MIN_KL);
  const unused = order.filter((dimension) => !(model.kl[dimension] >= MIN_KL));
  if (!used.length) used.push(...unused.splice(0));
  for (const [dimensions, parent] of [[used, "used"], [unused, "unused"]]) {
    for (const dimension of dimensions) {
      const kl = model.kl[dimension];
      const label = `z${dimension}${Number.isFinite(kl) ? ` (${kl.toFixed(2)} nats)` : ""}`;
      const parts = slider(`z${dimension}`, label, -MAX_Z, MAX_Z, 0.01, (value) => {
        style.z[dimension] = value;
        styleChanged();
      });
      element(parent).append(parts.row);
      latentSliders.set(dimension, parts);
    }
  }
  element("unused").hidden = !unused.length;
  const [summary] = element("unused").children;
  summary.textContent = unused.length === 1 ? "1 unused dimension" : `${unused.length} unused dimensions`;
}

function formatFactor(value, unit) {
  return unit === "degrees" ? `${value.toFixed(0)}°` : `${value.toFixed(1)} px`;
}

function describeFactors() {
  return model.factors
    .filter(({ name }) => name in style.factors)
    .map(({ name, unit }) => `${name} ${style.factors[name].toFixed(1)} ${unit}`)
    .join(", ");
}

// Shows the style on the sliders; a factor that isn't requested is the mean over the shown classes.
function showStyle() {
  for (const [dimension, { input, output }] of latentSliders) {
    input.value = style.z[dimension];
    output.textContent = style.z[dimension].toFixed(2);
    input.setAttribute("aria-valuetext", output.textContent);
  }
  const selected = shownLabels().filter((label) => model.fitted.includes(label));
  const fitted = selected.length ? selected : model.fitted;
  const styles = new Map(fitted.map((label) => [label, styleOf(label)]));
  for (const { input, output, factor } of factorSliders) {
    const isRequested = factor.name in style.factors;
    const value = isRequested
      ? style.factors[factor.name]
      : mean(fitted.map((label) => estimate(factor, styles.get(label), label).value));
    input.value = value;
    output.textContent = `${isRequested ? "" : "about "}${formatFactor(value, factor.unit)}`;
    input.setAttribute("aria-valuetext", `${value.toFixed(1)} ${factor.unit}`);
  }
}

// Draws the characters at the ends of the sliders, when the style has stayed for a moment.
function drawEnds() {
  const [height, width] = model.imageShape;
  const label = shownLabels().find((each) => model.fitted.includes(each)) ?? model.fitted[0];
  for (const { ends, factor, lowest, highest } of factorSliders) {
    [lowest, highest].forEach((end, i) => {
      const logits = decodeInStyle(label, { ...style.factors, [factor.name]: end });
      paint(ends[i], { width, height, items: [{ logits, x: 0, y: 0 }] }, model, 2);
    });
  }
}

let endsTimer;

function styleChanged() {
  decoded.clear();
  selectionChanged();
}

function selectionChanged() {
  redraw();
  clearTimeout(endsTimer);
  endsTimer = setTimeout(drawEnds, 150);
}

function setStyle(z, factors = {}) {
  style.z = Float64Array.from(z, (value) => Math.max(-MAX_Z, Math.min(MAX_Z, value)));
  style.factors = factors;
  styleChanged();
}

function normal() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

// Styles as files and links ----------------------------------------------------------------------

// Checks values from a file or link; throws an error for people.
function checkedStyle(style) {
  const { z, factors } = style ?? {};
  if (!Array.isArray(z) || !z.every(Number.isFinite)) throw new Error("it holds no style");
  if (z.length !== model.latents) {
    throw new Error(`its style has ${z.length} dimensions, this model's have ${model.latents}`);
  }
  const requested = {};
  for (const { factor, lowest, highest } of factorSliders) {
    const value = factors?.[factor.name];
    if (Number.isFinite(value)) requested[factor.name] = Math.max(lowest, Math.min(highest, value));
  }
  return [z, requested];
}

function styleAsLink() {
  const values = new URLSearchParams({ z: [...style.z].map((value) => +value.toFixed(3)).join() });
  for (const [name, value] of Object.entries(style.factors)) values.set(name, value);
  return `${location.href.split("#")[0]}#${values}`;
}

function readLink() {
  const values = new URLSearchParams(location.hash.slice(1));
  if (!values.has("z")) return;
  const numbers = [...values].map(([name, text]) => [name, Number(text)]);
  let message = "";
  try {
    const z = values.get("z").split(",").map(Number.parseFloat);
    setStyle(...checkedStyle({ z, factors: Object.fromEntries(numbers) }));
  } catch (error) {
    message = `The link wasn't read: ${error.message}.`;
  }
  element("style-message").textContent = message;
}

function saveFile(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function savePicture(name, format) {
  const file = `${name === "sheet" ? "characters" : "line"}.${format}`;
  const layout = layouts[name];
  if (format === "svg") {
    saveFile(new Blob([toSVG(layout, model)], { type: "image/svg+xml" }), file);
    return;
  }
  const ink = document.createElement("canvas");
  paint(ink, layout, model, PNG_SCALE);
  const page = Object.assign(document.createElement("canvas"), { width: ink.width, height: ink.height });
  const context = page.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, page.width, page.height);
  context.drawImage(ink, 0, 0);
  page.toBlob((blob) => saveFile(blob, file));
}

// The pad ----------------------------------------------------------------------------------------

const pad = element("pad");
const actions = []; // strokes {width, points} and pictures, in order

function drawPad() {
  const context = pad.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, pad.width, pad.height);
  context.lineCap = context.lineJoin = "round";
  const start = actions.findLastIndex((action) => action.picture) + 1;
  if (start) context.drawImage(actions[start - 1].picture, 0, 0);
  for (const { width, points } of actions.slice(start)) {
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(points[0][0] + 0.01, points[0][1]); // a line of no length wouldn't be drawn
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
  element("undo").disabled = element("clear").disabled = !actions.length;
}

// A picture of any size as one of the pad's, padded to a square.
function toPadSize(picture) {
  const canvas = Object.assign(document.createElement("canvas"), { width: pad.width, height: pad.height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const scale = Math.min(pad.width / picture.width, pad.height / picture.height);
  const [width, height] = [picture.width * scale, picture.height * scale];
  context.fillStyle = borderColour(picture);
  context.fillRect(0, 0, pad.width, pad.height);
  context.drawImage(picture, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  return canvas;
}

// Median of each channel along the border of a picture.
function borderColour(picture) {
  const size = 64;
  const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, size, size);
  context.drawImage(picture, 0, 0, size, size);
  const { data } = context.getImageData(0, 0, size, size);
  const border = [...Array(size * size).keys()].filter((i) => {
    const [y, x] = [Math.floor(i / size), i % size];
    return y === 0 || x === 0 || y === size - 1 || x === size - 1;
  });
  return `rgb(${[0, 1, 2].map((k) => quantile(border.map((i) => data[4 * i + k]), 0.5)).join()})`;
}

// The image on the pad as the model's input, in [0, 1], and the number of groups of strokes.
function padImage() {
  const [height, width, channels] = model.imageShape;
  const size = channels === 1 ? WORKING_SIZE : null;
  const canvas = document.createElement("canvas");
  canvas.width = size ?? width;
  canvas.height = size ?? height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(pad, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = canvas.width * canvas.height;
  if (channels === 3) {
    const image = Float64Array.from({ length: 3 * pixels }, (_, i) =>
      data[4 * Math.floor(i / 3) + (i % 3)] / 255,
    );
    return { image, groups: 1 };
  }
  const grey = Float64Array.from({ length: pixels }, (_, i) =>
    Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]),
  );
  return frameCharacter(grey, model.framing, width);
}

function showMessage(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

// Reads the pad: the class, and the style, which becomes that of all classes.
function readPad() {
  drawPad();
  element("reading").hidden = true;
  showMessage("");
  if (!actions.length) return;
  let input;
  try {
    input = padImage();
  } catch (error) {
    showMessage(`No character was found: ${error.message}.`);
    return;
  }
  const { z, probabilities } = model.encode(input.image);
  const label = argmax(probabilities);
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  element("probabilities").replaceChildren(
    ...order.slice(0, 3).map((index) => {
      const item = document.createElement("li");
      const share = `${(100 * probabilities[index]).toFixed(0)} %`;
      item.style.setProperty("--share", `${100 * probabilities[index]}%`);
      const name = document.createElement("span");
      name.textContent = model.classes[index];
      item.append(name, share);
      return item;
    }),
  );
  const warnings = [];
  if (input.groups > 1) {
    warnings.push(`The picture holds ${input.groups} groups of strokes; the largest is used.`);
  }
  if (probabilities[label] < LOW_CONFIDENCE) {
    warnings.push("The character is recognised with low confidence.");
  }
  showMessage(warnings.join(" "));
  element("reading").hidden = false;
  const [height, width] = model.imageShape;
  const inputLogits = input.image.map((value) => logit(Math.max(1e-4, Math.min(1 - 1e-4, value))));
  for (const [id, logits] of [["framed", inputLogits], ["redrawn", model.decode(z, label)]]) {
    paint(element(id), { width, height, items: [{ logits, x: 0, y: 0 }] }, model, 2);
  }
  setStyle(z);
}

function padPoint(event) {
  const box = pad.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * pad.width) / box.width,
    ((event.clientY - box.top) * pad.height) / box.height,
  ];
}

let stroke = null;

pad.addEventListener("pointerdown", (event) => {
  if (stroke || event.button) return;
  pad.setPointerCapture(event.pointerId);
  const { pointerId } = event;
  stroke = { pointerId, width: Number(element("pen").value), points: [padPoint(event)] };
  actions.push(stroke);
  drawPad();
});
pad.addEventListener("pointermove", (event) => {
  if (stroke?.pointerId !== event.pointerId) return;
  stroke.points.push(padPoint(event));
  drawPad();
});
for (const end of ["pointerup", "pointercancel"]) {
  pad.addEventListener(end, ({ pointerId }) => {
    if (stroke?.pointerId !== pointerId) return;
    stroke = null;
    readPad();
  });
}

element("undo").addEventListener("click", () => {
  actions.pop();
  readPad();
});
element("clear").addEventListener("click", () => {
  actions.length = 0;
  readPad();
});
element("upload").addEventListener("click", () => element("picture").click());
element("picture").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be chosen again
  if (!file) return;
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    showMessage(`The browser can't read ${file.name} as a picture.`);
    return;
  }
  actions.push({ picture: toPadSize(picture) });
  picture.close();
  readPad();
});

// The rest of the controls -----------------------------------------------------------------------

element("random").addEventListener("click", () => setStyle(style.z.map(normal)));
element("reset").addEventListener("click", () => setStyle(style.z.map(() => 0)));
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => savePicture(button.dataset.save, button.dataset.format));
}
element("save-style").addEventListener("click", () => {
  const content = { model: document.title, z: [...style.z], factors: style.factors };
  saveFile(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }), "style.json");
});
element("load-style").addEventListener("click", () => element("style-file").click());
element("style-file").addEventListener("change", async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (!file) return;
  let message = "";
  try {
    setStyle(...checkedStyle(JSON.parse(await file.text())));
  } catch (error) {
    const reason = error instanceof SyntaxError ? "it isn't a JSON file" : error.message;
    message = `${file.name} wasn't read: ${reason}.`;
  }
  element("style-message").textContent = message;
});
element("copy-link").addEventListener("click", async () => {
  const link = styleAsLink();
  let message = "The link is in the address bar.";
  try {
    history.replaceState(null, "", link);
    await navigator.clipboard.writeText(link);
    message = "The link is copied.";
  } catch {} // without permission, it remains in the address bar
  element("style-message").textContent = message;
});
window.addEventListener("hashchange", readLink);
window.addEventListener("resize", redraw);
element("text").addEventListener("input", redraw);

const checkboxes = labels
  .filter((label) => label !== null)
  .map((label) => {
    const row = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "checkbox", checked: shown.has(label) });
    input.addEventListener("change", () => selectClasses(() => input.checked, [label]));
    row.append(input, nameOf(label));
    element("checkboxes").append(row);
    return input;
  });

function selectClasses(isSelected, changed = labels) {
  for (const label of changed) {
    checkboxes[label].checked = isSelected(label);
    if (isSelected(label)) shown.add(label);
    else shown.delete(label);
  }
  selectionChanged();
}

element("all-classes").addEventListener("click", () => selectClasses(() => true));
element("no-classes").addEventListener("click", () => selectClasses(() => false));

const hasText =
  model.imageShape[2] === 1 &&
  model.classes.length > 0 &&
  model.classes.every((name) => [...name].length === 1);
for (const node of document.querySelectorAll(".classes")) node.hidden = labels[0] === null;
for (const node of document.querySelectorAll(".text")) node.hidden = !hasText;
for (const node of document.querySelectorAll(".outlines")) node.hidden = model.imageShape[2] !== 1;
if (model.imageShape[2] === 1) {
  for (const id of ["sheet", "line", "framed", "redrawn"]) element(id).className = "ink";
}
element("text").value = hasText ? model.classes.slice(0, 10).join("") : "";
addLatentSliders();
element("dimensions").open = !factorSliders.length;
element("copy-link").hidden = location.protocol === "about:"; // in a notebook, it has no address
drawPad();
styleChanged();
drawEnds();
readLink();
