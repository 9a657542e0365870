// The page of a service: asks for answers, and shows how its workers fare.
"use strict";

const POLL = 1000; // milliseconds between looks at the service, and between repeats
const PAUSE = 500; // milliseconds after the last stroke until a drawing is sent
const MINUTE = 60; // seconds that the chart shows
const SHOWN = 10; // classes with a bar
const BOX = 20 / 28; // of the image's side: the box of a digit of MNIST
const PEN = 22; // pixels of the board

const STATES = { up: "● up", down: "✕ down", slow: "◔ slow", corrupt: "≈ corrupt" };
const REASONS = {
  died: "its worker died",
  hung: "its worker hung",
  raised: "its worker raised an error",
  bad: "its result was no number",
  wrong: "the others contradict its result",
  late: "its result came too late",
};
const ACTIONS = { kill: "Kill", slow: "Slow", corrupt: "Corrupt", heal: "Heal" };
const PHASES = ["queue", "encode", "wait", "decode"];

const $ = (id) => document.getElementById(id);
const percent = (x) => `${(100 * x).toFixed(1)} %`;
const milliseconds = (s) => (s < 0.1 ? `${(1e3 * s).toFixed(1)} ms` : s < 1 ? `${(1e3 * s).toFixed(0)} ms` : `${s.toFixed(2)} s`);
const words = (list) => (list.length < 2 ? list.join("") : `${list.slice(0, -1).join(", ")} and ${list.at(-1)}`);
const plural = (count, one, many = `${one}s`) => (count === 1 ? one : many);

let model = null; // of GET /model
let pixels = null; // Uint8Array [H, W, C], the image to ask about
let pieces = null; // of POST /pieces, of that image
let answer = null; // of POST /predict
let summary = null; // of GET /summary
let faults = []; // of GET /demo
let outcomes = []; // for each worker, what became of its result
let cards = [];
const history = []; // {at, p50, p99} of each look
const own = []; // {at, seconds} of each answer

/* ---- Asking ---- */

class Refused extends Error {}

async function ask(path, body) {
  const token = sessionStorage.getItem("token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const method = body === undefined ? "GET" : "POST";
  const response = await fetch(path, { method, headers, body, cache: "no-store" });
  const content = await response.json();
  if (response.status === 401) $("access").hidden = false;
  if (!response.ok) throw new Refused(content.error || response.statusText);
  return content;
}

const SILENT = "The service does not answer.";

function tell(error) {
  const line = error instanceof Refused ? error.message : SILENT;
  $("problem").textContent = line;
  $("problem").hidden = false;
}

/** Returns the bytes of an .npy file of uint8. */
function npy(data, shape) {
  const head = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape.join(", ")}), }`;
  const padded = `${head.padEnd(Math.ceil((head.length + 11) / 64) * 64 - 11)}\n`;
  const magic = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, padded.length & 255, padded.length >> 8];
  return Uint8Array.from([...magic, ...new TextEncoder().encode(padded), ...data]);
}

let running = false;
let again = false;

/** Sends the image, and once more if this was asked for meanwhile. */
async function send() {
  if (!pixels) return;
  again = true;
  if (running) return;
  running = true;
  try {
    while (again) {
      again = false;
      await sendOnce();
    }
  } catch (error) {
    tell(error);
  } finally {
    running = false;
  }
}

async function sendOnce() {
  const image = pixels;
  const one = npy(image, [1, ...model.image_shape]);
  if (!pieces) {
    const made = await ask("/pieces", one);
    if (image === pixels) pieces = made.pieces;
  }
  const count = model.images_per_input;
  const data = new Uint8Array(count * image.length);
  for (let i = 0; i < count; i++) data.set(image, i * image.length);
  const before = await ask("/summary");
  const got = await ask("/predict", npy(data, [count, ...model.image_shape]));
  if (image !== pixels) return;
  own.push({ at: now(), seconds: got.seconds.total });
  answer = got;
  $("problem").hidden = true;
  await look();
  outcomes = outcomesOf(got, before);
  showAnswer();
  showWorkers();
}

/* ---- The image ---- */

const board = $("board");
const pen = board.getContext("2d", { willReadFrequently: true });
let drawing = false; // whether the board has strokes, rather than an image
let pending = 0;

const drawable = () => model.image_shape.join() === "28,28,1";
const usable = () => model.image_dtype === "uint8" && [1, 3].includes(model.image_shape[2]);

function clear() {
  clearTimeout(pending);
  board.width = board.height = 280;
  pen.fillRect(0, 0, 280, 280);
  drawing = false;
  setImage(null);
  $("note").textContent = "";
}

function setImage(image) {
  pixels = image;
  pieces = answer = null;
  outcomes = [];
  $("hint").hidden = image !== null || drawing;
  $("ask").disabled = image === null;
  $("problem").hidden = true;
  showAnswer();
  showWorkers();
}

/** Shows pixels [H, W, C] on a canvas. */
function paint(canvas, data, [rows, columns, channels]) {
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[channels * i + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function showImage(data, note = "") {
  drawing = false;
  paint(board, data, model.image_shape);
  setImage(data);
  $("note").textContent = note;
  send();
}

const place = (event) => {
  const box = board.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * 280, ((event.clientY - box.top) / box.height) * 280];
};

function startStroke(event) {
  if (!model || !drawable() || event.button > 0) return;
  if (!drawing) clear();
  drawing = true;
  clearTimeout(pending);
  board.setPointerCapture(event.pointerId);
  $("hint").hidden = true;
  pen.strokeStyle = "#fff";
  pen.lineWidth = PEN;
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...place(event));
  pen.lineTo(...place(event));
  pen.stroke();
}

function goOn(event) {
  if (!board.hasPointerCapture(event.pointerId)) return;
  pen.lineTo(...place(event));
  pen.stroke();
}

function endStroke() {
  if (!drawing) return;
  clearTimeout(pending);
  setImage(centred(pen.getImageData(0, 0, 280, 280).data));
  pending = setTimeout(send, PAUSE);
}

/** Returns a drawing as MNIST has digits: in a box of 20x20 of the 28x28 pixels, its
 * centre of mass in the middle. */
function centred(rgba) {
  const side = model.image_shape[0];
  let [left, right, top, bottom, mass, sumX, sumY] = [280, -1, 280, -1, 0, 0, 0];
  for (let y = 0; y < 280; y++) {
    for (let x = 0; x < 280; x++) {
      const value = rgba[4 * (280 * y + x)];
      if (!value) continue;
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
      mass += value;
      sumX += value * (x + 0.5);
      sumY += value * (y + 0.5);
    }
  }
  const image = new Uint8Array(side * side);
  if (!mass) return image;
  const step = (Math.max(right - left, bottom - top) + 1) / (BOX * side);
  const [x0, y0] = [sumX / mass - (step * side) / 2, sumY / mass - (step * side) / 2];
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      let [sum, count] = [0, 0]; // the mean of the pixels that fall into this one
      for (let y = Math.ceil(y0 + row * step); y < y0 + (row + 1) * step; y++) {
        for (let x = Math.ceil(x0 + column * step); x < x0 + (column + 1) * step; x++) {
          count++;
          if (x >= 0 && y >= 0 && x < 280 && y < 280) sum += rgba[4 * (280 * y + x)];
        }
      }
      image[side * row + column] = count ? Math.round(sum / count) : 0;
    }
  }
  return image;
}

/** Returns a picture scaled to the network's size, its middle if it is longer. */
function scaled(bitmap) {
  const [rows, columns] = model.image_shape;
  const zoom = Math.max(columns / bitmap.width, rows / bitmap.height);
  const [w, h] = [columns / zoom, rows / zoom];
  let from = bitmap;
  let area = [(bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h];
  let size = [w, h];
  do {
    // By halves: a browser's own scaling looks at few pixels.
    size = [Math.max(size[0] / 2, columns), Math.max(size[1] / 2, rows)].map(Math.round);
    const canvas = new OffscreenCanvas(...size);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(from, ...area, 0, 0, ...size);
    [from, area] = [canvas, [0, 0, ...size]];
  } while (size[0] > columns || size[1] > rows);
  return from.getContext("2d").getImageData(0, 0, columns, rows).data;
}

async function takeFile(file) {
  if (!file || !model || !usable()) return;
  let rgba;
  try {
    rgba = scaled(await createImageBitmap(file));
  } catch {
    setImage(null);
    return tell(new Refused(`${file.name}: no image that this browser can read`));
  }
  const [rows, columns, channels] = model.image_shape;
  const data = new Uint8Array(rows * columns * channels);
  for (let i = 0; i < rows * columns; i++) {
    const [r, g, b] = rgba.subarray(4 * i, 4 * i + 3);
    if (channels === 3) data.set([r, g, b], 3 * i);
    else data[i] = Math.round(0.299 * r + 0.587 * g + 0.114 * b);
  }
  let note = `${file.name}, scaled to ${columns} × ${rows} pixels`;
  if (drawable() && isDarkOnLight(data, rows, columns)) {
    for (let i = 0; i < data.length; i++) data[i] = 255 - data[i];
    note += ", and inverted: the network has learned light on dark";
  }
  showImage(data, note);
}

function isDarkOnLight(data, rows, columns) {
  let [sum, count] = [0, 0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (y && x && y < rows - 1 && x < columns - 1) continue;
      sum += data[columns * y + x];
      count++;
    }
  }
  return sum > 127 * count;
}

const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

async function showSamples() {
  const { samples } = await ask("/samples");
  for (const sample of samples) {
    const button = document.createElement("button");
    const name = model.classes?.[sample.label] ?? sample.label;
    button.type = "button";
    button.title = `Test image: ${name}`;
    button.setAttribute("aria-label", button.title);
    const data = bytes(sample.pixels);
    paint(button.appendChild(document.createElement("canvas")), data, sample.shape);
    button.addEventListener("click", () => showImage(data, `A test image, labelled ${name}`));
    $("samples").append(button);
  }
  $("samples-box").hidden = samples.length === 0;
}

/* ---- The workers ---- */

const element = (tag, name, text = "") => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
};

/** Returns the number of the piece that a worker computes, null for a spare one. */
const pieceOf = (worker) => {
  const told = summary?.workers[worker]?.place;
  return told === undefined ? (worker < model.n ? worker : null) : told;
};

function outcomesOf(got, before) {
  const stages = got.used.length;
  return summary.workers.map((worker, i) => {
    const used = got.used.filter((workers) => workers.includes(i)).length;
    const piece = pieceOf(i);
    const decoded = got.decoded.filter((list) => list.includes(piece)).length;
    if (used === stages) return ["used", stages > 1 ? `used in all ${stages} stages` : "result used"];
    const some = used ? `used in ${used} of ${stages} stages; ` : "";
    if (got.wrong.includes(i)) return ["lost", `${some}left out: ${REASONS.wrong}`];
    if (piece === null && !used) return ["", "stands by"];
    if (!decoded) return ["", `${some}result not needed`];
    const losses = before.workers[i]?.losses ?? {};
    const reason = Object.keys(REASONS).find((name) => worker.losses[name] > losses[name]) ?? "late";
    const why = worker.up ? REASONS[reason] : "its worker is down";
    return ["lost", `${some}lost, ${why}: decoded from the others`];
  });
}

function partOf(piece) {
  if (piece === null) return "spare";
  const { parity, rows, columns } = model.pieces[piece];
  if (parity) return "parity, mixed from all pieces";
  if (!rows) return `image ${piece}`;
  const named = [
    ["rows", rows],
    ["columns", columns],
  ].filter(([, [first, last, size]]) => last - first + 1 < size);
  return named.map(([name, [first, last, size]]) => `${name} ${first}–${last} of ${size}`).join(", ");
}

function makeCards(count) {
  cards = Array.from({ length: count }, (_, i) => {
    const item = element("li", "worker");
    const piece = element("div", "piece");
    const canvas = piece.appendChild(document.createElement("canvas"));
    canvas.setAttribute("role", "img");
    const text = element("div");
    const title = text.appendChild(element("h3", "", `Worker ${i}`));
    const state = title.appendChild(element("span", "state"));
    const part = text.appendChild(element("p", "part quiet"));
    const outcome = text.appendChild(element("p", "outcome"));
    const buttons = {};
    if (model.demo) {
      const row = text.appendChild(element("div", "faults"));
      for (const [action, label] of Object.entries(ACTIONS)) {
        const button = row.appendChild(element("button", "", label));
        button.type = "button";
        button.setAttribute("aria-label", `${label} worker ${i}`);
        button.addEventListener("click", () => fail(action, i));
        buttons[action] = button;
      }
    }
    item.append(piece, text);
    return { item, piece, canvas, state, part, outcome, buttons };
  });
  $("workers").replaceChildren(...cards.map((card) => card.item));
}

async function fail(action, worker) {
  try {
    faults = (await ask(`/demo/${action}/${worker}`, "")).workers;
    showWorkers();
    await send();
  } catch (error) {
    tell(error);
  }
}

function showWorkers() {
  if (!model) return;
  const count = Math.max(summary?.workers.length ?? 0, model.n);
  if (cards.length !== count) makeCards(count);
  cards.forEach((card, i) => {
    const status = summary?.workers[i];
    const state = status && !status.up ? "down" : faults[i] || (status ? "up" : "");
    card.state.textContent = STATES[state] ?? "";
    card.state.className = `state ${state}`;
    const piece = pieceOf(i);
    card.part.textContent = partOf(piece);
    const picture = piece === null ? null : pieces?.[piece];
    card.canvas.hidden = !picture;
    if (picture) {
      paint(card.canvas, bytes(picture.pixels), picture.shape);
      const [rows, columns] = picture.shape;
      const longest = Math.max(rows, columns) / 100;
      card.canvas.style.width = `${columns / longest}%`;
      card.canvas.style.height = `${rows / longest}%`;
      card.canvas.setAttribute("aria-label", `Piece ${piece}: ${card.part.textContent}`);
    }
    const [kind, text] = outcomes[i] ?? ["", ""];
    card.piece.classList.toggle("lost", kind === "lost");
    card.outcome.className = `outcome ${kind}`;
    card.outcome.textContent = text;
    for (const action of ["slow", "corrupt"]) {
      card.buttons[action]?.setAttribute("aria-pressed", String(faults[i] === action));
    }
  });
  $("scaled").hidden = !pieces;
}

/* ---- The answer ---- */

function showAnswer() {
  $("none").hidden = answer !== null;
  $("result").hidden = answer === null;
  if (!answer) return;
  $("decoded").textContent = decodedIn(answer) + (answer.checked ? " All results agree with each other." : "");
  const sure = flat(answer.confidence[0]);
  const mean = sure.reduce((sum, x) => sum + x, 0) / sure.length;
  $("confidence").textContent = sure.length ? `${percent(mean)} sure` : "";
  if (answer.degraded) {
    $("confidence").append(" ", element("span", "degraded", "degraded: too few results in time"));
  }
  const dense = model.dense || !model.classes;
  $("class").hidden = $("map").hidden = true;
  if (dense) showMap();
  else showClass(answer.classes[0]);
  showBars(dense ? shares(answer.classes[0]) : answer.probabilities[0]);
  showPhases(answer.seconds);
}

const flat = (nested) => [nested ?? []].flat(Infinity);

function decodedIn(got) {
  const lost = [...new Set(got.decoded.flat())].sort((a, b) => a - b);
  if (!lost.length) return "All data pieces arrived: nothing was decoded.";
  const stages = got.decoded.filter((list) => list.length).length;
  const where = got.decoded.length > 1 ? ` in ${stages} of ${got.decoded.length} stages` : "";
  const helpers = got.used.length > 1 ? "the others" : `the results of workers ${words(got.used[0])}`;
  return `${plural(lost.length, "Piece", "Pieces")} ${words(lost)} ${plural(lost.length, "was", "were")} decoded from ${helpers}${where}.`;
}

function showClass(number) {
  const name = model.classes[number];
  $("class").hidden = false;
  $("class").textContent = name;
  $("class").className = name.length > 2 ? "word" : "";
}

/** Returns the part of the positions that has each class. */
function shares(classes) {
  const all = flat(classes);
  if (!all.length) return [];
  return model.classes.map((_, i) => all.filter((c) => c === i).length / all.length);
}

/** Shows the class of each position as a colour, or values as grey. */
function showMap() {
  const classes = model.classes ? answer.classes[0] : null;
  const grid = classes ?? answer.logits[0];
  if (!Array.isArray(grid?.[0])) return;
  const canvas = $("map");
  [canvas.width, canvas.height, canvas.hidden] = [grid[0].length, grid.length, false];
  const context = canvas.getContext("2d");
  const value = (x) => (Array.isArray(x) ? x[0] : x);
  const all = grid.flat().map(value);
  const [low, high] = [Math.min(...all), Math.max(...all)];
  grid.forEach((row, y) =>
    row.forEach((x, column) => {
      const grey = (value(x) - low) / (high - low || 1);
      context.fillStyle = classes ? hue(x) : `rgb(${Array(3).fill(255 * grey).join(" ")})`;
      context.fillRect(column, y, 1, 1);
    }),
  );
}

const hue = (number) => `hsl(${(number * 137.5) % 360} 65% ${number ? 55 : 15}%)`;

function showBars(probabilities) {
  const names = model.classes ?? [];
  let order = probabilities.map((_, i) => i);
  const best = probabilities.indexOf(Math.max(...probabilities));
  if (order.length > SHOWN) {
    order = order.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, SHOWN);
  }
  $("bars").className = names.some((name) => name.length > 2) ? "words" : "";
  const rows = order.map((i) => {
    const row = element("li", i === best ? "best" : "");
    const bar = element("span", "bar");
    const fill = bar.appendChild(document.createElement("i"));
    fill.style.width = percent(probabilities[i]).replace(" ", "");
    if (model.dense) fill.style.background = hue(i);
    row.append(element("span", "", names[i]), bar, element("span", "", percent(probabilities[i])));
    return row;
  });
  $("bars").replaceChildren(...rows);
}

function showPhases(seconds) {
  const bars = PHASES.map((name) => {
    const bar = element("i", name);
    bar.style.flexGrow = (1000 * seconds[name]) / seconds.total;
    return bar;
  });
  const items = PHASES.map((name) => element("li", name, `${name} ${milliseconds(seconds[name])}`));
  $("total").textContent = `Answered in ${milliseconds(seconds.total)}`;
  $("phases").replaceChildren(...bars);
  $("phases").setAttribute("aria-label", items.map((item) => item.textContent).join(", "));
  $("legend").replaceChildren(...items);
}

/* ---- Live ---- */

const now = () => performance.now() / 1000;

/** Asks how the service fares, and shows it. */
async function look() {
  const [seen, demo] = await Promise.all([ask("/summary"), model.demo ? ask("/demo") : { workers: [] }]);
  if ($("problem").textContent === SILENT) $("problem").hidden = true;
  summary = seen;
  faults = demo.workers;
  history.push({ at: now(), ...seen.seconds });
  for (const list of [history, own]) while (list.length && list[0].at < now() - MINUTE) list.shift();
  showWorkers();
  showCounts();
  showLosses();
  showChart();
}

function showCounts() {
  const { answered, degraded, overload, ...failures } = summary.requests;
  const counts = {
    answered: answered + degraded,
    degraded,
    failed: Object.values(failures).reduce((sum, count) => sum + count, 0),
    refused: overload,
    "with decoding": summary.decoded === null ? "–" : `${Math.round(100 * summary.decoded)} %`,
  };
  const items = Object.entries(counts).map(([name, count]) => {
    const item = document.createElement("div");
    item.append(element("dt", "", name), element("dd", "", String(count)));
    return item;
  });
  $("counts").replaceChildren(...items);
}

function showLosses() {
  const workers = summary.workers;
  const reasons = Object.keys(workers[0]?.losses ?? {});
  document.querySelector(".table").hidden = !workers.length;
  const heads = ["worker", ...reasons, "restarts"].map((name) => {
    const head = element("th", "", name);
    head.scope = "col";
    return head;
  });
  $("reasons").replaceChildren(...heads);
  const rows = workers.map((worker, i) => {
    const row = document.createElement("tr");
    const head = element("th", "", String(i));
    head.scope = "row";
    const counts = [...reasons.map((reason) => worker.losses[reason]), worker.restarts];
    row.append(head, ...counts.map((count) => element("td", count ? "" : "none", String(count))));
    return row;
  });
  $("losses").replaceChildren(...rows);
}

function shape(tag, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function showChart() {
  const width = $("chart").clientWidth;
  $("chart").setAttribute("viewBox", `0 0 ${width} 170`);
  const [left, right, top, bottom] = [56, width - 6, 12, 140];
  const seen = history.filter((point) => point.p50 !== null);
  const most = Math.max(1e-3, ...own.map((x) => x.seconds), ...seen.map((x) => x.p99));
  const rounded = 10 ** Math.floor(Math.log10(most));
  const limit = rounded * [1, 2, 5, 10].find((factor) => factor * rounded >= most);
  const x = (at) => (right - ((now() - at) / MINUTE) * (right - left)).toFixed(1);
  const y = (seconds) => (bottom - (seconds / limit) * (bottom - top)).toFixed(1);
  const parts = [0, 0.5, 1].flatMap((part) => [
    shape("line", { x1: left, x2: right, y1: y(part * limit), y2: y(part * limit) }),
    shape("text", { x: left - 8, y: Number(y(part * limit)) + 5, "text-anchor": "end" }, scale(part * limit)),
  ]);
  parts.push(shape("text", { x: left, y: 164 }, "1 min ago"));
  parts.push(shape("text", { x: right, y: 164, "text-anchor": "end" }, "now"));
  for (const name of ["p99", "p50"]) {
    const d = seen.map((point, i) => `${i ? "L" : "M"}${x(point.at)} ${y(point[name])}`).join("");
    parts.push(shape("path", { class: name, d }));
  }
  parts.push(...own.map((point) => shape("circle", { cx: x(point.at), cy: y(point.seconds), r: 4 })));
  $("chart").replaceChildren(...parts);
  const last = seen.at(-1);
  for (const name of ["p50", "p99"]) $(name).textContent = last ? `${name} ${milliseconds(last[name])}` : name;
  $("chart").setAttribute("aria-label", last ? `${$("p50").textContent}, ${$("p99").textContent}` : "No answers yet");
}

const scale = (seconds) => (seconds === 0 ? "0" : seconds < 1 ? `${Number((1e3 * seconds).toPrecision(2))} ms` : `${seconds} s`);

/* ---- The start ---- */

function introduce() {
  const { k, r, n, stages, image_shape: shape, accuracy } = model;
  const pieces = model.images_per_input > 1 ? `${k} images are coded together` : `The image is cut into ${k} overlapping pieces`;
  const more = r === 1 ? "1 more is mixed from them" : `${r} more are mixed from them`;
  $("idea").textContent =
    `${pieces}, and ${more}: parity. Each of the ${n} goes through the network on a worker of its own. ` +
    `Any ${k} results are enough: what the others would have said is decoded, and nobody waits for a slow or dead worker.`;
  const facts = [[model.base_model, model.dataset].filter(Boolean).join(" on "), `k=${k}, r=${r}`];
  if (stages > 1) facts.push(`${stages} stages, of which the pieces of the first are shown`);
  facts.push(`images ${shape.join(" × ")}`);
  if (accuracy.base !== null) facts.push(`accuracy ${percent(accuracy.base)}, uncoded`);
  accuracy.lost.forEach((mean, lost) => {
    if (lost && mean !== null && mean !== undefined) facts.push(`${percent(mean)} with ${lost} lost`);
  });
  $("model").textContent = facts.filter(Boolean).join(" · ");
  $("prompt").textContent = !drawable() ? "Choose an image" : /^mnist/.test(model.dataset ?? "") ? "Draw a digit" : "Draw, or choose an image";
  $("hint").textContent = drawable() ? "draw here" : "drop an image";
  board.classList.toggle("draws", drawable());
  if (!usable()) {
    $("note").textContent = "This network takes no pictures but numbers: send them to POST /predict.";
    $("file").disabled = true;
    $("hint").hidden = true;
  }
}

function listen() {
  board.addEventListener("pointerdown", startStroke);
  board.addEventListener("pointermove", goOn);
  board.addEventListener("pointerup", endStroke);
  board.addEventListener("pointercancel", endStroke);
  $("ask").addEventListener("click", send);
  $("clear").addEventListener("click", clear);
  $("file").addEventListener("change", (event) => {
    takeFile(event.target.files[0]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  const over = (event, on) => {
    event.preventDefault();
    $("drop").classList.toggle("over", on);
  };
  document.addEventListener("dragover", (event) => over(event, true));
  document.addEventListener("dragleave", (event) => over(event, false));
  document.addEventListener("drop", (event) => {
    over(event, false);
    takeFile(event.dataTransfer.files[0]);
  });
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", $("token").value);
    $("access").hidden = true;
    start();
  });
}

let timer = 0;

/** Looks at the service once a second while the page is to be seen. */
async function watch() {
  clearTimeout(timer);
  if (document.visibilityState === "visible") {
    try {
      await look();
      if ($("repeat").checked) await send();
    } catch (error) {
      tell(error);
    }
  }
  if ($("access").hidden) timer = setTimeout(watch, POLL);
}

async function start() {
  try {
    model = await ask("/model");
  } catch (error) {
    return tell(error);
  }
  introduce();
  clear();
  watch();
  await showSamples().catch(() => {}); // the page does without them
}

listen();
start();
