// How things are written: elements without markup, and numbers, sizes, times and types in words.

const SVG = "http://www.w3.org/2000/svg";
const GROUPED = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** An element with attributes, listeners (`onclick`) and children; a text stays text whatever it says. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in a drawing. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the page with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Writes a text where it is another one: what has not changed is not read out again, and keeps its selection. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The same for an attribute; null takes it away. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Brings the children of `parent` that have a key to these items in their order: one element for each key, made once and
 * then updated, so that focus and selection stay where they are.
 */
export function keep(parent, items, keyOf, create, update) {
  const wanted = new Set(items.map(keyOf));
  const keyed = [...parent.children].filter((child) => child.dataset.key !== undefined);
  const had = new Map(keyed.map((child) => [child.dataset.key, child]));
  had.forEach((element, key) => wanted.has(key) || element.remove());
  let place = keyed.find((element) => element.isConnected) ?? null;
  for (const item of items) {
    const key = keyOf(item);
    const element = had.get(key) ?? create(item);
    element.dataset.key = key;
    update(element, item);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
  }
}

/** All digits, as long as a column holds them. */
export function count(number) {
  return GROUPED.format(number);
}

export function counted(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

export function short(number) {
  return SHORT.format(number);
}

export function bytes(number) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  for (; number >= 1000 && unit < units.length - 1; unit++) number /= 1000;
  return `${number < 10 && unit > 0 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

/** A span of time in one unit: `3.2 ms`, `1.2 s`, `4 min`, `3 h`, `2 d`. */
export function span(ms) {
  for (const [unit, word, next] of UNITS) {
    const number = ms / unit;
    if (number < next)
      return `${number < 10 && word.endsWith("s") && number > 0 ? number.toFixed(1) : Math.floor(number)} ${word}`;
  }
  return "";
}

const UNITS = [
  [1, "ms", 1000],
  [1000, "s", 60],
  [60_000, "min", 60],
  [3_600_000, "h", 48],
  [86_400_000, "d", Infinity],
];

/** How long ago `moment` was; `now` is the server's. Whole seconds: what changes all the time is not read. */
export function ago(moment, now) {
  const seconds = Math.floor((now - Date.parse(moment)) / 1000);
  return seconds < 1 ? "now" : `${span(seconds * 1000).replace(".0", "")} ago`;
}

/** The time of day here. */
export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

/** An Arrow type as one reads it: `int64`, `decimal(38, 4)`, `timestamp`. */
export function typeWord(type) {
  if (typeof type === "string") return TYPE_WORDS[type] ?? type.toLowerCase();
  const [name, of] = Object.entries(type ?? {})[0] ?? ["", null];
  if (name.startsWith("Decimal")) return `decimal(${of.join(", ")})`;
  if (name === "Timestamp") return of[1] ? "timestamptz" : "timestamp";
  if (name === "Dictionary") return typeWord(of[1]);
  return name.toLowerCase();
}

const TYPE_WORDS = { Utf8View: "utf8", LargeUtf8: "utf8", BinaryView: "binary", LargeBinary: "binary" };

/** Whether values of this Arrow type are numbers. */
export function isNumber(type) {
  const name = typeof type === "string" ? type : (Object.keys(type ?? {})[0] ?? "");
  return /^(U?Int|Float|Decimal)\d+$/.test(name);
}
