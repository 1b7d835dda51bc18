"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;

// Theme

const THEMES = ["system", "light", "dark"];
function setTheme(theme) {
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  document.getElementById("theme").textContent = `Theme: ${theme}`;
  try { localStorage.setItem("mfbench-theme", theme); } catch { /* a page opened from a file may have no storage */ }
}
let stored = null;
try { stored = localStorage.getItem("mfbench-theme"); } catch { /* as above */ }
setTheme(THEMES.includes(stored) ? stored : "system");
document.getElementById("theme").addEventListener("click", () => {
  setTheme(THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length]);
});

// Tables

function compareKeys(a, b) {
  if (a === b) return 0;
  if (a === "") return 1;
  if (b === "") return -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

// A row has texts, numbers to sort by, whether its last text is a reason, and an element once it was shown.
function rowsOf(table, { keys, rest }) {
  const laidOut = [...table.tBodies[0].rows].map((element) => ({
    element,
    texts: [...element.cells].map((cell) => cell.textContent),
    reason: element.lastElementChild.className === "reason",
  }));
  const rows = [...laidOut, ...rest.map(([texts, reason, failed]) => ({ texts, reason, failed }))];
  rows.forEach((row, i) => Object.assign(row, { number: i, keys: keys[i] }));
  return rows;
}

function elementOf(row, table) {
  if (row.element) return row.element;
  const opens = "opens" in table.tBodies[0].dataset, made = document.createElement("tr");
  if (row.failed) made.className = "bad";
  row.texts.forEach((text, i) => {
    const cell = made.insertCell();
    const holder = i === 0 && opens ? cell.appendChild(document.createElement("button")) : cell;
    if (holder !== cell) holder.setAttribute("aria-expanded", "false");
    holder.appendChild(document.createElement("bdi")).textContent = text;
    if (OUTCOMES.includes(text)) cell.className = text.replace(" ", "-");
    if (row.reason && i === row.texts.length - 1) {
      cell.className = "reason";
      cell.colSpan = table.tHead.rows[0].cells.length - i;
    }
  });
  return (row.element = made);
}

const OUTCOMES = ["faster", "slower", "same", "inconclusive", "broken", "fixed", "still failing"];
const MOST_ROWS = 200; // shown until more are requested

function interactive(table, content) {
  const rows = rowsOf(table, content);
  const headings = [...table.tHead.rows[0].cells];
  const [input, count, more] = ["filter", "count", "more"].map((role) =>
    document.querySelector(`[data-${role}="${table.id}"]`));
  let most = MOST_ROWS;
  const show = () => {
    const words = (input?.value ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter((row) => {
      row.search ??= row.texts.join(" ").toLowerCase();
      return words.every((word) => row.search.includes(word));
    });
    closeStrips(table);
    table.tBodies[0].replaceChildren(...found.slice(0, most).map((row) => elementOf(row, table)));
    if (count) count.textContent = found.length === rows.length ? `${rows.length} rows` : `${found.length} of ${rows.length} rows`;
    if (more) more.hidden = found.length <= most;
  };
  input?.addEventListener("input", show);
  more?.querySelector("button").addEventListener("click", () => { most = Infinity; show(); });
  headings.forEach((heading, column) => heading.firstChild.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = ({ keys, texts, reason }) =>
      keys[column] ?? (column < texts.length - reason ? texts[column] : "");
    rows.sort((p, q) => {
      const a = key(p), b = key(q), order = compareKeys(a, b);
      return (down && a !== "" && b !== "" ? -order : order) || p.number - q.number;
    });
    show();
  }));
  return rows;
}

function closeStrips(table) {
  for (const strip of table.querySelectorAll("tr.strip")) strip.remove();
  for (const button of table.querySelectorAll('[aria-expanded="true"]')) button.setAttribute("aria-expanded", "false");
}

// Strips: the raw samples of a run, and the medians of all runs

const WIDTH = 780, LEFT = 64, RIGHT = 12, TOP = 12, BOTTOM = 24;

function seconds(value) {
  for (const [unit, scale] of [["s", 1], ["ms", 1e-3], ["µs", 1e-6]]) {
    if (value >= scale) return `${Number((value / scale).toPrecision(3))} ${unit}`;
  }
  return `${Number((value / 1e-9).toPrecision(3))} ns`;
}

function unpack({ lo, hi, q }) {
  const bytes = Uint8Array.from(atob(q), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 2 }, (_, i) => lo + (view.getUint16(2 * i, true) / 65535) * (hi - lo));
}

function element(name, attributes, parent, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

function chart(values, height, label) {
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label });
  const known = values.filter((value) => value !== null);
  let lo = Math.min(...known), hi = Math.max(...known);
  if (hi - lo < 0.02 * hi) [lo, hi] = [lo - 0.01 * hi, hi + 0.01 * hi];
  const x = (i) => LEFT + ((i + 0.5) / values.length) * (WIDTH - LEFT - RIGHT);
  const logarithmic = hi > 3 * lo; // otherwise an outlier flattens the rest
  const scale = logarithmic ? Math.log : (value) => value;
  const y = (value) => TOP + ((scale(hi) - scale(value)) / (scale(hi) - scale(lo))) * (height - TOP - BOTTOM);
  for (let tick = 0; tick <= 3; tick++) {
    const value = logarithmic ? lo * (hi / lo) ** (tick / 3) : lo + (tick / 3) * (hi - lo);
    element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), stroke: "var(--grid)" }, svg);
    element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, svg, seconds(value));
  }
  element("text", { x: LEFT, y: height - 6 }, svg, logarithmic ? `${label} (log scale)` : label);
  return { svg, x, y };
}

function drawSamples(item, run) {
  const packed = item.samples[run];
  const note = document.createElement("p");
  const [, median, status] = item.runs[run];
  if (!packed) {
    note.textContent = status ? `Not timed: ${status}.` : `No raw samples here; median ${seconds(median)}.`;
    return note;
  }
  const values = unpack(packed);
  const { svg, x, y } = chart(values, 190, `samples 1 to ${values.length} in the order measured; the line is the median`);
  element("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(median), y2: y(median), stroke: "var(--s1)" }, svg);
  const points = values.map((value, i) => `${x(i).toFixed(1)},${y(value).toFixed(1)}`);
  element("polyline", { points: points.join(" "), fill: "none", stroke: "var(--s0)", "stroke-opacity": 0.3 }, svg);
  element("path", { d: points.map((point) => `M${point}m-2.5 0a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0`).join(""),
    fill: "var(--s0)" }, svg);
  return svg;
}

function drawHistory(item, choose) {
  const medians = item.runs.map((run) => run[1]);
  if (medians.length < 2 || medians.every((median) => median === null)) return null;
  const { svg, x, y } = chart(medians, 150, `medians of ${medians.length} runs; click a mark for its samples`);
  for (const change of item.changes) {
    element("line", { x1: x(change - 0.5), x2: x(change - 0.5), y1: TOP, y2: 150 - BOTTOM, stroke: "var(--bad)",
      "stroke-dasharray": "4 3" }, svg);
  }
  item.runs.forEach(([run, median, status], i) => {
    const [name, time] = data.runs[run];
    const failed = median === null;
    const mark = element("circle", { cx: x(i), cy: failed ? 150 - BOTTOM : y(median), r: medians.length > 60 ? 2.5 : 4,
      fill: failed ? "var(--bad)" : "var(--s2)" }, svg);
    element("title", {}, mark, `${time} ${name}: ${failed ? status : seconds(median)}`);
    mark.addEventListener("click", () => choose(i));
  });
  return svg;
}

function toggleStrip(row, item) {
  const button = row.cells[0].querySelector("button");
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  if (open) return row.nextElementSibling.remove();
  const strip = document.createElement("tr");
  strip.className = "strip";
  const cell = strip.insertCell();
  cell.colSpan = row.cells.length;
  const holder = cell.appendChild(document.createElement("div"));
  const title = document.createElement("p"), samples = document.createElement("div");
  const choose = (run) => {
    const [name, time] = data.runs[item.runs[run][0]];
    title.textContent = item.runs.length > 1 ? `${time.replace("T", " ")} · ${name}` : "";
    samples.replaceChildren(drawSamples(item, run));
  };
  choose(item.runs.length - 1);
  holder.append(title, samples);
  const history = drawHistory(item, choose);
  if (history) holder.append(history);
  row.after(strip);
}

for (const [name, content] of Object.entries(data.tables)) {
  const table = document.getElementById(name);
  if (!table) continue;
  const rows = interactive(table, content);
  if (name !== "results") continue;
  table.tBodies[0].addEventListener("click", (event) => {
    const element = event.target.closest("td > button")?.closest("tr");
    if (element) toggleStrip(element, data.items[rows.find((row) => row.element === element).number]);
  });
}
